//! Which of the claims that stand on a link count: those that the operator wrote for it. One of a version
//! that wrote no proofs counts where the link may have been registered there all the same; it is proven
//! with the next pass.

use super::claim::{self, Claim, Standing};
use super::context::Context;
use super::kept_client::KeptClients;
use super::problem::Problem;
use super::providers;
use crate::api::ApplicationLink;
use crate::api::link::{ProviderKind, ProviderStatusRef};
use crate::domain::KeyRing;
use std::collections::BTreeMap;

/// What is known of a link whose claims are looked at.
pub struct Claimant<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its UID.
    pub uid: &'a str,
    /// Its annotations.
    pub annotations: &'a BTreeMap<String, String>,
    /// The provider that its status names; no tenant writes that.
    pub said: Option<&'a ProviderStatusRef>,
    /// What is kept of its clients.
    pub kept: Option<&'a KeptClients>,
}

impl<'a> Claimant<'a> {
    /// A link as the cache has it.
    pub fn of(link: &'a ApplicationLink) -> Self {
        let meta = &link.metadata;
        static NONE: BTreeMap<String, String> = BTreeMap::new();
        Self {
            namespace: meta.namespace.as_deref().unwrap_or_default(),
            uid: meta.uid.as_deref().unwrap_or_default(),
            annotations: meta.annotations.as_ref().unwrap_or(&NONE),
            said: link.status.as_ref().and_then(|s| s.provider.as_ref()),
            kept: None,
        }
    }

    /// The claims that count.
    ///
    /// # Errors
    /// [`Problem`] when it can't be found out whether one without a proof does.
    pub async fn claims(&self, ctx: &Context, keys: &KeyRing) -> Result<Vec<Claim>, Problem> {
        let mut claims: Vec<Claim> = Vec::new();
        for stated in claim::read(self.annotations) {
            let counts = match stated.standing(keys, self.namespace, self.uid) {
                Standing::Proven => true,
                Standing::Forged => false,
                Standing::Unproven => self.may_be(ctx, &stated.claim).await?,
            };
            if counts && !claims.contains(&stated.claim) {
                claims.push(stated.claim);
            }
        }
        Ok(claims)
    }

    /// Whether the link may have been registered there by a version that wrote no proofs.
    async fn may_be(&self, ctx: &Context, claim: &Claim) -> Result<bool, Problem> {
        if self.said.is_some_and(|p| p.kind == claim.kind && p.name == claim.name) {
            return Ok(true);
        }
        let all = ctx.providers();
        let live = all.iter().find(|v| v.claim == *claim && v.is_visible_to(self.namespace));
        let may_use = match (live, claim.kind) {
            (Some(_), ProviderKind::LinkProvider) => true,
            (Some(view), ProviderKind::ClusterLinkProvider) => {
                let space = ctx.namespaces.get(&ctx.client, self.namespace, None).await?;
                providers::permit(view, self.namespace, &space.labels).is_ok()
            }
            (None, _) => false,
        };
        if may_use {
            return Ok(true);
        }
        let Some((record, _)) = ctx.store.provider(&claim.uid).await? else { return Ok(false) };
        if record.kind != claim.kind || record.name != claim.name {
            return Ok(false);
        }
        let identity = record.identity(&all);
        let keeps = |kept: &KeptClients| {
            kept.at.contains_key(&identity.own) || kept.at.contains_key(&identity.service)
        };
        Ok(match record.kind {
            ProviderKind::LinkProvider => record.namespace.as_deref() == Some(self.namespace),
            ProviderKind::ClusterLinkProvider => self.kept.is_some_and(keeps),
        })
    }
}
