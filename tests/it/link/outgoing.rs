//! Outgoing links, against the bundled provider as the authorization server: a token got, kept fresh, put right,
//! and given back.

mod hydra;
mod secret;
mod server;

use serde_json::{Value, json};

use crate::support::stage::{SOON, Stage, merge, text, unique};
use crate::support::wait::eventually;

pub const CLIENT_SECRET: &str = "outgoing-client-secret-1";

/// A client of ours at the bundled provider, whose secret a person chose. Gives back its identifier.
pub async fn client(stage: &Stage<'_>) -> String {
    let id = format!("outgoing-{}", unique());
    put_client(stage, &id, CLIENT_SECRET).await;
    id
}

/// Registers it, or gives it another secret.
pub async fn put_client(stage: &Stage<'_>, id: &str, secret: &str) {
    let body = json!({
        "name": id, "grantTypes": ["client_credentials", "refresh_token"], "scopes": ["REPO_READ", "PUBLIC_REPOS"],
        "tokenEndpointAuthMethod": "client_secret_basic", "secret": secret, "secretKind": "chosen",
    });
    let (status, reply) =
        stage.admin(reqwest::Method::PUT, &format!("/admin/clients/{id}"), Some(body)).await;
    assert!(status == 200 || status == 201, "{reply}");
}

/// A first refresh token.
pub async fn seed(stage: &Stage<'_>, id: &str) -> String {
    let body = json!({"clientId": id, "subject": "ann"});
    let (status, reply) = stage.admin(reqwest::Method::POST, "/admin/grants", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    reply["refreshToken"].as_str().expect("a refresh token").to_owned()
}

/// A link by client credentials, from the Secret NAME-client, with an issuer to discover.
pub fn machine(name: &str, issuer: &str) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI dashboard"},
            "outgoing": {"oauth2": {
                "server": {"custom": {"issuer": issuer}},
                "grant": {"clientCredentials": {}},
                "client": {"secretRef": {"name": format!("{name}-client")}},
                "scopes": ["REPO_READ"],
            }},
        },
    })
}

/// The same by a refresh token, from the Secret NAME-seed.
pub fn person(name: &str, issuer: &str) -> Value {
    let mut link = machine(name, issuer);
    let seed = json!({"refreshToken": {"secretRef": {"name": format!("{name}-seed"), "key": "token"}}});
    link["spec"]["outgoing"]["oauth2"]["grant"] = seed;
    link
}

/// A change to a link.
pub fn with(mut link: Value, change: Value) -> Value {
    merge(&mut link, change);
    link
}

/// Applies a link by client credentials with all that it needs, and waits until it is Ready.
pub async fn ready_machine(stage: &Stage<'_>, name: &str, change: Value) -> String {
    let id = client(stage).await;
    credentials(stage, name, &id, CLIENT_SECRET).await;
    stage.apply_object(stage.team(), &with(machine(name, &stage.provider_url), change)).await;
    stage.ready(stage.team(), name).await;
    id
}

/// The same by a refresh token. Gives back the client and the seed.
pub async fn ready_person(stage: &Stage<'_>, name: &str, change: Value) -> (String, String) {
    let id = client(stage).await;
    let token = seed(stage, &id).await;
    credentials(stage, name, &id, CLIENT_SECRET).await;
    stage.put_secret(stage.team(), &format!("{name}-seed"), &[("token", &token)]).await;
    stage.apply_object(stage.team(), &with(person(name, &stage.provider_url), change)).await;
    stage.ready(stage.team(), name).await;
    (id, token)
}

pub async fn credentials(stage: &Stage<'_>, name: &str, id: &str, secret: &str) {
    let data = [("client-id", id), ("client-secret", secret)];
    stage.put_secret(stage.team(), &format!("{name}-client"), &data).await;
}

/// The access token in a Secret.
pub async fn access(stage: &Stage<'_>, secret: &str) -> String {
    stage.data(stage.team(), secret).await["access-token"].clone()
}

/// Waits until another access token stands in a link's Secret; gives it back.
pub async fn another(stage: &Stage<'_>, name: &str, old: &str) -> String {
    let secrets = stage.secrets(stage.team());
    eventually(SOON, format!("another token of {name}"), async || {
        let secret = secrets.get(&format!("{name}-token")).await.map_err(|e| e.to_string())?;
        match text(&secret).remove("access-token") {
            Some(new) if new != old && !new.is_empty() => Ok(new),
            _ => Err("still the old one".to_owned()),
        }
    })
    .await
}

/// What the server says of a token.
pub async fn introspect(stage: &Stage<'_>, id: &str, secret: &str, token: &str) -> Value {
    let answer = crate::support::stage::http()
        .post(format!("{}/oauth2/introspect", stage.provider_url))
        .basic_auth(id, Some(secret))
        .form(&[("token", token)])
        .send()
        .await
        .expect("the introspection endpoint answers");
    answer.json().await.expect("JSON")
}

pub async fn is_active(stage: &Stage<'_>, id: &str, token: &str) -> bool {
    introspect(stage, id, CLIENT_SECRET, token).await["active"] == true
}

/// The grant's record in the operator's namespace, if there is one.
pub async fn record(stage: &Stage<'_>, uid: &str) -> Option<Value> {
    let secret =
        stage.secrets(&stage.system).get_opt(&format!("applink-grant-{uid}")).await.expect("asked")?;
    Some(serde_json::from_str(&text(&secret)["record.json"]).expect("JSON"))
}

/// How many access tokens the provider has issued.
pub async fn issued(stage: &Stage<'_>) -> u64 {
    let url = format!("{}/metrics", stage.admin_url);
    let text =
        crate::support::stage::http().get(url).send().await.expect("metrics").text().await.expect("text");
    let lines = text.lines().filter(|l| l.starts_with("applink_provider_tokens_issued_total"));
    lines.filter_map(|l| l.rsplit(' ').next()?.parse::<u64>().ok()).sum()
}
