//! The grant of an outgoing link, as it is kept in the operator's namespace. Pure.
//!
//! A refresh token is never in a tenant's Secret. The record holds all that going on and letting
//! go need: what the grant is bound to, the token, an intent while it is being spent, and the
//! last reply until it is published.

use super::unread::Unread;
use crate::domain::token::{ASSUMED_LIFETIME, Lifetime, WITHOUT_END};
use crate::domain::{Account, ClientId, ExposeSecret as _, ScopeSet, SecretString, TokenReply};
use crate::outgoing::presets::{self, Preset};
use crate::outgoing::{
    ClientAuth, ClientCredentials, ServerEndpoints, ServiceAccount, SigningAlgorithm, SigningKey,
};
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::time::Duration;
use url::Url;

/// The version of a grant's record. Before 2, fewer endpoints were kept.
pub const GRANT_VERSION: u32 = 2;

/// How long a refresh that another instance began may still be under way: the request, and the time for
/// which its answer is held on to.
pub const BEGUN_ELSEWHERE: Duration = Duration::from_secs(150);

/// The link that a grant belongs to.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkRef {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// What a grant is bound to. When any of it changes, nothing is sent until there is new consent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// The issuer, where one is known.
    pub issuer: Option<String>,
    /// The token endpoint.
    pub token_endpoint: String,
    /// The revocation endpoint, where there is one.
    pub revocation_endpoint: Option<String>,
    /// The authorization endpoint, where there is one.
    #[serde(default)]
    pub authorization_endpoint: Option<String>,
    /// The device authorization endpoint, where there is one.
    #[serde(default)]
    pub device_authorization_endpoint: Option<String>,
    /// Where the server says whose token it is, where it does.
    #[serde(default)]
    pub user_endpoint: Option<String>,
    /// Our client identifier; without a client, the issuer of our assertions.
    pub client_id: String,
}

impl Binding {
    /// The binding that a server and a client make.
    pub fn new(endpoints: &ServerEndpoints, client_id: &str) -> Self {
        let text = |url: &Option<Url>| url.as_ref().map(Url::to_string);
        Self {
            issuer: endpoints.issuer.clone(),
            token_endpoint: endpoints.token_endpoint.to_string(),
            revocation_endpoint: text(&endpoints.revocation_endpoint),
            authorization_endpoint: text(&endpoints.authorization_endpoint),
            device_authorization_endpoint: text(&endpoints.device_authorization_endpoint),
            user_endpoint: text(&endpoints.user_endpoint),
            client_id: client_id.to_owned(),
        }
    }
}

/// A secret text inside a record that is itself kept in a Secret.
#[derive(Clone)]
pub struct Kept(pub SecretString);

impl Serialize for Kept {
    fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.serialize_str(self.0.expose_secret())
    }
}

impl<'de> Deserialize<'de> for Kept {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d).map(|s| Self(s.into()))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.0.expose_secret() == other.0.expose_secret()
    }
}

impl fmt::Debug for Kept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// A refresh that was begun. Whoever finds one can't know whether the token was spent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Intent {
    /// The operator instance that began it.
    pub holder: String,
    /// When.
    pub at: Timestamp,
}

/// An access token and what is known of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Access {
    /// The token.
    pub token: Kept,
    /// Its type.
    pub token_type: String,
    /// When it was got.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
    /// Its scopes, where the server said them or we asked for some.
    pub scope: String,
    /// What it was asked for with; another fingerprint asks for another token.
    pub fingerprint: String,
}

impl Access {
    /// What a reply to a request of `issued_at` says. `asked`: the scopes that it has when the server
    /// doesn't say them.
    pub fn of(reply: &TokenReply, issued_at: Timestamp, asked: &ScopeSet, fingerprint: String) -> Self {
        Self::lasting(reply, reply.lifetime.unwrap_or(ASSUMED_LIFETIME), issued_at, asked, fingerprint)
    }

    /// The same of a reply to a person's consent.
    pub fn consented(reply: &TokenReply, issued_at: Timestamp, asked: &ScopeSet) -> Self {
        let unsaid = if reply.refresh_token.is_some() { ASSUMED_LIFETIME } else { WITHOUT_END };
        Self::lasting(reply, reply.lifetime.unwrap_or(unsaid), issued_at, asked, String::new())
    }

    /// Whether it has no end that anybody knows of.
    pub fn has_no_end(&self) -> bool {
        self.expires_at.duration_since(self.issued_at).as_secs() >= WITHOUT_END.as_secs()
    }

    fn lasting(
        reply: &TokenReply,
        lifetime: Lifetime,
        issued_at: Timestamp,
        asked: &ScopeSet,
        fingerprint: String,
    ) -> Self {
        let expires_at =
            issued_at.saturating_add(SignedDuration::from_secs(lifetime.as_secs())).unwrap_or(Timestamp::MAX);
        // Whole seconds: these go into annotations and the status, and servers count in seconds too.
        let whole = |t: Timestamp| Timestamp::from_second(t.as_second()).unwrap_or(t);
        Self {
            token: Kept(reply.access_token.expose_secret().to_owned().into()),
            token_type: reply.token_type.clone(),
            issued_at: whole(issued_at),
            expires_at: whole(expires_at),
            scope: reply.scopes.as_ref().unwrap_or(asked).to_string(),
            fingerprint,
        }
    }
}

/// A grant as it is kept.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Grant {
    /// The version of this record's form.
    pub version: u32,
    /// Whose it is.
    pub link: LinkRef,
    /// What it is bound to.
    pub binding: Binding,
    /// A digest of the part of the spec that the binding was made from, so that a binding that
    /// changes without it was changed by somebody else.
    pub spec_digest: String,
    /// How our client authenticates; with the two below, what revoking needs.
    pub auth_method: KeptMethod,
    /// Our client's secret or private key when the grant was last used; for grants with a refresh
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_secret: Option<Kept>,
    /// What else its assertions are made with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assertion: Option<KeptAssertion>,
    /// The ServiceAccount of the link's namespace whose tokens its assertions are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<KeptAccount>,
    /// The kind of server.
    #[serde(default = "custom")]
    pub server: String,
    /// The refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refresh_token: Option<Kept>,
    /// SHA-256 of the seed that the grant came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_digest: Option<String>,
    /// Whether the server sends a new refresh token each time; `None` until the first refresh.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotates: Option<bool>,
    /// A refresh that was begun and not ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intent: Option<Intent>,
    /// The last reply, for servers that rotate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access: Option<Access>,
    /// The scopes that a person was asked for, where one consented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requested: Option<String>,
    /// Who consented, where the server said it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<Account>,
    /// When that became active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connected_at: Option<Timestamp>,
    /// The error code with which the server declared the grant dead.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dead: Option<String>,
    /// The newest reply that couldn't be read though it may have spent the refresh token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unread: Option<Unread>,
}

fn custom() -> String {
    presets::CUSTOM.name.to_owned()
}

/// How a client authenticates, as it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeptMethod {
    /// HTTP Basic.
    ClientSecretBasic,
    /// In the body.
    ClientSecretPost,
    /// An assertion, of ours or of somebody else.
    PrivateKeyJwt,
    /// Not at all.
    None,
}

/// Whose tokens are the client's assertions.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAccount {
    /// The ServiceAccount's name.
    pub name: String,
    /// `aud` of its tokens.
    pub audience: String,
}

/// What assertions are made with, beside the key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptAssertion {
    /// `kid`.
    pub key_id: Option<String>,
    /// `alg`.
    pub algorithm: SigningAlgorithm,
    /// `aud`; `None` for the token endpoint.
    pub audience: Option<String>,
}

impl Grant {
    /// Whether the next refresh must be announced first: for all but servers that were seen to
    /// keep the refresh token.
    pub fn announces(&self) -> bool {
        self.refresh_token.is_some() && self.rotates != Some(false)
    }

    /// Takes a reply in. A reply without a refresh token keeps the old one.
    pub fn take(&mut self, reply: &TokenReply, access: Access) {
        if self.refresh_token.is_some() {
            let new = reply.refresh_token.clone().map(Kept);
            let rotated = new.as_ref().is_some_and(|n| self.refresh_token.as_ref() != Some(n));
            // A server that rotated once is taken at its word for good.
            self.rotates = Some(rotated || self.rotates == Some(true));
            if let Some(new) = new {
                self.refresh_token = Some(new);
            }
            self.access = Some(access);
        }
        self.intent = None;
        self.dead = None;
        self.unread = None;
    }

    /// Keeps how our client authenticates, and, where `all` is wanted, what with.
    pub fn remember(&mut self, client: Option<&ClientCredentials>, all: bool) {
        let auth = client.map_or(&ClientAuth::None, |c| &c.auth);
        self.auth_method = match auth {
            ClientAuth::Basic(_) => KeptMethod::ClientSecretBasic,
            ClientAuth::Post(_) => KeptMethod::ClientSecretPost,
            ClientAuth::PrivateKey { .. } | ClientAuth::ServiceAccount(_) | ClientAuth::Assertion { .. } => {
                KeptMethod::PrivateKeyJwt
            }
            ClientAuth::None => KeptMethod::None,
        };
        self.service_account = match auth {
            ClientAuth::ServiceAccount(a) if all => {
                Some(KeptAccount { name: a.name.clone(), audience: a.audience.clone() })
            }
            _ => None,
        };
        self.client_secret = auth.lasting().cloned().map(Kept).filter(|_| all);
        self.assertion = match auth {
            ClientAuth::PrivateKey { key, audience } if all => Some(KeptAssertion {
                key_id: key.key_id().map(str::to_owned),
                algorithm: key.algorithm(),
                audience: audience.clone(),
            }),
            _ => None,
        };
    }

    /// Whether giving this one back may end the other, too. Many servers keep one grant for an account and a
    /// client, and end it whole: Google, GitHub, Keycloak with `offline_access`, `oidc-provider`; others end the
    /// one token, and nothing tells which a server does. So it may, unless the client, the token endpoint or
    /// the account is another one. Only subjects are compared: what keeps accounts has several names where
    /// an issuer is named in place of endpoints.
    pub fn may_be_one_with(&self, other: &Self) -> bool {
        let same_client = self.binding.token_endpoint == other.binding.token_endpoint
            && self.binding.client_id == other.binding.client_id;
        let subject = |grant: &Self| grant.account.as_ref().map(|a| a.subject().to_owned());
        let other_account = subject(self).zip(subject(other)).is_some_and(|(a, b)| a != b);
        // What a client is given for itself is no person's.
        let for_itself = |grant: &Self| grant.requested.is_none() && grant.refresh_token.is_none();
        same_client && !other_account && !for_itself(self) && !for_itself(other)
    }

    /// The kind of server that it is of.
    pub fn preset(&self) -> &'static Preset {
        Preset::named(&self.server).unwrap_or(&presets::CUSTOM)
    }

    /// Whether it is revoked at the server that gave it, or where the preset says: of a grant that nobody completed
    /// no other server is told.
    pub fn is_revoked_at_home(&self) -> bool {
        let at = self.binding.revocation_endpoint.as_deref().and_then(|url| Url::parse(url).ok());
        let token = Url::parse(&self.binding.token_endpoint).ok();
        token.zip(at).is_some_and(|(token, at)| self.preset().is_home(&token, &at))
    }

    /// The endpoint and client to revoke with, where that is possible.
    pub fn revocation(&self) -> Option<(Url, ClientCredentials)> {
        let endpoint = Url::parse(self.binding.revocation_endpoint.as_deref()?).ok()?;
        let id = ClientId::parse(&self.binding.client_id).ok()?;
        let secret = self.client_secret.as_ref().map(|k| k.0.clone());
        let auth = match self.auth_method {
            KeptMethod::ClientSecretBasic => ClientAuth::Basic(secret?),
            KeptMethod::ClientSecretPost => ClientAuth::Post(secret?),
            KeptMethod::None => ClientAuth::None,
            KeptMethod::PrivateKeyJwt if self.service_account.is_some() => {
                let KeptAccount { name, audience } = self.service_account.clone()?;
                let namespace = self.link.namespace.clone();
                ClientAuth::ServiceAccount(ServiceAccount { namespace, name, audience })
            }
            KeptMethod::PrivateKeyJwt => {
                let KeptAssertion { key_id, algorithm, audience } = self.assertion.clone()?;
                let key = SigningKey::parse(&secret?, Some(algorithm), algorithm).ok()?;
                // What authenticates at the token endpoint does so here; the servers take its name.
                let audience = audience.unwrap_or_else(|| self.binding.token_endpoint.clone());
                ClientAuth::PrivateKey { key: key.with_key_id(key_id), audience: Some(audience) }
            }
        };
        Some((endpoint, ClientCredentials { id, auth }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_no_token() {
        let kept = Kept("canary".to_owned().into());
        assert_eq!(format!("{kept:?}"), "[redacted]");
    }

    #[test]
    fn what_may_end_the_other_grant_is_left_alone() {
        let grant =
            |issuer: &str, client: &str, account: Option<(&str, &str)>, token: Option<&str>| -> Grant {
                serde_json::from_value(serde_json::json!({
                    "version": GRANT_VERSION, "link": {"namespace": "n", "name": "l", "uid": "u"},
                    "binding": {
                        "issuer": issuer, "tokenEndpoint": "https://as.example/token", "clientId": client,
                        "revocationEndpoint": null,
                    },
                    "specDigest": "", "authMethod": "none", "refreshToken": token,
                    "requested": account.map(|_| "a"),
                    "account": account.map(|(issuer, subject)| Account::new(issuer, subject)),
                }))
                .expect("a grant")
            };
        let ann = Some(("https://as.example", "ann"));
        let held = grant("https://as.example", "us", ann, Some("rt"));
        for (what, other, one) in [
            ("the same account", grant("https://as.example", "us", ann, Some("other")), true),
            ("without a refresh token", grant("https://as.example", "us", ann, None), true),
            (
                "named by its host",
                grant("https://b.example", "us", Some(("as.example", "ann")), Some("other")),
                true,
            ),
            ("an unknown account", grant("https://as.example", "us", None, Some("other")), true),
            (
                "another account",
                grant("https://as.example", "us", Some(("https://as.example", "bob")), Some("other")),
                false,
            ),
            ("another client", grant("https://as.example", "them", ann, Some("other")), false),
            ("the client for itself", grant("https://as.example", "us", None, None), false),
        ] {
            assert_eq!(held.may_be_one_with(&other), one, "{what}");
            assert_eq!(other.may_be_one_with(&held), one, "{what}");
        }
    }
}
