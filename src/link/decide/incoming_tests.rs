//! The incoming part and the end of a link, in the world of [`super::model`].

use super::model::{SECRETS, Want, World, claim, ring, settled};
use super::*;
use crate::domain::{ExposeSecret as _, OwnerMark};
use crate::link::facts::LastSecret;
use crate::link::problem::Mend;
use crate::link::validate::RotationGoal;
use crate::provider::{Proof, PutSecret};
use proptest::prelude::*;

#[test]
fn a_new_link_is_claimed_registered_proved_and_written_in_this_order() {
    let (mut world, want) = (World::new(), Want::new());
    let plan = decide(&want.goal(), &world.observe(&want), world.time()).plan;
    assert_eq!(plan.names(), ["Claim", "PutClient", "Prove", "WriteSecret"]);
    assert_eq!(world.settle(&want), None);
    assert!(world.works(&want));
    let gone = Want { deleted: Some((false, false)), ..want };
    let plan = decide(&gone.goal(), &world.observe(&gone), world.time()).plan;
    assert_eq!(plan.names(), ["Unregister", "Finish"]);
}

#[test]
fn a_foreign_client_and_a_foreign_secret_are_left_alone() {
    let (mut world, want) = (World::new(), Want::new());
    world.put_foreign("one");
    let before = world.clients.clone();
    assert_eq!(world.settle(&want).map(|p| (p.reason, p.mend)), Some(("ClientConflict", Mend::Edit)));
    let taken = Want { provider: "p2".into(), secret: "taken", ..want.clone() };
    assert_eq!(world.settle(&taken).map(|p| p.reason), Some("SecretConflict"));
    // A forged claim takes nothing along either.
    (world.finalizer, world.claims) = (true, vec![claim("p1"), claim("p2"), claim("nowhere")]);
    world.settle(&Want { deleted: Some((false, true)), ..want });
    assert_eq!(world.clients, before);
    assert!(world.secrets.contains_key("taken"));
}

#[test]
fn a_successor_of_the_same_name_gets_another_secret_under_a_higher_serial() {
    let (mut world, want) = (World::new(), Want::new());
    world.settle(&want);
    let old = world.secrets[want.secret].data["client-secret"].clone();
    // The link went without its finalizer's doing, and its Secret with it.
    (world.uid, world.finalizer, world.claims, world.last) =
        ("link-2".into(), false, vec![], LastSecret::default());
    world.kept = None;
    world.secrets.remove(want.secret);
    assert_eq!(world.settle(&want), None);
    assert!(world.works(&want));
    assert_ne!(world.secrets[want.secret].data["client-secret"], old);
    assert_eq!(world.serials.last(), Some(&("one", "link-2".into(), 2)));
}

fn asked(want: Want, value: &str, now: bool) -> Want {
    Want { request: Some((value.into(), now)), ..want }
}

#[test]
fn a_new_secret_works_beside_the_old_one_where_the_provider_can() {
    let want = Want { every: Some(1000), ..Want::new() };
    let mut world = settled(&want);
    let old = world.secrets[want.secret].data["client-secret"].clone();
    let quiet = decide(&want.goal(), &world.observe(&want), world.time());
    assert!(quiet.plan.names().is_empty());
    assert_eq!(quiet.incoming.and_then(|v| v.next_rotation), Some(1_001_000));
    world.now += 1000;
    let plan = decide(&want.goal(), &world.observe(&want), world.time());
    assert_eq!(plan.plan.names(), ["RehearseSecret", "PutClient", "Prove", "WriteSecret"]);
    assert_eq!(plan.notes.iter().map(|n| n.reason).collect::<Vec<_>>(), ["Rotated"]);
    assert_eq!(world.settle(&want), None);
    let new = world.secrets[want.secret].data["client-secret"].clone();
    let id = World::id("one");
    let proof = |w: &World, s: &str| w.authenticates("one", id.as_str(), s);
    assert_ne!(old, new);
    assert_eq!((proof(&world, &old), proof(&world, &new)), (Proof::Authenticated, Proof::Authenticated));
    // Half of `every`: the old one ends.
    world.now += 500;
    assert_eq!((proof(&world, &old), proof(&world, &new)), (Proof::Refused, Proof::Authenticated));
    assert_eq!(world.serials.last().map(|s| s.2), Some(2));
}

#[test]
fn a_request_is_carried_out_once() {
    let mut world = settled(&Want::new());
    for (want, serial) in [
        (asked(Want::new(), "a", false), 2),
        (asked(Want::new(), "a", false), 2),
        (asked(Want::new(), "b", false), 3),
        (asked(Want::new(), "b", true), 3),
        (Want::new(), 3),
        (asked(Want::new(), "c", true), 4),
    ] {
        assert_eq!(world.settle(&want), None);
        assert!(world.works(&want));
        assert_eq!(world.last.serial, serial, "{:?}", want.request);
    }
    // The last one left no overlap.
    assert!(world.clients.values().all(|h| h.previous.is_none()));
    // A provider that forgets everything gets the same credentials: no request is carried out again.
    let before = world.secrets["ci-oauth"].data["client-secret"].clone();
    world.clients.clear();
    assert_eq!(world.settle(&asked(Want::new(), "c", true)), None);
    assert_eq!(world.secrets["ci-oauth"].data["client-secret"], before);
}

#[test]
fn where_one_secret_is_held_the_gap_is_announced_first() {
    for provider in ["p2", "p3"] {
        let want = Want { provider: provider.into(), ..Want::new() };
        let mut world = settled(&want);
        let old = world.secrets[want.secret].data["client-secret"].clone();
        let want = asked(want, "a", false);
        let names = decide(&want.goal(), &world.observe(&want), world.time()).plan.names();
        assert_eq!(&names[..3], ["RehearseSecret", "Announce", "PutClient"], "{names:?}");
        assert_eq!(world.settle(&want), None);
        assert!(world.works(&want));
        assert_ne!(world.secrets[want.secret].data["client-secret"], old);
    }
}

/// The Secret couldn't be written after the provider had the new secret: what is in it works on.
#[test]
fn an_overlap_lasts_until_the_secret_is_written() {
    let want = Want { every: Some(1000), ..Want::new() };
    let mut world = settled(&want);
    let old = world.secrets[want.secret].data["client-secret"].clone();
    let id = World::id("one");
    world.now += 1000;
    // Up to the write of the Secret, and not that.
    world.pass(&want, 3);
    for _ in 0..20 {
        world.now += 100;
        let plan = decide(&want.goal(), &world.observe(&want), world.time()).plan;
        let write = plan.names().iter().position(|n| *n == "WriteSecret").expect("it is still to be written");
        world.pass(&want, write);
        assert_eq!(world.authenticates("one", id.as_str(), &old), Proof::Authenticated, "{}", world.now);
        assert_eq!(world.secrets[want.secret].data["client-secret"], old);
    }
    assert_eq!(world.settle(&want), None);
    assert!(world.works(&want));
    world.now += 1000;
    assert_eq!(world.settle(&Want { every: None, ..want }), None);
    assert_eq!(world.authenticates("one", id.as_str(), &old), Proof::Refused);
}

/// Where nothing works on beside the new secret, the plan says what to put back.
#[test]
fn a_secret_that_ends_at_once_can_be_put_back() {
    for (provider, now) in [("p1", true), ("p2", false)] {
        let want = Want { provider: provider.into(), ..Want::new() };
        let world = settled(&want);
        let want = asked(want, "a", now);
        let part = decide(&want.goal(), &world.observe(&want), world.time()).plan.incoming.expect("a part");
        let (_, put) = part.undo.expect("what was");
        let PutSecret::Chosen { secret, .. } = &put.secret else { panic!("{put:?}") };
        assert_eq!(secret.expose_secret(), world.secrets["ci-oauth"].data["client-secret"], "{provider}");
        assert_eq!((put.owner.serial, put.owner.request.as_str()), (1, ""));
    }
    // Beside an overlap there is no need.
    let want = asked(Want::new(), "a", false);
    let part = decide(&want.goal(), &settled(&Want::new()).observe(&want), World::new().time()).plan.incoming;
    assert!(part.expect("a part").undo.is_none());
}

#[test]
fn an_overlap_is_refused_where_there_is_one_secret() {
    let want = Want { provider: "p2".into(), ..Want::new() };
    let world = settled(&want);
    let mut goal = want.goal();
    if let Goal::Present(link) = &mut goal {
        link.incoming.as_mut().expect("incoming").rotation =
            RotationGoal { every: Some(7200), overlap: Some(60) };
    }
    let part = decide(&goal, &world.observe(&want), world.time()).plan.incoming.expect("a part");
    assert_eq!(part.verdict.map_err(|p| p.reason), Err("OverlapUnsupported"));
    assert!(part.effects.is_empty());
}

/// Wherever a rotation is broken off, the Secret's credentials authenticate at a provider that can
/// hold two secrets, at that moment and at every later one.
#[test]
fn a_rotation_that_is_broken_off_anywhere_leaves_a_secret_that_works() {
    for most in 0..4 {
        for want in [asked(Want::new(), "a", false), Want { every: Some(5), ..Want::new() }] {
            let mut world = settled(&Want { request: None, ..want.clone() });
            world.pass(&want, most);
            assert!(world.works(&want), "broken off after {most}");
            assert_eq!(world.settle(&want), None);
            assert!(world.works(&want));
        }
        for provider in ["p2", "p3"] {
            let want = Want { provider: provider.into(), ..Want::new() };
            let mut world = settled(&want);
            let want = asked(want, "a", false);
            world.pass(&want, most);
            assert_eq!(world.settle(&want), None);
            assert!(world.works(&want), "{provider}: broken off after {most}");
            assert_eq!(world.ours().len(), 1);
        }
    }
}

#[test]
fn a_new_master_key_moves_the_client_to_a_new_secret_with_an_overlap() {
    let want = Want::new();
    let mut world = settled(&want);
    let old = world.secrets[want.secret].data["client-secret"].clone();
    world.key_rotated = true;
    let plan = decide(&want.goal(), &world.observe(&want), world.time()).plan;
    assert_eq!(plan.names(), ["RehearseSecret", "PutClient", "Prove", "WriteSecret"]);
    assert_eq!(world.settle(&want), None);
    assert!(world.works(&want) && world.last.serial == 2);
    assert_eq!(world.authenticates("one", World::id("one").as_str(), &old), Proof::Authenticated);
    // A public client has none, and gets its mark anew.
    let public = Want { public: true, ..Want::new() };
    let mut world = settled(&public);
    world.key_rotated = true;
    assert_eq!(world.settle(&public), None);
    let ring = ring("ours", true);
    let held = world.clients.values().next().expect("a client");
    let identity = World::identity("p1", "one").own;
    let id = World::id("one");
    let at = OwnerMark { provider: &identity, client_id: id.as_str() };
    assert_eq!(held.owner.as_ref().and_then(|o| o.key(&ring, at)), Some("2"));
}

#[test]
fn a_client_is_adopted_with_its_secret_and_rotated_out_of_it() {
    let adopting = Want { adopt: Some("clicked"), ..Want::new() };
    for provider in ["p1", "p2"] {
        let want = Want { provider: provider.into(), ..adopting.clone() };
        let mut world = World::new();
        assert_eq!(world.settle(&want).map(|p| p.reason), Some("AdoptNotFound"));
        world.put_clicked(world.providers[provider].0);
        assert_eq!(world.settle(&want), None);
        assert!(world.works(&want));
        assert_eq!(world.secrets[want.secret].data["client-secret"], "clicked-secret");
        assert_eq!(world.clients.len(), 1);
        // A lost client comes back with the adopted secret.
        world.clients.clear();
        assert_eq!(world.settle(&want), None);
        assert_eq!(world.secrets[want.secret].data["client-secret"], "clicked-secret");
        let rotated = asked(want.clone(), "a", true);
        assert_eq!(world.settle(&rotated), None);
        assert_ne!(world.secrets[want.secret].data["client-secret"], "clicked-secret");
        assert!(world.works(&rotated));
        assert_eq!(world.settle(&Want { deleted: Some((false, false)), ..rotated }), None);
        assert!(world.clients.is_empty());
    }
}

#[test]
fn an_adoption_that_is_broken_off_anywhere_goes_on() {
    let want = Want { adopt: Some("clicked"), ..Want::new() };
    for most in 0..6 {
        let mut world = World::new();
        world.put_clicked("one");
        world.pass(&want, most);
        assert_eq!(world.settle(&want), None, "broken off after {most}");
        assert!(world.works(&want));
        assert_eq!(world.secrets[want.secret].data["client-secret"], "clicked-secret");
    }
}

#[test]
fn a_request_that_is_pending_when_the_client_is_gone_brings_no_old_secret_back() {
    let mut world = settled(&Want { provider: "p2".into(), ..Want::new() });
    let old = world.secrets["ci-oauth"].data["client-secret"].clone();
    world.clients.clear();
    let want = asked(Want { provider: "p2".into(), ..Want::new() }, "leaked", true);
    assert_eq!(world.settle(&want), None);
    assert!(world.works(&want));
    assert_ne!(world.secrets["ci-oauth"].data["client-secret"], old);
}

#[test]
fn a_client_id_of_one_s_choice_is_not_taken_along_to_another_provider() {
    let want = Want { adopt: Some("clicked"), ..Want::new() };
    let mut world = World::new();
    world.put_clicked("one");
    assert_eq!(world.settle(&want), None);
    let moved = Want { provider: "p2".into(), ..want };
    let mut seen = world.observe(&moved);
    if let Some(Ok(place)) = seen.incoming.as_mut().map(|i| &mut i.place) {
        place.adoptable.clear();
    }
    let part = decide(&moved.goal(), &seen, world.time()).plan.incoming.expect("a part");
    assert_eq!(part.verdict.map_err(|p| p.reason), Err("AdoptionNotAllowed"));
    assert!(part.effects.is_empty());
}

#[test]
fn only_a_listed_client_with_the_right_secret_is_adopted() {
    let want = Want { adopt: Some("clicked"), ..Want::new() };
    let mut world = World::new();
    world.put_clicked("one");
    let before = world.clients.clone();
    let reason = |seen: &Observed| {
        decide(&want.goal(), seen, Timestamp::UNIX_EPOCH)
            .plan
            .incoming
            .expect("a part")
            .verdict
            .map_err(|p| p.reason)
    };
    let mut seen = world.observe(&want);
    let facts = |seen: &mut Observed| seen.incoming.take().expect("facts");
    let mut f = facts(&mut seen);
    f.proof = Some(Proof::Refused);
    seen.incoming = Some(f);
    assert_eq!(reason(&seen), Err("AdoptionSecretWrong"));
    let mut f = facts(&mut seen);
    f.adopt_secret = None;
    seen.incoming = Some(f);
    assert_eq!(reason(&seen), Err("AdoptionSecretMissing"));
    let mut f = facts(&mut seen);
    if let Ok(place) = &mut f.place {
        place.adoptable.clear();
    }
    seen.incoming = Some(f);
    assert_eq!(reason(&seen), Err("AdoptionNotAllowed"));
    assert_eq!(world.clients, before);
    // The answer is the same whether it is there or not, somebody's or nobody's, and nothing of it is known after.
    let view = |seen: &Observed| decide(&want.goal(), seen, Timestamp::UNIX_EPOCH).incoming;
    assert_eq!(view(&seen), None);
    let mut f = facts(&mut seen);
    if let Some(client) = &mut f.client {
        client.protected = true;
    }
    seen.incoming = Some(f.clone());
    assert_eq!((reason(&seen), view(&seen)), (Err("AdoptionNotAllowed"), None));
    f.client = None;
    seen.incoming = Some(f);
    assert_eq!((reason(&seen), view(&seen)), (Err("AdoptionNotAllowed"), None));
}

#[test]
fn a_secret_that_ends_at_once_is_not_replaced_without_end() {
    let want = Want { provider: "p3".into(), ..Want::new() };
    let mut world = World { secret_life: Some(2), ..World::new() };
    let reason = |world: &mut World| world.settle(&want).map(|p| (p.reason, p.mend));
    let wanted = Some(("SecretLifetimeTooShort", Mend::Edit));
    assert_eq!(reason(&mut world), wanted);
    let rotations =
        |world: &World| world.kept.as_ref().and_then(|k| k.at.values().next()).map(|client| client.serial);
    let first = rotations(&world);
    for _ in 0..9 {
        world.now += 6;
        assert_eq!((reason(&mut world), rotations(&world)), (wanted, first));
    }
    world.now += 6;
    assert_eq!((reason(&mut world), rotations(&world)), (wanted, first.map(|n| n + 1)));
    // With a life that can be kept up with, it is replaced at two thirds of it.
    world.secret_life = Some(3000);
    world.now += 60;
    assert_eq!((reason(&mut world), rotations(&world)), (None, first.map(|n| n + 2)));
    world.now += 1999;
    assert_eq!((reason(&mut world), rotations(&world)), (None, first.map(|n| n + 2)));
    world.now += 1;
    assert_eq!((reason(&mut world), rotations(&world)), (None, first.map(|n| n + 3)));
}

#[test]
fn a_lost_answer_of_a_service_that_picks_secrets_leaves_one_client() {
    let want = Want { provider: "p3".into(), ..Want::new() };
    for most in 0..6 {
        let mut world = World::new();
        world.pass(&want, most);
        assert_eq!(world.settle(&want), None);
        assert!(world.works(&want) && world.clients.len() == 1, "broken off after {most}");
        assert_eq!(world.settle(&Want { deleted: Some((false, false)), ..want.clone() }), None);
        assert!(world.clients.is_empty() && world.kept.is_none_or(|k| k.at.is_empty()));
    }
}

/// What may happen beside the operator.
#[derive(Debug, Clone)]
enum Event {
    Provider(usize),
    Scope,
    Public,
    Secret(usize),
    Key,
    Suspend,
    Down(usize),
    EditSecret,
    DeleteSecret,
    EditClient,
    DeleteClient,
    LoseClaims,
    /// The link went without its finalizer's doing, and another of its name came.
    Reborn,
    LoseKeys,
    ForeignClient,
    ForeignKey,
    Request(bool),
    Every,
    Time(i64),
    RotateKey,
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0..6usize).prop_map(Event::Provider),
        any::<bool>().prop_map(Event::Request),
        Just(Event::Every),
        (1..5000i64).prop_map(Event::Time),
        Just(Event::RotateKey),
        Just(Event::Scope),
        Just(Event::Public),
        (0..3usize).prop_map(Event::Secret),
        Just(Event::Key),
        Just(Event::Suspend),
        (0..6usize).prop_map(Event::Down),
        Just(Event::EditSecret),
        Just(Event::DeleteSecret),
        Just(Event::EditClient),
        Just(Event::DeleteClient),
        Just(Event::LoseClaims),
        Just(Event::Reborn),
        Just(Event::LoseKeys),
        Just(Event::ForeignClient),
        Just(Event::ForeignKey),
    ]
}

fn happen(world: &mut World, want: &mut Want, event: &Event) {
    const PROVIDERS: [&str; 6] = ["p1", "p1-again", "p2", "p3", "t1", "t2"];
    let own: Option<String> =
        world.secrets.iter().find(|(_, k)| k.owner.as_ref() == Some(&world.uid)).map(|(n, _)| n.clone());
    let ours = world
        .clients
        .iter()
        .find(|(_, h)| h.owner.as_ref().is_some_and(|o| o.uid == world.uid && o.installation == "ours"));
    let client = ours.map(|(k, _)| k.clone());
    let version = world.next();
    match event {
        Event::Provider(i) => want.provider = PROVIDERS[*i].into(),
        Event::Scope => want.scope = !want.scope,
        Event::Public => want.public = !want.public,
        Event::Secret(i) => want.secret = SECRETS[*i],
        Event::Key => want.renamed_key = !want.renamed_key,
        Event::Suspend => want.suspend = !want.suspend,
        // A service is up or down for all its provider objects.
        Event::Down(i) => {
            let service = world.providers[PROVIDERS[*i]].0;
            world.providers.values_mut().filter(|p| p.0 == service).for_each(|p| p.1 = !p.1);
        }
        Event::EditSecret => {
            if let Some(kept) = own.and_then(|n| world.secrets.get_mut(&n)) {
                kept.data.insert("client-secret".into(), "edited".into());
                // As managed fields have it: who wrote a key last owns it.
                kept.own.remove("client-secret");
                kept.labels.clear();
            }
        }
        Event::DeleteSecret => drop(own.and_then(|n| world.secrets.remove(&n))),
        Event::EditClient => {
            if let Some(held) = client.and_then(|k| world.clients.get_mut(&k)) {
                held.secret = Some("edited".into());
                held.version = version;
            }
        }
        Event::DeleteClient => drop(client.and_then(|k| world.clients.remove(&k))),
        Event::LoseClaims => world.claims.clear(),
        Event::Reborn => {
            let old = std::mem::replace(&mut world.uid, format!("link-{version}"));
            world.secrets.retain(|_, k| k.owner.as_ref() != Some(&old));
            (world.finalizer, world.claims, world.last) = (false, vec![], LastSecret::default());
            world.kept = None;
        }
        Event::LoseKeys => world.keys = !world.keys,
        Event::Request(now) => want.request = Some((format!("request-{version}"), *now)),
        Event::Every => want.every = if want.every.is_some() { None } else { Some(1000) },
        Event::Time(seconds) => world.now += seconds,
        Event::RotateKey => world.key_rotated = true,
        Event::ForeignClient if client.is_none() => world.put_foreign("two"),
        Event::ForeignClient => {}
        Event::ForeignKey => {
            if let Some(kept) = own.and_then(|n| world.secrets.get_mut(&n)) {
                kept.data.insert("foreign".into(), "theirs".into());
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever happens, and wherever passes are broken off: at the end there is one client, its
    /// credentials are in the Secret, and a next pass has nothing to do; and after a deletion
    /// nothing of ours is left.
    #[test]
    fn every_plan_reaches_a_fixpoint(
        story in prop::collection::vec((event(), 0..6usize), 0..12),
        retain in any::<bool>(),
    ) {
        let (mut world, mut want) = (World::new(), Want::new());
        for (event, effects) in &story {
            happen(&mut world, &mut want, event);
            world.pass(&want, *effects);
        }
        // A serial falls only with all that knew it.
        if !story.iter().any(|(e, _)| matches!(e, Event::DeleteClient)) {
            for (i, a) in world.serials.iter().enumerate() {
                let fell = world.serials[i..].iter().any(|b| (b.0, &b.1) == (a.0, &a.1) && b.2 < a.2);
                prop_assert!(!fell, "{:?}", world.serials);
            }
        }
        // All that stands in the way passes.
        world.providers.values_mut().for_each(|p| p.1 = true);
        world.keys = true;
        want.suspend = false;
        if want.secret == "taken" {
            want.secret = SECRETS[0];
        }
        world.clients.retain(|_, h| h.owner.as_ref().is_none_or(|o| o.installation == "ours"));
        let lost = story.iter().any(|(e, _)| matches!(e, Event::LoseClaims | Event::Reborn));
        prop_assert_eq!(world.settle(&want), None);
        prop_assert!(world.works(&want));
        if !lost {
            prop_assert_eq!(world.ours().len(), 1);
        }
        let (effects, _) = world.pass(&want, usize::MAX);
        prop_assert_eq!(effects, 0);

        want.deleted = Some((retain, false));
        for most in [1, 0, 2] {
            if !world.finished {
                world.pass(&want, most);
            }
        }
        if !world.finished {
            prop_assert_eq!(world.settle(&want), None);
        }
        prop_assert!(world.finished);
        prop_assert!(world.secrets.contains_key("taken"));
        if !retain && !lost {
            prop_assert!(world.ours().is_empty());
        }
        if retain {
            let held = world.secrets.values().find(|k| k.data.contains_key("client-secret") || want.public);
            prop_assert!(held.is_some());
        }
    }
}
