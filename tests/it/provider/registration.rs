//! Registration by applications (RFC 7591): initial access tokens, what is registered, what is refused.

use super::http::{Reply, Request};
use super::service::Service;
use serde_json::{Value, json};

/// The least that can be registered: a client that acts for itself.
fn least() -> Value {
    json!({"grant_types": ["client_credentials"]})
}

fn request(service: &Service, token: &str, body: &Value) -> Request {
    service.post("/oauth2/register").header("authorization", format!("Bearer {token}")).json(body)
}

#[track_caller]
fn must_be(reply: &Reply, status: u16, code: &str) {
    assert_eq!(reply.status, status, "{reply:?}");
    let json = reply.json();
    assert_eq!(json["error"], code, "{reply:?}");
    let description = json["error_description"].as_str().expect("a description");
    assert!(description.is_ascii() && description.len() > 10, "{reply:?}");
    assert_eq!(reply.header("cache-control"), Some("no-store"), "{reply:?}");
    let challenge = reply.header("www-authenticate");
    let expected = (status == 401).then_some("Bearer realm=\"applink\", error=\"invalid_token\"");
    assert_eq!(challenge, expected, "{reply:?}");
}

#[tokio::test]
async fn a_client_registers_itself_and_works() {
    let service = Service::start_at("/a", &["--registration"]).await;
    let token = service.initial_token(2).await;
    let asked = json!({
        "client_name": "Über CI", "client_uri": "https://ci.example.com",
        "redirect_uris": ["https://ci.example.com/b", "https://ci.example.com/a"],
        "grant_types": ["authorization_code", "client_credentials"], "response_types": ["code"],
        "scope": "REPO_READ PUBLIC_REPOS", "token_endpoint_auth_method": "client_secret_post",
        "logo_uri": "https://ci.example.com/logo.png", "contacts": ["ada@example.com"], "x_unknown": {"a": [1]},
        "client_id": "ignored", "software_statement": "ignored",
    });
    let post = service.post("/a/oauth2/register").header("authorization", format!("bEARER {token}"));
    let made = post.json(&asked).send().await.must(201);
    assert_eq!(made.header("content-type"), Some("application/json"));
    assert_eq!((made.header("cache-control"), made.header("pragma")), (Some("no-store"), Some("no-cache")));
    let (json, id) = (made.json(), made.text("client_id"));
    let expected = json!({
        "client_id": id, "client_id_issued_at": json["client_id_issued_at"],
        "client_secret": json["client_secret"], "client_secret_expires_at": 0,
        "registration_access_token": json["registration_access_token"],
        "registration_client_uri": format!("{}/oauth2/register/{id}", service.issuer),
        "client_name": "Über CI", "client_uri": "https://ci.example.com",
        "redirect_uris": ["https://ci.example.com/a", "https://ci.example.com/b"],
        "grant_types": ["authorization_code", "client_credentials"], "response_types": ["code"],
        "scope": "PUBLIC_REPOS REPO_READ", "token_endpoint_auth_method": "client_secret_post",
    });
    assert_eq!(json, expected);
    assert!(json["client_id_issued_at"].as_i64().is_some_and(|t| t > 1_700_000_000));
    assert_eq!(
        (json["client_secret"].as_str().map(str::len), made.text("registration_access_token").len()),
        (Some(43), 43)
    );

    let form =
        format!("grant_type=client_credentials&client_id={id}&client_secret={}", made.text("client_secret"));
    let issued = service.post("/a/oauth2/token").form(&form).send().await.must(200);
    assert_eq!(issued.text("scope"), "PUBLIC_REPOS REPO_READ");
    // It is like any other client to the admin API, and nobody's.
    let seen = service.admin("GET", &format!("/admin/clients/{id}")).send().await.must(200).json();
    assert_eq!(
        (&seen["name"], &seen["owner"], &seen["hasSecret"]),
        (&json!("Über CI"), &Value::Null, &json!(true))
    );
    let file =
        ["db", "db-wal"].map(|f| std::fs::read(service.dir.path().join(f)).expect("the file")).concat();
    let file = String::from_utf8_lossy(&file);
    for text in
        [&token, &made.text("registration_access_token"), &made.text("client_secret"), "logo", "x_unknown"]
    {
        assert!(!file.contains(text), "{text} is in the file");
        assert!(!service.process().log().contains(text), "{text} is in the log");
    }
}

#[tokio::test]
async fn what_is_left_out_is_as_the_rfc_has_it() {
    let service = Service::start(&["--registration"]).await;
    let token = service.initial_token(10).await;
    let uris = json!(["https://a.example/cb"]);
    for empty in [
        json!({"redirect_uris": uris}),
        json!({
            "redirect_uris": uris, "client_name": null, "client_uri": "", "grant_types": [], "response_types": null,
            "scope": "", "token_endpoint_auth_method": null,
        }),
    ] {
        let json = request(&service, &token, &empty).send().await.must(201).json();
        assert_eq!(json["client_name"], json["client_id"]);
        assert_eq!(
            (&json["grant_types"], &json["response_types"]),
            (&json!(["authorization_code"]), &json!(["code"]))
        );
        assert_eq!(json["token_endpoint_auth_method"], "client_secret_basic");
        assert_eq!((json.get("scope"), json.get("client_uri")), (None, None), "no scope is given unasked");
    }
    let json = request(&service, &token, &least()).send().await.must(201).json();
    assert_eq!((&json["response_types"], json.get("redirect_uris")), (&json!([]), None));
    let public = json!({"token_endpoint_auth_method": "none", "redirect_uris": uris});
    let json = request(&service, &token, &public).send().await.must(201).json();
    assert_eq!((json.get("client_secret"), json.get("client_secret_expires_at")), (None, None));
}

#[tokio::test]
async fn what_cant_be_registered_is_refused_and_costs_no_use() {
    let service = Service::start(&["--registration"]).await;
    let token = service.initial_token(1).await;
    for (change, code) in [
        (json!({"redirect_uris": ["http://a.example/"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": ["https://a.example/#\u{fc}"]}), "invalid_redirect_uri"),
        (json!({"redirect_uris": "https://a.example/"}), "invalid_redirect_uri"),
        (json!({"redirect_uris": [1]}), "invalid_redirect_uri"),
        (json!({"grant_types": ["authorization_code"]}), "invalid_redirect_uri"),
        (json!({"grant_types": null}), "invalid_redirect_uri"),
        (json!({"grant_types": ["password"]}), "invalid_client_metadata"),
        (json!({"grant_types": "client_credentials"}), "invalid_client_metadata"),
        (json!({"response_types": ["code"]}), "invalid_client_metadata"),
        (json!({"response_types": ["token"]}), "invalid_client_metadata"),
        (json!({"token_endpoint_auth_method": "private_key_jwt"}), "invalid_client_metadata"),
        (json!({"token_endpoint_auth_method": "none"}), "invalid_client_metadata"),
        (json!({"scope": "NO_SUCH"}), "invalid_client_metadata"),
        (json!({"scope": ["REPO_READ"]}), "invalid_client_metadata"),
        (json!({"client_name": "a\nb"}), "invalid_client_metadata"),
        (json!({"client_uri": "javascript:alert(1)"}), "invalid_client_metadata"),
        (json!({"client_secret": 1}), "invalid_client_metadata"),
    ] {
        let mut body = least();
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        must_be(&request(&service, &token, &body).send().await, 400, code);
    }
    let post = service.post("/oauth2/register").header("authorization", format!("Bearer {token}"));
    for (kind, body) in [
        ("application/json", "[]"),
        ("application/json", "{"),
        ("text/plain", "{}"),
        ("application/json", ""),
    ] {
        must_be(&post.clone().body(kind, body).send().await, 400, "invalid_client_metadata");
    }
    let large = json!({"grant_types": ["client_credentials"], "client_name": "x".repeat(70_000)});
    must_be(&request(&service, &token, &large).send().await, 413, "invalid_request");
    request(&service, &token, &least()).send().await.must(201);
    must_be(&request(&service, &token, &least()).send().await, 401, "invalid_token");
}

#[tokio::test]
async fn without_a_good_initial_token_nothing_is_looked_at() {
    let service = Service::start(&["--registration"]).await;
    let token = service.initial_token(1).await;
    let post = service.post("/oauth2/register");
    for body in [least(), json!({"grant_types": ["password"]})] {
        must_be(&post.clone().json(&body).send().await, 401, "invalid_token");
        must_be(&request(&service, "no-such-token", &body).send().await, 401, "invalid_token");
        let twice = request(&service, &token, &body).header("authorization", format!("Bearer {token}"));
        must_be(&twice.send().await, 401, "invalid_token");
        must_be(&post.clone().basic("a", &token).json(&body).send().await, 401, "invalid_token");
    }
    // One that was deleted, and one whose time is over.
    let made = json!({"expiresIn": 1, "uses": 9});
    let short =
        service.admin("POST", "/admin/registration-tokens").json(&made).send().await.must(201).text("token");
    crate::support::wait::eventually(crate::support::wait::SOON, "the token to end", async || {
        request(&service, &short, &json!({"grant_types": ["password"]})).send().await.status == 401
    })
    .await;
    let list = service.admin("GET", "/admin/registration-tokens").send().await.must(200).json();
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1), "{list}");
    let id = list["items"][0]["id"].as_str().expect("an ID").to_owned();
    let path = format!("/admin/registration-tokens/{id}");
    service.admin("DELETE", &path).send().await.must(204);
    service.admin("DELETE", &path).send().await.must_be_problem(404, "not-found", None);
    must_be(&request(&service, &token, &least()).send().await, 401, "invalid_token");
}

#[tokio::test]
async fn a_token_is_used_no_more_often_than_it_says() {
    let service = Service::start(&["--registration"]).await;
    let token = service.initial_token(3).await;
    let body = least();
    let all = (0..12).map(|_| async { request(&service, &token, &body).send().await.status });
    let mut all = futures::future::join_all(all).await;
    all.sort_unstable();
    assert_eq!(all, [vec![201; 3], vec![401; 9]].concat());
    let clients = service.admin("GET", "/admin/clients").send().await.must(200).json();
    assert_eq!(clients["items"].as_array().map(Vec::len), Some(3));
}

#[tokio::test]
async fn initial_tokens_are_made_listed_and_bounded() {
    let service = Service::start(&["--registration"]).await;
    let post =
        async |body: Value| service.admin("POST", "/admin/registration-tokens").json(&body).send().await;
    let made = post(json!({"expiresIn": 7_776_000, "uses": 1000})).await.must(201).json();
    let token = made["token"].as_str().expect("a token").to_owned();
    request(&service, &token, &least()).send().await.must(201);
    let list = service.admin("GET", "/admin/registration-tokens").send().await.must(200);
    let mut expected = made.clone();
    expected.as_object_mut().expect("an object").remove("token");
    expected["usesLeft"] = json!(999);
    assert_eq!(list.json(), json!({"items": [expected]}));
    for (body, field) in [
        (json!({"expiresIn": 7_776_001, "uses": 1}), "expiresIn"),
        (json!({"expiresIn": 0, "uses": 1}), "expiresIn"),
        (json!({"expiresIn": 1, "uses": 0}), "uses"),
        (json!({"expiresIn": 1, "uses": 1001}), "uses"),
    ] {
        post(body).await.must_be_problem(400, "invalid-request", Some(field));
    }
    post(json!({"uses": 1})).await.must(422);
    let anonymous = Request::new(service.admin, "GET", "/admin/registration-tokens").send().await;
    anonymous.must_be_problem(401, "unauthorized", None);
}

#[tokio::test]
async fn it_is_off_unless_it_is_turned_on() {
    let service = Service::start(&[]).await;
    service.post("/oauth2/register").json(&least()).send().await.must_be_error(404, "invalid_request");
    Request::new(service.public, "GET", "/oauth2/register/c").send().await.must(404);
    let body = json!({"expiresIn": 60, "uses": 1});
    for refused in [
        service.admin("POST", "/admin/registration-tokens").json(&body),
        service.admin("GET", "/admin/registration-tokens"),
        service.admin("DELETE", "/admin/registration-tokens/x"),
    ] {
        refused.send().await.must_be_problem(404, "registration-off", None);
    }
}

#[tokio::test]
async fn what_registers_itself_is_told_as_a_change() {
    let service = Service::start(&["--registration"]).await;
    let start = service.admin("GET", "/admin/changes").send().await.must(200).json()["next"].clone();
    let token = service.initial_token(1).await;
    let made = request(&service, &token, &least()).send().await.must(201);
    let (id, token) = (made.text("client_id"), made.text("registration_access_token"));
    let own = |method: &str| {
        Request::new(service.public, method, &format!("/oauth2/register/{id}"))
            .header("authorization", format!("Bearer {token}"))
    };
    own("GET").send().await.must(200);
    // Nothing of the client differs.
    let mut body = least();
    body["client_id"] = json!(id);
    let newer = own("PUT").json(&body).send().await.must(200).text("registration_access_token");
    let delete = Request::new(service.public, "DELETE", &format!("/oauth2/register/{id}"));
    delete.header("authorization", format!("Bearer {newer}")).send().await.must(204);
    let told = service
        .admin("GET", &format!("/admin/changes?after={start}&except=op"))
        .send()
        .await
        .must(200)
        .json();
    let change = |deleted| json!({"id": id, "owner": null, "deleted": deleted});
    assert_eq!(told["changes"], json!([change(false), change(true)]));
}
