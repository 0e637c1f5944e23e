//! What a pass tells who runs it: when to look again, and what it wrote itself.

use super::turns::Turn;
use std::time::Duration;

/// A version of an object, as the API server numbers them: those of one kind in one order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    /// Of a link.
    Link(u64),
    /// Of a Secret.
    Secret(u64),
}

/// What came of the work on a key.
#[derive(Debug, Default)]
pub struct Ended {
    /// After how long it is due again; `None` forgets it.
    pub again: Option<Duration>,
    /// The versions that it made: when a watch shows them, they are no news.
    pub wrote: Vec<Version>,
    /// A token request that it would send, and had no permit for: it is called up in its turn.
    pub turn: Option<Turn>,
    /// Whether the API server refuses what the work would write.
    pub refused: bool,
}

impl Ended {
    /// Due again after that long, whatever a watch shows.
    pub fn again(again: Option<Duration>) -> Self {
        Self { again, ..Self::default() }
    }
}
