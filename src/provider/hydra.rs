//! `hydra`: Ory Hydra 2.x, by its admin API.
//!
//! Hydra fills in what is left out, changes a client by replacing it whole, and knows no versions.
//! So every field that a link speaks of is always said; a change starts from what stands there, so
//! that what a link doesn't speak of stays (lifetimes, audiences, foreign keys of `metadata`), is
//! made only on the state that the caller saw, and is read back.

use super::proof::prove_by_revocation;
use super::wire::{Wire, may_write_over, rejected, version_of};
use super::{
    Capabilities, ClientRef, Page, Proof, Provider, ProviderError, ProviderInfo, PutClient, PutSecret,
    Registered, RegisteredClient,
};
use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, RedirectUri, ScopeSet,
    SecretString,
};
use crate::http::{HttpClient, Method, Request, Response};
use async_trait::async_trait;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use url::{Url, form_urlencoded};

/// A client of Hydra's admin API.
#[derive(Debug, Clone)]
pub struct HydraProvider {
    public: Wire,
    admin: Wire,
    token: Option<SecretString>,
}

/// The key of a client's `metadata` that the owner's record stands under.
const OWNER: &str = "applink-operator.io/owner";
/// What a client without scopes is said to have: an empty text would be filled in with
/// `offline_access offline openid`.
const NO_SCOPES: &str = " ";
/// What Hydra says of a client that isn't there. Any other 404 is another server's.
const ABSENT: &str = "Unable to locate the resource";
/// What Hydra says, with a 400, where its database let something else go first. Nothing happened.
const CONCURRENT: &str = "Unable to serialize access due to a concurrent update in another session";
/// Clients a page.
const PAGE_SIZE: &str = "500";
/// A client that isn't asked for by anybody else: whether it is there or not, only Hydra says so.
const PROBE: &str = "applink-operator-probe";

/// A client as Hydra tells it, with all that it has.
struct Client(Map<String, Value>);

impl Client {
    fn text(&self, field: &str) -> Option<&str> {
        match self.0.get(field) {
            None | Some(Value::Null) => Some(""),
            Some(value) => value.as_str(),
        }
    }

    fn texts(&self, field: &str) -> Option<BTreeSet<&str>> {
        match self.0.get(field) {
            None | Some(Value::Null) => Some(BTreeSet::new()),
            Some(value) => value.as_array()?.iter().map(Value::as_str).collect(),
        }
    }

    fn id(&self) -> Option<ClientId> {
        ClientId::parse(self.text("client_id")?).ok()
    }

    fn method(&self) -> Option<AuthMethod> {
        let name = self.text("token_endpoint_auth_method")?;
        [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None]
            .into_iter()
            .find(|m| m.as_str() == name)
    }

    fn metadata(&self) -> Option<ClientMetadata> {
        let grant = |name: &&str| {
            [GrantType::AuthorizationCode, GrantType::ClientCredentials, GrantType::RefreshToken]
                .into_iter()
                .find(|g| g.as_str() == *name)
        };
        // With one of the others it would get tokens out of the authorization endpoint.
        if self.texts("response_types")?.iter().any(|t| *t != "code") {
            return None;
        }
        let uris = self.texts("redirect_uris")?;
        Some(ClientMetadata {
            name: self.text("client_name")?.to_owned(),
            uri: Some(self.text("client_uri")?).filter(|u| !u.is_empty()).map(str::to_owned),
            redirect_uris: uris.into_iter().map(RedirectUri::parse).collect::<Result<_, _>>().ok()?,
            grant_types: self.texts("grant_types")?.iter().map(grant).collect::<Option<_>>()?,
            scopes: ScopeSet::parse(self.text("scope")?).ok()?,
            auth_method: self.method()?,
        })
    }

    /// The owner's record: `Err` where something stands in its place that isn't one.
    fn owner(&self) -> Result<Option<Owner>, ProviderError> {
        match self.0.get("metadata").and_then(|m| m.get(OWNER)) {
            None => Ok(None),
            Some(record) => Owner::deserialize(record).map(Some).map_err(|_| ProviderError::ForeignOwner),
        }
    }

    fn version(&self) -> String {
        version_of(&Value::Object(self.0.clone()))
    }

    fn registered(&self, id: ClientId) -> RegisteredClient {
        RegisteredClient {
            id,
            metadata: self.metadata(),
            has_secret: self.method() != Some(AuthMethod::None),
            secret: None,
            secret_expires_at: None,
            has_previous: false,
            owner: self.owner().unwrap_or_default(),
            protected: false,
            version: Some(self.version()),
            handle: None,
        }
    }

    /// Makes it what it should be; the rest stays.
    fn set(&mut self, put: &PutClient) {
        let m = &put.metadata;
        let scopes = if m.scopes.is_empty() { NO_SCOPES.to_owned() } else { m.scopes.to_string() };
        let uses_codes = m.grant_types.contains(&GrantType::AuthorizationCode);
        for (field, value) in [
            ("client_id", json!(put.at.id.as_str())),
            ("client_name", json!(m.name)),
            ("client_uri", json!(m.uri.as_deref().unwrap_or_default())),
            ("redirect_uris", json!(m.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>())),
            ("grant_types", json!(m.grant_types)),
            ("response_types", if uses_codes { json!(["code"]) } else { json!([]) }),
            ("scope", json!(scopes)),
            ("token_endpoint_auth_method", json!(m.auth_method)),
        ] {
            self.0.insert(field.to_owned(), value);
        }
        match self.0.get_mut("metadata") {
            Some(Value::Object(kept)) => {
                kept.insert(OWNER.to_owned(), json!(put.owner));
            }
            _ => {
                self.0.insert("metadata".to_owned(), json!({ OWNER: put.owner }));
            }
        }
        // Left out, the one that is there stays.
        self.0.remove("client_secret");
        if let PutSecret::Chosen { secret, .. } = &put.secret {
            self.0.insert("client_secret".to_owned(), json!(secret.expose_secret()));
        }
    }

    fn is(&self, put: &PutClient) -> bool {
        self.metadata().as_ref() == Some(&put.metadata)
            && self.owner().is_ok_and(|o| o.as_ref() == Some(&put.owner))
    }
}

#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    error: String,
}

fn problem(response: &Response) -> Problem {
    response.json().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

fn is_absent(response: &Response) -> bool {
    response.status == 404 && response.is_json() && problem(response).error == ABSENT
}

/// The token of the page that a `Link` header (RFC 8288) calls the next one: `Err` where it names
/// one that has no token.
fn next_page(link: &str) -> Result<Option<String>, ()> {
    let is_next = |l: &&str| l.contains("rel=\"next\"") || l.contains("rel=next");
    let Some(next) = link.split(',').find(is_next) else { return Ok(None) };
    let address = next.split_once('<').and_then(|(_, rest)| rest.split_once('>')).ok_or(())?.0;
    // The address itself isn't called: a server's word doesn't change whom we ask.
    let query = address.split_once('?').ok_or(())?.1;
    let token = form_urlencoded::parse(query.as_bytes()).find(|(name, _)| name == "page_token").ok_or(())?.1;
    if token.is_empty() || token.len() > 4096 { Err(()) } else { Ok(Some(token.into_owned())) }
}

impl HydraProvider {
    /// A client of Hydra, whose public address is `public` and whose admin API is at `admin`, with
    /// a bearer token where a proxy before that asks for one.
    pub fn new(http: HttpClient, public: Url, admin: Url, token: Option<SecretString>) -> Self {
        Self {
            public: Wire::new(http.clone(), public, "check that spec.hydra.url is Hydra's public address"),
            admin: Wire::new(
                http,
                admin,
                "check that spec.hydra.admin.url is the address of Hydra's admin API, without /admin",
            ),
            token,
        }
    }

    fn client_url(&self, id: &ClientId) -> Result<Url, ProviderError> {
        // Hydra's router reads an encoded slash as one, so such a client can be made but not asked for.
        if id.as_str().contains('/') {
            return Err(rejected("invalid-client-id", "name a client without a slash in its identifier"));
        }
        self.admin.url(&["admin", "clients", id.as_str()])
    }

    async fn call(&self, request: Request) -> Result<Response, ProviderError> {
        self.admin.send_with(request, self.token.as_ref()).await
    }

    /// What an answer other than the ones hoped for means.
    fn refusal(&self, response: &Response) -> ProviderError {
        match (response.status, problem(response).error.as_str()) {
            (409, _) | (400, CONCURRENT) => ProviderError::Conflict,
            (400, "invalid_redirect_uri") => {
                rejected("invalid-redirect-uri", "change spec.incoming.oauth2.redirectUris")
            }
            (400, "invalid_client_metadata" | "invalid_request") => {
                rejected("invalid-request", "compare spec.incoming with what Hydra allows")
            }
            (413, _) => rejected("too-large", "name fewer or shorter redirectUris"),
            (status, _) => self.admin.other(status),
        }
    }

    fn read(&self, response: &Response) -> Result<Client, ProviderError> {
        self.admin.body(response).map(Client)
    }

    async fn client(&self, id: &ClientId) -> Result<Option<Client>, ProviderError> {
        let response = self.call(Request::get(self.client_url(id)?)).await?;
        match response.status {
            200 => {
                let client = self.read(&response)?;
                if client.id().as_ref() != Some(id) {
                    return Err(self.admin.unexpected(200, "it is another client"));
                }
                Ok(Some(client))
            }
            404 if is_absent(&response) => Ok(None),
            _ => Err(self.refusal(&response)),
        }
    }

    async fn create(&self, put: &PutClient, mut client: Client) -> Result<Registered, ProviderError> {
        // Refused here, or it could be made and never be read.
        self.client_url(&put.at.id)?;
        client.set(put);
        let request = Request::post(self.admin.url(&["admin", "clients"])?).json(&Value::Object(client.0));
        let response = self.call(request).await?;
        match response.status {
            201 => self.written(&self.read(&response)?, put),
            409 => {
                let there = self.client(&put.at.id).await?;
                if let Some(there) = there {
                    may_write_over(there.owner()?.as_ref(), &put.owner, false)?;
                }
                Err(ProviderError::Conflict)
            }
            _ => Err(self.refusal(&response)),
        }
    }

    async fn change(&self, put: &PutClient, mut client: Client) -> Result<Registered, ProviderError> {
        client.set(put);
        let request = Request::new(Method::PUT, self.client_url(&put.at.id)?).accept_json();
        let response = self.call(request.json(&Value::Object(client.0))).await?;
        match response.status {
            200 => self.read(&response).map(drop)?,
            404 if is_absent(&response) => return Err(ProviderError::Conflict),
            _ => return Err(self.refusal(&response)),
        }
        let Some(there) = self.client(&put.at.id).await? else { return Err(ProviderError::Conflict) };
        self.written(&there, put)
    }

    fn written(&self, there: &Client, put: &PutClient) -> Result<Registered, ProviderError> {
        if there.is(put) {
            Ok(Registered::chosen(&put.at.id))
        } else {
            Err(self.admin.unexpected(200, "the client doesn't stand there as it was written"))
        }
    }
}

#[async_trait]
impl Provider for HydraProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chooses_id: true,
            chooses_secret: true,
            reads_secret: false,
            rotates: true,
            overlaps: false,
            lists: true,
            tells_owner: true,
            proves: true,
            tells_changes: false,
            expires_secret: false,
            revokes_tokens: true,
        }
    }

    async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        let at = self.public.url(&[".well-known", "openid-configuration"])?;
        let metadata = self.public.metadata(at).await?;
        // The public address answers without the admin API, which is what we need.
        let probe = self.admin.url(&["admin", "clients", PROBE])?;
        let response = self.call(Request::get(probe)).await?;
        if !is_absent(&response) {
            let found = (response.status == 200).then(|| self.read(&response)).transpose()?;
            if found.and_then(|c| c.id()).is_none() {
                return Err(self.refusal(&response));
            }
        }
        let served = metadata.served();
        Ok(ProviderInfo {
            instance: String::new(),
            issuer: metadata.issuer,
            authorization_endpoint: metadata.authorization_endpoint,
            token_endpoint: metadata.token_endpoint,
            revocation_endpoint: metadata.revocation_endpoint,
            // What it names are those that a client gets without asking; it takes any.
            scopes: None,
            grant_types: None,
            served,
            auth_methods: None,
            redirect_required: false,
        })
    }

    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError> {
        Ok(self.client(&at.id).await?.map(|c| c.registered(at.id.clone())))
    }

    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        let unsupported = |what| Err(ProviderError::Unsupported { what });
        match &put.secret {
            PutSecret::Fresh => return unsupported("picking a new secret"),
            PutSecret::Chosen { previous: Some(_), .. } => {
                return unsupported("keeping the old secret beside a new one");
            }
            PutSecret::Kept if put.revoke_tokens => {
                return unsupported("ending a client's tokens and keeping its secret");
            }
            // There is nothing to keep: it went since it was seen.
            PutSecret::Kept if !put.exists => return Err(ProviderError::Conflict),
            _ => {}
        }
        if !put.exists {
            return self.create(put, Client(Map::new())).await;
        }
        let Some(there) = self.client(&put.at.id).await? else { return Err(ProviderError::Conflict) };
        let version = there.version();
        if put.version.as_ref().is_some_and(|seen| *seen != version) {
            return Err(ProviderError::Conflict);
        }
        may_write_over(there.owner()?.as_ref(), &put.owner, put.version.is_some())?;
        if put.revoke_tokens {
            // Refresh tokens end with their client alone: `DELETE /admin/oauth2/tokens` leaves them.
            self.delete(&put.at, None).await?;
            return self.create(put, there).await;
        }
        self.change(put, there).await
    }

    async fn delete(&self, at: &ClientRef, version: Option<&str>) -> Result<(), ProviderError> {
        let id = &at.id;
        if let Some(seen) = version {
            match self.client(id).await? {
                None => return Ok(()),
                Some(there) if there.version() != seen => return Err(ProviderError::Conflict),
                Some(_) => {}
            }
        }
        let request = Request::new(Method::DELETE, self.client_url(id)?).accept_json();
        let response = self.call(request).await?;
        match response.status {
            204 => Ok(()),
            404 if is_absent(&response) => Ok(()),
            _ => Err(self.refusal(&response)),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Page, ProviderError> {
        let mut url = self.admin.url(&["admin", "clients"])?;
        url.query_pairs_mut().append_pair("page_size", PAGE_SIZE);
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("page_token", after);
        }
        let response = self.admin.paging().send_with(Request::get(url), self.token.as_ref()).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let clients: Vec<Map<String, Value>> = self.admin.body(&response)?;
        let next = next_page(response.header("link").unwrap_or_default())
            .map_err(|()| self.admin.unexpected(200, "its Link header names a next page without a token"))?;
        // A token that Hydra can't read is taken for that of the first page.
        if next.is_some() && next.as_deref() == after {
            return Err(self.admin.unexpected(200, "its pages don't end"));
        }
        // An identifier that no link can have isn't any link's client.
        let clients = clients.into_iter().map(Client).filter_map(|c| c.id().map(|id| c.registered(id)));
        Ok(Page { clients: clients.collect(), next })
    }

    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof {
        prove_by_revocation(self.public.http(), info, id, secret, method).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(change: Value) -> Client {
        let mut client = json!({
            "client_id": "c", "client_name": "n", "client_uri": "", "redirect_uris": null,
            "grant_types": ["client_credentials"], "response_types": [], "scope": " ",
            "token_endpoint_auth_method": "client_secret_basic", "metadata": {},
        });
        for (field, value) in change.as_object().expect("an object") {
            client[field] = value.clone();
        }
        let Value::Object(client) = client else { panic!("an object") };
        Client(client)
    }

    #[test]
    fn what_we_would_never_write_is_no_metadata_and_no_panic() {
        assert!(client(json!({})).metadata().is_some_and(|m| m.scopes.is_empty() && m.uri.is_none()));
        for change in [
            json!({"grant_types": ["implicit"]}),
            json!({"grant_types": "client_credentials"}),
            json!({"grant_types": [1]}),
            json!({"response_types": ["token"]}),
            json!({"redirect_uris": ["http://example.com/"]}),
            json!({"redirect_uris": {}}),
            json!({"scope": 1}),
            json!({"scope": "ü"}),
            json!({"client_name": []}),
            json!({"token_endpoint_auth_method": "private_key_jwt"}),
            json!({"token_endpoint_auth_method": null}),
        ] {
            assert!(client(change.clone()).metadata().is_none(), "{change}");
        }
        for metadata in [json!(null), json!([]), json!("x"), json!({"a": 1})] {
            assert_eq!(client(json!({ "metadata": metadata })).owner(), Ok(None));
        }
        let broken = client(json!({"metadata": {OWNER: {"installation": 1}}}));
        assert_eq!(broken.owner(), Err(ProviderError::ForeignOwner));
    }

    #[test]
    fn the_next_page_is_the_one_that_the_link_header_names() {
        let link = r#"</admin/clients?page_size=5&page_token=a%3D>; rel="first",</admin/clients?page_token=b%3D&page_size=5>; rel="next""#;
        assert_eq!(next_page(link), Ok(Some("b=".to_owned())));
        for last in ["", r#"</admin/clients?page_size=1&page_token=x>; rel="first""#] {
            assert_eq!(next_page(last), Ok(None), "{last}");
        }
        for broken in [r#"rel="next""#, r#"</a>; rel="next""#, r#"</a?page_token=>; rel="next""#] {
            assert_eq!(next_page(broken), Err(()), "{broken}");
        }
    }
}
