//! The device authorization request (RFC 8628 section 3.1 and 3.2).

use super::error::{Asked, classify};
use super::reply::Malformed;
use super::{ClientCredentials, Dialect, TokenError};
use crate::domain::ScopeSet;
use crate::domain::text::{check, is_vschar};
use crate::domain::token::MAX_TOKEN;
use crate::http::{HttpClient, Request};
use secrecy::SecretString;
use serde_json::Value;
use std::fmt;
use std::time::Duration;
use url::Url;

/// What the server answers: a code for us, and one for the person.
#[derive(Clone)]
pub struct DeviceAuthorization {
    /// The code that we ask with.
    pub device_code: SecretString,
    /// The code that the person enters.
    pub user_code: SecretString,
    /// Where it is entered.
    pub verification_uri: Url,
    /// The same with the code in it.
    pub verification_uri_complete: Option<Url>,
    /// How long both codes are good.
    pub expires_in: Duration,
    /// How long to wait between two questions.
    pub interval: Duration,
}

impl fmt::Debug for DeviceAuthorization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("DeviceAuthorization")
            .field("verification_uri", &self.verification_uri.as_str())
            .field("expires_in", &self.expires_in)
            .field("interval", &self.interval)
            .finish_non_exhaustive()
    }
}

/// The pause where the server names none.
const INTERVAL: Duration = Duration::from_secs(5);

/// Asks for the two codes.
///
/// # Errors
/// [`TokenError`], as of a token request.
pub async fn request_device_code(
    http: &HttpClient,
    endpoint: &Url,
    client: &ClientCredentials,
    scopes: &ScopeSet,
    dialect: Dialect,
) -> Result<DeviceAuthorization, TokenError> {
    let scope = scopes.to_string();
    let pairs: &[(&str, &str)] = if scope.is_empty() { &[] } else { &[("scope", &scope)] };
    let request = client.form(Request::post(endpoint.clone()), pairs)?;
    let response = http.send(request).await?;
    if !response.is_success() || super::error::error_code(&response.body).is_some() {
        return Err(classify(&response, Asked::Otherwise, dialect));
    }
    let reply = response.json().ok_or(TokenError::Malformed(Malformed::NotJson))?;
    read(&reply).ok_or(TokenError::Malformed(Malformed::NoDeviceCode))
}

/// Reads the answer; what goes to a person's screen has nothing in it but visible characters.
fn read(reply: &Value) -> Option<DeviceAuthorization> {
    let text = |name: &str, most: usize| {
        let text = reply.get(name)?.as_str()?;
        check(text, most, is_vschar).ok().map(|()| text.to_owned())
    };
    let address = |name: &str| {
        let url = Url::parse(&text(name, 2048)?).ok()?;
        matches!(url.scheme(), "https" | "http").then_some(url)
    };
    let secs = |name: &str| reply.get(name).and_then(Value::as_u64).map(Duration::from_secs);
    Some(DeviceAuthorization {
        device_code: text("device_code", MAX_TOKEN)?.into(),
        user_code: text("user_code", 64)?.into(),
        // Google's older name for it.
        verification_uri: address("verification_uri").or_else(|| address("verification_url"))?,
        verification_uri_complete: address("verification_uri_complete"),
        expires_in: secs("expires_in").unwrap_or(Duration::from_secs(600)),
        interval: secs("interval").unwrap_or(INTERVAL).clamp(Duration::from_secs(1), Duration::from_secs(60)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_what_may_stand_on_a_screen_is_taken() {
        let good = json!({"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://a/device"});
        let read_ok = read(&good).expect("an answer");
        assert_eq!(read_ok.interval, INTERVAL);
        assert!(!format!("{read_ok:?}").contains("AB-CD"));
        for (name, value) in [
            ("user_code", json!("A\u{1b}[2J")),
            ("verification_uri", json!("javascript:alert(1)")),
            ("verification_uri", json!(null)),
            ("device_code", json!("")),
        ] {
            let mut bad = good.clone();
            bad[name] = value;
            assert!(read(&bad).is_none(), "{bad}");
        }
    }
}
