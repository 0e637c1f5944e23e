//! How many events a link may have: a tenant whose provider ends each secret after a second would
//! fill etcd with them. Pure; the clock comes in.

use std::time::{Duration, Instant};

/// So many at once.
const BURST: u32 = 25;
/// And then one in this time.
const REFILL: Duration = Duration::from_secs(60);

/// What is left of a link's events.
#[derive(Debug, Clone, Default)]
pub struct EventBudget {
    spent: u32,
    /// Since when the present refill is counted.
    since: Option<Instant>,
}

impl EventBudget {
    /// Takes one; says whether there was one.
    pub fn take(&mut self, now: Instant) -> bool {
        let since = *self.since.get_or_insert(now);
        let back = now.saturating_duration_since(since).as_secs() / REFILL.as_secs();
        let back = u32::try_from(back).unwrap_or(u32::MAX);
        self.spent = self.spent.saturating_sub(back);
        // What had begun of the next one isn't lost, but where all are there nothing is gathered.
        self.since = Some(if self.spent == 0 { now } else { since + REFILL.saturating_mul(back) });
        let left = self.spent < BURST;
        self.spent += u32::from(left);
        left
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn after_a_burst_there_is_one_a_minute() {
        let start = Instant::now();
        let mut budget = EventBudget::default();
        let taken = |b: &mut EventBudget, at: u64, n: usize| {
            (0..n).filter(|_| b.take(start + Duration::from_secs(at))).count()
        };
        assert_eq!(taken(&mut budget, 0, 1000), 25);
        assert_eq!(taken(&mut budget, 59, 10), 0);
        assert_eq!(taken(&mut budget, 90, 10), 1);
        assert_eq!(taken(&mut budget, 119, 10), 0);
        assert_eq!(taken(&mut budget, 120, 10), 1);
        // An hour of one a second, and a long rest.
        let hour: usize = (121..3721).map(|at| taken(&mut budget, at, 1)).sum();
        assert_eq!(hour, 60);
        assert_eq!(taken(&mut budget, 100_000, 1000), 25);
    }
}
