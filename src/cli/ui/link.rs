//! One link: what it is, how it is, and its YAML.

use super::App;
use super::view::{self, Mood, Problem, Row, Text, badge, copy, crumb, link_of, time};
use crate::api::{ApplicationLink, ConditionStatus, names};
use crate::cli::lint::yaml as reader;
use crate::cli::output;
use crate::cli::plan::manifest::LAST_APPLIED;
use axum::extract::{Path, RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Annotations that are no part of what is wanted: the operator's own, kubectl's, and requests that
/// were made once.
const PASSING: &[&str] = &[
    names::REGISTERED_AT,
    LAST_APPLIED,
    names::ROTATE,
    names::ROTATE_NOW,
    names::AUTHORIZE,
    names::COMPLETE,
];

/// What of a link is to be committed.
pub fn manifest(link: &ApplicationLink) -> Value {
    let mut metadata = Map::new();
    metadata.insert("name".into(), json!(link.metadata.name));
    metadata.insert("namespace".into(), json!(link.metadata.namespace));
    if let Some(labels) = link.metadata.labels.as_ref().filter(|l| !l.is_empty()) {
        metadata.insert("labels".into(), json!(labels));
    }
    let mut annotations = link.metadata.annotations.clone().unwrap_or_default();
    annotations.retain(|key, _| !PASSING.contains(&key.as_str()));
    if !annotations.is_empty() {
        metadata.insert("annotations".into(), json!(annotations));
    }
    json!({
        "apiVersion": format!("{}/v1alpha1", names::GROUP),
        "kind": "ApplicationLink",
        "metadata": metadata,
        "spec": link.spec,
    })
}

/// An object as YAML that reads back as what it was. Where the writer leaves off quotes that kubectl's reader needs (around
/// a key: `on` is a boolean to it), as JSON, which is YAML too.
///
/// # Errors
/// [`Problem`]; a bug.
pub fn to_yaml(object: &Value) -> Result<String, Problem> {
    let failed = |e: String| {
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "The YAML can't be written", format!("{e}."))
    };
    let text = output::yaml(object).map_err(|e| failed(e.to_string()))?;
    let same = match reader::read(&text).as_slice() {
        [document] => document.content.as_ref().is_ok_and(|content| content.value == *object),
        _ => false,
    };
    if same { Ok(text) } else { serde_json::to_string_pretty(object).map_err(|e| failed(e.to_string())) }
}

/// What was just done, where the page before says so by a known word.
fn done(query: &str) -> Option<&'static str> {
    let pairs: Vec<_> = url::form_urlencoded::parse(query.as_bytes()).collect();
    let (_, word) = pairs.iter().find(|(name, _)| name == "done")?;
    Some(match word.as_ref() {
        "created" => "The link was created. The operator takes it from here; this page follows it.",
        "changed" => "The link was changed. The operator takes it from here; this page follows it.",
        "rotate" => "A new client secret was asked for. This page shows when it is there.",
        _ => return None,
    })
}

/// The link's page.
pub async fn page(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Path<(String, String)>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let main = html! {
        (crumb("/", "All links"))
        @if let Some(said) = done(&query.unwrap_or_default()) { div.note.good role="status" { p { (said) } } }
        div.title {
            div {
                h1 { (Text(&row.application)) }
                p.muted { (row.full_name()) " · " (Text(&row.version())) }
            }
            span.live.small.muted #live data-live="/events" { "As of now" }
        }
        div.card {
            div.buttons {
                @for (action, words) in row.actions() {
                    a.button .danger[action == "delete"] href=(row.href(action)) { (words) }
                }
            }
        }
        section.card #facts data-part="html" aria-labelledby="facts-title" { (facts(&link, &row)) }
        section.card #conditions data-part="html" aria-labelledby="conditions-title" { (conditions(&link)) }
    };
    Ok(view::page(&app, &row.application, main))
}

fn facts(link: &ApplicationLink, row: &Row) -> Markup {
    let status = link.status.as_ref();
    let incoming = status.and_then(|s| s.incoming.as_ref());
    let outgoing = status.and_then(|s| s.outgoing.as_ref());
    let fact = |name: &str, value: Markup| html! { dt { (name) } dd { (value) } };
    let code = |text: &str| html! { code { (Text(text)) } };
    let annotations = link.metadata.annotations.as_ref();
    let asked = annotations.and_then(|a| a.get(names::ROTATE_NOW).or_else(|| a.get(names::ROTATE)));
    let pending = incoming.zip(asked).is_some_and(|(i, asked)| i.last_request.as_ref() != Some(asked));
    html! {
        h2 #facts-title { "The link" }
        dl.facts {
            (fact("Status", html! {
                (row.badge())
                @if !row.message.is_empty() { p.hint { (Text(&row.message)) } }
            }))
            (fact("Direction", html! { (row.direction) }))
            // Text, not a link: it is the tenant's, and may be anything that looks like an address.
            @if let Some(url) = &link.spec.application.url { (fact("Application", code(url))) }
            @if let Some(provider) = status.and_then(|s| s.provider.as_ref()) {
                (fact("Provider", html! { (provider.kind.as_str()) " " (Text(&provider.name)) }))
            }
            @if let Some(i) = incoming {
                (fact("Client", code(&i.client_id)))
                (fact("Client's Secret", code(&i.secret_name)))
                (fact("Client secret", html! {
                    "Number " (i.serial)
                    @if let Some(at) = &i.rotated_at { ", made " (time(at)) }
                    @if let Some(at) = &i.previous_until { ". The one before works until " (time(at)) }
                    @if pending { " " (badge(Mood::Wait, "A new one was asked for")) }
                }))
                @if let Some(at) = &i.next_rotation { (fact("Next client secret", time(at))) }
            }
            @if let Some(o) = outgoing {
                (fact("Access token's Secret", code(&o.secret_name)))
                (fact("Access token", html! {
                    @match &o.expires_at {
                        Some(at) => { "Ends " (time(at)) }
                        None => { "No end is known" }
                    }
                    @if let Some(at) = &o.next_refresh { ", next one " (time(at)) }
                }))
                @if let Some(uri) = &o.redirect_uri { (fact("Redirect URI to register", code(uri))) }
                @if let Some(who) = &o.connected {
                    (fact("Connected", html! {
                        (time(&who.at))
                        @if let Some(subject) = &who.subject { " as " code { (Text(subject)) } }
                        @if let Some(issuer) = &who.issuer { " of " code { (Text(issuer)) } }
                    }))
                }
            }
        }
    }
}

fn conditions(link: &ApplicationLink) -> Markup {
    let all = link.status.as_ref().map_or(&[][..], |s| &s.conditions);
    // Reconciling and Stalled say by being there that not all is well.
    let mood = |type_: &str, status: &ConditionStatus| match (type_, status) {
        ("Stalled", ConditionStatus::True) => Mood::Bad,
        ("Reconciling", ConditionStatus::True) => Mood::Wait,
        (_, ConditionStatus::True) => Mood::Good,
        (_, ConditionStatus::False) => Mood::Bad,
        (_, ConditionStatus::Unknown) => Mood::Wait,
    };
    html! {
        h2 #conditions-title { "Conditions" }
        @if all.is_empty() { p.muted { "The operator hasn't looked at this link yet. Does it run?" } }
        ul.conditions {
            @for c in all {
                li {
                    strong { (c.type_) }
                    div {
                        (badge(mood(&c.type_, &c.status), &c.reason))
                        " " span.small.muted { "since " (time(&c.last_transition_time)) }
                        p.small { (Text(&c.message)) }
                    }
                }
            }
        }
    }
}

/// A link's YAML.
pub async fn yaml(
    State(app): State<Arc<App>>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let link = link_of(&app, &namespace, &name).await?;
    let row = Row::of(&link);
    let text = to_yaml(&manifest(&link))?;
    let main = html! {
        (crumb(&row.href(""), &row.application))
        div.title { h1 { "YAML of " (row.full_name()) } a.button href=(row.href("edit")) { "Edit" } }
        div.card {
            div.withcopy { p.muted { "What to commit; without what the cluster adds." } (copy("yaml", "the YAML")) }
            pre #yaml tabindex="0" aria-label="YAML" { (text) }
        }
    };
    Ok(view::page(&app, &format!("YAML of {}", row.full_name()), main))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_cluster_adds_isn_t_committed() {
        let link = serde_json::from_value(json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
            "metadata": {"name": "a", "namespace": "t", "uid": "1", "resourceVersion": "2", "labels": {"x": "y"},
                "annotations": {names::REGISTERED_AT: "{}", LAST_APPLIED: "{}", names::ROTATE: "now", "mine": "1"}},
            "spec": {"application": {"name": "A"}}, "status": {"observedGeneration": 1},
        }))
        .expect("a link");
        let found = manifest(&link);
        let metadata =
            json!({"name": "a", "namespace": "t", "labels": {"x": "y"}, "annotations": {"mine": "1"}});
        assert_eq!(found["metadata"], metadata);
        assert_eq!(found["status"], Value::Null);
    }
}
