//! A client's credentials and how they go into a request (RFC 6749 section 2.3.1).

use crate::domain::{AuthMethod, ClientId};
use crate::http::{BadHeader, Request};
use secrecy::{ExposeSecret as _, SecretString};
use std::fmt;
use url::form_urlencoded;

/// Who we are to a server.
#[derive(Clone)]
pub struct ClientCredentials {
    /// The client identifier.
    pub id: ClientId,
    /// The client secret; a public client has none.
    pub secret: Option<SecretString>,
    /// How the client authenticates.
    pub auth_method: AuthMethod,
}

impl fmt::Debug for ClientCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientCredentials")
            .field("id", &self.id)
            .field("auth_method", &self.auth_method)
            .finish_non_exhaustive()
    }
}

impl ClientCredentials {
    /// The secret, unless the client is a public one.
    pub(super) fn sent_secret(&self) -> Option<&SecretString> {
        self.secret.as_ref().filter(|_| !self.auth_method.is_public())
    }

    /// Makes `request` a form POST of `pairs` that carries the credentials.
    pub(super) fn form<'a>(
        &'a self,
        request: Request,
        pairs: &[(&'a str, &'a str)],
    ) -> Result<Request, BadHeader> {
        let mut pairs = pairs.to_vec();
        match (self.auth_method, self.sent_secret()) {
            (AuthMethod::ClientSecretBasic, Some(secret)) => {
                let secret = SecretString::from(form_encoded(secret.expose_secret()));
                return request.form(pairs).basic(&form_encoded(self.id.as_str()), &secret);
            }
            (_, Some(secret)) => {
                pairs.push(("client_id", self.id.as_str()));
                pairs.push(("client_secret", secret.expose_secret()));
            }
            (_, None) => pairs.push(("client_id", self.id.as_str())),
        }
        Ok(request.form(pairs))
    }
}

/// RFC 6749 appendix B: what goes into HTTP Basic is form-encoded first.
fn form_encoded(text: &str) -> String {
    form_urlencoded::byte_serialize(text.as_bytes()).collect()
}
