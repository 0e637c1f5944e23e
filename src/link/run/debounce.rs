//! How often one object wakes all the links that use it: a Secret or a provider that is changed many times a second would have
//! each of them looked at as often, and who waits for the processor is everybody. Pure: the clock comes in.

use crate::link::cache::Key;
use std::collections::HashMap;
use std::time::{Duration, Instant};

/// So many links are woken at once, however often.
const FEW: usize = 4;
/// More are woken this often at most: at once by the first change, and by those that follow together.
const BETWEEN: Duration = Duration::from_secs(1);
/// So many objects are remembered before those that rest are forgotten.
const MANY: usize = 1024;

/// An object that links use.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Used {
    /// A Secret.
    Secret(Key),
    /// A provider object, by UID.
    Provider(String),
}

/// When each object last woke its links, or will.
#[derive(Debug, Default)]
pub(super) struct Debounce(HashMap<Used, Instant>);

impl Debounce {
    /// How long the links that use an object wait after a change of it.
    pub(super) fn wait(&mut self, of: Used, links: usize, now: Instant) -> Duration {
        if links <= FEW {
            return Duration::ZERO;
        }
        if self.0.len() >= MANY {
            self.0.retain(|_, at| *at + BETWEEN > now);
        }
        let at = self.0.entry(of).and_modify(|at| {
            // What is to come tells of this change too.
            if *at <= now {
                *at = now.max(*at + BETWEEN);
            }
        });
        at.or_insert(now).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(name: &str) -> Used {
        Used::Secret(Key::new("team", name))
    }

    #[test]
    fn what_many_use_wakes_them_at_once_and_then_once_a_second() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        let mut woken = std::collections::BTreeSet::new();
        for n in 0..100 {
            let now = start + Duration::from_millis(100 * n);
            woken.insert(now + debounce.wait(secret("used"), FEW + 1, now) - start);
            assert_eq!(debounce.wait(secret("of a few"), FEW, now), Duration::ZERO);
            // Nobody waits for another one's.
            assert_eq!(debounce.wait(Used::Provider(n.to_string()), FEW + 1, now), Duration::ZERO);
        }
        let seconds: Vec<_> = (0..=10).map(Duration::from_secs).collect();
        assert_eq!(woken.into_iter().collect::<Vec<_>>(), seconds);
        // After a rest the next one wakes at once, and the one after it a second later.
        let later = start + Duration::from_secs(60);
        assert_eq!(debounce.wait(secret("used"), FEW + 1, later), Duration::ZERO);
        assert_eq!(debounce.wait(secret("used"), FEW + 1, later), BETWEEN);
    }

    #[test]
    fn objects_that_rest_are_forgotten() {
        let (mut debounce, start) = (Debounce::default(), Instant::now());
        for n in 0..3 * MANY as u64 {
            debounce.wait(
                Used::Provider(n.to_string()),
                FEW + 1,
                start + BETWEEN * 2 * u32::try_from(n).expect("few"),
            );
        }
        assert!(debounce.0.len() <= MANY, "{}", debounce.0.len());
    }
}
