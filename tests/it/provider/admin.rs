//! The admin API: converging, ETags, owners, lists, grants.

use super::http::Request;
use super::service::{ADMIN_TOKEN, DERIVED, Service, client, owner};
use serde_json::{Value, json};

#[tokio::test]
async fn put_converges_and_writes_nothing_when_nothing_differs() {
    let service = Service::start(&[]).await;
    let body = client(json!({
        "uri": "https://ci.example.com", "owner": owner(json!({})),
        "redirectUris": ["https://ci.example.com/b", "https://ci.example.com/a"],
        "grantTypes": ["refresh_token", "authorization_code"],
    }));
    let made = service.put("team%20a%2Fci", &body).send().await.must(201);
    let json = made.json();
    let expected = json!({
        "id": "team a/ci", "name": "CI dashboard", "uri": "https://ci.example.com",
        "redirectUris": ["https://ci.example.com/a", "https://ci.example.com/b"],
        "grantTypes": ["authorization_code", "refresh_token"], "scopes": ["REPO_READ", "REPO_WRITE"],
        "tokenEndpointAuthMethod": "client_secret_basic", "hasSecret": true, "owner": owner(json!({})),
        "createdAt": json["createdAt"], "updatedAt": json["createdAt"],
    });
    assert_eq!(json, expected);

    for repeated in [body.clone(), client(body_without_secret(&body))] {
        let again = service.put("team%20a%2Fci", &repeated).send().await.must(200);
        assert_eq!(again.header("etag"), made.header("etag"));
        assert_eq!(again.json(), json);
    }
    let read = service.admin("GET", "/admin/clients/team%20a%2Fci").send().await.must(200);
    assert_eq!((read.header("etag"), read.json()), (made.header("etag"), json.clone()));

    let mut newer = body;
    newer["name"] = json!("Another name");
    let changed = service.put("team%20a%2Fci", &newer).send().await.must(200);
    assert_ne!(changed.header("etag"), made.header("etag"));
    assert_eq!(changed.json()["name"], "Another name");
    assert_eq!(changed.json()["createdAt"], json["createdAt"]);
}

fn body_without_secret(body: &Value) -> Value {
    let mut body = body.clone();
    body["secret"] = Value::Null;
    body["secretKind"] = Value::Null;
    body
}

#[tokio::test]
async fn a_chosen_secret_converges_too() {
    let service = Service::start(&[]).await;
    let chosen = |secret: &str| client(json!({"secret": secret, "secretKind": "chosen"}));
    let made = service.put("c", &chosen("canary chosen secret")).send().await.must(201);
    let again = service.put("c", &chosen("canary chosen secret")).send().await.must(200);
    assert_eq!(again.header("etag"), made.header("etag"));
    let other = service.put("c", &chosen("canary another secret")).send().await.must(200);
    assert_ne!(other.header("etag"), made.header("etag"));
    // The same text kept in another way is a change.
    let derived = service.put("d", &client(json!({}))).send().await.must(201);
    let chosen = service.put("d", &client(json!({"secretKind": "chosen"}))).send().await.must(200);
    assert_ne!(chosen.header("etag"), derived.header("etag"));
    assert_eq!(service.access("d").await.len(), 43);
}

#[tokio::test]
async fn a_secret_that_is_left_out_is_made_up_and_shown_once() {
    let service = Service::start(&[]).await;
    let body = client(json!({"secret": null, "secretKind": null}));
    let made = service.put("c", &body).send().await.must(201);
    let secret = made.text("clientSecret");
    let request = service.post("/oauth2/token").basic("c", &secret).form("grant_type=client_credentials");
    request.send().await.must(200);
    for again in [service.put("c", &body), service.admin("GET", "/admin/clients/c")] {
        let again = again.send().await.must(200);
        assert_eq!(again.json().get("clientSecret"), None);
        assert_eq!(again.json()["hasSecret"], true);
        assert_eq!(again.header("etag"), made.header("etag"));
    }
    let public = json!({"secret": null, "tokenEndpointAuthMethod": "none", "grantTypes": ["refresh_token"]});
    let public = service.put("c", &client(public)).send().await.must(200);
    assert_eq!((public.json().get("clientSecret"), &public.json()["hasSecret"]), (None, &json!(false)));
    assert_ne!(service.put("c", &body).send().await.must(200).text("clientSecret"), secret);
}

#[tokio::test]
async fn preconditions() {
    let service = Service::start(&[]).await;
    let put = |header: &str, value: &str| service.put("c", &client(json!({}))).header(header, value);
    put("if-match", "\"x\"").send().await.must_be_problem(412, "precondition-failed", None);
    put("if-match", "*").send().await.must_be_problem(412, "precondition-failed", None);
    let made = put("if-none-match", "*").send().await.must(201);
    let etag = made.header("etag").expect("an ETag").to_owned();
    put("if-none-match", "*").send().await.must_be_problem(412, "precondition-failed", None);
    put("if-match", "\"x\"").send().await.must_be_problem(412, "precondition-failed", None);
    put("if-match", "no quotes").send().await.must_be_problem(400, "invalid-request", Some("If-Match"));
    put("if-match", &format!("\"x\", {etag}")).send().await.must(200);

    let delete = |value: &str| service.admin("DELETE", "/admin/clients/c").header("if-match", value);
    delete("\"x\"").send().await.must_be_problem(412, "precondition-failed", None);
    delete(&etag).send().await.must(204);
    delete(&etag).send().await.must_be_problem(404, "not-found", None);
    service.admin("DELETE", "/admin/clients/c").send().await.must_be_problem(404, "not-found", None);
    service.admin("GET", "/admin/clients/c").send().await.must_be_problem(404, "not-found", None);
}

#[tokio::test]
async fn of_many_that_make_a_client_at_once_one_does() {
    let service = Service::start(&[]).await;
    let bodies: Vec<_> = (0..20).map(|i| client(json!({"name": format!("n{i}")}))).collect();
    let only_new =
        bodies.iter().map(|b| async { service.put("c", b).header("if-none-match", "*").send().await.status });
    let mut statuses = futures::future::join_all(only_new).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [vec![201], vec![412; 19]].concat());

    let same = client(json!({"name": "same"}));
    let all =
        futures::future::join_all((0..20).map(|_| async { service.put("d", &same).send().await })).await;
    assert_eq!(all.iter().filter(|r| r.status == 201).count(), 1);
    assert!(all.iter().all(|r| r.status == 200 || r.status == 201), "{all:?}");
    assert!(all.iter().all(|r| r.header("etag") == all[0].header("etag")), "{all:?}");
}

#[tokio::test]
async fn anothers_client_is_not_written_over() {
    let service = Service::start(&[]).await;
    let with = |o: Value| client(json!({"owner": o, "name": "changed"}));
    let made = service.register("c", json!({"owner": owner(json!({}))})).await;
    let etag = made.header("etag").expect("an ETag");
    for change in [json!({"installation": "i2"}), json!({"namespace": "team-b"}), json!({"name": "other"})] {
        let request = service.put("c", &with(owner(change)));
        request.clone().send().await.must_be_problem(409, "foreign-owner", None);
        // Not even when its state is known.
        request.header("if-match", etag).send().await.must_be_problem(409, "foreign-owner", None);
    }
    service.put("c", &client(json!({}))).send().await.must_be_problem(409, "foreign-owner", None);

    for change in [json!({"uid": "u-2"}), json!({"namespaceUid": "nu-2"})] {
        let request = service.put("c", &with(owner(change)));
        request.clone().send().await.must_be_problem(409, "owner-changed", None);
        request.clone().header("if-match", "*").send().await.must_be_problem(409, "owner-changed", None);
    }
    let read = service.admin("GET", "/admin/clients/c").send().await.must(200);
    assert_eq!(read.header("etag"), Some(etag), "nothing of that was written");
    let bound =
        service.put("c", &with(owner(json!({"uid": "u-2"})))).header("if-match", etag).send().await.must(200);
    assert_eq!(bound.json()["owner"]["uid"], "u-2");
    // A higher serial is the same owner.
    service.put("c", &with(owner(json!({"uid": "u-2", "serial": 2})))).send().await.must(200);

    // Nobody's client becomes somebody's only when they say which state of it they mean.
    let made = service.register("nobodys", json!({})).await;
    let request = service.put("nobodys", &with(owner(json!({}))));
    request.clone().send().await.must_be_problem(409, "foreign-owner", None);
    request.header("if-match", made.header("etag").expect("an ETag")).send().await.must(200);
}

#[tokio::test]
async fn lists_have_pages() {
    let service = Service::start(&[]).await;
    for i in 0..7 {
        let installation = if i % 2 == 0 { "even" } else { "odd" };
        service
            .register(&format!("c{i}%2Fx"), json!({"owner": owner(json!({"installation": installation}))}))
            .await;
    }
    service.register("nobodys", json!({})).await;
    let list = async |query: &str| {
        service.admin("GET", &format!("/admin/clients{query}")).send().await.must(200).json()
    };
    let ids = |page: &Value| -> Vec<String> {
        page["items"]
            .as_array()
            .expect("items")
            .iter()
            .map(|c| c["id"].as_str().expect("id").to_owned())
            .collect()
    };
    let all = list("").await;
    assert_eq!((ids(&all).len(), &all["next"]), (8, &Value::Null));
    assert!(!all.to_string().contains("canary"), "no secret in a list");

    let (mut seen, mut query) = (Vec::new(), "?limit=3".to_owned());
    loop {
        let page = list(&query).await;
        assert!(ids(&page).len() <= 3);
        seen.extend(ids(&page));
        let Some(next) = page["next"].as_str() else { break };
        query = format!("?limit=3&cursor={next}");
    }
    assert_eq!(seen, ids(&all));
    assert_eq!(ids(&list("?installation=odd").await), ["c1/x", "c3/x", "c5/x"]);
    assert_eq!(ids(&list("?installation=even&limit=1").await), ["c0/x"]);
    assert_eq!(ids(&list("?limit=100000").await).len(), 8);
}

#[tokio::test]
async fn info_and_grants() {
    let service = Service::start_at("/links", &["--scopes", "read,write"]).await;
    let info = service.admin("GET", "/admin/info").send().await.must(200).json();
    let issuer = &service.issuer;
    let expected = json!({
        "instance": info["instance"], "issuer": issuer, "version": env!("CARGO_PKG_VERSION"),
        "tokenEndpoint": format!("{issuer}/oauth2/token"), "revocationEndpoint": format!("{issuer}/oauth2/revoke"),
        "introspectionEndpoint": format!("{issuer}/oauth2/introspect"), "scopesSupported": ["read", "write"],
        "grantTypesSupported": ["client_credentials", "refresh_token"],
    });
    assert_eq!(info, expected);
    assert_eq!(info["instance"].as_str().map(str::len), Some(16));

    service.register("c", json!({"scopes": ["read"]})).await;
    let post = async |body: Value| service.admin("POST", "/admin/grants").json(&body).send().await;
    let grant = post(json!({"clientId": "c", "subject": "ada"})).await.must(201).json();
    assert_eq!(grant["scopes"], json!(["read"]));
    assert!(grant["expiresAt"].as_str().is_some_and(|t| t.ends_with('Z')), "{grant}");
    let refused = post(json!({"clientId": "c", "subject": "ada", "scopes": ["write"]})).await;
    refused.must_be_problem(400, "invalid-scope", Some("scopes"));
    post(json!({"clientId": "no", "subject": "ada"})).await.must_be_problem(
        400,
        "invalid-request",
        Some("clientId"),
    );
    post(json!({"clientId": "c", "subject": "a\n"})).await.must_be_problem(
        400,
        "invalid-request",
        Some("subject"),
    );
    service.register("cc", json!({"scopes": [], "grantTypes": ["client_credentials"]})).await;
    let refused = post(json!({"clientId": "cc", "subject": "ada"})).await;
    refused.must_be_problem(400, "invalid-grant-types", Some("clientId"));
}

#[tokio::test]
async fn a_rotated_admin_token_works_at_once() {
    let service = Service::start(&[]).await;
    let status = async |token: &str| {
        let request = Request::new(service.admin, "GET", "/admin/info")
            .header("authorization", format!("Bearer {token}"));
        request.send().await.status
    };
    assert_eq!(status(ADMIN_TOKEN).await, 200);
    let newer = "canary-newer-token-0123456789";
    service.dir.write("token", newer);
    assert_eq!((status(ADMIN_TOKEN).await, status(newer).await), (401, 200));
    // Without a good token in the file nobody is let in, and the service goes on.
    service.dir.write("token", "");
    assert_eq!((status("").await, status(newer).await), (503, 503));
    std::fs::remove_file(service.token_file()).expect("removed");
    assert_eq!(status(newer).await, 503);
    service.dir.write("token", newer);
    assert_eq!(status(newer).await, 200);
    service.post("/oauth2/token").basic("c", DERIVED).form("").send().await.must(401);
}
