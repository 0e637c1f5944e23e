//! Assertions (RFC 7523): who signs them, and what stands in them.

use super::signing_key::{KeyError, SigningAlgorithm, SigningKey};
use crate::domain::ScopeSet;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use serde::Deserialize;
use serde_json::{Value, json};

/// How long a client's assertion holds, in seconds. It is used once, at once; servers refuse long
/// ones (Keycloak takes a minute).
pub const CLIENT_ASSERTION_SECS: i64 = 60;
/// How long the assertion of a grant holds, in seconds.
pub const GRANT_ASSERTION_SECS: i64 = 300;
/// By how many seconds an assertion is dated back: at a server whose clock is that much behind, it isn't of
/// the future. It ends that much earlier, since servers count its life from `iat`.
pub const DATED_BACK_SECS: i64 = 10;
/// `client_assertion_type` of RFC 7523 section 2.2.
pub const CLIENT_ASSERTION_TYPE: &str = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
/// `grant_type` of RFC 7523 section 2.1.
pub const JWT_BEARER: &str = "urn:ietf:params:oauth:grant-type:jwt-bearer";

/// A client's assertion (RFC 7523 section 2.2); also nonce and times are new for each request.
/// `None` only where the machine gives no randomness.
pub(super) fn client_assertion(
    key: &SigningKey,
    client_id: &str,
    audience: &str,
    now: Timestamp,
) -> Option<SecretString> {
    let claims = claims(client_id, client_id, audience, now, CLIENT_ASSERTION_SECS)?;
    key.sign(&claims)
}

fn claims(issuer: &str, subject: &str, audience: &str, now: Timestamp, lives: i64) -> Option<Value> {
    let mut nonce = [0; 16];
    getrandom::fill(&mut nonce).ok()?;
    // No `nbf`: it is optional (RFC 7523 section 3), and a clock that is behind refuses it.
    let from = now.as_second() - DATED_BACK_SECS;
    Some(json!({
        "iss": issuer, "sub": subject, "aud": audience, "jti": URL_SAFE_NO_PAD.encode(nonce),
        "iat": from, "exp": from + lives,
    }))
}

/// The assertion of the grant jwt-bearer (RFC 7523 section 2.1), before it is signed.
#[derive(Debug, Clone)]
pub struct BearerAssertion {
    /// Who signs.
    pub key: SigningKey,
    /// `iss`.
    pub issuer: String,
    /// `sub`; `None` for the issuer.
    pub subject: Option<String>,
    /// `aud`; `None` for the token endpoint.
    pub audience: Option<String>,
    /// Whether the scopes stand in the assertion, as Google wants it, rather than beside it.
    pub carries_scopes: bool,
}

impl BearerAssertion {
    /// The signed assertion for a token endpoint.
    pub(super) fn sign(&self, endpoint: &str, scopes: &ScopeSet, now: Timestamp) -> Option<SecretString> {
        let audience = self.audience.as_deref().unwrap_or(endpoint);
        let subject = self.subject.as_deref().unwrap_or(&self.issuer);
        let mut claims = claims(&self.issuer, subject, audience, now, GRANT_ASSERTION_SECS)?;
        if self.carries_scopes {
            claims["scope"] = json!(scopes.to_string());
            // There, a subject is somebody to act for, which takes a right of its own.
            if let (None, Some(claims)) = (&self.subject, claims.as_object_mut()) {
                claims.remove("sub");
            }
        }
        self.key.sign(&claims)
    }
}

/// What the Secret of the grant jwt-bearer holds.
#[derive(Debug, Clone)]
pub struct BearerKey {
    /// The key.
    pub key: SigningKey,
    /// Whose it is, where the file says it.
    pub issuer: Option<String>,
}

/// Why the text isn't one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum BearerKeyError {
    /// Workload identity federation: it has no key, and names addresses to call.
    #[error(
        "is a Google file of type external_account, which has no key and says where to get tokens; use the key file of \
         a service account"
    )]
    ExternalAccount,
    /// A person's credentials.
    #[error(
        "is a Google file of type authorized_user, a person's own credentials; use the key file of a service account, \
         or the grant refreshToken"
    )]
    AuthorizedUser,
    /// A key file without what it must have.
    #[error("is a Google key file without client_email or private_key; download it again")]
    Incomplete,
    /// Not a key.
    #[error(transparent)]
    Key(#[from] KeyError),
}

impl BearerKey {
    /// Reads a Google service account's key file as it comes, or a private key as PEM or JWK.
    ///
    /// The file's `token_uri` isn't read: who writes the Secret doesn't say where tokens are got.
    ///
    /// # Errors
    /// [`BearerKeyError`].
    pub fn parse(text: &SecretString) -> Result<Self, BearerKeyError> {
        #[derive(Deserialize)]
        struct File {
            r#type: String,
            client_email: Option<String>,
            private_key: Option<String>,
            private_key_id: Option<String>,
        }
        const RS256: SigningAlgorithm = SigningAlgorithm::RS256;
        let Ok(file) = serde_json::from_str::<File>(text.expose_secret()) else {
            return Ok(Self { key: SigningKey::parse(text, None, RS256)?, issuer: None });
        };
        match file.r#type.as_str() {
            "external_account" | "external_account_authorized_user" | "impersonated_service_account" => {
                return Err(BearerKeyError::ExternalAccount);
            }
            "authorized_user" => return Err(BearerKeyError::AuthorizedUser),
            "service_account" => {}
            _ => return Err(KeyError::NotAKey.into()),
        }
        let (Some(issuer), Some(key)) = (file.client_email, file.private_key) else {
            return Err(BearerKeyError::Incomplete);
        };
        let key = SigningKey::parse(&key.into(), None, RS256)?.with_key_id(file.private_key_id);
        Ok(Self { key, issuer: Some(issuer) })
    }
}
