//! Character sets of RFC 6749 appendix A, and how foreign text may be shown.

use std::fmt;

/// Why a text was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing in it.
    #[error("is empty")]
    Empty,
    /// Longer than this many bytes.
    #[error("is longer than {0} bytes")]
    TooLong(usize),
    /// A character that the syntax doesn't have. Its place, counted from 0; not the character,
    /// since the text may be a secret.
    #[error("has a character at position {0} that RFC 6749 appendix A doesn't allow")]
    BadCharacter(usize),
}

/// VSCHAR of RFC 6749 appendix A: visible ASCII and the space.
pub fn is_vschar(b: u8) -> bool {
    (0x20..=0x7e).contains(&b)
}

/// NQCHAR of RFC 6749 appendix A: visible ASCII but for `"` and `\`.
pub fn is_nqchar(b: u8) -> bool {
    b == 0x21 || (0x23..=0x5b).contains(&b) || (0x5d..=0x7e).contains(&b)
}

/// Checks `text` for 1 to `max` bytes that all satisfy `allowed`.
///
/// # Errors
/// [`TextError`], which never repeats the text.
pub fn check(text: &str, max: usize, allowed: fn(u8) -> bool) -> Result<(), TextError> {
    if text.is_empty() {
        return Err(TextError::Empty);
    }
    if text.len() > max {
        return Err(TextError::TooLong(max));
    }
    match text.bytes().position(|b| !allowed(b)) {
        Some(at) => Err(TextError::BadCharacter(at)),
        None => Ok(()),
    }
}

/// A user's own value inside a message: quoted, escaped, cut after 80 characters.
pub struct Shown<'a>(pub &'a str);

impl fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const MOST: usize = 80;
        f.write_str("\"")?;
        for (i, c) in self.0.chars().enumerate() {
            if i == MOST {
                return f.write_str("…\"");
            }
            if c.is_control() || c == '"' || c == '\\' {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        f.write_str("\"")
    }
}

/// The longest message, in characters: conditions and log lines hold no more, and nobody reads more.
const MAX_MESSAGE: usize = 1024;

/// A message, cut to what conditions and log lines hold.
pub fn cut(mut message: String) -> String {
    if let Some((at, _)) = message.char_indices().nth(MAX_MESSAGE) {
        message.truncate(at);
        message.pop();
        message.push('…');
    }
    message
}

/// A list inside a message: ten of it, each cut after 80 characters, and how many more there are. A server may
/// have named thousands.
pub fn listed<T: fmt::Display>(all: impl IntoIterator<Item = T>) -> String {
    const MOST: usize = 10;
    const LONGEST: usize = 80;
    let mut all = all.into_iter();
    let mut shown: Vec<String> = all.by_ref().take(MOST).map(|item| item.to_string()).collect();
    for text in &mut shown {
        if let Some((at, _)) = text.char_indices().nth(LONGEST) {
            text.truncate(at);
            text.push('…');
        }
    }
    let more = all.count();
    let shown = shown.join(", ");
    if more == 0 { shown } else { format!("{shown}, and {more} more") }
}

/// The error codes of RFC 6749 sections 4.1.2.1 and 5.2, RFC 7009, 8628, 6750, 7591, OpenID
/// Connect and the ones that the servers we talk to are known to send. Anything else that a
/// server calls its error stays out of every message, since a server may echo what we sent.
const KNOWN_ERROR_CODES: &[&str] = &[
    "invalid_request",
    "invalid_client",
    "invalid_grant",
    "unauthorized_client",
    "unsupported_grant_type",
    "unsupported_response_type",
    "unsupported_token_type",
    "invalid_scope",
    "invalid_token",
    "insufficient_scope",
    "access_denied",
    "server_error",
    "temporarily_unavailable",
    "interaction_required",
    "login_required",
    "consent_required",
    "account_selection_required",
    "authorization_pending",
    "slow_down",
    "expired_token",
    "invalid_redirect_uri",
    "invalid_client_metadata",
    "invalid_software_statement",
    "unapproved_software_statement",
    "invalid_target",
    "bad_refresh_token",
    "incorrect_client_credentials",
    "bad_verification_code",
    "redirect_uri_mismatch",
    "unverified_user_email",
    "application_suspended",
    "device_flow_disabled",
    "incorrect_device_code",
    "deleted_client",
    "disabled_client",
    "internal_failure",
    "rate_limit_exceeded",
    "invalid_refresh_token",
    "token_revoked",
    "token_expired",
    "account_inactive",
    "invalid_auth",
    "invalid_client_id",
    "bad_client_secret",
    "invalid_code",
    "code_already_used",
    "bad_redirect_uri",
    "invalid_grant_type",
    "ratelimited",
    "internal_error",
    "fatal_error",
    "service_unavailable",
    "request_timeout",
];

/// The code itself when it is one that we know, else `None`.
pub fn known_error_code(code: &str) -> Option<&'static str> {
    KNOWN_ERROR_CODES.iter().copied().find(|k| *k == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_newline_is_no_vschar() {
        assert_eq!(check("a\nb", 9, is_vschar), Err(TextError::BadCharacter(1)));
        assert_eq!(check("", 9, is_vschar), Err(TextError::Empty));
        assert_eq!(check("abc", 2, is_vschar), Err(TextError::TooLong(2)));
        assert_eq!(check("a b~", 9, is_vschar), Ok(()));
        assert!(check("ü", 9, is_vschar).is_err());
    }

    #[test]
    fn shown_text_is_cut_and_escaped() {
        assert_eq!(Shown("a\"b\n").to_string(), "\"a\\\"b\\n\"");
        assert!(Shown(&"x".repeat(200)).to_string().ends_with("…\""));
    }

    #[test]
    fn a_list_in_a_message_is_short_and_says_how_much_it_leaves_out() {
        for (all, wanted) in [
            (vec![], String::new()),
            (vec!["a".to_owned()], "a".into()),
            (vec!["a".into(), "x".repeat(81)], format!("a, {}…", "x".repeat(80))),
            (vec!["a".into(); 10], ["a"; 10].join(", ")),
            (vec!["a".into(); 26_001], format!("{}, and 25991 more", ["a"; 10].join(", "))),
        ] {
            assert_eq!(listed(all), wanted);
        }
        for (length, wanted) in [(3, 3), (1024, 1024), (1025, 1024), (100_000, 1024)] {
            assert_eq!(cut("ü".repeat(length)).chars().count(), wanted);
        }
    }

    #[test]
    fn an_echo_is_no_error_code() {
        assert_eq!(known_error_code("invalid_grant"), Some("invalid_grant"));
        assert_eq!(known_error_code("s3cr3t"), None);
    }
}
