//! What is kept of a consent under way, and how tickets and codes are made and compared. Pure.

use crate::domain::keyring::digest_hex;
use crate::link::grant::{Grant, Kept, LinkRef};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// A consent that was begun with a ticket. One a link: another ticket takes its place.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Consent {
    /// The version of this record's form.
    pub version: u32,
    /// The link.
    pub link: LinkRef,
    /// The digest of the ticket that it was begun with; that ticket begins no other one.
    pub ticket: String,
    /// When it is over, whatever came of it.
    pub expires_at: Timestamp,
    /// The grant as it would be, bound to what it was asked for with; without tokens until they
    /// are given.
    pub grant: Grant,
    /// How far it came.
    pub stage: Stage,
}

/// How far a consent came.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// The person was sent to the server (RFC 6749 section 4.1.1).
    #[serde(rename_all = "camelCase")]
    Asked {
        /// Digest of the `state`.
        state: String,
        /// Digest of the cookie of the browser that began it.
        browser: String,
        /// The PKCE verifier (RFC 7636).
        verifier: Kept,
        /// The redirect URI.
        redirect_uri: String,
        /// The `nonce`, where an ID token was asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        nonce: Option<String>,
    },
    /// The person was shown a code to enter (RFC 8628 section 3.2).
    #[serde(rename_all = "camelCase")]
    Shown {
        /// The device code.
        device_code: Kept,
        /// Seconds between two questions.
        interval: i64,
        /// When the server may be asked again.
        next: Timestamp,
    },
    /// The server is being asked for the codes of the device grant.
    Begun,
    /// The answer was taken and is being exchanged, or led to nothing. It can't be taken again.
    Spent,
    /// The grant is here, and not active before the code comes back.
    #[serde(rename_all = "camelCase")]
    Granted {
        /// Digest of the completion code.
        completion: String,
    },
}

impl Consent {
    /// Whether it may still be acted on.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }

    /// Whether nothing comes any more but the code that ends it: once the ticket is taken back, nothing
    /// at all.
    pub fn is_over(&self) -> bool {
        matches!(self.stage, Stage::Spent | Stage::Granted { .. })
    }

    /// The grant that was given, if one was.
    pub fn granted(&self) -> Option<&Grant> {
        matches!(self.stage, Stage::Granted { .. }).then_some(&self.grant)
    }

    /// Whether this is the code that makes it active.
    pub fn is_completed_by(&self, code: &str) -> bool {
        match &self.stage {
            Stage::Granted { completion } => *completion == digest(Purpose::Completion, &normal(code)),
            _ => false,
        }
    }
}

/// What a person who may edit the link puts on it to begin a consent: the value of
/// [`crate::api::names::AUTHORIZE`], as JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ticket {
    /// Digest of the ticket.
    pub ticket: String,
    /// When it can't be used any more.
    pub expires_at: Timestamp,
    /// The port of the loopback listener that gets the completion code; without one, the person
    /// types it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
}

/// How long a ticket may be good, in minutes; one that says more isn't taken.
pub const TICKET_MINUTES: i64 = 10;

impl Ticket {
    /// Reads the annotation; `None` for one that isn't one, or that is good for too long.
    pub fn read(text: &str, now: Timestamp) -> Option<Self> {
        let ticket: Self = serde_json::from_str(text).ok()?;
        let most = now.checked_add(jiff::SignedDuration::from_mins(TICKET_MINUTES + 1)).ok()?;
        (ticket.expires_at <= most).then_some(ticket)
    }

    /// Whether it can be used.
    pub fn is_open(&self, now: Timestamp) -> bool {
        now < self.expires_at
    }
}

/// What a digest is of, so that one kind of secret can't stand for another.
#[derive(Debug, Clone, Copy)]
pub enum Purpose {
    /// The one-time ticket.
    Ticket,
    /// The `state` of an authorization request.
    State,
    /// The browser's cookie.
    Browser,
    /// The completion code.
    Completion,
}

/// The digest under which a random text is kept or published. Such texts have at least 80 random
/// bits and live ten minutes, so that a plain digest can't be turned back in time.
pub fn digest(purpose: Purpose, text: &str) -> String {
    let purpose = match purpose {
        Purpose::Ticket => "ticket",
        Purpose::State => "state",
        Purpose::Browser => "browser",
        Purpose::Completion => "completion",
    };
    digest_hex(&format!("applink-operator consent {purpose}\n{text}"))
}

/// The letters of a code that a person may have to type: none that look alike.
const LETTERS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Random letters of a code, of 5 bits each, and letters that tell a slip.
const RANDOM: usize = 20;
const CHECK: usize = 4;

/// A completion code of random bytes: six groups of four letters, 100 bits and what shows
/// a slip.
pub fn code_of(random: &[u8; RANDOM]) -> String {
    let mut code: String = random.iter().map(|b| char::from(LETTERS[usize::from(b & 31)])).collect();
    code.push_str(&check_of(&code));
    let groups: Vec<String> =
        code.as_bytes().chunks(4).map(|c| String::from_utf8_lossy(c).into_owned()).collect();
    groups.join("-")
}

fn check_of(body: &str) -> String {
    digest_hex(body).bytes().take(CHECK).map(|b| char::from(LETTERS[usize::from(b & 31)])).collect()
}

/// A code as it is compared: whatever case, groups and spaces it was typed in.
pub fn normal(code: &str) -> String {
    let upper = code.chars().filter(|c| !c.is_whitespace() && *c != '-').map(|c| c.to_ascii_uppercase());
    upper
        .map(|c| match c {
            'O' => '0',
            'I' | 'L' => '1',
            'U' => 'V',
            c => c,
        })
        .collect()
}

/// Whether a typed code can be one at all.
pub fn is_code(typed: &str) -> bool {
    let code = normal(typed);
    code.len() == RANDOM + CHECK && code.is_ascii() && code.ends_with(&check_of(&code[..RANDOM]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_read_however_it_is_typed_and_a_slip_is_seen() {
        let code = code_of(b"abcdefghijklmnopqrst");
        assert_eq!(code.len(), 24 + 5, "{code}");
        assert!(is_code(&code) && is_code(&code.to_lowercase()) && is_code(&code.replace('-', " ")));
        for i in 0..code.len() {
            let mut slip = code.clone().into_bytes();
            if slip[i] == b'-' {
                continue;
            }
            slip[i] = if slip[i] == b'A' { b'B' } else { b'A' };
            assert!(!is_code(&String::from_utf8(slip).expect("ASCII")), "slip at {i} of {code}");
        }
        assert!(!is_code("") && !is_code("Ä"));
        assert_ne!(digest(Purpose::State, "a"), digest(Purpose::Ticket, "a"));
    }

    #[test]
    fn a_ticket_is_good_for_ten_minutes_at_most() {
        let now: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        let text = |expires: &str| format!(r#"{{"ticket":"00","expiresAt":"{expires}"}}"#);
        assert!(Ticket::read(&text("2026-01-01T00:10:00Z"), now).is_some_and(|t| t.is_open(now)));
        assert!(Ticket::read(&text("2025-12-31T23:59:00Z"), now).is_some_and(|t| !t.is_open(now)));
        assert!(Ticket::read(&text("2026-01-02T00:00:00Z"), now).is_none());
        assert!(Ticket::read("{}", now).is_none());
        assert!(Ticket::read("not JSON", now).is_none());
    }
}
