//! Presets against the shapes that the servers' public documentation records.

use super::presets::{ALL, ATLASSIAN, CUSTOM, Dialect, GITHUB, GITLAB, GOOGLE, MICROSOFT, Preset, SLACK};
use super::*;
use crate::domain::{AuthMethod, ClientId, ScopeSet, TokenReply};
use crate::http::testing::{Act, Server, local};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::json;
use url::Url;

fn secret(text: &str) -> SecretString {
    text.to_owned().into()
}

fn client() -> ClientCredentials {
    ClientCredentials::by_secret(
        ClientId::parse("us").expect("an ID"),
        AuthMethod::ClientSecretPost,
        secret("canary-secret"),
    )
}

async fn ask(
    preset: &Preset,
    grant: Grant,
    status: &'static str,
    body: &'static str,
) -> Result<TokenReply, TokenError> {
    let server = Server::start(move |_| Act::json(status, body)).await;
    let request = TokenRequest {
        endpoint: server.url("/token"),
        client: Some(client()),
        grant,
        scopes: ScopeSet::default(),
        dialect: preset.dialect,
    };
    request_token(&local(), &request).await
}

async fn refresh(
    preset: &Preset,
    status: &'static str,
    body: &'static str,
) -> Result<TokenReply, TokenError> {
    ask(preset, Grant::RefreshToken(secret("canary-refresh")), status, body).await
}

#[tokio::test]
async fn each_server_s_errors_mean_what_they_mean_there() {
    use ErrorClass::{BackOff, BadClient, DeadGrant, NeedsEdit};
    let cases: [(&Preset, &'static str, &'static str, ErrorClass); 22] = [
        (
            &GOOGLE,
            "400 X",
            r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
            DeadGrant,
        ),
        (&GOOGLE, "401 X", r#"{"error":"invalid_client","error_description":"Unauthorized"}"#, BadClient),
        (
            &GOOGLE,
            "401 X",
            r#"{"error":"deleted_client","error_description":"The OAuth client was deleted."}"#,
            BadClient,
        ),
        (&GOOGLE, "500 X", r#"{"error":"internal_failure"}"#, BackOff),
        (
            &MICROSOFT,
            "400 X",
            r#"{"error":"invalid_grant","error_codes":[700082],"suberror":"x"}"#,
            DeadGrant,
        ),
        (&MICROSOFT, "400 X", r#"{"error":"interaction_required","error_codes":[50076]}"#, DeadGrant),
        (&MICROSOFT, "401 X", r#"{"error":"invalid_client","error_codes":[7000215]}"#, BadClient),
        (&MICROSOFT, "400 X", r#"{"error":"temporarily_unavailable"}"#, BackOff),
        (
            &GITHUB,
            "200 OK",
            r#"{"error":"bad_refresh_token","error_description":"x","error_uri":"y"}"#,
            DeadGrant,
        ),
        (&GITHUB, "200 OK", r#"{"error":"incorrect_client_credentials","error_description":"x"}"#, BadClient),
        (&GITHUB, "200 OK", r#"{"error":"application_suspended","error_description":"x"}"#, BadClient),
        (&GITHUB, "200 OK", r#"{"error":"unsupported_grant_type","error_description":"x"}"#, NeedsEdit),
        (&GITLAB, "400 X", r#"{"error":"invalid_grant","error_description":"x"}"#, DeadGrant),
        (&GITLAB, "401 X", r#"{"error":"invalid_client","error_description":"x"}"#, BadClient),
        (&SLACK, "200 OK", r#"{"ok":false,"error":"invalid_refresh_token"}"#, DeadGrant),
        (&SLACK, "200 OK", r#"{"ok":false,"error":"token_revoked"}"#, DeadGrant),
        (&SLACK, "200 OK", r#"{"ok":false,"error":"bad_client_secret"}"#, BadClient),
        (&SLACK, "200 OK", r#"{"ok":false,"error":"internal_error"}"#, BackOff),
        (&SLACK, "200 OK", r#"{"ok":false,"error":"not_known_to_us"}"#, NeedsEdit),
        (&SLACK, "200 OK", r#"{"ok":false}"#, NeedsEdit),
        (
            &ATLASSIAN,
            "403 X",
            r#"{"error":"invalid_grant","error_description":"Unknown or invalid refresh token."}"#,
            DeadGrant,
        ),
        (&ATLASSIAN, "401 X", r#"{"error":"access_denied","error_description":"Unauthorized"}"#, BadClient),
    ];
    for (preset, status, body, class) in cases {
        let error = refresh(preset, status, body).await.expect_err(body);
        assert_eq!(error.class(), class, "{} {body}: {error}", preset.name);
        let text = format!("{error} {error:?}");
        assert!(!text.contains("canary") && !text.contains("not_known"), "{text}");
    }
    // A code with its own meaning where a refresh token was sent says nothing of a grant elsewhere.
    let error =
        ask(&SLACK, Grant::ClientCredentials, "200 OK", r#"{"ok":false,"error":"token_revoked"}"#).await;
    assert_eq!(error.expect_err("an error").class(), NeedsEdit);
}

#[tokio::test]
async fn each_server_s_replies_are_read() {
    let bot = r#"{"ok":true,"access_token":"xoxe.xoxb-1","expires_in":43200,"refresh_token":"xoxe-1","token_type":"bot",
        "scope":"commands,incoming-webhook","team":{"id":"T9","name":"x"},"authed_user":{"id":"U1"}}"#;
    let user = r#"{"ok":true,"team":{"id":"T9"},"authed_user":{"id":"U1","scope":"chat:write,users:read",
        "access_token":"xoxe.xoxp-1","expires_in":43200,"refresh_token":"xoxe-2","token_type":"user"}}"#;
    for (body, token, refresh_token, scopes) in [
        (bot, "xoxe.xoxb-1", "xoxe-1", "commands incoming-webhook"),
        (user, "xoxe.xoxp-1", "xoxe-2", "chat:write users:read"),
    ] {
        let reply = refresh(&SLACK, "200 OK", body).await.expect(body);
        assert_eq!(reply.access_token.expose_secret(), token);
        assert_eq!(reply.refresh_token.expect("a refresh token").expose_secret(), refresh_token);
        assert_eq!(reply.scopes.expect("scopes").to_string(), scopes);
        let account = reply.account.expect("an account");
        assert_eq!((account.issuer(), account.subject()), ("T9", "U1"));
    }
    // Elsewhere, a token in a member isn't one.
    assert!(refresh(&CUSTOM, "200 OK", user).await.is_err());
    let github = r#"{"access_token":"ghu_1","expires_in":28800,"refresh_token":"ghr_1",
        "refresh_token_expires_in":15897600,"scope":"","token_type":"bearer"}"#;
    let reply = refresh(&GITHUB, "200 OK", github).await.expect("a reply");
    assert_eq!(reply.lifetime.map(crate::domain::Lifetime::as_secs), Some(28800));
}

#[test]
fn endpoints_follow_tenant_and_address() {
    let url = |text: &str| Url::parse(text).expect("a URL");
    let token = |preset: &Preset, base: Option<&str>, tenant: &str| {
        preset.endpoints(base.map(url).as_ref(), tenant).map(|e| e.token_endpoint.to_string())
    };
    for (preset, base, tenant, expected) in [
        (&GOOGLE, None, "", Some("https://oauth2.googleapis.com/token")),
        (&MICROSOFT, None, "common", Some("https://login.microsoftonline.com/common/oauth2/v2.0/token")),
        (&GITHUB, None, "", Some("https://github.com/login/oauth/access_token")),
        (
            &GITHUB,
            Some("https://git.example.com/"),
            "",
            Some("https://git.example.com/login/oauth/access_token"),
        ),
        (&GITLAB, None, "", Some("https://gitlab.com/oauth/token")),
        (&GITLAB, Some("https://x.example/gitlab/"), "", Some("https://x.example/gitlab/oauth/token")),
        (&SLACK, None, "", Some("https://slack.com/api/oauth.v2.access")),
        (&ATLASSIAN, None, "", Some("https://auth.atlassian.com/oauth/token")),
        (&SLACK, Some("https://x.example"), "", None),
        (&CUSTOM, None, "", None),
    ] {
        assert_eq!(token(preset, base, tenant).as_deref(), expected, "{} {base:?}", preset.name);
    }
    let user =
        |base: Option<&str>| GITHUB.endpoints(base.map(url).as_ref(), "").and_then(|e| e.user_endpoint);
    assert_eq!(user(None), Some(url("https://api.github.com/user")));
    assert_eq!(user(Some("https://github.com")), user(None));
    assert_eq!(user(Some("https://git.example.com")), Some(url("https://git.example.com/api/v3/user")));
    for preset in ALL {
        assert_eq!(Preset::named(preset.name), Some(preset));
        let https = preset.endpoints(None, "t").is_none_or(|e| e.token_endpoint.scheme() == "https");
        assert!(https, "{}", preset.name);
    }
    assert_eq!(Dialect::default(), CUSTOM.dialect);
}

#[test]
fn redirect_uris_as_each_server_takes_them() {
    use RedirectFault as F;
    let long = format!("https://app.example.com/{}", "x".repeat(256));
    let cases: &[(RedirectRule, &str, Result<(), F>)] = &[
        (RedirectRule::Https, "https://app.internal/cb", Ok(())),
        (RedirectRule::Https, "https://10.0.0.1/cb", Ok(())),
        (RedirectRule::Https, "http://localhost:8080/cb", Ok(())),
        (RedirectRule::Https, "http://127.0.0.1/cb", Ok(())),
        (RedirectRule::Https, "http://[::1]:8/cb", Ok(())),
        (RedirectRule::Https, "http://app.example.com/cb", Err(F::NotHttps)),
        (RedirectRule::Https, "http://localhost.example.com/cb", Err(F::NotHttps)),
        (RedirectRule::Https, "ftp://app.example.com/cb", Err(F::NotHttps)),
        (RedirectRule::Https, "/cb", Err(F::NotUrl)),
        (RedirectRule::Https, "https://app.example.com/cb#", Err(F::Fragment)),
        (RedirectRule::Https, "https://me@app.example.com/cb", Err(F::UserInfo)),
        (RedirectRule::Https, "https://@app.example.com/cb", Err(F::UserInfo)),
        (RedirectRule::Google, "https://app.example.com/cb", Ok(())),
        (RedirectRule::Google, "https://app.example.co.uk/cb?x=1", Ok(())),
        (RedirectRule::Google, "http://localhost/cb", Ok(())),
        (RedirectRule::Google, "http://127.0.0.1:8080/cb", Ok(())),
        (RedirectRule::Google, "https://app.internal/cb", Err(F::NotPublic)),
        (RedirectRule::Google, "https://app.cluster.local/cb", Err(F::NotPublic)),
        (RedirectRule::Google, "https://intranet/cb", Err(F::NotPublic)),
        (RedirectRule::Google, "https://co.uk/cb", Err(F::NotPublic)),
        (RedirectRule::Google, "https://93.184.215.14/cb", Err(F::RawAddress)),
        (RedirectRule::Google, "https://10.0.0.1/cb", Err(F::RawAddress)),
        (RedirectRule::Google, "https://[2001:db8::1]/cb", Err(F::RawAddress)),
        (RedirectRule::Google, "https://app.example.com/*", Err(F::Wildcard)),
        (RedirectRule::Google, "https://app.example.com/a/../cb", Err(F::Traversal)),
        (RedirectRule::Google, "https://app.example.com/a/%2E%2e/cb", Err(F::Traversal)),
        (RedirectRule::Google, "https://app.example.com/a\\..\\cb", Err(F::Traversal)),
        (RedirectRule::Microsoft, "https://app.internal/cb", Ok(())),
        (RedirectRule::Microsoft, "http://localhost/cb", Ok(())),
        (RedirectRule::Microsoft, "http://app.example.com/cb", Err(F::NotHttps)),
        (RedirectRule::Microsoft, "https://app.example.com/cb(1)", Err(F::Character)),
        (RedirectRule::Microsoft, "https://app.example.com/a;b", Err(F::Character)),
        (RedirectRule::Microsoft, &long, Err(F::TooLong)),
    ];
    for (rule, uri, expected) in cases {
        assert_eq!(rule.check(uri), *expected, "{rule:?} {uri}");
    }
}

#[tokio::test]
async fn each_server_s_way_to_give_a_grant_back() {
    let (refresh, access) = (secret("canary-refresh"), secret("canary-access"));
    let tokens = Tokens { refresh: Some(&refresh), access: Some(&access) };
    let give = async |preset: &Preset, act: fn(&str) -> Act, path: &str| {
        let server = Server::start(act).await;
        let back = give_back(&local(), preset.revocation, &server.url(path), &client(), &tokens).await;
        (back.expect("an answer"), server.requests().concat())
    };
    let (back, sent) = give(&GOOGLE, |_| Act::json("200 OK", "{}"), "/revoke").await;
    assert_eq!(back, Revoked::Authenticated);
    assert!(sent.starts_with("POST /revoke ") && sent.contains("token=canary-refresh"), "{sent}");

    let (back, sent) = give(&SLACK, |_| Act::json("200 OK", r#"{"ok":true,"revoked":true}"#), "/r").await;
    assert_eq!(back, Revoked::Authenticated);
    assert!(sent.to_ascii_lowercase().contains("authorization: bearer canary-access"), "{sent}");
    assert!(!sent.contains("canary-secret") && !sent.contains("canary-refresh"), "{sent}");
    let (back, _) =
        give(&SLACK, |_| Act::json("200 OK", r#"{"ok":false,"error":"token_revoked"}"#), "/r").await;
    assert_eq!(back, Revoked::Authenticated, "gone is gone");
    let (back, _) =
        give(&SLACK, |_| Act::json("200 OK", r#"{"ok":false,"error":"internal_error"}"#), "/r").await;
    assert!(matches!(back, Revoked::Unproved(u) if u.status >= 500), "tried again: {back:?}");

    let (back, sent) = give(&GITHUB, |_| Act::answer("204 No Content", "", ""), "/applications").await;
    assert_eq!(back, Revoked::Authenticated);
    assert!(sent.starts_with("DELETE /applications/us/grant "), "{sent}");
    assert!(sent.to_ascii_lowercase().contains("authorization: basic "), "{sent}");
    assert!(sent.contains(&json!({"access_token": "canary-access"}).to_string()), "{sent}");

    let (back, sent) = give(&ATLASSIAN, |_| Act::json("200 OK", "{}"), "/r").await;
    assert_eq!((back, sent.as_str()), (Revoked::Authenticated, ""), "there is no way, so nothing is sent");
}
