//! An OAuth client and its metadata (RFC 6749 section 2, RFC 7591 section 2).

use super::text::{TextError, check, is_vschar};
use super::{RedirectUri, ScopeSet};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fmt;

/// The longest client identifier that is taken, in bytes.
pub const MAX_CLIENT_ID: usize = 255;

/// A client identifier (RFC 6749 section 2.2): visible ASCII and spaces. It is no secret.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClientId(String);

impl ClientId {
    /// Checks a client identifier.
    ///
    /// # Errors
    /// [`TextError`] when it is empty, too long, or has characters that RFC 6749 A.1 doesn't allow.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        check(text, MAX_CLIENT_ID, is_vschar)?;
        Ok(Self(text.to_owned()))
    }

    /// The identifier as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// How a client authenticates at the token endpoint (RFC 7591 `token_endpoint_auth_method`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuthMethod {
    /// HTTP Basic with the client ID and secret, each form-encoded first (RFC 6749 section 2.3.1).
    #[default]
    ClientSecretBasic,
    /// `client_id` and `client_secret` in the request body.
    ClientSecretPost,
    /// A public client: no secret at all.
    None,
}

impl AuthMethod {
    /// The name that RFC 7591 registers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ClientSecretBasic => "client_secret_basic",
            Self::ClientSecretPost => "client_secret_post",
            Self::None => "none",
        }
    }

    /// Whether clients of this kind have no secret.
    pub const fn is_public(self) -> bool {
        matches!(self, Self::None)
    }
}

impl fmt::Display for AuthMethod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// A grant type that a client may use (RFC 7591 `grant_types`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum GrantType {
    /// RFC 6749 section 4.1.
    AuthorizationCode,
    /// RFC 6749 section 4.4.
    ClientCredentials,
    /// RFC 6749 section 6.
    RefreshToken,
}

impl GrantType {
    /// The value of the `grant_type` parameter.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::AuthorizationCode => "authorization_code",
            Self::ClientCredentials => "client_credentials",
            Self::RefreshToken => "refresh_token",
        }
    }
}

impl fmt::Display for GrantType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What a client is registered with, its identifier and secret apart (RFC 7591 section 2).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientMetadata {
    /// The name that people see.
    pub name: String,
    /// Where the application itself is, if that is known.
    pub uri: Option<String>,
    /// Where users may be sent back to; compared as exact text.
    pub redirect_uris: BTreeSet<RedirectUri>,
    /// What the client may ask for.
    pub grant_types: BTreeSet<GrantType>,
    /// What it may get.
    pub scopes: ScopeSet,
    /// How it authenticates.
    pub auth_method: AuthMethod,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_are_the_registered_ones() {
        for m in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None] {
            assert_eq!(serde_json::to_value(m).expect("json"), m.as_str());
        }
        for g in [GrantType::AuthorizationCode, GrantType::ClientCredentials, GrantType::RefreshToken] {
            assert_eq!(serde_json::to_value(g).expect("json"), g.as_str());
        }
    }

    #[test]
    fn a_client_id_has_no_control_characters() {
        assert!(ClientId::parse("team a/ci~").is_ok());
        assert!(ClientId::parse("a\n").is_err());
        assert!(ClientId::parse("").is_err());
        assert!(ClientId::parse(&"x".repeat(256)).is_err());
    }
}
