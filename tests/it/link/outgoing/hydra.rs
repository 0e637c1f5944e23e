//! A real Ory Hydra as the authorization server: what a deletion revokes there, and what stays with Retain.

use reqwest::Method;
use serde_json::{Value, json};

use super::{CLIENT_SECRET, access, credentials, machine, person, with};
use crate::link::binary;
use crate::support::hydra::Hydra;
use crate::support::plane::ControlPlane;
use crate::support::stage::{Stage, browser, http, unique};

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
        "response_types": ["code"], "redirect_uris": ["http://127.0.0.1/callback"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let (status, reply) = hydra.admin(Method::POST, "/admin/clients", Some(body)).await;
    assert_eq!(status, 201, "{reply}");
    id
}

/// A browser that is sent about: where it is sent next, and its cookies.
async fn follow(url: &str, cookies: &mut Vec<String>) -> url::Url {
    let answer = browser().get(url).header("cookie", cookies.join("; ")).send().await.expect("an answer");
    let set = answer.headers().get_all("set-cookie").iter();
    cookies.extend(set.filter_map(|c| c.to_str().ok()?.split(';').next().map(str::to_owned)));
    let to = answer.headers().get("location").unwrap_or_else(|| panic!("{url}: {}", answer.status()));
    url::Url::parse(to.to_str().expect("text")).expect("an address")
}

fn query(url: &url::Url, name: &str) -> String {
    url.query_pairs().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

/// The refresh token that a person's consent gives; login and consent are granted by the admin API.
async fn consent(hydra: &Hydra, id: &str) -> String {
    let issuer = hydra.issuer();
    let mut cookies = Vec::new();
    let mut at = format!(
        "{issuer}/oauth2/auth?response_type=code&client_id={id}&scope=REPO_READ+offline_access&state=0123456789&\
         redirect_uri=http://127.0.0.1/callback"
    );
    for (step, body) in [
        ("login", json!({"subject": "ann"})),
        ("consent", json!({"grant_scope": ["REPO_READ", "offline_access"]})),
    ] {
        let to = follow(&at, &mut cookies).await;
        let challenge = query(&to, &format!("{step}_challenge"));
        let path = format!("/admin/oauth2/auth/requests/{step}/accept?{step}_challenge={challenge}");
        let (status, reply) = hydra.admin(Method::PUT, &path, Some(body)).await;
        assert_eq!(status, 200, "{reply}");
        at = reply["redirect_to"].as_str().expect("an address").to_owned();
    }
    let code = query(&follow(&at, &mut cookies).await, "code");
    let form = [
        ("grant_type", "authorization_code"),
        ("code", code.as_str()),
        ("redirect_uri", "http://127.0.0.1/callback"),
    ];
    let request =
        http().post(format!("{issuer}/oauth2/token")).basic_auth(id, Some(CLIENT_SECRET)).form(&form);
    let reply: Value = request.send().await.expect("Hydra answers").json().await.expect("JSON");
    reply["refresh_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
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
            let seed = consent(&hydra, &id).await;
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
