//! Takes Ready away while a pass waits for a server, or for its turn: what has ended, what is gone and what
//! somebody edited is said by what is known without that server. It never says that a link is Ready; the
//! next pass does. A token that we still have is put back into its Secret.

use super::cache::Key;
use super::context::{Context, Credentials, Stirred};
use super::decide::{Goal, publish, published};
use super::ended::Ended;
use super::execute::execute;
use super::facts::SecretFact;
use super::observe::{Handles, blank, observe};
use super::pass::{take_away, terminating};
use super::plan::{Part, Plan};
use super::problem::Problem;
use super::secrets::Secrets;
use super::validate::{IncomingGoal, OutgoingGoal, ValidatedLink, validate};
use crate::api::{ApplicationLink, ConditionStatus};
use crate::domain::{KeyRing, Reason};
use crate::provider::Proof;
use jiff::Timestamp;
use kube::{Resource as _, ResourceExt as _};
use std::time::Duration;

/// How long a change, or the end of a token, is left to a pass.
pub const LEAVE_TO_A_PASS: Duration = Duration::from_millis(700);

/// How long a provider may take to say what is there.
const ASK: Duration = Duration::from_secs(2);

/// What isn't so, and the condition that said it is.
type Found = (&'static str, Problem);

/// Looks at a link that may not be as its status says, and says so. Due again while no pass has answered.
pub async fn look(ctx: &Context, key: &Key) -> Ended {
    let Some(link) = ctx.links.get(key).filter(|link| says_ready(link)) else { return Ended::default() };
    let uid = link.uid().unwrap_or_default();
    let (saying, stirred) = ctx.remember(&uid, |memo| (memo.saying.clone(), memo.stirred));
    if link.meta().deletion_timestamp.is_some() {
        let _said = saying.lock().await;
        terminating(ctx, &link).await;
        return Ended::default();
    }
    let passes = *saying.lock().await;
    let Ok(valid) = validate(&link) else { return Ended::default() };
    let found = match ended(ctx, &link, &valid, passes == 0) {
        Some(found) => Some(found),
        None if stirred.any() => changed(ctx, &link, &valid, stirred).await,
        None => None,
    };
    let still = *saying.lock().await == passes;
    if let (Some((what, problem)), true) = (&found, still) {
        let said = saying.lock().await;
        // A pass that has said something since knows more.
        if *said == passes
            && let Some(now) = ctx.links.get(key).filter(|now| now.uid() == link.uid() && says_ready(now))
        {
            take_away(ctx, &now, what, problem).await;
        }
    } else if still {
        ctx.remember(&uid, |memo| {
            // What came since is looked at next time.
            memo.stirred.secret = memo.stirred.secret.filter(|at| Some(*at) != stirred.secret);
            memo.stirred.client = memo.stirred.client.filter(|at| Some(*at) != stirred.client);
        });
    }
    let unanswered = ctx.remember(&uid, |memo| memo.stirred.any());
    Ended::again(unanswered.then_some(LEAVE_TO_A_PASS).or_else(|| until_end(ctx, &link)))
}

/// How long the token of a link is good, and a pass then has to say that it isn't.
pub fn until_end(ctx: &Context, link: &ApplicationLink) -> Option<Duration> {
    let ends = token_end(ctx, link)?;
    let left = Duration::try_from(ends.duration_since(Timestamp::now())).unwrap_or_default();
    Some(left + LEAVE_TO_A_PASS)
}

/// When the token ends that the last pass left, of this operator or of the one before it.
fn token_end(ctx: &Context, link: &ApplicationLink) -> Option<Timestamp> {
    let token = ctx.remember(&link.uid().unwrap_or_default(), |memo| memo.token);
    let told = || link.status.as_ref()?.outgoing.as_ref()?.expires_at.as_ref()?.parse().ok();
    token.map(|token| token.expires_at).or_else(told)
}

/// Whether its status says that a link is Ready.
pub fn says_ready(link: &ApplicationLink) -> bool {
    let conditions = link.status.iter().flat_map(|s| &s.conditions);
    conditions.into_iter().any(|c| c.type_ == "Ready" && c.status == ConditionStatus::True)
}

/// What is known without asking anybody. `first`: no pass has looked at it in this life of the operator.
fn ended(ctx: &Context, link: &ApplicationLink, valid: &ValidatedLink, first: bool) -> Option<Found> {
    if valid.outgoing.is_some()
        && let Some(ends) = token_end(ctx, link).filter(|ends| *ends <= Timestamp::now())
    {
        let problem = Problem::wait(Reason::TokenExpired, format!("the access token ended at {ends}"));
        return Some(("TokenFresh", problem));
    }
    if !first {
        return None;
    }
    let namespace = link.namespace().unwrap_or_default();
    let own = ctx.own.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let there = |name: &str| own.contains(&Key::new(namespace.as_str(), name));
    let incoming = valid.incoming.as_ref().map(|goal| ("Registered", &goal.secret.name));
    let outgoing = valid.outgoing.as_ref().map(|goal| ("TokenFresh", &goal.secret.name));
    let (what, name) = incoming.into_iter().chain(outgoing).find(|(_, name)| !there(name))?;
    Some((what, gone(name)))
}

fn gone(name: &str) -> Problem {
    let text =
        format!("Secret {name} is gone; it is written again once the server that it needs has answered");
    Problem::wait(Reason::SecretMissing, text)
}

fn edited(name: &str) -> Problem {
    let text = format!(
        "somebody edited Secret {name}; it is written again once the server that it needs has answered"
    );
    Problem::wait(Reason::SecretChanged, text)
}

/// What changed near it, by what is there now.
async fn changed(
    ctx: &Context,
    link: &ApplicationLink,
    valid: &ValidatedLink,
    stirred: Stirred,
) -> Option<Found> {
    let keys = ctx.installation.keys().ok()?;
    if stirred.secret.is_some() {
        if let Some(goal) = &valid.incoming
            && let Some(problem) = credentials(ctx, link, goal, &keys).await
        {
            return Some(("Registered", problem));
        }
        if let Some(goal) = &valid.outgoing
            && let Some(problem) = token(ctx, link, valid, goal, &keys).await
        {
            return Some(("TokenFresh", problem));
        }
    }
    if stirred.client.is_some() && valid.incoming.is_some() {
        return client(ctx, link, valid).await.map(|problem| ("Registered", problem));
    }
    None
}

/// Whether the client's Secret is as it was when all was well.
async fn credentials(
    ctx: &Context,
    link: &ApplicationLink,
    goal: &IncomingGoal,
    keys: &KeyRing,
) -> Option<Problem> {
    let secrets = Secrets::new(ctx.client.clone(), &link.namespace().unwrap_or_default());
    let name = &goal.secret.name;
    match ctx.look_at(&secrets, name, link).await {
        SecretFact::Absent => Some(gone(name)),
        SecretFact::Foreign(problem) => Some(problem),
        SecretFact::Unknown(_) => None,
        SecretFact::Own(own) => {
            let known = ctx.remember(&link.uid().unwrap_or_default(), |memo| memo.credentials.clone())?;
            let now = Credentials::of(keys, known.keys.iter().map(|key| (key, own.data.get(key))));
            (now != known).then(|| edited(name))
        }
    }
}

/// Whether the token's Secret shows a token of ours; where we have it, it is put back.
async fn token(
    ctx: &Context,
    link: &ApplicationLink,
    valid: &ValidatedLink,
    goal: &OutgoingGoal,
    keys: &KeyRing,
) -> Option<Problem> {
    let mut seen = blank(ctx, link);
    let secrets = Secrets::new(ctx.client.clone(), &seen.namespace);
    let name = &goal.secret.name;
    let (own, problem) = match ctx.look_at(&secrets, name, link).await {
        SecretFact::Absent => (None, gone(name)),
        SecretFact::Foreign(problem) => return Some(problem),
        SecretFact::Unknown(_) => return None,
        SecretFact::Own(own) => (Some(own), edited(name)),
    };
    let now = Timestamp::now();
    let shown = own.as_ref().and_then(|own| published(own, goal, keys));
    let access = match shown {
        Some(access) => access,
        None => {
            seen.grant = ctx.grant_of(link).await.ok()?;
            let kept = seen.grant.as_ref().and_then(|(grant, _)| grant.access.clone());
            let wanted = ctx.remember(&seen.uid, |memo| memo.fingerprint.clone());
            let same = |fingerprint: &String| Some(fingerprint) == wanted.as_ref();
            match kept.filter(|kept| kept.expires_at > now && same(&kept.fingerprint)) {
                Some(kept) => kept,
                None => return Some(problem),
            }
        }
    };
    let effect = publish(goal, &seen, own.as_deref(), &access, keys).ok()??;
    if valid.suspend {
        return Some(problem);
    }
    let part = Part { effects: vec![effect], ..Part::settled() };
    let plan = Plan { outgoing: Some(part), ..Plan::default() };
    let outcome = execute(ctx, link, &seen, &Handles::new(), &plan).await;
    match outcome.outgoing {
        Some(Err(_)) => Some(problem),
        _ => {
            tracing::info!(namespace = %seen.namespace, link = %seen.name, "the token was put back into its Secret");
            None
        }
    }
}

/// Whether the client is gone at the provider, or its credentials are refused there, as far as the provider
/// says it soon.
async fn client(ctx: &Context, link: &ApplicationLink, valid: &ValidatedLink) -> Option<Problem> {
    let goal = Goal::Present(Box::new(ValidatedLink { outgoing: None, ..valid.clone() }));
    let (seen, _) = tokio::time::timeout(ASK, observe(ctx, link, &goal)).await.ok()?;
    let facts = seen.incoming?;
    facts.place.ok()?;
    let text = "it is put right as soon as what this link waits for has answered";
    match (facts.client, facts.proof) {
        (None, _) => {
            Some(Problem::wait(Reason::ClientMissing, format!("the client is gone at the provider; {text}")))
        }
        (Some(_), Some(Proof::Refused)) => Some(Problem::wait(
            Reason::CredentialsRefused,
            format!("the provider refuses the client's credentials; {text}"),
        )),
        _ => None,
    }
}
