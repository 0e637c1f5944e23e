//! An account at a server.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Who gave a grant: never a mail address, since those move from one person to another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    issuer: String,
    subject: String,
}

impl Account {
    /// The longest subject that is taken, in bytes (OpenID Connect Core section 2).
    const MAX_SUBJECT: usize = 255;
    /// The longest issuer, in bytes.
    const MAX_ISSUER: usize = 2048;

    /// An account, as the server names it. `None` for what can't be one: it goes into a status.
    pub fn new(issuer: &str, subject: &str) -> Option<Self> {
        let fits = |text: &str, most| {
            !text.is_empty() && text.len() <= most && text.bytes().all(|b| b.is_ascii_graphic() || b == b' ')
        };
        (fits(issuer, Self::MAX_ISSUER) && fits(subject, Self::MAX_SUBJECT))
            .then(|| Self { issuer: issuer.to_owned(), subject: subject.to_owned() })
    }

    /// Who keeps the account: OpenID Connect `iss`, Microsoft's `tid`, Slack's team.
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// Its identifier there: `sub`, Microsoft's `oid`, the user's ID.
    pub fn subject(&self) -> &str {
        &self.subject
    }
}

impl fmt::Display for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.subject, self.issuer)
    }
}
