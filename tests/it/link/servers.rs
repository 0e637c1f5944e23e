//! Links of each grant at authorization servers of other people, as their packages come: npm oidc-provider, Authlib,
//! django-oauth-toolkit, zitadel/oidc. What each has is in [`Row`]; another server is another row.

use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::consent::{authorize, link, nothing_left, redirect_uri, stage};
use crate::support::auth_servers::{AuthServer, Kind};
use crate::support::person::agrees;
use crate::support::stage::{SOON, Stage, merge};
use crate::support::wait::eventually;

const SECRET: &str = "only-for-tests-links-0123456789";
const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";

/// What a server has.
struct Row {
    kind: Kind,
    /// The scopes by which it gives a refresh token, and says who consented.
    scopes: &'static [&'static str],
    /// The subjects of ann and bob there.
    subjects: [&'static str; 2],
    /// The client that acts for itself; `None`: one that is registered.
    machine: Option<[&'static str; 2]>,
    /// Whether a device gets a refresh token.
    device_refreshes: bool,
}

const OIDC_PROVIDER: Row = Row {
    kind: Kind::OidcProvider,
    scopes: &["openid", "offline_access", "notes:write"],
    subjects: ["ann", "bob"],
    machine: None,
    device_refreshes: true,
};

const AUTHLIB: Row = Row {
    kind: Kind::Authlib,
    scopes: &["openid", "notes:write"],
    subjects: ["ann", "bob"],
    machine: None,
    device_refreshes: true,
};

const DJANGO: Row = Row {
    kind: Kind::Django,
    scopes: &["openid", "notes:write"],
    subjects: ["1", "2"],
    machine: None,
    device_refreshes: true,
};

const ZITADEL: Row = Row {
    kind: Kind::Zitadel,
    scopes: &["openid", "offline_access"],
    subjects: ["id1", "id2"],
    machine: Some(["sid1", "verysecret"]),
    device_refreshes: false,
};

async fn put_client(stage: &Stage<'_>, name: &str, id: &str, secret: &str) {
    let data = [("client-id", id), ("client-secret", secret)];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
}

/// A person connects a link in a browser.
async fn connect(stage: &Stage<'_>, name: &str, person: &str) {
    let mut tool = authorize(stage, name, &["--no-browser"]);
    let code = agrees(&tool.address().await, person).await;
    tool.type_in(&code).await;
    let (exit, said) = tool.end().await;
    assert_eq!(exit, Some(0), "{said}");
}

async fn token(stage: &Stage<'_>, name: &str) -> String {
    stage.data(stage.team(), &format!("{name}-token")).await["access-token"].clone()
}

async fn subject(stage: &Stage<'_>, name: &str) -> Option<String> {
    let link = stage.links(stage.team()).get(name).await.expect("the link");
    link.status.and_then(|s| s.outgoing)?.connected?.subject
}

async fn change(stage: &Stage<'_>, name: &str, spec: Value) {
    let patch = Patch::Merge(json!({ "spec": spec }));
    stage.links(stage.team()).patch(name, &PatchParams::default(), &patch).await.expect("a change");
}

/// Waits for another token than this one.
async fn another(stage: &Stage<'_>, name: &str, before: &str) -> String {
    eventually(SOON, "another access token", async || {
        let now = token(stage, name).await;
        if now == before { Err("the same") } else { Ok(now) }
    })
    .await
}

/// A person's link: connected, refreshed with a refresh token that rotates, connected by somebody else, deleted.
async fn by_code(stage: &Stage<'_>, server: &AuthServer, row: &Row) {
    let team = stage.team();
    let more = json!({"scopes": row.scopes});
    stage.apply_object(team, &link("web", json!({"issuer": server.issuer()}), more)).await;
    let uri = redirect_uri(stage, "web").await;
    server.client("web", SECRET, &[&uri], &["authorization_code", "refresh_token"]).await;
    put_client(stage, "web", "web", SECRET).await;
    stage.condition(team, "web", "Ready", "False", "AuthorizationRequired").await;
    connect(stage, "web", "ann").await;
    stage.ready(team, "web").await;
    assert_eq!(subject(stage, "web").await.as_deref(), Some(row.subjects[0]));
    let first = token(stage, "web").await;
    assert_eq!(server.whose(&first).await.as_deref(), Some(row.subjects[0]));
    stage.condition(team, "web", "TokenFresh", "True", "TokenFresh").await;

    // Twice: the second refresh spends what the first one gave.
    change(stage, "web", json!({"outgoing": {"refresh": {"every": "10s"}}})).await;
    let second = another(stage, "web", &first).await;
    let third = another(stage, "web", &second).await;
    assert_eq!(server.whose(&third).await.as_deref(), Some(row.subjects[0]), "{}", server.log());
    change(stage, "web", json!({"outgoing": {"refresh": null}})).await;
    stage.ready(team, "web").await;
    let anns = token(stage, "web").await;

    // Somebody else's grant takes its place, and the earlier one is given back.
    connect(stage, "web", "bob").await;
    stage.ready(team, "web").await;
    let bobs = another(stage, "web", &anns).await;
    assert_eq!(server.whose(&bobs).await.as_deref(), Some(row.subjects[1]));
    eventually(SOON, "the earlier grant given back", async || match server.whose(&anns).await {
        None => Ok(()),
        Some(who) => Err(who),
    })
    .await;
    // The same person once more: nothing is given back that the new grant may rest on.
    connect(stage, "web", "bob").await;
    stage.ready(team, "web").await;
    nothing_left(stage, "web").await;
    let again = another(stage, "web", &bobs).await;
    assert_eq!(server.whose(&again).await.as_deref(), Some(row.subjects[1]), "{}", server.log());
    stage.delete(team, "web").await;
    assert_eq!(server.whose(&again).await, None, "revoked with the link");
}

/// The code that the tool shows for a device.
async fn shown(tool: &crate::support::authorize::Authorize) -> String {
    tool.line("enter the code").await;
    eventually(SOON, "a code to enter", async || {
        let said = tool.said();
        let mut lines = said.lines().skip_while(|l| !l.contains("enter the code")).skip(1);
        let mut indented = lines.by_ref().map(str::trim).filter(|l| !l.is_empty());
        indented.nth(1).map(str::to_owned).ok_or(said.clone())
    })
    .await
}

async fn by_device(stage: &Stage<'_>, server: &AuthServer, row: &Row) {
    let team = stage.team();
    let at = match row.kind {
        // Its metadata don't name the endpoint.
        Kind::Django => json!({
            "tokenEndpoint": format!("{}/token/", server.issuer()),
            "deviceAuthorizationEndpoint": format!("{}/device-authorization/", server.issuer()),
            "revocationEndpoint": format!("{}/revoke_token/", server.issuer()),
        }),
        _ => json!({"issuer": server.issuer()}),
    };
    let mut more = json!({"grant": {"authorizationCode": null, "deviceCode": {}}, "scopes": row.scopes});
    if row.kind == Kind::Django {
        // No ID token that could be checked comes by a device, and without it nobody says who it is.
        merge(&mut more, json!({"scopes": ["notes:write"]}));
    }
    server.client("tv", SECRET, &[], &[DEVICE_CODE, "refresh_token"]).await;
    put_client(stage, "tv", "tv", SECRET).await;
    stage.apply_object(team, &link("tv", at, more)).await;
    stage.condition(team, "tv", "Ready", "False", "AuthorizationRequired").await;
    let tool = authorize(stage, "tv", &["--yes"]);
    server.enters(&shown(&tool).await, "ann").await;
    let (exit, said) = tool.end().await;
    assert_eq!(exit, Some(0), "{said}\n{}", server.log());
    stage.ready(team, "tv").await;
    let fresh = if row.device_refreshes { "TokenFresh" } else { "NoRefreshToken" };
    stage.condition(team, "tv", "TokenFresh", "True", fresh).await;
    assert_eq!(said.contains("the server gave no refresh token"), !row.device_refreshes, "{said}");
    stage.delete(team, "tv").await;
}

async fn by_itself(stage: &Stage<'_>, server: &AuthServer, row: &Row) {
    let team = stage.team();
    let [id, secret] = row.machine.unwrap_or(["robot", SECRET]);
    if row.machine.is_none() {
        server.client(id, secret, &[], &["client_credentials"]).await;
    }
    put_client(stage, "robot", id, secret).await;
    let scopes = row.scopes.iter().find(|s| s.contains(':')).map_or(json!(null), |s| json!([s]));
    let more = json!({"grant": {"authorizationCode": null, "clientCredentials": {}}, "scopes": scopes});
    stage.apply_object(team, &link("robot", json!({"issuer": server.issuer()}), more)).await;
    stage.ready(team, "robot").await;
    stage.delete(team, "robot").await;
}

async fn each_grant(row: &Row) {
    let (stage, server) = futures::join!(stage(), AuthServer::start(row.kind));
    by_itself(&stage, &server, row).await;
    by_device(&stage, &server, row).await;
    by_code(&stage, &server, row).await;
    assert!(!stage.operator.logs().contains(SECRET));
}

#[tokio::test(flavor = "multi_thread")]
async fn npm_oidc_provider() {
    each_grant(&OIDC_PROVIDER).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn authlib() {
    each_grant(&AUTHLIB).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn django_oauth_toolkit() {
    each_grant(&DJANGO).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn zitadel_oidc() {
    each_grant(&ZITADEL).await;
}

/// oidc-provider keeps to OpenID Connect Core section 11: without `prompt=consent` it ignores `offline_access`.
#[tokio::test(flavor = "multi_thread")]
async fn a_consent_without_a_refresh_token_is_said_at_once() {
    let (stage, server) = futures::join!(stage(), AuthServer::start(Kind::OidcProvider));
    let team = stage.team();
    let mut more = json!({"scopes": OIDC_PROVIDER.scopes});
    more["grant"] = json!({"authorizationCode": {"parameters": {"prompt": "login"}}});
    stage.apply_object(team, &link("web", json!({"issuer": server.issuer()}), more)).await;
    let uri = redirect_uri(&stage, "web").await;
    server.client("web", SECRET, &[&uri], &["authorization_code", "refresh_token"]).await;
    put_client(&stage, "web", "web", SECRET).await;
    stage.condition(team, "web", "Ready", "False", "AuthorizationRequired").await;
    connect(&stage, "web", "ann").await;
    let ready = stage.ready(team, "web").await;
    let said = ready.status.expect("a status").conditions;
    let fresh = said.iter().find(|c| c.type_ == "TokenFresh").expect("a condition");
    assert_eq!(fresh.reason, "NoRefreshToken");
    assert!(fresh.message.contains("the link's own parameter prompt lacks consent"), "{}", fresh.message);
    assert!(said[0].message.contains("prompt lacks consent"), "{}", said[0].message);
    // What it advises helps.
    let parameters = json!({"authorizationCode": {"parameters": {"prompt": null}}});
    change(&stage, "web", json!({"outgoing": {"oauth2": {"grant": parameters}}})).await;
    connect(&stage, "web", "ann").await;
    stage.condition(team, "web", "TokenFresh", "True", "TokenFresh").await;
}
