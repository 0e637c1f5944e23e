//! Does what a plan says, effect by effect: the only writer but for the status. The effects of the
//! outgoing part are in [`token`], the record of clients in [`clients`].

mod clients;
pub mod sender;
mod token;

pub use token::{give_back_grant, revoke_grant};

use super::cache;
use super::claim;
use super::context::Context;
use super::ended::Version;
use super::facts::{Observed, Refused};
use super::grant::{Access, BEGUN_ELSEWHERE, Grant};
use super::held::Tenure;
use super::kept_client::KeptClients;
use super::observe::Handles;
use super::plan::{Effect, Part, Plan, SecretWrite};
use super::problem::{Mend, Problem};
use super::secrets::{Secrets, owner_reference};
use crate::api::{ApplicationLink, names};
use crate::domain::{AuthMethod, ClientId, Reason, TokenReply};
use crate::provider::{ClientRef, Proof, ProviderError, PutClient, Registered};
use jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, ResourceExt as _};
use serde_json::json;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// What came of a plan.
#[derive(Debug)]
pub struct Outcome {
    /// The incoming part, if the link has one.
    pub incoming: Option<Result<(), Problem>>,
    /// The outgoing part, if the link has one.
    pub outgoing: Option<Result<(), Problem>>,
    /// What the client is registered for and its provider doesn't serve.
    pub unserved: Option<Problem>,
    /// What is left to do though both are well.
    pub pending: Option<Problem>,
    /// The token that was published.
    pub published: Option<Access>,
    /// A token that was got and couldn't be published.
    pub in_hand: Option<Access>,
    /// The effects that were done, in order.
    pub done: Vec<&'static str>,
    /// A request that was turned down.
    pub refused: Option<Refused>,
    /// Whether what was changed at the provider was put back, since the Secret couldn't be written.
    pub undone: bool,
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
    /// What the provider answered to the last put, and the claim's UID of that provider where the put made
    /// the client.
    registered: Option<Registered>,
    made_at: Option<String>,
    /// When the credentials in the Secret ceased to work.
    gone_since: Option<Instant>,
    gap: Option<Duration>,
    undone: bool,
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
        unserved: None,
        pending: plan.pending.clone(),
        published: None,
        in_hand: None,
        done: Vec::new(),
        refused: None,
        undone: false,
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
    out.in_hand = refresh.reply.take().map(|(_, access)| access).filter(|_| out.published.is_none());
    out.refused = refresh.refused.take();
    out.gap = other.gap.take();
    out.undone = other.undone;
    out.link = carry.meta.lock().await.clone();
    refresh.kept = other.kept.take();
    let well = |p: &Option<Result<(), Problem>>| p.as_ref().is_none_or(Result::is_ok);
    if well(&out.incoming) && well(&out.outgoing) {
        for effect in &plan.closing {
            match carry.effect(effect, &mut refresh).await {
                Ok(()) => out.done.push(effect.name()),
                Err(p)
                    if plan.best_effort
                        && matches!(
                            effect,
                            Effect::Unregister(..) | Effect::PutClient(..) | Effect::Revoke(_)
                        ) =>
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
                // Only where the API server said no. One that didn't answer may have written it.
                let refused = matches!(problem.reason, "RefusedByApiServer" | "Forbidden");
                if let (Effect::WriteSecret(_), Some((at, put)), true) = (effect, &part.undo, refused) {
                    refresh.undone = self.undo(at, put).await;
                }
                return (done, Some(Err(problem)));
            }
            done.push(effect.name());
        }
        (done, Some(part.verdict.clone()))
    }

    /// Puts a client back as it was. Says whether that is done: else the next pass goes on from what is
    /// there.
    async fn undo(&self, at: &claim::Claim, put: &PutClient) -> bool {
        let Ok(connected) = self.at(at) else { return false };
        let Ok(Some(client)) = connected.provider.get(&put.at).await else { return false };
        // What another instance made of it meanwhile is that one's.
        let ours =
            client.owner.as_ref().is_some_and(|o| o.uid == put.owner.uid && o.serial == put.owner.serial + 1);
        if !ours || self.ctx.tenure.is_lost() {
            return false;
        }
        let put = PutClient { version: client.version, ..put.clone() };
        let done = connected.provider.put(&put).await;
        if let Err(e) = &done {
            tracing::warn!(
                namespace = %self.seen.namespace, link = %self.seen.name, reason = e.reason(),
                "the secret before couldn't be put back"
            );
        }
        done.is_ok()
    }

    async fn effect(&self, effect: &Effect, work: &mut Work) -> Result<(), Problem> {
        tracing::debug!(namespace = %self.seen.namespace, link = %self.seen.name, effect = effect.name(), "effect");
        // Whoever is at work now decides; what was answered to us nobody else will be told.
        let answer = match effect {
            Effect::KeepReply | Effect::GiveBack(_) => true,
            Effect::KeepClient(_, keep) => keep.from_reply,
            _ => false,
        };
        if self.ctx.tenure.is_lost() && !answer {
            return Err(Problem::wait(Reason::LeaseLost, "another instance of the operator is at work"));
        }
        match effect {
            Effect::Claim(claims) => self.claim(claims).await,
            Effect::PutClient(at, put) => {
                let sent = Instant::now();
                let provider = &self.at(at)?.provider;
                let reply = provider.put(put).await.and_then(Registered::kept_whole);
                let caps = provider.capabilities();
                // An answer that was lost leaves a client that can't be found again.
                let lost = !put.exists && !caps.chooses_id && !caps.lists;
                work.registered = Some(reply.map_err(|e| {
                    let problem = self.provider_problem(&at.uid, &e);
                    if lost
                        && matches!(
                            e,
                            ProviderError::Unreachable { .. }
                                | ProviderError::Unexpected { .. }
                                | ProviderError::TooLong { .. }
                        )
                    {
                        maybe_orphaned(problem)
                    } else {
                        problem
                    }
                })?);
                work.made_at = (!put.exists).then(|| at.uid.clone());
                if work.gone_since.is_some() {
                    work.gone_since = Some(sent);
                }
                Ok(())
            }
            Effect::KeepClient(identity, keep) => self.keep_client(work, identity, keep).await,
            Effect::ForgetClient(identity) => self.forget_client(work, identity).await,
            Effect::RehearseSecret(write) => self.secrets.rehearse(write, &owner_reference(self.link)).await,
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
                    Reason::CredentialsUnproved,
                    "the provider doesn't show the client as a public one; it is registered again",
                ))
            }
            Effect::Prove(at, id, secret, method) => match self.at(at)?.prove(id, secret, *method).await {
                Proof::Authenticated => Ok(()),
                Proof::Refused => Err(Problem::wait(
                    Reason::CredentialsRefused,
                    "the provider took the client but refuses its credentials; it is registered again",
                )),
                Proof::Unproved => Err(Problem::wait(
                    Reason::CredentialsUnproved,
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
            Effect::Revoke(grant) => revoke_grant(self.ctx, grant).await,
            Effect::GiveBack(grant) => {
                give_back_grant(self.ctx, grant).await;
                Ok(())
            }
            Effect::DropGrant => self.ctx.store.drop_grant(&self.seen.uid).await,
            Effect::DropConsent(version) => self.ctx.store.drop_consent(&self.seen.uid, version).await,
            Effect::DeleteSecret(id) => self.secrets.delete(id, &self.seen.uid).await,
            Effect::ReleaseSecret(id) => self.secrets.release(id, &self.seen.uid).await,
            Effect::Unclaim(claims) => {
                self.patch_link(json!({ "annotations": { names::REGISTERED_AT: self.stated(claims)? } }))
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
            .ok_or_else(|| Problem::wait(Reason::ProviderNotReady, format!("{} isn't connected", claim.name)))
    }

    fn provider_problem(&self, uid: &str, e: &crate::provider::ProviderError) -> Problem {
        let problem = Problem::from(e);
        if matches!(problem.reason, "ProviderUnreachable" | "ProviderUnauthorized") {
            self.ctx.connections.failed(uid, &problem);
        }
        problem
    }

    fn made(&self, of: fn(u64) -> Version, version: Option<&str>) {
        if let Some(version) = version.and_then(|v| v.parse().ok()) {
            self.wrote.lock().unwrap_or_else(PoisonError::into_inner).push(of(version));
        }
    }

    async fn write_secret(&self, write: &SecretWrite) -> Result<(), Problem> {
        // Whose it is says more than the owner reference and the label, which a backup or somebody takes off, and
        // which don't hold each name.
        let mut write = write.clone();
        write.annotations.insert(names::LINK_NAME.to_owned(), self.seen.name.clone());
        let version = self.secrets.write(&write, &owner_reference(self.link)).await?;
        self.made(Version::Secret, Some(&version));
        Ok(())
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
            Ok(mut meta) => {
                self.made(Version::Link, meta.metadata.resource_version.as_deref());
                cache::slim(&mut meta);
                *kept = meta.metadata;
                Ok(())
            }
            Err(kube::Error::Api(s)) if s.code == 404 => Err(Problem::conflict("the link")),
            Err(e) => Err(Problem::kube("the link", &e)),
        }
    }

    /// What the annotation is to say; `null` where it isn't to be there.
    fn stated(&self, claims: &[claim::Claim]) -> Result<serde_json::Value, Problem> {
        if claims.is_empty() {
            return Ok(serde_json::Value::Null);
        }
        let keys = self.seen.keys.as_ref().map_err(Clone::clone)?;
        Ok(json!(claim::write(keys, &self.seen.namespace, &self.seen.uid, claims)))
    }

    async fn claim(&self, claims: &[claim::Claim]) -> Result<(), Problem> {
        let mut finalizers: Vec<_> = self.link.finalizers().to_vec();
        if !self.seen.finalizer {
            finalizers.push(names::LINK_FINALIZER.to_owned());
        }
        let mut metadata = json!({ "finalizers": finalizers });
        if !claims.is_empty() || !self.seen.claims_current {
            metadata["annotations"] = json!({ names::REGISTERED_AT: self.stated(claims)? });
        }
        self.patch_link(metadata).await?;
        // The provider may have been let go between our look and our claim. Whoever deletes one
        // reads the claims after it is marked; so whoever claims one reads the mark after that.
        for claim in claims.iter().filter(|c| !self.seen.claims.contains(c)) {
            if !self.ctx.provider_stands(claim, &self.seen.namespace).await? {
                // Nothing was put there. A claim that stayed would wait for a provider that is gone.
                let before = self.stated(&self.seen.claims)?;
                self.patch_link(json!({ "annotations": { names::REGISTERED_AT: before } })).await?;
                return Err(Problem::wait(
                    Reason::ProviderDeleting,
                    format!("{} {} is being deleted; name another one", claim.kind.as_str(), claim.name),
                ));
            }
        }
        Ok(())
    }
}

/// What somebody answered once and won't answer again is stored, also where that takes several
/// attempts: as long as [`Tenure::keep_until`] says, and with these pauses.
pub(super) struct Patience {
    wait: Duration,
    since: Instant,
    /// When somebody else may go on without the answer.
    end: Option<Instant>,
    tenure: Arc<Tenure>,
}

impl Patience {
    pub(super) fn new(tenure: &Arc<Tenure>) -> Self {
        Self { wait: Duration::from_millis(200), since: Instant::now(), end: None, tenure: tenure.clone() }
    }

    /// No longer than the next leader leaves a refresh alone that was begun at `at`: then it may be sent anew.
    pub(super) fn of_refresh(self, at: Timestamp) -> Self {
        const MARGIN: Duration = Duration::from_secs(2);
        let age = Duration::try_from(Timestamp::now().duration_since(at)).unwrap_or_default();
        Self { end: Some(self.since + BEGUN_ELSEWHERE.saturating_sub(age + MARGIN)), ..self }
    }

    /// Waits for the next attempt, or gives up with what stood in the way of the last one.
    pub(super) async fn after(&mut self, problem: Problem) -> Result<(), Problem> {
        let until = self.tenure.keep_until(self.since);
        if Instant::now() + self.wait > self.end.map_or(until, |end| end.min(until)) {
            return Err(problem);
        }
        tokio::time::sleep(self.wait).await;
        self.wait = (self.wait * 2).min(Duration::from_secs(5));
        Ok(())
    }
}

fn by_id(id: &ClientId) -> ClientRef {
    ClientRef { id: id.clone(), handle: None }
}

/// A creation whose answer nobody has.
fn maybe_orphaned(problem: Problem) -> Problem {
    Problem {
        message: format!(
            "{}; a client may have been made there all the same, which nobody knows of: look for it there by the link's \
             name once this is over",
            problem.message
        ),
        ..problem.called(Reason::ClientMayBeOrphaned)
    }
}
