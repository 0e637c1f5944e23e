//! Whose a client is where providers say that they are the same service, in the world of
//! [`super::model`]: p1 is the platform team's, t1 a tenant's for the same service, and t2 a tenant's that
//! says so and has a server of its own called. The model asserts that no secret is told to two services.

use super::model::{Want, World, claim, settled};
use super::*;
use crate::provider::Proof;

fn at(provider: &str) -> Want {
    Want { provider: provider.into(), ..Want::new() }
}

fn gone(want: &Want) -> Want {
    Want { deleted: Some((false, false)), ..want.clone() }
}

fn secret(world: &World) -> String {
    world.secrets["ci-oauth"].data["client-secret"].clone()
}

fn services(world: &World) -> Vec<&'static str> {
    world.clients.keys().map(|(service, _)| *service).collect()
}

#[test]
fn a_link_that_moves_to_a_spoof_leaves_nothing_behind() {
    let mut world = settled(&at("p1"));
    let before = secret(&world);
    assert_eq!(world.settle(&at("t2")), None);
    assert_eq!(services(&world), ["evil"]);
    assert_ne!(secret(&world), before);
    assert_eq!(world.settle(&gone(&at("t2"))), None);
    assert!(world.finished && world.clients.is_empty());
}

#[test]
fn a_link_that_comes_from_a_spoof_has_a_secret_that_it_never_saw() {
    let mut world = settled(&at("t2"));
    let before = secret(&world);
    assert_eq!(world.settle(&at("p1")), None);
    assert_eq!(services(&world), ["one"]);
    assert_ne!(secret(&world), before);
}

#[test]
fn another_object_for_the_same_service_takes_the_client_over_with_a_new_secret() {
    for (from, to) in [("p1", "t1"), ("t1", "p1")] {
        let mut world = settled(&at(from));
        let (before, id) = (secret(&world), World::id("one"));
        let plan = decide(&at(to).goal(), &world.observe(&at(to)), world.time());
        assert_eq!(plan.notes.iter().map(|n| n.reason).collect::<Vec<_>>(), ["Rotated"]);
        assert_eq!(world.settle(&at(to)), None);
        assert_eq!(world.clients.keys().map(|(_, id)| id.as_str()).collect::<Vec<_>>(), [id.as_str()]);
        assert!(world.works(&at(to)) && secret(&world) != before, "{from} {to}");
        // What the other one was told ends at once.
        assert_eq!(world.authenticates("one", id.as_str(), &before), Proof::Refused);
        assert_eq!(world.claims, [claim(to)]);
        assert_eq!(world.settle(&gone(&at(to))), None);
        assert!(world.clients.is_empty());
    }
}

#[test]
fn a_service_whose_address_moved_is_named_by_another_object() {
    let mut world = settled(&at("t1"));
    world.providers.insert("t3".into(), ("one", true));
    world.providers.insert("t1".into(), ("one", false));
    assert_eq!(world.settle(&at("t3")), None);
    assert_eq!((services(&world), world.claims.clone()), (vec!["one"], vec![claim("t3")]));
    // The platform team's isn't left without a look.
    let mut world = settled(&at("p1"));
    world.providers.insert("p1".into(), ("one", false));
    assert_eq!(world.settle(&at("t1")).map(|p| p.reason), Some("ProviderUnreachable"));
    assert_eq!(world.claims, [claim("p1"), claim("t1")]);
}

/// What a version before made for t1: marked and derived by type and address.
fn made_before() -> World {
    let mut world = settled(&at("p1"));
    world.providers.remove("p1");
    world.providers.remove("p1-again");
    world.claims = vec![claim("t1")];
    world
}

#[test]
fn what_was_made_by_type_and_address_stays_until_its_next_rotation() {
    let mut world = made_before();
    world.stays = true;
    let before = secret(&world);
    let plan = decide(&at("t1").goal(), &world.observe(&at("t1")), world.time()).plan;
    assert!(plan.names().is_empty(), "{:?}", plan.names());
    // A change of the client goes on with the same secret.
    let wider = Want { scope: true, ..at("t1") };
    assert_eq!(world.settle(&wider), None);
    assert!(world.works(&wider) && secret(&world) == before);
    let asked = Want { request: Some(("a".into(), false)), ..wider };
    assert_eq!(world.settle(&asked), None);
    assert!(world.works(&asked) && secret(&world) != before);
    // From then on by all that the provider is: without the exception, too.
    world.stays = false;
    let plan = decide(&asked.goal(), &world.observe(&asked), world.time()).plan;
    assert!(plan.names().is_empty(), "{:?}", plan.names());
}

#[test]
fn what_may_be_known_to_another_provider_is_replaced_once() {
    let mut world = made_before();
    let before = secret(&world);
    let decision = decide(&at("t1").goal(), &world.observe(&at("t1")), world.time());
    assert_eq!(decision.plan.names(), ["RehearseSecret", "Announce", "PutClient", "Prove", "WriteSecret"]);
    assert_eq!(decision.notes.iter().map(|n| n.reason).collect::<Vec<_>>(), ["Rotated"]);
    assert_eq!(world.settle(&at("t1")), None);
    assert!(world.works(&at("t1")) && secret(&world) != before);
    assert_eq!(world.last.serial, 2);
}

#[test]
fn an_identifier_that_somebody_named_is_taken_only_where_it_may_be_adopted_now() {
    let adopting = |provider: &str| Want { adopt: Some("clicked"), ..at(provider) };
    // Adopted at the tenant's own server, the client isn't made at the platform's.
    let mut world = World::new();
    world.put_clicked("evil");
    assert_eq!(world.settle(&adopting("t2")), None);
    assert_eq!(world.settle(&adopting("p1")).map(|p| p.reason), Some("AdoptNotFound"));
    world.adoptable.clear();
    assert_eq!(world.settle(&adopting("p1")).map(|p| p.reason), Some("AdoptionNotAllowed"));
    // Nor after the link stops naming it.
    assert_eq!(world.settle(&at("p1")), None);
    assert_eq!(
        world.clients.keys().map(|(_, id)| id.as_str()).collect::<Vec<_>>(),
        [World::id("one").as_str()]
    );
}

#[test]
fn an_adopted_client_goes_on_when_its_identifier_leaves_the_list_and_isn_t_made_anew() {
    let want = Want { adopt: Some("clicked"), ..Want::new() };
    let mut world = World::new();
    world.put_clicked("one");
    assert_eq!(world.settle(&want), None);
    world.adoptable.clear();
    let wider = Want { scope: true, ..want };
    assert_eq!(world.settle(&wider), None);
    assert!(world.works(&wider));
    let public = Want { public: true, ..wider.clone() };
    assert_eq!(world.settle(&public).map(|p| p.reason), Some("AdoptionNotAllowed"));
    world.clients.clear();
    assert_eq!(world.settle(&wider).map(|p| p.reason), Some("AdoptionNotAllowed"));
    assert!(world.clients.is_empty());
    // Whoever stops naming it has a client of its own.
    assert_eq!(world.settle(&Want { adopt: None, ..wider }), None);
    assert_eq!(
        world.clients.keys().map(|(_, id)| id.as_str()).collect::<Vec<_>>(),
        [World::id("one").as_str()]
    );
}

#[test]
fn a_public_client_is_adopted_as_what_it_is_and_gets_no_secret() {
    let want = Want { adopt: Some("clicked"), ..Want::new() };
    let public = Want { public: true, ..want.clone() };
    let mut world = World::new();
    world.put_clicked("one");
    assert_eq!(world.settle(&public).map(|p| p.reason), Some("AdoptionMethodMismatch"));
    let held = world.clients.values_mut().next().expect("the client");
    let Goal::Present(link) = public.goal() else { return };
    (held.metadata, held.secret) = (link.incoming.expect("incoming").metadata, None);
    assert_eq!(world.settle(&want).map(|p| p.reason), Some("AdoptionMethodMismatch"));
    assert_eq!(world.settle(&public), None);
    assert!(world.works(&public));
    assert_eq!(world.settle(&want).map(|p| p.reason), Some("AdoptionMethodMismatch"));
    assert!(world.clients.values().all(|h| h.secret.is_none()));
}
