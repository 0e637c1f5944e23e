//! A client as Keycloak's admin API writes it, and as we write it. Pure.

use super::scopes::{OPENID, Scopes};
use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, RedirectUri, Scope,
    SecretString,
};
use crate::provider::wire::{rejected, version_of};
use crate::provider::{ProviderError, PutClient, PutSecret, RegisteredClient};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeSet;

/// The attribute that the owner's record stands in.
const OWNER: &str = "applink-operator.io/owner";
/// The attribute that says how the client authenticates: Keycloak takes a secret either way.
const METHOD: &str = "applink-operator.io/token-endpoint-auth-method";
/// The attribute that says whether `openid` is among the link's scopes: Keycloak gives that one to
/// every client, and has no place to say so.
const ASKS_OPENID: &str = "applink-operator.io/openid";

/// Whether a client gets refresh tokens; true where it isn't there.
const REFRESH: &str = "use.refresh.tokens";
/// Ways to a token that no link has.
const OFF_SWITCHES: [&str; 3] = ["bearerOnly", "implicitFlowEnabled", "directAccessGrantsEnabled"];
/// The same among the attributes.
const OFF_ATTRIBUTES: [&str; 4] = [
    "oauth2.device.authorization.grant.enabled",
    "oidc.ciba.grant.enabled",
    "standard.token.exchange.enabled",
    "client_credentials.use_refresh_token",
];

/// When the secret began, and when Keycloak ends it; empty in a PUT: after the policy's period.
const CREATED: &str = "client.secret.creation.time";
const EXPIRES: &str = "client.secret.expiration.time";
/// The secret before.
const ROTATED: &str = "client.secret.rotated";
const ROTATED_CREATED: &str = "client.secret.rotated.creation.time";
const ROTATED_EXPIRES: &str = "client.secret.rotated.expiration.time";

/// A secret that ends within so many seconds is taken for ended: Keycloak would put one of its own
/// making in its place at the next PUT.
const NEARLY: i64 = 60;
/// The longest text that Keycloak's database has room for. It answers 500 to a longer one.
const MAX_TEXT: usize = 255;
/// Parts of every realm.
const BUILT_IN: [&str; 6] =
    ["account", "account-console", "admin-cli", "broker", "realm-management", "security-admin-console"];

/// The key that a client of ours has in Keycloak, so that a second creation is refused and a
/// renamed client is found. It is unique over all realms.
pub(super) fn key_of(realm: &str, id: &str) -> String {
    let mut hash = Sha256::new();
    for part in ["applink-operator keycloak client", realm, id] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    let mut b: [u8; 16] = std::array::from_fn({
        let digest = hash.finalize();
        move |i| digest[i]
    });
    // The form of RFC 9562: version 8, which is one's own.
    b[6] = (b[6] & 0x0f) | 0x80;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]].join("-")
}

/// A client with all that Keycloak tells of it. It holds secrets, so it can't be shown.
#[derive(Clone, Deserialize)]
#[serde(transparent)]
pub(super) struct Client(Map<String, Value>);

impl Client {
    fn text(&self, field: &str) -> Option<&str> {
        text(&self.0, field)
    }

    fn flag(&self, field: &str) -> Option<bool> {
        match self.0.get(field) {
            None | Some(Value::Null) => Some(false),
            Some(value) => value.as_bool(),
        }
    }

    fn texts(&self, field: &str) -> Option<Vec<&str>> {
        match self.0.get(field) {
            None | Some(Value::Null) => Some(Vec::new()),
            Some(value) => value.as_array()?.iter().map(Value::as_str).collect(),
        }
    }

    fn attribute(&self, name: &str) -> &str {
        self.0.get("attributes").and_then(|a| a.get(name)).and_then(Value::as_str).unwrap_or_default()
    }

    fn time(&self, name: &str) -> Option<i64> {
        self.attribute(name).parse().ok().filter(|t| *t > 0)
    }

    /// Its key, which its address ends in.
    pub(super) fn key(&self) -> Option<&str> {
        self.text("id").filter(|k| !k.is_empty())
    }

    /// What its `client_id` is.
    pub(super) fn id(&self) -> Option<ClientId> {
        ClientId::parse(self.text("clientId")?).ok()
    }

    /// Whether it is part of Keycloak, or the client that `operator` names.
    pub(super) fn is_protected(&self, realm: &str, operator: &str) -> bool {
        let name = self.text("clientId").unwrap_or_default();
        self.attribute("realm_client") == "true" || is_protected(name, realm, operator)
    }

    /// The names of all client scopes that it has, those that a token asks for and those that
    /// only carry claims.
    pub(super) fn scope_names(&self) -> Option<BTreeSet<&str>> {
        let (given, optional) = (self.texts("defaultClientScopes")?, self.texts("optionalClientScopes")?);
        Some(given.into_iter().chain(optional).collect())
    }

    /// Whether every token has this scope, asked for or not.
    pub(super) fn always_has(&self, scope: &str) -> bool {
        self.texts("defaultClientScopes").is_some_and(|s| s.contains(&scope))
    }

    pub(super) fn secret(&self) -> Option<&str> {
        self.text("secret").filter(|s| !s.is_empty() && self.flag("publicClient") == Some(false))
    }

    /// The secret, where it is the secret itself: not stars, and not a reference into a vault.
    fn readable_secret(&self) -> Option<SecretString> {
        let hidden = |s: &str| s.starts_with("${vault.") || s.bytes().all(|b| b == b'*');
        self.secret().filter(|s| !hidden(s)).map(SecretString::from)
    }

    fn method(&self) -> Option<AuthMethod> {
        if self.flag("publicClient")? {
            return Some(AuthMethod::None);
        }
        if self.text("clientAuthenticatorType")? != "client-secret" {
            return None;
        }
        match self.attribute(METHOD) {
            m if m == AuthMethod::ClientSecretPost.as_str() => Some(AuthMethod::ClientSecretPost),
            _ => Some(AuthMethod::ClientSecretBasic),
        }
    }

    fn metadata(&self, id: &ClientId, scopes: &Scopes) -> Option<ClientMetadata> {
        let strange = !self.flag("enabled")?
            || self.text("protocol")? != "openid-connect"
            || self.text("clientId")? != id.as_str()
            || OFF_SWITCHES.iter().any(|s| self.flag(s) != Some(false))
            || OFF_ATTRIBUTES.iter().any(|a| self.attribute(a) == "true");
        if strange {
            return None;
        }
        let grants = [
            (GrantType::AuthorizationCode, self.flag("standardFlowEnabled")?),
            (GrantType::ClientCredentials, self.flag("serviceAccountsEnabled")?),
            (GrantType::RefreshToken, self.attribute(REFRESH) != "false"),
        ];
        let openid = (self.attribute(ASKS_OPENID) == "true").then_some(OPENID);
        let names = self.scope_names()?.into_iter().filter(|s| !scopes.only_carries_claims(s));
        Some(ClientMetadata {
            name: self.text("name")?.to_owned(),
            uri: Some(self.text("baseUrl")?).filter(|u| !u.is_empty()).map(str::to_owned),
            redirect_uris: self
                .texts("redirectUris")?
                .into_iter()
                .map(RedirectUri::parse)
                .collect::<Result<_, _>>()
                .ok()?,
            grant_types: grants.into_iter().filter_map(|(grant, on)| on.then_some(grant)).collect(),
            scopes: names.chain(openid).map(Scope::parse).collect::<Result<_, _>>().ok()?,
            auth_method: self.method()?,
        })
    }

    /// The owner's record: `Err` where something stands in its place that isn't one.
    pub(super) fn owner(&self) -> Result<Option<Owner>, ProviderError> {
        match self.attribute(OWNER) {
            "" => Ok(None),
            record => serde_json::from_str(record).map(Some).map_err(|_| ProviderError::ForeignOwner),
        }
    }

    /// The same as long as nobody changes the client. Secrets are no part of it.
    pub(super) fn version(&self) -> String {
        let mut shown = self.0.clone();
        shown.remove("access");
        shown.remove("secret");
        if let Some(Value::Object(attributes)) = shown.get_mut("attributes") {
            attributes.remove(ROTATED);
        }
        version_of(&ordered(Value::Object(shown)))
    }

    /// Whether Keycloak will end the secret, which it does only by a policy that rotates secrets.
    pub(super) fn is_rotated_by_policy(&self) -> bool {
        self.time(EXPIRES).is_some()
    }

    pub(super) fn registered(
        &self,
        id: ClientId,
        scopes: &Scopes,
        protected: bool,
        now: i64,
    ) -> RegisteredClient {
        let previous = !self.attribute(ROTATED).is_empty() && self.time(ROTATED_EXPIRES) > Some(now);
        RegisteredClient {
            metadata: self.metadata(&id, scopes),
            id,
            has_secret: self.secret().is_some(),
            secret: self.readable_secret(),
            secret_expires_at: self.time(EXPIRES),
            has_previous: previous && self.secret().is_some(),
            owner: self.owner().unwrap_or_default(),
            protected,
            version: Some(self.version()),
            handle: None,
        }
    }

    /// Whether it stands there as `put` has it. The secret before isn't looked at: where Keycloak
    /// doesn't keep it, nothing would bring it back.
    pub(super) fn is(&self, put: &PutClient, scopes: &Scopes) -> bool {
        let secret = match &put.secret {
            PutSecret::Chosen { secret, .. } => self.secret() == Some(secret.expose_secret()),
            _ => true,
        };
        secret
            && self.metadata(&put.at.id, scopes).as_ref() == Some(&put.metadata)
            && self.owner().is_ok_and(|o| o.as_ref() == Some(&put.owner))
    }
}

/// Whether a client of this name is Keycloak's own or the operator's.
pub(super) fn is_protected(name: &str, realm: &str, operator: &str) -> bool {
    name == operator || BUILT_IN.contains(&name) || (realm == "master" && name.ends_with("-realm"))
}

fn text<'a>(object: &'a Map<String, Value>, field: &str) -> Option<&'a str> {
    match object.get(field) {
        None | Some(Value::Null) => Some(""),
        Some(value) => value.as_str(),
    }
}

/// The same value whatever order Keycloak tells it in: its lists are sets.
fn ordered(value: Value) -> Value {
    match value {
        Value::Array(items) => {
            let mut items: Vec<_> = items.into_iter().map(ordered).collect();
            items.sort_by_key(Value::to_string);
            Value::Array(items)
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.into_iter().map(|(k, v)| (k, ordered(v))).collect();
            fields.sort_by(|a, b| a.0.cmp(&b.0));
            Value::Object(fields.into_iter().collect())
        }
        other => other,
    }
}

/// Refuses what Keycloak has no room for.
pub(super) fn check_lengths(put: &PutClient) -> Result<(), ProviderError> {
    let long = |text: &str| text.chars().count() > MAX_TEXT;
    let m = &put.metadata;
    if long(&m.name) {
        return Err(rejected("too-large", "give spec.application.name at most 255 characters"));
    }
    if m.uri.as_deref().is_some_and(long) {
        return Err(rejected("too-large", "give spec.application.url at most 255 characters"));
    }
    if m.redirect_uris.iter().any(|u| long(u.as_str())) {
        return Err(rejected("too-large", "give each of the redirectUris at most 255 characters"));
    }
    match &put.secret {
        PutSecret::Chosen { secret, .. } if long(secret.expose_secret()) => {
            Err(rejected("too-large", "choose a client secret of at most 255 characters"))
        }
        _ => Ok(()),
    }
}

/// What time it is, in seconds since 1970.
#[derive(Clone, Copy)]
pub(super) struct Clock {
    pub(super) ours: i64,
    /// By Keycloak's clock, which tokens are dated by.
    pub(super) theirs: i64,
}

/// The body of a POST that makes a client.
pub(super) fn creation(put: &PutClient, key: &str, scopes: &Scopes, clock: Clock) -> Value {
    let mut body = change(put, None, clock);
    let m = &put.metadata;
    let asked: Vec<_> = m.scopes.iter().map(Scope::as_str).filter(|s| scopes.id(s).is_some()).collect();
    body["id"] = json!(key);
    body["defaultClientScopes"] = json!(scopes.given());
    body["optionalClientScopes"] = json!(asked);
    // It has the name and key of one that was deleted, whose tokens would be good again.
    body["notBefore"] = json!(clock.theirs);
    // Else its tokens would carry every role of the person who logs in, an administrator's too.
    body["fullScopeAllowed"] = json!(false);
    // A public client runs in a browser, which asks from the origins of its redirect URIs.
    body["webOrigins"] = if m.auth_method.is_public() { json!(["+"]) } else { json!([]) };
    body
}

/// The body of a PUT that makes a client what it should be, but for its scopes: Keycloak changes
/// what is named and leaves the rest.
pub(super) fn change(put: &PutClient, there: Option<&Client>, clock: Clock) -> Value {
    let now = clock.ours;
    let m = &put.metadata;
    let has = |grant| m.grant_types.contains(&grant);
    let openid = m.scopes.iter().any(|s| s.as_str() == OPENID);
    let mut attributes = Map::new();
    let mut say = |name: &str, value: String| attributes.insert(name.to_owned(), Value::String(value));
    // A record of plain fields can't fail to be written.
    say(OWNER, serde_json::to_string(&put.owner).unwrap_or_default());
    say(METHOD, if m.auth_method.is_public() { String::new() } else { m.auth_method.to_string() });
    say(ASKS_OPENID, if openid { "true".to_owned() } else { String::new() });
    say(REFRESH, has(GrantType::RefreshToken).to_string());
    for off in OFF_ATTRIBUTES {
        say(off, "false".to_owned());
    }
    let mut body = json!({
        "clientId": put.at.id.as_str(),
        "name": m.name,
        "baseUrl": m.uri.as_deref().unwrap_or_default(),
        "enabled": true,
        "protocol": "openid-connect",
        "publicClient": m.auth_method.is_public(),
        "clientAuthenticatorType": "client-secret",
        "standardFlowEnabled": has(GrantType::AuthorizationCode),
        "serviceAccountsEnabled": has(GrantType::ClientCredentials),
        "redirectUris": m.redirect_uris.iter().map(RedirectUri::as_str).collect::<Vec<_>>(),
    });
    for off in OFF_SWITCHES {
        body[off] = json!(false);
    }
    let is_near = there.and_then(|c| c.time(EXPIRES)).is_some_and(|at| at <= now + NEARLY);
    let mut renewed = is_near;
    if let PutSecret::Chosen { secret, .. } = &put.secret {
        let secret = secret.expose_secret();
        body["secret"] = json!(secret);
        if there.is_some_and(|c| c.secret() != Some(secret)) {
            renewed = true;
            say(CREATED, now.to_string());
        }
    }
    if renewed {
        say(EXPIRES, String::new());
    }
    // What is there of a secret before the kept one stays.
    let (chosen, before) = match &put.secret {
        PutSecret::Chosen { secret, previous, .. } => (Some(secret.expose_secret()), previous.as_ref()),
        _ => (None, None),
    };
    let settled =
        there.filter(|c| chosen.is_some() && c.secret() == chosen && !c.attribute(ROTATED).is_empty());
    if let (Some(_), Some(before)) = (settled, before) {
        // The change is done, and what works on beside it is what was there: nobody knows it better.
        say(ROTATED_EXPIRES, before.until.to_string());
    } else if !matches!(put.secret, PutSecret::Kept) {
        let (secret, since, until) = match previous(put, now) {
            Some((secret, until)) => (secret.expose_secret(), now.to_string(), until.to_string()),
            None => Default::default(),
        };
        say(ROTATED, secret.to_owned());
        say(ROTATED_CREATED, since);
        say(ROTATED_EXPIRES, until);
    }
    if put.revoke_tokens {
        let before = there.and_then(|c| c.0.get("notBefore")).and_then(Value::as_i64).unwrap_or(0);
        // Tokens of this very second are older than the next one.
        body["notBefore"] = json!(before.max(clock.theirs + 1));
    }
    body["attributes"] = Value::Object(attributes);
    body
}

/// The body of a PUT that changes nothing but when the secret ends: as the policy has it.
pub(super) fn touch() -> Value {
    json!({ "attributes": { EXPIRES: "" } })
}

/// The secret that is to go on working beside the new one, and until when.
pub(super) fn previous(put: &PutClient, now: i64) -> Option<(&SecretString, i64)> {
    match &put.secret {
        PutSecret::Chosen { previous: Some(p), .. } if p.until > now => Some((&p.secret, p.until)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scopes() -> Scopes {
        let told = |name: &str, shown: bool| {
            json!({"id": format!("key-{name}"), "name": name, "protocol": "openid-connect",
                "attributes": {"include.in.token.scope": shown.to_string()}})
        };
        let all =
            json!([told("email", true), told("phone", true), told("basic", false), told("roles", false)]);
        let given = json!([{"name": "basic"}, {"name": "email"}]);
        let all = serde_json::from_value(all).expect("scopes");
        let given: Vec<_> = serde_json::from_value(given).expect("scopes");
        let scopes = Scopes::new(all, &given);
        assert_eq!(scopes.given(), ["basic"]);
        scopes
    }

    fn client(change: Value) -> Client {
        let mut client = json!({
            "id": "k", "clientId": "c", "name": "n", "enabled": true, "protocol": "openid-connect",
            "clientAuthenticatorType": "client-secret", "secret": "s", "publicClient": false,
            "serviceAccountsEnabled": true, "redirectUris": [], "attributes": {REFRESH: "false"},
            "defaultClientScopes": ["basic", "roles"], "optionalClientScopes": ["email"],
        });
        for (field, value) in change.as_object().expect("an object") {
            client[field] = value.clone();
        }
        serde_json::from_value(client).expect("a client")
    }

    fn read(change: Value) -> RegisteredClient {
        client(change).registered(ClientId::parse("c").expect("id"), &scopes(), false, 1000)
    }

    #[test]
    fn what_we_would_never_write_is_no_metadata_and_no_panic() {
        let m = read(json!({})).metadata.expect("metadata");
        assert_eq!((m.scopes.to_string().as_str(), m.grant_types.len()), ("email", 1));
        for change in [
            json!({"enabled": false}),
            json!({"enabled": "yes"}),
            json!({"protocol": "saml"}),
            json!({"clientId": "d"}),
            json!({"bearerOnly": true}),
            json!({"implicitFlowEnabled": true}),
            json!({"directAccessGrantsEnabled": true}),
            json!({"clientAuthenticatorType": "client-jwt"}),
            json!({"attributes": {"oauth2.device.authorization.grant.enabled": "true"}}),
            json!({"attributes": {"standard.token.exchange.enabled": "true"}}),
            json!({"redirectUris": ["*"]}),
            json!({"redirectUris": {}}),
            json!({"optionalClientScopes": [1]}),
            json!({"name": []}),
        ] {
            assert!(read(change.clone()).metadata.is_none(), "{change}");
        }
        assert!(read(json!({"attributes": {OWNER: "no record"}})).owner.is_none());
        let broken = client(json!({"attributes": {OWNER: "no record"}}));
        assert_eq!(broken.owner(), Err(ProviderError::ForeignOwner));
    }

    #[test]
    fn a_secret_is_read_where_it_is_one() {
        let secret = |v| read(json!({ "secret": v })).secret.map(|s| s.expose_secret().to_owned());
        assert_eq!(secret(json!("s")).as_deref(), Some("s"));
        for hidden in [json!("**********"), json!("${vault.c}"), json!(""), json!(null)] {
            assert_eq!(secret(hidden), None);
        }
        assert!(read(json!({"secret": "**********"})).has_secret);
        assert!(!read(json!({"publicClient": true})).has_secret);
        let times = |rotated: &str, until: &str| {
            let seen = read(json!({"attributes": {EXPIRES: "0", ROTATED: rotated, ROTATED_EXPIRES: until}}));
            (seen.secret_expires_at, seen.has_previous)
        };
        assert_eq!(times("old", "1001"), (None, true));
        for (rotated, until) in [("old", "1000"), ("old", ""), ("", "1001"), ("old", "x")] {
            assert_eq!(times(rotated, until), (None, false));
        }
    }

    #[test]
    fn a_version_is_of_the_content_and_shows_no_secret() {
        let version = |change| client(change).version();
        let base = version(json!({}));
        assert_eq!(
            version(json!({"defaultClientScopes": ["roles", "basic"], "access": {"view": true}})),
            base
        );
        assert_eq!(version(json!({"secret": "t"})), base);
        assert_ne!(version(json!({"name": "m"})), base);
        assert_ne!(version(json!({"attributes": {"x": "y"}})), base);
    }

    #[test]
    fn keys_are_ids_and_differ_by_realm_and_client() {
        let key = key_of("realm", "client");
        // Computed apart from this code: another key would make a second client for each link.
        assert_eq!(key, "2919acac-3472-8f3a-afdb-6f7cbb1c5665");
        assert_eq!(key.len(), 36);
        for other in [key_of("real", "mclient"), key_of("realm", "clien"), key_of("realm2", "client")] {
            assert_ne!(key, other);
        }
    }

    #[test]
    fn what_is_the_services_own_is_known_by_name() {
        for own in ["account", "broker", "op"] {
            assert!(is_protected(own, "r", "op"), "{own}");
        }
        assert!(is_protected("a-realm", "master", "op") && !is_protected("a-realm", "r", "op"));
        assert!(client(json!({"attributes": {"realm_client": "true"}})).is_protected("r", "op"));
    }
}
