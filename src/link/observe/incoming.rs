//! What the incoming part rests on: the place where its client is, the client there, and whether the
//! credentials that we have of it authenticate.

use super::connection;
use crate::api::ApplicationLink;
use crate::api::link::ProviderKind;
use crate::api::provider::Service;
use crate::domain::{ClientId, KeyRing, Reason, SecretString};
use crate::link::claim::Claim;
use crate::link::connections::Connected;
use crate::link::context::Context;
use crate::link::derive::{self, Source};
use crate::link::facts::{IncomingFacts, Observed, Place};
use crate::link::grant::Kept;
use crate::link::identity::Identity;
use crate::link::lend;
use crate::link::problem::{Mend, Problem};
use crate::link::providers::{self, ProviderView};
use crate::link::secrets::Secrets;
use crate::link::validate::{IncomingGoal, ValidatedLink};
use crate::provider::{ClientRef, Proof, RegisteredClient};
use kube::ResourceExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;
use url::Url;

/// What one pass has read so far, and looks with.
pub(super) struct Look<'a> {
    pub(super) ctx: &'a Context,
    pub(super) link: &'a ApplicationLink,
    pub(super) namespace_labels: &'a BTreeMap<String, String>,
    pub(super) all: &'a [ProviderView],
    pub(super) keys: &'a KeyRing,
    pub(super) secrets: &'a Secrets,
}

impl Look<'_> {
    pub(super) async fn incoming(
        &self,
        valid: &ValidatedLink,
        goal: &IncomingGoal,
        seen: &mut Observed,
    ) -> (IncomingFacts, Option<Arc<Connected>>) {
        let (place, secret) = futures::join!(
            place(self.ctx, valid, seen, self.namespace_labels, self.all),
            self.ctx.look_at(self.secrets, &goal.secret.name, self.link)
        );
        let mut facts = IncomingFacts {
            place: Err(Problem::wait(Reason::ProviderNotReady, "nobody looked there yet")),
            at: None,
            client: None,
            adopt_secret: None,
            proof: None,
            controlled: false,
            secret,
            unwritable: None,
        };
        let (place, connected) = match place {
            Ok(found) => found,
            Err(problem) => {
                facts.place = Err(problem);
                return (facts, None);
            }
        };
        let adopt = goal.adopt.as_ref();
        if let Some(adopt) = adopt
            && let Err(problem) = self.adopted_by_nobody_else(&place, &adopt.id, seen).await
        {
            facts.place = Err(problem);
            return (facts, None);
        }
        let kept = seen.kept_at(&place.identity);
        let at = derive::lookup(self.keys, &place.identity, place.caps, adopt.map(|a| &a.id), kept, seen);
        let Some(at) = at else {
            facts.place = Ok(place);
            return (facts, Some(connected));
        };
        match client_at(self.ctx, &place.claim, &connected, &at, &place.identity, self.link, seen).await {
            Ok(mut client) => {
                // What we kept is gone; another of our name may be there, and its name is taken.
                let tag = derive::client_tag(self.keys, &place.identity, seen);
                let mut by_tag = None;
                if let (None, Some(tag)) = (&client, tag)
                    && !place.caps.chooses_id
                    && place.caps.lists
                    && seen.kept_at(&place.identity).is_some()
                {
                    let at = ClientRef { id: tag, handle: None };
                    match client_at(self.ctx, &place.claim, &connected, &at, &place.identity, self.link, seen)
                        .await
                    {
                        Ok(found) => client = found,
                        Err(problem) => {
                            facts.place = Err(problem);
                            return (facts, None);
                        }
                    }
                    by_tag = client.is_some().then_some(at);
                }
                if let (Some((name, key)), None) =
                    (adopt.and_then(|a| a.secret.as_ref()), seen.kept_at(&place.identity))
                {
                    let field = "spec.incoming.adopt.secretRef";
                    facts.adopt_secret = Some(self.secret_to_adopt(&place, name, key, field).await);
                }
                facts.client = client;
                facts.controlled = connected.is_controlled();
                facts.proof = self.prove(goal, seen, &place, &connected, &at, &facts).await;
                // What the answer changed is known to be kept by now.
                let kept = seen.kept_at(&place.identity);
                facts.at = by_tag.or_else(|| {
                    derive::lookup(self.keys, &place.identity, place.caps, adopt.map(|a| &a.id), kept, seen)
                });
                facts.place = Ok(place);
            }
            Err(problem) => facts.place = Err(problem),
        }
        (facts, Some(connected))
    }

    /// The secret of a client to adopt, where it may be shown to the provider.
    async fn secret_to_adopt(
        &self,
        place: &Place,
        name: &str,
        key: &str,
        field: &str,
    ) -> Result<SecretString, Problem> {
        let reader = self.secrets.reader([(name, key)]);
        let value = reader.value(name, key, Reason::AdoptionSecretMissing, field).await?;
        let view = self.all.iter().find(|v| v.claim == place.claim);
        let addresses = view.and_then(|v| v.service.as_ref()).map(Service::addresses).unwrap_or_default();
        let named = [Some(place.info.token_endpoint.as_str()), place.info.revocation_endpoint.as_deref()];
        let urls: Vec<Url> = addresses
            .into_iter()
            .chain(named.into_iter().flatten())
            .filter_map(|a| Url::parse(a).ok().filter(Url::has_host))
            .collect();
        let targets: Vec<_> = urls.iter().map(|url| ("provider", url)).collect();
        let demanded = self.ctx.require_allowed_hosts && place.claim.kind == ProviderKind::LinkProvider;
        lend::check(&reader.all(), demanded, &targets)?;
        Ok(value)
    }

    /// Where a service keeps no owners, our own records say whose an adopted client is.
    async fn adopted_by_nobody_else(
        &self,
        place: &Place,
        id: &ClientId,
        seen: &Observed,
    ) -> Result<(), Problem> {
        // Who may not adopt it isn't told whose it is.
        let listed = place.adoptable.iter().any(|a| a == id.as_str());
        if place.caps.tells_owner || !listed || seen.kept_at(&place.identity).is_some() {
            return Ok(());
        }
        let (taken, store) = (&self.ctx.taken, &self.ctx.store);
        if taken.by_another(store, &place.identity, id.as_str(), &seen.uid).await? {
            return Err(Problem::edit(
                Reason::ClientConflict,
                format!(
                    "spec.incoming.adopt.clientId: client {id} is another link's already; one client has one link"
                ),
            ));
        }
        Ok(())
    }

    /// Proves the credentials that the client should have: the ones that we made or kept, or the
    /// ones of a client to adopt.
    async fn prove(
        &self,
        goal: &IncomingGoal,
        seen: &Observed,
        place: &Place,
        connected: &Connected,
        at: &ClientRef,
        facts: &IncomingFacts,
    ) -> Option<Proof> {
        let client = facts.client.as_ref()?;
        if goal.metadata.auth_method.is_public() || client.protected {
            return None;
        }
        let kept = seen.kept_at(&place.identity);
        let present =
            derive::present(self.keys, &place.identity, place.caps, &at.id, Some(client), kept, seen);
        // Also after a try that kept the record and came no further: the mark makes it ours.
        let unmarked = if place.caps.tells_owner { client.owner.is_none() } else { kept.is_none() };
        let adopting = goal.adopt.is_some() && unmarked;
        let registered = client.metadata.as_ref().map(|m| m.auth_method);
        if adopting {
            // Nobody tries secrets on clients that aren't for this namespace to adopt.
            if !place.adoptable.iter().any(|a| a == client.id.as_str()) {
                return None;
            }
            let secret = match (&facts.adopt_secret, kept.and_then(|k| k.secret.as_ref())) {
                (Some(given), _) => given.as_ref().ok().cloned(),
                (None, Some(kept)) => Some(kept.0.clone()),
                (None, None) => client.secret.clone(),
            }?;
            let method = registered.unwrap_or(goal.metadata.auth_method);
            return Some(connected.prove(&client.id, &secret, method).await);
        }
        // Only what may come out as it should is worth a call: another method needs a write anyway. That
        // of an adopted client changes only while its secret is seen to work as it is.
        let adopted = goal.adopt.as_ref().is_some_and(|a| a.id == client.id);
        let method = registered.filter(|m| adopted || *m == goal.metadata.auth_method)?;
        if method.is_public() {
            return None;
        }
        // What was made for another provider isn't shown to this one.
        let secret = present
            .secret
            .filter(|_| present.source != Source::Derived || place.identity.may_have(&present.made_for))?;
        Some(connected.prove(&client.id, &secret, method).await)
    }
}

async fn place(
    ctx: &Context,
    valid: &ValidatedLink,
    seen: &Observed,
    labels: &BTreeMap<String, String>,
    all: &[ProviderView],
) -> Result<(Place, Arc<Connected>), Problem> {
    let view = providers::choose(valid.provider_ref.as_ref(), &seen.claims, &seen.namespace, all)?;
    let permit = providers::permit(view, &seen.namespace, labels)?;
    let name = providers::full_name(view);
    if view.deleting && !seen.claims.contains(&view.claim) {
        return Err(Problem::wait(
            Reason::ProviderDeleting,
            format!("{name} is being deleted; name another one"),
        ));
    }
    if !view.held {
        return Err(Problem::wait(
            Reason::ProviderNotReady,
            format!("{name} isn't taken up yet; see its conditions"),
        ));
    }
    let connected = connection(ctx, view).await.map_err(|p| Problem {
        // Its own conditions say what is wrong with it; for a link it is something to wait for.
        mend: Mend::Wait,
        message: format!("{name}: {}", p.message),
        ..p
    })?;
    let identity =
        view.identity(connected.recorded_before, &seen.namespace, all).ok_or_else(super::no_service)?;
    let place = Place {
        claim: view.claim.clone(),
        identity,
        type_: view.service.as_ref().map_or("", Service::type_),
        info: connected.info.clone(),
        caps: connected.provider.capabilities(),
        adoptable: permit.adoptable,
        rebind: permit.rebind,
        allow: permit.restrictions,
    };
    Ok((place, connected))
}

/// The client at a place. What the provider wants to see at the next call is kept at once: it may
/// be worth nothing what was kept before.
pub(super) async fn client_at(
    ctx: &Context,
    claim: &Claim,
    connected: &Connected,
    at: &ClientRef,
    identity: &Identity,
    link: &ApplicationLink,
    seen: &mut Observed,
) -> Result<Option<RegisteredClient>, Problem> {
    let client = connected.provider.get(at).await.map_err(|e| {
        let problem = Problem::from(&e);
        if matches!(problem.why, Reason::ProviderUnreachable | Reason::ProviderUnauthorized) {
            ctx.connections.failed(&claim.uid, &problem);
        }
        problem
    })?;
    if let Some(handle) = client.as_ref().and_then(|c| c.handle.clone())
        && let Some((kept, version)) = &mut seen.kept
        && let Some(entry) = kept.at.get_mut(&identity.own).filter(|entry| entry.bound)
        && client.as_ref().is_some_and(|c| c.id.as_str() == entry.id)
        && entry.handle != Some(Kept(handle.clone()))
    {
        entry.handle = Some(Kept(handle));
        *version = ctx.store.keep_clients(kept, Some(version)).await?;
        tracing::debug!(link = %link.name_any(), "kept what the provider wants to see at the next call");
    }
    Ok(client)
}
