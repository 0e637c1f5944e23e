//! The incoming part: the application calls us.

use crate::api::common::SecretKeyRef;
use crate::api::schema;
use crate::domain::{AuthMethod, GrantType};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

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
    validation = Rule::new(schema::overlap_is_shorter()).message("overlap must be shorter than every"),
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
    #[serde(rename = "type", default = "super::opaque")]
    #[schemars(schema_with = "schema::secret_type")]
    pub type_: String,
    /// More keys, each a template over clientId, clientSecret, issuerUri, authorizationEndpoint,
    /// tokenEndpoint, tokenEndpointAuthMethod, type and provider. Filters: json, sh, b64encode, urlencode, basic, netrc, npmrc.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "schema::templates")]
    pub template: BTreeMap<String, String>,
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
