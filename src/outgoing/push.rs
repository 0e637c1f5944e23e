//! Pushed authorization requests (RFC 9126): the request goes from us to the server, and the person takes no more
//! than a reference to it along. So the server knows who asks before anybody signs in.

use super::error::{Asked, classify, error_code};
use super::reply::Malformed;
use super::{ClientAuth, ClientCredentials, Dialect, TokenError};
use crate::domain::text::{check, is_vschar};
use crate::http::{HttpClient, Request};
use serde_json::Value;
use url::Url;

/// The longest reference that is taken, in bytes.
const MAX_REFERENCE: usize = 2048;

/// Pushes an authorization request, and gives back the reference to it (`request_uri`).
///
/// # Errors
/// [`TokenError`], as of a token request: the client authenticates as it does there (RFC 9126 section 2).
pub async fn push_request(
    http: &HttpClient,
    endpoint: &Url,
    client: &ClientCredentials,
    parameters: &[(String, String)],
    dialect: Dialect,
) -> Result<String, TokenError> {
    // The client's authentication brings the identifier along, unless it stands in a header or in an assertion.
    let alone = matches!(client.auth, ClientAuth::Basic(_) | ClientAuth::Assertion { names_us: true, .. });
    let pairs: Vec<(&str, &str)> = parameters
        .iter()
        .filter(|(name, _)| alone || name != "client_id")
        .map(|(name, value)| (name.as_str(), value.as_str()))
        .collect();
    let answer = http.send(client.form(Request::post(endpoint.clone()), &pairs)?).await?;
    if !answer.is_success() || error_code(&answer.body).is_some() {
        return Err(classify(&answer, Asked::Otherwise, dialect).by_assertion(client.signs()));
    }
    let reply = answer.json().ok_or(TokenError::Malformed(Malformed::NotJson))?;
    let reference = reply.get("request_uri").and_then(Value::as_str);
    let reference = reference.filter(|text| check(text, MAX_REFERENCE, is_vschar).is_ok());
    reference.map(str::to_owned).ok_or(TokenError::Malformed(Malformed::NoRequestUri))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{AuthMethod, ClientId};
    use crate::http::testing::{Act, Server, local};

    type Says = fn(&str) -> Act;

    async fn push(method: AuthMethod, act: Says) -> (Result<String, TokenError>, String) {
        let server = Server::start(act).await;
        let id = ClientId::parse("us").expect("an ID");
        let client = ClientCredentials::by_secret(id, method, "s".to_owned().into());
        let parameters =
            [("client_id", "us"), ("scope", "a b")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let pushed =
            push_request(&local(), &server.url("/par"), &client, &parameters, Dialect::STANDARD).await;
        let sent = server.requests().remove(0);
        (pushed, sent.split_once("\r\n\r\n").expect("a body").1.to_owned())
    }

    #[tokio::test]
    async fn a_request_is_pushed_with_the_client_s_authentication() {
        let good: Says = |_| {
            Act::json(
                "201 Created",
                r#"{"request_uri":"urn:ietf:params:oauth:request_uri:x","expires_in":60}"#,
            )
        };
        for (method, wanted) in [
            (AuthMethod::ClientSecretBasic, "client_id=us&scope=a+b"),
            (AuthMethod::ClientSecretPost, "scope=a+b&client_id=us&client_secret=s"),
            (AuthMethod::None, "scope=a+b&client_id=us"),
        ] {
            let (pushed, sent) = push(method, good).await;
            assert_eq!(pushed.as_deref(), Ok("urn:ietf:params:oauth:request_uri:x"));
            assert_eq!(sent, wanted, "{method}");
        }
        let cases: [(Says, &str); 5] = [
            (|_| Act::json("401 X", r#"{"error":"invalid_client"}"#), "InvalidClient"),
            (|_| Act::json("400 X", r#"{"error":"invalid_request"}"#), "RequestRejected"),
            (|_| Act::json("201 Created", r#"{"expires_in":60}"#), "MalformedReply"),
            (|_| Act::json("201 Created", r#"{"request_uri":"a\nb"}"#), "MalformedReply"),
            (|_| Act::json("503 X", ""), "ServerError"),
        ];
        for (act, reason) in cases {
            let (pushed, _) = push(AuthMethod::ClientSecretBasic, act).await;
            assert_eq!(pushed.expect_err("refused").reason(), reason);
        }
    }
}
