//! What a caller wants a client to be: the body of PUT, checked field by field.

use super::Problem;
use crate::domain::text::Shown;
use crate::domain::{AuthMethod, ClientMetadata, Owner, ScopeSet};
use crate::server::client_rules::{self, Wanted, Words};
use crate::server::secret::{self, SecretKind};
use crate::server::store::Tokens;
use jiff::{SignedDuration, Timestamp};
use secrecy::SecretString;
use serde::{Deserialize, Deserializer};

const WORDS: Words = Words {
    name: "name",
    uri: "uri",
    redirect_uris: "redirectUris",
    grant_types: "grantTypes",
    scopes: "scopes",
    auth_method: "tokenEndpointAuthMethod",
};
const MAX_OWNER_FIELD: usize = 512;
/// How long a secret may work on beside the one that took its place.
const MAX_OVERLAP: SignedDuration = SignedDuration::from_hours(30 * 24);

/// The body of `PUT /admin/clients/{id}`, as it came. Words are text here, so that a wrong one gets
/// an answer of its own and not a parser's.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ClientBody {
    name: String,
    uri: Option<String>,
    #[serde(default)]
    redirect_uris: Vec<String>,
    #[serde(default)]
    grant_types: Vec<String>,
    #[serde(default)]
    scopes: Vec<String>,
    token_endpoint_auth_method: String,
    #[serde(default, deserialize_with = "secret_text")]
    secret: Option<SecretString>,
    #[serde(default)]
    secret_kind: SecretKind,
    previous_secret_expires_at: Option<String>,
    #[serde(default)]
    revoke_tokens: bool,
    owner: Option<Owner>,
}

/// What a client shall be. Every part has been checked.
pub struct ClientSpec {
    /// What to register it with.
    pub metadata: ClientMetadata,
    /// Its secret; left out, it keeps the one it has or is given one.
    pub secret: Option<(SecretKind, SecretString)>,
    /// Until when the secret before this one still authenticates; left out, it ends at once.
    pub previous_until: Option<Timestamp>,
    /// Whether all tokens and grants that it has end.
    pub tokens: Tokens,
    /// Who makes it.
    pub owner: Option<Owner>,
}

/// A secret of any type but text is refused without being repeated.
fn secret_text<'de, D: Deserializer<'de>>(from: D) -> Result<Option<SecretString>, D::Error> {
    match serde_json::Value::deserialize(from)? {
        serde_json::Value::Null => Ok(None),
        serde_json::Value::String(text) => Ok(Some(text.into())),
        _ => Err(serde::de::Error::custom("secret must be a string")),
    }
}

impl ClientBody {
    /// Checks it against what this service has.
    ///
    /// # Errors
    /// 400, with the field and a code.
    pub fn check(self, scopes: &ScopeSet, now: Timestamp) -> Result<ClientSpec, Problem> {
        let wanted = Wanted {
            name: self.name,
            uri: self.uri,
            redirect_uris: self.redirect_uris,
            grant_types: self.grant_types,
            scopes: self.scopes,
            auth_method: self.token_endpoint_auth_method,
        };
        let metadata = wanted.check(&WORDS, scopes)?;
        let auth_method = metadata.auth_method;
        Ok(ClientSpec {
            metadata,
            secret: checked_secret(self.secret, self.secret_kind, auth_method)?,
            previous_until: self
                .previous_secret_expires_at
                .map(|until| checked_previous_until(&until, auth_method, now))
                .transpose()?,
            tokens: if self.revoke_tokens { Tokens::End } else { Tokens::Keep },
            owner: self.owner.map(checked_owner).transpose()?,
        })
    }
}

/// Checks scopes against those that there are to have.
///
/// # Errors
/// 400 `invalid-scope`.
pub fn checked_scopes(field: &'static str, all: &[String], most: &ScopeSet) -> Result<ScopeSet, Problem> {
    Ok(client_rules::scopes(field, all, most)?)
}

fn checked_secret(
    secret: Option<SecretString>,
    kind: SecretKind,
    method: AuthMethod,
) -> Result<Option<(SecretKind, SecretString)>, Problem> {
    let Some(secret) = secret else { return Ok(None) };
    if method.is_public() {
        let text = "a public client (tokenEndpointAuthMethod none) has no secret; leave the secret out";
        return Err(Problem::invalid("secret", text));
    }
    secret::check_form(kind, &secret).map_err(|e| Problem::invalid("secret", format!("secret {e}")))?;
    Ok(Some((kind, secret)))
}

/// The end of an overlap, in whole milliseconds, as the store keeps it. One that is over is good: a
/// PUT that is repeated must not fail because time went on.
fn checked_previous_until(text: &str, method: AuthMethod, now: Timestamp) -> Result<Timestamp, Problem> {
    const FIELD: &str = "previousSecretExpiresAt";
    if method.is_public() {
        let text = "a public client (tokenEndpointAuthMethod none) has no secret, and none before; \
                    leave previousSecretExpiresAt out";
        return Err(Problem::invalid(FIELD, text));
    }
    let parsed: Option<Timestamp> = text.parse().ok();
    let until =
        parsed.and_then(|t| Timestamp::from_millisecond(t.as_millisecond()).ok()).ok_or_else(|| {
            let text = format!(
                "{FIELD} {} is no time of RFC 3339; write one like 2026-01-31T12:00:00Z",
                Shown(text)
            );
            Problem::invalid(FIELD, text)
        })?;
    let latest = now + MAX_OVERLAP;
    if until > latest {
        let text = format!(
            "{FIELD} {} is more than {} days ahead; write a time that isn't after {latest:.0}",
            Shown(text),
            MAX_OVERLAP.as_hours() / 24
        );
        return Err(Problem::invalid(FIELD, text));
    }
    Ok(until)
}

fn checked_owner(owner: Owner) -> Result<Owner, Problem> {
    let Owner {
        installation,
        namespace,
        namespace_uid,
        name,
        uid,
        serial,
        since,
        previous_until,
        request,
        mark,
        deletion,
    } = &owner;
    let odd = |text: &String| text.len() > MAX_OWNER_FIELD || !text.bytes().all(|b| b.is_ascii_graphic());
    let empty = [installation, namespace, namespace_uid, name, uid, mark].into_iter().any(String::is_empty);
    let texts = [installation, namespace, namespace_uid, name, uid, request, mark];
    let odd = texts.into_iter().chain(deletion).any(odd);
    if empty || odd || [serial, since, previous_until].into_iter().any(|n| *n < 0) {
        let text = format!(
            "every text of owner must have 1 to {MAX_OWNER_FIELD} visible ASCII characters (request may be \
             empty, deletion left out), and serial, since and previousUntil must be 0 or more"
        );
        return Err(Problem::invalid("owner", text));
    }
    Ok(owner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn now() -> Timestamp {
        "2026-11-22T10:00:00Z".parse().expect("a time")
    }

    fn check(change: impl FnOnce(&mut Value)) -> Result<ClientSpec, String> {
        let mut body = json!({"name": "n", "tokenEndpointAuthMethod": "client_secret_basic"});
        change(&mut body);
        let body: ClientBody = serde_json::from_value(body).map_err(|e| e.to_string())?;
        let scopes = ScopeSet::parse("a b").expect("scopes");
        body.check(&scopes, now()).map_err(|p| format!("{p:?}"))
    }

    #[test]
    fn good_ones() {
        assert!(check(|_| ()).is_ok());
        let full = check(|b| {
            b["redirectUris"] = json!(["https://a.example/cb"]);
            b["grantTypes"] = json!(["authorization_code", "refresh_token"]);
            b["scopes"] = json!(["b", "a", "a"]);
            b["secret"] = json!("s".repeat(43));
            b["secretKind"] = json!("derived");
        });
        assert_eq!(full.map(|s| s.metadata.scopes.to_string()), Ok("a b".into()));
    }

    #[test]
    fn bad_ones_name_code_and_field() {
        let cases: [(Value, &str, &str); 15] = [
            (json!({"name": " "}), "invalid-request", "name"),
            (json!({"uri": "javascript:alert(1)"}), "invalid-request", "uri"),
            (json!({"redirectUris": ["http://a.example/"]}), "invalid-redirect-uri", "redirectUris"),
            (json!({"grantTypes": ["password"]}), "invalid-grant-types", "grantTypes"),
            (json!({"grantTypes": ["authorization_code"]}), "invalid-redirect-uri", "redirectUris"),
            (json!({"scopes": ["c"]}), "invalid-scope", "scopes"),
            (json!({"scopes": ["a b"]}), "invalid-scope", "scopes"),
            (
                json!({"tokenEndpointAuthMethod": "private_key_jwt"}),
                "invalid-request",
                "tokenEndpointAuthMethod",
            ),
            (
                json!({"tokenEndpointAuthMethod": "none", "secret": "s".repeat(43)}),
                "invalid-request",
                "secret",
            ),
            (
                json!({"tokenEndpointAuthMethod": "none", "grantTypes": ["client_credentials"]}),
                "invalid-grant-types",
                "grantTypes",
            ),
            (json!({"secret": "short canary"}), "invalid-request", "secret"),
            (json!({"previousSecretExpiresAt": "tomorrow"}), "invalid-request", "previousSecretExpiresAt"),
            (
                json!({"previousSecretExpiresAt": "2026-12-22T10:00:00.001Z"}),
                "invalid-request",
                "previousSecretExpiresAt",
            ),
            (
                json!({"tokenEndpointAuthMethod": "none", "previousSecretExpiresAt": "2026-11-22T11:00:00Z"}),
                "invalid-request",
                "previousSecretExpiresAt",
            ),
            (json!({"secret": "long enough, canary", "secretKind": "derived"}), "invalid-request", "secret"),
        ];
        for (change, code, field) in cases {
            let said = check(|b| {
                let (b, change) = (b.as_object_mut().expect("object"), change.as_object().expect("object"));
                b.extend(change.clone());
            });
            let said = said.err().unwrap_or_else(|| panic!("{change}: taken"));
            assert!(
                said.contains(&format!("code: \"{code}\"")) && said.contains(&format!("Some(\"{field}\")")),
                "{said}"
            );
            assert!(!said.contains("canary"), "{said}");
        }
    }

    #[test]
    fn an_overlap_ends_within_30_days_and_may_be_over() {
        for (given, taken) in [
            ("2026-12-22T10:00:00Z", "2026-12-22T10:00:00Z"),
            ("2026-11-23T09:00:00.1234567+01:00", "2026-11-23T08:00:00.123Z"),
            ("2020-01-01T00:00:00Z", "2020-01-01T00:00:00Z"),
        ] {
            let spec = check(|b| b["previousSecretExpiresAt"] = json!(given)).expect(given);
            assert_eq!(spec.previous_until.map(|t| t.to_string()).as_deref(), Some(taken));
        }
        let said = check(|b| b["previousSecretExpiresAt"] = json!("2027-01-01T00:00:00Z")).err();
        let said = said.expect("refused");
        for part in ["previousSecretExpiresAt", "2027-01-01T00:00:00Z", "2026-12-22T10:00:00Z"] {
            assert!(said.contains(part), "{said}");
        }
    }

    #[test]
    fn an_owner_may_leave_out_what_is_newer_and_have_no_request() {
        let mut owner = json!({"installation": "i", "namespace": "n", "namespaceUid": "nu", "name": "l",
                               "uid": "u", "serial": 1, "mark": "m"});
        assert!(check(|b| b["owner"] = owner.clone()).is_ok());
        owner["request"] = json!("2026-11-22T10:00:00Z");
        owner["since"] = json!(5);
        let spec = check(|b| b["owner"] = owner.clone()).expect("taken");
        assert_eq!(spec.owner.map(|o| (o.since, o.previous_until)), Some((5, 0)));
        for (field, value) in [
            ("request", json!("two words")),
            ("since", json!(-1)),
            ("previousUntil", json!(-1)),
            ("mark", json!("")),
        ] {
            let mut odd = owner.clone();
            odd[field] = value;
            assert!(check(|b| b["owner"] = odd).is_err(), "{field}");
        }
    }

    #[test]
    fn a_secret_of_another_type_is_not_repeated() {
        let said = check(|b| b["secret"] = json!(20_261_122_555_i64)).err().expect("refused");
        assert!(said.contains("secret must be a string") && !said.contains("20261122555"), "{said}");
        assert!(check(|b| b["secrets"] = json!("x")).err().expect("refused").contains("unknown field"));
    }
}
