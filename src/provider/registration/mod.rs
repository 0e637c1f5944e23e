//! `registration`: any server with dynamic client registration (RFC 7591) and its management
//! (RFC 7592).
//!
//! The server chooses identifier and secret, and lists nothing: what it answers to the creation is
//! all there will ever be to find the client by. So each call makes one request and gives back a
//! new handle, which the caller keeps before the next call. An answer that is lost on its way
//! leaves a client that nobody can find but the server's people, by its `software_id`.
//!
//! The token in the handle goes to the server's own addresses alone: the origin of its issuer or
//! of its registration endpoint, and not wherever an answer points.
//!
//! A server whose token changes at each read isn't read: the client is taken to be as the last
//! write left it, and an edit by hand is found only where it changes the credentials, which the
//! caller proves.

mod record;

use self::record::{Configuration, Handle, Member, Stated};
use super::proof::prove_by_revocation;
use super::wire::{Wire, rejected};
use super::{
    Capabilities, ClientRef, MAX_CLIENT_SECRET, Page, Proof, Provider, ProviderError, ProviderInfo,
    PutClient, PutSecret, Registered, RegisteredClient,
};
use crate::domain::text::known_error_code;
use crate::domain::{AuthMethod, ClientId, GrantType, SecretString};
use crate::http::{HttpClient, Method, Request, Response};
use crate::outgoing::{
    ClientCredentials, DiscoveryError, Issuer, Redeemed, ServerMetadata, discover_metadata, redeem_nothing,
};
use async_trait::async_trait;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use url::Url;

const UNMANAGED: ProviderError = ProviderError::Unsupported {
    what: "managing a client after it was registered (RFC 7592, with a registration_client_uri of the server's own)",
};

/// The longest registration access token that is kept, in bytes. Some servers make it a JWT.
const MAX_ACCESS_TOKEN: usize = 8192;

/// A client of a registration endpoint.
#[derive(Debug)]
pub struct RegistrationProvider {
    wire: Wire,
    issuer: Issuer,
    initial: Option<SecretString>,
    /// The registration endpoint, once it is known.
    endpoint: Mutex<Option<Url>>,
    /// Clients that were seen to be gone when they were to be changed.
    gone: Mutex<BTreeSet<String>>,
}

impl RegistrationProvider {
    /// The server with this issuer, which takes `initial` as an initial access token.
    pub fn new(http: HttpClient, issuer: Issuer, initial: Option<SecretString>) -> Self {
        let wire = Wire::new(
            http,
            issuer.url().clone(),
            "check that spec.registration.issuer has dynamic client registration (RFC 7591 and RFC 7592) switched on",
        );
        Self { wire, issuer, initial, endpoint: Mutex::default(), gone: Mutex::default() }
    }

    fn gone(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn discover(&self) -> Result<(ServerMetadata, Url), ProviderError> {
        let metadata = discover_metadata(self.wire.http(), &self.issuer).await;
        let found = metadata.and_then(|m| Ok((m.endpoint("registration_endpoint")?, m)));
        let (endpoint, metadata) = found.map_err(|e| self.undiscovered(e))?;
        let endpoint = endpoint.ok_or(ProviderError::Unsupported { what: "dynamic client registration" })?;
        *self.endpoint.lock().unwrap_or_else(PoisonError::into_inner) = Some(endpoint.clone());
        Ok((metadata, endpoint))
    }

    fn undiscovered(&self, e: DiscoveryError) -> ProviderError {
        use DiscoveryError as E;
        match e {
            E::Send(e) => self.wire.unanswered(&e),
            E::NotFound { status } => self.wire.other(status),
            E::ServerFault { status: status @ (429 | 503), retry_after } => {
                ProviderError::Busy { status, retry_after }
            }
            E::ServerFault { status, .. } => self.wire.other(status),
            E::IssuerMismatch | E::IssuerSlash => self.wire.unexpected(
                200,
                "its metadata names another issuer; write spec.registration.issuer exactly as the server does",
            ),
            E::NotJson => self.wire.unexpected(200, "its metadata isn't a JSON object"),
            E::NoTokenEndpoint => self.wire.unexpected(200, "its metadata has no token_endpoint"),
            E::BadEndpoint { .. } => self.wire.unexpected(200, "an address in its metadata isn't one"),
            E::Downgrade { .. } => {
                self.wire.unexpected(200, "an address in its metadata is plain http, though the issuer is https")
            }
        }
    }

    async fn endpoint(&self) -> Result<Url, ProviderError> {
        let known = self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).clone();
        match known {
            Some(endpoint) => Ok(endpoint),
            None => Ok(self.discover().await?.1),
        }
    }

    /// Whether an address is the server's own, so that a token may go there.
    fn is_own(&self, endpoint: &Url, address: &str) -> bool {
        Url::parse(address)
            .is_ok_and(|u| u.origin() == self.issuer.url().origin() || u.origin() == endpoint.origin())
    }

    /// Calls the client's own endpoint. `None`: the server says that there is no such client, or
    /// no such token, which it answers alike (RFC 7592 section 2.1). That must come from itself,
    /// and not from whatever stands before it.
    async fn manage(
        &self,
        method: Method,
        at: &Configuration,
        body: Option<&Value>,
    ) -> Result<Option<Response>, ProviderError> {
        let url = Url::parse(&at.uri).map_err(|_| UNMANAGED)?;
        let mut request = Request::new(method, url).accept_json();
        if let Some(body) = body {
            request = request.json(body);
        }
        let request = request
            .bearer(&SecretString::from(at.token.as_str()))
            .map_err(|_| self.wire.unexpected(0, "its registration access token can't stand in a header"))?;
        let response = self.wire.http().send(request).await.map_err(|e| self.wire.unanswered(&e))?;
        match response.status {
            401 | 404 if is_of_api(&response) => Ok(None),
            status @ (401 | 404) => Err(self.wire.unexpected(
                status,
                "it doesn't come from the registration endpoint; check what stands before it",
            )),
            _ => Ok(Some(response)),
        }
    }

    /// What the server says of a client: most of it is kept from one call to the next.
    fn answer(&self, response: &Response) -> Result<Map<String, Value>, ProviderError> {
        let answer: Map<String, Value> = self.wire.body(response)?;
        for (member, what, most) in [
            ("client_secret", "client_secret", MAX_CLIENT_SECRET),
            ("registration_access_token", "registration_access_token", MAX_ACCESS_TOKEN),
        ] {
            if answer.get(member).and_then(Value::as_str).is_some_and(|text| text.len() > most) {
                return Err(ProviderError::TooLong { what, most });
            }
        }
        Ok(answer)
    }

    async fn create(&self, tag: &str, asked: Stated) -> Result<Registered, ProviderError> {
        let endpoint = self.endpoint().await?;
        let mut body = asked.members();
        body.insert("software_id".into(), json!(tag));
        let request = Request::post(endpoint.clone()).json(&Value::Object(body));
        let request = match &self.initial {
            Some(token) => request.bearer(token).map_err(|_| self.wire.unauthorized(0))?,
            None => request,
        };
        let response = self.wire.http().send(request).await.map_err(|e| self.wire.unanswered(&e))?;
        if !matches!(response.status, 200 | 201) {
            return Err(self.refusal(&response));
        }
        let answer = self.answer(&response)?;
        // Whatever else is odd about it, this client is there: it must not be made again and again.
        let handle = Handle::created(tag, asked, &answer, |u| self.is_own(&endpoint, u))
            .ok_or_else(|| self.wire.unexpected(response.status, "it made a client without a client_id"))?;
        let secret = handle.secret();
        self.registered(handle, secret)
    }

    async fn update(
        &self,
        put: &PutClient,
        mut handle: Handle,
        asked: Stated,
    ) -> Result<Registered, ProviderError> {
        // The server was asked for just this, and made something else of it.
        if handle.answered
            && handle.asked == asked
            && let Some(member) = handle.told.differs(&asked)
        {
            return Err(altered(member));
        }
        if matches!(put.secret, PutSecret::Fresh) && !handle.may_renew() {
            return Err(ProviderError::Unsupported {
                what: "making a new secret for a client that is there",
            });
        }
        let configuration = handle.configuration.clone().ok_or(UNMANAGED)?;
        let endpoint = self.endpoint().await?;
        let mut body = asked.changed(&handle.told);
        body.insert("client_id".into(), json!(handle.client_id));
        body.insert("software_id".into(), json!(handle.tag));
        let Some(response) = self.manage(Method::PUT, &configuration, Some(&Value::Object(body))).await?
        else {
            // Where nothing is read this is what tells, so the read that follows must know.
            self.gone().insert(handle.client_id);
            return Err(ProviderError::Conflict);
        };
        match response.status {
            200 => {}
            405 | 501 if is_of_api(&response) => return Err(UNMANAGED),
            _ => return Err(self.refusal(&response)),
        }
        let answer = self.answer(&response)?;
        let secret = handle.written(asked, &answer, |u| self.is_own(&endpoint, u));
        self.registered(handle, secret)
    }

    fn registered(&self, handle: Handle, secret: Option<SecretString>) -> Result<Registered, ProviderError> {
        Ok(Registered {
            id: ClientId::parse(&handle.client_id)
                .map_err(|_| self.wire.unexpected(200, "its client_id isn't one"))?,
            secret_expires_at: handle.secret_expires_at(),
            secret,
            handle: handle.write(),
        })
    }

    /// What an answer other than the ones hoped for means.
    fn refusal(&self, response: &Response) -> ProviderError {
        let body = response.json();
        let code = body.as_ref().and_then(|b| b.get("error")?.as_str()).and_then(known_error_code);
        match (response.status, code) {
            (status @ (429 | 503), _) => ProviderError::Busy { status, retry_after: response.retry_after },
            // A policy refuses what the client should be, or from where it is registered.
            (403, Some("insufficient_scope")) => rejected(
                "insufficient_scope",
                "compare spec.incoming.oauth2 with what the server's registration policy allows, and give the provider \
                 an initialAccessTokenSecretRef if the policy asks for one",
            ),
            (status @ (401 | 403), _) => self.wire.unauthorized(status),
            (400 | 422, Some("invalid_redirect_uri")) => rejected(
                "invalid_redirect_uri",
                "change spec.incoming.oauth2.redirectUris, or the server's registration policy",
            ),
            (400 | 422, Some("invalid_client_metadata")) => rejected(
                "invalid_client_metadata",
                "compare spec.incoming.oauth2 with what the server lets clients register",
            ),
            (400 | 422, _) => rejected(
                "invalid_request",
                "compare spec.incoming.oauth2 with what the server lets clients register; its log says more",
            ),
            (413, _) => rejected("too-large", "name fewer or shorter redirectUris"),
            (status, _) => self.wire.other(status),
        }
    }
}

/// Whether an answer comes from an API: JSON, nothing at all, or a bearer challenge (RFC 6750
/// section 3), and not a page of a proxy.
fn is_of_api(response: &Response) -> bool {
    let challenge = || {
        response
            .header("www-authenticate")
            .is_some_and(|c| c.trim_start().to_ascii_lowercase().starts_with("bearer"))
    };
    response.is_json() || response.body.is_empty() || challenge()
}

/// The server registered something else than it was asked for (RFC 7591 section 3.2.1).
fn altered(member: Member) -> ProviderError {
    match member {
        Member::RedirectUris => rejected(
            "redirect_uris changed by the server",
            "it registered other redirect URIs than spec.incoming.oauth2.redirectUris; name those that it takes, or change \
             its registration policy and then the link",
        ),
        Member::GrantTypes => rejected(
            "grant_types changed by the server",
            "it registered other grant types than spec.incoming.oauth2.grantTypes; name those that it takes, or change its \
             registration policy and then the link",
        ),
        Member::Scope => rejected(
            "scope changed by the server",
            "it registered other scopes than spec.incoming.oauth2.scopes; name those that it gives, or change its \
             registration policy and then the link",
        ),
        Member::AuthMethod => rejected(
            "token_endpoint_auth_method changed by the server",
            "it registered another method than spec.incoming.oauth2.tokenEndpointAuthMethod; name that one, or change its \
             registration policy and then the link",
        ),
        Member::Name => rejected(
            "client_name changed by the server",
            "it registered another name than spec.application.name; write that as the server does",
        ),
        Member::Uri => rejected(
            "client_uri changed by the server",
            "it registered another address than spec.application.url; write that as the server does",
        ),
    }
}

#[async_trait]
impl Provider for RegistrationProvider {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            chooses_id: false,
            chooses_secret: false,
            // From the handle, whatever the server tells.
            reads_secret: true,
            rotates: false,
            overlaps: false,
            lists: false,
            tells_owner: false,
            proves: true,
            tells_changes: false,
            expires_secret: true,
            revokes_tokens: false,
        }
    }

    async fn info(&self) -> Result<ProviderInfo, ProviderError> {
        let (metadata, _) = self.discover().await?;
        let grant_types = metadata.list("grant_types_supported").map(|all| {
            let named = |name: &&str| serde_json::from_value::<GrantType>(json!(name)).ok();
            all.iter().filter_map(named).collect()
        });
        let endpoints = metadata.endpoints;
        Ok(ProviderInfo {
            instance: String::new(),
            issuer: self.issuer.as_str().to_owned(),
            authorization_endpoint: endpoints.authorization_endpoint.map(String::from),
            token_endpoint: endpoints.token_endpoint.into(),
            revocation_endpoint: endpoints.revocation_endpoint.map(String::from),
            // A server needn't name all that it offers (RFC 8414 section 2).
            scopes: None,
            // What it doesn't serve it isn't asked to register.
            served: None,
            grant_types,
            auth_methods: endpoints.declared.auth_methods,
            redirect_required: false,
        })
    }

    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError> {
        let Some(mut handle) = Handle::read(at.handle.as_ref()) else { return Ok(None) };
        if self.gone().contains(&handle.client_id) {
            return Ok(None);
        }
        let Some(configuration) = handle.configuration.clone().filter(|_| !handle.rotates_on_read) else {
            return Ok(handle.registered(at.handle.as_ref()));
        };
        let endpoint = self.endpoint().await?;
        match self.manage(Method::GET, &configuration, None).await? {
            None => Ok(None),
            // It is there, and may not be read (RFC 7592 section 2.1).
            Some(response) if response.status == 403 && is_of_api(&response) => {
                Ok(handle.registered(at.handle.as_ref()))
            }
            Some(response) if response.status == 200 => {
                handle.seen(&self.answer(&response)?, |u| self.is_own(&endpoint, u));
                Ok(handle.registered(at.handle.as_ref()))
            }
            Some(response) => Err(self.refusal(&response)),
        }
    }

    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError> {
        if put.revoke_tokens {
            return Err(ProviderError::Unsupported { what: "revoking the tokens of one client" });
        }
        if matches!(put.secret, PutSecret::Chosen { .. }) {
            return Err(ProviderError::Unsupported { what: "choosing a client's secret" });
        }
        let asked = Stated::from(&put.metadata);
        match Handle::read(put.at.handle.as_ref()).filter(|_| put.exists) {
            Some(handle) => self.update(put, handle, asked).await,
            None if put.exists => Err(ProviderError::Conflict),
            None => self.create(put.at.id.as_str(), asked).await,
        }
    }

    async fn delete(&self, at: &ClientRef, _version: Option<&str>) -> Result<(), ProviderError> {
        let Some(handle) = Handle::read(at.handle.as_ref()) else { return Ok(()) };
        let configuration = handle.configuration.ok_or(UNMANAGED)?;
        match self.manage(Method::DELETE, &configuration, None).await? {
            None => Ok(()),
            Some(response) if response.is_success() => Ok(()),
            Some(response) if matches!(response.status, 403 | 405 | 501) && is_of_api(&response) => {
                Err(UNMANAGED)
            }
            Some(response) => Err(self.refusal(&response)),
        }
    }

    fn registration_endpoints(&self) -> Vec<Url> {
        self.endpoint.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    async fn list(&self, _after: Option<&str>) -> Result<Page, ProviderError> {
        Err(ProviderError::Unsupported { what: "listing clients" })
    }

    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof {
        if info.revocation_endpoint.is_some() {
            return prove_by_revocation(self.wire.http(), info, id, secret, method).await;
        }
        let Ok(endpoint) = Url::parse(&info.token_endpoint) else { return Proof::Unproved };
        let client = ClientCredentials::by_secret(id.clone(), method, secret.clone());
        match redeem_nothing(self.wire.http(), &endpoint, &client).await {
            Ok(Redeemed { status: 400, code: Some("invalid_grant") }) => Proof::Authenticated,
            Ok(Redeemed { status: 400 | 401, code: Some("invalid_client") }) => Proof::Refused,
            Ok(Redeemed { status: 401, code: Some("unauthorized_client") }) => Proof::Refused,
            _ => Proof::Unproved,
        }
    }
}
