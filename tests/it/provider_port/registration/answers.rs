//! A double that answers as no server at hand can be brought to answer.

use super::*;

const REGISTER: &str = "/register";
const CLIENT: &str = "/register/c1";

/// A double of a server: its metadata, and a registration endpoint that gives out one client.
async fn double(more: Value) -> TokenServer {
    let server = TokenServer::start().await;
    let url = server.url("");
    let mut document = json!({
        "issuer": url, "token_endpoint": format!("{url}/token"), "registration_endpoint": format!("{url}{REGISTER}"),
    });
    document.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    server.always("/.well-known/oauth-authorization-server", Reply::json(200, &document));
    server
}

/// What a server answers that registers just what it is asked for.
fn registered(url: &str, asked: &Asked, more: &Value) -> Value {
    let mut all = asked.json();
    if all.is_null() {
        all = wire();
    }
    let fixed = json!({
        "client_id": "c1", "client_secret": "s1", "client_secret_expires_at": 0,
        "registration_access_token": "t1", "registration_client_uri": format!("{url}{CLIENT}"),
    });
    for part in [&fixed, more] {
        all.as_object_mut().expect("an object").extend(part.as_object().expect("an object").clone());
    }
    all
}

/// [`metadata`] on the wire.
fn wire() -> Value {
    json!({
        "client_name": "CI dashboard", "client_uri": "https://ci.example.com",
        "redirect_uris": ["https://ci.example.com/callback"], "scope": "email profile",
        "grant_types": ["authorization_code", "refresh_token"], "token_endpoint_auth_method": "client_secret_basic",
    })
}

/// Has both endpoints answer with `more` over what is asked.
fn answers(server: &TokenServer, more: Value) {
    let (url, more) = (server.url(""), Arc::new(more));
    for (path, status) in [(REGISTER, 201), (CLIENT, 200)] {
        let (url, more) = (url.clone(), more.clone());
        server.on(path, move |_, asked| match asked.method() {
            "DELETE" => Reply::http(204, "", ""),
            _ => Reply::json(status, &registered(&url, asked, &more)),
        });
    }
}

#[tokio::test]
async fn what_is_sent_is_what_the_rfcs_say() {
    let server = double(json!({})).await;
    answers(&server, json!({}));
    let mut caller = Caller::new(adapter(&server.url(""), Some("initial")));
    caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    let read = caller.get().await.expect("an answer").expect("there");
    assert_eq!((read.metadata, read.handle.is_none()), (Some(metadata()), true));
    caller.put(metadata(), PutSecret::Kept).await.expect("changed");
    caller.delete().await.expect("deleted");

    let created = &server.asked(REGISTER)[0];
    assert_eq!((created.method(), created.header("authorization")), ("POST", Some("Bearer initial")));
    let mut expected = wire();
    expected["response_types"] = json!(["code"]);
    expected["software_id"] = json!(TAG);
    assert_eq!(created.json(), expected);
    let managed = server.asked(CLIENT);
    assert_eq!(managed.iter().map(Asked::method).collect::<Vec<_>>(), ["GET", "PUT", "DELETE"]);
    assert!(managed.iter().all(|a| a.header("authorization") == Some("Bearer t1")));
    // All metadata, the identifier, and nothing of what the registration is managed by.
    expected["client_id"] = json!("c1");
    assert_eq!(managed[1].json(), expected);
}

#[tokio::test]
async fn what_the_server_makes_of_it_is_said_once_and_not_written_again_and_again() {
    for (more, code) in [
        (json!({"scope": "profile"}), "scope"),
        (json!({"scope": "profile email admin"}), "scope"),
        (json!({"grant_types": ["authorization_code"]}), "grant_types"),
        (json!({"grant_types": ["authorization_code", "refresh_token", "implicit"]}), "grant_types"),
        (json!({"redirect_uris": ["https://ci.example.com/callback/"]}), "redirect_uris"),
        (json!({"redirect_uris": null}), "redirect_uris"),
        (json!({"token_endpoint_auth_method": "private_key_jwt"}), "token_endpoint_auth_method"),
        (json!({"client_name": "Another"}), "client_name"),
        (json!({"client_uri": "https://another.example"}), "client_uri"),
    ] {
        let server = double(json!({})).await;
        answers(&server, more.clone());
        let mut caller = Caller::new(adapter(&server.url(""), None));
        // The client is there, so its identifier and token are kept.
        caller.put(metadata(), PutSecret::Fresh).await.expect("created");
        for _ in 0..2 {
            let read = caller.get().await.expect("an answer").expect("there");
            assert_ne!(read.metadata, Some(metadata()), "{more}");
            match caller.put(metadata(), PutSecret::Kept).await {
                Err(ProviderError::Rejected { code: said, .. }) => {
                    assert_eq!(said, format!("{code} changed by the server"));
                }
                other => panic!("{more}: {other:?}"),
            }
        }
        assert!(server.asked(CLIENT).iter().all(|a| a.method() == "GET"), "{more}");
        // Another wish is tried, and so is the same one once somebody changed the client.
        answers(&server, json!({}));
        assert_eq!(caller.get().await.expect("an answer").expect("there").metadata, Some(metadata()));
        answers(&server, json!({"client_name": "Edited"}));
        assert_ne!(caller.get().await.expect("an answer").expect("there").metadata, Some(metadata()));
        answers(&server, json!({}));
        caller.put(metadata(), PutSecret::Kept).await.expect("put right");
    }
}

#[tokio::test]
async fn what_many_servers_leave_out_is_taken_as_asked() {
    for more in [
        json!({"scope": null}),
        json!({"client_name": null}),
        json!({"client_uri": ""}),
        json!({"token_endpoint_auth_method": "client_secret_post"}),
        json!({"token_endpoint_auth_method": null}),
        json!({"unknown": [1], "client_id_issued_at": "now", "client_secret_expires_at": "0"}),
    ] {
        let server = double(json!({})).await;
        answers(&server, more.clone());
        let mut caller = Caller::new(adapter(&server.url(""), None));
        caller.put(metadata(), PutSecret::Fresh).await.expect("created");
        let read = caller.get().await.expect("an answer").expect("there");
        assert_eq!((read.metadata, read.secret_expires_at), (Some(metadata()), None), "{more}");
        assert_eq!(caller.kept, 1, "{more}");
    }
}

#[tokio::test]
async fn the_token_goes_to_the_servers_own_addresses_alone() {
    let elsewhere = TokenServer::start().await;
    for more in [
        json!({"registration_client_uri": elsewhere.url("/steal")}),
        json!({"registration_client_uri": "https://u:p@127.0.0.1/x"}),
        json!({"registration_client_uri": "/register/c1"}),
        json!({"registration_client_uri": null}),
        json!({"registration_access_token": null}),
    ] {
        let server = double(json!({})).await;
        answers(&server, more.clone());
        let mut caller = Caller::new(adapter(&server.url(""), Some("initial")));
        // It is there and works; that it can't be managed is said when it must be.
        let made = caller.put(metadata(), PutSecret::Fresh).await.expect("created");
        assert_eq!(text(made.secret.as_ref()), "s1");
        let read = caller.get().await.expect("an answer").expect("there");
        assert_eq!(read.metadata, Some(metadata()));
        let mut other = metadata();
        other.name = "Other".into();
        let refused = caller.put(other, PutSecret::Kept).await;
        assert!(matches!(refused, Err(ProviderError::Unsupported { .. })), "{more}: {refused:?}");
        let refused = caller.delete().await;
        assert!(matches!(refused, Err(ProviderError::Unsupported { .. })), "{more}: {refused:?}");
        assert!(server.asked(CLIENT).is_empty());
    }
    // Nor does a later answer lead it away.
    let server = double(json!({})).await;
    answers(&server, json!({}));
    let mut caller = Caller::new(adapter(&server.url(""), None));
    caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    answers(
        &server,
        json!({"registration_client_uri": elsewhere.url("/steal"), "registration_access_token": "t2"}),
    );
    for _ in 0..2 {
        caller.put(metadata(), PutSecret::Kept).await.expect("changed");
    }
    let tokens: Vec<_> = server
        .asked(CLIENT)
        .iter()
        .map(|a| a.header("authorization").unwrap_or_default().to_owned())
        .collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t2"]);
    assert_eq!(elsewhere.connections(), 0);
}

#[tokio::test]
async fn a_token_that_changes_at_each_read_ends_the_reading() {
    let server = double(json!({})).await;
    answers(&server, json!({}));
    let mut caller = Caller::new(adapter(&server.url(""), None));
    caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    answers(&server, json!({"registration_access_token": "t2"}));
    for _ in 0..3 {
        let read = caller.get().await.expect("an answer").expect("there");
        assert_eq!((read.metadata, text(read.secret.as_ref())), (Some(metadata()), "s1"));
    }
    assert_eq!((server.asked(CLIENT).len(), caller.kept), (1, 2), "one read, and its token kept");
    answers(&server, json!({"registration_access_token": "t3"}));
    caller.put(metadata(), PutSecret::Kept).await.expect("changed");
    let tokens: Vec<_> =
        server.asked(CLIENT).iter().map(|a| a.header("authorization").map(str::to_owned)).collect();
    assert_eq!(tokens, ["Bearer t1", "Bearer t2"].map(|t| Some(t.to_owned())));
    // That it went is seen when it is changed, and from then on at each look.
    server.always(CLIENT, Reply::json(401, &json!({"error": "invalid_token"})));
    assert!(caller.get().await.expect("an answer").is_some());
    let refused = caller.put(metadata(), PutSecret::Kept).await;
    assert_eq!(refused.map(|_| ()), Err(ProviderError::Conflict));
    assert!(caller.get().await.expect("an answer").is_none());
}

#[tokio::test]
async fn a_client_is_gone_only_where_its_own_server_says_so() {
    let json = "Content-Type: application/json\r\n";
    let html = "Content-Type: text/html\r\n";
    let bearer = "WWW-Authenticate: Bearer error=\"invalid_token\"\r\nContent-Type: text/plain\r\n";
    for (status, headers, body, gone) in [
        (401, json, "{\"error\":\"invalid_token\"}", true),
        (401, bearer, "no", true),
        (401, "", "", true),
        (404, json, "{}", true),
        (401, html, "<html>Please log in</html>", false),
        (404, html, "<html>default backend</html>", false),
        (404, "Content-Type: text/plain\r\n", "default backend - 404", false),
        (502, html, "<html>Bad gateway</html>", false),
        (429, "", "", false),
        (200, html, "<html>welcome</html>", false),
    ] {
        let server = double(json!({})).await;
        answers(&server, json!({}));
        let mut caller = Caller::new(adapter(&server.url(""), None));
        caller.put(metadata(), PutSecret::Fresh).await.expect("created");
        server.always(CLIENT, Reply::http(status, headers, body));
        let read = caller.get().await;
        assert_eq!(read.as_ref().is_ok_and(Option::is_none), gone, "{status} {headers}: {read:?}");
        assert_eq!(read.is_err(), !gone);
        let made_before = server.asked(REGISTER).len();
        let written = caller.put(metadata(), PutSecret::Kept).await;
        assert_eq!(written.as_ref().err() == Some(&ProviderError::Conflict), gone, "{written:?}");
        assert_eq!(server.asked(REGISTER).len(), made_before, "none is made by a change");
        if status != 200 {
            assert_eq!(caller.delete().await.is_ok(), gone, "{status} {headers}");
        }
    }
    // 403: it is there, and nobody may look at it.
    let server = double(json!({})).await;
    answers(&server, json!({}));
    let mut caller = Caller::new(adapter(&server.url(""), None));
    caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    server.always(CLIENT, Reply::json(403, &json!({"error": "access_denied"})));
    assert_eq!(caller.get().await.expect("an answer").expect("there").metadata, Some(metadata()));
    assert!(matches!(caller.delete().await, Err(ProviderError::Unsupported { .. })));
}

#[tokio::test]
async fn a_creation_that_was_answered_oddly_is_not_repeated_where_that_can_be_helped() {
    let server = double(json!({})).await;
    let url = server.url("");
    for (reply, refused) in [
        (Reply::json(201, &json!({"client_id": "c1"})), false),
        (Reply::json(200, &json!({"client_id": "c1", "client_secret": 7})), false),
        (Reply::json(201, &json!({"client_secret": "s"})), true),
        (Reply::http(201, "", ""), true),
        (Reply::cut("{\"client_id\":"), true),
        (Reply::json(400, &json!({"error": "invalid_redirect_uri", "error_description": "canary"})), true),
        (Reply::json(400, &json!({"error": "canary"})), true),
        (Reply::http(302, &format!("Location: {url}/elsewhere\r\n"), ""), true),
        (Reply::Reset, true),
    ] {
        server.always(REGISTER, reply);
        let done = adapter(&url, None).put(&put(None, metadata(), PutSecret::Fresh)).await;
        assert_eq!(done.is_err(), refused, "{done:?}");
        if let Err(error) = done {
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
    }
    assert!(server.asked("/elsewhere").is_empty());
}

#[tokio::test]
async fn a_new_secret_is_passed_on_where_a_change_brings_one() {
    let server = double(json!({})).await;
    answers(&server, json!({"client_secret_expires_at": 2_000_000_000}));
    let mut caller = Caller::new(adapter(&server.url(""), None));
    let made = caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    assert_eq!(made.secret_expires_at, Some(2_000_000_000));
    let refused = caller.put(metadata(), PutSecret::Fresh).await;
    assert!(matches!(refused, Err(ProviderError::Unsupported { .. })), "{refused:?}");
    answers(&server, json!({"client_secret": "s2", "client_secret_expires_at": 2_000_000_100}));
    let fresh = caller.put(metadata(), PutSecret::Kept).await.expect("changed");
    assert_eq!((text(fresh.secret.as_ref()), fresh.secret_expires_at), ("s2", Some(2_000_000_100)));
    let read = caller.get().await.expect("an answer").expect("there");
    assert_eq!((text(read.secret.as_ref()), read.secret_expires_at), ("s2", Some(2_000_000_100)));
    // That it can is known from then on.
    answers(&server, json!({"client_secret": "s3"}));
    let fresh = caller.put(metadata(), PutSecret::Fresh).await.expect("changed");
    assert_eq!(text(fresh.secret.as_ref()), "s3");
    let chosen = PutSecret::Chosen { secret: "s".into(), derived: true, previous: None };
    let refused = caller.put(metadata(), chosen).await;
    assert!(matches!(refused, Err(ProviderError::Unsupported { .. })), "{refused:?}");
}

#[tokio::test]
async fn without_a_revocation_endpoint_a_code_that_cannot_exist_proves() {
    let server = double(json!({})).await;
    let caller = Caller::new(adapter(&server.url(""), None));
    let id = ClientId::parse("c1").expect("an id");
    for (status, body, expected) in [
        (400, json!({"error": "invalid_grant"}), Proof::Authenticated),
        (401, json!({"error": "invalid_client"}), Proof::Refused),
        (400, json!({"error": "invalid_client"}), Proof::Refused),
        (401, json!({"error": "unauthorized_client"}), Proof::Refused),
        // Hydra says so to right credentials.
        (400, json!({"error": "unauthorized_client"}), Proof::Unproved),
        (400, json!({"error": "invalid_request"}), Proof::Unproved),
        (401, json!({}), Proof::Unproved),
        (503, json!({}), Proof::Unproved),
        (200, json!({"access_token": "x"}), Proof::Unproved),
    ] {
        server.always("/token", Reply::json(status, &body));
        assert_eq!(caller.proof(&id, "s1", AuthMethod::ClientSecretPost).await, expected, "{status} {body}");
    }
}

#[tokio::test]
async fn a_server_without_registration_says_so() {
    let server = double(json!({"registration_endpoint": null})).await;
    let info = adapter(&server.url(""), None).info().await;
    assert!(matches!(info, Err(ProviderError::Unsupported { .. })), "{info:?}");
    let server = double(json!({"issuer": "https://another.example"})).await;
    let info = adapter(&server.url(""), None).info().await;
    assert!(matches!(info, Err(ProviderError::Unexpected { .. })), "{info:?}");
    let list = adapter(&server.url(""), None).list(None).await;
    assert!(matches!(list, Err(ProviderError::Unsupported { .. })));
}
