//! The adapter for dynamic client registration (RFC 7591, RFC 7592): against Keycloak's, and against a double that
//! answers as no server at hand can be brought to answer.

use std::sync::Arc;

use applink_operator::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, RedirectUri, ScopeSet, SecretString,
};
use applink_operator::http::HttpClient;
use applink_operator::outgoing::Issuer;
use applink_operator::provider::registration::RegistrationProvider;
use applink_operator::provider::{
    ClientRef, Proof, Provider, ProviderError, PutClient, PutSecret, Registered, RegisteredClient,
};
use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::conformance::conformance;
use super::subject::{Subject, for_people, http_client, owner};
use crate::provider::service::Service;
use crate::support::keycloak::Realm;
use crate::support::token_server::{Asked, Reply, TokenServer};

mod answers;
mod life;

mod keycloak {
    use super::life::initial_token;
    use super::*;

    /// Keycloak's dynamic registration, the real one.
    struct KeycloakRegistration {
        realm: &'static Realm,
        initial: &'static str,
    }

    impl Subject for KeycloakRegistration {
        async fn start() -> Self {
            static SHARED: OnceCell<(Realm, String)> = OnceCell::const_new();
            let made = SHARED.get_or_init(async || {
                let realm = Realm::new().await;
                let initial = initial_token(&realm).await;
                (realm, initial)
            });
            let (realm, initial) = made.await;
            Self { realm, initial }
        }

        fn bases(&self) -> Vec<String> {
            vec![self.realm.issuer()]
        }

        fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
            let issuer = Issuer::parse(&bases[0]).expect("an issuer");
            Box::new(RegistrationProvider::new(http, issuer, Some(self.initial.into())))
        }

        fn issuer(&self) -> String {
            self.realm.issuer()
        }

        fn scope_sets(&self) -> Vec<&'static str> {
            vec!["profile email", "", "phone", "address offline_access"]
        }

        /// Seen: a longer one is answered 500.
        fn longest_uri(&self) -> usize {
            255
        }
    }

    conformance!(KeycloakRegistration);
}

/// The bundled provider's own registration endpoint.
mod bundled {
    use super::*;

    struct BundledRegistration(Service, String);

    impl Subject for BundledRegistration {
        async fn start() -> Self {
            let service = Service::start(&["--registration"]).await;
            let initial = service.initial_token(1000).await;
            Self(service, initial)
        }

        fn bases(&self) -> Vec<String> {
            vec![self.0.issuer.clone()]
        }

        fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
            let issuer = Issuer::parse(&bases[0]).expect("an issuer");
            Box::new(RegistrationProvider::new(http, issuer, Some(self.1.as_str().into())))
        }

        fn issuer(&self) -> String {
            self.0.issuer.clone()
        }

        fn scope_sets(&self) -> Vec<&'static str> {
            vec!["REPO_READ", "", "REPO_READ REPO_WRITE ACCOUNT_WRITE"]
        }
    }

    conformance!(BundledRegistration);
}

const TAG: &str = "team-a.ci.0123456789abcdef0123";

fn adapter(issuer: &str, initial: Option<&str>) -> RegistrationProvider {
    let issuer = Issuer::parse(issuer).expect("an issuer");
    RegistrationProvider::new(http_client(), issuer, initial.map(SecretString::from))
}

fn metadata() -> ClientMetadata {
    for_people("profile email", AuthMethod::ClientSecretBasic)
}

fn at(handle: Option<&SecretString>) -> ClientRef {
    ClientRef { id: ClientId::parse(TAG).expect("an id"), handle: handle.cloned() }
}

fn put(handle: Option<&SecretString>, metadata: ClientMetadata, secret: PutSecret) -> PutClient {
    let owner = owner("ci");
    let exists = handle.is_some();
    PutClient { at: at(handle), metadata, secret, owner, exists, version: None, revoke_tokens: false }
}

/// A caller that keeps each new handle before the next call.
struct Caller {
    adapter: RegistrationProvider,
    handle: Option<SecretString>,
    /// How many handles it was given.
    kept: usize,
}

impl Caller {
    fn new(adapter: RegistrationProvider) -> Self {
        Self { adapter, handle: None, kept: 0 }
    }

    fn keep(&mut self, handle: Option<SecretString>) {
        if let Some(handle) = handle {
            self.handle = Some(handle);
            self.kept += 1;
        }
    }

    async fn put(
        &mut self,
        metadata: ClientMetadata,
        secret: PutSecret,
    ) -> Result<Registered, ProviderError> {
        let done = self.adapter.put(&put(self.handle.as_ref(), metadata, secret)).await?;
        self.keep(done.handle.clone());
        Ok(done)
    }

    async fn get(&mut self) -> Result<Option<RegisteredClient>, ProviderError> {
        let found = self.adapter.get(&at(self.handle.as_ref())).await?;
        self.keep(found.as_ref().and_then(|f| f.handle.clone()));
        Ok(found)
    }

    async fn delete(&mut self) -> Result<(), ProviderError> {
        self.adapter.delete(&at(self.handle.as_ref()), None).await
    }

    async fn proof(&self, id: &ClientId, secret: &str, method: AuthMethod) -> Proof {
        let info = self.adapter.info().await.expect("info");
        self.adapter.prove(&info, id, &secret.into(), method).await
    }
}

fn text(secret: Option<&SecretString>) -> &str {
    secret.expect("a secret").expose_secret()
}
