//! Whose grant it is: what the token reply, its ID token (OpenID Connect Core section 2) or the
//! server's user endpoint says.
//!
//! An ID token comes from the token endpoint over TLS, in answer to our own request, so its
//! signature needn't be checked (section 3.1.3.7, item 6); issuer, audience and end are (items 2, 3
//! and 9).

use super::ServerEndpoints;
use super::presets::{AccountSource, Preset};
use crate::domain::{Account, ClientId, TokenReply};
use crate::http::{HttpClient, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::{SignedDuration, Timestamp};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// Whose grant it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: Account,
    /// What people call it; for the eyes of the person that connects alone.
    pub label: Option<String>,
}

/// How far the server's clock may be from ours.
const LEEWAY: SignedDuration = SignedDuration::from_mins(5);

/// Finds out whose a grant is. `None`: the server doesn't say.
pub async fn owner_of(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    client: &ClientId,
    reply: &TokenReply,
) -> Option<Owner> {
    let claims = reply.id_token.as_ref().and_then(|token| {
        let wanted = Wanted { client, issuer: issuer(preset, endpoints), now: Timestamp::now() };
        claims(token.expose_secret(), &wanted)
    });
    let token = &reply.access_token;
    match preset.account {
        AccountSource::OpenId => match &claims {
            Some(claims) => owner(text(claims, "iss")?, text(claims, "sub")?, claims),
            None => {
                let said = ask(http, endpoints, token).await?;
                owner(&keeper(endpoints)?, text(&said, "sub")?, &said)
            }
        },
        AccountSource::Microsoft => {
            let claims = claims?;
            owner(text(&claims, "tid")?, text(&claims, "oid")?, &claims)
        }
        AccountSource::GithubUser => {
            let said = ask(http, endpoints, token).await?;
            owner(&keeper(endpoints)?, &said.get("id")?.as_u64()?.to_string(), &said)
        }
        AccountSource::AtlassianMe => {
            let said = ask(http, endpoints, token).await?;
            owner(&keeper(endpoints)?, text(&said, "account_id")?, &said)
        }
        AccountSource::SlackReply => reply.account.clone().map(|account| Owner { account, label: None }),
    }
}

/// Who keeps the accounts of a server that doesn't say it beside each of them.
fn keeper(endpoints: &ServerEndpoints) -> Option<String> {
    endpoints.issuer.clone().or_else(|| endpoints.token_endpoint.host_str().map(str::to_owned))
}

async fn ask(http: &HttpClient, endpoints: &ServerEndpoints, token: &SecretString) -> Option<Value> {
    let request = Request::get(endpoints.user_endpoint.clone()?).accept_json().bearer(token).ok()?;
    let answer = http.send(request).await.ok()?;
    answer.json().filter(|_| answer.is_success())
}

fn text<'v>(of: &'v Value, name: &str) -> Option<&'v str> {
    of.get(name).and_then(Value::as_str)
}

fn owner(issuer: &str, subject: &str, said: &Value) -> Option<Owner> {
    let label = ["preferred_username", "email", "login", "name"].into_iter().find_map(|n| text(said, n));
    let fits = |l: &&str| !l.is_empty() && l.len() <= 255 && !l.chars().any(char::is_control);
    Some(Owner { account: Account::new(issuer, subject)?, label: label.filter(fits).map(str::to_owned) })
}

/// What an ID token must be.
struct Wanted<'a> {
    client: &'a ClientId,
    /// Its issuer, where one is known; `{tenantid}` in it stands for what the token says in `tid`.
    issuer: Option<String>,
    now: Timestamp,
}

/// Who issues the ID tokens of a server. Entra's is each tenant's own, also where the server was
/// asked for the tokens of all (`common`, `organizations`): it is told by the token's `tid`.
fn issuer(preset: &Preset, endpoints: &ServerEndpoints) -> Option<String> {
    match preset.account {
        AccountSource::Microsoft => {
            Some(format!("{}/{{tenantid}}/v2.0", endpoints.token_endpoint.origin().ascii_serialization()))
        }
        _ => endpoints.issuer.clone(),
    }
}

/// The claims of an ID token; `None` for one that isn't for us, has ended or can't be read.
fn claims(token: &str, wanted: &Wanted<'_>) -> Option<Value> {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&body).ok()?;
    let said = text(&claims, "iss")?;
    if let Some(issuer) = &wanted.issuer {
        let expected = if issuer.contains(TENANT) {
            let tenant = text(&claims, "tid").filter(|t| is_tenant(t))?;
            issuer.replace(TENANT, tenant)
        } else {
            issuer.clone()
        };
        if said != expected {
            return None;
        }
    }
    let us = wanted.client.as_str();
    let ours = match claims.get("aud")? {
        Value::String(one) => one == us,
        Value::Array(all) => all.iter().any(|a| a.as_str() == Some(us)),
        _ => false,
    };
    // Seconds since 1970, which may have a fraction (RFC 7519 section 2, NumericDate).
    let end = claims.get("exp")?.as_f64()?;
    let now = wanted.now.saturating_sub(LEEWAY).ok()?.as_duration().as_secs_f64();
    (ours && end > now).then_some(claims)
}

/// Stands for a tenant in the issuer that Entra's metadata name.
const TENANT: &str = "{tenantid}";

/// Whether a text can be a tenant's ID, and is no path.
fn is_tenant(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::outgoing::presets;
    use serde_json::json;
    use url::Url;

    const NOW: i64 = 1_700_000_000;

    fn read(issuer: Option<&str>, claims: &Value) -> Option<Value> {
        let us = ClientId::parse("us").expect("an ID");
        let now = Timestamp::from_second(NOW).expect("a time");
        let wanted = Wanted { client: &us, issuer: issuer.map(str::to_owned), now };
        super::claims(&format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims.to_string())), &wanted)
    }

    fn with(mut claims: Value, name: &str, value: Value) -> Value {
        claims[name] = value;
        claims
    }

    #[test]
    fn an_id_token_is_read_if_it_is_for_us() {
        let good = json!({"iss": "https://a", "aud": "us", "sub": "1", "email": "a@b", "exp": NOW + 60});
        let read = |claims: &Value| read(Some("https://a"), claims);
        let found = read(&good).expect("claims");
        let found = owner("https://a", text(&found, "sub").expect("sub"), &found).expect("an owner");
        assert_eq!((found.account.issuer(), found.account.subject()), ("https://a", "1"));
        assert_eq!(found.label.as_deref(), Some("a@b"));
        for (name, value) in [
            ("aud", json!(["x", "us"])),
            // Clocks differ a little.
            ("exp", json!(NOW - 299)),
            ("exp", json!(1_700_000_000.5)),
        ] {
            let other = with(good.clone(), name, value);
            assert!(read(&other).is_some(), "{other}");
        }
        for (name, value) in [
            ("iss", json!("https://b")),
            ("iss", json!("https://a/")),
            ("iss", json!(null)),
            ("aud", json!("them")),
            ("aud", json!(["them"])),
            ("aud", json!(null)),
            ("exp", json!(NOW - 300)),
            ("exp", json!(0)),
            ("exp", json!("1800000000")),
            ("exp", json!(null)),
        ] {
            let other = with(good.clone(), name, value);
            assert_eq!(read(&other), None, "{other}");
        }
        assert_eq!(read(&json!("no object")), None);
        for name in ["iss", "aud", "exp"] {
            let mut other = good.clone();
            other.as_object_mut().expect("an object").remove(name);
            assert_eq!(read(&other), None, "without {name}");
        }
        let us = ClientId::parse("us").expect("an ID");
        let wanted = Wanted { client: &us, issuer: None, now: Timestamp::UNIX_EPOCH };
        assert_eq!(claims("", &wanted), None);
        assert_eq!(claims("e30.bm8ganNvbg.", &wanted), None);
    }

    #[test]
    fn a_tenant_of_entra_issues_its_own_tokens() {
        const TENANT: &str = "72f988bf-86f1-41af-91ab-2d7cd011db47";
        let of = |tenant: &str| format!("https://login.microsoftonline.com/{tenant}/v2.0");
        let good = json!({"iss": of(TENANT), "tid": TENANT, "aud": "us", "oid": "1", "exp": NOW + 60});
        for asked in ["common", "organizations", "consumers", TENANT, "contoso.example"] {
            let endpoints = presets::MICROSOFT.endpoints(None, asked).expect("endpoints");
            let issuer = issuer(&presets::MICROSOFT, &endpoints);
            let read = |claims: &Value| read(issuer.as_deref(), claims);
            assert!(read(&good).is_some(), "{asked}");
            for (name, value) in [
                ("iss", json!(of("another-tenant"))),
                ("iss", json!(of("common"))),
                ("iss", json!(format!("https://login.example.com/{TENANT}/v2.0"))),
                ("iss", json!(format!("{}/", of(TENANT)))),
                ("tid", json!("another-tenant")),
                ("tid", json!("")),
                ("tid", json!(null)),
            ] {
                let other = with(good.clone(), name, value);
                assert_eq!(read(&other), None, "{asked}: {other}");
            }
            let path = "x/../y";
            let other = with(with(good.clone(), "iss", json!(of(path))), "tid", json!(path));
            assert_eq!(read(&other), None, "{asked}: {other}");
        }
        // A national cloud has another host.
        let there = Url::parse("https://login.microsoftonline.us/common/oauth2/v2.0/token").expect("a URL");
        let endpoints = ServerEndpoints::new(there);
        let issuer = issuer(&presets::MICROSOFT, &endpoints);
        assert_eq!(read(issuer.as_deref(), &good), None);
        let theirs = with(good, "iss", json!(format!("https://login.microsoftonline.us/{TENANT}/v2.0")));
        assert!(read(issuer.as_deref(), &theirs).is_some());
    }
}
