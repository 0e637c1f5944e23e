//! A consent that takes the place of another one, and one that is dropped: what is given back, and what is told apart.

use super::outgoing_world::{World, endpoints};
use super::{Goal, consented_grant, decide};
use crate::domain::{Account, TokenReply};
use crate::link::consent::{Consent, Purpose, Stage, Ticket, digest};
use crate::link::grant::{Access, Grant, Kept, LinkRef};
use crate::link::plan::Effect;
use crate::link::validate::GrantGoal;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use url::Url;

/// A link that people connect, at a server with revocation.
fn world() -> World {
    let mut world = World::new(false, false);
    world.goal().grant = GrantGoal::AuthorizationCode { parameters: BTreeMap::new(), expected: None };
    let mut there = endpoints("token");
    there.revocation_endpoint = Some(Url::parse("https://as.example/revoke").expect("a URL"));
    world.facts().endpoints = Ok(there);
    world
}

/// Somebody granted, with this ticket; `None`: the server doesn't say who.
fn granted(world: &mut World, ticket: &str, who: Option<&str>) {
    let goal = world.goal().clone();
    let facts = world.facts().clone();
    let (there, client) = (facts.endpoints.expect("endpoints"), facts.client.expect("a client"));
    let link = LinkRef { namespace: "team".into(), name: "link".into(), uid: "u".into() };
    let mut grant = consented_grant(&goal, link.clone(), &there, &client.expect("a client"));
    let reply = TokenReply {
        access_token: format!("at-{ticket}").into(),
        token_type: "Bearer".into(),
        lifetime: crate::domain::Lifetime::from_secs(3600),
        refresh_token: Some(format!("rt-{ticket}").into()),
        scopes: None,
        id_token: None,
        account: None,
    };
    grant.refresh_token = reply.refresh_token.clone().map(Kept);
    grant.access = Some(Access::consented(&reply, world.now, &goal.scopes));
    grant.account = who.and_then(|who| Account::new("https://as.example", who));
    let expires_at = world.now + SignedDuration::from_mins(10);
    let completion = digest(Purpose::Completion, "AB12");
    let stage = Stage::Granted { completion };
    let consent = Consent { version: 1, link, ticket: ticket.into(), expires_at, grant, stage };
    world.seen.consent = Some((consent, "1".into()));
    world.seen.ticket = Some(Ticket { ticket: ticket.into(), expires_at, port: None });
    world.seen.completion = Some("AB12".into());
}

/// What a pass does about the consent: the grant that becomes active, when, and what is revoked.
fn outcome(world: &mut World) -> (Option<Timestamp>, Vec<String>) {
    let decision = decide(&Goal::Present(Box::new(world.link.clone())), &world.seen, world.now);
    let token = |grant: &Grant| {
        use crate::domain::ExposeSecret as _;
        grant.refresh_token.as_ref().map(|t| t.0.expose_secret().to_owned()).unwrap_or_default()
    };
    let mut revoked = Vec::new();
    for effect in decision.plan.effects() {
        match effect {
            Effect::SaveGrant(grant, _) => world.seen.grant = Some(((**grant).clone(), "2".into())),
            Effect::GiveBack(grant) | Effect::Revoke(grant) => revoked.push(token(grant)),
            Effect::DropConsent(_) => world.seen.consent = None,
            _ => {}
        }
    }
    (decision.connected.map(|c| c.at), revoked)
}

#[test]
fn two_consents_within_a_second_are_told_apart() {
    let mut world = world();
    granted(&mut world, "one", Some("ann"));
    let (first, _) = outcome(&mut world);
    granted(&mut world, "two", Some("ann"));
    let (second, _) = outcome(&mut world);
    assert!(second > first && first.is_some(), "{first:?} {second:?}");
}

#[test]
fn what_another_consent_takes_the_place_of_is_given_back_where_it_is_apart() {
    for (who, next, given_back) in [
        (Some("ann"), Some("bob"), true),
        (Some("ann"), Some("ann"), false),
        (Some("ann"), None, false),
        (None, Some("ann"), false),
    ] {
        let mut world = world();
        granted(&mut world, "one", who);
        assert_eq!(outcome(&mut world).1, [""; 0], "nothing was there before");
        granted(&mut world, "two", next);
        let revoked = outcome(&mut world).1;
        assert_eq!(revoked, if given_back { vec!["rt-one"] } else { vec![] }, "{who:?} {next:?}");
    }
}

#[test]
fn a_consent_that_is_dropped_ends_no_grant_in_hand() {
    for (held, who, given_back) in [
        (None, Some("ann"), true),
        (None, None, true),
        (Some("ann"), Some("bob"), true),
        (Some("ann"), Some("ann"), false),
        (Some("ann"), None, false),
    ] {
        let mut world = world();
        if held.is_some() {
            granted(&mut world, "one", held);
            outcome(&mut world);
        }
        granted(&mut world, "two", who);
        // Nobody gave the code back in time.
        world.seen.completion = None;
        world.now += SignedDuration::from_mins(11);
        let revoked = outcome(&mut world).1;
        assert_eq!(revoked, if given_back { vec!["rt-two"] } else { vec![] }, "{held:?} {who:?}");
        assert!(world.seen.consent.is_none(), "its record goes in any case");
    }
}
