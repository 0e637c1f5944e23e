//! `keycloak`: a realm of Keycloak 26.x, by its admin API.
//!
//! Keycloak knows no conditional change: a client is looked at, changed only if it is as the caller
//! saw it, and read back. A change names what a link speaks of and leaves the rest; scopes are the
//! exception, each of which is given and taken by a call of its own.
//!
//! A client has two secrets only where a client policy of the realm rotates secrets. The operator
//! may not read policies, so it makes a disabled client of its own, sees whether Keycloak gives its
//! secret an end, and deletes it ([`KeycloakProvider::looks_for_rotation`]). What that says holds
//! for most; before a rotation the very client is asked the same ([`KeycloakProvider::keeps_two`]).

mod bookmark;
mod client;
mod scopes;
mod session;

use super::proof::prove_by_revocation;
use super::wire::{Wire, may_write_over, rejected};
use super::{
    Capabilities, ClientRef, Page, Proof, Provider, ProviderError, ProviderInfo, PutClient, PutSecret,
    Registered, RegisteredClient,
};
use crate::domain::{AuthMethod, ClientId, ExposeSecret as _, Scope, ScopeSet, SecretString};
use crate::http::{HttpClient, Method, Request, Response, SendError};
use crate::outgoing::{ClientCredentials, Dialect, Grant, TokenError, TokenRequest, request_token};
use async_trait::async_trait;
use bookmark::Bookmark;
use client::{Client, Clock, change, check_lengths, creation, is_protected, key_of, previous, touch};
use jiff::Timestamp;
use scopes::{Named, Scopes, Told};
use serde::Deserialize;
use serde_json::{Value, json};
use session::{Session, Token};
use std::sync::Arc;
use std::time::{Duration, Instant};
use url::Url;

/// A client of a realm's admin API.
pub struct KeycloakProvider {
    wire: Wire,
    realm: String,
    operator: ClientCredentials,
    session: Arc<Session>,
}

/// What Keycloak says of a client that isn't there. Any other 404 is another server's.
const ABSENT: &str = "Could not find client";
/// The same of a client scope.
const SCOPE_ABSENT: &str = "Client scope not found";
/// Clients a page.
const PAGE_SIZE: usize = 100;
/// How long a list may take.
const LIST: Duration = Duration::from_secs(30);
/// The client by which is found out whether the realm rotates secrets. It is there for a moment.
const PROBE: &str = "applink-operator-probe";
/// How long a token of ours is used that Keycloak gives no lifetime for.
const ASSUMED: Duration = Duration::from_secs(60);

#[derive(Deserialize, Default)]
struct Fault {
    #[serde(default)]
    error: String,
}

fn is_absent(response: &Response) -> bool {
    response.status == 404 && response.is_json() && fault(response).error == ABSENT
}

fn fault(response: &Response) -> Fault {
    response.json().and_then(|value| serde_json::from_value(value).ok()).unwrap_or_default()
}

#[derive(Deserialize)]
struct ServerInfo {
    #[serde(default)]
    features: Vec<Feature>,
}

#[derive(Deserialize)]
struct Feature {
    name: String,
    #[serde(default)]
    enabled: bool,
}

fn now() -> i64 {
    Timestamp::now().as_second()
}

impl KeycloakProvider {
    /// A client of the admin API of `realm` at Keycloak's address, as the service account of the
    /// client that `id` and `secret` are of.
    pub fn new(http: HttpClient, base: Url, realm: &str, id: ClientId, secret: SecretString) -> Self {
        let hint =
            "check that spec.keycloak.url is Keycloak's address, and spec.keycloak.realm a realm there";
        Self {
            session: Session::of(&base, realm, &id, &secret),
            wire: Wire::new(http, base, hint),
            realm: realm.to_owned(),
            operator: ClientCredentials::by_secret(id, AuthMethod::ClientSecretBasic, secret),
        }
    }

    fn clock(&self) -> Clock {
        let ours = now();
        Clock { ours, theirs: self.session.clock(ours) }
    }

    fn admin(&self, path: &[&str]) -> Result<Url, ProviderError> {
        self.wire.url(&[&["admin", "realms", self.realm.as_str()], path].concat())
    }

    /// An access token, and whether it is a new one. `refused`: not this one.
    async fn token(&self, refused: Option<&SecretString>) -> Result<(SecretString, bool), ProviderError> {
        let mut kept = self.session.token.lock().await;
        let is_refused = |t: &Token| refused.is_some_and(|r| r.expose_secret() == t.secret.expose_secret());
        if let Some(token) = kept.as_ref().filter(|t| t.renew_at > Instant::now() && !is_refused(t)) {
            return Ok((token.secret.clone(), false));
        }
        *kept = None;
        let (asked, asked_at) = (Instant::now(), now());
        let request = TokenRequest {
            endpoint: self.wire.url(&["realms", &self.realm, "protocol", "openid-connect", "token"])?,
            client: Some(self.operator.clone()),
            dialect: Dialect::default(),
            grant: Grant::ClientCredentials,
            scopes: ScopeSet::default(),
        };
        let reply = request_token(self.wire.http(), &request).await.map_err(|e| self.no_token(e))?;
        let lifetime = reply.lifetime.and_then(|l| u64::try_from(l.as_secs()).ok());
        let lifetime = lifetime.map_or(ASSUMED, Duration::from_secs);
        let secret = reply.access_token;
        self.session.set_clock(&secret, asked_at, now());
        *kept = Some(Token { secret: secret.clone(), renew_at: asked + lifetime * 3 / 4 });
        Ok((secret, true))
    }

    /// Why there is no token for us.
    fn no_token(&self, error: TokenError) -> ProviderError {
        match error {
            TokenError::BadClient { .. } => self.wire.unauthorized(401),
            TokenError::Rejected { code: Some("unauthorized_client" | "invalid_scope"), status } => {
                self.wire.unauthorized(status)
            }
            TokenError::RateLimited { retry_after } => ProviderError::Busy { status: 429, retry_after },
            TokenError::ServerFault { status: status @ (429 | 503), retry_after, .. } => {
                ProviderError::Busy { status, retry_after }
            }
            TokenError::Rejected { status, .. }
            | TokenError::ServerFault { status, .. }
            | TokenError::Redirected { status } => self.wire.other(status),
            TokenError::Refused(why) => self.wire.unanswered(&SendError::Refused(why)),
            TokenError::NotSent(why) => self.wire.unanswered(&SendError::NotSent(why)),
            TokenError::NoAnswer(why) => self.wire.unanswered(&SendError::NoAnswer(why)),
            TokenError::TooLarge => self.wire.unanswered(&SendError::TooLarge),
            TokenError::Malformed(_)
            | TokenError::TokenType(_)
            | TokenError::DeadGrant { .. }
            | TokenError::AssertionRefused => self.wire.unexpected(200, "its token reply can't be used"),
        }
    }

    /// One call. A token that isn't taken any more, as after Keycloak's keys changed, is replaced
    /// once; nothing has happened then.
    async fn call(&self, wire: &Wire, request: Request) -> Result<Response, ProviderError> {
        let (token, is_new) = self.token(None).await?;
        match wire.send_with(request.clone(), Some(&token)).await {
            Err(ProviderError::Unauthorized { status: 401, .. }) if !is_new => {}
            answer => return answer,
        }
        let (token, _) = self.token(Some(&token)).await?;
        wire.send_with(request, Some(&token)).await
    }

    async fn read<T: for<'de> Deserialize<'de>>(&self, url: Url) -> Result<T, ProviderError> {
        let wire = self.wire.patient(LIST, self.wire.room().page);
        let response = self.call(&wire, Request::get(url)).await?;
        if response.status != 200 {
            return Err(self.refusal(&response));
        }
        self.wire.body(&response)
    }

    async fn write(&self, method: Method, url: Url, body: Option<&Value>) -> Result<Response, ProviderError> {
        let request = Request::new(method, url).accept_json();
        let request = match body {
            Some(body) => request.json(body),
            None => request,
        };
        self.call(&self.wire, request).await
    }

    /// What an answer other than the ones hoped for means.
    fn refusal(&self, response: &Response) -> ProviderError {
        match response.status {
            409 => ProviderError::Conflict,
            400 => rejected(
                "invalid-request",
                "compare spec.incoming and spec.application with what Keycloak and the realm's client policies allow",
            ),
            413 => rejected("too-large", "name fewer or shorter redirectUris"),
            status => self.wire.other(status),
        }
    }

    /// Finds out whether the realm rotates secrets, where that isn't known.
    async fn know_rotation(&self) -> Result<(), ProviderError> {
        let _one = self.session.looking.lock().await;
        if self.session.rotates().is_none() {
            match self.looks_for_rotation().await {
                Ok(yes) => self.session.set_rotates(yes),
                // Other operators look at the same moment, and Keycloak answers 500 to one of them:
                // it stays unknown, and nothing else hangs on it.
                Err(ProviderError::Unexpected { .. }) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }

    /// Whether the realm rotates secrets. Writes only where the server has the feature, and touches
    /// no client but the one that it makes: that has a key that no other has.
    async fn looks_for_rotation(&self) -> Result<bool, ProviderError> {
        // Some may not read it; then the look tells.
        match self.read::<ServerInfo>(self.wire.url(&["admin", "serverinfo"])?).await {
            Ok(info) => {
                if info.features.iter().any(|f| f.name == "CLIENT_SECRET_ROTATION" && !f.enabled) {
                    return Ok(false);
                }
            }
            Err(ProviderError::Unauthorized { status: 403, .. } | ProviderError::Unexpected { .. }) => {}
            Err(e) => return Err(e),
        }
        let key = key_of(&self.realm, &format!("\0{PROBE}"));
        let at = self.admin(&["clients", &key])?;
        // One that was left behind by a crash says what was true then.
        self.remove(at.clone()).await?;
        let body = json!({
            "id": key,
            "clientId": PROBE,
            "name": "applink-operator: looks whether this realm rotates secrets",
            "enabled": false,
            "publicClient": false,
            "standardFlowEnabled": false,
            "fullScopeAllowed": false,
            "defaultClientScopes": [],
            "optionalClientScopes": [],
            "attributes": {},
        });
        let made = self.write(Method::POST, self.admin(&["clients"])?, Some(&body)).await?;
        // Taken: another operator is looking at the same moment, or a client is called so.
        if !matches!(made.status, 201 | 409) {
            return Err(self.refusal(&made));
        }
        let rotates = self.at(&key).await?.is_some_and(|c| c.is_rotated_by_policy());
        self.remove(at).await?;
        Ok(rotates)
    }

    /// Whether this client's secret before would go on working beside a new one.
    async fn keeps_two(&self, at: &Url, key: &str) -> Result<bool, ProviderError> {
        self.apply(at, &touch()).await?;
        let Some(there) = self.at(key).await? else { return Err(ProviderError::Conflict) };
        let yes = there.is_rotated_by_policy();
        self.session.set_rotates(yes);
        Ok(yes)
    }

    async fn load_scopes(&self) -> Result<Arc<Scopes>, ProviderError> {
        let all: Vec<Told> = self.read(self.admin(&["client-scopes"])?).await?;
        if all.len() > self.wire.room().scopes {
            return Err(self
                .wire
                .unexpected(200, "the realm has more than 500 client scopes, which are too many to keep"));
        }
        let given: Vec<Named> = self.read(self.admin(&["default-default-client-scopes"])?).await?;
        let scopes = Arc::new(Scopes::new(all, &given));
        self.session.set_scopes(Some(scopes.clone()));
        Ok(scopes)
    }

    /// The realm's scopes, asked for again where one of these isn't among them.
    async fn scopes<'a>(
        &self,
        mut names: impl Iterator<Item = &'a str>,
    ) -> Result<Arc<Scopes>, ProviderError> {
        match self.session.scopes() {
            Some(scopes) if names.all(|n| scopes.knows(n)) => Ok(scopes),
            _ => self.load_scopes().await,
        }
    }

    async fn scopes_of(&self, client: &Client) -> Result<Arc<Scopes>, ProviderError> {
        self.scopes(client.scope_names().unwrap_or_default().into_iter()).await
    }

    /// The client with this key.
    async fn at(&self, key: &str) -> Result<Option<Client>, ProviderError> {
        let response = self.call(&self.wire, Request::get(self.admin(&["clients", key])?)).await?;
        match response.status {
            200 => Ok(Some(self.wire.body(&response)?)),
            404 if is_absent(&response) => Ok(None),
            _ => Err(self.refusal(&response)),
        }
    }

    /// The client with this identifier; where there is none, the one that we made under it and
    /// that was renamed since.
    async fn find(&self, id: &ClientId) -> Result<Option<Client>, ProviderError> {
        let ours = self.at(&key_of(&self.realm, id.as_str())).await?;
        if ours.as_ref().is_some_and(|c| c.id().as_ref() == Some(id)) {
            return Ok(ours);
        }
        let mut url = self.admin(&["clients"])?;
        url.query_pairs_mut().append_pair("clientId", id.as_str());
        let named: Vec<Client> = self.read(url).await?;
        // Had the server not understood the query, these would be all its clients.
        Ok(named.into_iter().find(|c| c.id().as_ref() == Some(id)).or(ours))
    }

    /// The client, which may be written to, and its address.
    async fn writable(
        &self,
        id: &ClientId,
        version: Option<&str>,
    ) -> Result<Option<(Client, Url)>, ProviderError> {
        let Some(there) = self.find(id).await? else { return Ok(None) };
        if self.is_protected(id, &there) {
            return Err(ProviderError::ForeignOwner);
        }
        if version.is_some_and(|seen| seen != there.version()) {
            return Err(ProviderError::Conflict);
        }
        let key = there.key().ok_or_else(|| self.wire.unexpected(200, "a client has no key"))?;
        let at = self.admin(&["clients", key])?;
        Ok(Some((there, at)))
    }

    fn is_protected(&self, id: &ClientId, client: &Client) -> bool {
        let operator = self.operator.id.as_str();
        id.as_str() == PROBE
            || is_protected(id.as_str(), &self.realm, operator)
            || client.is_protected(&self.realm, operator)
    }

    fn registered(&self, client: &Client, id: ClientId, scopes: &Scopes) -> RegisteredClient {
        let protected = self.is_protected(&id, client);
        client.registered(id, scopes, protected, now())
    }

    async fn create(&self, put: &PutClient, scopes: &Scopes) -> Result<Registered, ProviderError> {
        let id = put.at.id.as_str();
        if id == PROBE || is_protected(id, &self.realm, self.operator.id.as_str()) {
            return Err(ProviderError::ForeignOwner);
        }
        // There is nothing to keep: it went since it was seen.
        if matches!(put.secret, PutSecret::Kept) {
            return Err(ProviderError::Conflict);
        }
        let key = key_of(&self.realm, id);
        let body = creation(put, &key, scopes, self.clock());
        let response = self.write(Method::POST, self.admin(&["clients"])?, Some(&body)).await?;
        match response.status {
            201 => self.written(put, &key).await,
            409 => {
                if let Some(there) = self.find(&put.at.id).await? {
                    may_write_over(there.owner()?.as_ref(), &put.owner, false)?;
                }
                Err(ProviderError::Conflict)
            }
            _ => Err(self.refusal(&response)),
        }
    }

    async fn change(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        let found = self.writable(&put.at.id, put.version.as_deref()).await?;
        let Some((there, at)) = found else { return Err(ProviderError::Conflict) };
        may_write_over(there.owner()?.as_ref(), &put.owner, put.version.is_some())?;
        let key = there.key().unwrap_or_default().to_owned();
        let is_new = |s: &SecretString| there.secret() != Some(s.expose_secret());
        match &put.secret {
            PutSecret::Kept if there.secret().is_none() => return Err(ProviderError::Conflict),
            // Afterwards it would be too late.
            PutSecret::Chosen { secret, .. }
                if previous(put, now()).is_some() && is_new(secret) && !self.keeps_two(&at, &key).await? =>
            {
                return Err(ProviderError::Unsupported { what: "keeping the old secret beside a new one" });
            }
            _ => {}
        }
        self.apply(&at, &change(put, Some(&there), self.clock())).await?;
        self.converge_scopes(put, &there, &key).await?;
        self.written(put, &key).await
    }

    /// Sends a change.
    async fn apply(&self, at: &Url, body: &Value) -> Result<(), ProviderError> {
        let response = self.write(Method::PUT, at.clone(), Some(body)).await?;
        match response.status {
            204 => Ok(()),
            404 if is_absent(&response) => Err(ProviderError::Conflict),
            _ => Err(self.refusal(&response)),
        }
    }

    /// Takes the scopes that a client isn't to have, then gives it those that it lacks. One that
    /// every token of it has anyway stays so.
    async fn converge_scopes(&self, put: &PutClient, there: &Client, key: &str) -> Result<(), ProviderError> {
        let scopes = self.scopes_of(there).await?;
        let has = there.scope_names().unwrap_or_default();
        let wants = |name: &str| put.metadata.scopes.iter().any(|s| s.as_str() == name);
        for name in has.iter().filter(|n| !wants(n)) {
            let list =
                if there.always_has(name) { "default-client-scopes" } else { "optional-client-scopes" };
            self.set_scope(Method::DELETE, key, list, scopes.id(name)).await?;
        }
        let lacks = put.metadata.scopes.iter().map(Scope::as_str).filter(|n| !has.contains(n));
        for name in lacks {
            self.set_scope(Method::PUT, key, "optional-client-scopes", scopes.id(name)).await?;
        }
        Ok(())
    }

    async fn set_scope(
        &self,
        method: Method,
        key: &str,
        list: &str,
        scope: Option<&str>,
    ) -> Result<(), ProviderError> {
        // Those that only carry claims aren't the link's, and `openid` is everybody's.
        let Some(scope) = scope else { return Ok(()) };
        let response = self.write(method, self.admin(&["clients", key, list, scope])?, None).await?;
        match response.status {
            204 => Ok(()),
            // The client or the scope went a moment ago.
            404 if is_absent(&response) || fault(&response).error == SCOPE_ABSENT => {
                self.session.set_scopes(None);
                Err(ProviderError::Conflict)
            }
            _ => Err(self.refusal(&response)),
        }
    }

    /// Reads back what was written.
    async fn written(&self, put: &PutClient, key: &str) -> Result<Registered, ProviderError> {
        let Some(there) = self.at(key).await? else { return Err(ProviderError::Conflict) };
        if there.is(put, &*self.scopes_of(&there).await?) {
            return Ok(Registered::chosen(&put.at.id));
        }
        // Perhaps a scope went, and Keycloak left it out.
        self.session.set_scopes(None);
        Err(self.wire.unexpected(200, "the client doesn't stand there as it was written"))
    }

    async fn remove(&self, at: Url) -> Result<(), ProviderError> {
        let response = self.write(Method::DELETE, at, None).await?;
        match response.status {
            204 => Ok(()),
            404 if is_absent(&response) => Ok(()),
            _ => Err(self.refusal(&response)),
        }
    }
}

#[async_trait]
impl Provider for KeycloakProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chooses_id: true,
            chooses_secret: true,
            reads_secret: true,
            rotates: true,
            overlaps: self.session.rotated(),
            lists: true,
            tells_owner: true,
            proves: true,
            tells_changes: false,
            expires_secret: true,
            revokes_tokens: true,
        }
    }

    async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        let at = self.wire.url(&["realms", &self.realm, ".well-known", "openid-configuration"])?;
        let metadata = self.wire.metadata(at).await?;
        // Also the check that our credential is taken, and has the role.
        let scopes = self.load_scopes().await?;
        self.know_rotation().await?;
        let served = metadata.served();
        Ok(ProviderInfo {
            instance: String::new(),
            issuer: metadata.issuer,
            authorization_endpoint: metadata.authorization_endpoint,
            token_endpoint: metadata.token_endpoint,
            revocation_endpoint: metadata.revocation_endpoint,
            // A name that is no scope-token can't be asked for.
            scopes: Some(scopes.names().filter_map(|s| Scope::parse(s).ok()).collect()),
            grant_types: None,
            served,
            auth_methods: None,
            redirect_required: false,
        })
    }

    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError> {
        let id = &at.id;
        let Some(client) = self.find(id).await? else { return Ok(None) };
        let scopes = self.scopes_of(&client).await?;
        Ok(Some(self.registered(&client, id.clone(), &scopes)))
    }

    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        if matches!(put.secret, PutSecret::Fresh) {
            return Err(ProviderError::Unsupported { what: "picking a new secret" });
        }
        check_lengths(put)?;
        let scopes = self.scopes(put.metadata.scopes.iter().map(Scope::as_str)).await?;
        if !put.metadata.scopes.iter().all(|s| scopes.offers(s.as_str())) {
            return Err(rejected(
                "invalid-scope",
                "change spec.incoming.oauth2.scopes to client scopes that the realm has",
            ));
        }
        if put.exists { self.change(put).await } else { self.create(put, &scopes).await }
    }

    async fn delete(&self, at: &ClientRef, version: Option<&str>) -> Result<(), ProviderError> {
        let id = &at.id;
        match self.writable(id, version).await? {
            Some((_, at)) => self.remove(at).await,
            None => Ok(()),
        }
    }

    async fn list(&self, after: Option<&str>) -> Result<Page, ProviderError> {
        let mut mark = Bookmark::parse(after)?;
        let (all, read) = loop {
            let mut url = self.admin(&["clients"])?;
            url.query_pairs_mut()
                .append_pair("first", &mark.first.to_string())
                .append_pair("max", &PAGE_SIZE.to_string());
            let all: Vec<Client> = self.read(url).await?;
            match mark.read_up_to(all.iter().map(Client::key)) {
                Some(read) => break (all, read),
                None => mark.step_back(PAGE_SIZE),
            }
        };
        let next = Bookmark::after(mark.first, all.iter().map(Client::key), read);
        let mut clients = Vec::with_capacity(all.len());
        for client in all.into_iter().skip(read) {
            // An identifier that no link can have isn't any link's client.
            let Some(id) = client.id() else { continue };
            let scopes = self.scopes_of(&client).await?;
            clients.push(self.registered(&client, id, &scopes));
        }
        Ok(Page { clients, next: next.map(|mark| mark.to_string()) })
    }

    /// Keycloak takes any secret from a public client, so such a client proves none.
    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof {
        let proof = prove_by_revocation(self.wire.http(), info, id, secret, method).await;
        if proof != Proof::Authenticated || method.is_public() {
            return proof;
        }
        match self.find(id).await {
            Ok(Some(client)) if client.secret().is_some() => Proof::Authenticated,
            Ok(_) => Proof::Refused,
            Err(_) => Proof::Unproved,
        }
    }
}
