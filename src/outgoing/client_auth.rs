//! A client's credentials and how they go into a request (RFC 6749 section 2.3.1, RFC 7523
//! section 2.2).

use super::assertion::{CLIENT_ASSERTION_TYPE, client_assertion};
use super::signing_key::SigningKey;
use crate::domain::{AuthMethod, ClientId};
use crate::http::{BadHeader, Request};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use url::form_urlencoded;

/// Who we are to a server.
#[derive(Clone)]
pub struct ClientCredentials {
    /// The client identifier.
    pub id: ClientId,
    /// How the client authenticates, and with what.
    pub auth: ClientAuth,
}

/// How a client authenticates, and with what.
#[derive(Clone)]
pub enum ClientAuth {
    /// `client_secret_basic`.
    Basic(SecretString),
    /// `client_secret_post`.
    Post(SecretString),
    /// A public client.
    None,
    /// `private_key_jwt`: an assertion of our own, a new one for each request.
    PrivateKey {
        /// Who signs it.
        key: SigningKey,
        /// Its `aud`; `None` for the endpoint that is called.
        audience: Option<String>,
    },
    /// The token of a ServiceAccount, which nobody asked for yet. It can't be sent so: who sends it
    /// makes an [`Self::Assertion`] of it just before.
    ServiceAccount(ServiceAccount),
    /// An assertion that somebody else made.
    Assertion {
        /// The assertion.
        made: SecretString,
        /// Whether it says by itself who we are, so that no `client_id` is sent (RFC 7521 section
        /// 4.2). Some servers refuse one that isn't the assertion's subject.
        names_us: bool,
    },
}

/// A Kubernetes ServiceAccount whose token is an assertion for one audience.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ServiceAccount {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// `aud` of the token.
    pub audience: String,
}

impl ServiceAccount {
    /// `sub` of its tokens.
    pub fn subject(&self) -> String {
        format!("system:serviceaccount:{}:{}", self.namespace, self.name)
    }
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("id", &self.id)
            .field("auth_method", &self.auth.method())
            .finish_non_exhaustive()
    }
}

impl fmt::Debug for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method())
    }
}

impl ClientAuth {
    /// The method as RFC 7591 registers it.
    pub const fn method(&self) -> &'static str {
        match self {
            Self::Basic(_) => "client_secret_basic",
            Self::Post(_) => "client_secret_post",
            Self::None => "none",
            Self::PrivateKey { .. } | Self::ServiceAccount(_) | Self::Assertion { .. } => "private_key_jwt",
        }
    }

    /// What the client proves itself with, where that lasts: a secret, or a private key.
    pub fn lasting(&self) -> Option<&SecretString> {
        match self {
            Self::Basic(secret) | Self::Post(secret) => Some(secret),
            Self::PrivateKey { key, .. } => Some(key.text()),
            Self::None | Self::ServiceAccount(_) | Self::Assertion { .. } => None,
        }
    }
}

impl ClientCredentials {
    /// A client with a secret; a public one has none, whatever is given.
    pub fn by_secret(id: ClientId, method: AuthMethod, secret: SecretString) -> Self {
        let auth = match method {
            AuthMethod::ClientSecretBasic => ClientAuth::Basic(secret),
            AuthMethod::ClientSecretPost => ClientAuth::Post(secret),
            AuthMethod::None => ClientAuth::None,
        };
        Self { id, auth }
    }

    /// Makes `request` a form POST of `pairs` that carries the credentials.
    pub(super) fn form<'a>(
        &'a self,
        request: Request,
        pairs: &[(&'a str, &'a str)],
    ) -> Result<Request, BadHeader> {
        let id = self.id.as_str();
        if let ClientAuth::Basic(secret) = &self.auth {
            let secret = SecretString::from(form_encoded(secret.expose_secret()));
            return request.form(pairs.iter().copied()).basic(&form_encoded(id), &secret);
        }
        let assertion = self.assertion(request.url.as_str())?;
        let mut pairs = pairs.to_vec();
        if !matches!(self.auth, ClientAuth::Assertion { names_us: true, .. }) {
            pairs.push(("client_id", id));
        }
        if let ClientAuth::Post(secret) = &self.auth {
            pairs.push(("client_secret", secret.expose_secret()));
        }
        if let Some(assertion) = &assertion {
            pairs.push(("client_assertion_type", CLIENT_ASSERTION_TYPE));
            pairs.push(("client_assertion", assertion.expose_secret()));
        }
        Ok(request.form(pairs))
    }

    /// The assertion for a request to `endpoint`, for clients that authenticate so.
    pub(super) fn assertion(&self, endpoint: &str) -> Result<Option<SecretString>, BadHeader> {
        match &self.auth {
            ClientAuth::Assertion { made, .. } => Ok(Some(made.clone())),
            ClientAuth::ServiceAccount(_) => Err(BadHeader),
            ClientAuth::PrivateKey { key, audience } => {
                let audience = audience.as_deref().unwrap_or(endpoint);
                let made = client_assertion(key, self.id.as_str(), audience, Timestamp::now());
                made.map(Some).ok_or(BadHeader)
            }
            ClientAuth::Basic(_) | ClientAuth::Post(_) | ClientAuth::None => Ok(None),
        }
    }
}

/// RFC 6749 appendix B: what goes into HTTP Basic is form-encoded first.
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
