//! What comes of a consent: a grant that is kept until its code comes back, or nothing.

use super::{Consents, Done, Given, Known, Ready, Trouble, random};
use crate::api::{ApplicationLink, names};
use crate::domain::token;
use crate::http::Trust;
use crate::link::consent::record::{self, Consent, Purpose, Stage, Ticket, code_of, digest};
use crate::link::consent::trouble::Stranger;
use crate::link::decide::unrenewed;
use crate::link::execute::{Patience, give_back_grant};
use crate::link::grant::{Access, Grant, Kept, LinkRef};
use crate::link::problem::{Mend, Problem};
use crate::outgoing::{TokenError, owner_of, presets};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use std::collections::BTreeSet;

/// The type of a token that a plain client can't use.
fn unusable_type(ready: &Ready, consent: &Consent) -> Option<&'static str> {
    let custom = ready.goal.server.preset.name == presets::CUSTOM.name;
    consent
        .grant
        .access
        .as_ref()
        .filter(|_| custom)
        .and_then(|access| token::asks_for_proof(&access.token_type))
}

impl Consents {
    /// Keeps what was granted until its code comes back.
    pub(super) async fn granted(
        &self,
        ready: &Ready,
        known: &Known,
        consent: &mut Consent,
        version: &str,
        given: &Given<'_>,
    ) -> Result<Done, Trouble> {
        let Given { reply, issued_at, nonce } = *given;
        let access = Access::consented(reply, issued_at, &ready.goal.scopes);
        let http = self.ctx.guard.client(Trust::Guarded, None);
        let Known { endpoints, client } = known;
        let owner = owner_of(&http, ready.goal.server.preset, endpoints, client, reply, nonce).await;
        let granted: BTreeSet<String> =
            access.scope.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect();
        consent.grant.refresh_token = reply.refresh_token.clone().map(Kept);
        consent.grant.access = Some(access);
        let owner = match owner {
            Ok(owner) => owner,
            Err(why) => {
                let given_back = self.give_back(&consent.grant).await;
                return Err(Trouble::IdToken { why, given_back });
            }
        };
        consent.grant.account = owner.as_ref().map(|o| o.account.clone());
        let code = match self.keep(ready, consent, version).await {
            Ok(code) => code,
            Err(trouble) => {
                let given_back = self.give_back(&consent.grant).await;
                return Err(match trouble {
                    Trouble::Stranger { why, .. } => Trouble::Stranger { why, given_back },
                    trouble => trouble,
                });
            }
        };
        let ends = consent.grant.access.as_ref().map(|access| access.expires_at);
        let ends = ends.zip(unrenewed(&ready.goal, &consent.grant));
        let asked = ready.goal.scopes.iter().map(|s| s.as_str().to_owned());
        Ok(Done {
            namespace: ready.of.namespace.clone(),
            name: ready.of.name.clone(),
            application: ready.link.spec.application.name.clone(),
            owner,
            missing: asked.filter(|s| !granted.contains(s)).collect(),
            scopes: granted.into_iter().collect(),
            ends,
            code: code.into(),
            port: ready.ticket.port,
        })
    }

    /// Gives back what isn't taken, unless that may end the grant that the link lives on, or tells another server of
    /// it. Says whether it was revoked.
    async fn give_back(&self, grant: &Grant) -> bool {
        if !grant.is_revoked_at_home() {
            return false;
        }
        match self.ctx.store.grant(&grant.link.uid).await {
            Ok(held) if held.as_ref().is_none_or(|(held, _)| !grant.may_be_one_with(held)) => {
                give_back_grant(&self.ctx, grant).await
            }
            _ => false,
        }
    }

    /// Stores a grant of the right account, and gives the code that makes it active.
    async fn keep(&self, ready: &Ready, consent: &mut Consent, version: &str) -> Result<String, Trouble> {
        // At a custom server alone: what the presets' servers give is known, and of use.
        if let Some(name) = unusable_type(ready, consent) {
            return Err(Trouble::Token(TokenError::TokenType(name)));
        }
        Stranger::check(ready.goal.grant.expected(), consent.grant.account.as_ref())
            .map_err(|why| Trouble::Stranger { why, given_back: false })?;
        let code = code_of(&random()?);
        let completion = digest(Purpose::Completion, &record::normal(&code));
        consent.stage = Stage::Granted { completion };
        // The server won't give it again: an API server that is away for a moment doesn't lose it.
        let mut patience = Patience::new(&self.ctx.tenure);
        loop {
            let problem = match self.ctx.store.save_consent(consent, Some(version)).await {
                Ok(_) => return Ok(code),
                Err(problem) => problem,
            };
            // Our own write may have gone through unanswered.
            if problem.mend == Mend::Conflict {
                let stored = self.ctx.store.consent(&consent.link.uid).await;
                match stored {
                    Ok(Some((stored, _))) if stored.stage == consent.stage => return Ok(code),
                    Ok(_) => return Err(Trouble::of(&problem)),
                    Err(_) => {}
                }
            }
            patience.after(problem).await.map_err(|p| Trouble::of(&p))?;
        }
    }

    /// Takes the ticket of a consent that came to nothing off the link, so that the tool stops waiting. One
    /// that can't be taken off is over by itself.
    pub(super) async fn end(&self, consent: &Consent) {
        let LinkRef { namespace, name, uid } = &consent.link;
        let api: Api<ApplicationLink> = Api::namespaced(self.ctx.client.clone(), namespace);
        let Ok(Some(link)) = api.get_opt(name).await else { return };
        let now = Timestamp::now();
        let ticket = link.annotations().get(names::AUTHORIZE).and_then(|t| Ticket::read(t, now));
        if link.uid().as_ref() != Some(uid) || ticket.is_none_or(|t| t.ticket != consent.ticket) {
            return;
        }
        let patch = serde_json::json!({"metadata": {
            "resourceVersion": link.resource_version(), "annotations": {names::AUTHORIZE: null},
        }});
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        if let Err(e) = api.patch_metadata(name, &params, &Patch::Merge(patch)).await {
            let p = Problem::kube("the link", &e);
            tracing::debug!(reason = p.reason, "a ticket that is used up couldn't be taken off");
        }
    }
}
