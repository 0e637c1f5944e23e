//! The device grant: its authorization request (RFC 8628 sections 3.1 and 3.2), and one question after what
//! came of it (sections 3.4 and 3.5).

use super::error::{Asked, classify};
use super::reply::{Malformed, shortened};
use super::token::{self, has_token};
use super::{ClientAuth, ClientCredentials, Dialect, TokenError};
use crate::domain::text::{check, is_vschar};
use crate::domain::token::MAX_TOKEN;
use crate::domain::{ScopeSet, TokenReply};
use crate::http::{Heard, HttpClient, NotSent, Request, Response, SendError};
use jiff::Timestamp;
use secrecy::{ExposeSecret as _, SecretString};
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
    let mut pairs = Vec::new();
    if !scope.is_empty() {
        pairs.push(("scope", scope.as_str()));
    }
    // Section 3.1 asks for the identifier where the client doesn't authenticate; django-oauth-toolkit asks for it
    // always, and it may stand beside a header.
    if matches!(client.auth, ClientAuth::Basic(_)) {
        pairs.push(("client_id", client.id.as_str()));
    }
    let request = client.form(Request::post(endpoint.clone()), &pairs)?;
    let response = http.send(request).await?;
    if !response.is_success() || super::error::error_code(&response.body).is_some() {
        return Err(classify(&response, Asked::Otherwise, dialect).by_assertion(client.signs()));
    }
    let reply = response.json().ok_or(TokenError::Malformed(Malformed::NotJson))?;
    read(&reply).ok_or(TokenError::Malformed(Malformed::NoDeviceCode))
}

/// What one question for a device code came to.
#[derive(Debug)]
pub enum Polled {
    /// The person agreed.
    Given(Box<TokenReply>),
    /// The person hasn't answered yet.
    Pending,
    /// The server is to be asked less often from now on.
    SlowDown,
    /// There was no answer of the token endpoint: nothing came, or a gateway's trouble without an error code.
    NoAnswer(TokenError),
    /// The server says no, or that it has trouble of its own, by an error code; the code if it is a known one.
    Declined(Option<&'static str>),
    /// Something is wrong with the request, the client or the answer.
    Failed(TokenError),
}

/// Asks once whether the person agreed (RFC 8628 section 3.4). Of the error codes two mean that it may be
/// asked again (section 3.5); every other one ends it.
pub async fn poll_device_code(
    http: &HttpClient,
    endpoint: &Url,
    client: &ClientCredentials,
    code: &SecretString,
    dialect: Dialect,
) -> Polled {
    let pairs = [("grant_type", GRANT_TYPE), ("device_code", code.expose_secret())];
    let request = match client.form(Request::post(endpoint.clone()), &pairs) {
        Ok(request) => request,
        Err(e) => return Polled::Failed(e.into()),
    };
    let mut heard = Heard::default();
    match http.send_heard(request, &mut heard).await {
        Ok(answer) => match read_poll(&answer, dialect) {
            Polled::Given(mut reply) => {
                reply.lifetime = shortened(&reply, heard.date, Timestamp::now());
                Polled::Given(reply)
            }
            Polled::Failed(e) => Polled::Failed(e.by_assertion(client.signs())),
            polled => polled,
        },
        Err(e @ (SendError::NotSent(NotSent::Unbuildable) | SendError::Refused(_) | SendError::TooLarge)) => {
            Polled::Failed(e.into())
        }
        Err(e) => Polled::NoAnswer(e.into()),
    }
}

/// `grant_type` of RFC 8628 section 3.4.
const GRANT_TYPE: &str = "urn:ietf:params:oauth:grant-type:device_code";

fn read_poll(answer: &Response, dialect: Dialect) -> Polled {
    let code = super::error::error_code(&answer.body).filter(|_| !has_token(answer, dialect));
    match code {
        Some(Some("authorization_pending")) => Polled::Pending,
        Some(Some("slow_down")) => Polled::SlowDown,
        Some(Some(
            code @ ("access_denied" | "expired_token" | "server_error" | "temporarily_unavailable"),
        )) => Polled::Declined(Some(code)),
        Some(code) if answer.status >= 500 => Polled::Declined(code),
        Some(_) => Polled::Failed(classify(answer, Asked::Otherwise, dialect)),
        None if answer.status == 429 => Polled::SlowDown,
        None if matches!(answer.status, 408 | 425 | 500..) => {
            Polled::NoAnswer(classify(answer, Asked::Otherwise, dialect))
        }
        None => match token::read(answer, Asked::Otherwise, dialect) {
            Ok(reply) => Polled::Given(Box::new(reply)),
            Err(e) => Polled::Failed(e),
        },
    }
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
    use crate::domain::{AuthMethod, ClientId};
    use crate::http::testing::{Act, Server, closed_port, local};
    use serde_json::json;

    async fn poll(endpoint: &Url) -> String {
        let client = ClientCredentials::by_secret(
            ClientId::parse("us").expect("an ID"),
            AuthMethod::ClientSecretPost,
            "s".to_owned().into(),
        );
        let code = "the-code".to_owned().into();
        match poll_device_code(&local(), endpoint, &client, &code, Dialect::STANDARD).await {
            Polled::Given(_) => "given".into(),
            Polled::Pending => "pending".into(),
            Polled::SlowDown => "slower".into(),
            Polled::NoAnswer(e) => format!("again {}", e.reason()),
            Polled::Declined(code) => format!("declined {}", code.unwrap_or("-")),
            Polled::Failed(e) => format!("failed {}", e.reason()),
        }
    }

    #[tokio::test]
    async fn a_request_names_the_client_once_however_it_authenticates() {
        const GOOD: &str =
            r#"{"device_code": "d", "user_code": "AB-CD", "verification_uri": "https://a/device"}"#;
        for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None] {
            let server = Server::start(|_| Act::json("200 OK", GOOD)).await;
            let id = ClientId::parse("us").expect("an ID");
            let client = ClientCredentials::by_secret(id, method, "s".to_owned().into());
            let scopes = ScopeSet::parse("a b").expect("scopes");
            request_device_code(&local(), &server.url("/device"), &client, &scopes, Dialect::STANDARD)
                .await
                .expect("an answer");
            let sent = server.requests().remove(0);
            assert_eq!(sent.matches("client_id=us").count(), 1, "{method}: {sent}");
            assert!(sent.contains("scope=a+b"), "{sent}");
        }
    }

    #[tokio::test]
    async fn a_token_that_ends_by_its_own_word_ends_then() {
        use base64::Engine as _;
        let end = Timestamp::now().as_second() + 90;
        let claims =
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(json!({ "exp": end }).to_string());
        let body = json!({"access_token": format!("e30.{claims}.c2ln"), "token_type": "Bearer"}).to_string();
        let server = Server::start(move |_| Act::json("200 OK", &body)).await;
        let id = ClientId::parse("us").expect("an ID");
        let client = ClientCredentials::by_secret(id, AuthMethod::None, String::new().into());
        let code = "the-code".to_owned().into();
        let polled =
            poll_device_code(&local(), &server.url("/token"), &client, &code, Dialect::STANDARD).await;
        let Polled::Given(reply) = polled else { panic!("{polled:?}") };
        assert!(reply.lifetime.is_some_and(|l| l.as_secs() <= 90), "{:?}", reply.lifetime);
    }

    /// RFC 8628 section 3.5: two codes mean that it is asked again, and so does no answer at all.
    #[tokio::test]
    async fn every_error_code_but_two_ends_it() {
        let code = |code: &str| json!({ "error": code }).to_string();
        let token = json!({"access_token": "a", "token_type": "Bearer"}).to_string();
        for (status, body, wanted) in [
            (200, token.clone(), "given"),
            (400, code("authorization_pending"), "pending"),
            // GitHub says it with 200, Google with 428.
            (200, code("authorization_pending"), "pending"),
            (428, code("authorization_pending"), "pending"),
            (400, code("slow_down"), "slower"),
            (403, code("slow_down"), "slower"),
            (429, code("slow_down"), "slower"),
            (429, String::new(), "slower"),
            (400, code("access_denied"), "declined access_denied"),
            (400, code("expired_token"), "declined expired_token"),
            (400, code("server_error"), "declined server_error"),
            (500, code("server_error"), "declined server_error"),
            (503, code("temporarily_unavailable"), "declined temporarily_unavailable"),
            (500, code("made_up"), "declined -"),
            (400, code("made_up"), "failed RequestRejected"),
            (400, code("invalid_grant"), "failed RequestRejected"),
            (401, code("invalid_client"), "failed InvalidClient"),
            (400, code("unauthorized_client"), "failed UnauthorizedClient"),
            (400, code("unsupported_grant_type"), "failed UnsupportedGrantType"),
            (400, "{}".into(), "failed RequestRejected"),
            (404, String::new(), "failed RequestRejected"),
            (302, String::new(), "failed Redirected"),
            (200, "no JSON".into(), "failed MalformedReply"),
            (200, "{}".into(), "failed MalformedReply"),
            // What stands between us and the server.
            (500, String::new(), "again ServerError"),
            (502, "<html>".into(), "again ServerError"),
            (504, String::new(), "again ServerError"),
            (408, String::new(), "again ServerError"),
        ] {
            let answer = body.clone();
            let server = Server::start(move |_| Act::json(&format!("{status} X"), &answer)).await;
            assert_eq!(poll(&server.url("/token")).await, wanted, "{status} {body}");
            let sent = server.requests().remove(0);
            assert!(sent.contains("device_code=the-code") && sent.contains("client_secret=s"), "{sent}");
        }
        let cut = Server::start(|_| Act::Reset).await;
        assert_eq!(poll(&cut.url("/token")).await, "again NoAnswer");
        let nobody = Url::parse(&format!("http://127.0.0.1:{}/token", closed_port().await)).expect("a URL");
        assert_eq!(poll(&nobody).await, "again Unreachable");
    }

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
