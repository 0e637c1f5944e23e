//! `bitbucket`: Bitbucket Data Center, by the REST API of its OAuth 2.0 application links.
//!
//! That API isn't published, and this adapter was written without a Bitbucket to try it on. So it
//! holds to few facts, and reads answers with tolerance; what it can't read is an error that says
//! so. Bitbucket chooses identifier and secret. A client is found again by its name, which ends
//! with a tag that we choose, or faster by the number in its handle.

mod prove;
mod record;
mod scopes;

use self::prove::Controls;
use self::record::{Asked, Handle, Record, Records, secret, tag_of, tagged, untagged};
use super::wire::{Wire, rejected};
use super::{
    Capabilities, ClientRef, Page, Proof, Provider, ProviderError, ProviderInfo, PutClient, PutSecret,
    Registered, RegisteredClient,
};
use crate::domain::{AuthMethod, ClientId, ClientMetadata, GrantType, RedirectUri, Scope, SecretString};
use crate::http::{HttpClient, Method, Request, Response};
use async_trait::async_trait;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use url::Url;

/// Where the API is under the base URL, unless the spec says otherwise.
const API: &str = "/rest/oauth2/latest";
/// The list of clients comes whole, so it may be long.
const MAX_LIST: usize = 16 << 20;
/// More pages than this are a list that doesn't end.
const MAX_PAGES: usize = 1000;

const UNREADABLE: &str =
    "a client isn't written as this operator knows it; is this version of Bitbucket supported?";

/// As whom Bitbucket is called: a system administrator.
#[derive(Debug, Clone)]
pub enum BitbucketLogin {
    /// By name and password.
    User {
        /// The name.
        name: SecretString,
        /// The password.
        password: SecretString,
    },
    /// By an OAuth access token.
    Token(SecretString),
}

/// A client of Bitbucket's REST API.
#[derive(Debug)]
pub struct BitbucketProvider {
    wire: Wire,
    /// The same, with room for a list.
    lists: Wire,
    issuer: String,
    base: Url,
    login: BitbucketLogin,
    controls: Controls,
}

impl BitbucketProvider {
    /// The Bitbucket at `base`, which has its OAuth API at `path` below that.
    pub fn new(http: HttpClient, base: &Url, path: Option<&str>, login: BitbucketLogin) -> Self {
        let mut api = base.clone();
        api.set_path(&format!("{}{}", base.path().trim_end_matches('/'), path.unwrap_or(API)));
        let hint = "check that spec.bitbucket.url is Bitbucket's base URL, that apiPath is right, and that this \
                    version of Bitbucket has OAuth 2.0 application links";
        Self {
            lists: Wire::new(http.clone().with_max_body(MAX_LIST), api.clone(), hint),
            wire: Wire::new(http, api, hint),
            issuer: base.as_str().trim_end_matches('/').to_owned(),
            base: base.clone(),
            login,
            controls: Controls::default(),
        }
    }

    async fn call(&self, wire: &Wire, request: Request) -> Result<Response, ProviderError> {
        use crate::domain::ExposeSecret as _;
        match &self.login {
            BitbucketLogin::Token(token) => wire.send_with(request, Some(token)).await,
            BitbucketLogin::User { name, password } => {
                let request =
                    request.basic(name.expose_secret(), password).map_err(|_| wire.unauthorized(0))?;
                wire.send(request).await
            }
        }
    }

    fn record(&self, response: &Response) -> Result<Record, ProviderError> {
        let value: Value = self.wire.body(response)?;
        Record::read(&value).ok_or_else(|| self.wire.unexpected(response.status, UNREADABLE))
    }

    /// Checks that a success comes from the API, which may say something or nothing, and isn't the
    /// page of something else.
    fn done(&self, response: &Response) -> Result<(), ProviderError> {
        if response.body.is_empty() { Ok(()) } else { self.wire.body::<Value>(response).map(|_| ()) }
    }

    /// The metadata of the server, which may not be there; then its paths are the known ones.
    async fn told(&self) -> Result<Option<Value>, ProviderError> {
        let at = self.wire.url(&[".well-known", "oauth-authorization-server"])?;
        let response = self.call(&self.wire, Request::get(at)).await?;
        match response.status {
            200 => Ok(Some(self.wire.body(&response)?)),
            404 => Ok(None),
            status => Err(self.wire.other(status)),
        }
    }

    /// An address that the server names, where it is one of its own: clients' secrets go there.
    fn own(&self, address: &str) -> Option<String> {
        let url = Url::parse(address).ok().filter(|_| super::wire::is_address(address))?;
        (url.origin() == self.base.origin()).then(|| address.to_owned())
    }

    /// A page of all clients; most likely there is one.
    async fn page(&self, start: Option<&str>) -> Result<Records, ProviderError> {
        let mut url = self.wire.url(&["client"])?;
        if let Some(start) = start {
            url.query_pairs_mut().append_pair("start", start);
        }
        let response = self.call(&self.lists, Request::get(url)).await?;
        if response.status != 200 {
            return Err(self.wire.other(response.status));
        }
        Records::read(&self.wire.body(&response)?).ok_or_else(|| self.wire.unexpected(200, UNREADABLE))
    }

    /// The client with a number, in full.
    async fn fetch(&self, id: &str) -> Result<Option<Record>, ProviderError> {
        let response = self.call(&self.wire, Request::get(self.wire.url(&["client", id])?)).await?;
        match response.status {
            200 => Ok(Some(self.record(&response)?)),
            404 => Ok(None),
            status => Err(self.wire.other(status)),
        }
    }

    /// The client that `fits`, among all. Two are one too many to choose from.
    async fn search(&self, fits: impl Fn(&Record) -> bool) -> Result<Option<Record>, ProviderError> {
        let (mut found, mut start) = (None, None);
        for _ in 0..MAX_PAGES {
            let page = self.page(start.as_deref()).await?;
            for record in page.records.into_iter().filter(&fits) {
                if found.replace(record).is_some() {
                    return Err(rejected(
                        "two-clients",
                        "two clients at Bitbucket carry the tag of this link at the end of their names; delete the \
                         one that isn't in use",
                    ));
                }
            }
            match page.next {
                None => return Ok(found),
                next => start = next,
            }
        }
        Err(self.wire.unexpected(200, "the list of clients doesn't end"))
    }

    /// The client, and what is known of it. That a number isn't there is no proof, since the whole
    /// API may be off: so the list has the last word.
    async fn find(&self, at: &ClientRef) -> Result<Option<(Record, Handle)>, ProviderError> {
        let handle = Handle::read(at.handle.as_ref());
        if let Some(handle) = &handle
            && let Some(record) = self.fetch(&handle.id).await?
            && record.client_id.as_str() == handle.client_id
        {
            return Ok(Some((record, handle.clone())));
        }
        let tag = handle.as_ref().map_or(at.id.as_str(), |h| h.tag.as_str());
        let fits = |record: &Record| {
            untagged(&record.name, tag).is_some()
                || handle.as_ref().is_some_and(|h| h.client_id == record.client_id.as_str())
                || record.client_id == at.id
        };
        let Some(listed) = self.search(fits).await? else { return Ok(None) };
        // The list may tell less than the client itself.
        let record = self.fetch(&listed.id).await?.unwrap_or(listed);
        let asked = handle.as_ref().and_then(|h| h.asked.clone());
        let handle = Handle::of(&record, tag, asked);
        Ok(Some((record, handle)))
    }

    async fn create(&self, put: &PutClient, tag: &str, body: &Value) -> Result<Registered, ProviderError> {
        let request = Request::post(self.wire.url(&["client"])?).json(body);
        let response = self.call(&self.wire, request).await?;
        let ours = |record: &Record| untagged(&record.name, tag).is_some();
        match response.status {
            200 | 201 | 204 => {}
            // Which of the two it is only the list says: the words of an error mean nothing.
            400 | 409 | 422 if self.search(ours).await?.is_some() => return Err(ProviderError::Conflict),
            409 => return Err(ProviderError::Conflict),
            400 | 422 => return Err(REFUSED),
            status => return Err(self.wire.other(status)),
        }
        let told = response.json().and_then(|v| Record::read(&v));
        let record = match told {
            Some(record) => record,
            None => self.search(ours).await?.ok_or_else(|| {
                self.wire.unexpected(response.status, "it made a client that it doesn't list")
            })?,
        };
        let secret = match record.secret.clone() {
            Some(secret) => secret,
            None => self.reset(&record.client_id, &record.id).await?,
        };
        let handle = Handle::of(&record, tag, Some(Asked::from(&put.metadata)));
        Ok(Registered {
            id: record.client_id,
            secret: Some(secret),
            secret_expires_at: None,
            handle: handle.write(),
        })
    }

    async fn update(&self, put: &PutClient, tag: &str, body: &Value) -> Result<Registered, ProviderError> {
        let (number, id) = match Handle::read(put.at.handle.as_ref()) {
            Some(handle) => (handle.id, ClientId::parse(&handle.client_id).ok()),
            None => match self.find(&put.at).await? {
                Some((record, _)) => (record.id, Some(record.client_id)),
                None => return Err(ProviderError::Conflict),
            },
        };
        let id = id.ok_or(ProviderError::Conflict)?;
        let request =
            Request::new(Method::PUT, self.wire.url(&["client", &number])?).accept_json().json(body);
        let response = self.call(&self.wire, request).await?;
        match response.status {
            200 | 204 => self.done(&response)?,
            409 => return Err(ProviderError::Conflict),
            // It went meanwhile, or another server answers: the list tells.
            404 if self.find(&put.at).await?.is_none() => return Err(ProviderError::Conflict),
            400 | 422 => return Err(REFUSED),
            status => return Err(self.wire.other(status)),
        }
        let secret = match put.secret {
            PutSecret::Fresh => Some(self.reset(&id, &number).await?),
            _ => None,
        };
        let handle = Handle {
            id: number,
            client_id: id.to_string(),
            tag: tag.to_owned(),
            asked: Some(Asked::from(&put.metadata)),
        };
        Ok(Registered { id, secret, secret_expires_at: None, handle: handle.write() })
    }

    /// Has Bitbucket make a new secret; the one before ends at once.
    async fn reset(&self, id: &ClientId, number: &str) -> Result<SecretString, ProviderError> {
        let url = self.wire.url(&["client", "reset", id.as_str()])?;
        let response = self.call(&self.wire, Request::new(Method::PUT, url).accept_json()).await?;
        match response.status {
            200 | 204 => {}
            404 => return Err(ProviderError::Conflict),
            status => return Err(self.wire.other(status)),
        }
        let told = response.json().and_then(|v| secret(&v));
        let told = match told {
            Some(told) => Some(told),
            None => self.fetch(number).await?.and_then(|record| record.secret),
        };
        told.ok_or_else(|| self.wire.unexpected(response.status, "the new secret isn't in the answer"))
    }
}

const AUTH_METHOD: ProviderError = rejected(
    "invalid-auth-method",
    "Bitbucket takes client_secret_post alone; set spec.incoming.oauth2.tokenEndpointAuthMethod to it",
);

const REFUSED: ProviderError = rejected(
    "invalid-request",
    "compare spec.incoming.oauth2 and spec.application.name with what Bitbucket's own form for an incoming link allows",
);

/// The one scope that the client gets; what Bitbucket can't hold is refused before anything is sent.
fn writable(m: &ClientMetadata) -> Result<&'static str, ProviderError> {
    if m.auth_method != AuthMethod::ClientSecretPost {
        return Err(AUTH_METHOD);
    }
    if !m.grant_types.contains(&GrantType::AuthorizationCode)
        || !m.grant_types.is_subset(&record::grant_types())
    {
        return Err(rejected(
            "invalid-grant-types",
            "Bitbucket's clients have authorization_code, and refresh_token with it; change \
             spec.incoming.oauth2.grantTypes",
        ));
    }
    if m.redirect_uris.is_empty() {
        return Err(rejected(
            "invalid-redirect-uri",
            "Bitbucket's clients need a redirect URI; add one to spec.incoming.oauth2.redirectUris",
        ));
    }
    if m.redirect_uris.iter().any(|u| u.as_str().starts_with("http:") && u.host() != "localhost") {
        return Err(rejected(
            "invalid-redirect-uri",
            "Bitbucket takes plain http for localhost alone, by that name; change \
             spec.incoming.oauth2.redirectUris",
        ));
    }
    scopes::top(m.scopes.iter().map(Scope::as_str)).ok_or(rejected(
        "invalid-scope",
        "a client of Bitbucket has one scope; in spec.incoming.oauth2.scopes name one that implies the others: \
         SYSTEM_ADMIN > ADMIN_WRITE > PROJECT_ADMIN > REPO_ADMIN > REPO_WRITE > REPO_READ > PUBLIC_REPOS, and \
         ADMIN_WRITE > ACCOUNT_WRITE > PUBLIC_REPOS",
    ))
}

#[async_trait]
impl Provider for BitbucketProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chooses_id: false,
            chooses_secret: false,
            // Nobody has seen that it can; where it is told, it is passed on.
            reads_secret: false,
            rotates: true,
            overlaps: false,
            lists: true,
            tells_owner: false,
            proves: true,
            tells_changes: false,
            expires_secret: false,
            revokes_tokens: false,
        }
    }

    async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        // This one says whether our credential is taken and the API is there.
        self.page(None).await?;
        let told = self.told().await?;
        let endpoint = |field: &str, segment: &str| -> Result<String, ProviderError> {
            match told.as_ref().and_then(|t| t.get(field)).and_then(Value::as_str).and_then(|u| self.own(u)) {
                Some(url) => Ok(url),
                None => Ok(self.wire.url(&[segment])?.to_string()),
            }
        };
        Ok(ProviderInfo {
            instance: String::new(),
            issuer: self.issuer.clone(),
            authorization_endpoint: Some(endpoint("authorization_endpoint", "authorize")?),
            token_endpoint: endpoint("token_endpoint", "token")?,
            revocation_endpoint: Some(endpoint("revocation_endpoint", "revoke")?),
            scopes: Some(scopes::offered()),
            grant_types: Some(record::grant_types()),
            served: None,
            auth_methods: Some(BTreeSet::from([AuthMethod::ClientSecretPost])),
            redirect_required: true,
        })
    }

    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError> {
        let found = self.find(at).await?;
        Ok(found.map(|(record, handle)| record.registered(&handle, at.handle.as_ref())))
    }

    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        if put.revoke_tokens {
            return Err(ProviderError::Unsupported { what: "revoking the tokens of one client" });
        }
        match put.secret {
            PutSecret::Chosen { .. } => {
                return Err(ProviderError::Unsupported { what: "choosing a client's secret" });
            }
            PutSecret::Public => return Err(AUTH_METHOD),
            PutSecret::Kept | PutSecret::Fresh => {}
        }
        let scope = writable(&put.metadata)?;
        let tag = Handle::read(put.at.handle.as_ref()).map_or_else(|| put.at.id.to_string(), |h| h.tag);
        // No value is blank: Bitbucket takes a blank one from what it has.
        let body = json!({
            "name": tagged(&put.metadata.name, &tag),
            "redirects": put.metadata.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
            "scope": scope,
        });
        if put.exists { self.update(put, &tag, &body).await } else { self.create(put, &tag, &body).await }
    }

    async fn delete(&self, at: &ClientRef, _version: Option<&str>) -> Result<(), ProviderError> {
        let Some((record, _)) = self.find(at).await? else { return Ok(()) };
        let url = self.wire.url(&["client", &record.id])?;
        let response = self.call(&self.wire, Request::new(Method::DELETE, url).accept_json()).await?;
        match response.status {
            200 | 204 => self.done(&response),
            // Somebody was quicker, or another server answers: the list tells.
            404 if self.find(at).await?.is_none() => Ok(()),
            status => Err(self.wire.other(status)),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Page, ProviderError> {
        let page = self.page(after).await?;
        let tell = |record: Record| {
            let handle = Handle::of(&record, tag_of(&record.name).unwrap_or_default(), None);
            record.registered(&handle, None)
        };
        Ok(Page { clients: page.records.into_iter().map(tell).collect(), next: page.next })
    }

    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof {
        self.controls.prove(self.wire.http(), info, id, secret, method).await
    }
}
