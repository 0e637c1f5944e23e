//! What stands in the Secrets that a link writes. Pure.

use super::template::{self, TemplateError};
use crate::domain::{ExposeSecret as _, SecretString};
use std::collections::BTreeMap;
use std::fmt;

/// A value that a Secret can hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Slot {
    /// The client identifier.
    ClientId,
    /// The client secret.
    ClientSecret,
    /// The issuer.
    IssuerUri,
    /// The authorization endpoint.
    AuthorizationEndpoint,
    /// The token endpoint.
    TokenEndpoint,
    /// How the client authenticates.
    TokenEndpointAuthMethod,
    /// The access token.
    AccessToken,
    /// Its type.
    TokenType,
    /// When it ends.
    ExpiresAt,
    /// What it is good for.
    Scope,
    /// `oauth2`.
    Type,
    /// The kind of provider.
    Provider,
}

/// What the templates of an incoming Secret may name.
pub const INCOMING: &[Slot] = &[
    Slot::ClientId,
    Slot::ClientSecret,
    Slot::IssuerUri,
    Slot::AuthorizationEndpoint,
    Slot::TokenEndpoint,
    Slot::TokenEndpointAuthMethod,
    Slot::Type,
    Slot::Provider,
];

/// What the templates of an outgoing Secret may name.
pub const OUTGOING: &[Slot] =
    &[Slot::AccessToken, Slot::TokenType, Slot::ExpiresAt, Slot::Scope, Slot::Type, Slot::Provider];

impl Slot {
    /// The name in a template, and in `keys`.
    pub const fn variable(self) -> &'static str {
        match self {
            Self::ClientId => "clientId",
            Self::ClientSecret => "clientSecret",
            Self::IssuerUri => "issuerUri",
            Self::AuthorizationEndpoint => "authorizationEndpoint",
            Self::TokenEndpoint => "tokenEndpoint",
            Self::TokenEndpointAuthMethod => "tokenEndpointAuthMethod",
            Self::AccessToken => "accessToken",
            Self::TokenType => "tokenType",
            Self::ExpiresAt => "expiresAt",
            Self::Scope => "scope",
            Self::Type => "type",
            Self::Provider => "provider",
        }
    }

    /// The key of the Secret, where the user names no other.
    pub const fn default_key(self) -> &'static str {
        match self {
            Self::ClientId => "client-id",
            Self::ClientSecret => "client-secret",
            Self::IssuerUri => "issuer-uri",
            Self::AuthorizationEndpoint => "authorization-endpoint",
            Self::TokenEndpoint => "token-endpoint",
            Self::TokenEndpointAuthMethod => "token-endpoint-auth-method",
            Self::AccessToken => "access-token",
            Self::TokenType => "token-type",
            Self::ExpiresAt => "expires-at",
            Self::Scope => "scope",
            Self::Type => "type",
            Self::Provider => "provider",
        }
    }
}

/// The values that there are. Which of them are secret doesn't matter: all are handled as if.
pub type Values = BTreeMap<Slot, SecretString>;

/// A Secret as the user wants it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecretGoal {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_: String,
    /// The user's labels.
    pub labels: BTreeMap<String, String>,
    /// The user's annotations.
    pub annotations: BTreeMap<String, String>,
    /// The key of each value.
    pub keys: BTreeMap<Slot, String>,
    /// More keys, by template.
    pub templates: BTreeMap<String, String>,
}

/// The data of a Secret. Its debug text shows the keys alone.
#[derive(Clone, Default)]
pub struct Data(BTreeMap<String, SecretString>);

impl Data {
    /// Key and value.
    pub fn iter(&self) -> impl Iterator<Item = (&String, &str)> {
        self.0.iter().map(|(k, v)| (k, v.expose_secret()))
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key).map(|v| v.expose_secret())
    }

    /// Whether `found` has all of it, byte by byte; it may have more.
    pub fn is_in(&self, found: &Data) -> bool {
        self.iter().all(|(k, v)| found.get(k) == Some(v))
    }
}

impl Data {
    /// The keys of ours that aren't so in another one.
    pub fn differing(&self, found: &Data) -> Vec<&str> {
        self.iter().filter(|(k, v)| found.get(k) != Some(v)).map(|(k, _)| k.as_str()).collect()
    }
}

impl FromIterator<(String, SecretString)> for Data {
    fn from_iter<T: IntoIterator<Item = (String, SecretString)>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl fmt::Debug for Data {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// Fills a Secret: the Service Binding keys, each value at its key, then the templates.
///
/// # Errors
/// [`TemplateError`] with the key of the template that can't be filled safely.
pub fn render(goal: &SecretGoal, values: &Values) -> Result<Data, (String, TemplateError)> {
    let mut data = BTreeMap::new();
    for slot in [Slot::Type, Slot::Provider] {
        if let Some(value) = values.get(&slot) {
            data.insert(slot.default_key().to_owned(), value.clone());
        }
    }
    for (slot, key) in &goal.keys {
        if let Some(value) = values.get(slot) {
            data.insert(key.clone(), value.clone());
        }
    }
    for (key, source) in &goal.templates {
        let text = template::render(source, values).map_err(|e| (key.clone(), e))?;
        data.insert(key.clone(), text);
    }
    Ok(Data(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn goal() -> SecretGoal {
        SecretGoal {
            name: "s".into(),
            type_: "Opaque".into(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            keys: BTreeMap::from([
                (Slot::AccessToken, "TOKEN".to_owned()),
                (Slot::Scope, "scope".to_owned()),
            ]),
            templates: BTreeMap::from([(".env".to_owned(), "T={{ accessToken }}\n".to_owned())]),
        }
    }

    fn values(token: &str) -> Values {
        let pairs = [(Slot::Type, "oauth2"), (Slot::Provider, "custom"), (Slot::AccessToken, token)];
        pairs.into_iter().map(|(s, v)| (s, v.to_owned().into())).collect()
    }

    #[test]
    fn a_secret_has_the_binding_keys_the_named_keys_and_the_templates() {
        let data = render(&goal(), &values("t")).expect("rendered");
        let all: Vec<_> = data.iter().map(|(k, v)| (k.as_str(), v)).collect();
        // A value that there isn't has no key, not an empty one.
        assert_eq!(all, [(".env", "T=t\n"), ("TOKEN", "t"), ("provider", "custom"), ("type", "oauth2")]);
    }

    #[test]
    fn a_value_that_would_break_a_template_names_its_key_and_shows_nothing() {
        let (key, e) = render(&goal(), &values("canary\nEVIL=1")).expect_err("refused");
        assert_eq!(key, ".env");
        assert!(!format!("{e} {e:?}").contains("canary"));
    }

    #[test]
    fn more_than_ours_is_fine_less_is_not() {
        let data = |pairs: &[(&str, &str)]| -> Data {
            pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned().into())).collect()
        };
        let ours = data(&[("a", "1")]);
        assert!(ours.is_in(&data(&[("a", "1"), ("theirs", "2")])));
        assert!(!ours.is_in(&data(&[("a", "2")])) && !ours.is_in(&Data::default()));
        assert_eq!(format!("{:?}", data(&[("key", "canary")])), "{\"key\"}");
    }

    #[test]
    fn every_value_has_a_key_and_a_name_of_its_own() {
        for slots in [INCOMING, OUTGOING] {
            let keys: std::collections::BTreeSet<_> = slots.iter().map(|s| s.default_key()).collect();
            let names: std::collections::BTreeSet<_> = slots.iter().map(|s| s.variable()).collect();
            assert_eq!((keys.len(), names.len()), (slots.len(), slots.len()));
        }
    }
}
