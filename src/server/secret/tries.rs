//! How often somebody may try a chosen secret of one client: each try costs Argon2, and is a guess.
//!
//! It is counted by client and address. So who tries wrong ones elsewhere locks nobody out; and a right one, which is
//! remembered ([`super::known`]), isn't counted again.

use super::Who;
use governor::clock::{Clock as _, DefaultClock};
use governor::state::keyed::HashMapStateStore;
use governor::{Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;

/// So many at once after a rest: more than a client that was misconfigured needs to be seen, and few to guess with.
const AT_ONCE: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// After that one each so often.
const EVERY: Duration = Duration::from_secs(3);

/// Who tried how much lately.
pub struct Tries(Option<RateLimiter<Who, HashMapStateStore<Who>, DefaultClock>>);

impl Tries {
    /// Nobody tried anything.
    pub fn none() -> Self {
        // There is none for a period of no time alone.
        Self(Quota::with_period(EVERY).map(|quota| RateLimiter::hashmap(quota.allow_burst(AT_ONCE))))
    }

    /// Counts a try.
    ///
    /// # Errors
    /// How long to wait for the next one, when there were too many.
    pub fn take(&self, who: &Who) -> Result<(), Duration> {
        let Some(limiter) = &self.0 else { return Ok(()) };
        limiter.check_key(who).map_err(|early| early.wait_time_from(DefaultClock::default().now()))
    }

    /// Forgets whoever may try as often as somebody who never did.
    pub fn forget(&self) {
        if let Some(limiter) = &self.0 {
            limiter.retain_recent();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_client_and_address_has_tries_of_its_own() {
        let tries = Tries::none();
        let who = Who::testing("c");
        for _ in 0..AT_ONCE.get() {
            tries.take(&who).expect("a try");
        }
        let wait = tries.take(&who).expect_err("too many");
        assert!(wait <= EVERY, "{wait:?}");
        tries.take(&Who::testing("d")).expect("another client");
        let address = "203.0.113.7".parse().ok();
        tries.take(&Who { address, ..who.clone() }).expect("another address");
        tries.forget();
        assert!(tries.take(&who).is_err());
    }
}
