//! The Secret with the token: what stands in it, and what is to be written.

use crate::api::names;
use crate::domain::{ExposeSecret as _, KeyRing, Reason};
use crate::link::content::{self, Data, SecretGoal, Slot, Values};
use crate::link::decide::{is_as_wanted, over, own_labels};
use crate::link::facts::{Observed, OwnSecret};
use crate::link::grant::{Access, Kept};
use crate::link::plan::{Effect, Over, Publication};
use crate::link::problem::Problem;
use crate::link::validate::OutgoingGoal;
use jiff::Timestamp;
use std::collections::BTreeMap;

const PURPOSE_CONTENT: &str = "published token";

/// The token that stands in the Secret, if the Secret is as we wrote it.
pub fn published(own: &OwnSecret, goal: &OutgoingGoal, keys: &KeyRing) -> Option<Access> {
    let value = |slot: Slot| goal.secret.keys.get(&slot).and_then(|key| own.data.get(key));
    let time = |name: &str| own.annotations.get(name).and_then(|t| t.parse::<Timestamp>().ok());
    let access = Access {
        token: Kept(value(Slot::AccessToken)?.to_owned().into()),
        token_type: value(Slot::TokenType)?.to_owned(),
        issued_at: time(names::ISSUED_AT)?,
        expires_at: time(names::EXPIRES_AT)?,
        scope: value(Slot::Scope)?.to_owned(),
        fingerprint: own.annotations.get(names::TOKEN_FOR)?.clone(),
    };
    let mark = own.annotations.get(names::CONTENT)?;
    let (issued, expires) = (access.issued_at.to_string(), access.expires_at.to_string());
    keys.is_fingerprint(PURPOSE_CONTENT, &content_parts(&access, &issued, &expires), mark).then_some(access)
}

fn content_parts<'a>(access: &'a Access, issued: &'a str, expires: &'a str) -> [&'a str; 6] {
    [access.token.0.expose_secret(), &access.token_type, issued, expires, &access.scope, &access.fingerprint]
}

/// A token as a Secret: its data, and the annotations that go with it.
///
/// # Errors
/// [`Problem`] when a template can't be filled safely.
pub fn token_secret(
    goal: &SecretGoal,
    provider: &str,
    access: &Access,
    keys: &KeyRing,
) -> Result<(Data, BTreeMap<String, String>), Problem> {
    let (issued, expires) = (access.issued_at.to_string(), access.expires_at.to_string());
    let values: Values = [
        (Slot::Type, "oauth2"),
        (Slot::Provider, provider),
        (Slot::AccessToken, access.token.0.expose_secret()),
        (Slot::TokenType, &access.token_type),
        (Slot::ExpiresAt, &expires),
        (Slot::Scope, &access.scope),
    ]
    .into_iter()
    .map(|(slot, text)| (slot, text.to_owned().into()))
    .collect();
    let data = content::render(goal, &values).map_err(|(key, e)| {
        Problem::edit(Reason::TemplateError, format!("spec.outgoing.secret.template[\"{key}\"]: {e}"))
    })?;
    let mut annotations = goal.annotations.clone();
    let mark = keys.fingerprint(PURPOSE_CONTENT, &content_parts(access, &issued, &expires));
    annotations.insert(names::TOKEN_FOR.into(), access.fingerprint.clone());
    annotations.insert(names::CONTENT.into(), mark);
    annotations.insert(names::ISSUED_AT.into(), issued);
    annotations.insert(names::EXPIRES_AT.into(), expires);
    Ok((data, annotations))
}

/// What of a Secret that is there a write of a token is over.
pub fn over_of(goal: &SecretGoal, labels: &BTreeMap<String, String>, own: &OwnSecret) -> Over {
    let kept = [names::TOKEN_FOR, names::CONTENT, names::ISSUED_AT, names::EXPIRES_AT];
    let mut annotations = goal.annotations.clone();
    annotations.extend(kept.map(|k| (k.to_owned(), String::new())));
    let keys = goal.keys.values().chain(goal.templates.keys()).map(String::as_str);
    over(own, labels, &annotations, keys.chain(["type", "provider"]))
}

pub(super) fn publication(
    goal: &OutgoingGoal,
    seen: &Observed,
    own: Option<&OwnSecret>,
    token: Option<Access>,
) -> Publication {
    let labels = own_labels(&goal.secret, seen, "oauth-token");
    let over = own.map(|own| over_of(&goal.secret, &labels, own));
    Publication { goal: goal.secret.clone(), provider: goal.server.preset.name, labels, token, over }
}

/// The effect that makes the Secret show this token, or `None` when it does.
///
/// # Errors
/// [`Problem`] when a template can't be filled safely.
pub fn publish(
    goal: &OutgoingGoal,
    seen: &Observed,
    own: Option<&OwnSecret>,
    access: &Access,
    keys: &KeyRing,
) -> Result<Option<Effect>, Problem> {
    let (data, annotations) = token_secret(&goal.secret, goal.server.preset.name, access, keys)?;
    let labels = own_labels(&goal.secret, seen, "oauth-token");
    if own.is_some_and(|own| is_as_wanted(own, &labels, &annotations, &data)) {
        return Ok(None);
    }
    Ok(Some(Effect::PublishToken(Box::new(publication(goal, seen, own, Some(access.clone()))))))
}
