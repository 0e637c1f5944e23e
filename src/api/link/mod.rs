//! The `ApplicationLink`: its spec here, its two parts and its status in files of their own.

#![allow(clippy::duplicated_attributes, reason = "the lint takes the columns' types for attributes")]

mod incoming;
mod outgoing;
mod status;

pub use incoming::{Adopt, Incoming, IncomingKeys, IncomingOauth2, IncomingSecret, Rotation};
pub use outgoing::*;
pub use status::*;

use super::schema;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A link between an application and the provider service.
#[derive(CustomResource, Serialize, Deserialize, Clone, Debug, PartialEq, KubeSchema)]
#[kube(
    group = "applink-operator.io",
    version = "v1alpha1",
    kind = "ApplicationLink",
    plural = "applicationlinks",
    shortname = "applink",
    shortname = "al",
    category = "applinks",
    namespaced,
    derive = "PartialEq",
    status = "ApplicationLinkStatus",
    doc = "An OAuth link between an application and the provider service: incoming (the application calls us), outgoing (we call the application), or both.",
    printcolumn(name = "Application", type_ = "string", json_path = ".spec.application.name"),
    printcolumn(name = "Direction", type_ = "string", json_path = ".status.direction"),
    printcolumn(name = "Provider", type_ = "string", json_path = ".status.provider.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].reason"),
    printcolumn(name = "Expires", type_ = "string", json_path = ".status.outgoing.expiresAt"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("!has(self.spec.incoming) || has(self.spec.incoming.secret) && has(self.spec.incoming.secret.name) || size(self.metadata.name) <= 247").message("spec.incoming.secret.name must be given, since this link's name is too long for NAME-oauth"),
    validation = Rule::new("!has(self.spec.outgoing) || has(self.spec.outgoing.secret) && has(self.spec.outgoing.secret.name) || size(self.metadata.name) <= 247").message("spec.outgoing.secret.name must be given, since this link's name is too long for NAME-token"),
    validation = Rule::new("!has(self.spec.incoming) || !has(self.spec.outgoing) || (has(self.spec.incoming.secret) && has(self.spec.incoming.secret.name) ? self.spec.incoming.secret.name : self.metadata.name + '-oauth') != (has(self.spec.outgoing.secret) && has(self.spec.outgoing.secret.name) ? self.spec.outgoing.secret.name : self.metadata.name + '-token')").message("spec.incoming.secret.name and spec.outgoing.secret.name must differ"),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.incoming) || has(self.outgoing)").message("at least one of incoming and outgoing must be set"),
)]
pub struct ApplicationLinkSpec {
    /// The application at the other end, as people see it.
    pub application: Application,
    /// The provider service that an incoming link registers its client with. Left out: the default
    /// provider at the time of the first registration, and that one from then on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<ProviderRef>,
    /// The application calls us: register a client for it and write its credentials into a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<Incoming>,
    /// We call the application: get an access token and keep it fresh in a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<Outgoing>,
    /// What happens at the provider and to the Secrets when the link is deleted.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
    /// Stops refresh and repair; deletion still runs.
    #[serde(default)]
    pub suspend: bool,
}

/// The application at the other end.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Application {
    /// Its name, in any language.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f\\\\x{202a}-\\\\x{202e}\\\\x{2066}-\\\\x{2069}]')").message("must have no control characters, nor any that turn the direction of text"))]
    pub name: String,
    /// Where it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub url: Option<String>,
}

/// Which provider.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRef {
    /// `LinkProvider` (of the link's own namespace) or `ClusterLinkProvider`.
    #[serde(default)]
    pub kind: ProviderKind,
    /// Its name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
}

/// The two kinds of provider.
#[derive(
    Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, JsonSchema,
)]
pub enum ProviderKind {
    /// For one namespace.
    LinkProvider,
    /// For the namespaces that it allows.
    #[default]
    ClusterLinkProvider,
}

impl ProviderKind {
    /// The kind's name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LinkProvider => "LinkProvider",
            Self::ClusterLinkProvider => "ClusterLinkProvider",
        }
    }
}

/// What becomes of client, grant and Secrets when the link is deleted.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, Default, PartialEq, Eq, JsonSchema)]
pub enum DeletionPolicy {
    /// The client is unregistered, the grant revoked, the Secrets go.
    #[default]
    Delete,
    /// All of it stays, and works on; nobody keeps it any more.
    Retain,
}

/// The type of a Secret whose link names none.
fn opaque() -> String {
    "Opaque".to_owned()
}
