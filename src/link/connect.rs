//! From a provider's spec and its credentials to an adapter that answers.

use super::connections::Connected;
use super::credentials::{Credentials, Lending, Purpose};
use super::problem::Problem;
use crate::api::link::ProviderKind;
use crate::api::provider::Service;
use crate::domain::{ClientId, ExposeSecret as _, Reason};
use crate::http::{CaBundle, ClientIdentity, Guard, HttpClient, Trust};
use crate::outgoing::Issuer;
use crate::provider::bitbucket::{BitbucketLogin, BitbucketProvider};
use crate::provider::bundled::BundledProvider;
use crate::provider::hydra::HydraProvider;
use crate::provider::keycloak::KeycloakProvider;
use crate::provider::registration::RegistrationProvider;
use crate::provider::{Provider, ProviderInfo};
use url::Url;

/// Connects to a provider service. `actor` is who we are to it.
///
/// # Errors
/// [`Problem`] when its address, certificates or credentials can't be used, it doesn't answer, or
/// it calls itself by another issuer; or when a Secret may not be sent to where it is.
pub async fn connect(
    guard: &Guard,
    kind: ProviderKind,
    service: &Service,
    credentials: &Credentials,
    lending: &Lending,
    actor: &str,
) -> Result<Connected, Problem> {
    lend_to_stated(service, lending)?;
    let provider = adapter(http(guard, kind, service, credentials)?, service, credentials, actor)?;
    let info = provider.info().await.map_err(|e| Problem::from(&e))?;
    lend_to_named(&info, &provider.registration_endpoints(), lending)?;
    let stated = match service {
        Service::Bundled(s) => Some(("spec.bundled.url", &s.url)),
        Service::Hydra(s) => Some(("spec.hydra.url", &s.url)),
        Service::Registration(s) => Some(("spec.registration.issuer", &s.issuer)),
        // Their issuers aren't the addresses by which people know them.
        Service::Keycloak(_) | Service::Bitbucket(_) => None,
    };
    if let Some((field, stated)) = stated
        && info.issuer.trim_end_matches('/') != stated.trim_end_matches('/')
    {
        return Err(Problem::edit(
            Reason::IssuerMismatch,
            format!("{field} isn't the issuer that the provider calls itself; make them the same"),
        ));
    }
    Ok(Connected::new(provider, info))
}

/// What a service is logged in with, beside a certificate.
const LOGIN: [Purpose; 3] = [Purpose::Token, Purpose::Id, Purpose::Secret];
const CERTIFICATE: [Purpose; 2] = [Purpose::Certificate, Purpose::Key];

/// Whether what the spec refers to may go to the addresses in it: asked before anything is sent.
///
/// # Errors
/// [`Problem`] that names Secret, address and host.
pub fn lend_to_stated(service: &Service, lending: &Lending) -> Result<(), Problem> {
    let parse = |text: &str| Url::parse(text).ok();
    let public = parse(service.url());
    let admin = match service {
        Service::Bundled(s) => parse(&s.admin.url),
        Service::Hydra(s) => parse(&s.admin.url),
        Service::Keycloak(_) | Service::Bitbucket(_) => public.clone(),
        // Its metadata says where the token goes.
        Service::Registration(_) => None,
    };
    let admin = admin.as_ref().map(|url| ("admin API", url));
    lending.check(&LOGIN, &Vec::from_iter(admin))?;
    lending
        .check(&CERTIFICATE, &Vec::from_iter(admin.into_iter().chain(public.as_ref().map(|u| ("issuer", u)))))
}

/// Whether it may go to the addresses that the service names of itself: asked before anything is sent
/// there.
fn lend_to_named(info: &ProviderInfo, registration: &[Url], lending: &Lending) -> Result<(), Problem> {
    let registration: Vec<_> = registration.iter().map(|url| ("registration endpoint", url)).collect();
    lending.check(&LOGIN, &registration)?;
    let parse = |text: Option<&str>| text.and_then(|t| Url::parse(t).ok());
    let (token, revocation) = (parse(Some(&info.token_endpoint)), parse(info.revocation_endpoint.as_deref()));
    let token = token.as_ref().map(|url| ("token endpoint", url));
    let revocation = revocation.as_ref().map(|url| ("revocation endpoint", url));
    lending.check(&CERTIFICATE, &Vec::from_iter(registration.into_iter().chain(token).chain(revocation)))
}

/// The client that a provider is called with.
fn http(
    guard: &Guard,
    kind: ProviderKind,
    service: &Service,
    credentials: &Credentials,
) -> Result<HttpClient, Problem> {
    let ca =
        service.ca_bundle().map(|pem| CaBundle::parse(pem.as_bytes())).transpose().map_err(|e| {
            Problem::edit(Reason::InvalidSpec, format!("spec.{}.caBundle {e}", service.type_()))
        })?;
    // The platform team's word is good for any address; a tenant's isn't.
    let trust = match kind {
        ProviderKind::ClusterLinkProvider => Trust::Trusted,
        ProviderKind::LinkProvider => Trust::Guarded,
    };
    let client = guard.client(trust, ca);
    let (Some(certificate), Some(key)) =
        (credentials.get(Purpose::Certificate), credentials.get(Purpose::Key))
    else {
        return Ok(client);
    };
    let identity =
        ClientIdentity::parse(certificate.expose_secret().as_bytes(), key.expose_secret().as_bytes())
            .map_err(|e| {
                let field = format!("spec.{}.clientCertificateSecretRef", service.type_());
                Problem::edit(Reason::InvalidClientCertificate, format!("the Secret that {field} names {e}"))
            })?;
    Ok(client.with_identity(identity))
}

fn adapter(
    http: HttpClient,
    service: &Service,
    credentials: &Credentials,
    actor: &str,
) -> Result<Box<dyn Provider>, Problem> {
    let url = |field: &'static str, text: &str| {
        Url::parse(text).map_err(|_| Problem::edit(Reason::InvalidSpec, format!("{field} isn't a URL")))
    };
    Ok(match service {
        Service::Bundled(s) => Box::new(BundledProvider::new(
            http,
            url("spec.bundled.admin.url", &s.admin.url)?,
            credentials.need(Purpose::Token)?,
            actor,
        )),
        Service::Hydra(s) => Box::new(HydraProvider::new(
            http,
            url("spec.hydra.url", &s.url)?,
            url("spec.hydra.admin.url", &s.admin.url)?,
            credentials.get(Purpose::Token).cloned(),
        )),
        Service::Keycloak(s) => Box::new(KeycloakProvider::new(
            http,
            url("spec.keycloak.url", &s.url)?,
            &s.realm,
            own_client(credentials, "spec.keycloak.clientSecretRef")?,
            credentials.need(Purpose::Secret)?,
        )),
        Service::Registration(s) => Box::new(RegistrationProvider::new(
            http,
            Issuer::parse(&s.issuer)
                .map_err(|e| Problem::edit(Reason::InvalidSpec, format!("spec.registration.issuer {e}")))?,
            credentials.get(Purpose::Token).cloned(),
        )),
        Service::Bitbucket(s) => Box::new(BitbucketProvider::new(
            http,
            &url("spec.bitbucket.url", &s.url)?,
            s.api_path.as_deref(),
            match credentials.get(Purpose::Token) {
                Some(token) => BitbucketLogin::Token(token.clone()),
                None => BitbucketLogin::User {
                    name: credentials.need(Purpose::Id)?,
                    password: credentials.need(Purpose::Secret)?,
                },
            },
        )),
    })
}

/// The identifier of the client that we are to a service.
fn own_client(credentials: &Credentials, field: &str) -> Result<ClientId, Problem> {
    ClientId::parse(credentials.need(Purpose::Id)?.expose_secret()).map_err(|e| {
        Problem::edit(
            Reason::InvalidCredential,
            format!("the client's identifier in the Secret that {field} names {e}"),
        )
    })
}
