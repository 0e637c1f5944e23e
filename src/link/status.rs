//! From what was decided and done to the status. Pure; the one place that makes conditions.

use super::decide::{Connected, IncomingView, Token, WAITS};
use super::execute::Outcome;
use super::facts::Desk;
use super::problem::{Mend, Problem};
use super::validate::ValidatedLink;
use crate::api::common::Condition;
use crate::api::link::{
    ApplicationLinkStatus, Binding, ConnectedStatus, IncomingStatus, OutgoingStatus, ProviderStatusRef,
};
use crate::api::{ApplicationLink, ConditionStatus};
use crate::domain::Reason;
use jiff::Timestamp;
use kube::Resource as _;
use url::Url;

/// The reason of `TokenFresh` while the token is good and its successor can't be got.
pub const REFRESH_FAILING: &str = Reason::RefreshFailing.as_str();

/// The reason of `TokenFresh` while the token is good and nothing but a person's consent gives another one.
pub const NOT_RENEWED: &str = Reason::NoRefreshToken.as_str();

/// What the status is made of.
pub struct Input<'a> {
    /// The link as it was read.
    pub link: &'a ApplicationLink,
    /// The checked spec, or why there is none.
    pub spec: Result<&'a ValidatedLink, Problem>,
    /// The client.
    pub incoming: Option<&'a IncomingView>,
    /// The provider.
    pub provider: Option<ProviderStatusRef>,
    /// The token that is published after the pass.
    pub token: Option<Token>,
    /// Whether the Secret held the newest token before the pass, and it is good.
    pub in_place: bool,
    /// Who connected the link.
    pub connected: Option<&'a Connected>,
    /// Where people consent to it, if that is known.
    pub desk: Option<&'a Desk>,
    /// What came of the plan.
    pub outcome: Option<&'a Outcome>,
    /// When what may pass is tried again.
    pub next_retry: Option<Timestamp>,
    /// The clock.
    pub now: Timestamp,
}

/// Makes the status. What a pass couldn't find out stays as the last one found it.
pub fn project(input: &Input<'_>) -> ApplicationLinkStatus {
    let last = input.link.status.clone().unwrap_or_default();
    let spec = &input.link.spec;
    let mut status = ApplicationLinkStatus {
        observed_generation: input.link.meta().generation.unwrap_or_default(),
        direction: Some(
            match (&spec.incoming, &spec.outgoing) {
                (Some(_), Some(_)) => "Two-way",
                (None, Some(_)) => "Outgoing",
                _ => "Incoming",
            }
            .to_owned(),
        ),
        next_retry: input.next_retry.map(|t| whole(t).to_string()),
        ..ApplicationLinkStatus::default()
    };
    let deleting = input.link.meta().deletion_timestamp.is_some();
    if spec.incoming.is_some() {
        status.provider = input.provider.clone().or(last.provider.clone());
        status.incoming = input
            .incoming
            .map(|v| IncomingStatus {
                client_id: v.client_id.to_string(),
                // The serial never falls, whatever became of the client or of the annotation.
                serial: v.serial.max(last.incoming.as_ref().map_or(0, |i| i.serial)),
                master_key: v.key.clone(),
                on_deletion: v.deletion.map(|d| d.as_str().to_owned()),
                rotated_at: at(Some(v.since).filter(|s| *s > 0)),
                next_rotation: at(v.next_rotation),
                previous_until: at(v.previous_until),
                last_request: Some(v.request.clone()).filter(|r| !r.is_empty()),
                last_gap: input
                    .outcome
                    .and_then(|o| o.gap)
                    .map(|gap| format!("{}ms", gap.as_millis()))
                    .or_else(|| last.incoming.as_ref().and_then(|i| i.last_gap.clone())),
                secret_name: v.secret_name.clone(),
            })
            .or(last.incoming.clone());
    }
    if spec.incoming.is_none() {
        let last = last.incoming.as_ref().map(|i| i.serial).max(last.highest_serial);
        status.highest_serial = last;
    }
    if let Some(outgoing) = input.spec.as_ref().ok().and_then(|s| s.outgoing.as_ref()) {
        let time = |t: Timestamp| t.to_string();
        let last = last.outgoing.as_ref().filter(|_| outgoing.grant.asks_a_person());
        let uri = |new: Option<&Url>, old: fn(&OutgoingStatus) -> &Option<String>| {
            new.map(ToString::to_string).or_else(|| last.and_then(|l| old(l).clone()))
        };
        // While the grant can't be read it isn't known to be another one.
        let unread = input
            .outcome
            .and_then(|o| o.outgoing.as_ref())
            .is_some_and(|r| r.as_ref().is_err_and(|p| p.mend != Mend::Edit));
        status.outgoing = Some(OutgoingStatus {
            secret_name: outgoing.secret.name.clone(),
            expires_at: input.token.map(|t| time(t.expires_at)),
            last_refresh: input.token.map(|t| time(t.issued_at)),
            next_refresh: input
                .token
                .filter(|t| t.next_refresh > input.now)
                .map(|t| time(whole(t.next_refresh))),
            redirect_uri: uri(input.desk.and_then(|d| d.redirect_uri.as_ref()), |l| &l.redirect_uri),
            consent_uri: uri(input.desk.map(|d| &d.consent_uri), |l| &l.consent_uri),
            connected: input
                .connected
                .map(|c| ConnectedStatus {
                    issuer: c.account.as_ref().map(|a| a.issuer().to_owned()),
                    subject: c.account.as_ref().map(|a| a.subject().to_owned()),
                    at: time(c.at),
                })
                .or_else(|| last.filter(|_| unread).and_then(|l| l.connected.clone())),
        });
    } else if spec.outgoing.is_some() {
        status.outgoing = last.outgoing.clone();
    }
    status.binding = status
        .incoming
        .as_ref()
        .map(|i| i.secret_name.clone())
        .or_else(|| status.outgoing.as_ref().map(|o| o.secret_name.clone()))
        .map(|name| Binding { name });
    status.conditions = conditions(input, &status, deleting);
    keep_times(&mut status.conditions, &last.conditions, input.now);
    status
}

/// The status while a secret takes another's place: as it was, but not Ready.
pub fn announced(old: &ApplicationLinkStatus, problem: &Problem, now: Timestamp) -> ApplicationLinkStatus {
    taken_away(old, "Registered", problem, now)
}

/// The status while something waits for a server: as it was, but not Ready, and `what` isn't so either.
pub fn taken_away(
    old: &ApplicationLinkStatus,
    what: &str,
    problem: &Problem,
    now: Timestamp,
) -> ApplicationLinkStatus {
    let mut new = old.clone();
    let generation = old.observed_generation;
    new.conditions.retain(|c| {
        c.type_ != "Ready" && c.type_ != what && c.type_ != "Stalled" && c.type_ != "Reconciling"
    });
    let said = |type_, status| condition(type_, status, problem.why, &problem.message, generation);
    new.conditions.splice(0..0, [said("Ready", false), said(what, false), said("Reconciling", true)]);
    keep_times(&mut new.conditions, &old.conditions, now);
    new
}

/// The status of a link that is being deleted, where it doesn't say so yet: as it was, but not Ready.
/// `left` are the finalizers that others have on it, once ours is off.
pub fn terminating(
    link: &ApplicationLink,
    left: Option<&[String]>,
    now: Timestamp,
) -> Option<ApplicationLinkStatus> {
    const REASON: Reason = Reason::Terminating;
    const MOST: usize = 3;
    let old = link.status.clone().unwrap_or_default();
    let ready = old.conditions.iter().find(|c| c.type_ == "Ready" && c.status == ConditionStatus::False);
    let says =
        |c: &Condition| c.reason == REASON.as_str() || (left.is_none() && c.message.starts_with(WAITS));
    let message = match left {
        None => "the link is being deleted, and lets go of what it has".to_owned(),
        Some(names) => format!(
            "the link has let go of what it had; it is there until others take their finalizers off: {}",
            names.iter().take(MOST).map(String::as_str).collect::<Vec<_>>().join(", ")
        ),
    };
    if ready.is_some_and(|c| says(c) && (left.is_none() || c.message == message)) {
        return None;
    }
    let generation = link.meta().generation.unwrap_or_default();
    let said = |type_, status| condition(type_, status, REASON, &message, generation);
    let mut new = ApplicationLinkStatus { observed_generation: generation, next_retry: None, ..old.clone() };
    new.conditions = vec![said("Ready", false), said("Reconciling", true)];
    keep_times(&mut new.conditions, &old.conditions, now);
    Some(new)
}

/// A point in time, from seconds since 1970.
fn at(seconds: Option<i64>) -> Option<String> {
    seconds.and_then(|s| Timestamp::from_second(s).ok()).map(|t| t.to_string())
}

fn whole(t: Timestamp) -> Timestamp {
    Timestamp::from_second(t.as_second()).unwrap_or(t)
}

fn condition(type_: &str, status: bool, reason: Reason, message: &str, generation: i64) -> Condition {
    // The field holds 32768; a message that long helps nobody.
    let message = message.chars().take(1024).collect();
    Condition {
        type_: type_.to_owned(),
        status: if status { ConditionStatus::True } else { ConditionStatus::False },
        reason: reason.to_string(),
        message,
        last_transition_time: String::new(),
        observed_generation: generation,
    }
}

fn conditions(input: &Input<'_>, status: &ApplicationLinkStatus, deleting: bool) -> Vec<Condition> {
    let generation = status.observed_generation;
    let mut all = Vec::new();
    let mut problems: Vec<Problem> = Vec::new();
    // A deletion doesn't read the spec, so what is wrong with it isn't in its way.
    if let (Err(problem), false) = (&input.spec, deleting) {
        problems.push(problem.clone());
    }
    let expired = input.token.is_none_or(|t| t.expires_at <= input.now);
    let unrenewed = input.connected.and_then(|c| c.unrenewed.as_deref());
    if let Some(outcome) = input.outcome {
        match &outcome.incoming {
            Some(Ok(())) => {
                let id = status.incoming.as_ref().map_or("", |i| i.client_id.as_str());
                let goal = input.spec.as_ref().ok().and_then(|s| s.incoming.as_ref());
                let public = goal.is_some_and(|g| g.metadata.auth_method.is_public());
                // What was proved, and no more.
                let message = if public {
                    format!("client {id} is registered as a public client, which has no credentials")
                } else {
                    format!("client {id} is registered and its credentials authenticate")
                };
                all.push(condition("Registered", true, Reason::Registered, &message, generation));
                problems.extend(outcome.unserved.clone());
            }
            Some(Err(p)) => {
                all.push(condition("Registered", false, p.why, &p.message, generation));
                problems.push(p.clone());
            }
            None => {}
        }
        if let Some(result) = &outcome.outgoing {
            let passing = result.as_ref().err().filter(|p| !expired && takes_nothing(input, outcome, p));
            match result {
                Err(p) if passing.is_none() => {
                    all.push(condition("Authorized", false, p.why, &p.message, generation))
                }
                _ => all.push(condition(
                    "Authorized",
                    true,
                    Reason::Authorized,
                    "the grant is in hand",
                    generation,
                )),
            }
            if expired {
                let (reason, message) = match (input.token, result) {
                    (Some(t), _) => {
                        (Reason::TokenExpired, format!("the access token ended at {}", t.expires_at))
                    }
                    (None, Err(p)) => (p.why, p.message.clone()),
                    (None, Ok(())) => (Reason::TokenMissing, "there is no access token yet".to_owned()),
                };
                all.push(condition("TokenFresh", false, reason, &message, generation));
            } else {
                let until = input.token.map(|t| t.expires_at.to_string()).unwrap_or_default();
                let good = format!("the access token is good until {until}");
                let (reason, message) = match (passing, unrenewed) {
                    (Some(p), _) => {
                        (Reason::RefreshFailing, format!("{good}; a refresh came to nothing: {}", p.message))
                    }
                    (None, Some(why)) => (Reason::NoRefreshToken, format!("{good}; {why}")),
                    (None, None) => (Reason::TokenFresh, good),
                };
                all.push(condition("TokenFresh", true, reason, &message, generation));
            }
            match result {
                Err(_) if passing.is_some() => {}
                Err(p) => problems.push(p.clone()),
                Ok(()) if expired => problems.push(match input.token {
                    Some(t) if input.spec.as_ref().is_ok_and(|s| s.suspend) => Problem::edit(
                        Reason::TokenExpired,
                        format!(
                            "the access token ended at {} and the link is suspended; set spec.suspend to false to have it \
                             refreshed",
                            t.expires_at
                        ),
                    ),
                    Some(t) => Problem::wait(Reason::TokenExpired, format!("the access token ended at {}", t.expires_at)),
                    None => Problem::wait(Reason::TokenMissing, "there is no access token yet"),
                }),
                Ok(()) => {}
            }
        }
    }
    let pending = input.outcome.and_then(|o| o.pending.as_ref());
    if deleting && let Some(p) = pending {
        problems.push(p.clone());
    }
    // What a person must mend is said before what passes by itself.
    problems.sort_by_key(|p| p.mend != Mend::Edit);
    let suspended = input.spec.as_ref().is_ok_and(|s| s.suspend);
    let ready = match problems.first() {
        Some(p) => condition("Ready", false, p.why, &p.message, generation),
        None if suspended => condition(
            "Ready",
            true,
            Reason::Suspended,
            "all was in order; nothing is refreshed or repaired until spec.suspend is false",
            generation,
        ),
        None => {
            let good = "the credentials are in place and authenticate";
            let message = match (unrenewed, input.token) {
                (Some(why), Some(t)) => format!("{good} until {}; {why}", t.expires_at),
                _ => good.to_owned(),
            };
            condition("Ready", true, Reason::Connected, &message, generation)
        }
    };
    match problems.first().or(pending) {
        Some(p) if p.mend == Mend::Edit => {
            all.push(condition("Stalled", true, p.why, &p.message, generation))
        }
        Some(p) => all.push(condition("Reconciling", true, p.why, &p.message, generation)),
        None => {}
    }
    all.insert(0, ready);
    all
}

/// Whether a refresh that came to nothing leaves the token that is in place as good as it was. Where
/// the outcome isn't known, it does so if a refresh ends no token.
fn takes_nothing(input: &Input<'_>, outcome: &Outcome, problem: &Problem) -> bool {
    let goal = input.spec.as_ref().ok().and_then(|s| s.outgoing.as_ref());
    let ends_token = goal.is_none_or(|g| g.grant.refreshes() && g.server.preset.ends_token);
    let untouched = match problem.mend {
        Mend::Wait => true,
        Mend::Unanswered => !ends_token,
        Mend::Edit | Mend::Conflict => false,
    };
    input.in_place && untouched && !outcome.done.contains(&"RequestToken")
}

/// A condition that says the same keeps the time at which it began to.
fn keep_times(new: &mut [Condition], last: &[Condition], now: Timestamp) {
    for condition in new {
        let before = last.iter().find(|c| c.type_ == condition.type_ && c.status == condition.status);
        condition.last_transition_time =
            before.map_or_else(|| whole(now).to_string(), |c| c.last_transition_time.clone());
    }
}
