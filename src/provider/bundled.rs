//! `bundled`: this project's own provider service, by its admin API.

use super::proof::prove_by_revocation;
use super::wire::{Wire, is_address, rejected};
use super::{
    Capabilities, Changes, ClientRef, Page, Proof, Provider, ProviderError, ProviderInfo, PutClient,
    PutSecret, Registered, RegisteredClient,
};
use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, RedirectUri, Scope, ScopeSet,
    SecretString,
};
use crate::http::header::{HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use crate::http::{HttpClient, Method, Request, Response};
use async_trait::async_trait;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use url::Url;

/// A client of the bundled provider's admin API.
#[derive(Debug, Clone)]
pub struct BundledProvider {
    wire: Wire,
    token: SecretString,
    actor: String,
}

/// The header that names who changes a client.
const ACTOR: HeaderName = HeaderName::from_static("applink-actor");
/// How long the provider may take to tell of a change.
const WAIT: Duration = Duration::from_secs(25);

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Info {
    instance: String,
    issuer: String,
    #[serde(default)]
    authorization_endpoint: Option<String>,
    token_endpoint: String,
    revocation_endpoint: Option<String>,
    scopes_supported: Vec<String>,
    /// One of a version before doesn't say it.
    grant_types_supported: Option<BTreeSet<GrantType>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Client {
    #[serde(default)]
    id: String,
    name: String,
    #[serde(default)]
    uri: Option<String>,
    redirect_uris: Vec<String>,
    grant_types: Vec<GrantType>,
    scopes: Vec<String>,
    token_endpoint_auth_method: AuthMethod,
    has_secret: bool,
    #[serde(default)]
    previous_secret_expires_at: Option<String>,
    #[serde(default)]
    owner: Option<Owner>,
}

#[derive(Deserialize)]
struct List {
    items: Vec<Client>,
    #[serde(default)]
    next: Option<String>,
}

#[derive(Deserialize)]
struct Told {
    instance: String,
    next: u64,
    #[serde(default)]
    reset: bool,
    #[serde(default)]
    changes: Vec<ToldChange>,
}

#[derive(Deserialize)]
struct ToldChange {
    id: String,
}

impl Client {
    fn metadata(&self) -> Option<ClientMetadata> {
        Some(ClientMetadata {
            name: self.name.clone(),
            uri: self.uri.clone(),
            redirect_uris: self
                .redirect_uris
                .iter()
                .map(|u| RedirectUri::parse(u))
                .collect::<Result<_, _>>()
                .ok()?,
            grant_types: self.grant_types.iter().copied().collect(),
            scopes: self.scopes.iter().map(|s| Scope::parse(s)).collect::<Result<_, _>>().ok()?,
            auth_method: self.token_endpoint_auth_method,
        })
    }

    fn registered(self, id: ClientId, version: Option<String>) -> RegisteredClient {
        RegisteredClient {
            id,
            metadata: self.metadata(),
            has_secret: self.has_secret,
            secret: None,
            secret_expires_at: None,
            has_previous: self.previous_secret_expires_at.is_some(),
            owner: self.owner,
            protected: false,
            version,
            handle: None,
        }
    }
}

#[derive(Deserialize, Default)]
struct Problem {
    #[serde(default)]
    code: String,
}

/// A 404 of some other server must not read as "no such client": ours says problem+json.
fn is_ours(response: &Response) -> bool {
    response.content_type.as_deref() == Some("application/problem+json")
}

impl BundledProvider {
    /// A client of the admin API at `admin`, which takes `token` as a bearer token. `actor` is who
    /// we are to the provider: 1 to 64 letters, digits, dots, dashes and underscores.
    pub fn new(http: HttpClient, admin: Url, token: SecretString, actor: &str) -> Self {
        let wire = Wire::new(http, admin, "check that spec.bundled.admin.url is the admin API's address");
        Self { wire, token, actor: actor.to_owned() }
    }

    async fn call(&self, request: Request) -> Result<Response, ProviderError> {
        self.wire.send_with(request, Some(&self.token)).await
    }

    /// What an answer other than the ones hoped for means.
    fn refusal(&self, response: &Response) -> ProviderError {
        let problem: Problem = serde_json::from_slice(&response.body).unwrap_or_default();
        match (response.status, problem.code.as_str()) {
            (409, "foreign-owner") => ProviderError::ForeignOwner,
            (409 | 412, _) => ProviderError::Conflict,
            (400 | 422, "invalid-scope") => rejected(
                "invalid-scope",
                "change spec.incoming.oauth2.scopes to scopes that the provider offers",
            ),
            (400 | 422, "invalid-redirect-uri") => {
                rejected("invalid-redirect-uri", "change spec.incoming.oauth2.redirectUris")
            }
            (400 | 422, "invalid-grant-types") => {
                rejected("invalid-grant-types", "change spec.incoming.oauth2.grantTypes")
            }
            (400 | 422, _) => {
                rejected("invalid-request", "compare spec.incoming with what the provider allows")
            }
            (413, _) => rejected("too-large", "name fewer or shorter redirectUris"),
            (status, _) => self.wire.other(status),
        }
    }

    /// Says which operator writes, so that it isn't told of its own changes.
    fn by_us(&self, request: Request) -> Request {
        match HeaderValue::from_str(&self.actor) {
            Ok(actor) => request.header(ACTOR, actor),
            Err(_) => request,
        }
    }
}

#[async_trait]
impl Provider for BundledProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chooses_id: true,
            chooses_secret: true,
            reads_secret: false,
            rotates: true,
            overlaps: true,
            lists: true,
            tells_owner: true,
            proves: true,
            tells_changes: true,
            expires_secret: false,
            revokes_tokens: true,
        }
    }

    async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        let room = self.wire.room();
        let wire = self.wire.patient(self.wire.http().timeout(), room.info);
        let response =
            wire.send_with(Request::get(self.wire.url(&["admin", "info"])?), Some(&self.token)).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let info: Info = self.wire.body(&response)?;
        let bad = |why| self.wire.unexpected(200, why);
        let optional = info.revocation_endpoint.iter().chain(&info.authorization_endpoint);
        for text in [&info.issuer, &info.token_endpoint].into_iter().chain(optional) {
            if !is_address(text) {
                return Err(bad("an address in its metadata isn't a URL"));
            }
        }
        let scopes: Result<ScopeSet, _> = info.scopes_supported.iter().map(|s| Scope::parse(s)).collect();
        let scopes = scopes.map_err(|_| bad("a scope in its metadata isn't one"))?;
        Ok(ProviderInfo {
            instance: self.wire.mark(info.instance)?,
            issuer: info.issuer,
            authorization_endpoint: info.authorization_endpoint,
            token_endpoint: info.token_endpoint,
            revocation_endpoint: info.revocation_endpoint,
            // Of more than are kept it is the service's own business which a client may have.
            scopes: (scopes.iter().count() <= room.scopes).then_some(scopes),
            grant_types: None,
            served: info.grant_types_supported,
            auth_methods: None,
            redirect_required: false,
        })
    }

    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError> {
        let id = &at.id;
        let response = self.call(Request::get(self.wire.url(&["admin", "clients", id.as_str()])?)).await?;
        match response.status {
            200 => {
                let client: Client = self.wire.body(&response)?;
                Ok(Some(client.registered(id.clone(), response.etag.clone())))
            }
            404 if is_ours(&response) => Ok(None),
            404 => Err(self.wire.other(404)),
            _ => Err(self.refusal(&response)),
        }
    }

    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        if matches!(put.secret, PutSecret::Fresh) {
            return Err(ProviderError::Unsupported { what: "picking a new secret" });
        }
        let m = &put.metadata;
        let mut body = json!({
            "name": m.name,
            "redirectUris": m.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
            "grantTypes": m.grant_types.iter().collect::<Vec<_>>(),
            "scopes": m.scopes.iter().map(Scope::as_str).collect::<Vec<_>>(),
            "tokenEndpointAuthMethod": m.auth_method,
            "owner": put.owner,
        });
        if let Some(uri) = &m.uri {
            body["uri"] = json!(uri);
        }
        if let PutSecret::Chosen { secret, derived, previous } = &put.secret {
            body["secret"] = json!(secret.expose_secret());
            body["secretKind"] = json!(if *derived { "derived" } else { "chosen" });
            if let Some(until) = previous.as_ref().and_then(|p| Timestamp::from_second(p.until).ok()) {
                body["previousSecretExpiresAt"] = json!(until.to_string());
            }
        }
        if put.revoke_tokens {
            body["revokeTokens"] = json!(true);
        }
        let mut request =
            Request::new(Method::PUT, self.wire.url(&["admin", "clients", put.at.id.as_str()])?).json(&body);
        request = match put.version.as_deref().map(HeaderValue::from_str) {
            Some(Ok(version)) => request.header(IF_MATCH, version),
            Some(Err(_)) => return Err(self.wire.unexpected(0, "its ETag can't stand in a header")),
            None => request.header(IF_NONE_MATCH, HeaderValue::from_static("*")),
        };
        let response = self.call(self.by_us(request)).await?;
        match response.status {
            200 | 201 => {
                // Another server may say 200 to anything.
                let _: Client = self.wire.body(&response)?;
                Ok(Registered::chosen(&put.at.id))
            }
            _ => Err(self.refusal(&response)),
        }
    }

    async fn delete(&self, at: &ClientRef, version: Option<&str>) -> Result<(), ProviderError> {
        let id = &at.id;
        let mut request = Request::new(Method::DELETE, self.wire.url(&["admin", "clients", id.as_str()])?);
        if let Some(Ok(version)) = version.map(HeaderValue::from_str) {
            request = request.header(IF_MATCH, version);
        }
        let response = self.call(self.by_us(request)).await?;
        match response.status {
            204 => Ok(()),
            404 if is_ours(&response) => Ok(()),
            404 => Err(self.wire.other(404)),
            _ => Err(self.refusal(&response)),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Page, ProviderError> {
        let mut url = self.wire.url(&["admin", "clients"])?;
        url.query_pairs_mut().append_pair("limit", "500");
        if let Some(after) = after {
            url.query_pairs_mut().append_pair("cursor", after);
        }
        let response = self.wire.paging().send_with(Request::get(url), Some(&self.token)).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let list: List = self.wire.body(&response)?;
        let clients = list
            .items
            .into_iter()
            .map(|c| {
                let id = ClientId::parse(&c.id)
                    .map_err(|_| self.wire.unexpected(200, "a client's id isn't one"))?;
                Ok(c.registered(id, None))
            })
            .collect::<Result<_, ProviderError>>()?;
        Ok(Page { clients, next: list.next })
    }

    async fn changes(&self, after: Option<&str>) -> Result<Changes, ProviderError> {
        let mut url = self.wire.url(&["admin", "changes"])?;
        // The instance stands in our cursor: numbers of one start say nothing at the next.
        let (instance, after) = after.and_then(|a| a.rsplit_once(' ')).unzip();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("except", &self.actor);
            if let Some(after) = after {
                query.append_pair("after", after).append_pair("wait", &WAIT.as_secs().to_string());
            }
        }
        let wire = self.wire.patient(WAIT + Duration::from_secs(10), self.wire.room().changes);
        let response = wire.send_with(Request::get(url), Some(&self.token)).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        let told: Told = self.wire.body(&response)?;
        let reset = told.reset || instance.is_some_and(|i| i != told.instance);
        let clients = told.changes.iter().filter_map(|c| ClientId::parse(&c.id).ok()).collect();
        let instance = self.wire.mark(told.instance)?;
        Ok(Changes { next: format!("{instance} {}", told.next), reset, clients })
    }

    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof {
        prove_by_revocation(self.wire.http(), info, id, secret, method).await
    }
}
