//! How often a provider is asked for changes, and what the providers of one namespace may cost together. The clock
//! of the rate is the only one here.

use governor::clock::{Clock as _, DefaultClock};
use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use std::num::NonZeroU32;
use std::time::Duration;
use tokio::sync::{Semaphore, SemaphorePermit};

/// What asking a provider came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// Nothing changed.
    Nothing,
    /// It named clients.
    Changes,
    /// It said that something may have been missed.
    Gap,
    /// It didn't answer, or not as it should.
    Failed,
}

/// The pause before a provider is asked again. It grows while the provider fails, or is never at rest: each of its
/// answers makes links look again.
#[derive(Debug)]
pub(super) struct Pause {
    of_a_tenant: bool,
    next: Duration,
}

impl Pause {
    /// Also where an answer is there at once each time.
    const SHORTEST: Duration = Duration::from_secs(1);
    /// What the platform team's service says is wanted soon.
    const LONGEST_OF_PLATFORM: Duration = Duration::from_secs(5);
    const LONGEST_OF_TENANT: Duration = Duration::from_secs(60);

    pub(super) fn new(of_a_tenant: bool) -> Self {
        Self { of_a_tenant, next: Self::SHORTEST }
    }

    /// The pause after this.
    pub(super) fn after(&mut self, asked: Asked) -> Duration {
        let grows = match asked {
            Asked::Nothing => false,
            Asked::Changes => self.of_a_tenant,
            Asked::Gap | Asked::Failed => true,
        };
        let longest = if self.of_a_tenant { Self::LONGEST_OF_TENANT } else { Self::LONGEST_OF_PLATFORM };
        if !grows {
            self.next = (self.next / 2).max(Self::SHORTEST);
            return self.next;
        }
        let pause = self.next;
        self.next = (pause * 2).min(longest);
        pause
    }
}

/// What the providers of one namespace may cost together, however many there are.
pub(super) struct Share {
    asked_at_once: Semaphore,
    wakes: DefaultDirectRateLimiter,
}

impl Default for Share {
    fn default() -> Self {
        let burst = NonZeroU32::new(Self::BURST).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::with_period(Self::EVERY).unwrap_or(Quota::per_minute(NonZeroU32::MIN));
        Self {
            asked_at_once: Semaphore::new(Self::AT_ONCE),
            wakes: RateLimiter::direct(quota.allow_burst(burst)),
        }
    }
}

impl Share {
    /// So many are asked at the same time: each may take half a minute, and a reply that is kept till its end.
    pub(super) const AT_ONCE: usize = 8;
    /// How often answers make links look again.
    const EVERY: Duration = Duration::from_secs(10);
    /// So many may do so at once after a rest.
    const BURST: u32 = 10;

    /// Waits until another one may be asked.
    pub(super) async fn place(&self) -> Option<SemaphorePermit<'_>> {
        // It is never closed.
        self.asked_at_once.acquire().await.ok()
    }

    /// How long it is until links may look again; `None`: now, and that is counted.
    fn wait(&self) -> Option<Duration> {
        self.wakes.check().err().map(|early| early.wait_time_from(DefaultClock::default().now()))
    }

    /// Waits until links may look again.
    pub(super) async fn may_wake(&self) {
        while let Some(wait) = self.wait() {
            tokio::time::sleep(wait).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_or_is_never_at_rest_is_asked_ever_less_often() {
        use Asked::{Changes, Failed, Gap, Nothing};
        for (of_a_tenant, asked, wanted) in [
            (true, [Gap; 8], [1, 2, 4, 8, 16, 32, 60, 60]),
            (true, [Failed; 8], [1, 2, 4, 8, 16, 32, 60, 60]),
            (true, [Changes; 8], [1, 2, 4, 8, 16, 32, 60, 60]),
            (true, [Nothing; 8], [1; 8]),
            (true, [Gap, Gap, Gap, Nothing, Nothing, Nothing, Gap, Gap], [1, 2, 4, 4, 2, 1, 1, 2]),
            (false, [Gap; 8], [1, 2, 4, 5, 5, 5, 5, 5]),
            (false, [Failed; 8], [1, 2, 4, 5, 5, 5, 5, 5]),
            (false, [Changes; 8], [1; 8]),
        ] {
            let mut pause = Pause::new(of_a_tenant);
            let got = asked.map(|a| pause.after(a).as_secs());
            assert_eq!(got, wanted, "{of_a_tenant} {asked:?}");
        }
    }

    #[tokio::test]
    async fn the_providers_of_a_namespace_share_places_and_wakes() {
        let share = Share::default();
        let mut places = Vec::new();
        for _ in 0..Share::AT_ONCE {
            places.push(share.place().await.expect("a place"));
        }
        assert!(futures::FutureExt::now_or_never(share.place()).is_none());
        places.pop();
        assert!(futures::FutureExt::now_or_never(share.place()).is_some());
        let waits: Vec<_> = (0..=Share::BURST).map(|_| share.wait()).collect();
        assert!(waits[..10].iter().all(Option::is_none), "{waits:?}");
        assert!(waits[10].is_some_and(|w| w <= Share::EVERY), "{waits:?}");
    }
}
