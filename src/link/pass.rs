//! One pass over one link: observe, validate, decide, execute, project status.

mod again;
mod said;

pub use said::{announce, take_away, terminating};

use super::cache::Key;
use super::claim;
use super::content::SecretGoal;
use super::context::{Context, Credentials, Turned};
use super::decide::{Decision, Goal, Note, decide, not_served, token_view, too_short};
use super::demote;
use super::ended::Ended;
use super::execute::{Outcome, execute};
use super::facts::{Observed, Refused, SecretFact};
use super::metrics::{ByController, ByEffect, ByReason, ByResult};
use super::observe::observe;
use super::plan::{Effect, Plan};
use super::problem::{Mend, Problem};
use super::service_account::out_of_reach;
use super::status::{Input, project};
use super::turns::{Permit, Turn, Who};
use super::validate::{IncomingGoal, ValidatedLink, validate};
use crate::api::link::{ApplicationLinkStatus, DeletionPolicy, ProviderStatusRef};
use crate::api::{ApplicationLink, names};
use crate::domain::text::cut;
use crate::domain::{KeyRing, Reason};
use again::{Look, after, next_retry};
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use said::{tell_notes, write_status};
use std::sync::Arc;
use std::time::{Duration, Instant};

const CONTROLLER: &str = "applicationlink";
/// So many passes in a row may lose a race before it is said.
const RACES: u32 = 10;

/// Looks after a link; says when to look again, or not again when there is none to look after. With a
/// permit, a token request may be sent to the host that it is for.
pub async fn reconcile(ctx: &Context, key: &Key, resync: Duration, permit: Option<Permit>) -> Ended {
    let Some(mut link) = ctx.links.get(key) else { return Ended::default() };
    let deleting = link.meta().deletion_timestamp.is_some();
    let uid = link.uid().unwrap_or_default();
    let started = Instant::now();
    let now = Timestamp::now();
    if deleting {
        link = terminating(ctx, &link).await;
        if !link.finalizers().iter().any(|f| f == names::LINK_FINALIZER) {
            return Ended::default();
        }
    }
    let checked = validate(&link).map_err(|e| Problem::edit(Reason::InvalidSpec, e.to_string()));
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
                next_retry: None,
                now,
            };
            let saying = ctx.remember(&uid, |memo| memo.saying.clone());
            let mut passes = saying.lock().await;
            *passes += 1;
            let link = &as_it_says_now(ctx, key, &link);
            let unsaid = write_status(ctx, link, project(&Input { link, ..input }), &[]).await;
            drop(passes);
            ctx.remember(&uid, |memo| memo.stirred.answered(started, &[]));
            let conflict = first_problem(&outcome).filter(|p| p.mend == Mend::Conflict);
            let problem = conflict.or(unsaid).unwrap_or(problem.clone());
            let look = Look { link, uid: &uid, resync, wake: None, now };
            return Ended::again(Some(after(ctx, &look, Some(&problem))));
        }
    };
    let Steps { link, seen, decision, mut outcome, notes, turn } =
        steps(ctx, key, link, &goal, now, permit).await;
    if outcome.done.last() == Some(&"Finish") {
        count(ctx, started, None);
        ctx.memos.lock().unwrap_or_else(std::sync::PoisonError::into_inner).remove(&uid);
        tracing::info!(namespace = %key.namespace, link = %key.name, "let go");
        return Ended::default();
    }
    if let (Some(access), Some(Ok(()))) = (&outcome.published, &outcome.outgoing)
        && outcome.done.contains(&"RequestToken")
        && let Some(short) = too_short(access, ctx.min_refresh_interval)
    {
        outcome.outgoing = Some(Err(short));
    }
    if let (Some(goal), Some(Ok(()))) =
        (checked.as_ref().ok().and_then(|v| v.incoming.as_ref()), &outcome.incoming)
    {
        outcome.unserved = seen.incoming.as_ref().and_then(|f| not_served(goal, f.place.as_ref().ok()?));
    }
    let problem = first_problem(&outcome);
    if let Some(p) = &problem {
        tracing::info!(namespace = %key.namespace, link = %key.name, reason = p.reason, message = cut(p.message.clone()), "not as it should be");
    }
    remember(ctx, &link, &uid, &seen, &outcome);
    let token = outcome
        .published
        .as_ref()
        .zip(checked.as_ref().ok().and_then(|v| v.outgoing.as_ref()))
        .map(|(access, goal)| token_view(goal, &uid, access, ctx.min_refresh_interval))
        .or(decision.token);
    let fingerprint = outcome.published.as_ref().map(|access| access.fingerprint.clone()).or_else(|| {
        let shown = seen.outgoing.as_ref().map(|facts| &facts.secret);
        let Some(SecretFact::Own(own)) = shown else { return None };
        own.annotations.get(names::TOKEN_FOR).cloned()
    });
    let after_pass = Timestamp::now();
    if let Some(before) = decision.token
        && outcome.done.contains(&"PublishToken")
        && outcome.done.contains(&"RequestToken")
        && let Ok(late) = Duration::try_from(after_pass.duration_since(before.next_refresh))
    {
        ctx.metrics.lateness.observe(late.as_secs_f64());
    }
    let kept = match (&outcome.incoming, checked.as_ref().ok().and_then(|v| v.incoming.as_ref()), &seen.keys)
    {
        (Some(Ok(())), Some(goal), Ok(keys)) => credentials(keys, goal, &seen, &decision),
        _ => None,
    };
    ctx.remember(&uid, |memo| {
        (memo.token, memo.credentials) = (token, kept);
        if outcome.published.is_some() || outcome.in_hand.is_some() {
            memo.in_hand = outcome.in_hand.clone();
        }
        memo.fingerprint = token.is_some().then_some(fingerprint).flatten();
    });
    // A pass that lost a race says nothing: the next one, in a moment, knows more. One that loses
    // again and again has met something else.
    let lost = problem.as_ref().is_some_and(|p| p.mend == Mend::Conflict)
        && ctx.remember(&uid, |memo| memo.attempts < RACES);
    let by_secret =
        decision.incoming.as_ref().and_then(|v| v.wake()).filter(|t| *t > after_pass && !deleting);
    let wake = token
        .into_iter()
        .flat_map(|t| [t.next_refresh, t.expires_at])
        .filter(|t| *t > after_pass && !deleting)
        .chain(by_secret)
        .chain(decision.wake.filter(|t| *t > after_pass))
        .chain(outcome.refused.as_ref().and_then(|r| r.stalls).filter(|t| *t > after_pass))
        .min();
    let look = Look { link: &link, uid: &uid, resync, wake, now: after_pass };
    // Who waits for its turn is called up: that isn't a failure, and no reason to look more often.
    let failed = problem.as_ref().filter(|p| turn.is_none() || p.reason != QUEUED);
    let mut again = after(ctx, &look, failed);
    let mut unsaid = None;
    // What was said while this pass waited is in what is written over now.
    let saying = ctx.remember(&uid, |memo| memo.saying.clone());
    let mut passes = saying.lock().await;
    *passes += 1;
    let link = as_it_says_now(ctx, key, &link);
    let stirred = ctx.remember(&uid, |memo| {
        // A watch may show what an earlier pass wrote only now.
        memo.wrote.extend(&outcome.wrote);
        let old = memo.wrote.len().saturating_sub(WRITES);
        memo.wrote.drain(..old);
        memo.stirred.answered(started, &memo.wrote);
        memo.stirred
    });
    // Something changed since this pass looked, or the link is being deleted by now: the next pass, which comes at
    // once, knows whether it is Ready.
    let overtaken = (stirred.any() && !demote::says_ready(&link))
        || (!deleting && ctx.links.get(key).is_some_and(|now| now.meta().deletion_timestamp.is_some()));
    if !lost && !overtaken && (!deleting || outcome.pending.is_some()) {
        let next = next_retry(ctx, &uid, failed);
        let status = status(&link, &checked, &seen, &decision, &outcome, token, (next, after_pass));
        unsaid = write_status(ctx, &link, status, &outcome.done).await;
    }
    drop(passes);
    if outcome.incoming.as_ref().is_some_and(Result::is_ok) {
        tell_notes(ctx, &link, &notes).await;
    }
    count(ctx, started, problem.as_ref());
    if let (None, Some(unsaid)) = (failed, &unsaid) {
        again = after(ctx, &look, Some(unsaid));
    }
    if overtaken {
        again = again.min(OVERTAKEN);
    }
    hold(ctx, &link, &uid, &decision, &outcome, again, after_pass);
    // Where all is well, what we wrote is what was to be; else it may be what something waits for.
    let wrote = if problem.is_none() { outcome.wrote } else { Vec::new() };
    let refused = problem.as_ref().is_some_and(|p| REFUSED.contains(&p.reason));
    Ended { again: Some(again), wrote, turn, refused }
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
const QUEUED: &str = Reason::Queued.as_str();

/// The reason where a Secret can't be written with the client secret that is due.
const UNWRITABLE: &str = Reason::SecretUnwritable.as_str();

/// What the API server doesn't take: a policy, a quota or a right may change, and nothing tells of that.
const REFUSED: [&str; 3] = [Reason::Forbidden.as_str(), Reason::RefusedByApiServer.as_str(), UNWRITABLE];

/// So many of the versions that passes made are remembered of a link.
const WRITES: usize = 8;

/// When a link is looked at again whose pass was overtaken, at the latest.
const OVERTAKEN: Duration = Duration::from_secs(1);

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
            permit = permit.filter(|p| p.is_for(&asks.host, &asks.client)).or_else(|| {
                let who = Who { owner: &seen.namespace, client: &asks.client };
                ctx.turns.ask(&asks.host, who, Instant::now())
            });
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
        // The new client secret must wait; what else there is to do for the client needn't.
        if let (Some(Err(problem)), Some(facts)) = (&outcome.incoming, &mut seen.incoming)
            && problem.reason == UNWRITABLE
        {
            facts.unwritable = Some(problem.clone());
            let without = decide(goal, &seen, now);
            let rest = Plan { incoming: without.plan.incoming.clone(), ..Plan::default() };
            let other = execute(ctx, &link, &seen, &handles, &rest).await;
            outcome.incoming = other.incoming;
            outcome.done.extend(other.done);
            outcome.wrote.extend(other.wrote);
            decision.incoming = without.incoming;
            decision.plan.incoming = without.plan.incoming;
        }
        if outcome.incoming.as_ref().is_some_and(Result::is_err) && outgoing.is_some() {
            let rest = Plan { outgoing, ..Plan::default() };
            let other = execute(ctx, &link, &seen, &handles, &rest).await;
            (outcome.outgoing, outcome.published, outcome.refused) =
                (other.outgoing, other.published, other.refused);
            outcome.in_hand = other.in_hand;
            outcome.done.extend(other.done);
            outcome.wrote.extend(other.wrote);
        }
        let asked = decision.plan.effects().any(|e| matches!(e, Effect::RequestToken(_)));
        if let Some(permit) = permit.as_mut().filter(|_| asked && outcome.outgoing.is_some()) {
            permit.answered(outcome.done.contains(&"RequestToken"), Instant::now());
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
            outcome.incoming = Some(Err(Problem::wait(Reason::ProviderRestless, text)));
            (outcome.done, outcome.wrote) = (done, wrote);
            return Steps { link, seen, decision, outcome, notes, turn };
        }
    }
    unreachable!("the loop ends by a return")
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
    let due = ctx.remember(uid, |memo| memo.retry.as_ref().map(|retry| retry.at));
    let until = due.or_else(|| now.checked_add(again).ok());
    let refused = Refused { fingerprint: fingerprint.clone(), problem: problem.clone(), until, stalls: None };
    ctx.remember(uid, |memo| memo.refused = Some(Turned::now(link, refused)));
}

fn first_problem(outcome: &Outcome) -> Option<Problem> {
    let parts = [&outcome.incoming, &outcome.outgoing].into_iter().flatten();
    let problems = parts.filter_map(|p| p.as_ref().err()).chain(&outcome.pending).chain(&outcome.unserved);
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
    (next_retry, now): (Option<Timestamp>, Timestamp),
) -> ApplicationLinkStatus {
    // Where the client is, and not where it is wanted: by this it is found when the annotation is gone.
    let claims = outcome.link.annotations.as_ref().map(claim::hints).unwrap_or_default();
    let nowhere = claims.is_empty() && link.status.as_ref().is_none_or(|s| s.provider.is_none());
    let provider = seen
        .incoming
        .as_ref()
        .and_then(|i| i.place.as_ref().ok())
        .filter(|p| nowhere || claims.contains(&p.claim))
        .map(|p| ProviderStatusRef { kind: p.claim.kind, name: p.claim.name.clone() });
    // What didn't come about, or was put back, is as the status says already: a secret of a higher serial
    // would be taken for the present one.
    let put = outcome.done.contains(&"PutClient");
    let failed = outcome.incoming.as_ref().is_some_and(Result::is_err);
    let unput = failed && !put && decision.plan.names().contains(&"PutClient");
    let mut incoming = decision.incoming.clone().filter(|_| !outcome.undone && !unput);
    let wrote = put && !failed;
    if let (Some(view), true) = (&mut incoming, wrote) {
        view.deletion = view.deletion_once_written;
    }
    project(&Input {
        link,
        spec: checked.as_ref().map_err(Clone::clone),
        incoming: incoming.as_ref(),
        provider,
        token,
        in_place: decision.in_place,
        connected: decision.connected.as_ref(),
        desk: seen.outgoing.as_ref().and_then(|o| o.desk.as_ref()?.as_ref().ok()),
        outcome: Some(outcome),
        next_retry,
        now,
    })
}

fn remember(ctx: &Context, link: &ApplicationLink, uid: &str, seen: &Observed, outcome: &Outcome) {
    let refused = outcome.refused.clone();
    let holder = seen.outgoing.as_ref().map(|o| o.holder.as_str());
    let intent = seen.grant.as_ref().and_then(|(grant, _)| grant.intent.as_ref());
    let begun_elsewhere = intent.is_some_and(|i| holder.is_some_and(|h| i.holder != h));
    let lost = matches!(&outcome.outgoing, Some(Err(p)) if p.mend == Mend::Unanswered);
    let renewed = ["RequestToken", "PublishToken"].iter().all(|effect| outcome.done.contains(effect));
    ctx.remember(uid, |memo| {
        memo.doubt = !renewed && (memo.doubt || begun_elsewhere || lost);
        if let Some(refused) = refused {
            memo.refused = Some(Turned::now(link, refused));
        } else if outcome.outgoing.as_ref().is_some_and(Result::is_ok) {
            memo.refused = None;
        }
    });
}

/// The link with the status that stands there now: it may have been written while the pass waited.
fn as_it_says_now(ctx: &Context, key: &Key, link: &Arc<ApplicationLink>) -> Arc<ApplicationLink> {
    match ctx.links.get(key).filter(|now| now.uid() == link.uid() && now.status != link.status) {
        Some(now) => Arc::new(ApplicationLink { status: now.status.clone(), ..(**link).clone() }),
        None => link.clone(),
    }
}

/// What stands in the client's Secret after a pass that went well.
fn credentials(
    keys: &KeyRing,
    goal: &IncomingGoal,
    seen: &Observed,
    decision: &Decision,
) -> Option<Credentials> {
    let written = decision.plan.effects().find_map(|effect| match effect {
        Effect::WriteSecret(write) => Some(&write.data),
        _ => None,
    });
    let SecretGoal { keys: slots, templates, .. } = &goal.secret;
    let data = match (written, &seen.incoming.as_ref()?.secret) {
        (Some(data), _) => data,
        (None, SecretFact::Own(own)) => &own.data,
        (None, _) => return None,
    };
    let ours = |key: &String| {
        ["type", "provider"].contains(&key.as_str())
            || slots.values().any(|slot| slot == key)
            || templates.contains_key(key)
    };
    let all = data.iter().filter(|(key, _)| ours(key)).map(|(key, value)| (key, Some(value)));
    Some(Credentials::of(keys, all))
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
