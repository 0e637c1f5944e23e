//! From the raw spec to a [`ValidatedLink`]: the only reader of the raw spec. Pure.
//!
//! The schema refuses most of this at `kubectl apply`; it is checked again because an object may
//! have been stored under an older schema, and because some of it no schema can say.

mod outgoing;

pub use outgoing::{
    ClientAuthGoal, ClientGoal, ClientIdGoal, GrantGoal, JwtBearerGoal, OFFLINE_ACCESS, OutgoingGoal, PROMPT,
    SecretKey, ServerGoal, ServerPlace, is_protocol,
};

use super::content::{self, SecretGoal, Slot};
use super::template;
use crate::api::link::{ApplicationLink, DeletionPolicy, Incoming, IncomingKeys, ProviderKind, Rotation};
use crate::api::names;
use crate::domain::keyring::digest_hex;
use crate::domain::text::Shown;
use crate::domain::{ClientId, ClientMetadata, Deletion, GrantType, RedirectUri, Scope, ScopeSet, duration};
use kube::ResourceExt as _;
use std::collections::BTreeMap;

/// What a link asks for, checked.
#[derive(Debug, Clone, PartialEq)]
pub struct ValidatedLink {
    /// The provider that it names, if it names one.
    pub provider_ref: Option<(ProviderKind, String)>,
    /// The client to register.
    pub incoming: Option<IncomingGoal>,
    /// The token to keep.
    pub outgoing: Option<OutgoingGoal>,
    /// What becomes of it all at the end.
    pub deletion_policy: DeletionPolicy,
    /// No refresh and no repair.
    pub suspend: bool,
}

/// The client to register, and where its credentials go.
#[derive(Debug, Clone, PartialEq)]
pub struct IncomingGoal {
    /// The client.
    pub metadata: ClientMetadata,
    /// The client to take over, rather than to make one.
    pub adopt: Option<AdoptGoal>,
    /// When it gets a new secret.
    pub rotation: RotationGoal,
    /// A new secret that somebody asks for.
    pub request: Option<RotationRequest>,
    /// The Secret.
    pub secret: SecretGoal,
    /// What is to become of the client when the link is gone.
    pub deletion: Deletion,
}

/// A client that is there already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdoptGoal {
    /// Its identifier.
    pub id: ClientId,
    /// Name of the Secret with its secret, and the key there.
    pub secret: Option<(String, String)>,
}

/// When a client gets a new secret.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct RotationGoal {
    /// How often, in seconds.
    pub every: Option<i64>,
    /// How long two secrets work, in seconds; `None`: as the provider can.
    pub overlap: Option<i64>,
}

impl RotationGoal {
    /// How long the old secret works on at a provider that can have two.
    pub fn overlap_or_default(&self) -> i64 {
        const DAY: i64 = 86_400;
        self.overlap.unwrap_or_else(|| self.every.map_or(DAY, |every| DAY.min(every / 2)))
    }
}

/// A new secret that somebody asks for, by annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationRequest {
    /// What the request is known by once it was carried out.
    pub value: String,
    /// The part of it that asks for no overlap.
    pub now: Option<String>,
}

impl RotationRequest {
    /// Whether there is to be no overlap: that part is a new one since `last` was carried out.
    pub fn is_now(&self, last: &str) -> bool {
        self.now.as_ref().is_some_and(|n| last != n && !last.ends_with(&format!(",{n}")))
    }
}

/// The request that the annotations make. The two stand for one request, so that none is carried
/// out again when only the other changes.
pub(super) fn rotation_request(annotations: &BTreeMap<String, String>) -> Option<RotationRequest> {
    let get = |key: &str| annotations.get(key).map(|v| v.trim()).filter(|v| !v.is_empty());
    let (plain, now) = (get(names::ROTATE), get(names::ROTATE_NOW));
    let value = match (plain, now) {
        (None, None) => return None,
        (Some(v), None) | (None, Some(v)) => v.to_owned(),
        (Some(p), Some(n)) => format!("{p},{n}"),
    };
    // It stands in the owner record and in the status; a text that can't is known by its digest.
    let fits = value.len() <= 128 && value.bytes().all(|b| b.is_ascii_graphic());
    let value = if fits { value } else { digest_hex(&value) };
    Some(RotationRequest { value, now: now.map(str::to_owned) })
}

/// A spec that can't be acted on. It names the field, shows the value and says the way out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Invalid {
    /// Path of the field.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

fn invalid(field: impl Into<String>, message: impl Into<String>) -> Invalid {
    Invalid { field: field.into(), message: message.into() }
}

/// Checks a link's spec.
///
/// # Errors
/// [`Invalid`] for the first thing that is wrong.
pub fn validate(link: &ApplicationLink) -> Result<ValidatedLink, Invalid> {
    let name = link.name_any();
    let spec = &link.spec;
    let turns = |c: char| matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if spec.application.name.is_empty() || spec.application.name.chars().any(|c| c.is_control() || turns(c)) {
        let text = "must be a name without control characters, nor any that turn the direction of text";
        return Err(invalid("spec.application.name", text));
    }
    let incoming = spec.incoming.as_ref().map(|i| incoming(link, &name, i)).transpose()?;
    let outgoing = spec.outgoing.as_ref().map(|o| outgoing::check(&name, o)).transpose()?;
    if incoming.is_none() && outgoing.is_none() {
        return Err(invalid("spec", "at least one of incoming and outgoing must be set"));
    }
    if let (Some(i), Some(o)) = (&incoming, &outgoing)
        && i.secret.name == o.secret.name
    {
        return Err(invalid(
            "spec.outgoing.secret.name",
            format!("{} is the incoming Secret too; give one of them another name", Shown(&o.secret.name)),
        ));
    }
    Ok(ValidatedLink {
        provider_ref: spec.provider_ref.as_ref().map(|r| (r.kind, r.name.clone())),
        incoming,
        outgoing,
        deletion_policy: spec.deletion_policy,
        suspend: spec.suspend,
    })
}

fn incoming(link: &ApplicationLink, name: &str, spec: &Incoming) -> Result<IncomingGoal, Invalid> {
    let oauth2 = &spec.oauth2;
    let at = "spec.incoming.oauth2";
    let mut redirect_uris = std::collections::BTreeSet::new();
    for (i, uri) in oauth2.redirect_uris.iter().enumerate() {
        let parsed = RedirectUri::parse(uri)
            .map_err(|e| invalid(format!("{at}.redirectUris[{i}]"), format!("{} {e}", Shown(uri))))?;
        redirect_uris.insert(parsed);
    }
    let grant_types: std::collections::BTreeSet<GrantType> = match &oauth2.grant_types {
        Some(types) => types.iter().copied().collect(),
        None if redirect_uris.is_empty() => [GrantType::ClientCredentials].into(),
        None => [GrantType::AuthorizationCode, GrantType::RefreshToken].into(),
    };
    if grant_types.is_empty() {
        return Err(invalid(format!("{at}.grantTypes"), "is empty; name a grant type, or leave it out"));
    }
    if grant_types.contains(&GrantType::AuthorizationCode) && redirect_uris.is_empty() {
        return Err(invalid(
            format!("{at}.redirectUris"),
            "must have at least one entry for the grant type authorization_code",
        ));
    }
    let auth_method = oauth2.token_endpoint_auth_method;
    if auth_method.is_public() && grant_types.contains(&GrantType::ClientCredentials) {
        return Err(invalid(
            format!("{at}.tokenEndpointAuthMethod"),
            "none is a public client, which can't use the grant type client_credentials; give it redirectUris, or \
             another tokenEndpointAuthMethod",
        ));
    }
    let adopt = spec.adopt.as_ref().map(|a| {
        let id = ClientId::parse(&a.client_id)
            .map_err(|e| invalid("spec.incoming.adopt.clientId", format!("{} {e}", Shown(&a.client_id))))?;
        let secret = a.secret_ref.as_ref().map(|r| (r.name.clone(), r.key.clone()));
        Ok(AdoptGoal { id, secret })
    });
    let adopt = adopt.transpose()?;
    let rotation = rotation(spec.rotation.as_ref())?;
    if auth_method.is_public() && rotation != RotationGoal::default() {
        return Err(invalid(
            "spec.incoming.rotation",
            "a public client has no secret to rotate; leave it out",
        ));
    }
    let keys = spec.secret.as_ref().and_then(|s| s.keys.clone()).unwrap_or_default();
    let IncomingKeys {
        client_id,
        client_secret,
        issuer_uri,
        authorization_endpoint,
        token_endpoint,
        token_endpoint_auth_method,
    } = keys;
    let slots = [
        (Slot::ClientId, client_id),
        (Slot::ClientSecret, client_secret),
        (Slot::IssuerUri, issuer_uri),
        (Slot::AuthorizationEndpoint, authorization_endpoint),
        (Slot::TokenEndpoint, token_endpoint),
        (Slot::TokenEndpointAuthMethod, token_endpoint_auth_method),
    ];
    let secret = spec.secret.clone().unwrap_or_default();
    let secret = secret_goal(
        "spec.incoming.secret",
        secret.name.unwrap_or_else(|| format!("{name}-oauth")),
        secret.type_,
        secret.labels,
        secret.annotations,
        slots,
        secret.template,
        content::INCOMING,
    )?;
    Ok(IncomingGoal {
        metadata: ClientMetadata {
            name: link.spec.application.name.clone(),
            uri: link.spec.application.url.clone(),
            redirect_uris,
            grant_types,
            scopes: scopes(&format!("{at}.scopes"), oauth2.scopes.as_deref())?,
            auth_method,
        },
        adopt,
        rotation,
        request: rotation_request(link.annotations()).filter(|_| !auth_method.is_public()),
        secret,
        deletion: match link.spec.deletion_policy {
            DeletionPolicy::Delete => Deletion::Delete,
            DeletionPolicy::Retain => Deletion::Retain,
        },
    })
}

fn rotation(spec: Option<&Rotation>) -> Result<RotationGoal, Invalid> {
    let at = "spec.incoming.rotation";
    let seconds = |field: &str, text: &Option<String>| {
        let parse = |text: &String| {
            let parsed = duration::parse(text)
                .map_err(|e| invalid(format!("{at}.{field}"), format!("{} {e}", Shown(text))))?;
            Ok(i64::try_from(parsed.as_secs()).unwrap_or(i64::MAX))
        };
        text.as_ref().map(parse).transpose()
    };
    let Some(spec) = spec else { return Ok(RotationGoal::default()) };
    let goal =
        RotationGoal { every: seconds("every", &spec.every)?, overlap: seconds("overlap", &spec.overlap)? };
    if goal.every.is_some_and(|e| e < 10) {
        return Err(invalid(format!("{at}.every"), "is less than 10s; a secret needs time to be used"));
    }
    if goal.overlap.is_some_and(|o| o > MAX_OVERLAP) {
        return Err(invalid(format!("{at}.overlap"), "is more than 30d; a secret that is replaced must end"));
    }
    if let (Some(every), Some(overlap)) = (goal.every, goal.overlap)
        && overlap >= every
    {
        return Err(invalid(format!("{at}.overlap"), "isn't shorter than every; make it shorter"));
    }
    Ok(goal)
}

/// How long two secrets may work at most, in seconds.
const MAX_OVERLAP: i64 = 30 * 86_400;

fn scopes(field: &str, names: Option<&[String]>) -> Result<ScopeSet, Invalid> {
    names
        .unwrap_or_default()
        .iter()
        .enumerate()
        .map(|(i, s)| {
            Scope::parse(s).map_err(|e| invalid(format!("{field}[{i}]"), format!("{} {e}", Shown(s))))
        })
        .collect()
}

/// What the API server demands of Secrets of a type: one of these keys.
const TYPED: [(&str, &[&str]); 6] = [
    ("kubernetes.io/dockerconfigjson", &[".dockerconfigjson"]),
    ("kubernetes.io/dockercfg", &[".dockercfg"]),
    ("kubernetes.io/basic-auth", &["username", "password"]),
    ("kubernetes.io/ssh-auth", &["ssh-privatekey"]),
    ("kubernetes.io/tls", &["tls.crt"]),
    ("kubernetes.io/tls", &["tls.key"]),
];

#[allow(clippy::too_many_arguments, reason = "the two Secrets of the API differ in type, not in fields")]
fn secret_goal(
    at: &str,
    name: String,
    type_: String,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
    slots: impl IntoIterator<Item = (Slot, Option<String>)>,
    templates: BTreeMap<String, String>,
    known: &[Slot],
) -> Result<SecretGoal, Invalid> {
    if name.len() > 253 {
        return Err(invalid(
            format!("{at}.name"),
            "must be given, since this link's name is too long for a default",
        ));
    }
    let type_ = if type_.is_empty() { "Opaque".to_owned() } else { type_ };
    if type_.starts_with("kubernetes.io/service-account") || type_.starts_with("bootstrap.kubernetes.io/") {
        return Err(invalid(
            format!("{at}.type"),
            format!("{} isn't a type that a link may write", Shown(&type_)),
        ));
    }
    let mut keys = BTreeMap::new();
    let mut taken: BTreeMap<String, String> = ["type", "provider"]
        .into_iter()
        .map(|k| (k.to_owned(), "the Service Binding keys".to_owned()))
        .collect();
    for (slot, key) in slots {
        let key = key.unwrap_or_else(|| slot.default_key().to_owned());
        let field = format!("{at}.keys.{}", slot.variable());
        if let Some(other) = taken.insert(key.clone(), field.clone()) {
            return Err(invalid(
                field,
                format!("the key {} is taken by {other}; give it another", Shown(&key)),
            ));
        }
        keys.insert(slot, key);
    }
    for (key, source) in &templates {
        let field = format!("{at}.template[{}]", Shown(key));
        if let Some(other) = taken.get(key) {
            return Err(invalid(
                field,
                format!("the key is taken by {other}; give the template another key"),
            ));
        }
        template::check(source, known).map_err(|e| invalid(field, e.to_string()))?;
    }
    let has = |key: &str| taken.contains_key(key) || templates.contains_key(key);
    if let Some((_, wanted)) = TYPED.iter().find(|(t, any)| *t == type_ && !any.iter().any(|k| has(k))) {
        return Err(invalid(
            format!("{at}.type"),
            format!(
                "Kubernetes demands the key {} of a Secret of type {type_}; add it to {at}.template, or give a value that \
                 name in {at}.keys",
                wanted.join(" or ")
            ),
        ));
    }
    Ok(SecretGoal { name, type_, labels, annotations, keys, templates })
}
