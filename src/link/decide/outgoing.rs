//! The outgoing part: a token got, kept, refreshed before it ends, and published. Which grant it comes
//! of is in [`mod@held`], the Secret in [`mod@publish`].

mod held;
mod pace;
mod publish;

pub use held::consented_grant;
pub(in crate::link) use held::how_to_read;
pub use pace::too_short;
pub use publish::{over_of, publish, published, token_secret};

use super::renewal::{self, unrenewed};
use super::{Effect, Part, consent, hosts, writable};
use crate::domain::keyring::digest_hex;
use crate::domain::text::listed;
use crate::domain::{Account, KeyRing, Reason, ScopeSet};
use crate::link::consent::Stranger;
use crate::link::facts::{Observed, OutgoingFacts, Refused, SecretFact};
use crate::link::grant::{Access, BEGUN_ELSEWHERE, Binding, Grant, Intent};
use crate::link::plan::TokenPlan;
use crate::link::problem::{Mend, Problem};
use crate::link::turns::Turn;
use crate::link::validate::OutgoingGoal;
use crate::outgoing::{Grace, next_refresh};
use held::{asker, bind, fingerprint, held, how_to_connect, way_out};
use jiff::Timestamp;
use pace::paced;
use publish::publication;
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

/// The published token, for the status and the schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token {
    /// When it was got.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// When the next one is asked for.
    pub next_refresh: Timestamp,
}

/// Who connected a link, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connected {
    /// Whose grant it is, where the server said it.
    pub account: Option<Account>,
    /// When it became active.
    pub at: Timestamp,
    /// Why a person must consent again at the end of the token, and what to do against that.
    pub unrenewed: Option<String>,
}

/// What was decided of an outgoing part.
#[derive(Debug)]
pub(super) struct Decided {
    pub part: Part,
    /// The token that is published.
    pub token: Option<Token>,
    /// Who connected the link, for the status.
    pub connected: Option<Connected>,
    /// Whether the Secret holds the newest token of the grant, and it is good: a refresh that fails takes
    /// nothing away.
    pub in_place: bool,
    /// When a consent under way is over.
    pub wake: Option<Timestamp>,
    /// The token request that is due.
    pub asks: Option<Turn>,
}

/// What keeping a grant's token comes to.
struct Upkeep {
    part: Part,
    token: Option<Token>,
    in_place: bool,
    asks: Option<Turn>,
    /// When something else is said of it.
    wake: Option<Timestamp>,
}

impl Upkeep {
    fn new(part: Part, token: Option<Token>) -> Self {
        Self { part, token, in_place: false, asks: None, wake: None }
    }
}

pub(super) fn decide(
    goal: &OutgoingGoal,
    suspended: bool,
    seen: &Observed,
    facts: &OutgoingFacts,
    keys: &KeyRing,
    now: Timestamp,
) -> Decided {
    let mut effects = Vec::new();
    let mut wake = None;
    let mut active = seen.grant.clone().map(|(grant, version)| (grant, Some(version)));
    if let Ok(asker) = asker(goal, facts) {
        let bound = |grant: &Grant| match &facts.endpoints {
            Ok(endpoints) => grant.binding == Binding::new(endpoints, &asker.name),
            Err(_) => true,
        };
        match consent::step(seen, |grant| goal.grant.asks_a_person() && bound(grant), now) {
            consent::Step::Wait(until) => wake = until,
            consent::Step::Drop => consent::drop(seen, consent::GiveBack::Apart, &mut effects),
            consent::Step::Activate(mut grant, record) => {
                let fingerprint = fingerprint(keys, goal, &grant, &asker);
                if let Some(access) = &mut grant.access {
                    access.fingerprint = fingerprint;
                }
                let before = active.as_ref().and_then(|(before, _)| replaced(before, &grant));
                let version = active.and_then(|(_, version)| version);
                effects.push(Effect::SaveGrant(grant.clone(), version.clone()));
                effects.push(Effect::DropConsent(record));
                effects.extend(before);
                active = Some((*grant, version));
            }
        }
    }
    // A consent that is begun after this pass is over at the same time as its ticket.
    let open = seen.ticket.as_ref().filter(|t| goal.grant.asks_a_person() && t.is_open(now));
    let wake = wake.into_iter().chain(open.map(|t| t.expires_at)).min();
    let grant = active.as_ref().map(|(grant, _)| grant.clone());
    let Upkeep { mut part, token, in_place, asks, wake: said } =
        keep(goal, suspended, seen, facts, active, keys, now);
    let wake = wake.into_iter().chain(said).min();
    part.effects.splice(0..0, effects);
    if let (Ok(()), Some(grant)) = (&part.verdict, &grant) {
        part.verdict = expected(goal, seen, grant).and_then(|()| consented(goal, seen, grant));
    }
    let connected = grant.filter(|_| goal.grant.asks_a_person()).and_then(|grant| {
        let unrenewed =
            unrenewed(goal, &grant).map(|why| format!("{why}, then run: {}", how_to_connect(seen)));
        Some(Connected { at: grant.connected_at?, account: grant.account, unrenewed })
    });
    Decided { part, token, connected, in_place, wake, asks }
}

/// The grant that there was, to be given back, where that doesn't end the new one: of another account, client or
/// server. That of the same account is left to end by itself: nobody has its token any more.
fn replaced(before: &Grant, new: &Grant) -> Option<Effect> {
    (before.refresh_token.is_some() && before.dead.is_none() && !before.may_be_one_with(new))
        .then(|| Effect::GiveBack(Box::new(before.clone())))
}

/// Whether it is the account that the link names: the name may be younger than the grant.
fn expected(goal: &OutgoingGoal, seen: &Observed, grant: &Grant) -> Result<(), Problem> {
    let Some(wanted) = goal.grant.expected() else { return Ok(()) };
    Stranger::check(Some(wanted), grant.account.as_ref()).map_err(|why| {
        Problem::edit(
            Reason::OtherAccount,
            format!(
                "expectedAccount is {:?}, and of the grant in hand {why}; run: {}",
                wanted.subject,
                how_to_connect(seen)
            ),
        )
    })
}

/// Whether a person consented to all that is asked for. What they did consent to is kept fresh.
fn consented(goal: &OutgoingGoal, seen: &Observed, grant: &Grant) -> Result<(), Problem> {
    let Some(requested) = grant.requested.as_deref().filter(|_| goal.grant.asks_a_person()) else {
        return Ok(());
    };
    let requested: BTreeSet<_> = requested.split(' ').collect();
    let missing: Vec<_> = goal.scopes.iter().map(|s| s.as_str()).filter(|s| !requested.contains(s)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(Problem::edit(
        Reason::ScopesNotConsented,
        format!(
            "the person that connected the link wasn't asked for {}; what was consented to is kept fresh; to ask for all, \
             run: {}",
            listed(missing),
            how_to_connect(seen)
        ),
    ))
}

/// Keeps the token of a grant fresh, and publishes it.
fn keep(
    goal: &OutgoingGoal,
    suspended: bool,
    seen: &Observed,
    facts: &OutgoingFacts,
    active: Option<(Grant, Option<String>)>,
    keys: &KeyRing,
    now: Timestamp,
) -> Upkeep {
    let published = match &facts.secret {
        SecretFact::Own(own) => published(own, goal, keys),
        _ => None,
    };
    let token = |a: &Access| token_view(goal, &seen.uid, a, facts.min_refresh_interval);
    let shown = published.as_ref().map(token);
    let blocked = |problem: Problem| Upkeep::new(Part::blocked(problem), shown);

    let own = match writable(&facts.secret, &goal.secret) {
        Ok(own) => own,
        Err(problem) => return blocked(problem),
    };
    let asker = match asker(goal, facts) {
        Ok(asker) => asker,
        Err(problem) => return blocked(problem),
    };
    let mut part = Part::settled();
    let (grant, version) = match held(goal, seen, facts, active, &asker) {
        Ok(held) => held,
        Err(problem) => return blocked(problem),
    };
    let fingerprint = fingerprint(keys, goal, &grant, &asker);
    // The newer of what was kept and what was published, if it was got with the same request.
    let current = grant
        .access
        .iter()
        .chain(&published)
        .chain(&facts.in_hand)
        .filter(|a| a.fingerprint == fingerprint && a.expires_at > now)
        .max_by_key(|a| a.issued_at)
        .cloned();
    // Without a refresh token there is nothing to do before a person must consent again.
    let at_its_end = goal.grant.asks_a_person() && grant.refresh_token.is_none();
    let due = current
        .as_ref()
        .is_none_or(|a| !at_its_end && (token(a).next_refresh <= now || a.issued_at > after(now)));
    let short =
        |access: &Access| too_short(access, facts.min_refresh_interval).filter(|_| !at_its_end && !suspended);
    let stay = |access: &Access| match publish(goal, seen, own, access, keys) {
        Ok(effect) => {
            let verdict = short(access).map_or(Ok(()), Err);
            let part = Part { effects: effect.into_iter().collect(), verdict, ..Part::settled() };
            Upkeep::new(part, Some(token(access)))
        }
        Err(problem) => blocked(problem),
    };
    if let Some(access) = current.as_ref().filter(|_| !due || suspended) {
        return stay(access);
    }
    // One that lives too short has ended long before the next one is asked for. A refresh that was begun
    // is finished all the same.
    let all = grant.access.iter().chain(&published).filter(|a| a.fingerprint == fingerprint);
    if let Some(last) = all.max_by_key(|a| a.issued_at)
        && last.issued_at <= after(now)
        && token(last).next_refresh > now
        && grant.intent.is_none()
        && let Some(problem) = short(last)
    {
        return blocked(problem);
    }

    // A refresh that another instance began, or whose answer was lost, may have ended the token that is
    // published; a later answer to another try says nothing of that.
    let begun_elsewhere = grant.intent.as_ref().is_some_and(|i| i.holder != facts.holder);
    let doubt = (facts.doubt || begun_elsewhere) && goal.grant.refreshes() && goal.server.preset.ends_token;
    let in_place = current.as_ref().is_some_and(|access| {
        !doubt && published.as_ref() == Some(access) && stay(access).part.effects.is_empty()
    });
    let blocked = |problem: Problem| Upkeep { in_place, ..blocked(problem) };
    // Nothing is asked for while the link is suspended; that the token has ended is said as such.
    if suspended && published.as_ref().is_some_and(|a| a.expires_at <= now) {
        return Upkeep::new(part, shown);
    }
    // A request is due. Everything that it needs must be there, and nothing may have changed.
    if let Some(code) = &grant.dead {
        return blocked(Problem::dead_grant(code, &way_out(goal, seen)));
    }
    if at_its_end {
        return blocked(Problem::edit(
            Reason::ReauthorizationRequired,
            format!(
                "the access token has ended and the server gave no refresh token with it; {}, then run: {}",
                renewal::way_out(goal),
                how_to_connect(seen)
            ),
        ));
    }
    let in_force = |r: &&Refused| r.fingerprint == fingerprint && r.until.is_none_or(|until| until > now);
    if let Some(Refused { problem, until, stalls, .. }) = facts.refused.as_ref().filter(in_force) {
        let left = until.and_then(|until| Duration::try_from(until.duration_since(now)).ok());
        let mend = if stalls.is_some_and(|at| at <= now) { Mend::Edit } else { problem.mend };
        let problem = Problem { mend, retry_after: left.or(problem.retry_after), ..problem.clone() };
        return Upkeep { wake: stalls.filter(|at| *at > now), ..blocked(problem) };
    }
    if let Some(problem) = begun_elsewhere_lately(goal, facts, &grant, now) {
        return blocked(problem);
    }
    let endpoints = match &facts.endpoints {
        Ok(endpoints) => endpoints,
        Err(problem) => return blocked(problem.clone()),
    };
    if let Err(problem) = hosts::check(goal, &facts.inputs, facts.require_allowed_hosts, endpoints) {
        return blocked(problem);
    }
    let mut grant = grant;
    // One that was just made isn't bound yet.
    let new = grant.spec_digest.is_empty();
    let save = match bind(goal, seen, &mut grant, version.is_none(), endpoints, &asker) {
        Ok(save) => save,
        Err(problem) => return blocked(problem),
    };
    let asks = Some(turn(&endpoints.token_endpoint, &grant, published.as_ref()));
    if facts.in_line {
        let ended = published.as_ref().is_some_and(|a| a.fingerprint == fingerprint);
        let decided = match &current {
            Some(access) if !doubt => stay(access),
            // The status says by itself that the token has ended; the grant is as it was.
            None if ended => Upkeep::new(Part::settled(), shown),
            _ => blocked(queued(&endpoints.token_endpoint)),
        };
        return Upkeep { asks, ..decided };
    }
    let announce = grant.announces() && grant.intent.as_ref().is_none_or(|i| i.holder != facts.holder);
    if save {
        // One write says both: what the grant is bound to, and that a refresh is underway.
        if announce {
            grant.intent = Some(Intent { holder: facts.holder.clone(), at: now });
        }
        part.effects.push(Effect::SaveGrant(Box::new(grant.clone()), version));
        part.effects
            .extend(seen.grant.as_ref().filter(|_| new).and_then(|(before, _)| replaced(before, &grant)));
    } else if announce {
        part.effects.push(Effect::BeginRefresh(facts.holder.clone()));
    }
    part.effects.push(Effect::RequestToken(Box::new(TokenPlan {
        endpoint: endpoints.token_endpoint.clone(),
        client: asker.client.cloned(),
        // What a person consented to is what is refreshed.
        scopes: if goal.grant.asks_a_person() { ScopeSet::default() } else { goal.scopes.clone() },
        by: asker.by,
        dialect: goal.server.preset.dialect,
        grace: goal.server.preset.grace,
        fingerprint,
        way_out: way_out(goal, seen),
    })));
    if grant.refresh_token.is_some() {
        part.effects.push(Effect::KeepReply);
    }
    part.effects.push(Effect::PublishToken(Box::new(publication(goal, seen, own, None))));
    Upkeep { part, token: shown, in_place, asks, wake: None }
}

/// A refresh token that another instance spends, or spent a moment ago, isn't spent once more before that
/// one had the time to store what it got: a server may take the second try for a theft. One whose servers
/// go on taking a spent token needs no such care.
fn begun_elsewhere_lately(
    goal: &OutgoingGoal,
    facts: &OutgoingFacts,
    grant: &Grant,
    now: Timestamp,
) -> Option<Problem> {
    let intent = grant.intent.as_ref().filter(|i| i.holder != facts.holder)?;
    if !facts.before.may_have_begun(&intent.holder)
        || grant.refresh_token.is_none()
        || goal.server.preset.grace == Grace::Lasting
    {
        return None;
    }
    let age = Duration::try_from(now.duration_since(intent.at)).unwrap_or_default();
    let left = BEGUN_ELSEWHERE.checked_sub(age).filter(|left| !left.is_zero())?;
    Some(Problem {
        retry_after: Some(left),
        ..Problem::wait(
            Reason::RefreshBegunElsewhere,
            format!(
                "the instance of the operator that was at work before began a refresh {} s ago and may be storing the \
                 answer still; the refresh token isn't used for {} s more",
                age.as_secs(),
                left.as_secs()
            ),
        )
    })
}

/// A token as status and schedule see it. `floor`: the least time between two refreshes.
pub fn token_view(goal: &OutgoingGoal, link_uid: &str, access: &Access, floor: Duration) -> Token {
    let due = next_refresh(access.issued_at, access.expires_at, goal.refresh, jitter(link_uid));
    Token {
        issued_at: access.issued_at,
        expires_at: access.expires_at,
        next_refresh: paced(access, due, floor),
    }
}

/// The place of a request in the line of its host.
fn turn(endpoint: &Url, grant: &Grant, published: Option<&Access>) -> Turn {
    let ends = grant.access.iter().chain(published).map(|a| a.expires_at).max();
    // A refresh without an answer is repeated while the server's grace lasts: nobody is in a greater hurry.
    let unresolved = grant.intent.is_some() && grant.refresh_token.is_some();
    Turn {
        host: host_and_port(endpoint),
        client: grant.binding.client_id.clone(),
        new: ends.is_none() && !unresolved,
        deadline: ends.filter(|_| !unresolved).unwrap_or(Timestamp::UNIX_EPOCH),
    }
}

/// Whom a token request goes to, as its budget knows it.
pub fn host_and_port(endpoint: &Url) -> String {
    format!(
        "{}:{}",
        endpoint.host_str().unwrap_or_default(),
        endpoint.port_or_known_default().unwrap_or_default()
    )
}

fn queued(endpoint: &Url) -> Problem {
    Problem::wait(
        Reason::Queued,
        format!(
            "more links ask {} for a token than it is sent at a time, it told this client to wait, or the namespace's requests \
             are many while others wait; this one's turn comes by itself",
            host_and_port(endpoint)
        ),
    )
}

/// Timestamps of the future come from a clock that was set back; more than this isn't drift.
fn after(now: Timestamp) -> Timestamp {
    now.saturating_add(jiff::SignedDuration::from_mins(5)).unwrap_or(Timestamp::MAX)
}

/// A number of its own for each link, the same after a restart.
fn jitter(uid: &str) -> u64 {
    let digest = digest_hex(uid);
    u64::from_str_radix(digest.get(..16).unwrap_or_default(), 16).unwrap_or_default()
}
