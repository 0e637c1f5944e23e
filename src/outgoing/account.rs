//! Whose grant it is: what the token reply, its ID token ([`super::id_token`]) or the server's user endpoint
//! says.

use super::id_token::{IdTokenFault, read_id_token, text};
use super::presets::{AccountSource, Preset};
use super::{ClientCredentials, ServerEndpoints};
use crate::domain::{Account, TokenReply};
use crate::http::{HttpClient, Request};
use secrecy::SecretString;
use serde_json::Value;

/// Whose grant it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// The account.
    pub account: Account,
    /// What people call it; for the eyes of the person that connects alone.
    pub label: Option<String>,
}

/// Finds out whose a grant is. `None`: the server doesn't say. `nonce`: what the authorization request had of it.
///
/// # Errors
/// [`IdTokenFault`] where the ID token isn't what it must be: then nothing of the reply can be relied on.
pub async fn owner_of(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    client: &ClientCredentials,
    reply: &TokenReply,
    nonce: Option<&str>,
) -> Result<Option<Owner>, IdTokenFault> {
    let said = match (&preset.account, &reply.id_token) {
        (AccountSource::OpenId | AccountSource::Microsoft, Some(token)) => {
            read_id_token(http, preset, endpoints, client, token, nonce).await?
        }
        _ => None,
    };
    if let (AccountSource::OpenId, Some(claims)) = (&preset.account, &said) {
        let named = text(claims, "iss").zip(text(claims, "sub"));
        let owner = named.and_then(|(issuer, subject)| owner(issuer, subject, claims));
        return owner.map(Some).ok_or(IdTokenFault::Subject);
    }
    Ok(owner_said(http, preset, endpoints, reply, said).await)
}

/// The owner that Entra's claims name, or the server itself.
async fn owner_said(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    reply: &TokenReply,
    claims: Option<Value>,
) -> Option<Owner> {
    let token = &reply.access_token;
    match preset.account {
        AccountSource::OpenId => {
            let said = ask(http, preset, endpoints, token).await?;
            owner(&keeper(endpoints)?, text(&said, "sub")?, &said)
        }
        AccountSource::Microsoft => {
            let claims = claims?;
            owner(text(&claims, "tid")?, text(&claims, "oid")?, &claims)
        }
        AccountSource::GithubUser => {
            let said = ask(http, preset, endpoints, token).await?;
            owner(&keeper(endpoints)?, &said.get("id")?.as_u64()?.to_string(), &said)
        }
        AccountSource::AtlassianMe => {
            let said = ask(http, preset, endpoints, token).await?;
            owner(&keeper(endpoints)?, text(&said, "account_id")?, &said)
        }
        AccountSource::SlackReply => reply.account.clone().map(|account| Owner { account, label: None }),
    }
}

/// Who keeps the accounts of a server that doesn't say it beside each of them.
fn keeper(endpoints: &ServerEndpoints) -> Option<String> {
    endpoints.issuer.clone().or_else(|| endpoints.token_endpoint.host_str().map(str::to_owned))
}

async fn ask(
    http: &HttpClient,
    preset: &Preset,
    endpoints: &ServerEndpoints,
    token: &SecretString,
) -> Option<Value> {
    // Nobody has completed the consent yet: the token goes nowhere that a link's author could have named.
    let at = endpoints.user_endpoint.clone().filter(|at| preset.is_home(&endpoints.token_endpoint, at))?;
    let request = Request::get(at).accept_json().bearer(token).ok()?;
    let answer = http.send(request).await.ok()?;
    answer.json().filter(|_| answer.is_success())
}

fn owner(issuer: &str, subject: &str, said: &Value) -> Option<Owner> {
    let label = ["preferred_username", "email", "login", "name"].into_iter().find_map(|n| text(said, n));
    let fits = |l: &&str| !l.is_empty() && l.len() <= 255 && !l.chars().any(char::is_control);
    Some(Owner { account: Account::new(issuer, subject)?, label: label.filter(fits).map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_label_is_what_people_read() {
        let said = json!({"email": "a@b", "name": "A"});
        let found = owner("https://a", "1", &said).expect("an owner");
        assert_eq!((found.account.issuer(), found.account.subject()), ("https://a", "1"));
        assert_eq!(found.label.as_deref(), Some("a@b"));
        let odd = json!({"email": "a\nb"});
        assert_eq!(owner("https://a", "1", &odd).expect("an owner").label, None);
    }
}
