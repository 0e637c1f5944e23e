//! What a token endpoint answers (RFC 6749 section 5.1), after it was checked.

use super::{Account, ScopeSet};
use secrecy::SecretString;
use std::fmt;

/// The longest access or refresh token that is taken, in bytes. Larger than any token seen in
/// the field, small enough that a Secret holds two of them and a template.
pub const MAX_TOKEN: usize = 64 * 1024;

/// How long an access token lives, in whole seconds; at least 1 and at most ten years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lifetime(i64);

/// Used where a reply has no usable `expires_in`: long enough not to hammer the server, short
/// enough that a token which does expire is replaced soon.
pub const ASSUMED_LIFETIME: Lifetime = Lifetime(3600);

/// Stands for a token without end: what a person's consent gave, with neither `expires_in` nor a refresh
/// token. Asking again before it is refused would need the person again.
pub const WITHOUT_END: Lifetime = Lifetime(Lifetime::MAX);

impl Lifetime {
    const MAX: i64 = 10 * 365 * 24 * 3600;

    /// Takes a number of seconds. More than ten years is ten years.
    ///
    /// Returns `None` for 0 and less.
    pub fn from_secs(secs: i64) -> Option<Self> {
        (secs > 0).then(|| Self(secs.min(Self::MAX)))
    }

    /// Whole seconds.
    pub const fn as_secs(self) -> i64 {
        self.0
    }
}

/// The name of a token type that asks for a proof beside the token: DPoP (RFC 9449), MAC and PoP, as they
/// are registered or were drafted. A client that sends the token alone can't use it.
pub fn asks_for_proof(token_type: &str) -> Option<&'static str> {
    ["DPoP", "MAC", "PoP"].into_iter().find(|name| token_type.eq_ignore_ascii_case(name))
}

/// A successful reply of a token endpoint.
#[derive(Clone)]
pub struct TokenReply {
    /// The access token; VSCHAR only, so it can't break a line.
    pub access_token: SecretString,
    /// Nearly always `Bearer`, as the server wrote it.
    pub token_type: String,
    /// `None` where the server named no usable lifetime.
    pub lifetime: Option<Lifetime>,
    /// A new refresh token, if the server sent one.
    pub refresh_token: Option<SecretString>,
    /// The granted scopes, if the server said them (else they are the ones asked for).
    pub scopes: Option<ScopeSet>,
    /// An ID token (OpenID Connect Core section 3.1.3.3), unread.
    pub id_token: Option<SecretString>,
    /// Whose token it is, where the reply itself says so.
    pub account: Option<Account>,
}

impl fmt::Debug for TokenReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TokenReply")
            .field("access_token", &"[redacted]")
            .field("token_type", &self.token_type)
            .field("lifetime", &self.lifetime)
            .field("refresh_token", &self.refresh_token.as_ref().map(|_| "[redacted]"))
            .field("scopes", &self.scopes)
            .field("id_token", &self.id_token.as_ref().map(|_| "[redacted]"))
            .field("account", &self.account)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lifetimes_are_bounded() {
        assert_eq!(Lifetime::from_secs(0), None);
        assert_eq!(Lifetime::from_secs(-5), None);
        assert_eq!(Lifetime::from_secs(60).map(Lifetime::as_secs), Some(60));
        assert_eq!(Lifetime::from_secs(i64::MAX).map(Lifetime::as_secs), Some(315_360_000));
    }

    #[test]
    fn debug_shows_no_token() {
        let reply = TokenReply {
            access_token: "at-canary".to_owned().into(),
            token_type: "Bearer".into(),
            lifetime: None,
            refresh_token: Some("rt-canary".to_owned().into()),
            scopes: None,
            id_token: Some("it-canary".to_owned().into()),
            account: None,
        };
        assert!(!format!("{reply:?}").contains("canary"));
    }
}
