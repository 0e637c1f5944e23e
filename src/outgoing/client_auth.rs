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

    /// Whether it authenticates with an assertion that we sign.
    pub(super) const fn signs(&self) -> bool {
        matches!(self.auth, ClientAuth::PrivateKey { .. })
    }

    /// Makes `request` a form POST of `pairs` that carries the credentials.
    pub(super) fn form<'a>(
        &'a self,
        request: Request,
        pairs: &[(&'a str, &'a str)],
    ) -> Result<Request, BadHeader> {
        if matches!(self.auth, ClientAuth::Basic(_)) {
            return self.basic(request.form(pairs.iter().copied()));
        }
        let id = self.id.as_str();
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

    /// Adds the credentials to a request, where they go into its header.
    pub(super) fn basic(&self, request: Request) -> Result<Request, BadHeader> {
        let ClientAuth::Basic(secret) = &self.auth else { return Ok(request) };
        let secret = SecretString::from(encoded(secret.expose_secret()));
        request.basic(&encoded(self.id.as_str()), &secret)
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

/// RFC 6749 section 2.3.1 and appendix B: what goes into HTTP Basic is form-encoded first. Some servers
/// decode it as a part of an address, where `+` is no space; so a space is `%20`, which both readings take.
fn encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect::<String>().replace('+', "%20")
}

#[cfg(test)]
mod tests {
    use super::*;
    use percent_encoding::percent_decode_str;

    #[test]
    fn what_goes_into_basic_is_the_same_to_both_readings() {
        let all: String = (0x20..=0x7e).map(char::from).chain("äé€😀\u{a0}".chars()).collect();
        for text in all.chars().map(String::from).chain([all.clone()]) {
            let encoded = encoded(&text);
            let as_form =
                form_urlencoded::parse(format!("k={encoded}").as_bytes()).next().map(|(_, v)| v.into_owned());
            assert_eq!(as_form.as_deref(), Some(text.as_str()), "{encoded}");
            assert_eq!(percent_decode_str(&encoded).decode_utf8().as_deref(), Ok(text.as_str()), "{encoded}");
            // What a server that decodes nothing would see is plain, too: no colon, no plus sign.
            let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._*%".contains(&b);
            assert!(encoded.bytes().all(plain), "{encoded}");
        }
        assert_eq!(encoded("a b+c:d/ü"), "a%20b%2Bc%3Ad%2F%C3%BC");
    }
}
