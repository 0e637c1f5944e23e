//! A reply of a token endpoint that can't be read, and may have spent a refresh token: its successor may
//! stand in it, and nowhere else. So it is kept with the grant, sealed, for a person to look at. Pure.

use crate::domain::{KeyRing, Sealed};
use crate::http::Heard;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Serialize};
use std::fmt;

/// So much of a body is kept.
pub const MOST: usize = 64 * 1024;
/// So long it is kept, unless a refresh succeeds or the grant goes.
pub const KEPT: SignedDuration = SignedDuration::from_hours(30 * 24);

const PURPOSE: &str = "unread reply";

/// The newest reply that couldn't be read, as it stands in the grant's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unread {
    /// When it came.
    pub at: Timestamp,
    /// The reply.
    pub sealed: Sealed,
}

/// A reply as far as it came.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct UnreadReply {
    /// The status.
    pub status: u16,
    /// `Content-Type`, as the server wrote it.
    pub content_type: Option<String>,
    /// `Content-Encoding`, where the body couldn't be decoded.
    pub content_encoding: Option<String>,
    /// Whether this is all of it.
    pub complete: bool,
    /// The body, in base64.
    pub body: String,
}

impl fmt::Debug for UnreadReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnreadReply")
            .field("status", &self.status)
            .field("complete", &self.complete)
            .finish_non_exhaustive()
    }
}

impl UnreadReply {
    /// What is worth keeping of an answer: the body of a success, of which anything came.
    pub fn of(heard: &Heard) -> Option<Self> {
        let status = heard.status.filter(|s| (200..300).contains(s))?;
        if heard.body.is_empty() {
            return None;
        }
        let kept = &heard.body[..heard.body.len().min(MOST)];
        // Foreign text without a limit of its own.
        let short = |text: &Option<String>| text.clone().filter(|t| t.len() <= 256);
        Some(Self {
            status,
            content_type: short(&heard.content_type),
            content_encoding: short(&heard.content_encoding),
            complete: heard.complete && kept.len() == heard.body.len(),
            body: STANDARD.encode(kept),
        })
    }

    /// The body.
    pub fn bytes(&self) -> Vec<u8> {
        STANDARD.decode(&self.body).unwrap_or_default()
    }
}

impl Unread {
    /// Seals a reply to a request of the link's grant. `nonce` is random.
    pub fn seal(keys: &KeyRing, link_uid: &str, reply: &UnreadReply, nonce: [u8; 24], at: Timestamp) -> Self {
        // It holds nothing that JSON can't say.
        let plain = serde_json::to_vec(reply).unwrap_or_default();
        Self { at, sealed: keys.seal(PURPOSE, &[link_uid], nonce, &plain) }
    }

    /// Opens it; `None` where the key that sealed it is gone, or it is another grant's.
    pub fn open(&self, keys: &KeyRing, link_uid: &str) -> Option<UnreadReply> {
        serde_json::from_slice(&keys.open(PURPOSE, &[link_uid], &self.sealed)?).ok()
    }

    /// Whether it is still kept.
    pub fn is_kept(&self, now: Timestamp) -> bool {
        now.duration_since(self.at) < KEPT
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InstallationId, MasterKey};

    fn heard(status: u16, body: &[u8]) -> Heard {
        Heard { status: Some(status), body: body.to_vec(), complete: true, ..Heard::default() }
    }

    #[test]
    fn of_a_success_so_much_is_kept_and_of_nothing_else_anything() {
        let reply = UnreadReply::of(&heard(200, b"canary")).expect("kept");
        assert!(reply.complete && reply.bytes() == b"canary");
        assert!(!format!("{reply:?}").contains("canary") && !format!("{reply:?}").contains(&reply.body));
        let long = UnreadReply::of(&heard(201, &vec![b'x'; MOST + 1])).expect("kept");
        assert!(!long.complete && long.bytes().len() == MOST);
        for none in [heard(200, b""), heard(400, b"x"), heard(502, b"x"), heard(302, b"x"), Heard::default()]
        {
            assert_eq!(UnreadReply::of(&none), None, "{none:?}");
        }
        // The largest fits into the record, with room for tokens.
        let keys =
            KeyRing::new(InstallationId::parse("i").expect("an ID"), "k", MasterKey::from_bytes([1; 32]));
        let unread = Unread::seal(&keys, "u", &long, [0; 24], Timestamp::UNIX_EPOCH);
        assert!(serde_json::to_vec(&unread).expect("JSON").len() < 128 * 1024);
    }

    #[test]
    fn only_the_installation_opens_it_and_only_for_its_grant() {
        let ring = |byte| {
            let id = InstallationId::parse("i").expect("an ID");
            KeyRing::new(id, "k", MasterKey::from_bytes([byte; 32]))
        };
        let at: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let reply = UnreadReply::of(&heard(200, b"canary")).expect("kept");
        let unread = Unread::seal(&ring(1), "u", &reply, [7; 24], at);
        let stored = serde_json::to_string(&unread).expect("JSON");
        assert!(!stored.contains("canary") && !stored.contains(&reply.body), "{stored}");
        let unread: Unread = serde_json::from_str(&stored).expect("a record");
        assert_eq!(unread.open(&ring(1), "u"), Some(reply));
        assert_eq!(unread.open(&ring(1), "v"), None);
        assert_eq!(unread.open(&ring(2), "u"), None);
        let after = |days: i64| at + SignedDuration::from_hours(24 * days);
        assert!(unread.is_kept(after(29)) && !unread.is_kept(after(30)));
    }
}
