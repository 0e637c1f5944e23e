//! The incoming part: a client at the provider, and a Secret with its credentials.
//!
//! An ordered chain: may the link have what it asks for; whose is the client that is there; then,
//! by what the service can do, [`chosen`] (we choose identifier and secret) or [`assigned`] (the
//! service does, and we keep what it said).

mod adopt;
mod assigned;
mod chosen;

use super::permitted::permitted;
use super::rotation;
use super::{Effect, Part, is_as_wanted, over, own_labels, writable};
use crate::api::names;
use crate::domain::{ClientId, ClientMetadata, Deletion, KeyRing, Reason, SecretString};
use crate::link::content::{self, Data, Slot, Values};
use crate::link::derive::{self, Present, Standing};
use crate::link::facts::{IncomingFacts, Observed, OwnSecret, Place, SecretFact};
use crate::link::kept_client::KeptClient;
use crate::link::plan::SecretWrite;
use crate::link::problem::Problem;
use crate::link::validate::IncomingGoal;
use crate::provider::{ClientRef, RegisteredClient};
use jiff::Timestamp;
use std::collections::BTreeMap;

/// The registered client, for the status.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IncomingView {
    /// Its identifier.
    pub client_id: ClientId,
    /// Serial of its secret.
    pub serial: i64,
    /// The key of the ring that secret or owner record hang on, where they do.
    pub key: Option<String>,
    /// When that began, in seconds since 1970; 0 where nobody knows.
    pub since: i64,
    /// When the next one will be made, in seconds since 1970.
    pub next_rotation: Option<i64>,
    /// Until when the one before works, in seconds since 1970.
    pub previous_until: Option<i64>,
    /// The last rotation request that was carried out.
    pub request: String,
    /// What the owner record at the provider says of the link's end, where it says something.
    pub deletion: Option<Deletion>,
    /// What it says once the client was written.
    pub deletion_once_written: Option<Deletion>,
    /// Its Secret.
    pub secret_name: String,
}

impl IncomingView {
    /// When the link must be looked at again.
    pub fn wake(&self) -> Option<Timestamp> {
        let first = self.next_rotation.into_iter().chain(self.previous_until).min()?;
        Timestamp::from_second(first).ok()
    }
}

/// What a plan puts right or renews, and why: for an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Note {
    /// The event's reason: `Repaired`, `Rotated` or `Adopted`.
    pub reason: &'static str,
    /// What happens, and why. Holds no secret.
    pub text: String,
}

impl Note {
    fn repaired(text: String) -> Self {
        Self { reason: "Repaired", text }
    }

    fn rotated(text: String) -> Self {
        Self { reason: "Rotated", text }
    }
}

/// What was decided for the incoming part.
pub(super) struct Decided {
    pub(super) part: Part,
    pub(super) view: Option<IncomingView>,
    /// What is put right or renewed, and why: for an event.
    pub(super) notes: Vec<Note>,
}

impl Decided {
    fn blocked(problem: Problem) -> Self {
        Self { part: Part::blocked(problem), view: None, notes: Vec::new() }
    }
}

/// What a pass knows of an incoming link.
struct Case<'a> {
    goal: &'a IncomingGoal,
    seen: &'a Observed,
    facts: &'a IncomingFacts,
    place: &'a Place,
    keys: &'a KeyRing,
    at: &'a ClientRef,
    /// Our Secret, where it is there.
    own: Option<&'a OwnSecret>,
    now: Timestamp,
}

pub(super) fn decide(
    goal: &IncomingGoal,
    seen: &Observed,
    facts: &IncomingFacts,
    keys: &KeyRing,
    now: Timestamp,
) -> Decided {
    let place = match &facts.place {
        Ok(place) => place,
        Err(problem) => return Decided::blocked(problem.clone()),
    };
    let Some(at) = &facts.at else {
        let text = "the link's name can't be part of a client identifier";
        return Decided::blocked(Problem::edit(Reason::InvalidName, text));
    };
    // Before the client: a Secret that can't be written would leave a client that nobody can use.
    let own = permitted(goal, place).and_then(|()| writable(&facts.secret, &goal.secret));
    let (own, refused) = match own {
        Ok(own) => (own, None),
        Err(problem) => (None, Some(problem)),
    };
    let case = Case { goal, seen, facts, place, keys, at, own, now };
    if let Some(problem) = refused {
        return Decided { view: case.known(), ..Decided::blocked(problem) };
    }
    let decided = if place.caps.chooses_secret { chosen::decide(&case) } else { assigned::decide(&case) };
    decided.unwrap_or_else(|problem| Decided { view: case.known(), ..Decided::blocked(problem) })
}

/// Whose the client is that is there.
enum Found<'a> {
    /// None is there.
    Nobody,
    /// Ours.
    Ours(&'a RegisteredClient),
    /// That of a link of this name that is gone; it is bound to us.
    Heir(&'a RegisteredClient),
    /// The one to adopt.
    Adoptable(&'a RegisteredClient),
    /// One that was adopted is gone, and nobody names it any more.
    Forgettable,
}

impl<'a> Case<'a> {
    fn present(&self) -> Present {
        derive::present(
            self.keys,
            &self.place.identity,
            self.place.caps,
            &self.at.id,
            self.facts.client.as_ref(),
            self.kept(),
            self.seen,
        )
    }

    /// What is kept of the client, unless another one was found in its place.
    fn kept(&self) -> Option<&'a KeptClient> {
        let kept = self.seen.kept_at(&self.place.identity)?;
        let other = self.facts.client.as_ref().is_some_and(|c| c.id.as_str() != kept.id);
        (!other || self.place.caps.chooses_id).then_some(kept)
    }

    fn name(&self) -> String {
        format!("{} {}", self.place.claim.kind.as_str(), self.place.claim.name)
    }

    /// Whether the identifier is the one that is made from the link's name.
    fn is_derived(&self) -> bool {
        let (identity, seen) = (&self.place.identity, self.seen);
        derive::client_id(self.keys, identity, &seen.namespace, &seen.name).as_ref() == Some(&self.at.id)
    }

    /// Whether the client was there before the link: somebody named it.
    fn is_adopted(&self) -> bool {
        let names = || self.goal.adopt.as_ref().is_some_and(|a| a.id == self.at.id);
        if self.place.caps.chooses_id { !self.is_derived() } else { names() }
    }

    /// Whether the identifier is one that somebody named, or an earlier provider did. Where the service
    /// picks identifiers, nobody can name one to be made.
    fn is_named(&self) -> bool {
        self.place.caps.chooses_id && !self.is_derived()
    }

    fn found(&self) -> Result<Found<'a>, Problem> {
        let id = &self.at.id;
        let adopts = self.goal.adopt.as_ref().is_some_and(|a| a.id == *id);
        let kept = self.kept().is_some();
        let Some(client) = &self.facts.client else {
            if self.is_named() {
                // Nothing is made under it unless it may be taken here, and was shown to be ours here.
                return match (adopts, kept) {
                    (false, _) => Ok(Found::Forgettable),
                    (true, true) => adopt::allowed(self).map(|()| Found::Nobody),
                    (true, false) => adopt::allowed(self).and_then(|()| Err(self.nothing_to_adopt())),
                };
            }
            if adopts && !kept {
                adopt::allowed(self)?;
                return if self.seen.last.serial > 0 {
                    Ok(Found::Nobody)
                } else {
                    Err(self.nothing_to_adopt())
                };
            }
            return Ok(Found::Nobody);
        };
        // Before a word of a client that isn't ours: who may not have it isn't told what it is.
        let may_hear = || if self.is_named() || (adopts && !kept) { adopt::allowed(self) } else { Ok(()) };
        if client.protected {
            may_hear()?;
            return Err(Problem::edit(
                Reason::ClientProtected,
                format!(
                    "client {id} belongs to {} itself, or is the one that the operator logs in with; it is left alone",
                    self.name()
                ),
            ));
        }
        if !self.place.caps.tells_owner {
            return Ok(if adopts && !kept { Found::Adoptable(client) } else { Found::Ours(client) });
        }
        let marks = self.seen.marks_at(&self.place.identity);
        match derive::standing(self.keys, &marks, id, client.owner.as_ref(), self.seen) {
            Standing::Ours => Ok(Found::Ours(client)),
            // A link of this name was here before, and is gone: names are unique. Its client is bound
            // to us with a secret that nobody has seen.
            Standing::Predecessor { same_namespace } if same_namespace || self.place.rebind => {
                may_hear()?;
                Ok(Found::Heir(client))
            }
            Standing::Predecessor { .. } => {
                may_hear()?;
                Err(Problem::edit(
                    Reason::RebindNotAllowed,
                    format!(
                        "client {id} belongs to a link of this name in an earlier namespace of this name; the platform team \
                         can let it be taken over with spec.allow.rebind on the provider, or delete the client there"
                    ),
                ))
            }
            Standing::Foreign if adopts && client.owner.is_none() => Ok(Found::Adoptable(client)),
            Standing::Foreign => {
                may_hear()?;
                Err(Problem::edit(
                    Reason::ClientConflict,
                    format!(
                        "client {id} exists at {} and isn't this installation's; it is left alone: remove it there, or \
                         name the link otherwise",
                        self.name()
                    ),
                ))
            }
        }
    }

    fn nothing_to_adopt(&self) -> Problem {
        Problem::wait(
            Reason::AdoptNotFound,
            format!(
                "spec.incoming.adopt.clientId: {} has no client {}; check the identifier there, or leave adopt out to \
                 have a client made",
                self.name(),
                self.at.id
            ),
        )
    }

    /// The client as it is known while something stands in the way. Of one that isn't ours the
    /// status says nothing: a serial there means that we have registered the client.
    fn known(&self) -> Option<IncomingView> {
        let Ok(Found::Ours(_)) = self.found() else { return None };
        let present = self.present();
        Some(self.view(&self.at.id, &present))
    }

    fn view(&self, id: &ClientId, present: &Present) -> IncomingView {
        let expires =
            rotation::expires_at(self.facts.client.as_ref(), self.kept().and_then(|k| k.secret_expires_at));
        let next = rotation::next(self.goal, present)
            .into_iter()
            .chain(rotation::expiry(present.term.since, expires))
            .min();
        IncomingView {
            client_id: id.clone(),
            serial: present.term.serial,
            key: self.place.caps.tells_owner.then(|| present.key.clone()),
            since: present.term.since,
            next_rotation: next.filter(|_| !self.goal.metadata.auth_method.is_public()),
            previous_until: Some(present.term.previous_until).filter(|t| *t > self.now.as_second()),
            request: present.term.request.clone(),
            deletion: self.facts.client.as_ref().and_then(|c| c.owner.as_ref()?.deletion(self.keys)),
            deletion_once_written: self.place.caps.tells_owner.then_some(self.goal.deletion),
            secret_name: self.goal.secret.name.clone(),
        }
    }

    /// The write of the Secret with these credentials, if it isn't so already, and what was wrong
    /// with it.
    fn secret_write(
        &self,
        id: &ClientId,
        secret: Option<&SecretString>,
        serial: i64,
        notes: &mut Vec<Note>,
    ) -> Result<Option<Effect>, Problem> {
        let data = self.data(id, secret)?;
        let goal = &self.goal.secret;
        let labels = own_labels(goal, self.seen, "oauth-client");
        let mut annotations: BTreeMap<_, _> = goal.annotations.clone();
        annotations.insert(names::SERIAL.into(), serial.to_string());
        if self.own.is_some_and(|own| is_as_wanted(own, &labels, &annotations, &data)) {
            return Ok(None);
        }
        match (&self.facts.secret, self.own) {
            (SecretFact::Absent, _) => {
                notes.push(Note::repaired(format!("Secret {} was gone: written again", goal.name)));
            }
            (_, Some(own)) => {
                let keys = data.differing(&own.data);
                let what =
                    if keys.is_empty() { "its labels or annotations".to_owned() } else { keys.join(", ") };
                let text = format!("Secret {} was other than it should be ({what}): put right", goal.name);
                notes.push(Note::repaired(text));
            }
            _ => {}
        }
        let over = self.own.map(|own| over(own, &labels, &annotations, data.iter().map(|(k, _)| k.as_str())));
        Ok(Some(Effect::WriteSecret(Box::new(SecretWrite {
            name: goal.name.clone(),
            type_: goal.type_.clone(),
            labels,
            annotations,
            data,
            over,
        }))))
    }

    fn data(&self, id: &ClientId, secret: Option<&SecretString>) -> Result<Data, Problem> {
        let info = &self.place.info;
        let mut values: Values = [
            (Slot::Type, "oauth2".to_owned()),
            (Slot::Provider, self.place.type_.to_owned()),
            (Slot::ClientId, id.to_string()),
            (Slot::IssuerUri, info.issuer.clone()),
            (Slot::TokenEndpoint, info.token_endpoint.clone()),
            (Slot::TokenEndpointAuthMethod, self.goal.metadata.auth_method.to_string()),
        ]
        .into_iter()
        .map(|(slot, text)| (slot, text.into()))
        .collect();
        if let Some(endpoint) = &info.authorization_endpoint {
            values.insert(Slot::AuthorizationEndpoint, endpoint.clone().into());
        }
        if let Some(secret) = secret {
            values.insert(Slot::ClientSecret, secret.clone());
        }
        content::render(&self.goal.secret, &values).map_err(|(key, e)| {
            Problem::edit(Reason::TemplateError, format!("spec.incoming.secret.template[\"{key}\"]: {e}"))
        })
    }

    /// Said before the credentials in the Secret cease to work; nobody has any before there is one.
    fn announce(&self, why: &str) -> Option<Effect> {
        self.own.map(|_| {
            Effect::Announce(Problem::wait(
                Reason::Rotating,
                format!("the client gets a new secret ({why}), and the one in the Secret ends before it is replaced"),
            ))
        })
    }
}

/// Which fields of a client aren't as wanted, by the names of the spec.
fn differences(has: Option<&ClientMetadata>, wanted: &ClientMetadata) -> String {
    let Some(has) = has else { return "disabled, or with values that no link can ask for".to_owned() };
    // Without `..`, so that a new field can't be forgotten here.
    let ClientMetadata { name, uri, redirect_uris, grant_types, scopes, auth_method } = has;
    let all = [
        ("application.name", *name != wanted.name),
        ("application.url", *uri != wanted.uri),
        ("redirectUris", *redirect_uris != wanted.redirect_uris),
        ("grantTypes", *grant_types != wanted.grant_types),
        ("scopes", *scopes != wanted.scopes),
        ("tokenEndpointAuthMethod", *auth_method != wanted.auth_method),
    ];
    all.into_iter().filter(|(_, differs)| *differs).map(|(name, _)| name).collect::<Vec<_>>().join(", ")
}
