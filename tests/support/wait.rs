//! Waits for a condition: looks quickly at first, then less often, and says what it last saw when time is up.

use std::fmt::Display;
use std::panic::Location;
use std::time::{Duration, Instant};

/// How long anything may take on a busy machine before it counts as not happening. A test that works never waits for it.
pub const SOON: Duration = Duration::from_secs(180);

const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(250);

/// What a look at the world can answer: `bool`, `Option` (not yet), or `Result` (not yet, and why).
pub trait Outcome {
    type Value;
    fn settle(self) -> Result<Self::Value, String>;
}

impl Outcome for bool {
    type Value = ();
    fn settle(self) -> Result<(), String> {
        if self { Ok(()) } else { Err("false".to_owned()) }
    }
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing".to_owned())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;
    fn settle(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

/// Looks until the look succeeds, and returns what it found.
///
/// ```ignore
/// let secret = eventually(Duration::from_secs(5), "the Secret of the link", async || secrets.get("x").await).await;
/// ```
///
/// # Panics
/// When `deadline` has passed: with `what`, the place of the call and the last answer.
#[track_caller]
pub fn eventually<O: Outcome>(
    deadline: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> O,
) -> impl Future<Output = O::Value> {
    let caller = Location::caller();
    async move {
        let started = Instant::now();
        let mut pause = FIRST_PAUSE;
        loop {
            let left = deadline.saturating_sub(started.elapsed()).max(LONGEST_PAUSE);
            let last = match tokio::time::timeout(left, look()).await.map(Outcome::settle) {
                Ok(Ok(value)) => return value,
                Ok(Err(last)) => last,
                Err(_) => "no answer at all".to_owned(),
            };
            let waited = started.elapsed();
            assert!(
                waited < deadline,
                "{caller}: waited {waited:.1?} in vain for {what}; the last look gave: {last}"
            );
            tokio::time::sleep(pause).await;
            pause = (pause * 3 / 2).min(LONGEST_PAUSE);
        }
    }
}

/// Looks for the whole of `span` and fails as soon as the look doesn't succeed: for what must go on holding.
///
/// # Panics
/// When a look fails: with `what`, the place of the call and the answer.
#[track_caller]
pub fn always<O: Outcome>(
    span: Duration,
    what: impl Display,
    mut look: impl AsyncFnMut() -> O,
) -> impl Future<Output = ()> {
    let caller = Location::caller();
    async move {
        let started = Instant::now();
        while started.elapsed() < span {
            if let Err(answer) = look().await.settle() {
                panic!("{caller}: {what} stopped holding after {:.1?}: {answer}", started.elapsed());
            }
            tokio::time::sleep(FIRST_PAUSE).await;
        }
    }
}
