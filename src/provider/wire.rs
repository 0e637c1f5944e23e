//! What the adapters share: one call of a service's API, and what its answer means whichever
//! service it is. Nothing that a server wrote gets into an error.

use super::ProviderError;
use crate::domain::{GrantType, Owner, SecretString};
use crate::http::{HttpClient, Request, Response, SendError, Trust};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::json;
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

/// How large answers may be, in bytes. What a tenant's server says is read, and kept, beside that of many others.
pub(super) struct Room {
    /// A page of clients, and any other list.
    pub(super) page: usize,
    /// What the service says of itself.
    pub(super) info: usize,
    /// What changed.
    pub(super) changes: usize,
    /// How many scopes are kept of those that it offers.
    pub(super) scopes: usize,
}

const PLATFORM: Room = Room { page: 16 << 20, info: 256 << 10, changes: 4 << 20, scopes: usize::MAX };
const TENANT: Room = Room { page: 2 << 20, info: 64 << 10, changes: 256 << 10, scopes: 500 };

/// The longest text of a service that is kept and is neither an address nor a name of something, in bytes.
const MAX_MARK: usize = 256;

/// An API at an address.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    http: HttpClient,
    base: Url,
    /// What to check where the answers are those of some other server.
    hint: &'static str,
}

impl Wire {
    /// The API at `base`. `hint` is what a person should check where something else answers there,
    /// such as "check that spec.hydra.admin.url is the admin API's address".
    pub(super) fn new(http: HttpClient, base: Url, hint: &'static str) -> Self {
        Self { http, base, hint }
    }

    /// The client that calls are made with.
    pub(super) fn http(&self) -> &HttpClient {
        &self.http
    }

    /// How large its answers may be.
    pub(super) fn room(&self) -> &'static Room {
        match self.http.trust() {
            Trust::Trusted => &PLATFORM,
            Trust::Guarded => &TENANT,
        }
    }

    /// What the service calls its present life, or a place in a list, where that is short enough to keep.
    pub(super) fn mark(&self, text: String) -> Result<String, ProviderError> {
        let fits = text.len() <= MAX_MARK;
        fits.then_some(text).ok_or_else(|| self.unexpected(200, "an identifier in it is too long to keep"))
    }

    /// The same API, called with more time and room for an answer.
    pub(super) fn patient(&self, timeout: Duration, max_body: usize) -> Self {
        let http = self.http.clone().with_timeout(timeout).with_max_body(max_body);
        Self { http, ..self.clone() }
    }

    /// The same API, called for a page of clients.
    pub(super) fn paging(&self) -> Self {
        self.patient(self.http.timeout() * 2, self.room().page)
    }

    /// An address below the base. The segments are encoded.
    ///
    /// # Errors
    /// [`ProviderError::Rejected`] for a segment that a URL can't carry: `.` and `..` would mean
    /// another address.
    pub(super) fn url(&self, segments: &[&str]) -> Result<Url, ProviderError> {
        if segments.iter().any(|s| matches!(*s, "" | "." | "..")) {
            return Err(rejected("invalid-client-id", "name a client that isn't called . or .."));
        }
        let mut url = self.base.clone();
        // Only a URL that can't be a base has no segments, and those are refused at `kubectl apply`.
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        Ok(url)
    }

    /// The address as errors show it.
    pub(super) fn shown(&self) -> String {
        self.base.origin().ascii_serialization()
    }

    /// Sends a request. Where the service refuses our credential, is busy or doesn't answer, that is
    /// the error; any other answer is the adapter's to read.
    pub(super) async fn send(&self, request: Request) -> Result<Response, ProviderError> {
        let response = self.http.send(request).await.map_err(|e| self.unanswered(&e))?;
        match response.status {
            401 | 403 => Err(self.unauthorized(response.status)),
            status @ (429 | 503) => Err(ProviderError::Busy { status, retry_after: response.retry_after }),
            _ => Ok(response),
        }
    }

    /// Sends a request with a bearer token, where there is one.
    pub(super) async fn send_with(
        &self,
        request: Request,
        token: Option<&SecretString>,
    ) -> Result<Response, ProviderError> {
        let request = match token {
            Some(token) => request.bearer(token).map_err(|_| self.unauthorized(0))?,
            None => request,
        };
        self.send(request).await
    }

    /// Our credential isn't taken; status 0: it can't even be sent.
    pub(super) fn unauthorized(&self, status: u16) -> ProviderError {
        ProviderError::Unauthorized { url: self.shown(), status }
    }

    /// Why a request has no answer that can be read.
    pub(super) fn unanswered(&self, e: &SendError) -> ProviderError {
        match e {
            SendError::Refused(why) => ProviderError::Refused { url: self.shown(), why: *why },
            SendError::TooLarge => self.unexpected(0, "the body is larger than is read"),
            SendError::Undecodable(_) => self
                .unexpected(0, "the body is in a content coding that can't be read; see the proxy before it"),
            e => ProviderError::Unreachable { url: self.shown(), why: e.to_string() },
        }
    }

    /// An answer that the API shouldn't give; status 0 where it wasn't read so far.
    pub(super) fn unexpected(&self, status: u16, why: &'static str) -> ProviderError {
        ProviderError::Unexpected { url: self.shown(), status, why }
    }

    /// An answer by a status that the adapter has no meaning for.
    pub(super) fn other(&self, status: u16) -> ProviderError {
        self.unexpected(
            status,
            if status >= 500 { "it has trouble of its own; see its log" } else { self.hint },
        )
    }

    /// Reads a JSON body.
    pub(super) fn body<T: for<'de> Deserialize<'de>>(&self, response: &Response) -> Result<T, ProviderError> {
        let body = response.json().and_then(|value| serde_json::from_value(value).ok());
        body.ok_or_else(|| self.unexpected(response.status, "the body isn't what this API answers"))
    }

    /// Reads server metadata (RFC 8414, OpenID Connect Discovery) at an address.
    pub(super) async fn metadata(&self, at: Url) -> Result<Metadata, ProviderError> {
        let plain = at.scheme() == "http";
        let response = self.send(Request::get(at)).await?;
        if response.status != 200 {
            return Err(self.other(response.status));
        }
        let metadata: Metadata = self.body(&response)?;
        if !metadata.addresses().all(is_address) {
            return Err(self.unexpected(200, "an address in its metadata isn't a URL"));
        }
        if !plain && metadata.addresses().any(|a| a.starts_with("http:")) {
            return Err(self.unexpected(200, "an address in its metadata is plain http, though it is https"));
        }
        Ok(metadata)
    }
}

/// The refusal of what a client should be, by a code that we know.
pub(super) const fn rejected(code: &'static str, hint: &'static str) -> ProviderError {
    ProviderError::Rejected { code, hint }
}

/// Whether a put may write over a client, for a service that keeps the owner's record but doesn't
/// read it. `knows`: the caller saw this very state of the client.
///
/// # Errors
/// [`ProviderError::ForeignOwner`]: it is another link's, or nobody's and wasn't seen so.
pub(super) fn may_write_over(there: Option<&Owner>, wants: &Owner, knows: bool) -> Result<(), ProviderError> {
    let may = match there {
        None => knows,
        Some(has) => {
            let link = |o: &Owner| (o.installation.clone(), o.namespace.clone(), o.name.clone());
            let uids = |o: &Owner| (o.uid.clone(), o.namespace_uid.clone());
            link(has) == link(wants) && (knows || uids(has) == uids(wants))
        }
    };
    may.then_some(()).ok_or(ProviderError::ForeignOwner)
}

/// A version for services that know none: the same while a client stands as it was seen.
pub(super) fn version_of(client: &serde_json::Value) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(client.to_string()))
}

/// Whether a text that a server wrote may stand in a Secret as an address.
pub(super) fn is_address(text: &str) -> bool {
    text.len() <= 2048
        && !text.chars().any(|c| c.is_control() || c.is_whitespace())
        && (text.starts_with("https://") || text.starts_with("http://"))
        && Url::parse(text).is_ok_and(|u| u.has_host() && u.username().is_empty() && u.password().is_none())
}

/// What a server says of itself.
#[derive(Debug, Clone, Deserialize)]
#[allow(dead_code, reason = "each adapter reads a part of it")]
pub(super) struct Metadata {
    pub(super) issuer: String,
    #[serde(default)]
    pub(super) authorization_endpoint: Option<String>,
    pub(super) token_endpoint: String,
    #[serde(default)]
    pub(super) revocation_endpoint: Option<String>,
    #[serde(default)]
    pub(super) registration_endpoint: Option<String>,
    #[serde(default)]
    pub(super) scopes_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) grant_types_supported: Option<Vec<String>>,
    #[serde(default)]
    pub(super) token_endpoint_auth_methods_supported: Option<Vec<String>>,
}

impl Metadata {
    /// The grant types that it says are served.
    pub(super) fn served(&self) -> Option<BTreeSet<GrantType>> {
        let named = |name: &String| serde_json::from_value(json!(name)).ok();
        self.grant_types_supported.as_ref().map(|all| all.iter().filter_map(named).collect())
    }

    fn addresses(&self) -> impl Iterator<Item = &str> {
        [
            Some(&self.issuer),
            self.authorization_endpoint.as_ref(),
            Some(&self.token_endpoint),
            self.revocation_endpoint.as_ref(),
            self.registration_endpoint.as_ref(),
        ]
        .into_iter()
        .flatten()
        .map(String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::testing::local;

    #[test]
    fn segments_stay_segments() {
        let base = Url::parse("https://p.example/base/").expect("url");
        let wire = Wire::new(local(), base, "hint");
        let url = |id| wire.url(&["admin", id]).map(|u| u.to_string());
        assert_eq!(url("a/b?c#d%2f"), Ok("https://p.example/base/admin/a%2Fb%3Fc%23d%252f".to_owned()));
        for bad in ["", ".", ".."] {
            assert!(matches!(url(bad), Err(ProviderError::Rejected { .. })), "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_urls_with_a_host() {
        for good in ["https://p.example", "http://127.0.0.1:4444/oauth2/token"] {
            assert!(is_address(good), "{good}");
        }
        for bad in [
            "",
            "p.example",
            "https:p.example",
            "https://u:p@p.example/",
            "https://p.example/a b",
            "ftp://p.example/",
        ] {
            assert!(!is_address(bad), "{bad}");
        }
    }
}
