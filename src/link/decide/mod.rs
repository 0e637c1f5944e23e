//! What is to be done: `(goal, observed, now) -> Plan`. Pure, and the only place that decides.
//!
//! It never reads status conditions, only facts. Each of `incoming`, `outgoing` and `absent` is
//! an ordered chain: the first thing that stands in the way ends it.

mod absent;
mod consent;
#[cfg(test)]
mod consent_tests;
#[cfg(test)]
mod held_tests;
pub mod hosts;
#[cfg(test)]
mod identity_tests;
mod incoming;
#[cfg(test)]
mod incoming_tests;
#[cfg(test)]
mod model;
mod outgoing;
#[cfg(test)]
mod outgoing_tests;
#[cfg(test)]
mod outgoing_world;
mod permitted;
mod renewal;
mod rotation;

use super::claim::Claim;
use super::content::{Data, SecretGoal};
use super::facts::{Observed, OwnSecret, PlaceFacts, SecretFact};
use super::plan::{Effect, Over, Part, Plan};
use super::problem::Problem;
use super::turns::Turn;
use super::validate::ValidatedLink;
use crate::api::names;
use crate::domain::Reason;
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

pub use absent::{WAITS, waits};
pub use incoming::{IncomingView, Note};
pub(in crate::link) use outgoing::how_to_read;
pub use outgoing::{
    Connected, Token, consented_grant, host_and_port, over_of, publish, published, token_secret, token_view,
    too_short,
};
pub use permitted::not_served;
pub use renewal::unrenewed;

/// What a link is to become.
#[derive(Debug, Clone)]
pub enum Goal {
    /// As the spec says.
    Present(Box<ValidatedLink>),
    /// Gone.
    Absent {
        /// Clients, grants and Secrets stay.
        retain: bool,
        /// What can't be undone at the other side is left.
        force: bool,
    },
    /// Nobody can say, since the spec isn't valid: all stays, and what the link holds stays held.
    Unread,
}

/// A plan, and what is known beside it for the status.
#[derive(Debug, Clone)]
pub struct Decision {
    /// What is to be done.
    pub plan: Plan,
    /// The client, once the plan is done.
    pub incoming: Option<IncomingView>,
    /// The token that is published now.
    pub token: Option<Token>,
    /// Whether that token is the newest and good, so that a refresh that fails takes nothing away.
    pub in_place: bool,
    /// Who connected the link, once the plan is done.
    pub connected: Option<Connected>,
    /// When something is over that nothing else tells of.
    pub wake: Option<Timestamp>,
    /// The token request that is due: what the pass needs a permit for before the plan's first effect.
    pub asks: Option<Turn>,
    /// What the plan puts right or renews, and why: for an event.
    pub notes: Vec<Note>,
}

/// Decides.
pub fn decide(goal: &Goal, seen: &Observed, now: Timestamp) -> Decision {
    match goal {
        Goal::Present(link) => present(link, seen, now),
        Goal::Absent { retain, force } => {
            let plan = absent::decide(seen, *retain, *force, now);
            Decision {
                plan,
                incoming: None,
                token: None,
                in_place: false,
                connected: None,
                wake: None,
                asks: None,
                notes: Vec::new(),
            }
        }
        Goal::Unread => {
            let mut plan = Plan::default();
            hold(&mut plan, seen, found(seen));
            Decision {
                plan,
                incoming: None,
                token: None,
                in_place: false,
                connected: None,
                wake: None,
                asks: None,
                notes: Vec::new(),
            }
        }
    }
}

/// The claims, and before them those that somebody took off while there is a client, or may be: as
/// `kubectl replace` does with a manifest from the user's own hand.
fn found(seen: &Observed) -> Vec<Claim> {
    let may_be = |e: &&PlaceFacts| e.client.as_ref().map_or(true, |there| there.client.is_some());
    let there = seen.elsewhere.iter().filter(may_be).map(|e| &e.claim);
    there.filter(|c| !seen.claims.contains(c)).chain(&seen.claims).cloned().collect()
}

/// Claims and finalizer stand as long as there is something to let go, whatever else is wrong with
/// the link.
fn hold(plan: &mut Plan, seen: &Observed, claims: Vec<Claim>) {
    // A consent that begins after this pass leaves something behind too.
    let kept = seen.grant.is_some() || seen.consent.is_some() || seen.ticket.is_some();
    let held = plan.effects().next().is_some() || !claims.is_empty() || kept;
    let written = claims == seen.claims && seen.claims_current;
    if held && (!written || !seen.finalizer) {
        plan.opening.push(Effect::Claim(claims));
    } else if !written {
        // What somebody else wrote there holds nothing.
        plan.opening.push(Effect::Unclaim(claims));
    }
}

fn present(link: &ValidatedLink, seen: &Observed, now: Timestamp) -> Decision {
    let mut view = None;
    let (mut token, mut connected, mut wake, mut asks) = (None, None, None, None);
    let mut in_place = false;
    let mut notes = Vec::new();
    let (mut in_part, mut out_part) = (None, None);
    match &seen.keys {
        Err(problem) => {
            in_part = link.incoming.as_ref().map(|_| Part::blocked(problem.clone()));
            out_part = link.outgoing.as_ref().map(|_| Part::blocked(problem.clone()));
        }
        Ok(keys) => {
            if let (Some(goal), Some(facts)) = (&link.incoming, &seen.incoming) {
                let decided = incoming::decide(goal, seen, facts, keys, now);
                in_part = Some(decided.part);
                (view, notes) = (decided.view, decided.notes);
            }
            if let (Some(goal), Some(facts)) = (&link.outgoing, &seen.outgoing) {
                let decided = outgoing::decide(goal, link.suspend, seen, facts, keys, now);
                out_part = Some(decided.part);
                (token, connected, in_place) = (decided.token, decided.connected, decided.in_place);
                (wake, asks) = (decided.wake, decided.asks);
            }
        }
    }
    if link.suspend {
        in_part = in_part.map(suspended);
        out_part = out_part.map(suspended);
    }
    let mut claims = found(seen);
    // A claim stands before the first call that could leave something behind, and as long as there
    // is a client: when somebody takes it off, or the finalizer, it is put back.
    let wanted =
        seen.incoming.as_ref().and_then(|i| i.place.as_ref().ok().map(|p| (&p.claim, i.client.is_some())));
    if let Some((claim, there)) = wanted
        && !claims.contains(claim)
        && (in_part.as_ref().is_some_and(|p| !p.effects.is_empty()) || (there && view.is_some()))
    {
        claims.push(claim.clone());
    }
    if link.suspend {
        let mut plan = Plan { incoming: in_part, outgoing: out_part, ..Plan::default() };
        hold(&mut plan, seen, claims);
        return Decision {
            plan,
            incoming: view,
            token,
            in_place,
            connected,
            wake: None,
            asks: None,
            notes: Vec::new(),
        };
    }
    // What was just written may be what stands at a place to leave, named by another object: that is
    // looked at once more.
    if let Some(part) = &mut in_part
        && part.effects.iter().any(|e| matches!(e, Effect::PutClient(..)))
        && leaves_a_namesake(seen)
    {
        part.again = true;
    }
    // Nothing is left before what is wanted is wholly there.
    let step = in_part.as_ref().is_some_and(|p| p.again);
    let (closing, pending) =
        if step { (vec![], None) } else { leave(link, seen, &claims, in_part.as_ref(), out_part.as_ref()) };
    let mut plan =
        Plan { opening: vec![], incoming: in_part, outgoing: out_part, closing, pending, best_effort: false };
    hold(&mut plan, seen, claims);
    Decision { plan, incoming: view, token, in_place, connected, wake, asks, notes }
}

/// Whether a place to leave that answers has the type and address of the wanted one.
fn leaves_a_namesake(seen: &Observed) -> bool {
    let here = seen.incoming.as_ref().and_then(|i| i.place.as_ref().ok()).map(|p| &p.identity);
    let answer = seen.elsewhere.iter().filter(|p| p.client.is_ok()).filter_map(|p| p.identity.as_ref());
    let mut answer = answer.filter(|i| here.is_some_and(|h| i.service == h.service && i.own != h.own));
    answer.next().is_some()
}

/// Leaves the places, the grant and the Secrets that aren't wanted any more: once what is wanted
/// is there.
fn leave(
    link: &ValidatedLink,
    seen: &Observed,
    claims: &[Claim],
    incoming: Option<&Part>,
    outgoing: Option<&Part>,
) -> (Vec<Effect>, Option<Problem>) {
    let ok = |p: Option<&Part>| p.is_none_or(|p| p.verdict.is_ok());
    let mut effects = Vec::new();
    let mut pending = None;
    if ok(incoming) && !seen.elsewhere.is_empty() {
        let here = seen.incoming.as_ref().and_then(|i| i.place.as_ref().ok()).map(|p| &p.identity);
        let mut left = absent::unregister(seen, here, false, &mut effects, &mut pending);
        // The wanted place comes last: it is the one that a link without a providerRef stays at.
        left.extend(claims.iter().filter(|c| !seen.elsewhere.iter().any(|e| e.claim == **c)).cloned());
        if left != claims {
            effects.push(Effect::Unclaim(left));
        }
    }
    if link.outgoing.is_none() {
        consent::drop(seen, consent::GiveBack::All, &mut effects);
        absent::revoke(seen, false, &mut effects);
    }
    if ok(incoming) && ok(outgoing) {
        effects.extend(seen.strays.iter().cloned().map(Effect::DeleteSecret));
    }
    (effects, pending)
}

/// A suspended part does nothing; it is well only if there was nothing to do.
fn suspended(part: Part) -> Part {
    if part.effects.is_empty() {
        return part;
    }
    let verdict = part.verdict.and_then(|()| {
        Err(Problem::edit(
            Reason::Suspended,
            "the link is suspended and not as it should be; set spec.suspend to false to have it put right",
        ))
    });
    Part { effects: vec![], verdict, ..Part::settled() }
}

/// The labels that stand on every Secret that a link writes.
fn own_labels(goal: &SecretGoal, seen: &Observed, component: &str) -> BTreeMap<String, String> {
    let mut labels = goal.labels.clone();
    labels.insert(names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into());
    labels.insert(names::COMPONENT.into(), component.into());
    // A label holds 63 characters, a name may have 253.
    if seen.name.len() <= 63 {
        labels.insert(names::LINK_NAME.into(), seen.name.clone());
    }
    labels
}

/// Whether a Secret of ours is just as wanted.
fn is_as_wanted(
    found: &OwnSecret,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    data: &Data,
) -> bool {
    let all_in = |want: &BTreeMap<String, String>, have: &BTreeMap<String, String>| {
        want.iter().all(|(k, v)| have.get(k) == Some(v))
    };
    let over = over(found, labels, annotations, data.iter().map(|(k, _)| k.as_str()));
    found.marked
        && data.is_in(&found.data)
        && all_in(labels, &found.labels)
        && all_in(annotations, &found.annotations)
        && over.drop_keys.is_empty()
        && over.drop_labels.is_empty()
        && over.drop_annotations.is_empty()
}

/// What a write onto a Secret of ours must know: which keys we wrote once and don't want now.
fn over<'a>(
    found: &OwnSecret,
    labels: &BTreeMap<String, String>,
    annotations: &BTreeMap<String, String>,
    keys: impl Iterator<Item = &'a str>,
) -> Over {
    let keys: BTreeSet<&str> = keys.collect();
    let drop = |own: &BTreeSet<String>, wanted: &dyn Fn(&str) -> bool| -> Vec<String> {
        own.iter().filter(|k| !wanted(k)).cloned().collect()
    };
    Over {
        uid: found.uid.clone(),
        resource_version: found.resource_version.clone(),
        drop_keys: drop(&found.own_keys, &|k| keys.contains(k)),
        drop_labels: drop(&found.own_labels, &|k| labels.contains_key(k)),
        // That one stands on whatever is written.
        drop_annotations: drop(&found.own_annotations, &|k| {
            annotations.contains_key(k) || k == names::LINK_NAME
        }),
        drop_owners: found.drop_owners.clone(),
    }
}

/// The Secret of ours, if it is there and of the wanted type; or what stands in the way.
fn writable<'a>(fact: &'a SecretFact, goal: &SecretGoal) -> Result<Option<&'a OwnSecret>, Problem> {
    match fact {
        SecretFact::Absent => Ok(None),
        SecretFact::Foreign(p) | SecretFact::Unknown(p) => Err(p.clone()),
        SecretFact::Own(own) if own.type_ != goal.type_ => Err(Problem::edit(
            Reason::SecretTypeFixed,
            format!(
                "Secret {} has the type {}, which Kubernetes doesn't let anybody change; delete that Secret and it is \
                 made anew as {}, or give it another name",
                goal.name, own.type_, goal.type_
            ),
        )),
        SecretFact::Own(own) => Ok(Some(own)),
    }
}
