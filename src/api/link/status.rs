//! What the operator says of a link.

use super::ProviderKind;
use crate::api::common::Condition;
use crate::api::schema;
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// What the operator found and did.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ApplicationLinkStatus {
    /// The generation of the spec that the rest speaks of.
    #[serde(default)]
    pub observed_generation: i64,
    /// Incoming, Outgoing or Two-way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub direction: Option<String>,
    /// The provider that the client is registered with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider: Option<ProviderStatusRef>,
    /// The Secret that a Service Binding gets: the incoming one, else the outgoing one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub binding: Option<Binding>,
    /// The registered client.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incoming: Option<IncomingStatus>,
    /// Of a link whose incoming part was taken away: the highest serial that its client's secret had.
    /// A new one never has a lower one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub highest_serial: Option<i64>,
    /// The access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outgoing: Option<OutgoingStatus>,
    /// When it is tried again, where something isn't as it should be and may pass by itself (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub next_retry: Option<String>,
    /// Ready, what it rests on (Registered, Authorized, TokenFresh), and, only while they are true,
    /// Reconciling and Stalled.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}

/// The provider of a link.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ProviderStatusRef {
    /// `LinkProvider` or `ClusterLinkProvider`.
    pub kind: ProviderKind,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// A Secret by name, as the Service Binding specification wants it.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
pub struct Binding {
    /// Name of the Secret.
    #[schemars(length(max = 253))]
    pub name: String,
}

/// The registered client.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncomingStatus {
    /// The client identifier at the provider.
    #[schemars(length(max = 255))]
    pub client_id: String,
    /// Serial of its secret; rises with every new one, never falls.
    pub serial: i64,
    /// Identifier of the installation's master key that the secret and the client's owner record hang
    /// on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub master_key: Option<String>,
    /// When this secret began (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub rotated_at: Option<String>,
    /// When the next one will be made (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub next_rotation: Option<String>,
    /// Until when the secret before works too (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub previous_until: Option<String>,
    /// The last rotation request (annotation) that was carried out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub last_request: Option<String>,
    /// What the client's owner record at the provider says is to become of the client when the link is
    /// gone: Delete or Retain. Left out where no record is kept there, or an older version wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub on_deletion: Option<String>,
    /// How long no secret in the Secret worked at the last rotation, at a provider that holds one
    /// secret: from the request until the Secret was written.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub last_gap: Option<String>,
    /// Name of the Secret with its credentials.
    #[schemars(length(max = 253))]
    pub secret_name: String,
}

/// The access token.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingStatus {
    /// The redirect URI to register with the server, for the grant authorizationCode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub redirect_uri: Option<String>,
    /// Where `applink authorize` sends the person that connects the link.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub consent_uri: Option<String>,
    /// Who connected the link, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected: Option<ConnectedStatus>,
    /// Name of the Secret with the access token.
    #[schemars(length(max = 253))]
    pub secret_name: String,
    /// When the token ends (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub expires_at: Option<String>,
    /// When it was got (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub last_refresh: Option<String>,
    /// When the next one will be asked for (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    pub next_refresh: Option<String>,
}

/// Who connected a link.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConnectedStatus {
    /// Who keeps the account, where the server said it: an issuer, a tenant or a team.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 2048))]
    pub issuer: Option<String>,
    /// The account's identifier there, where the server said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub subject: Option<String>,
    /// When the grant became active (RFC 3339).
    #[schemars(length(max = 40))]
    pub at: String,
}
