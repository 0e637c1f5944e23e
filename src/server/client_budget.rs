//! What one client that acts for itself is issued: so many tokens a second, and about so many that are kept at a time. Without
//! this a client that asks without end fills the disk for all.

use super::store::{Store, StoreError};
use crate::domain::ClientId;
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::time::Instant;

/// How many tokens may come at once after a rest, in seconds of the rate.
const BURST_SECONDS: u32 = 10;

/// For how long a client that has too many tokens isn't looked at again.
const FULL: Duration = Duration::from_secs(10);

/// How long a count of a client's tokens is good for, at least: counting reads them all.
const COUNTED: Duration = Duration::from_secs(1);

/// So many clients are known before those that nothing needs to be known of are forgotten.
const KNOWN: usize = 10_000;

/// What one client may cost.
#[derive(Debug, Clone, Copy)]
pub struct ClientLimits {
    /// Tokens a second, on average.
    pub tokens_per_second: NonZeroU32,
    /// Access tokens that are kept: those that haven't ended, and for a minute at most those that have.
    pub live_tokens: u32,
}

impl Default for ClientLimits {
    fn default() -> Self {
        Self { tokens_per_second: NonZeroU32::new(50).unwrap_or(NonZeroU32::MIN), live_tokens: 100_000 }
    }
}

/// What is known of a client's live tokens.
#[derive(Debug, Clone, Copy)]
struct Live {
    /// About so many at most: those that were counted, and those that were issued since that began.
    at_most: u32,
    /// When they were counted, or that was begun.
    counted: Instant,
    refused_until: Option<Instant>,
}

/// Who was issued how much lately.
#[derive(Debug)]
pub struct ClientBudget {
    limits: ClientLimits,
    rate: RateLimiter<ClientId, HashMapStateStore<ClientId>, DefaultClock>,
    live: Mutex<HashMap<ClientId, Live>>,
}

impl ClientBudget {
    /// Nobody was issued anything.
    pub fn new(limits: ClientLimits) -> Self {
        let burst = limits
            .tokens_per_second
            .saturating_mul(NonZeroU32::new(BURST_SECONDS).unwrap_or(NonZeroU32::MIN));
        let quota = Quota::per_second(limits.tokens_per_second).allow_burst(burst);
        Self { limits, rate: RateLimiter::hashmap(quota), live: Mutex::default() }
    }

    /// Counts a token that a client, which has authenticated, is about to be issued. `Some`: it isn't; it may ask again
    /// after this time.
    ///
    /// # Errors
    /// [`StoreError`] when its tokens can't be counted.
    pub async fn take(&self, store: &Store, client: &ClientId) -> Result<Option<Duration>, StoreError> {
        if let Err(early) = self.rate.check_key(client) {
            return Ok(Some(early.wait_time_from(DefaultClock::default().now())));
        }
        if let Some(known) = self.take_known(client) {
            return Ok(known);
        }
        // The bound is reached, or there is none yet; many of the tokens that it counted may have ended.
        let live = match store.live_tokens(client, self.limits.live_tokens).await {
            Ok(live) => live,
            Err(error) => {
                // Who comes next counts.
                self.all().remove(client);
                return Err(error);
            }
        };
        let is_full = live >= self.limits.live_tokens;
        let mut all = self.all();
        let known = all.entry(client.clone()).or_insert(Live {
            at_most: 0,
            counted: Instant::now(),
            refused_until: None,
        });
        // Others were issued some while this was counted.
        known.at_most = known.at_most.saturating_add(live).saturating_add(1);
        known.refused_until = is_full.then(|| Instant::now() + FULL);
        Ok(is_full.then_some(FULL))
    }

    fn all(&self) -> MutexGuard<'_, HashMap<ClientId, Live>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The same by what is known; `None` where the store must be asked.
    fn take_known(&self, client: &ClientId) -> Option<Option<Duration>> {
        let mut all = self.all();
        let now = Instant::now();
        let Some(live) = all.get_mut(client) else {
            // Whoever comes while this one counts adds to it.
            all.insert(client.clone(), Live { at_most: 0, counted: now, refused_until: None });
            return None;
        };
        if let Some(until) = live.refused_until.filter(|until| *until > now) {
            return Some(Some(until - now));
        }
        if live.at_most >= self.limits.live_tokens {
            if now.duration_since(live.counted) < COUNTED {
                return Some(Some(COUNTED));
            }
            (live.at_most, live.counted) = (0, now);
            return None;
        }
        live.at_most += 1;
        Some(None)
    }

    /// Forgets what needs not be known: a client that comes back is counted anew.
    pub fn forget(&self) {
        self.rate.retain_recent();
        let mut all = self.all();
        if all.len() > KNOWN {
            let now = Instant::now();
            all.retain(|_, live| live.refused_until.is_some_and(|until| until > now));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::store::testing::{at, client, store};
    use super::*;
    use crate::domain::{GrantType, ScopeSet};
    use crate::server::random::TokenHash;
    use crate::server::store::AccessToken;
    use secrecy::SecretString;

    fn limits(rate: u32, live: u32) -> ClientLimits {
        ClientLimits { tokens_per_second: NonZeroU32::new(rate).expect("a rate"), live_tokens: live }
    }

    #[tokio::test]
    async fn each_client_has_a_rate_of_its_own() {
        let (_dir, store) = store().await;
        let budget = ClientBudget::new(limits(1, 1000));
        let (a, b) = (client("a").id, client("b").id);
        for _ in 0..BURST_SECONDS {
            assert_eq!(budget.take(&store, &a).await.expect("asked"), None);
        }
        let wait = budget.take(&store, &a).await.expect("asked").expect("too many");
        assert!(wait <= Duration::from_secs(1), "{wait:?}");
        assert_eq!(budget.take(&store, &b).await.expect("asked"), None);
    }

    #[tokio::test]
    async fn a_client_gets_no_more_tokens_than_may_live() {
        let (_dir, store) = store().await;
        let c = client("c");
        store.insert(&c, None).await.expect("stored");
        let token = |name: String| AccessToken {
            hash: TokenHash::of(&SecretString::from(name)),
            grant_type: GrantType::ClientCredentials,
            scopes: ScopeSet::default(),
            issued_at: at(0),
            expires_at: at(60),
        };
        for i in 0..3 {
            store.add_access(&c, &token(i.to_string())).await.expect("stored");
        }
        // One that was just started counts what is there.
        let budget = ClientBudget::new(limits(100, 5));
        for i in 3..5 {
            assert_eq!(budget.take(&store, &c.id).await.expect("asked"), None, "{i}");
            store.add_access(&c, &token(i.to_string())).await.expect("stored");
        }
        // It was counted a moment ago; a second later it is counted anew.
        assert_eq!(budget.take(&store, &c.id).await.expect("asked"), Some(COUNTED));
        let later = Instant::now().checked_sub(FULL).expect("it was before");
        let counted_then = Live { at_most: 5, counted: later, refused_until: None };
        budget.all().insert(c.id.clone(), counted_then);
        assert_eq!(budget.take(&store, &c.id).await.expect("asked"), Some(FULL));
        // Some end, and it is looked at again after a while.
        store.sweep(at(61), Duration::ZERO).await.expect("swept");
        assert!(budget.take(&store, &c.id).await.expect("asked").is_some_and(|wait| wait <= FULL));
        budget.all().insert(c.id.clone(), counted_then);
        assert_eq!(budget.take(&store, &c.id).await.expect("asked"), None);
    }
}
