//! One pass over one link: observe, validate, decide, execute, project status.

use super::cache::Key;
use super::context::{Context, Turned};
use super::decide::{Decision, Goal, Note, decide, token_view};
use super::ended::Ended;
use super::execute::{Outcome, execute};
use super::facts::{Observed, Refused};
use super::metrics::{ByController, ByEffect, ByReason, ByResult};
use super::observe::observe;
use super::plan::{Effect, Plan};
use super::problem::{Mend, Problem};
use super::service_account::out_of_reach;
use super::status::{Input, REFRESH_FAILING, project};
use super::turns::{Permit, Turn};
use super::validate::{ValidatedLink, validate};
use crate::api::link::{ApplicationLinkStatus, DeletionPolicy, ProviderStatusRef};
use crate::api::{ApplicationLink, ConditionStatus, names};
use crate::domain::keyring::digest_hex;
use crate::outgoing::{backoff, unanswered_delay};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTROLLER: &str = "applicationlink";
/// So many passes in a row may lose a race before it is said.
const RACES: u32 = 10;

/// Looks after a link; says when to look again, or not again when there is none to look after. With a
/// permit, a token request may be sent to the host that it is for.
pub async fn reconcile(ctx: &Context, key: &Key, resync: Duration, permit: Option<Permit>) -> Ended {
    let Some(link) = ctx.links.get(key) else { return Ended::default() };
    let deleting = link.meta().deletion_timestamp.is_some();
    let uid = link.uid().unwrap_or_default();
    if deleting && !link.finalizers().iter().any(|f| f == names::LINK_FINALIZER) {
        return Ended::default();
    }
    let started = Instant::now();
    let now = Timestamp::now();
    let checked = validate(&link).map_err(|e| Problem::edit("InvalidSpec", e.to_string()));
    let goal = match &checked {
        _ if deleting => Goal::Absent {
            retain: link.spec.deletion_policy == DeletionPolicy::Retain,
            force: link.annotations().get(names::FORCE_DELETE).is_some_and(|v| v == "true"),
        },
        Ok(valid) => Goal::Present(Box::new(valid.clone())),
        Err(problem) => {
            // The claim and the finalizer may have been taken off; no more than that is put back.
            let Steps { link, outcome, .. } = steps(ctx, key, link, &Goal::Unread, now, None).await;
            let input = Input {
                link: &link,
                spec: Err(problem.clone()),
                incoming: None,
                provider: None,
                token: None,
                in_place: false,
                connected: None,
                desk: None,
                outcome: None,
                now,
            };
            write_status(ctx, &link, project(&input), &[]).await;
            let problem =
                first_problem(&outcome).filter(|p| p.mend == Mend::Conflict).unwrap_or(problem.clone());
            return Ended::again(Some(after(ctx, &uid, Some(&problem), resync, None, now)));
        }
    };
    let Steps { link, seen, decision, outcome, notes, turn } =
        steps(ctx, key, link, &goal, now, permit).await;
    if outcome.done.last() == Some(&"Finish") {
        count(ctx, started, None);
        ctx.memos.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&uid);
        tracing::info!(namespace = %key.namespace, link = %key.name, "let go");
        return Ended::default();
    }
    let problem = first_problem(&outcome);
    if let Some(p) = &problem {
        tracing::info!(namespace = %key.namespace, link = %key.name, reason = p.reason, message = %p.message, "not as it should be");
    }
    remember(ctx, &link, &uid, &outcome);
    let token = outcome
        .published
        .as_ref()
        .zip(checked.as_ref().ok().and_then(|v| v.outgoing.as_ref()))
        .map(|(access, goal)| token_view(goal, &uid, access))
        .or(decision.token);
    let after_pass = Timestamp::now();
    if let Some(before) = decision.token
        && outcome.done.contains(&"PublishToken")
        && outcome.done.contains(&"RequestToken")
        && let Ok(late) = Duration::try_from(after_pass.duration_since(before.next_refresh))
    {
        ctx.metrics.lateness.observe(late.as_secs_f64());
    }
    ctx.remember(&uid, |memo| memo.token = token);
    // A pass that lost a race says nothing: the next one, in a moment, knows more. One that loses
    // again and again has met something else.
    let lost = problem.as_ref().is_some_and(|p| p.mend == Mend::Conflict)
        && ctx.remember(&uid, |memo| memo.attempts < RACES);
    if !lost && (!deleting || outcome.pending.is_some()) {
        let status = status(&link, &checked, &seen, &decision, &outcome, token, after_pass);
        write_status(ctx, &link, status, &outcome.done).await;
    }
    if outcome.incoming.as_ref().is_some_and(Result::is_ok) {
        tell_notes(ctx, &link, &notes).await;
    }
    count(ctx, started, problem.as_ref());
    let by_secret =
        decision.incoming.as_ref().and_then(|v| v.wake()).filter(|t| *t > after_pass && !deleting);
    let wake = token
        .map(|t| if t.next_refresh > after_pass { t.next_refresh } else { t.expires_at })
        .filter(|t| *t > after_pass && !deleting)
        .into_iter()
        .chain(by_secret)
        .chain(decision.wake.filter(|t| *t > after_pass))
        .min();
    // Who waits for its turn is called up: that isn't a failure, and no reason to look more often.
    let failed = problem.as_ref().filter(|p| turn.is_none() || p.reason != QUEUED);
    let again = after(ctx, &uid, failed, resync, wake, after_pass);
    hold(ctx, &link, &uid, &decision, &outcome, again, after_pass);
    // Where all is well, what we wrote is what was to be; else it may be what something waits for.
    let wrote = if problem.is_none() { outcome.wrote } else { Vec::new() };
    Ended { again: Some(again), wrote, turn }
}

/// What came of a pass and of the steps before it.
struct Steps {
    link: Arc<ApplicationLink>,
    seen: Observed,
    decision: Decision,
    outcome: Outcome,
    notes: Vec<Note>,
    /// The request that had no permit.
    turn: Option<Turn>,
}

/// The reason of a link that waits for its turn.
const QUEUED: &str = "Queued";

/// So many steps in a row are progress; more are a provider that never comes to rest.
const MOST_STEPS: usize = 6;

/// Looks, decides and does; again while what was done was only a step.
async fn steps(
    ctx: &Context,
    key: &Key,
    mut link: Arc<ApplicationLink>,
    goal: &Goal,
    now: Timestamp,
    mut permit: Option<Permit>,
) -> Steps {
    let mut notes = Vec::new();
    let mut done = Vec::new();
    let mut wrote = Vec::new();
    let mut gone_since = None;
    for step in 1.. {
        let (mut seen, handles) = observe(ctx, &link, goal).await;
        let mut decision = decide(goal, &seen, now);
        let mut turn = None;
        if let Some(asks) = decision.asks.take() {
            permit = permit
                .filter(|p| p.host() == asks.host)
                .or_else(|| ctx.turns.ask(&asks.host, &seen.namespace, Instant::now()));
            if let (None, Some(facts)) = (&permit, &mut seen.outgoing) {
                facts.in_line = true;
                decision = decide(goal, &seen, now);
                turn = Some(asks);
            }
        }
        let planned = decision.plan.names();
        if !planned.is_empty() {
            tracing::info!(namespace = %key.namespace, link = %key.name, plan = %planned.join(" "), "decided");
        }
        notes.extend(decision.notes.iter().cloned());
        let begun = Instant::now();
        // The outgoing part waits for the last step: it isn't done twice in one pass.
        let mut plan = decision.plan.clone();
        let outgoing = if plan.again() { plan.outgoing.take() } else { None };
        let mut outcome = execute(ctx, &link, &seen, &handles, &plan).await;
        if outcome.incoming.as_ref().is_some_and(Result::is_err) && outgoing.is_some() {
            let rest = Plan { outgoing, ..Plan::default() };
            let other = execute(ctx, &link, &seen, &handles, &rest).await;
            (outcome.outgoing, outcome.published, outcome.refused) =
                (other.outgoing, other.published, other.refused);
            outcome.done.extend(other.done);
            outcome.wrote.extend(other.wrote);
        }
        for effect in &outcome.done {
            ctx.metrics.effects.get_or_create(&ByEffect { effect }).inc();
        }
        if outcome.done.contains(&"Announce") {
            gone_since.get_or_insert(begun);
        }
        if outcome.gap.is_none() && outcome.done.contains(&"WriteSecret") {
            outcome.gap = gone_since.map(|since: Instant| since.elapsed());
        }
        done.append(&mut outcome.done);
        wrote.append(&mut outcome.wrote);
        let failed = outcome.incoming.as_ref().is_some_and(Result::is_err);
        // The finalizer and the claim were written: what follows builds on that version.
        if outcome.link.resource_version != link.metadata.resource_version {
            let mut newer = (*link).clone();
            newer.metadata = outcome.link.clone();
            link = Arc::new(newer);
        }
        if failed || !decision.plan.again() {
            (outcome.done, outcome.wrote) = (done, wrote);
            return Steps { link, seen, decision, outcome, notes, turn };
        }
        if step == MOST_STEPS {
            let text = "the provider answers each change of the client with another one; look at it there";
            outcome.incoming = Some(Err(Problem::wait("ProviderRestless", text)));
            (outcome.done, outcome.wrote) = (done, wrote);
            return Steps { link, seen, decision, outcome, notes, turn };
        }
    }
    unreachable!("the loop ends by a return")
}

/// Says in the status that the credentials are about to cease to work, before they do.
///
/// # Errors
/// [`Problem`] when that can't be written: then nothing else may be done.
pub async fn announce(ctx: &Context, link: &ApplicationLink, problem: &Problem) -> Result<(), Problem> {
    let Some(old) = &link.status else { return Ok(()) };
    let new = super::status::announced(old, problem, Timestamp::now());
    patch_status(ctx, link, old, &new).await.map(drop)
}

/// A token request that failed isn't sent again before its time, whatever wakes the link until then.
fn hold(
    ctx: &Context,
    link: &ApplicationLink,
    uid: &str,
    decision: &Decision,
    outcome: &Outcome,
    again: Duration,
    now: Timestamp,
) {
    let asked = decision.plan.effects().find_map(|e| match e {
        Effect::RequestToken(plan) => Some(&plan.fingerprint),
        _ => None,
    });
    let (Some(fingerprint), Some(Err(problem)), None) = (asked, &outcome.outgoing, &outcome.refused) else {
        return;
    };
    if !matches!(problem.mend, Mend::Wait | Mend::Unanswered) || out_of_reach(problem) {
        return;
    }
    let until = now.checked_add(again).ok();
    let refused = Refused { fingerprint: fingerprint.clone(), problem: problem.clone(), until };
    ctx.remember(uid, |memo| memo.refused = Some(Turned::now(link, refused)));
}

fn first_problem(outcome: &Outcome) -> Option<Problem> {
    let parts = [&outcome.incoming, &outcome.outgoing].into_iter().flatten();
    let problems = parts.filter_map(|p| p.as_ref().err()).chain(&outcome.pending);
    // The one that passes soonest says when to look again.
    problems
        .min_by_key(|p| match p.mend {
            Mend::Conflict => 0,
            Mend::Unanswered => 1,
            Mend::Wait => 2,
            Mend::Edit => 3,
        })
        .cloned()
}

fn status(
    link: &ApplicationLink,
    checked: &Result<ValidatedLink, Problem>,
    seen: &super::facts::Observed,
    decision: &Decision,
    outcome: &Outcome,
    token: Option<super::decide::Token>,
    now: Timestamp,
) -> ApplicationLinkStatus {
    let provider = seen
        .incoming
        .as_ref()
        .and_then(|i| i.place.as_ref().ok())
        .map(|p| ProviderStatusRef { kind: p.claim.kind, name: p.claim.name.clone() });
    project(&Input {
        link,
        spec: checked.as_ref().map_err(Clone::clone),
        incoming: decision.incoming.as_ref(),
        provider,
        token,
        in_place: decision.in_place,
        connected: decision.connected.as_ref(),
        desk: seen.outgoing.as_ref().and_then(|o| o.desk.as_ref()?.as_ref().ok()),
        outcome: Some(outcome),
        now,
    })
}

fn remember(ctx: &Context, link: &ApplicationLink, uid: &str, outcome: &Outcome) {
    let refused = outcome.refused.clone();
    ctx.remember(uid, |memo| {
        if let Some(refused) = refused {
            memo.refused = Some(Turned::now(link, refused));
        } else if outcome.outgoing.as_ref().is_some_and(Result::is_ok) {
            memo.refused = None;
        }
    });
}

/// When to look again.
fn after(
    ctx: &Context,
    uid: &str,
    problem: Option<&Problem>,
    resync: Duration,
    wake: Option<Timestamp>,
    now: Timestamp,
) -> Duration {
    let jitter = random();
    let until_wake = wake.and_then(|t| Duration::try_from(t.duration_since(now)).ok()).unwrap_or(resync);
    // A tenth earlier at most, so that links that were made together drift apart.
    let regular = resync.mul_f64(1.0 - 0.1 * fraction(jitter)).min(until_wake);
    ctx.remember(uid, |memo| match problem {
        None => {
            memo.attempts = 0;
            memo.unanswered = 0;
            regular
        }
        Some(p) => {
            let n = memo.attempts;
            memo.attempts = n.saturating_add(1);
            if p.mend != Mend::Unanswered {
                memo.unanswered = 0;
            }
            let wait = match p.mend {
                Mend::Conflict if n < RACES => race(n, jitter),
                // Many write there at once: it has met nothing worse so far.
                Mend::Conflict => backoff(n - RACES, jitter).mul_f64(0.2),
                // Held until it may be sent again: that wait isn't another failure.
                Mend::Unanswered if p.retry_after.is_some() => Duration::ZERO,
                Mend::Unanswered => {
                    let n = memo.unanswered;
                    memo.unanswered = n.saturating_add(1);
                    unanswered_delay(n)
                }
                // A person's edit is seen by a watch; what nobody watches is looked for like this.
                Mend::Edit => backoff(n.saturating_add(2), jitter),
                _ => backoff(n, jitter).mul_f64(if n < 3 { 0.2 } else { 1.0 }),
            };
            no_sooner(p.retry_after, wait).min(regular.max(Duration::from_secs(1)))
        }
    })
}

/// How long somebody who lost a race waits: the more often, the longer, and never as long as the
/// others.
fn race(n: u32, jitter: u64) -> Duration {
    Duration::from_millis(20 + jitter % (40 << n.min(5)))
}

/// The longer of what a server asks for and our own back-off: one that says 0 isn't asked without
/// end.
fn no_sooner(asked: Option<Duration>, own: Duration) -> Duration {
    asked.map_or(own, |asked| asked.max(own))
}

fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // Without randomness there is no jitter, which does no harm.
    let _ = getrandom::fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

fn fraction(jitter: u64) -> f64 {
    f64::from(u32::try_from(jitter >> 32).unwrap_or(0)) / f64::from(u32::MAX)
}

fn count(ctx: &Context, started: Instant, problem: Option<&Problem>) {
    let by = ByController { controller: CONTROLLER };
    ctx.metrics.seconds.get_or_create(&by).observe(started.elapsed().as_secs_f64());
    let result = if problem.is_some() { "error" } else { "success" };
    ctx.metrics.reconciles.get_or_create(&ByResult { controller: CONTROLLER, result }).inc();
    if let Some(p) = problem {
        ctx.metrics.errors.get_or_create(&by).inc();
        ctx.metrics.problems.get_or_create(&ByReason { reason: p.reason }).inc();
    }
}

async fn write_status(
    ctx: &Context,
    link: &ApplicationLink,
    new: ApplicationLinkStatus,
    done: &[&'static str],
) {
    let old = link.status.clone().unwrap_or_default();
    if new == old {
        return;
    }
    // An announcement was written since the link was read; what differs from either is written.
    let announced = done.contains(&"Announce");
    let base =
        if announced { ApplicationLinkStatus { conditions: vec![], ..old.clone() } } else { old.clone() };
    match patch_status(ctx, link, &base, &new).await {
        Ok(true) => tell(ctx, link, &old, &new, done).await,
        Ok(false) => {}
        Err(p) => {
            tracing::warn!(link = %link.name_any(), reason = p.reason, "the status couldn't be written");
        }
    }
}

/// Writes what differs; says whether the link was still there.
async fn patch_status(
    ctx: &Context,
    link: &ApplicationLink,
    old: &ApplicationLinkStatus,
    new: &ApplicationLinkStatus,
) -> Result<bool, Problem> {
    let (Ok(before), Ok(after)) = (serde_json::to_value(old), serde_json::to_value(new)) else {
        return Ok(false);
    };
    let patch = Patch::Merge(json!({ "status": difference(&before, &after) }));
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let api: Api<ApplicationLink> =
        Api::namespaced(ctx.client.clone(), &link.namespace().unwrap_or_default());
    match api.patch_status(&link.name_any(), &params, &patch).await {
        Ok(mut written) => {
            super::cache::slim(&mut written);
            // With somebody's edit in it, it must come by the watch: that wakes the link.
            if is_as_looked_at(link, &written) {
                ctx.links.learn(written);
            }
            Ok(true)
        }
        Err(kube::Error::Api(s)) if s.code == 404 => Ok(false),
        Err(e) => Err(Problem::kube("the link's status", &e)),
    }
}

/// Whether nobody else changed a link since this was read: a status is written unconditionally.
fn is_as_looked_at(link: &ApplicationLink, written: &ApplicationLink) -> bool {
    let (a, b) = (link.meta(), written.meta());
    a.generation == b.generation
        && a.deletion_timestamp == b.deletion_timestamp
        && a.annotations == b.annotations
        && a.finalizers == b.finalizers
}

/// What a merge patch must say to turn one value into another.
fn difference(before: &Value, after: &Value) -> Value {
    let (Value::Object(b), Value::Object(a)) = (before, after) else { return after.clone() };
    let mut patch = serde_json::Map::new();
    for (key, value) in a {
        match b.get(key) {
            Some(old) if old == value => {}
            Some(old @ Value::Object(_)) if value.is_object() => {
                patch.insert(key.clone(), difference(old, value));
            }
            _ => {
                patch.insert(key.clone(), value.clone());
            }
        }
    }
    for key in b.keys().filter(|k| !a.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// An event when Ready changes, and when something was put right; none in steady state.
async fn tell(
    ctx: &Context,
    link: &ApplicationLink,
    old: &ApplicationLinkStatus,
    new: &ApplicationLinkStatus,
    done: &[&'static str],
) {
    // What changed of this condition, if anything did.
    let news = |type_: &str| {
        let of = |s: &ApplicationLinkStatus| s.conditions.iter().find(|c| c.type_ == type_).cloned();
        let before = of(old);
        of(new).filter(|now| before.is_none_or(|b| b.status != now.status || b.reason != now.reason))
    };
    let failing = || news("TokenFresh").filter(|c| c.reason == REFRESH_FAILING);
    let Some(now) = news("Ready").or_else(failing) else { return };
    let well = now.status == ConditionStatus::True && now.reason != REFRESH_FAILING;
    let event = Event {
        type_: if well { EventType::Normal } else { EventType::Warning },
        reason: now.reason.clone(),
        note: Some(now.message.chars().take(1000).collect()),
        action: action(if done.is_empty() { "Observe".into() } else { done.join(",") }, &now.message),
        secondary: None,
    };
    publish(ctx, link, &event).await;
}

/// Writes an event, unless the link had too many: conditions say the same.
async fn publish(ctx: &Context, link: &ApplicationLink, event: &Event) {
    let uid = link.uid().unwrap_or_default();
    if !ctx.remember(&uid, |memo| memo.events.take(Instant::now())) {
        return;
    }
    if let Err(e) = ctx.recorder.publish(event, &link.object_ref(&())).await {
        let p = Problem::kube("an event", &e);
        tracing::debug!(reason = p.reason, "an event couldn't be written");
    }
}

/// What an event is counted by, beside its reason: the recorder makes a series of those that are
/// alike in it, and a series goes on saying what its first event said. So the text is in it too.
fn action(what: String, text: &str) -> String {
    let mut action: String = what.chars().take(110).collect();
    action.push('-');
    action.extend(digest_hex(text).chars().take(12));
    action
}

/// An event for each thing that was put right or renewed, unless the spec was just changed: then
/// it is no surprise.
async fn tell_notes(ctx: &Context, link: &ApplicationLink, notes: &[Note]) {
    let was_settled = link.status.as_ref().is_some_and(|s| {
        s.observed_generation == link.meta().generation.unwrap_or_default()
            && s.conditions.iter().any(|c| c.type_ == "Ready")
    });
    for note in notes {
        if !was_settled && note.reason == "Repaired" {
            continue;
        }
        let event = Event {
            type_: EventType::Normal,
            reason: note.reason.into(),
            note: Some(note.text.chars().take(1000).collect()),
            action: action(note.reason.into(), &note.text),
            secondary: None,
        };
        publish(ctx, link, &event).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_can_ask_for_more_time_but_not_for_less() {
        let secs = Duration::from_secs;
        assert_eq!(no_sooner(Some(secs(0)), secs(5)), secs(5));
        assert_eq!(no_sooner(Some(secs(60)), secs(5)), secs(60));
        assert_eq!(no_sooner(None, secs(5)), secs(5));
    }

    #[test]
    fn events_that_say_something_else_are_counted_apart() {
        let long = "PutClient,".repeat(40);
        assert_ne!(action("Repaired".into(), "a"), action("Repaired".into(), "b"));
        assert_eq!(action("Repaired".into(), "a"), action("Repaired".into(), "a"));
        // The API server takes 128.
        assert!(action(long, "a").len() <= 128);
    }

    #[test]
    fn a_status_that_came_back_with_an_edit_isn_t_learnt() {
        let link = |metadata: Value| -> ApplicationLink {
            serde_json::from_value(json!({
                "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
                "metadata": metadata, "spec": {"application": {"name": "a"}},
            }))
            .expect("a link")
        };
        let looked_at = link(json!({"resourceVersion": "5", "generation": 1, "finalizers": ["f"]}));
        let newer = |change: Value| {
            let mut metadata = json!({"resourceVersion": "6", "generation": 1, "finalizers": ["f"]});
            metadata
                .as_object_mut()
                .expect("an object")
                .extend(change.as_object().expect("an object").clone());
            is_as_looked_at(&looked_at, &link(metadata))
        };
        assert!(newer(json!({"labels": {"a": "b"}})));
        for change in [
            json!({"generation": 2}),
            json!({"annotations": {"a": "b"}}),
            json!({"finalizers": []}),
            json!({"deletionTimestamp": "2026-01-01T00:00:00Z"}),
        ] {
            assert!(!newer(change.clone()), "{change}");
        }
    }

    #[test]
    fn a_difference_names_what_changed_and_what_went() {
        let before = json!({"a": 1, "b": {"c": 1, "d": 2}, "e": [1]});
        let after = json!({"a": 1, "b": {"c": 3}, "e": [2], "f": 4});
        assert_eq!(difference(&before, &after), json!({"b": {"c": 3, "d": null}, "e": [2], "f": 4}));
    }
}
