//! The outgoing part: we call the application.

use crate::api::common::SecretKeyRef;
use crate::api::schema;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
#[x_kube(
    validation = Rule::new("has(self.client) || has(self.grant.jwtBearer)").message("client must be given, but for the grant jwtBearer"),
    validation = Rule::new("!has(self.client) || !has(self.client.authMethod) || self.client.authMethod != 'none' || !has(self.grant.clientCredentials)").message("authMethod none can't be used with the grant clientCredentials; use another authMethod"),
)]
pub struct OutgoingOauth2 {
    /// The authorization server; exactly one key.
    pub server: Server,
    /// The grant that gives the token; exactly one key.
    pub grant: Grant,
    /// Our client at that server. The grant jwtBearer may do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<Client>,
    /// The scopes to ask for. Left out: what the server gives unasked. A preset adds those that it
    /// can't do without.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::scopes")]
    pub scopes: Option<Vec<String>>,
}

/// The authorization server; exactly one key. All but custom are presets: they fill in endpoints,
/// parameters, and how the server says that a grant is dead.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.google), has(self.microsoft), has(self.github), has(self.gitlab), has(self.slack), has(self.atlassian), has(self.custom)].filter(x, x).size() == 1").message("exactly one of google, microsoft, github, gitlab, slack, atlassian and custom must be set"),
)]
pub struct Server {
    /// Google.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub google: Option<PresetServer>,
    /// Microsoft Entra ID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub microsoft: Option<MicrosoftServer>,
    /// GitHub, or a GitHub Enterprise Server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub github: Option<HostedServer>,
    /// GitLab, or one of your own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gitlab: Option<HostedServer>,
    /// Slack.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub slack: Option<PresetServer>,
    /// Atlassian Cloud.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub atlassian: Option<PresetServer>,
    /// A server named by its issuer or its endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub custom: Option<CustomServer>,
}

/// A server that a preset knows.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PresetServer {
    /// Endpoints in place of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// Microsoft Entra ID.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct MicrosoftServer {
    /// A tenant's ID or domain, or common, organizations or consumers.
    #[schemars(schema_with = "schema::tenant")]
    pub tenant: String,
    /// Endpoints in place of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// A server that may be one of your own.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct HostedServer {
    /// Where it is. Left out: the public one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub url: Option<String>,
    /// Endpoints in place of the preset's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoints: Option<Endpoints>,
}

/// Endpoints in place of a preset's.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Endpoints {
    /// The authorization endpoint (RFC 6749 section 3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint (RFC 6749 section 3.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub revocation_endpoint: Option<String>,
    /// The device authorization endpoint (RFC 8628).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub device_authorization_endpoint: Option<String>,
    /// Where the server says whose token it is. Asked only where it is at the token endpoint's scheme, host and port,
    /// or the preset's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub user_endpoint: Option<String>,
}

/// A server named by its issuer or its endpoints.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.issuer) != has(self.tokenEndpoint)").message("exactly one of issuer and tokenEndpoint must be set"),
    validation = Rule::new("has(self.tokenEndpoint) || !has(self.revocationEndpoint) && !has(self.authorizationEndpoint) && !has(self.deviceAuthorizationEndpoint)").message("the other endpoints go with tokenEndpoint; with an issuer they are discovered"),
)]
pub struct CustomServer {
    /// The issuer; its endpoints are discovered (RFC 8414, then OpenID Connect).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub issuer: Option<String>,
    /// The authorization endpoint (RFC 6749 section 3.1).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub authorization_endpoint: Option<String>,
    /// The token endpoint (RFC 6749 section 3.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub token_endpoint: Option<String>,
    /// The revocation endpoint (RFC 7009), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub revocation_endpoint: Option<String>,
    /// The device authorization endpoint (RFC 8628), if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::url")]
    pub device_authorization_endpoint: Option<String>,
}

/// The grant; exactly one key.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("[has(self.authorizationCode), has(self.deviceCode), has(self.clientCredentials), has(self.refreshToken), has(self.jwtBearer)].filter(x, x).size() == 1").message("exactly one of authorizationCode, deviceCode, clientCredentials, refreshToken and jwtBearer must be set"),
)]
pub struct Grant {
    /// RFC 6749 section 4.1, with PKCE: a person consents, once, by `applink authorize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization_code: Option<AuthorizationCodeGrant>,
    /// RFC 8628: a person consents by entering a code, also by `applink authorize`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub device_code: Option<DeviceCodeGrant>,
    /// RFC 6749 section 4.4: the client itself is the owner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_credentials: Option<ClientCredentialsGrant>,
    /// RFC 6749 section 6: from a refresh token that you bring.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<RefreshTokenGrant>,
    /// RFC 7523 section 2.1: a signed assertion, as of a Google service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jwt_bearer: Option<JwtBearerGrant>,
}

/// A person consents in a browser.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct AuthorizationCodeGrant {
    /// More parameters of the authorization request. The protocol's own can't be set here. At a custom
    /// server `prompt=consent` is sent where scopes has offline_access and no `prompt` is given here:
    /// without it servers ignore that scope (OpenID Connect Core section 11).
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::parameters")]
    pub parameters: BTreeMap<String, String>,
    /// The only account that may be connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_account: Option<ExpectedAccount>,
}

/// A person consents by entering a code.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCodeGrant {
    /// The only account that may be connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_account: Option<ExpectedAccount>,
}

/// An account at the server. Never a mail address: those move from one person to another.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ExpectedAccount {
    /// Who keeps the account: the issuer (OpenID Connect `iss`); at Microsoft the tenant's ID, at
    /// Slack the team's. Left out: the server's own, where it has one only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: Option<String>,
    /// Its identifier there: OpenID Connect `sub`; at Microsoft the object ID (`oid`), at GitHub and
    /// Slack the user's ID.
    #[schemars(length(min = 1, max = 255))]
    pub subject: String,
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

/// A signed assertion.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct JwtBearerGrant {
    /// Where the key stands: a Google service account key file as it comes, or a private key as PEM
    /// or JWK.
    pub secret_ref: SecretKeyRef,
    /// `iss` of the assertion. Left out: what the key file says, else the client identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub issuer: Option<String>,
    /// `sub` of the assertion: on whose behalf. Left out: the same as its issuer; at Google there is none
    /// then, and the service account acts for itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub subject: Option<String>,
    /// `aud` of the assertion. Left out: the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
}

/// Our client at the server.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.clientId) || has(self.secretRef) || has(self.serviceAccount)").message("clientId or secretRef must be set, but for a serviceAccount"),
    validation = Rule::new("has(self.secretRef) || has(self.serviceAccount) || has(self.authMethod) && self.authMethod == 'none'").message("secretRef must be set, but for a serviceAccount and authMethod none"),
    validation = Rule::new("!has(self.serviceAccount) || !has(self.authMethod) || self.authMethod == 'private_key_jwt'").message("a serviceAccount goes with authMethod private_key_jwt; leave authMethod out"),
    validation = Rule::new("has(self.clientId) || !has(self.secretRef) || self.secretRef.idKey != self.secretRef.secretKey").message("secretRef.idKey and secretRef.secretKey must differ: the identifier is for all to read"),
    validation = Rule::new("!has(self.assertion) || has(self.authMethod) && self.authMethod == 'private_key_jwt' && !has(self.serviceAccount)").message("assertion goes with authMethod private_key_jwt and a key of your own"),
)]
pub struct Client {
    /// Its identifier. Left out: it stands in the Secret of secretRef; without one, the token of the
    /// serviceAccount says who we are, and no `client_id` is sent (RFC 7521 section 4.2).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::client_id")]
    pub client_id: Option<String>,
    /// The Secret with its identifier, and with its secret or private key. With the grant authorizationCode the
    /// identifier stands in the address that a browser is sent to, so a Secret that says where it may be sent
    /// (`applink-operator.io/allowed-hosts`) must name the identifier's key too (`applink-operator.io/client-id-key`), or
    /// clientId is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<ClientSecretRef>,
    /// How it authenticates at the token endpoint. Left out: as the preset's server wants it; else
    /// client_secret_post where the issuer's metadata name that and not client_secret_basic; else
    /// client_secret_basic.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auth_method: Option<OutgoingAuthMethod>,
    /// What stands in the assertion of private_key_jwt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<Assertion>,
    /// A ServiceAccount of the link's namespace whose token is the client's assertion, in place of
    /// any secret: federated credentials.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccountAssertion>,
}

/// How our client authenticates (RFC 7591 `token_endpoint_auth_method`).
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OutgoingAuthMethod {
    /// HTTP Basic.
    ClientSecretBasic,
    /// In the request's body.
    ClientSecretPost,
    /// An assertion signed with a private key (RFC 7523 section 2.2).
    PrivateKeyJwt,
    /// A public client.
    None,
}

/// What stands in the assertion of `private_key_jwt`.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Assertion {
    /// The key's identifier (`kid`). Left out: what a JWK says, else none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub key_id: Option<String>,
    /// The signature's algorithm. Left out: RS256, ES256, ES384 or EdDSA, as the key is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub algorithm: Option<SigningAlgorithm>,
    /// `aud`. Left out: the token endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 2048))]
    pub audience: Option<String>,
}

/// An algorithm of RFC 7518 section 3.1.
#[derive(Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[allow(missing_docs, reason = "the names are the RFC's")]
pub enum SigningAlgorithm {
    RS256,
    PS256,
    ES256,
    ES384,
    EdDSA,
}

/// A `ServiceAccount` whose token (`TokenRequest`) is the client's assertion (RFC 7523 section 2.2).
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ServiceAccountAssertion {
    /// Its name. The operator needs a Role that allows it `create` on `serviceaccounts/token` of
    /// this name.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// `aud` of the token, as the server wants it. Never one of the API server's own.
    #[schemars(length(min = 1, max = 2048))]
    pub audience: String,
}

/// A Secret with a client's identifier and secret.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClientSecretRef {
    /// Name of the Secret.
    #[schemars(schema_with = "schema::object_name")]
    pub name: String,
    /// Key of the identifier; not read where clientId is given.
    #[serde(default = "client_id_key")]
    #[schemars(schema_with = "id_key")]
    pub id_key: String,
    /// Key of the secret, or of the private key (PEM or JWK) with private_key_jwt; not read with
    /// authMethod none.
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
    #[serde(rename = "type", default = "super::opaque")]
    #[schemars(schema_with = "schema::secret_type")]
    pub type_: String,
    /// More keys, each a template over accessToken, tokenType, expiresAt, scope, type and
    /// provider. Filters: json, sh, b64encode, urlencode, basic, netrc, npmrc.
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
