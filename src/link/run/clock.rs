//! Notices when somebody sets the clock. Waits go by the clock that nobody sets, so a step delays and
//! hurries nothing that waits; but what was worked out from the old time (when a token ends, when its
//! refresh is due) is worked out anew. A token that the new clock calls ended is asked for in its turn
//! like any other, so a step is no stampede.

use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// A difference that is no drift: time services slew at most half a millisecond a second.
const STEP: SignedDuration = SignedDuration::from_secs(10);

/// How often to look.
pub(super) const OFTEN: Duration = Duration::from_secs(5);

/// Both clocks as they were.
#[derive(Debug)]
pub(super) struct Clocks {
    steady: Instant,
    wall: Timestamp,
}

impl Clocks {
    /// As they are.
    pub(super) const fn new(steady: Instant, wall: Timestamp) -> Self {
        Self { steady, wall }
    }

    /// How far the wall clock was set forward (or back, if negative) since the last look; `None` where
    /// it wasn't. A machine that slept looks like one whose clock was set forward, and is one.
    pub(super) fn step(&mut self, steady: Instant, wall: Timestamp) -> Option<SignedDuration> {
        let passed = SignedDuration::try_from(steady.saturating_duration_since(self.steady))
            .unwrap_or(SignedDuration::MAX);
        let step = wall.duration_since(self.wall).saturating_sub(passed);
        *self = Self::new(steady, wall);
        (step.abs() >= STEP).then_some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_step_is_told_from_time_that_passes() {
        let (mut steady, mut wall) = (Instant::now(), Timestamp::from_second(1_800_000_000).expect("time"));
        let mut clocks = Clocks::new(steady, wall);
        let mut look = |passed: i64, step: i64| {
            steady += Duration::from_secs(passed.unsigned_abs());
            wall = wall.saturating_add(SignedDuration::from_secs(passed + step)).expect("time");
            clocks.step(steady, wall).map(|s| s.as_secs())
        };
        let ten_years = 10 * 365 * 86400;
        assert_eq!(look(5, 0), None);
        assert_eq!(look(600, 2), None);
        for step in [3600, -3600, ten_years, -ten_years, 10, -10] {
            assert_eq!(look(5, step), Some(step));
            assert_eq!(look(5, 0), None, "said once");
        }
    }
}
