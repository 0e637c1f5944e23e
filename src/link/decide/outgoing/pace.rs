//! How often a link is refreshed at most: a server whose tokens live for seconds would have every link of it
//! written again and again, and the API server is everybody's.

use crate::domain::Reason;
use crate::link::grant::Access;
use crate::link::problem::Problem;
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// How often a token that lives too short is asked for: the server may issue others by now.
pub const TOO_SHORT_EVERY: SignedDuration = SignedDuration::from_mins(5);

/// When the next token may be asked for, where it would be `due` by its lifetime alone. `floor`: the least
/// time between two refreshes of a link.
pub(super) fn paced(access: &Access, due: Timestamp, floor: Duration) -> Timestamp {
    let least = match too_short(access, floor) {
        Some(_) => TOO_SHORT_EVERY,
        None => SignedDuration::try_from(floor).unwrap_or(SignedDuration::MAX),
    };
    due.max(access.issued_at.saturating_add(least).unwrap_or(Timestamp::MAX))
}

/// What is said of a token that lives less than twice the least time between two refreshes: it would have
/// ended before it may be replaced with some time left for a second try.
pub fn too_short(access: &Access, floor: Duration) -> Option<Problem> {
    let lives = access.expires_at.duration_since(access.issued_at);
    let least = SignedDuration::try_from(floor * 2).unwrap_or(SignedDuration::MAX);
    (lives < least).then(|| {
        let (lives, floor, least) = (lives.as_secs(), floor.as_secs(), least.as_secs());
        Problem::edit(
            Reason::TokenLifetimeTooShort,
            format!(
                "the server's reply says expires_in {lives}, and a link is refreshed every {floor} s at most, so a token must \
                 live {least} s or longer; have the server issue such tokens, or the platform team lower the chart's value \
                 operator.minRefreshInterval (--min-refresh-interval); until then a token is asked for every five minutes"
            ),
        )
    })
}
