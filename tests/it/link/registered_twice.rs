//! Two instances that register a client for one link at the same moment, as where one lost its lease while the server had its
//! request: one client stays, and the other is unregistered by who made it. The server is a double, since a real one can't
//! be made to answer between two writes.

use std::sync::Arc;

use kube::ResourceExt as _;
use serde_json::{Value, json};
use tokio::sync::Notify;

use super::binary;
use super::fixtures::machine;
use crate::support::plane::ControlPlane;
use crate::support::stage::{SOON, Stage, text};
use crate::support::token_server::{Asked, Reply, TokenServer};
use crate::support::wait::eventually;

/// The registration of a client, as the server tells it (RFC 7592).
fn registration(base: &str, id: &str) -> Value {
    json!({
        "client_id": id, "client_secret": format!("secret-of-{id}"), "client_secret_expires_at": 0,
        "registration_client_uri": format!("{base}/register/{id}"), "registration_access_token": format!("key-of-{id}"),
        "grant_types": ["client_credentials"], "response_types": [], "redirect_uris": [],
        "token_endpoint_auth_method": "client_secret_basic",
    })
}

/// A server with dynamic registration; the second client is registered when it is told to.
async fn server(go: Arc<Notify>) -> TokenServer {
    let server = TokenServer::start().await;
    let base = server.url("");
    let metadata = json!({
        "issuer": base, "token_endpoint": format!("{base}/token"), "registration_endpoint": format!("{base}/register"),
        "revocation_endpoint": format!("{base}/revoke"), "grant_types_supported": ["client_credentials"],
        "response_types_supported": [],
    });
    for document in ["oauth-authorization-server", "openid-configuration"] {
        server.always(&format!("/.well-known/{document}"), Reply::json(200, &metadata));
    }
    let named = base.clone();
    server.on("/register", move |n, asked| {
        let id = format!("c{n}");
        let mut reply = registration(&named, &id);
        reply["client_name"] = asked.json()["client_name"].clone();
        let reply = Reply::json(201, &reply);
        if n == 1 { Reply::Hold(go.clone(), Box::new(reply)) } else { reply }
    });
    for id in ["c0", "c1", "theirs"] {
        let named = base.clone();
        server.on(&format!("/register/{id}"), move |_, asked| match asked.method() {
            "DELETE" => Reply::http(204, "", ""),
            _ => {
                let mut reply = registration(&named, id);
                reply["client_name"] = json!("CI");
                Reply::json(200, &reply)
            }
        });
    }
    server.on("/revoke", |_, asked: &Asked| {
        use base64::Engine as _;
        let basic = asked.header("authorization").and_then(|a| a.strip_prefix("Basic ")).unwrap_or_default();
        let shown = base64::engine::general_purpose::STANDARD.decode(basic).unwrap_or_default();
        let shown = String::from_utf8(shown).unwrap_or_default();
        let right = shown.split_once(':').is_some_and(|(id, secret)| secret == format!("secret-of-{id}"));
        if right { Reply::http(200, "", "") } else { Reply::json(401, &json!({"error": "invalid_client"})) }
    });
    server
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_clients_that_two_instances_registered_one_stays() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let team = stage.team();
    let go = Arc::new(Notify::new());
    let server = server(go.clone()).await;
    let provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": "double"},
        "spec": {"registration": {"issuer": server.url("")}},
    });
    stage.apply_object(team, &provider).await;
    let named =
        |name: &str| machine(name, json!({"providerRef": {"kind": "LinkProvider", "name": "double"}}));
    stage.apply_object(team, &named("first")).await;
    let first = stage.ready(team, "first").await.uid().expect("a UID");
    // What the other instance keeps of its client is like what this one keeps of the first.
    let record =
        stage.secrets(&stage.system).get(&format!("applink-client-{first}")).await.expect("a record");

    stage.apply_object(team, &named("second")).await;
    eventually(SOON, "the second registration under way", async || {
        let asked = server.asked("/register").len();
        if asked == 2 { Ok(()) } else { Err(asked) }
    })
    .await;
    let second = stage.links(team).get("second").await.expect("the link").uid().expect("a UID");
    let theirs = text(&record)["record.json"]
        .replace(&first, &second)
        .replace("\"first\"", "\"second\"")
        .replace("c0", "theirs");
    let object = json!({
        "apiVersion": "v1", "kind": "Secret",
        "metadata": {
            "name": format!("applink-client-{second}"), "namespace": stage.system,
            "labels": record.labels(),
        },
        "type": record.type_, "stringData": {"record.json": theirs},
    });
    stage.apply_object(&stage.system, &object).await;
    go.notify_one();

    eventually(SOON, "the surplus client unregistered", async || {
        let asked = server.asked("/register/c1");
        let gone = asked
            .iter()
            .any(|a| a.method() == "DELETE" && a.header("authorization") == Some("Bearer key-of-c1"));
        if gone { Ok(()) } else { Err(format!("{:?}", asked.iter().map(Asked::method).collect::<Vec<_>>())) }
    })
    .await;
    stage.ready(team, "second").await;
    assert_eq!(stage.data(team, "second-oauth").await["client-id"], "theirs");
    assert!(server.asked("/register/theirs").iter().all(|a| a.method() != "DELETE"));
    assert_eq!(server.asked("/register").len(), 2, "no third one was made");
}
