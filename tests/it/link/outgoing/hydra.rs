//! A real Ory Hydra as the authorization server: what a deletion revokes there, and what stays with Retain.

use reqwest::Method;
use serde_json::{Value, json};

use super::{CLIENT_SECRET, access, credentials, machine, person, with};
use crate::link::binary;
use crate::support::hydra::Hydra;
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, http, unique};

const REDIRECT: &str = "http://127.0.0.1/callback";

/// What Hydra says of a token.
async fn is_active(hydra: &Hydra, token: &str) -> bool {
    let url = format!("{}/admin/oauth2/introspect", hydra.admin_url());
    let answer = http().post(url).form(&[("token", token)]).send().await.expect("Hydra answers");
    let said: Value = answer.json().await.expect("JSON");
    said["active"].as_bool().unwrap_or_else(|| panic!("{said}"))
}

/// A client at Hydra.
async fn client(hydra: &Hydra) -> String {
    let id = format!("outgoing-{}", unique());
    let body = json!({
        "client_id": id, "client_secret": CLIENT_SECRET, "scope": "REPO_READ offline_access",
        "grant_types": ["client_credentials", "authorization_code", "refresh_token"],
        "response_types": ["code"], "redirect_uris": [REDIRECT],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let (status, reply) = hydra.admin(Method::POST, "/admin/clients", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    id
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_given_back_to_hydra() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    let (team, hydra) = (stage.team(), Hydra::start().await);
    for (name, refresh, retain) in [
        ("machine", false, false),
        ("person", true, false),
        ("kept", false, true),
        ("kept-person", true, true),
    ] {
        let id = client(&hydra).await;
        credentials(&stage, name, &id, CLIENT_SECRET).await;
        let policy = if retain { "Retain" } else { "Delete" };
        let link = if refresh {
            let scopes = ["REPO_READ", "offline_access"];
            let seed = hydra.consent(&id, CLIENT_SECRET, REDIRECT, &scopes).await;
            stage.put_secret(team, &format!("{name}-seed"), &[("token", &seed)]).await;
            person(name, &hydra.issuer())
        } else {
            machine(name, &hydra.issuer())
        };
        stage.apply_object(team, &with(link, json!({"spec": {"deletionPolicy": policy}}))).await;
        let link = stage.ready(team, name).await;
        let token = access(&stage, &format!("{name}-token")).await;
        let kept = super::record(&stage, link.metadata.uid.as_deref().expect("uid")).await;
        let kept = kept.and_then(|r| r["refreshToken"].as_str().map(str::to_owned));
        assert_eq!(kept.is_some(), refresh, "{name}");
        let all: Vec<_> = std::iter::once(token).chain(kept).collect();
        for token in &all {
            assert!(is_active(&hydra, token).await, "{name}: good before");
        }
        stage.delete(team, name).await;
        for token in &all {
            assert_eq!(is_active(&hydra, token).await, retain, "{name}: after the deletion, by {policy}");
        }
    }
}
