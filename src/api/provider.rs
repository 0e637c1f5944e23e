//! `LinkProvider` and `ClusterLinkProvider`.

#![allow(clippy::duplicated_attributes, reason = "the lint takes the columns' types for attributes")]

use super::common::{Condition, SecretKeyRef};
use super::schema;
use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.bundled.url"),
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
pub struct LinkProviderSpec {
    /// This project's own provider service.
    pub bundled: Bundled,
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
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.bundled.url"),
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
pub struct ClusterLinkProviderSpec {
    /// This project's own provider service.
    pub bundled: Bundled,
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
    /// Lets a link take its client over though its namespace was made anew (after a cluster was
    /// rebuilt from a backup).
    #[serde(default)]
    pub rebind: bool,
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
    /// Ready, and only while they are true, Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
