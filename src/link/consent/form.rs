//! What a ticket, a state and the names in an address look like: what looks otherwise was never given out, and nobody is
//! asked about it. Pure.

use super::desk::Answer;
use crate::domain::{ExposeSecret as _, SecretString};

/// Whether a request may be about a link, by its words alone.
pub fn may_be_ticket(namespace: &str, name: &str, ticket: &SecretString) -> bool {
    let ticket = ticket.expose_secret();
    is_name(namespace) && is_name(name) && (16..=128).contains(&ticket.len()) && is_base64url(ticket)
}

/// Whether a server's answer may be to a request of ours, by its words alone.
pub fn may_be_answer(answer: &Answer) -> bool {
    answer.state.as_ref().is_some_and(|state| uid_of(state.expose_secret()).is_some())
}

/// The UID of the link that a state is for.
pub(super) fn uid_of(state: &str) -> Option<&str> {
    let (uid, random) = state.split_once('.')?;
    (is_uid(uid) && !random.is_empty() && random.len() <= 128 && is_base64url(random)).then_some(uid)
}

/// What a namespace or a link can be called.
pub(super) fn is_name(text: &str) -> bool {
    let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-' || b == b'.';
    !text.is_empty() && text.len() <= 253 && text.bytes().all(allowed) && !text.contains("..")
}

fn is_uid(text: &str) -> bool {
    text.len() == 36 && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

fn is_base64url(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    const RANDOM: &str = "AbCdEfGhIjKlMnOpQrStUvWxYz0123456789-_AbCdE";

    #[test]
    fn what_was_never_given_out_is_seen_by_its_form() {
        let of = |namespace: &str, name: &str, ticket: &str| {
            may_be_ticket(namespace, name, &ticket.to_owned().into())
        };
        assert!(of("team-a", "ci.dashboard", RANDOM));
        for (namespace, name, ticket) in [
            ("team-a", "ci", ""),
            ("team-a", "ci", "short"),
            ("team-a", "ci", "0123456789 0123456789"),
            ("team-a", "ci", &"x".repeat(129)),
            ("Team", "ci", RANDOM),
            ("team-a", "..", RANDOM),
            ("team-a", "", RANDOM),
        ] {
            assert!(!of(namespace, name, ticket), "{namespace} {name} {ticket}");
        }
        let of = |state: Option<&str>| {
            may_be_answer(&Answer { state: state.map(|s| s.to_owned().into()), ..Answer::default() })
        };
        let uid = "0f0e0d0c-0b0a-0908-0706-050403020100";
        assert!(of(Some(&format!("{uid}.{RANDOM}"))));
        for state in ["", uid, &format!("{uid}."), &format!("x{uid}.{RANDOM}"), &format!("{uid}.a b")] {
            assert!(!of(Some(state)), "{state}");
        }
        assert!(!of(None));
    }
}
