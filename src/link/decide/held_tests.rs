//! What a link holds and lets go: claims, moves, the finalizer and the end, in the world of [`super::model`].

use super::model::{Want, World, caps, claim, settled};
use super::*;
use crate::link::facts::{Elsewhere, PlaceFacts};
use crate::link::problem::Mend;
use crate::provider::ClientRef;

#[test]
fn a_link_moves_by_registering_there_before_it_leaves_here() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    let moved = Want { provider: "p2".into(), ..want };
    let plan = decide(&moved.goal(), &world.observe(&moved), world.time()).plan;
    assert_eq!(plan.names(), ["Claim", "PutClient", "Prove", "WriteSecret", "Unregister", "Unclaim"]);
    assert_eq!(world.settle(&moved), None);
    assert_eq!((world.ours(), world.works(&moved)), (vec!["two"], true));
    assert_eq!(world.claims, [claim("p2")]);
}

#[test]
fn another_provider_object_of_the_same_service_keeps_the_client() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    let moved = Want { provider: "p1-again".into(), ..want };
    let plan = decide(&moved.goal(), &world.observe(&moved), world.time()).plan;
    assert!(!plan.names().contains(&"Unregister"), "{:?}", plan.names());
    assert_eq!(world.settle(&moved), None);
    assert_eq!((world.ours(), world.works(&moved)), (vec!["one"], true));
    assert_eq!(world.claims, [claim("p1-again")]);
}

#[test]
fn a_place_that_was_left_and_does_not_answer_is_remembered_and_written_once() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    world.providers.insert("p1".into(), ("one", false));
    let moved = Want { provider: "p2".into(), ..want };
    let problem = world.settle(&moved).expect("something is left to do");
    assert_eq!((problem.reason, problem.mend), ("ProviderUnreachable", Mend::Wait));
    // The place to stay at comes last.
    assert_eq!((world.claims.clone(), world.works(&moved)), (vec![claim("p1"), claim("p2")], true));
    world.providers.insert("p1".into(), ("one", true));
    assert_eq!(world.settle(&moved), None);
    assert_eq!((world.ours(), world.claims.clone()), (vec!["two"], vec![claim("p2")]));
}

#[test]
fn a_place_that_the_status_remembers_is_not_claimed_again_where_no_client_is() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    let moved = Want { provider: "p2".into(), ..want };
    world.settle(&moved);
    let mut seen = world.observe(&moved);
    let at = ClientRef { id: World::id("one"), handle: None };
    let identity = World::identity("p1", "one");
    let there = Elsewhere { identity: identity.clone(), caps: caps("one"), at, client: None };
    seen.elsewhere = vec![PlaceFacts { claim: claim("p1"), identity: Some(identity), client: Ok(there) }];
    let plan = decide(&moved.goal(), &seen, world.time()).plan;
    assert!(plan.effects().next().is_none(), "{:?}", plan.names());
}

/// `kubectl replace`, with a manifest that never had the annotation and the finalizer, takes both off,
/// also of a link that is suspended, whose spec isn't valid, or that names a provider that isn't there.
#[test]
fn what_a_link_holds_stays_held_whatever_is_wrong_with_its_spec() {
    let known = Want::new();
    let nowhere = Want { provider: "nowhere".into(), ..Want::new() };
    let suspended = Want { suspend: true, ..Want::new() };
    let invalid = |_: &Want| Goal::Unread;
    let valid = |want: &Want| want.goal();
    type Read = fn(&Want) -> Goal;
    let cases: [(&Want, Read); 3] = [(&known, invalid), (&nowhere, valid), (&suspended, valid)];
    for (want, goal) in cases {
        let mut world = settled(&known);
        world.finalizer = false;
        let plan = decide(&goal(want), &world.observe(want), world.time()).plan;
        assert!(matches!(&plan.effects().collect::<Vec<_>>()[..], [Effect::Claim(c)] if *c == [claim("p1")]));
        world.claims.clear();
        let mut seen = world.observe(want);
        let client = Err(Problem::wait("ProviderNotReady", "nobody looked there yet"));
        if !want.suspend {
            // What the status knows; a suspended link sees the client itself.
            seen.elsewhere = vec![PlaceFacts { claim: claim("p1"), identity: None, client }];
        }
        let plan = decide(&goal(want), &seen, world.time()).plan;
        assert!(matches!(&plan.effects().collect::<Vec<_>>()[..], [Effect::Claim(c)] if *c == [claim("p1")]));
    }
    // A link that never held anything isn't held.
    let world = World::new();
    for (want, goal) in [(&known, invalid as Read), (&nowhere, valid), (&suspended, valid)] {
        assert!(decide(&goal(want), &world.observe(want), world.time()).plan.effects().next().is_none());
    }
}

#[test]
fn a_claim_and_a_finalizer_that_somebody_took_off_come_back() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    (world.finalizer, world.claims) = (false, vec![]);
    world.settle(&want);
    assert_eq!((world.finalizer, world.claims.clone()), (true, vec![claim("p1")]));
    world.finalizer = false;
    world.settle(&want);
    assert!(world.finalizer);
}

#[test]
fn without_a_master_key_a_deletion_waits() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    world.keys = false;
    let before = world.clone();
    for retain in [false, true] {
        let gone = Want { deleted: Some((retain, false)), ..want.clone() };
        let problem = world.settle(&gone).expect("it waits");
        assert_eq!((problem.reason, problem.mend), ("MasterKeyMissing", Mend::Wait));
        assert!(problem.message.contains("force-delete=true"), "{}", problem.message);
    }
    assert_eq!((world.finished, world.ours()), (false, before.ours()));
    // Forced, it lets go; what is to stay stays.
    let forced = Want { deleted: Some((true, true)), ..want.clone() };
    assert_eq!(world.settle(&forced), None);
    assert!(world.finished && world.secrets.contains_key(want.secret));
    world = before;
    world.keys = true;
    assert_eq!(world.settle(&Want { deleted: Some((false, false)), ..want }), None);
    assert!(world.ours().is_empty());
}

#[test]
fn a_provider_that_is_down_holds_a_deletion_until_it_is_forced() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    world.providers.insert("p1".into(), ("one", false));
    let gone = Want { deleted: Some((false, false)), ..want.clone() };
    assert_eq!(world.settle(&gone).map(|p| p.reason), Some("ProviderUnreachable"));
    assert!(!world.finished);
    assert_eq!(world.settle(&Want { deleted: Some((false, true)), ..want }), None);
    assert!(world.finished);
}
