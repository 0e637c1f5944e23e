//! Whose grant it is: what the token reply, its ID token (OpenID Connect Core section 2) or the
//! server's user endpoint says.
//!
//! An ID token comes from the token endpoint over TLS, in answer to our own request, so its
//! signature needn't be checked (section 3.1.3.7, item 6); issuer and audience are.

use super::ServerEndpoints;
use super::presets::{AccountSource, Preset};
use crate::domain::{Account, ClientId, TokenReply};
use crate::http::{HttpClient, Request};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
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

/// Finds out whose a grant is. `None`: the server doesn't say.
pub async fn owner_of(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    client: &ClientId,
    reply: &TokenReply,
) -> Option<Owner> {
    let claims =
        reply.id_token.as_ref().and_then(|t| claims(t.expose_secret(), client, endpoints.issuer.as_deref()));
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
    serde_json::from_slice(&answer.body).ok().filter(|_| answer.is_success())
}

fn text<'v>(of: &'v Value, name: &str) -> Option<&'v str> {
    of.get(name).and_then(Value::as_str)
}

fn owner(issuer: &str, subject: &str, said: &Value) -> Option<Owner> {
    let label = ["preferred_username", "email", "login", "name"].into_iter().find_map(|n| text(said, n));
    let fits = |l: &&str| !l.is_empty() && l.len() <= 255 && !l.chars().any(char::is_control);
    Some(Owner { account: Account::new(issuer, subject)?, label: label.filter(fits).map(str::to_owned) })
}

/// The claims of an ID token; `None` for one that isn't for us or can't be read.
fn claims(token: &str, client: &ClientId, issuer: Option<&str>) -> Option<Value> {
    let body = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: Value = serde_json::from_slice(&body).ok()?;
    let said = text(&claims, "iss")?;
    // Entra's issuer has the tenant in it, where the one that was asked may be for all tenants.
    if issuer.is_some_and(|i| i != said && !i.contains("{tenantid}")) {
        return None;
    }
    let ours = match claims.get("aud")? {
        Value::String(one) => one == client.as_str(),
        Value::Array(all) => all.iter().any(|a| a.as_str() == Some(client.as_str())),
        _ => false,
    };
    ours.then_some(claims)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_token_is_read_if_it_is_for_us() {
        let us = ClientId::parse("us").expect("an ID");
        let read =
            |text: &str| claims(&format!("e30.{}.", URL_SAFE_NO_PAD.encode(text)), &us, Some("https://a"));
        let found = read(r#"{"iss":"https://a","aud":"us","sub":"1","email":"a@b"}"#).expect("claims");
        let found = owner("https://a", text(&found, "sub").expect("sub"), &found).expect("an owner");
        assert_eq!((found.account.issuer(), found.account.subject()), ("https://a", "1"));
        assert_eq!(found.label.as_deref(), Some("a@b"));
        assert!(read(r#"{"iss":"https://a","aud":["x","us"],"sub":"1"}"#).is_some());
        for other in [
            r#"{"iss":"https://b","aud":"us","sub":"1"}"#,
            r#"{"iss":"https://a","aud":"them","sub":"1"}"#,
            r#"{"iss":"https://a","sub":"1"}"#,
            "no JSON",
        ] {
            assert_eq!(read(other), None, "{other}");
        }
        assert_eq!(claims("", &us, None), None);
    }
}
