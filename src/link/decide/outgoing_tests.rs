//! The outgoing part against a model of the world: whatever happens and wherever a pass stops,
//! plans come to rest, no plan asks twice, and nothing is sent that must not be.

use super::outgoing_world::{LIFETIME, World, endpoints, goal};
use super::{Goal, decide};
use crate::domain::{ExposeSecret as _, ScopeSet};
use crate::link::facts::{Refused, SecretFact};
use crate::link::grant::Intent;
use crate::link::plan::Effect;
use crate::link::problem::{Mend, Problem};
use crate::outgoing::ClientAuth;
use jiff::{SignedDuration, Timestamp};
use proptest::prelude::*;
use std::time::Duration;

/// Something that happens to a link.
#[derive(Debug, Clone, Copy)]
enum Event {
    Later(i64),
    Deleted,
    Edited,
    Relabelled,
    NewSeed,
    OtherScopes,
    OtherClientSecret,
    OtherInstance,
    ClockSetBack,
}

fn event() -> impl Strategy<Value = Event> {
    use Event as E;
    let plain = [E::Deleted, E::Edited, E::Relabelled, E::NewSeed, E::OtherScopes, E::OtherClientSecret];
    prop_oneof![
        (0..3 * LIFETIME).prop_map(E::Later),
        prop::sample::select(plain.to_vec()),
        Just(E::OtherInstance),
        Just(E::ClockSetBack),
    ]
}

fn happen(world: &mut World, event: Event) {
    let n = world.version;
    let refresh = world.facts().seed.is_some();
    match event {
        Event::Later(secs) => world.now += SignedDuration::from_secs(secs),
        Event::ClockSetBack => world.now -= SignedDuration::from_hours(48),
        Event::Deleted => world.facts().secret = SecretFact::Absent,
        Event::Edited | Event::Relabelled => {
            if let SecretFact::Own(own) = &mut world.facts().secret {
                if matches!(event, Event::Edited) {
                    own.data =
                        [("access-token".to_owned(), "forged".to_owned().into())].into_iter().collect();
                } else {
                    own.labels.clear();
                }
            }
        }
        Event::NewSeed if refresh => {
            let seed = format!("seed-{}", n + 1);
            world.facts().seed = Some(Ok(seed.clone().into()));
            (world.valid, world.spent) = (seed, String::new());
        }
        Event::NewSeed => {}
        Event::OtherScopes => world.goal().scopes = ScopeSet::parse(&format!("a b{n}")).expect("scopes"),
        Event::OtherClientSecret => {
            if let Ok(Some(client)) = &mut world.facts().client {
                client.auth = ClientAuth::Basic(format!("client-secret-{n}").into());
            }
        }
        Event::OtherInstance => world.facts().holder = format!("instance-{n}"),
    }
}

proptest! {
    /// Whatever happens, and wherever passes stop, the link comes to rest with a good token.
    #[test]
    fn every_plan_comes_to_rest(
        refresh: bool,
        rotates: bool,
        story in prop::collection::vec((event(), prop::collection::vec(0usize..7, 0..4)), 1..8),
    ) {
        let mut world = World::new(refresh, rotates);
        for (event, stops) in story {
            for stop in stops {
                let _ = world.pass(stop);
            }
            prop_assert_eq!(world.settle(), Ok(()));
            let before = world.requests;
            let token = world.published().expect("a token");
            prop_assert!(token.expires_at > world.now);
            prop_assert_eq!(world.settle(), Ok(()));
            prop_assert_eq!(world.requests, before, "rest is rest");
            happen(&mut world, event);
        }
    }

    /// Stopped after each effect in turn, from nothing: one more request at most, and the same end.
    #[test]
    fn a_stop_after_any_effect_costs_one_request_at_most(refresh: bool, rotates: bool, stop in 0usize..8) {
        let mut world = World::new(refresh, rotates);
        let _ = world.pass(stop);
        prop_assert_eq!(world.settle(), Ok(()));
        prop_assert!(world.requests <= 2);
        let kept = world.seen.grant.as_ref().and_then(|(g, _)| g.refresh_token.clone());
        if refresh {
            prop_assert_eq!(kept.map(|k| k.0.expose_secret().to_owned()), Some(world.valid.clone()));
        }
    }

    /// Dead, refused, held off, suspended or bound elsewhere: nothing is sent at any time.
    #[test]
    fn nothing_is_sent_that_must_not_be(refresh: bool, why in 0u8..6, later in 0i64..10 * LIFETIME) {
        let mut world = World::new(refresh, true);
        prop_assert_eq!(world.settle(), Ok(()));
        let fingerprint = world.published().expect("a token").fingerprint;
        let until = world.now + SignedDuration::from_secs(20 * LIFETIME);
        let problem = Problem::edit("InvalidClient", "turned down");
        let expected = match why {
            0 if refresh => {
                let (mut grant, _) = world.seen.grant.clone().expect("a grant");
                grant.dead = Some("invalid_grant".into());
                world.save(grant);
                "ReauthorizationRequired"
            }
            1 => {
                world.facts().refused = Some(Refused { fingerprint, problem, until: None, stalls: None });
                "InvalidClient"
            }
            2 => {
                world.facts().refused = Some(Refused { fingerprint, problem, until: Some(until), stalls: None });
                "InvalidClient"
            }
            3 => {
                world.link.suspend = true;
                ""
            }
            _ => {
                world.facts().endpoints = Ok(endpoints("moved"));
                if refresh { "GrantBindingChanged" } else { "EndpointChanged" }
            }
        };
        world.now += SignedDuration::from_secs(later);
        let before = world.requests;
        let verdict = world.settle();
        prop_assert_eq!(world.requests, before);
        if let Err(problem) = verdict {
            prop_assert_eq!(problem.reason, expected);
            prop_assert!(later * 3 > LIFETIME, "said only once a request is due");
        }
    }
}

#[test]
fn a_server_that_asked_for_time_gets_it_and_no_more() {
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    let fingerprint = world.published().expect("a token").fingerprint;
    world.now += SignedDuration::from_secs(LIFETIME);
    let until = world.now + SignedDuration::from_secs(60);
    let problem = Problem::wait("RateLimited", "slowly");
    world.facts().refused = Some(Refused { fingerprint, problem, until: Some(until), stalls: None });
    world.now += SignedDuration::from_secs(20);
    let problem = world.settle().expect_err("held off");
    assert_eq!(problem.retry_after, Some(std::time::Duration::from_secs(40)), "what is left of it");
    world.now = until;
    assert_eq!(world.settle(), Ok(()));
}

#[test]
fn a_client_that_may_come_later_is_waited_for_and_then_for_a_person_to_mend() {
    let mut world = World::new(false, true);
    world.settle().expect("settled");
    let fingerprint = world.published().expect("a token").fingerprint;
    world.now += SignedDuration::from_secs(LIFETIME);
    let (stalls, until) =
        (world.now + SignedDuration::from_secs(60), world.now + SignedDuration::from_secs(90));
    let problem = Problem::wait("InvalidClient", "who?");
    world.facts().refused = Some(Refused { fingerprint, problem, until: Some(until), stalls: Some(stalls) });
    let requests = world.requests;
    for (at, mend) in [(0, Mend::Wait), (59, Mend::Wait), (60, Mend::Edit), (89, Mend::Edit)] {
        world.now = stalls + SignedDuration::from_secs(at - 60);
        assert_eq!(world.settle().expect_err("held off").mend, mend, "after {at} s");
    }
    assert_eq!(world.requests, requests);
    world.now = until;
    assert_eq!(world.settle(), Ok(()));
}

#[test]
fn consent_to_a_moved_endpoint() {
    let mut world = World::new(false, false);
    world.settle().expect("settled");
    world.facts().endpoints = Ok(endpoints("moved"));
    world.now += SignedDuration::from_secs(LIFETIME);
    for accepted in [None, Some("https://as.example/other"), Some("https://as.example/token")] {
        world.seen.accepted_endpoint = accepted.map(str::to_owned);
        assert_eq!(world.settle().expect_err("not accepted").reason, "EndpointChanged");
    }
    world.seen.accepted_endpoint = Some("https://as.example/moved".into());
    assert_eq!(world.settle(), Ok(()));
}

#[test]
fn a_token_is_only_good_while_no_refresh_may_have_ended_it() {
    let in_place =
        |world: &World| decide(&Goal::Present(Box::new(world.link.clone())), &world.seen, world.now).in_place;
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    world.now += SignedDuration::from_secs(LIFETIME * 4 / 5);
    assert!(in_place(&world));
    // An answer was lost: what another try comes to says nothing of the first.
    world.facts().doubt = true;
    assert!(!in_place(&world));
    world.facts().in_line = true;
    assert_eq!(world.decide().1.verdict.map_err(|p| p.reason), Err("Queued"));
    world.facts().doubt = false;
    world.facts().in_line = false;
    // Another instance began one, and went.
    let (mut grant, version) = world.seen.grant.clone().expect("a grant");
    grant.intent = Some(Intent { holder: "another".into(), at: world.now });
    world.seen.grant = Some((grant, version));
    assert!(!in_place(&world));
    // Client credentials end no token.
    let mut world = World::new(false, false);
    world.settle().expect("settled");
    world.now += SignedDuration::from_secs(LIFETIME * 4 / 5);
    world.facts().doubt = true;
    assert!(in_place(&world));
}

#[test]
fn a_grant_that_another_takes_the_place_of_is_given_back() {
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    let before = world.seen.grant.clone().expect("a grant").0;
    // A seed of the same client at the same server may be of the same family.
    world.facts().seed = Some(Ok("another-seed".to_owned().into()));
    assert!(!world.decide().0.iter().any(|e| matches!(e, Effect::GiveBack(_))));
    // Nothing that is kept needs it any more.
    world.facts().seed = None;
    world.link.outgoing = Some(goal(false));
    let effects = world.decide().0;
    let saved = effects.iter().position(|e| matches!(e, Effect::SaveGrant(..))).expect("the new grant");
    let Some(Effect::GiveBack(given)) = effects.get(saved + 1) else { panic!("{effects:?}") };
    assert_eq!(**given, before);
    world.settle().expect("settled");
    assert!(!world.decide().0.iter().any(|e| matches!(e, Effect::GiveBack(_))));
}

#[test]
fn a_suspended_link_says_that_its_token_ended() {
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    world.link.suspend = true;
    assert_eq!(world.settle(), Ok(()), "a good token is all that is asked");
    world.now += SignedDuration::from_secs(2 * LIFETIME);
    assert_eq!(world.settle(), Ok(()), "the status says TokenExpired, by the token's end");
    world.facts().secret = SecretFact::Absent;
    assert_eq!(world.settle().expect_err("not as it should be").reason, "Suspended");
}

#[test]
fn what_is_missing_is_said_and_nothing_is_sent() {
    let missing = |reason| Problem::wait(reason, "missing");
    let mut world = World::new(true, true);
    world.facts().seed = Some(Err(missing("SeedMissing")));
    assert_eq!(world.settle().expect_err("no seed").reason, "SeedMissing");
    world.facts().client = Err(missing("ClientSecretMissing"));
    assert_eq!(world.settle().expect_err("no client").reason, "ClientSecretMissing");
    world.facts().secret = SecretFact::Foreign(missing("SecretConflict"));
    assert_eq!(world.settle().expect_err("foreign").reason, "SecretConflict");
    assert_eq!(world.requests, 0);
    // A grant in hand needs no seed any more.
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    world.facts().seed = Some(Err(missing("SeedMissing")));
    world.now += SignedDuration::from_secs(LIFETIME);
    assert_eq!(world.settle(), Ok(()));
}

/// What a pass comes to that finds no room at the host.
fn in_line(world: &mut World) -> (super::Decision, Vec<&'static str>) {
    world.facts().in_line = true;
    let decision = decide(&Goal::Present(Box::new(world.link.clone())), &world.seen, world.now);
    world.facts().in_line = false;
    let names = decision.plan.names();
    (decision, names)
}

#[test]
fn who_waits_for_its_turn_does_nothing_and_says_what_is() {
    for (refresh, rotates) in [(false, false), (true, false), (true, true)] {
        let mut world = World::new(refresh, rotates);
        // Never had a token: says that it waits, and stands with the new ones.
        let (decision, names) = in_line(&mut world);
        let turn = decision.asks.expect("a turn");
        assert!(names.is_empty() && turn.new && turn.host == "as.example:443", "{names:?} {turn:?}");
        let verdict = decision.plan.outgoing.expect("a part").verdict;
        assert_eq!(verdict.expect_err("not yet").reason, "Queued");

        // Due, and the token in hand is still good: nothing is wrong.
        world.settle().expect("settled");
        let ends = world.published().expect("a token").expires_at;
        assert!(in_line(&mut world).0.asks.is_none(), "nothing is due");
        world.now += SignedDuration::from_secs(LIFETIME - 300);
        for later in [0, 600] {
            world.now += SignedDuration::from_secs(later);
            let (decision, names) = in_line(&mut world);
            let turn = decision.asks.expect("a turn");
            assert!(names.is_empty() && !turn.new && turn.deadline == ends, "{names:?} {turn:?}");
            assert_eq!(decision.plan.outgoing.expect("a part").verdict, Ok(()));
            // By which the status says TokenExpired once it has.
            assert_eq!(decision.token.expect("shown").expires_at, ends);
        }
        // Suspended: no turn is taken.
        world.link.suspend = true;
        assert!(in_line(&mut world).0.asks.is_none());
        world.link.suspend = false;

        // Other scopes: the token that is there isn't the one that is wanted.
        world.goal().scopes = ScopeSet::parse("b").expect("scopes");
        let verdict = in_line(&mut world).0.plan.outgoing.expect("a part").verdict;
        assert_eq!(verdict.expect_err("not as it should be").reason, "Queued");
    }
}

#[test]
fn a_refresh_without_an_answer_is_first_in_line() {
    let mut world = World::new(true, true);
    world.settle().expect("settled");
    world.now += SignedDuration::from_secs(LIFETIME);
    // Stopped after the announcement: nobody knows whether the token was spent.
    assert!(!world.pass(1).0, "it stopped before its end");
    let turn = in_line(&mut world).0.asks.expect("a turn");
    assert!(!turn.new && turn.deadline == Timestamp::UNIX_EPOCH, "{turn:?}");
}

#[test]
fn a_clock_that_is_set_costs_one_request_at_most_and_loses_nothing() {
    let hour = SignedDuration::from_hours(1);
    let ten_years = SignedDuration::from_hours(24 * 365 * 10);
    for step in [hour, -hour, ten_years, -ten_years] {
        for (refresh, rotates) in [(false, false), (true, false), (true, true)] {
            let mut world = World::new(refresh, rotates);
            world.settle().expect("settled");
            let right = world.now;
            for now in [right + step, right + step + hour, right + SignedDuration::from_mins(1)] {
                world.now = now;
                let before = world.requests;
                assert_eq!(world.settle(), Ok(()), "{step} {now}");
                assert!(world.requests <= before + 1, "{step} {now}");
                let token = world.published().expect("a token");
                assert!(token.expires_at > now, "good by the clock as it is");
            }
        }
    }
}

/// Tokens that live for seconds: said as such, published, and asked for every five minutes, also after they
/// ended, after a restart, and whichever grant it is.
#[test]
fn a_token_that_lives_too_short_is_asked_for_every_five_minutes() {
    for (refresh, rotates) in [(false, false), (true, false), (true, true)] {
        for (lifetime, floor, asked, reason) in [
            (2, 10, 13, "TokenLifetimeTooShort"),
            (19, 10, 13, "TokenLifetimeTooShort"),
            // Two thirds of the lifetime, about.
            (20, 10, 250, ""),
            // Twice in its lifetime at most.
            (25, 12, 200, ""),
            (2, 0, 1200, ""),
        ] {
            let mut world = World::new(refresh, rotates);
            world.lifetime = lifetime;
            world.facts().min_refresh_interval = Duration::from_secs(floor);
            let what = format!("{refresh} {rotates} {lifetime} {floor}");
            for second in 0..3601 {
                let said = world.settle().err().map(|p| (p.reason, p.message));
                assert_eq!(said.as_ref().map_or("", |(r, _)| r), reason, "{what} {second}: {said:?}");
                if let Some((_, message)) = said {
                    let values = [
                        format!("expires_in {lifetime},"),
                        format!("every {floor} s"),
                        format!("live {} s", floor * 2),
                    ];
                    assert!(values.iter().all(|v| message.contains(v)), "{message}");
                }
                if second == 7 {
                    world.facts().holder = "another".into();
                }
                assert!(world.published().is_some(), "{what}");
                world.now += SignedDuration::from_secs(1);
            }
            let most = if lifetime == 2 && floor == 0 { 3601 } else { asked * 6 / 5 };
            let range = (asked * 4 / 5).max(1)..=most;
            assert!(range.contains(&world.requests), "{what}: {} requests in an hour", world.requests);
            assert!(reason.is_empty() || world.requests == asked, "{what}: {}", world.requests);
        }
    }
}

/// A refresh that was begun, perhaps by a version that knew no such rule, is finished while the server's grace lasts.
#[test]
fn a_refresh_that_was_begun_waits_for_no_pace() {
    let mut world = World::new(true, true);
    world.lifetime = 2;
    world.settle().expect("well");
    world.now += SignedDuration::from_secs(3);
    // The request goes out, and its answer is lost.
    let (effects, _) = world.decide();
    let sent = effects.iter().position(|e| matches!(e, Effect::RequestToken(_))).expect("a request");
    world.pass(sent + 1).1.expect("so far");
    world.facts().min_refresh_interval = Duration::from_secs(10);
    world.now += SignedDuration::from_secs(1);
    assert!(world.decide().0.iter().any(|e| matches!(e, Effect::RequestToken(_))));
}
