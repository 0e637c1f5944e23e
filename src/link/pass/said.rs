//! What is said of a pass: the status, where it differs from what stands there, and events.

use crate::api::link::ApplicationLinkStatus;
use crate::api::{ApplicationLink, ConditionStatus, names};
use crate::domain::keyring::digest_hex;
use crate::link::cache::Key;
use crate::link::context::Context;
use crate::link::decide::Note;
use crate::link::problem::Problem;
use crate::link::status::{self, REFRESH_FAILING};
use jiff::Timestamp;
use kube::api::{Patch, PatchParams};
use kube::runtime::events::{Event, EventType};
use kube::{Api, Resource as _, ResourceExt as _};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Instant;

/// Says in the status that the credentials are about to cease to work, before they do.
///
/// # Errors
/// [`Problem`] when that can't be written: then nothing else may be done.
pub async fn announce(ctx: &Context, link: &ApplicationLink, problem: &Problem) -> Result<(), Problem> {
    let Some(old) = &link.status else { return Ok(()) };
    let new = status::announced(old, problem, Timestamp::now());
    patch_status(ctx, link, old, &new).await.map(drop)
}

/// Says of a link that says it is Ready that it isn't, and that `what` isn't so.
pub async fn take_away(ctx: &Context, link: &ApplicationLink, what: &str, problem: &Problem) {
    let old = link.status.clone().unwrap_or_default();
    let new = status::taken_away(&old, what, problem, Timestamp::now());
    if ctx.tenure.is_lost() {
        return;
    }
    tracing::info!(
        link = %link.name_any(), reason = problem.reason, message = %problem.message, "not as it should be, while a pass waits"
    );
    match patch_status(ctx, link, &old, &new).await {
        Ok(true) => tell(ctx, link, &old, &new, &[]).await,
        Ok(false) => {}
        Err(p) => {
            tracing::warn!(link = %link.name_any(), reason = p.reason, "the status couldn't be written");
        }
    }
}

/// Says of a link that is being deleted that it is, before anything is taken away, and once nothing of ours is
/// left while others still hold it. Gives back the link as it is then. An API server that doesn't take it
/// doesn't hold up a deletion.
pub async fn terminating(ctx: &Context, link: &Arc<ApplicationLink>) -> Arc<ApplicationLink> {
    let ours = link.finalizers().iter().any(|f| f == names::LINK_FINALIZER);
    let left = Some(link.finalizers()).filter(|_| !ours);
    // Nothing holds it: it is gone.
    let gone = left.is_some_and(<[String]>::is_empty);
    let Some(new) = status::terminating(link, left, Timestamp::now()).filter(|_| !gone) else {
        return link.clone();
    };
    if ctx.tenure.is_lost() {
        return link.clone();
    }
    let old = link.status.clone().unwrap_or_default();
    match patch_status(ctx, link, &old, &new).await {
        Ok(true) => tell(ctx, link, &old, &new, &[]).await,
        Ok(false) => {}
        Err(p) => {
            tracing::warn!(link = %link.name_any(), reason = p.reason, "the status couldn't be written");
        }
    }
    let now = ctx.links.get(&Key::of(link.as_ref()));
    now.filter(|now| now.uid() == link.uid()).unwrap_or_else(|| link.clone())
}

/// Writes the status where it differs. Gives back what stood in the way: nobody but the next pass says what
/// wasn't said, so that one must come soon.
pub(super) async fn write_status(
    ctx: &Context,
    link: &ApplicationLink,
    new: ApplicationLinkStatus,
    done: &[&'static str],
) -> Option<Problem> {
    let old = link.status.clone().unwrap_or_default();
    if new == old || ctx.tenure.is_lost() {
        return None;
    }
    // An announcement was written since the link was read; what differs from either is written.
    let announced = done.contains(&"Announce");
    let base =
        if announced { ApplicationLinkStatus { conditions: vec![], ..old.clone() } } else { old.clone() };
    match patch_status(ctx, link, &base, &new).await {
        Ok(true) => {
            tell(ctx, link, &old, &new, done).await;
            None
        }
        Ok(false) => None,
        Err(p) => {
            tracing::warn!(link = %link.name_any(), reason = p.reason, "the status couldn't be written");
            Some(p)
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
            crate::link::cache::slim(&mut written);
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
pub(super) async fn tell_notes(ctx: &Context, link: &ApplicationLink, notes: &[Note]) {
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
