//! What the status says of what was found and done.

use super::decide::{Connected, IncomingView, Token};
use super::execute::Outcome;
use super::problem::{Mend, Problem};
use super::status::{Input, NOT_RENEWED, project};
use super::validate::validate;
use crate::api::common::Condition;
use crate::api::link::ApplicationLinkStatus;
use crate::api::{ApplicationLink, ConditionStatus};
use crate::domain::ClientId;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

type Part = Option<Result<(), Problem>>;

fn now() -> Timestamp {
    "2026-11-22T00:00:00Z".parse().expect("time")
}

fn link() -> ApplicationLink {
    serde_json::from_value(json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"namespace": "team", "name": "l", "uid": "u", "generation": 7},
        "spec": {
            "application": {"name": "App"},
            "incoming": {"oauth2": {"grantTypes": ["client_credentials"]}},
            "outgoing": {"oauth2": {
                "server": {"custom": {"tokenEndpoint": "https://as.example/token"}},
                "grant": {"clientCredentials": {}}, "client": {"secretRef": {"name": "c"}},
            }},
        },
    }))
    .expect("a link")
}

fn token(left: i64) -> Option<Token> {
    let at = |secs| now() + SignedDuration::from_secs(secs);
    Some(Token { issued_at: at(-60), expires_at: at(left), next_refresh: at(left - 30) })
}

fn outcome(incoming: Part, outgoing: Part, pending: Option<Problem>) -> Outcome {
    Outcome {
        incoming,
        outgoing,
        pending,
        published: None,
        in_hand: None,
        unserved: None,
        done: vec![],
        refused: None,
        undone: false,
        gap: None,
        link: kube::api::ObjectMeta::default(),
        wrote: Vec::new(),
    }
}

fn status(
    link: &ApplicationLink,
    outcome: &Outcome,
    token: Option<Token>,
    at: Timestamp,
) -> ApplicationLinkStatus {
    status_with(link, outcome, token, false, at)
}

fn status_with(
    link: &ApplicationLink,
    outcome: &Outcome,
    token: Option<Token>,
    in_place: bool,
    at: Timestamp,
) -> ApplicationLinkStatus {
    let valid = validate(link).map_err(|e| Problem::edit("InvalidSpec", e.to_string()));
    let view = IncomingView {
        key: None,
        since: 0,
        next_rotation: None,
        previous_until: None,
        request: String::new(),
        deletion: None,
        deletion_once_written: None,
        client_id: ClientId::parse("id").expect("id"),
        serial: 1,
        secret_name: "l-oauth".into(),
    };
    project(&Input {
        in_place,
        connected: None,
        desk: None,
        link,
        spec: valid.as_ref().map_err(Clone::clone),
        incoming: Some(&view),
        provider: None,
        token,
        outcome: Some(outcome),
        next_retry: None,
        now: at,
    })
}

/// `TYPE=STATUS REASON` of every condition, in order.
fn said(status: &ApplicationLinkStatus) -> Vec<String> {
    status.conditions.iter().map(|c| format!("{}={:?} {}", c.type_, c.status, c.reason)).collect()
}

fn edit() -> Problem {
    Problem::edit("InvalidClient", "wrong")
}

fn wait() -> Problem {
    Problem::wait("ServerError", "trouble")
}

#[test]
fn ready_is_all_that_it_rests_on() {
    let ok = || Some(Ok(()));
    let link = link();
    let good = ["Registered=True Registered", "Authorized=True Authorized", "TokenFresh=True TokenFresh"];
    let table: [(Outcome, Option<Token>, &str, Option<&str>); 8] = [
        (outcome(ok(), ok(), None), token(600), "Ready=True Connected", None),
        (
            outcome(Some(Err(edit())), ok(), None),
            token(600),
            "Ready=False InvalidClient",
            Some("Stalled=True InvalidClient"),
        ),
        (
            outcome(ok(), Some(Err(wait())), None),
            token(600),
            "Ready=False ServerError",
            Some("Reconciling=True ServerError"),
        ),
        // What a person must mend comes first.
        (
            outcome(Some(Err(wait())), Some(Err(edit())), None),
            token(600),
            "Ready=False InvalidClient",
            Some("Stalled=True InvalidClient"),
        ),
        (
            outcome(ok(), ok(), None),
            token(-1),
            "Ready=False TokenExpired",
            Some("Reconciling=True TokenExpired"),
        ),
        (
            outcome(ok(), ok(), None),
            token(0),
            "Ready=False TokenExpired",
            Some("Reconciling=True TokenExpired"),
        ),
        (outcome(ok(), ok(), None), None, "Ready=False TokenMissing", Some("Reconciling=True TokenMissing")),
        // Something is left to do elsewhere; the link itself is as it should be.
        (
            outcome(ok(), ok(), Some(wait())),
            token(600),
            "Ready=True Connected",
            Some("Reconciling=True ServerError"),
        ),
    ];
    for (outcome, token, ready, extra) in table {
        let status = status(&link, &outcome, token, now());
        let said = said(&status);
        assert_eq!(said[0], ready);
        assert_eq!(said.get(4).map(String::as_str), extra, "{said:?}");
        assert!(said.len() <= 5, "never both: {said:?}");
        if ready == "Ready=True Connected" {
            assert_eq!(said[1..4], good);
        }
        assert!(status.conditions.iter().all(|c| c.observed_generation == 7 && !c.message.is_empty()));
        assert_eq!(status.observed_generation, 7);
    }
}

#[test]
fn a_refresh_that_comes_to_nothing_takes_nothing_away() {
    let of = |grant: serde_json::Value, server: serde_json::Value| -> ApplicationLink {
        let mut link = link();
        link.spec.incoming = None;
        let oauth2 = json!({"server": server, "grant": grant, "client": {"secretRef": {"name": "c"}}});
        link.spec.outgoing = serde_json::from_value(json!({"oauth2": oauth2})).expect("outgoing");
        link
    };
    let refresh = || json!({"refreshToken": {"secretRef": {"name": "seed", "key": "token"}}});
    let custom = || json!({"custom": {"tokenEndpoint": "https://as.example/token"}});
    let unanswered = || Problem { mend: Mend::Unanswered, ..Problem::wait("NoAnswer", "no answer") };
    let stays = ["Ready=True Connected", "Authorized=True Authorized", "TokenFresh=True RefreshFailing"];
    let goes = |reason: &str, extra: &str| {
        let parts = [("Ready", false), ("Authorized", false), ("TokenFresh", true)];
        let reason = |type_: &str, is: bool| match is {
            true => format!("{type_}=True TokenFresh"),
            false => format!("{type_}=False {reason}"),
        };
        let mut all: Vec<_> = parts.iter().map(|(t, is)| reason(t, *is)).collect();
        all.push(extra.to_owned());
        all
    };
    let doubt = goes("NoAnswer", "Reconciling=True NoAnswer");
    let table = [
        // The server said no for now, or wasn't reached: the token is what it was.
        (of(refresh(), custom()), wait(), true, stays.map(str::to_owned).to_vec()),
        (
            of(json!({"clientCredentials": {}}), custom()),
            unanswered(),
            true,
            stays.map(str::to_owned).to_vec(),
        ),
        // It may have acted, and a refresh may have ended the token that is published.
        (of(refresh(), custom()), unanswered(), true, doubt.clone()),
        (of(refresh(), json!({"github": {}})), unanswered(), true, doubt),
        (of(refresh(), json!({"google": {}})), unanswered(), true, stays.map(str::to_owned).to_vec()),
        // A person must do something, or the Secret isn't as it should be.
        (of(refresh(), custom()), edit(), true, goes("InvalidClient", "Stalled=True InvalidClient")),
        (of(refresh(), custom()), wait(), false, goes("ServerError", "Reconciling=True ServerError")),
    ];
    for (link, problem, in_place, wanted) in table {
        let outcome = outcome(None, Some(Err(problem)), None);
        assert_eq!(said(&status_with(&link, &outcome, token(600), in_place, now())), wanted);
        // Never once it has ended.
        let ended = said(&status_with(&link, &outcome, token(0), in_place, now()));
        assert!(ended[0].starts_with("Ready=False"), "{ended:?}");
    }
    // The server did answer, and its token couldn't be published.
    let mut unpublished = outcome(None, Some(Err(wait())), None);
    unpublished.done = vec!["RequestToken"];
    let link = of(refresh(), custom());
    assert_eq!(
        said(&status_with(&link, &unpublished, token(600), true, now()))[0],
        "Ready=False ServerError"
    );
}

#[test]
fn a_suspended_link() {
    let mut link = link();
    link.spec.suspend = true;
    let fine = outcome(Some(Ok(())), Some(Ok(())), None);
    assert_eq!(said(&status(&link, &fine, token(600), now()))[0], "Ready=True Suspended");
    let ended = said(&status(&link, &fine, token(-1), now()));
    assert_eq!(
        (ended[0].as_str(), ended[4].as_str()),
        ("Ready=False TokenExpired", "Stalled=True TokenExpired")
    );
}

#[test]
fn times_are_kept_while_the_status_is() {
    let mut link = link();
    let time = |s: &ApplicationLinkStatus, type_: &str| {
        let found = s.conditions.iter().find(|c| c.type_ == type_).expect(type_);
        (found.last_transition_time.clone(), found.status)
    };
    let fine = outcome(Some(Ok(())), Some(Ok(())), None);
    let first = status(&link, &fine, token(600), now());
    link.status = Some(first.clone());
    let later = now() + SignedDuration::from_secs(100);
    // Nothing has changed: the very same status, so nothing is written.
    assert_eq!(status(&link, &fine, token(600), later), first);
    let failed = outcome(Some(Ok(())), Some(Err(wait())), None);
    let second = status(&link, &failed, token(600), later);
    assert_eq!(time(&second, "Ready"), (later.to_string(), ConditionStatus::False));
    assert_eq!(time(&second, "Registered"), time(&first, "Registered"));
    link.status = Some(second.clone());
    // Another reason, the same status: still not ready since then.
    let third = outcome(Some(Ok(())), Some(Err(edit())), None);
    let third = status(&link, &third, token(600), later + SignedDuration::from_secs(100));
    assert_eq!(time(&third, "Ready"), time(&second, "Ready"));
}

#[test]
fn what_a_pass_could_not_find_out_stays() {
    let mut link = link();
    let fine = outcome(Some(Ok(())), Some(Ok(())), None);
    let mut first = status(&link, &fine, token(600), now());
    first.incoming.as_mut().expect("incoming").serial = 9;
    link.status = Some(first.clone());
    // The serial never falls, and a spec that can't be read hides nothing that was known.
    assert_eq!(status(&link, &fine, token(600), now()).incoming.expect("incoming").serial, 9);
    link.spec.application.name = String::new();
    let problem = Problem::edit("InvalidSpec", "no name");
    let input = Input {
        in_place: false,
        connected: None,
        desk: None,
        link: &link,
        spec: Err(problem),
        incoming: None,
        provider: None,
        token: None,
        outcome: None,
        next_retry: None,
        now: now(),
    };
    let status = project(&input);
    assert_eq!(said(&status), ["Ready=False InvalidSpec", "Stalled=True InvalidSpec"]);
    assert_eq!(
        (status.incoming, status.outgoing, status.binding),
        (first.incoming, first.outgoing, first.binding)
    );
}

#[test]
fn a_deletion_says_why_it_waits() {
    let mut link = link();
    link.metadata.deletion_timestamp = serde_json::from_value(json!("2026-11-22T00:00:00Z")).expect("time");
    // The spec may be as wrong as it likes.
    link.spec.application.name = String::new();
    let waits = outcome(None, None, Some(Problem::wait("ProviderUnreachable", "deletion waits")));
    let said = said(&status(&link, &waits, None, now()));
    assert_eq!(said, ["Ready=False ProviderUnreachable", "Reconciling=True ProviderUnreachable"]);
}

#[test]
fn a_message_has_a_bound() {
    let long = outcome(Some(Err(Problem::edit("InvalidSpec", "ü".repeat(5000)))), Some(Ok(())), None);
    let status = status(&link(), &long, token(600), now());
    assert!(status.conditions.iter().all(|c| c.message.chars().count() <= 1024));
}

#[test]
fn a_token_that_nobody_but_a_person_renews_is_said_while_it_is_good() {
    let link = link();
    let valid = validate(&link).expect("valid");
    let connected =
        Connected { account: None, at: now(), unrenewed: Some("no refresh token; do this".into()) };
    let outcome = outcome(Some(Ok(())), Some(Ok(())), None);
    let conditions = |connected: &Connected| {
        let status = project(&Input {
            link: &link,
            spec: Ok(&valid),
            incoming: None,
            provider: None,
            token: token(600),
            in_place: true,
            connected: Some(connected),
            desk: None,
            outcome: Some(&outcome),
            next_retry: None,
            now: now(),
        });
        status.conditions
    };
    let of = |all: &[Condition], type_: &str| {
        let c = all.iter().find(|c| c.type_ == type_).expect("a condition");
        (c.status == ConditionStatus::True, c.reason.clone(), c.message.clone())
    };
    let all = conditions(&connected);
    let until = token(600).expect("a token").expires_at;
    let (ready, _, message) = of(&all, "Ready");
    assert!(ready && message.contains(&format!("until {until}; no refresh token; do this")), "{message}");
    let (fresh, reason, message) = of(&all, "TokenFresh");
    assert!(fresh && reason == NOT_RENEWED && message.contains("do this"), "{message}");
    let all = conditions(&Connected { unrenewed: None, ..connected });
    assert_eq!(of(&all, "TokenFresh").1, "TokenFresh");
    assert!(!of(&all, "Ready").2.contains("until"));
}
