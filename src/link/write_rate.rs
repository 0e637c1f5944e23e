//! How much the API server is written to, by the whole operator: where that is more than a limit, a namespace's
//! token requests keep to its budget ([`super::turns`]), since each brings writes with it. Pure but for the lock:
//! the clock comes in.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Over how long writes are counted.
const WINDOW: Duration = Duration::from_secs(2);

/// The writes of late, and how many are too many; a handle to share.
#[derive(Debug, Clone)]
pub struct WriteRate(Arc<Mutex<Counts>>);

#[derive(Debug)]
struct Counts {
    most: u32,
    /// When the present window began, the writes in it, and those in the one before.
    began: Option<Instant>,
    present: u32,
    before: u32,
}

impl Counts {
    fn turn(&mut self, now: Instant) -> Duration {
        let began = *self.began.get_or_insert(now);
        let passed = now.saturating_duration_since(began);
        if passed < WINDOW {
            return passed;
        }
        self.before = if passed < 2 * WINDOW { self.present } else { 0 };
        self.present = 0;
        self.began = Some(if passed < 2 * WINDOW { began + WINDOW } else { now });
        if passed < 2 * WINDOW { passed - WINDOW } else { Duration::ZERO }
    }
}

impl WriteRate {
    /// More than `most` a second are too many.
    pub fn new(most: u32) -> Self {
        Self(Arc::new(Mutex::new(Counts { most, began: None, present: 0, before: 0 })))
    }

    /// One more was sent.
    pub fn saw(&self, now: Instant) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        counts.turn(now);
        counts.present = counts.present.saturating_add(1);
    }

    /// Whether there were too many of late.
    pub fn is_high(&self, now: Instant) -> bool {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let part = counts.turn(now).as_secs_f64() / WINDOW.as_secs_f64();
        let writes = f64::from(counts.present) + f64::from(counts.before) * (1.0 - part);
        writes > f64::from(counts.most) * WINDOW.as_secs_f64()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_high_while_there_is_more_than_the_limit_and_a_moment_after() {
        for (every, high) in [(50, true), (90, true), (110, false), (1000, false)] {
            let rate = WriteRate::new(10);
            let start = Instant::now();
            let mut now = start;
            assert!(!rate.is_high(now));
            while now < start + Duration::from_secs(10) {
                rate.saw(now);
                now += Duration::from_millis(every);
            }
            assert_eq!(rate.is_high(now), high, "every {every} ms");
            assert!(!rate.is_high(now + 2 * WINDOW));
        }
    }
}
