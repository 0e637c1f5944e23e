//! A client as RFC 7591 writes it, and what the adapter remembers of it.

use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, RedirectUri, ScopeSet, SecretString,
};
use crate::provider::RegisteredClient;
use crate::provider::wire::is_address;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// The part of a client's metadata (RFC 7591 section 2) that we say something about.
#[derive(Serialize, Deserialize, Clone, Debug, PartialEq, Eq)]
pub(super) struct Stated {
    client_name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_uri: Option<String>,
    redirect_uris: BTreeSet<String>,
    grant_types: BTreeSet<String>,
    scope: BTreeSet<String>,
    token_endpoint_auth_method: String,
}

impl From<&ClientMetadata> for Stated {
    fn from(m: &ClientMetadata) -> Self {
        Self {
            client_name: m.name.clone(),
            client_uri: m.uri.clone(),
            redirect_uris: m.redirect_uris.iter().map(|u| u.as_str().to_owned()).collect(),
            grant_types: m.grant_types.iter().map(|g| g.as_str().to_owned()).collect(),
            scope: m.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            token_endpoint_auth_method: m.auth_method.as_str().to_owned(),
        }
    }
}

impl Stated {
    /// The members of a request. An empty list is left out: some servers refuse one.
    pub(super) fn members(&self) -> Map<String, Value> {
        let mut all = Map::new();
        all.insert("client_name".into(), json!(self.client_name));
        if let Some(uri) = &self.client_uri {
            all.insert("client_uri".into(), json!(uri));
        }
        if !self.redirect_uris.is_empty() {
            all.insert("redirect_uris".into(), json!(self.redirect_uris));
        }
        all.insert("grant_types".into(), json!(self.grant_types));
        // Without the code grant there is no response type; left out it would mean "code".
        let code = self.grant_types.contains(GrantType::AuthorizationCode.as_str());
        all.insert("response_types".into(), if code { json!(["code"]) } else { json!([]) });
        if !self.scope.is_empty() {
            let scope: Vec<_> = self.scope.iter().map(String::as_str).collect();
            all.insert("scope".into(), json!(scope.join(" ")));
        }
        all.insert("token_endpoint_auth_method".into(), json!(self.token_endpoint_auth_method));
        all
    }

    /// What a server's answer says. It must name all that it registered (RFC 7591 section 3.2.1);
    /// what many don't name, and nobody is hurt by, is taken to be as asked, the rest as the RFC's
    /// defaults say.
    fn told(answer: &Map<String, Value>, asked: &Self) -> Self {
        let text = |name| answer.get(name).and_then(Value::as_str).map(cut);
        let texts = |name, asked: &BTreeSet<String>| match answer.get(name) {
            Some(Value::Array(all)) => Some(few(all.iter().map(|v| v.as_str().unwrap_or_default()), asked)),
            _ => None,
        };
        // Who asks for none gets the server's default (RFC 7591 section 2).
        let scope = answer.get("scope").and_then(Value::as_str).filter(|_| !asked.scope.is_empty());
        let scope = scope.map(|s| few(s.split_ascii_whitespace(), &asked.scope));
        // Some servers take the secret in either place, and name one. Whether the client is taken
        // by the method that was asked for is what the proof tells.
        let basic = AuthMethod::ClientSecretBasic.as_str();
        let by_secret = |method: &str| method == basic || method == AuthMethod::ClientSecretPost.as_str();
        let method = text("token_endpoint_auth_method").unwrap_or_else(|| basic.to_owned());
        let as_asked = by_secret(&method) && by_secret(&asked.token_endpoint_auth_method);
        Self {
            client_name: text("client_name").unwrap_or_else(|| asked.client_name.clone()),
            client_uri: asked.client_uri.clone().map(|asked| {
                // One that was asked for no more may stand there still: a server that merges keeps it.
                text("client_uri").filter(|u| !u.is_empty()).unwrap_or(asked)
            }),
            redirect_uris: texts("redirect_uris", &asked.redirect_uris).unwrap_or_default(),
            grant_types: texts("grant_types", &asked.grant_types)
                .unwrap_or_else(|| [GrantType::AuthorizationCode.as_str().to_owned()].into()),
            scope: scope.unwrap_or_else(|| asked.scope.clone()),
            token_endpoint_auth_method: if as_asked {
                asked.token_endpoint_auth_method.clone()
            } else {
                method
            },
        }
    }

    /// The members of a change of what stands there: what isn't wanted any more is said to be
    /// nothing, since a server may keep what is left out.
    pub(super) fn changed(&self, there: &Self) -> Map<String, Value> {
        let mut all = self.members();
        all.entry("redirect_uris").or_insert_with(|| json!([]));
        if !there.scope.is_empty() {
            all.entry("scope").or_insert_with(|| json!(""));
        }
        all
    }

    /// The first member that isn't as in `asked`.
    pub(super) fn differs(&self, asked: &Self) -> Option<Member> {
        [
            (self.redirect_uris != asked.redirect_uris, Member::RedirectUris),
            (self.grant_types != asked.grant_types, Member::GrantTypes),
            (self.scope != asked.scope, Member::Scope),
            (self.token_endpoint_auth_method != asked.token_endpoint_auth_method, Member::AuthMethod),
            (self.client_name != asked.client_name, Member::Name),
            (self.client_uri != asked.client_uri, Member::Uri),
        ]
        .into_iter()
        .find_map(|(differs, member)| differs.then_some(member))
    }

    /// The metadata; `None` where it has values that we would never write.
    fn metadata(&self) -> Option<ClientMetadata> {
        let scope: Vec<_> = self.scope.iter().map(String::as_str).collect();
        let named = |name: &String| serde_json::from_value::<GrantType>(json!(name)).ok();
        Some(ClientMetadata {
            name: self.client_name.clone(),
            uri: self.client_uri.clone(),
            redirect_uris: self
                .redirect_uris
                .iter()
                .map(|u| RedirectUri::parse(u).ok())
                .collect::<Option<_>>()?,
            grant_types: self.grant_types.iter().map(named).collect::<Option<_>>()?,
            scopes: ScopeSet::parse(&scope.join(" ")).ok()?,
            auth_method: serde_json::from_value(json!(self.token_endpoint_auth_method)).ok()?,
        })
    }
}

/// The longest text of a server that is kept, in bytes; none that is asked for is longer.
const MAX_TEXT: usize = 2048;
/// So many more values than were asked for are kept of a list: that it differs can be told from one.
const MORE: usize = 8;

fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(MAX_TEXT)].to_owned()
}

/// What a server names, as far as it is kept.
fn few<'a>(named: impl Iterator<Item = &'a str>, asked: &BTreeSet<String>) -> BTreeSet<String> {
    let mut all: BTreeSet<String> = BTreeSet::new();
    for text in named {
        // What was asked for has its place whatever stands before it.
        if asked.contains(text) || all.iter().filter(|t| !asked.contains(*t)).count() < MORE {
            all.insert(cut(text));
        }
    }
    all
}

/// A member of the metadata.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Member {
    RedirectUris,
    GrantTypes,
    Scope,
    AuthMethod,
    Name,
    Uri,
}

/// Where the client is managed, and by what (RFC 7592 section 3). Both stay with us.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
pub(super) struct Configuration {
    pub(super) uri: String,
    pub(super) token: String,
}

/// What the adapter remembers of a client from one call to the next. The server doesn't list its
/// clients, so a client whose handle is lost is lost.
#[derive(Serialize, Deserialize, Clone, PartialEq)]
#[serde(rename_all = "camelCase")]
pub(super) struct Handle {
    pub(super) client_id: String,
    /// What we called it; the server may show it to its people as `software_id`.
    pub(super) tag: String,
    /// `None`: the server doesn't let it be managed.
    pub(super) configuration: Option<Configuration>,
    /// A read was seen to change the token: then nothing is read.
    #[serde(default)]
    pub(super) rotates_on_read: bool,
    #[serde(default)]
    secret: Option<String>,
    #[serde(default)]
    secret_expires_at: Option<i64>,
    /// A change was seen to bring a new secret.
    #[serde(default)]
    renews_secret: bool,
    /// What was asked for at the last write.
    pub(super) asked: Stated,
    /// What the server said last.
    pub(super) told: Stated,
    /// What it says is still its answer to that write, and not somebody's edit since.
    pub(super) answered: bool,
}

impl Handle {
    /// Reads what [`Self::write`] wrote.
    pub(super) fn read(handle: Option<&SecretString>) -> Option<Self> {
        serde_json::from_str(handle?.expose_secret()).ok()
    }

    pub(super) fn write(&self) -> Option<SecretString> {
        serde_json::to_string(self).ok().map(SecretString::from)
    }

    /// The answer to a creation; `None` where it has no client identifier.
    pub(super) fn created(
        tag: &str,
        asked: Stated,
        answer: &Map<String, Value>,
        own: impl Fn(&str) -> bool,
    ) -> Option<Self> {
        let id = answer.get("client_id")?.as_str()?;
        let mut handle = Self {
            client_id: ClientId::parse(id).ok()?.to_string(),
            tag: tag.to_owned(),
            configuration: None,
            rotates_on_read: false,
            secret: None,
            secret_expires_at: None,
            renews_secret: false,
            told: asked.clone(),
            asked: asked.clone(),
            answered: true,
        };
        handle.written(asked, answer, own);
        Some(handle)
    }

    /// Takes over what the server says. `own` tells whether an address is the server's own, since
    /// the token goes there.
    fn take(&mut self, answer: &Map<String, Value>, own: impl Fn(&str) -> bool) {
        let text = |name| answer.get(name).and_then(Value::as_str).filter(|t| !t.is_empty());
        let before = self.configuration.take();
        let uri = text("registration_client_uri").filter(|u| is_address(u) && own(u)).map(str::to_owned);
        let token = text("registration_access_token").map(str::to_owned);
        self.configuration = match (uri, token, before) {
            (Some(uri), Some(token), _) => Some(Configuration { uri, token }),
            (None, Some(token), Some(before)) => Some(Configuration { token, ..before }),
            (Some(uri), None, Some(before)) => Some(Configuration { uri, ..before }),
            (_, _, before) => before,
        };
        if let Some(secret) = text("client_secret") {
            self.secret = Some(secret.to_owned());
            self.secret_expires_at = answer.get("client_secret_expires_at").and_then(seconds);
        }
        self.told = Stated::told(answer, &self.asked);
    }

    /// What a read told.
    pub(super) fn seen(&mut self, answer: &Map<String, Value>, own: impl Fn(&str) -> bool) {
        let (token, told) = (self.token(), self.told.clone());
        self.take(answer, own);
        self.rotates_on_read |= token != self.token();
        self.answered &= told == self.told;
    }

    /// What the answer to a write told; the secret, if it is another one.
    pub(super) fn written(
        &mut self,
        asked: Stated,
        answer: &Map<String, Value>,
        own: impl Fn(&str) -> bool,
    ) -> Option<SecretString> {
        let before = self.secret.clone();
        self.asked = asked;
        self.take(answer, own);
        self.answered = true;
        if self.is_public() {
            self.secret = None;
        }
        self.renews_secret |= before.is_some() && self.secret.is_some() && self.secret != before;
        self.secret().filter(|_| self.secret != before)
    }

    /// Whether a change can be hoped to bring a new secret: it was seen to, or there is none yet.
    pub(super) fn may_renew(&self) -> bool {
        self.renews_secret || self.secret.is_none()
    }

    fn is_public(&self) -> bool {
        self.told.token_endpoint_auth_method == AuthMethod::None.as_str()
    }

    fn token(&self) -> Option<String> {
        self.configuration.as_ref().map(|c| c.token.clone())
    }

    /// The secret, as the server told it last.
    pub(super) fn secret(&self) -> Option<SecretString> {
        self.secret.as_deref().map(SecretString::from)
    }

    /// When the server ends the secret.
    pub(super) fn secret_expires_at(&self) -> Option<i64> {
        self.secret.as_ref().and(self.secret_expires_at)
    }

    /// The client as the port tells it; `known` is the handle that the caller has.
    pub(super) fn registered(&self, known: Option<&SecretString>) -> Option<RegisteredClient> {
        let metadata = self.told.metadata();
        let secret = self.secret().filter(|_| !self.is_public());
        Some(RegisteredClient {
            id: ClientId::parse(&self.client_id).ok()?,
            metadata,
            has_secret: secret.is_some(),
            secret_expires_at: secret.as_ref().and(self.secret_expires_at()),
            secret,
            has_previous: false,
            owner: None,
            protected: false,
            version: None,
            handle: if Self::read(known).as_ref() == Some(self) { None } else { self.write() },
        })
    }
}

/// Seconds since 1970; 0 is never.
fn seconds(value: &Value) -> Option<i64> {
    let seconds = value.as_i64().or_else(|| value.as_str()?.parse().ok());
    seconds.filter(|s| *s > 0)
}
