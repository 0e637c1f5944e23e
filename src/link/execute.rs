//! Does what a plan says, effect by effect: the only writer but for the status.

use super::claim;
use super::context::Context;
use super::decide::token_secret;
use super::ended::Version;
use super::facts::{Observed, Refused};
use super::grant::{Access, Grant, Intent, Kept, LinkRef};
use super::kept_client::KeptClients;
use super::observe::Handles;
use super::plan::{Effect, KeepClient, Part, Plan, Publication, SecretWrite, TokenPlan};
use super::problem::{Mend, Problem};
use super::secrets::{Secrets, owner_reference};
use crate::api::{ApplicationLink, names};
use crate::domain::token::{ASSUMED_LIFETIME, Lifetime};
use crate::domain::{AuthMethod, ClientId, ExposeSecret as _, KeyRing, TokenReply};
use crate::http::Trust;
use crate::outgoing::{self, Grant as Ask, Revoked, TokenError, TokenHint, TokenRequest, revoke_token};
use crate::provider::{ClientRef, Proof, ProviderError, Registered};
use jiff::{SignedDuration, Timestamp};
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What came of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// The incoming part, if the link has one.
    pub incoming: Option<Result<(), Problem>>,
    /// The outgoing part, if the link has one.
    pub outgoing: Option<Result<(), Problem>>,
    /// What is left to do though both are well.
    pub pending: Option<Problem>,
    /// The token that was published.
    pub published: Option<Access>,
    /// The effects that were done, in order.
    pub done: Vec<&'static str>,
    /// A request that was turned down.
    pub refused: Option<Refused>,
    /// How long the credentials in the Secret didn't work, where one secret took another's place.
    pub gap: Option<Duration>,
    /// The link's metadata after the last write to it.
    pub link: ObjectMeta,
    /// The versions that were made: each write was conditional on what was looked at, so there is
    /// nothing else in them.
    pub wrote: Vec<Version>,
}

/// What effects hand on to each other.
struct Carry<'a> {
    ctx: &'a Context,
    link: &'a ApplicationLink,
    seen: &'a Observed,
    handles: &'a Handles,
    secrets: Secrets,
    /// The link's metadata; the next write to it is conditional on the version in it.
    meta: tokio::sync::Mutex<ObjectMeta>,
    wrote: Mutex<Vec<Version>>,
}

/// The state of a part while its effects run.
#[derive(Default)]
struct Work {
    /// What is kept of the link's clients, and the record's version.
    kept: Option<(KeptClients, String)>,
    /// What the provider answered to the last put.
    registered: Option<Registered>,
    /// When the credentials in the Secret ceased to work.
    gone_since: Option<Instant>,
    gap: Option<Duration>,
    grant: Option<(Grant, Option<String>)>,
    reply: Option<(TokenReply, Access)>,
    published: Option<Access>,
    refused: Option<Refused>,
}

/// Does it.
pub async fn execute(
    ctx: &Context,
    link: &ApplicationLink,
    seen: &Observed,
    handles: &Handles,
    plan: &Plan,
) -> Outcome {
    let carry = Carry {
        ctx,
        link,
        seen,
        handles,
        secrets: Secrets::new(ctx.client.clone(), &seen.namespace),
        meta: tokio::sync::Mutex::new(link.metadata.clone()),
        wrote: Mutex::default(),
    };
    let mut out = all(&carry, plan).await;
    out.wrote = carry.wrote.into_inner().unwrap_or_else(PoisonError::into_inner);
    out
}

async fn all(carry: &Carry<'_>, plan: &Plan) -> Outcome {
    let Carry { link, seen, .. } = carry;
    let mut out = Outcome {
        incoming: plan.incoming.as_ref().map(|p| p.verdict.clone()),
        outgoing: plan.outgoing.as_ref().map(|p| p.verdict.clone()),
        pending: plan.pending.clone(),
        published: None,
        done: Vec::new(),
        refused: None,
        gap: None,
        link: link.metadata.clone(),
        wrote: Vec::new(),
    };
    let mut refresh =
        Work { grant: seen.grant.as_ref().map(|(g, v)| (g.clone(), Some(v.clone()))), ..Work::default() };
    for effect in &plan.opening {
        if let Err(problem) = carry.effect(effect, &mut refresh).await {
            for part in [&mut out.incoming, &mut out.outgoing].into_iter().flatten() {
                if part.is_ok() {
                    *part = Err(problem.clone());
                }
            }
            return out;
        }
        out.done.push(effect.name());
    }
    // The two directions have nothing to do with each other: a slow one doesn't hold up the other.
    let mut other = Work { kept: seen.kept.clone(), ..Work::default() };
    let ((done_in, incoming), (done_out, outgoing)) = futures::join!(
        carry.part(plan.incoming.as_ref(), &mut other),
        carry.part(plan.outgoing.as_ref(), &mut refresh)
    );
    out.done.extend(done_in.into_iter().chain(done_out));
    out.incoming = incoming;
    out.outgoing = outgoing;
    out.published = refresh.published.take();
    out.refused = refresh.refused.take();
    out.gap = other.gap.take();
    out.link = carry.meta.lock().await.clone();
    refresh.kept = other.kept.take();
    let well = |p: &Option<Result<(), Problem>>| p.as_ref().is_none_or(Result::is_ok);
    if well(&out.incoming) && well(&out.outgoing) {
        for effect in &plan.closing {
            match carry.effect(effect, &mut refresh).await {
                Ok(()) => out.done.push(effect.name()),
                Err(p)
                    if plan.best_effort && matches!(effect, Effect::Unregister(..) | Effect::Revoke(_)) =>
                {
                    tracing::warn!(
                        namespace = %seen.namespace, link = %seen.name, effect = effect.name(), reason = p.reason,
                        "left undone by a forced deletion"
                    );
                }
                Err(problem) => {
                    let deleting = link.metadata.deletion_timestamp.is_some();
                    let wraps = deleting && problem.mend != Mend::Conflict;
                    out.pending = Some(if wraps { super::decide::waits(problem) } else { problem });
                    return out;
                }
            }
        }
    }
    out
}

impl Carry<'_> {
    async fn part(
        &self,
        part: Option<&Part>,
        refresh: &mut Work,
    ) -> (Vec<&'static str>, Option<Result<(), Problem>>) {
        let Some(part) = part else { return (Vec::new(), None) };
        let mut done = Vec::new();
        for effect in &part.effects {
            if let Err(problem) = self.effect(effect, refresh).await {
                return (done, Some(Err(problem)));
            }
            done.push(effect.name());
        }
        (done, Some(part.verdict.clone()))
    }

    async fn effect(&self, effect: &Effect, work: &mut Work) -> Result<(), Problem> {
        tracing::debug!(namespace = %self.seen.namespace, link = %self.seen.name, effect = effect.name(), "effect");
        match effect {
            Effect::Claim(claims) => self.claim(claims).await,
            Effect::PutClient(at, put) => {
                let sent = Instant::now();
                let provider = &self.at(at)?.provider;
                let reply = provider.put(put).await;
                let caps = provider.capabilities();
                // An answer that was lost leaves a client that can't be found again.
                let lost = !put.exists && !caps.chooses_id && !caps.lists;
                work.registered = Some(reply.map_err(|e| {
                    let problem = self.provider_problem(&at.uid, &e);
                    if lost
                        && matches!(e, ProviderError::Unreachable { .. } | ProviderError::Unexpected { .. })
                    {
                        maybe_orphaned(problem)
                    } else {
                        problem
                    }
                })?);
                if work.gone_since.is_some() {
                    work.gone_since = Some(sent);
                }
                Ok(())
            }
            Effect::KeepClient(identity, keep) => self.keep_client(work, identity, keep).await,
            Effect::ForgetClient(identity) => self.forget_client(work, identity).await,
            Effect::Announce(problem) => {
                work.gone_since = Some(Instant::now());
                super::pass::announce(self.ctx, self.link, problem).await
            }
            Effect::Prove(at, id, _, AuthMethod::None) => {
                // There is nothing to prove but that it is a public client, and has no secret.
                let client = self.at(at)?.provider.get(&by_id(id)).await;
                let client = client.map_err(|e| self.provider_problem(&at.uid, &e))?;
                let public = client.as_ref().is_some_and(|c| {
                    !c.has_secret && c.metadata.as_ref().is_some_and(|m| m.auth_method.is_public())
                });
                if public {
                    return Ok(());
                }
                Err(Problem::wait(
                    "CredentialsUnproved",
                    "the provider doesn't show the client as a public one; it is registered again",
                ))
            }
            Effect::Prove(at, id, secret, method) => match self.at(at)?.prove(id, secret, *method).await {
                Proof::Authenticated => Ok(()),
                Proof::Refused => Err(Problem::wait(
                    "CredentialsRefused",
                    "the provider took the client but refuses its credentials; it is registered again",
                )),
                Proof::Unproved => Err(Problem::wait(
                    "CredentialsUnproved",
                    format!(
                        "it can't be shown that the credentials authenticate at {} {}; check that its revocation endpoint \
                         answers, and refuses wrong secrets",
                        at.kind.as_str(),
                        at.name
                    ),
                )),
            },
            Effect::WriteSecret(write) => {
                self.write_secret(write).await?;
                work.gap = work.gone_since.take().map(|since| since.elapsed());
                Ok(())
            }
            Effect::SaveGrant(grant, version) => self.save(work, (**grant).clone(), version.as_deref()).await,
            Effect::BeginRefresh(holder) => self.begin(work, holder).await,
            Effect::RequestToken(ask) => self.request(work, ask).await,
            Effect::KeepReply => self.keep(work).await,
            Effect::PublishToken(publication) => self.publish(work, publication).await,
            Effect::Unregister(at, id, version) => self
                .at(at)?
                .provider
                .delete(id, version.as_deref())
                .await
                .map_err(|e| self.provider_problem(&at.uid, &e)),
            Effect::Revoke(grant) => self.revoke(grant).await,
            Effect::DropGrant => self.ctx.store.drop_grant(&self.seen.uid).await,
            Effect::DeleteSecret(id) => self.secrets.delete(id).await,
            Effect::ReleaseSecret(id) => self.secrets.release(id, &self.seen.uid).await,
            Effect::Unclaim(claims) => {
                self.patch_link(json!({ "annotations": { names::REGISTERED_AT: claim::write(claims) } }))
                    .await
            }
            Effect::Finish => {
                let left: Vec<_> =
                    self.link.finalizers().iter().filter(|f| *f != names::LINK_FINALIZER).collect();
                self.patch_link(json!({ "finalizers": left })).await
            }
        }
    }

    fn at(&self, claim: &claim::Claim) -> Result<&super::connections::Connected, Problem> {
        self.handles
            .get(&claim.uid)
            .map(AsRef::as_ref)
            .ok_or_else(|| Problem::wait("ProviderNotReady", format!("{} isn't connected", claim.name)))
    }

    fn provider_problem(&self, uid: &str, e: &crate::provider::ProviderError) -> Problem {
        let problem = Problem::from(e);
        if matches!(problem.reason, "ProviderUnreachable" | "ProviderUnauthorized") {
            self.ctx.connections.failed(uid, &problem);
        }
        problem
    }

    async fn patch_link(&self, mut metadata: serde_json::Value) -> Result<(), Problem> {
        let mut kept = self.meta.lock().await;
        if let (Some(v), Some(m)) = (kept.resource_version.as_ref(), metadata.as_object_mut()) {
            m.insert("resourceVersion".into(), json!(v));
        }
        let api: Api<ApplicationLink> = Api::namespaced(self.ctx.client.clone(), &self.seen.namespace);
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        match api.patch_metadata(&self.seen.name, &params, &patch).await {
            Ok(meta) => {
                self.made(Version::Link, meta.metadata.resource_version.as_deref());
                *kept = meta.metadata;
                Ok(())
            }
            Err(kube::Error::Api(s)) if s.code == 404 => Err(Problem::conflict("the link")),
            Err(e) => Err(Problem::kube("the link", &e)),
        }
    }

    async fn claim(&self, claims: &[claim::Claim]) -> Result<(), Problem> {
        let mut finalizers: Vec<_> = self.link.finalizers().to_vec();
        if !self.seen.finalizer {
            finalizers.push(names::LINK_FINALIZER.to_owned());
        }
        let mut metadata = json!({ "finalizers": finalizers });
        if !claims.is_empty() {
            metadata["annotations"] = json!({ names::REGISTERED_AT: claim::write(claims) });
        }
        self.patch_link(metadata).await?;
        // The provider may have been let go between our look and our claim. Whoever deletes one
        // reads the claims after it is marked; so whoever claims one reads the mark after that.
        for claim in claims.iter().filter(|c| !self.seen.claims.contains(c)) {
            if !self.ctx.provider_stands(claim, &self.seen.namespace).await? {
                // Nothing was put there. A claim that stayed would wait for a provider that is gone.
                let before = claim::write(&self.seen.claims);
                self.patch_link(json!({ "annotations": { names::REGISTERED_AT: before } })).await?;
                return Err(Problem::wait(
                    "ProviderDeleting",
                    format!("{} {} is being deleted; name another one", claim.kind.as_str(), claim.name),
                ));
            }
        }
        Ok(())
    }

    /// What the provider said once is stored before it is called again. While that doesn't go
    /// through it is tried again: an identifier that is lost leaves a client that nobody knows of.
    async fn keep_client(&self, work: &mut Work, identity: &str, keep: &KeepClient) -> Result<(), Problem> {
        let kept = match (&work.registered, keep.from_reply) {
            (Some(reply), true) => keep.with(reply),
            (None, true) => return Err(Problem::conflict("the client")),
            (_, false) => keep.known.clone(),
        };
        self.write_clients(work, |record| {
            record.at.insert(identity.to_owned(), kept.clone());
        })
        .await
    }

    async fn forget_client(&self, work: &mut Work, identity: &str) -> Result<(), Problem> {
        let Some((record, _)) = &work.kept else { return Ok(()) };
        if record.at.keys().all(|k| k == identity) {
            work.kept = None;
            self.ctx.remember(&self.seen.uid, |memo| memo.keeps_clients = false);
            return self.ctx.store.forget_clients(&self.seen.uid).await;
        }
        self.write_clients(work, |record| drop(record.at.remove(identity))).await
    }

    async fn write_clients(&self, work: &mut Work, change: impl Fn(&mut KeptClients)) -> Result<(), Problem> {
        let link = LinkRef {
            namespace: self.seen.namespace.clone(),
            name: self.seen.name.clone(),
            uid: self.seen.uid.clone(),
        };
        let mut wait = Duration::from_millis(200);
        let deadline = tokio::time::Instant::now() + KEEP_TRYING;
        self.ctx.remember(&self.seen.uid, |memo| memo.keeps_clients = true);
        loop {
            let (mut record, version) = match work.kept.clone() {
                Some((record, version)) => (record, Some(version)),
                None => (KeptClients { link: link.clone(), at: BTreeMap::new() }, None),
            };
            change(&mut record);
            let problem = match self.ctx.store.keep_clients(&record, version.as_deref()).await {
                Ok(version) => {
                    work.kept = Some((record, version));
                    return Ok(());
                }
                Err(problem) => problem,
            };
            // Our own write may have gone through unanswered.
            if problem.mend == Mend::Conflict
                && let Ok(stored) = self.ctx.store.clients(&self.seen.uid).await
            {
                work.kept = stored;
            }
            if tokio::time::Instant::now() + wait > deadline {
                return Err(problem);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    async fn save(&self, refresh: &mut Work, grant: Grant, version: Option<&str>) -> Result<(), Problem> {
        let version = self.ctx.store.save_grant(&grant, version).await?;
        refresh.grant = Some((grant, Some(version)));
        Ok(())
    }

    async fn begin(&self, refresh: &mut Work, holder: &str) -> Result<(), Problem> {
        let Some((mut grant, version)) = refresh.grant.clone() else { return Err(no_grant()) };
        grant.intent = Some(Intent { holder: holder.to_owned(), at: Timestamp::now() });
        self.save(refresh, grant, version.as_deref()).await
    }

    async fn request(&self, refresh: &mut Work, plan: &TokenPlan) -> Result<(), Problem> {
        let Some((grant, _)) = &refresh.grant else { return Err(no_grant()) };
        let sent = grant.refresh_token.clone();
        let ask = match (&sent, plan.refresh) {
            (Some(token), true) => Ask::RefreshToken(token.0.clone()),
            (None, true) => return Err(no_grant()),
            (_, false) => Ask::ClientCredentials,
        };
        let request = TokenRequest {
            endpoint: plan.endpoint.clone(),
            client: plan.client.clone(),
            grant: ask,
            scopes: plan.scopes.clone(),
        };
        // Before it is sent: a token lives from when it was made, not from when it arrived.
        let issued_at = Timestamp::now();
        let http = self.ctx.guard.client(Trust::Guarded, None);
        match outgoing::request_token(&http, &request).await {
            Ok(reply) => {
                let access = access(&reply, issued_at, plan);
                refresh.reply = Some((reply, access));
                Ok(())
            }
            Err(e @ TokenError::DeadGrant { code }) => {
                // Somebody else may have spent this token and stored its successor.
                let stored = self.ctx.store.grant(&self.seen.uid).await?;
                let Some((mut stored, stored_version)) = stored else { return Err(no_grant()) };
                if stored.refresh_token != sent {
                    return Err(Problem::conflict("the grant"));
                }
                stored.dead = Some(code.to_owned());
                stored.intent = None;
                self.save(refresh, stored, Some(&stored_version)).await?;
                Err(Problem::from(&e))
            }
            Err(e) => {
                let problem = Problem::from(&e);
                let problem = unknown_outcome(&e, sent.is_some(), problem);
                // Only where the server itself said so: a 404 or a 302 of a proxy on the way passes.
                let for_good = matches!(
                    e,
                    TokenError::BadClient { code: Some(_) } | TokenError::Rejected { code: Some(_), .. }
                );
                // Watches wake a link whenever something near it changes; the server asked for time.
                let until = e.retry_after().and_then(|t| Timestamp::now().checked_add(t).ok());
                if for_good || until.is_some() {
                    let fingerprint = plan.fingerprint.clone();
                    refresh.refused = Some(Refused { fingerprint, problem: problem.clone(), until });
                }
                Err(problem)
            }
        }
    }

    /// The reply is stored before anything uses it. While that doesn't go through it is tried
    /// again: a refresh token that was spent and not stored is lost.
    async fn keep(&self, refresh: &mut Work) -> Result<(), Problem> {
        let Some((reply, access)) = refresh.reply.clone() else { return Err(no_grant()) };
        let Some((mut grant, mut version)) = refresh.grant.clone() else { return Err(no_grant()) };
        let spent = grant.refresh_token.clone();
        let known = grant.rotates;
        grant.take(&reply, access);
        // Nothing new to remember: this server keeps its refresh tokens, and that is known.
        if known == Some(false) && grant.rotates == Some(false) {
            return Ok(());
        }
        let mut wait = Duration::from_millis(200);
        let deadline = tokio::time::Instant::now() + KEEP_TRYING;
        loop {
            let problem = match self.save(refresh, grant.clone(), version.as_deref()).await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if problem.mend == Mend::Conflict
                && let Ok(Some((stored, stored_version))) = self.ctx.store.grant(&self.seen.uid).await
            {
                if stored.refresh_token != spent {
                    return Err(problem);
                }
                // Our own write may have gone through unanswered, or only the intent changed.
                version = Some(stored_version);
            }
            if tokio::time::Instant::now() + wait > deadline {
                return Err(problem);
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(Duration::from_secs(5));
        }
    }

    async fn publish(&self, refresh: &mut Work, publication: &Publication) -> Result<(), Problem> {
        let token = publication.token.clone().or_else(|| refresh.reply.as_ref().map(|(_, a)| a.clone()));
        let Some(token) = token else { return Err(no_grant()) };
        let keys = self.seen.keys.clone()?;
        let written = self.write_token(publication, &token, &keys).await;
        // A token that is kept nowhere else, in a Secret that can't be written as the user wants
        // it: another token would come to the same end.
        if let Err(problem) = &written
            && problem.mend == Mend::Edit
            && refresh.grant.as_ref().is_none_or(|(g, _)| g.refresh_token.is_none())
        {
            let fingerprint = token.fingerprint.clone();
            refresh.refused = Some(Refused { fingerprint, problem: problem.clone(), until: None });
        }
        written?;
        refresh.published = Some(token);
        Ok(())
    }

    async fn write_token(
        &self,
        publication: &Publication,
        token: &Access,
        keys: &KeyRing,
    ) -> Result<(), Problem> {
        let (data, annotations) = token_secret(&publication.goal, token, keys)?;
        let write = SecretWrite {
            name: publication.goal.name.clone(),
            type_: publication.goal.type_.clone(),
            labels: publication.labels.clone(),
            annotations,
            data,
            over: publication.over.clone(),
        };
        self.write_secret(&write).await
    }

    async fn write_secret(&self, write: &SecretWrite) -> Result<(), Problem> {
        let version = self.secrets.write(write, &owner_reference(self.link)).await?;
        self.made(Version::Secret, Some(&version));
        Ok(())
    }

    fn made(&self, of: fn(u64) -> Version, version: Option<&str>) {
        if let Some(version) = version.and_then(|v| v.parse().ok()) {
            self.wrote.lock().unwrap_or_else(PoisonError::into_inner).push(of(version));
        }
    }

    async fn revoke(&self, grant: &Grant) -> Result<(), Problem> {
        let Some((endpoint, client)) = grant.revocation() else { return Ok(()) };
        let (token, hint) = match (&grant.refresh_token, &grant.access) {
            (Some(token), _) => (token, TokenHint::RefreshToken),
            (None, Some(access)) => (&access.token, TokenHint::AccessToken),
            (None, None) => return Ok(()),
        };
        let Kept(token) = token;
        let http = self.ctx.guard.client(Trust::Guarded, None);
        let what = "the authorization server can't be told to revoke the grant";
        match revoke_token(&http, &endpoint, &client, token, Some(hint)).await {
            // With wrong credentials, or an endpoint that says no, asking again changes nothing.
            Ok(Revoked::Authenticated | Revoked::WrongCredentials) => Ok(()),
            Ok(Revoked::Unproved(answer)) if answer.status < 500 && answer.status != 429 => Ok(()),
            Ok(Revoked::Unproved(answer)) => Err(Problem {
                retry_after: answer.retry_after,
                ..Problem::wait("RevocationFailed", format!("{what}: {answer}"))
            }),
            Err(crate::http::SendError::Refused(_)) => Ok(()),
            Err(e) => Err(Problem::wait("RevocationFailed", format!("{what}: {e}"))),
        }
    }
}

fn by_id(id: &ClientId) -> ClientRef {
    ClientRef { id: id.clone(), handle: None }
}

/// A creation whose answer nobody has.
fn maybe_orphaned(problem: Problem) -> Problem {
    Problem {
        reason: "ClientMayBeOrphaned",
        message: format!(
            "{}; a client may have been made there all the same, which nobody knows of: look for it there by the link's              name once this is over",
            problem.message
        ),
        ..problem
    }
}

/// How long a reply that can't be stored is held on to.
const KEEP_TRYING: Duration = Duration::from_secs(120);

fn no_grant() -> Problem {
    Problem::conflict("the grant")
}

fn access(reply: &TokenReply, issued_at: Timestamp, plan: &TokenPlan) -> Access {
    let lifetime: Lifetime = reply.lifetime.unwrap_or(ASSUMED_LIFETIME);
    let expires_at =
        issued_at.saturating_add(SignedDuration::from_secs(lifetime.as_secs())).unwrap_or(Timestamp::MAX);
    // Whole seconds: these go into annotations and the status, and servers count in seconds too.
    let whole = |t: Timestamp| Timestamp::from_second(t.as_second()).unwrap_or(t);
    Access {
        token: Kept(reply.access_token.expose_secret().to_owned().into()),
        token_type: reply.token_type.clone(),
        issued_at: whole(issued_at),
        expires_at: whole(expires_at),
        scope: reply.scopes.as_ref().unwrap_or(&plan.scopes).to_string(),
        fingerprint: plan.fingerprint.clone(),
    }
}

/// A refresh whose outcome isn't known is tried again soon, with the same token: within its grace
/// the server gives the same successor.
fn unknown_outcome(e: &TokenError, refreshing: bool, problem: Problem) -> Problem {
    if refreshing && e.outcome_unknown() && problem.mend != Mend::Edit {
        return Problem {
            mend: Mend::Unanswered,
            message: format!(
                "{}; whether the refresh token was spent isn't known, so the same one is sent again",
                problem.message
            ),
            ..problem
        };
    }
    problem
}
