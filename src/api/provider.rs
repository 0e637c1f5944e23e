//! `LinkProvider` and `ClusterLinkProvider`.

#![allow(clippy::duplicated_attributes, reason = "the lint takes the columns' types for attributes")]

use super::common::{Condition, SecretKeyRef};
use super::schema;
use crate::domain::GrantType;
use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Which service it is, is the one key that is set.
fn one_service() -> Rule {
    Rule::new("[has(self.bundled), has(self.hydra), has(self.keycloak), has(self.registration), has(self.bitbucket)].filter(x, x).size() == 1").message("exactly one of bundled, hydra, keycloak, registration and bitbucket must be set")
}

/// Links hang on it.
fn same_service() -> Rule {
    Rule::new("has(self.bundled) == has(oldSelf.bundled) && has(self.hydra) == has(oldSelf.hydra) && has(self.keycloak) == has(oldSelf.keycloak) && has(self.registration) == has(oldSelf.registration) && has(self.bitbucket) == has(oldSelf.bitbucket)").message("the kind of provider service can't change; make another provider and name that one in the links")
}

/// The addresses of a tenant's provider are its identity: secrets are bound to them.
fn same_address(service: &str, field: &str) -> Rule {
    let (now, old) = (format!("self.{service}"), format!("oldSelf.{service}"));
    let mut same = format!("{now}.{field} == {old}.{field}");
    if !field.contains('.') {
        // Optional: an absent one has no value to compare.
        same = format!("has({now}.{field}) == has({old}.{field}) && (!has({now}.{field}) || {same})");
    }
    Rule::new(format!("!has({now}) || !has({old}) || ({same})"))
        .message("is part of the provider's identity and can't change; make another provider, name that one in the links, and delete this one")
        .field_path(format!(".{service}.{field}"))
}

/// A provider service for one namespace.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "applink-operator.io",
    version = "v1alpha1",
    kind = "LinkProvider",
    plural = "linkproviders",
    category = "applinks",
    namespaced,
    derive = "PartialEq",
    status = "ProviderStatus",
    doc = "A provider service that links of its own namespace may register OAuth clients with.",
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = ".metadata.annotations.applink-operator\\.io/is-default-provider"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = one_service(),
    validation = same_service(),
    validation = same_address("bundled", "admin.url"),
    validation = same_address("hydra", "admin.url"),
    validation = same_address("bitbucket", "apiPath")
)]
pub struct LinkProviderSpec {
    /// This project's own provider service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundled: Option<Bundled>,
    /// Ory Hydra, by its admin API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hydra: Option<Hydra>,
    /// A realm of Keycloak, by its admin API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keycloak: Option<Keycloak>,
    /// Any server with dynamic client registration (RFC 7591 and RFC 7592).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// Bitbucket Data Center.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitbucket: Option<Bitbucket>,
    /// Identifiers of clients that are there already and that links may adopt. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::client_ids")]
    pub adoptable: Option<Vec<String>>,
}

/// A provider service for the namespaces that it allows.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "applink-operator.io",
    version = "v1alpha1",
    kind = "ClusterLinkProvider",
    plural = "clusterlinkproviders",
    category = "applinks",
    derive = "PartialEq",
    status = "ProviderStatus",
    doc = "A provider service that links of the allowed namespaces may register OAuth clients with. What it refers to stands in the operator's namespace.",
    printcolumn(name = "Type", type_ = "string", json_path = ".status.type"),
    printcolumn(name = "URL", type_ = "string", json_path = ".status.url"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status"
    ),
    printcolumn(
        name = "Default",
        type_ = "string",
        json_path = ".metadata.annotations.applink-operator\\.io/is-default-provider"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = one_service(), validation = same_service())]
pub struct ClusterLinkProviderSpec {
    /// This project's own provider service.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bundled: Option<Bundled>,
    /// Ory Hydra, by its admin API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hydra: Option<Hydra>,
    /// A realm of Keycloak, by its admin API.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keycloak: Option<Keycloak>,
    /// Any server with dynamic client registration (RFC 7591 and RFC 7592).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub registration: Option<Registration>,
    /// Bitbucket Data Center.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bitbucket: Option<Bitbucket>,
    /// Who may use it, and for what. Left out: nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub allow: Option<Allow>,
}

/// This project's own provider service (`applink provider`).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Bundled {
    /// Its public address, which is its issuer.
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is the provider's identity and can't change; make another provider, or delete this one first"))]
    pub url: String,
    /// Its admin API.
    pub admin: BundledAdmin,
    /// Certificates (PEM) to trust beside the built-in roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// The certificate to log in with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateRef>,
}

/// The admin API of the bundled provider.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct BundledAdmin {
    /// Its address.
    #[schemars(schema_with = "schema::url")]
    pub url: String,
    /// The bearer token.
    pub token_secret_ref: SecretKeyRef,
}

/// A Secret of type `kubernetes.io/tls`: keys `tls.crt` and `tls.key`.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct CertificateRef {
    /// Its name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// Ory Hydra.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Hydra {
    /// Its public address, which is its issuer.
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is the provider's identity and can't change; make another provider, or delete this one first"))]
    pub url: String,
    /// Its admin API, which has no authentication of its own: let nobody else reach it.
    pub admin: HydraAdmin,
    /// Certificates (PEM) to trust beside the built-in roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// The certificate to log in with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateRef>,
}

/// Hydra's admin API.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HydraAdmin {
    /// Its address, without /admin.
    #[schemars(schema_with = "schema::url")]
    pub url: String,
    /// A bearer token, where a proxy before the admin API asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
}

/// A realm of Keycloak.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Keycloak {
    /// Keycloak's address, without /realms, such as https://sso.example.com.
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is the provider's identity and can't change; make another provider, or delete this one first"))]
    pub url: String,
    /// The realm's name.
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is part of the provider's identity and can't change; make another provider, or delete this one first"))]
    #[x_kube(validation = Rule::new("self.matches('^[^/?#%\\\\s]+$')").message("must be a realm's name as it stands in its address"))]
    pub realm: String,
    /// The operator's own client there: with a service account that has the role manage-clients of
    /// realm-management, and no other.
    pub client_secret_ref: super::link::ClientSecretRef,
    /// Certificates (PEM) to trust beside the built-in roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// The certificate to log in with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateRef>,
}

/// Any server with dynamic client registration.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Its issuer; its endpoints are discovered (RFC 8414, then OpenID Connect).
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is the provider's identity and can't change; make another provider, or delete this one first"))]
    pub issuer: String,
    /// The initial access token (RFC 7591 section 3), where the server asks for one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub initial_access_token_secret_ref: Option<SecretKeyRef>,
    /// Certificates (PEM) to trust beside the built-in roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// The certificate to log in with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateRef>,
}

/// Bitbucket Data Center.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.userSecretRef) != has(self.tokenSecretRef)").message("exactly one of userSecretRef and tokenSecretRef must be set"),
)]
pub struct Bitbucket {
    /// Its base URL, as under Administration, Server settings.
    #[schemars(schema_with = "schema::url")]
    #[x_kube(validation = Rule::new("self == oldSelf").message("is the provider's identity and can't change; make another provider, or delete this one first"))]
    pub url: String,
    /// A system administrator's name and password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub user_secret_ref: Option<UserSecretRef>,
    /// An OAuth access token of a system administrator. Bitbucket's HTTP access tokens can't manage
    /// clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_secret_ref: Option<SecretKeyRef>,
    /// The path of the OAuth REST API under the base URL. Left out: /rest/oauth2/latest.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url_path")]
    pub api_path: Option<String>,
    /// Certificates (PEM) to trust beside the built-in roots.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::pem")]
    pub ca_bundle: Option<String>,
    /// The certificate to log in with (mutual TLS).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate_secret_ref: Option<CertificateRef>,
}

/// A Secret with a user's name and password.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSecretRef {
    /// Its name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the user's name. Left out: username.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub username_key: Option<String>,
    /// Key of the password. Left out: password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub password_key: Option<String>,
}

/// The provider service, whichever it is.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub enum Service {
    /// This project's own.
    Bundled(Bundled),
    /// Ory Hydra.
    Hydra(Hydra),
    /// Keycloak.
    Keycloak(Keycloak),
    /// RFC 7591 and RFC 7592.
    Registration(Registration),
    /// Bitbucket Data Center.
    Bitbucket(Bitbucket),
}

impl Service {
    /// The type, as it stands in status and Secrets.
    pub const fn type_(&self) -> &'static str {
        match self {
            Self::Bundled(_) => "bundled",
            Self::Hydra(_) => "hydra",
            Self::Keycloak(_) => "keycloak",
            Self::Registration(_) => "registration",
            Self::Bitbucket(_) => "bitbucket",
        }
    }

    /// Type and address (and realm), which can't change, and not what the service calls itself today:
    /// which service it is, by the word of whoever wrote it.
    pub fn identity(&self) -> String {
        let url = self.url().trim_end_matches('/');
        match self {
            Self::Keycloak(s) => format!("{}|{url}|{}", self.type_(), s.realm),
            _ => format!("{}|{url}", self.type_()),
        }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        match self {
            Self::Bundled(s) => &s.url,
            Self::Hydra(s) => &s.url,
            Self::Keycloak(s) => &s.url,
            Self::Registration(s) => &s.issuer,
            Self::Bitbucket(s) => &s.url,
        }
    }

    /// All that the spec says of where the service is: every address that is called, and what tells
    /// one service at an address from another.
    pub fn addresses(&self) -> Vec<&str> {
        let mut all = vec![self.url()];
        match self {
            Self::Bundled(s) => all.push(&s.admin.url),
            Self::Hydra(s) => all.push(&s.admin.url),
            Self::Keycloak(s) => all.push(&s.realm),
            Self::Registration(_) => {}
            Self::Bitbucket(s) => all.extend(s.api_path.as_deref()),
        }
        all
    }

    /// Certificates to trust beside the built-in roots (PEM).
    pub fn ca_bundle(&self) -> Option<&str> {
        match self {
            Self::Bundled(s) => s.ca_bundle.as_deref(),
            Self::Hydra(s) => s.ca_bundle.as_deref(),
            Self::Keycloak(s) => s.ca_bundle.as_deref(),
            Self::Registration(s) => s.ca_bundle.as_deref(),
            Self::Bitbucket(s) => s.ca_bundle.as_deref(),
        }
    }

    /// The certificate to log in with.
    pub fn client_certificate(&self) -> Option<&CertificateRef> {
        match self {
            Self::Bundled(s) => s.client_certificate_secret_ref.as_ref(),
            Self::Hydra(s) => s.client_certificate_secret_ref.as_ref(),
            Self::Keycloak(s) => s.client_certificate_secret_ref.as_ref(),
            Self::Registration(s) => s.client_certificate_secret_ref.as_ref(),
            Self::Bitbucket(s) => s.client_certificate_secret_ref.as_ref(),
        }
    }
}

macro_rules! service {
    ($spec:ty) => {
        impl $spec {
            /// The one that is set; `None` where the schema was got round.
            pub fn service(&self) -> Option<Service> {
                let all = [
                    self.bundled.clone().map(Service::Bundled),
                    self.hydra.clone().map(Service::Hydra),
                    self.keycloak.clone().map(Service::Keycloak),
                    self.registration.clone().map(Service::Registration),
                    self.bitbucket.clone().map(Service::Bitbucket),
                ];
                let mut set = all.into_iter().flatten();
                let first = set.next();
                first.filter(|_| set.next().is_none())
            }
        }
    };
}
service!(LinkProviderSpec);
service!(ClusterLinkProviderSpec);

/// Who may use a `ClusterLinkProvider`, and for what.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Allow {
    /// The namespaces whose links may use it.
    pub namespaces: AllowNamespaces,
    /// The scopes that clients may get. Left out: all that the provider offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scopes")]
    pub scopes: Option<Vec<String>>,
    /// The hosts that redirect URIs may name: ci.example.com, or *.example.com for every host
    /// under it. Left out: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::redirect_hosts")]
    pub redirect_hosts: Option<Vec<String>>,
    /// The grant types that clients may use. Left out: all that the provider offers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::grant_types")]
    pub grant_types: Option<Vec<GrantType>>,
    /// Clients that are there already and that links may adopt. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub adoptable: Option<Vec<Adoptable>>,
    /// Lets a link take its client over though its namespace was made anew (after a cluster was
    /// rebuilt from a backup).
    #[serde(default)]
    pub rebind: bool,
}

/// A client that links of one namespace may adopt.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adoptable {
    /// Its identifier at the provider.
    #[schemars(schema_with = "schema::client_id")]
    pub client_id: String,
    /// The namespace.
    #[schemars(schema_with = "schema::namespace")]
    pub namespace: String,
}

/// Namespaces; exactly one key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.all), has(self.names), has(self.matchLabels)].filter(x, x).size() == 1").message("exactly one of all, names and matchLabels must be set"),
)]
pub struct AllowNamespaces {
    /// Every namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub all: Option<AllNamespaces>,
    /// These.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::namespaces")]
    pub names: Option<Vec<String>>,
    /// Those that have all of these labels.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::match_labels")]
    pub match_labels: Option<BTreeMap<String, String>>,
}

/// No settings.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct AllNamespaces {}

/// What the operator found.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatus {
    /// The generation of the spec that the rest speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// The kind of provider service, such as bundled.
    #[serde(rename = "type", default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub type_: Option<String>,
    /// Its address, which is its issuer but for Bitbucket and Keycloak.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub url: Option<String>,
    /// Ready, and only while they are true, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
