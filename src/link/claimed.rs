//! Which of the claims that stand on a link count: those that the operator wrote for it. One of a version
//! that wrote no proofs counts where the link may have been registered there all the same; it is proven
//! with the next pass.

use super::claim::{self, Claim, Standing};
use super::context::Context;
use super::kept_client::KeptClients;
use super::problem::Problem;
use super::providers::{self, ProviderView};
use crate::api::ApplicationLink;
use crate::api::link::{ProviderKind, ProviderStatusRef};
use crate::domain::KeyRing;
use std::collections::BTreeMap;

/// So many claims without a proof are looked into: the versions that wrote them wrote no more.
const MOST_UNPROVEN: usize = 8;

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
        let all = ctx.providers();
        let mut claims: Vec<Claim> = Vec::new();
        let mut unproven = 0;
        for stated in claim::read(self.annotations) {
            let counts = match stated.standing(keys, self.namespace, self.uid) {
                Standing::Proven => true,
                // A proof for another UID may be this link's own, of before it was restored.
                Standing::Forged | Standing::Unproven if unproven < MOST_UNPROVEN => {
                    unproven += 1;
                    self.may_be(ctx, &all, &stated.claim).await?
                }
                Standing::Forged | Standing::Unproven => false,
            };
            if counts && !claims.contains(&stated.claim) {
                claims.push(stated.claim);
            }
        }
        Ok(claims)
    }

    /// Whether one claim counts.
    ///
    /// # Errors
    /// As of [`Self::claims`].
    pub async fn has(&self, ctx: &Context, keys: &KeyRing, claim: &Claim) -> Result<bool, Problem> {
        let stated: Vec<_> =
            claim::read(self.annotations).into_iter().filter(|s| s.claim == *claim).collect();
        if stated.iter().any(|s| s.standing(keys, self.namespace, self.uid) == Standing::Proven) {
            return Ok(true);
        }
        if stated.is_empty() { Ok(false) } else { self.may_be(ctx, &ctx.providers(), claim).await }
    }

    /// Whether the link may have been registered there by a version that wrote no proofs, or before it
    /// was restored.
    async fn may_be(&self, ctx: &Context, all: &[ProviderView], claim: &Claim) -> Result<bool, Problem> {
        let live = all.iter().find(|v| v.claim == *claim && v.is_visible_to(self.namespace));
        let said = self.said.is_some_and(|p| p.kind == claim.kind && p.name == claim.name);
        let may_use = match (live, claim.kind) {
            (Some(_), ProviderKind::LinkProvider) => true,
            (Some(_), ProviderKind::ClusterLinkProvider) if said => true,
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
        let identity = record.identity(self.namespace, all);
        let keeps = |kept: &KeptClients| {
            kept.at.contains_key(&identity.own) || kept.at.contains_key(&identity.service)
        };
        Ok(match record.kind {
            ProviderKind::LinkProvider => record.namespace.as_deref() == Some(self.namespace),
            ProviderKind::ClusterLinkProvider => said || self.kept.is_some_and(keeps),
        })
    }
}
