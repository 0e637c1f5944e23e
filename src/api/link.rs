//! The `ApplicationLink`.

#![allow(clippy::duplicated_attributes, reason = "the lint takes the columns' types for attributes")]

use super::common::{Condition, SecretKeyRef};
use super::schema;
use crate::domain::{AuthMethod, GrantType};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    #[x_kube(validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')").message("must have no control characters"))]
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

/// The application calls us.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.adopt) == has(oldSelf.adopt) && (!has(self.adopt) || self.adopt.clientId == oldSelf.adopt.clientId)").message("adopt can't change: it says which client this link is; make another link for another client"),
    validation = Rule::new("!has(self.rotation) || self.oauth2.tokenEndpointAuthMethod != 'none'").message("a public client (tokenEndpointAuthMethod: none) has no secret to rotate; leave rotation out"),
)]
pub struct Incoming {
    /// An OAuth 2.0 client.
    pub oauth2: IncomingOauth2,
    /// A client that is there already and that this link takes over, with its secret as it is. The
    /// provider must list it as adoptable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub adopt: Option<Adopt>,
    /// When the client gets a new secret. Left out: when it is asked for, or about to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotation: Option<Rotation>,
    /// The Secret that gets the client's credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<IncomingSecret>,
}

/// A client that is there already.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Adopt {
    /// Its identifier at the provider.
    #[schemars(schema_with = "schema::client_id")]
    pub client_id: String,
    /// Where its secret stands, in the link's namespace; needed where the provider doesn't let it
    /// be read. It is read until the client is taken over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<SecretKeyRef>,
}

/// When the client gets a new secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.every) || !has(self.overlap) || duration(self.overlap) < duration(self.every)").message("overlap must be shorter than every"),
)]
pub struct Rotation {
    /// How often. Left out: only when it is asked for, or the provider ends the secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub every: Option<String>,
    /// How long the old secret works beside the new one. Left out: 24h or half of every, whichever
    /// is less, where the provider can have two secrets, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::overlap")]
    pub overlap: Option<String>,
}

/// The client that is registered (RFC 7591 section 2).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.grantTypes) || !self.grantTypes.exists(g, g == 'authorization_code') || (has(self.redirectUris) && size(self.redirectUris) > 0)").message("redirectUris must have at least one entry for the grant type authorization_code"),
    validation = Rule::new("self.tokenEndpointAuthMethod != 'none' || (has(self.grantTypes) ? !self.grantTypes.exists(g, g == 'client_credentials') : has(self.redirectUris) && size(self.redirectUris) > 0)").message("a public client (tokenEndpointAuthMethod: none) can't use the grant type client_credentials; give it redirectUris, or another tokenEndpointAuthMethod"),
)]
pub struct IncomingOauth2 {
    /// Where users may be sent back to: https, or http on loopback; matched exactly.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::redirect_uris")]
    pub redirect_uris: Vec<String>,
    /// The scopes that the client may get. Left out: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scopes")]
    pub scopes: Option<Vec<String>>,
    /// The grant types that the client may use. Left out: authorization_code and refresh_token
    /// where there are redirectUris, else client_credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::grant_types")]
    pub grant_types: Option<Vec<GrantType>>,
    /// How the client authenticates at the token endpoint; none is a public client, which has no
    /// secret.
    #[serde(default)]
    #[schemars(schema_with = "auth_method")]
    pub token_endpoint_auth_method: AuthMethod,
}

fn auth_method(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "enum": ["client_secret_basic", "client_secret_post", "none"], "default": "client_secret_basic" })
}

/// The Secret with the client's credentials.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncomingSecret {
    /// Its name. Left out: NAME-oauth.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_object_name")]
    pub name: Option<String>,
    /// Other keys for the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<IncomingKeys>,
    /// Labels to put on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Its type; fixed once the Secret is there.
    #[serde(rename = "type", default = "opaque")]
    #[schemars(schema_with = "schema::secret_type")]
    pub type_: String,
    /// More keys, each a template over clientId, clientSecret, issuerUri, authorizationEndpoint,
    /// tokenEndpoint, tokenEndpointAuthMethod, type and provider. Filters: json, sh, b64encode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::templates")]
    pub template: BTreeMap<String, String>,
}

fn opaque() -> String {
    "Opaque".to_owned()
}

/// The keys of the incoming Secret.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct IncomingKeys {
    /// Key of the client identifier. Left out: client-id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_id: Option<String>,
    /// Key of the client secret. Left out: client-secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub client_secret: Option<String>,
    /// Key of the issuer. Left out: issuer-uri.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub issuer_uri: Option<String>,
    /// Key of the authorization endpoint. Left out: authorization-endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub authorization_endpoint: Option<String>,
    /// Key of the token endpoint. Left out: token-endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub token_endpoint: Option<String>,
    /// Key of the authentication method. Left out: token-endpoint-auth-method.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub token_endpoint_auth_method: Option<String>,
}

/// We call the application.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Outgoing {
    /// OAuth 2.0.
    pub oauth2: OutgoingOauth2,
    /// When the access token is refreshed. Left out: at two thirds of its lifetime.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh: Option<Refresh>,
    /// The Secret that gets the access token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<OutgoingSecret>,
}

/// Where the token comes from, and how.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingOauth2 {
    /// The authorization server.
    pub server: Server,
    /// The grant that gives the token; exactly one key.
    pub grant: Grant,
    /// Our client at that server.
    pub client: Client,
    /// The scopes to ask for. Left out: what the server gives unasked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scopes")]
    pub scopes: Option<Vec<String>>,
}

/// The authorization server; exactly one key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Server {
    /// A server named by its issuer or its endpoints.
    pub custom: CustomServer,
}

/// A server named by its issuer or its endpoints.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.issuer) != has(self.tokenEndpoint)").message("exactly one of issuer and tokenEndpoint must be set"),
    validation = Rule::new("!has(self.revocationEndpoint) || has(self.tokenEndpoint)").message("revocationEndpoint goes with tokenEndpoint; with an issuer it is discovered"),
)]
pub struct CustomServer {
    /// The issuer; its endpoints are discovered (RFC 8414, then OpenID Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub issuer: Option<String>,
    /// The token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub revocation_endpoint: Option<String>,
}

/// The grant; exactly one key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clientCredentials) != has(self.refreshToken)").message("exactly one of clientCredentials and refreshToken must be set"),
)]
pub struct Grant {
    /// RFC 6749 section 4.4: the client itself is the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_credentials: Option<ClientCredentialsGrant>,
    /// RFC 6749 section 6: from a refresh token that you bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshTokenGrant>,
}

/// No settings.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
pub struct ClientCredentialsGrant {}

/// A refresh token that you bring.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct RefreshTokenGrant {
    /// Where it stands. It is read once; what the server sends later is kept by the operator. Put
    /// another token there to start anew.
    pub secret_ref: SecretKeyRef,
}

/// Our client at the server.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Client {
    /// The Secret with its identifier and secret.
    pub secret_ref: ClientSecretRef,
    /// How it authenticates at the token endpoint.
    #[serde(default)]
    #[schemars(schema_with = "auth_method")]
    pub auth_method: AuthMethod,
}

/// A Secret with a client's identifier and secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the identifier.
    #[serde(default = "client_id_key")]
    #[schemars(schema_with = "id_key")]
    pub id_key: String,
    /// Key of the secret; not read with authMethod none.
    #[serde(default = "client_secret_key")]
    #[schemars(schema_with = "secret_key")]
    pub secret_key: String,
}

fn client_id_key() -> String {
    "client-id".to_owned()
}

fn client_secret_key() -> String {
    "client-secret".to_owned()
}

fn id_key(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$", "default": "client-id" })
}

fn secret_key(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({ "type": "string", "minLength": 1, "maxLength": 253, "pattern": "^[-._a-zA-Z0-9]+$", "default": "client-secret" })
}

/// When the access token is refreshed; exactly one key.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.before) != has(self.every)").message("exactly one of before and every must be set"),
)]
pub struct Refresh {
    /// This long before the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub before: Option<String>,
    /// This often, and in any case before the token ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::duration")]
    pub every: Option<String>,
}

/// The Secret with the access token.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingSecret {
    /// Its name. Left out: NAME-token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::optional_object_name")]
    pub name: Option<String>,
    /// Other keys for the values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keys: Option<OutgoingKeys>,
    /// Labels to put on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations to put on it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::annotations")]
    pub annotations: BTreeMap<String, String>,
    /// Its type; fixed once the Secret is there.
    #[serde(rename = "type", default = "opaque")]
    #[schemars(schema_with = "schema::secret_type")]
    pub type_: String,
    /// More keys, each a template over accessToken, tokenType, expiresAt, scope, type and
    /// provider. Filters: json, sh, b64encode.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::templates")]
    pub template: BTreeMap<String, String>,
}

/// The keys of the outgoing Secret.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingKeys {
    /// Key of the access token. Left out: access-token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub access_token: Option<String>,
    /// Key of the token type. Left out: token-type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub token_type: Option<String>,
    /// Key of the end of the token's life (RFC 3339). Left out: expires-at.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub expires_at: Option<String>,
    /// Key of the granted scopes. Left out: scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::secret_key")]
    pub scope: Option<String>,
}

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
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct OutgoingStatus {
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
