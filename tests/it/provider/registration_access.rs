//! Each client's own registration endpoint (RFC 7592), and the token for it that changes and is never lost.

use super::http::{Reply, Request};
use super::service::{Service, client, owner};
use crate::support::wait::SOON;
use serde_json::{Value, json};

struct Own<'a> {
    service: &'a Service,
    id: String,
    token: String,
    secret: String,
    made: Value,
}

impl<'a> Own<'a> {
    async fn register(service: &'a Service) -> Self {
        let body = json!({"grant_types": ["client_credentials"], "client_name": "CI", "scope": "REPO_READ"});
        let token = service.initial_token(1).await;
        let post = service.post("/oauth2/register").header("authorization", format!("Bearer {token}"));
        let made = post.json(&body).send().await.must(201);
        let [id, token, secret] =
            ["client_id", "registration_access_token", "client_secret"].map(|name| made.text(name));
        Self { service, id, token, secret, made: made.json() }
    }

    fn request(&self, method: &str, token: &str) -> Request {
        Request::new(self.service.public, method, &format!("/oauth2/register/{}", self.id))
            .header("authorization", format!("Bearer {token}"))
    }

    async fn get(&self, token: &str) -> Reply {
        self.request("GET", token).send().await
    }

    async fn put(&self, token: &str, change: Value) -> Reply {
        let mut body =
            json!({"client_id": self.id, "grant_types": ["client_credentials"], "client_name": "CI"});
        body.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        self.request("PUT", token).json(&body).send().await
    }

    async fn works(&self, secret: &str) -> bool {
        let request = self.service.post("/oauth2/token").basic(&self.id, secret);
        request.form("grant_type=client_credentials").send().await.status == 200
    }
}

fn next(reply: Reply) -> String {
    reply.must(200).text("registration_access_token")
}

#[track_caller]
fn must_be(reply: &Reply, status: u16, code: &str) {
    assert_eq!((reply.status, &reply.json()["error"]), (status, &json!(code)), "{reply:?}");
    let challenge = reply.header("www-authenticate");
    assert_eq!(challenge.is_some_and(|c| c.starts_with("Bearer ")), status == 401, "{reply:?}");
}

#[tokio::test]
async fn a_client_reads_changes_and_deletes_itself() {
    let service = Service::start(&["--registration"]).await;
    let own = Own::register(&service).await;
    let mut expected = own.made.clone();
    expected.as_object_mut().expect("an object").remove("client_secret");
    let read = own.get(&own.token).await.must(200);
    assert_eq!(read.json(), expected);
    assert_eq!(read.header("cache-control"), Some("no-store"));

    // What is left out is deleted; the secret stays, and may be repeated.
    let change = json!({"client_secret": own.secret, "client_uri": "https://ci.example.com", "x_unknown": 1});
    let changed = own.put(&own.token, change).await.must(200);
    expected["client_uri"] = json!("https://ci.example.com");
    expected["registration_access_token"] = changed.json()["registration_access_token"].clone();
    expected.as_object_mut().expect("an object").remove("scope");
    assert_eq!(changed.json(), expected);
    assert!(own.works(&own.secret).await);
    let token = next(changed);
    assert_ne!(token, own.token);

    // To public and back: it gets a new secret, and is shown it.
    let uris = json!(["https://ci.example.com/cb"]);
    let public = json!({"token_endpoint_auth_method": "none", "grant_types": null, "redirect_uris": uris});
    let public = own.put(&token, public).await.must(200);
    assert_eq!(
        (public.json().get("client_secret"), public.json().get("client_secret_expires_at")),
        (None, None)
    );
    let back = own.put(&next(public), json!({})).await.must(200);
    assert!(!own.works(&own.secret).await && own.works(&back.text("client_secret")).await);

    let token = next(back);
    let deleted = own.request("DELETE", &token).send().await.must(204);
    assert_eq!(deleted.body, "");
    for method in ["GET", "DELETE"] {
        must_be(&own.request(method, &token).send().await, 401, "invalid_token");
    }
    must_be(&own.put(&token, json!({})).await, 401, "invalid_token");
    service.admin("GET", &format!("/admin/clients/{}", own.id)).send().await.must(404);
}

#[tokio::test]
async fn a_lost_answer_loses_nobody() {
    let mut service = Service::start(&["--registration"]).await;
    {
        let own = Own::register(&service).await;
        let first = &own.token;
        // The answer with the second is lost. The first still works, and shows the second each time.
        let second = next(own.put(first, json!({"client_name": "New"})).await);
        assert_eq!(next(own.get(first).await), second);
        assert_eq!(next(own.put(first, json!({"client_name": "Newer"})).await), second);
        // Until the second was used; then the first is no longer good, and the second is.
        let read = own.get(&second).await.must(200);
        assert_eq!((read.text("client_name"), next(read)), ("Newer".to_owned(), second.clone()));
        must_be(&own.get(first).await, 401, "invalid_token");
        must_be(&own.put(first, json!({})).await, 401, "invalid_token");
        must_be(&own.request("DELETE", first).send().await, 401, "invalid_token");

        // A third one straight from the second; what is refused turns nothing.
        must_be(&own.put(&second, json!({"scope": "NO_SUCH"})).await, 400, "invalid_client_metadata");
        let third = next(own.put(&second, json!({})).await);
        assert_ne!(third, second);
        assert_eq!(next(own.get(&second).await), third);
        let fourth = next(own.put(&third, json!({})).await);
        must_be(&own.get(&second).await, 401, "invalid_token");
        assert_eq!(next(own.get(&third).await), fourth);
        // Who has only the one before can still delete the client.
        own.request("DELETE", &third).send().await.must(204);
    }
    // A restart in between loses nobody either.
    let (id, first, second) = {
        let own = Own::register(&service).await;
        let second = next(own.put(&own.token, json!({})).await);
        (own.id, own.token, second)
    };
    service.process().kill();
    service.process().wait(SOON).await;
    service.start_again().await;
    let get = Request::new(service.public, "GET", &format!("/oauth2/register/{id}"));
    assert_eq!(next(get.header("authorization", format!("Bearer {first}")).send().await), second);
}

#[tokio::test]
async fn many_changes_at_once_leave_one_newest_token() {
    let service = Service::start(&["--registration"]).await;
    let own = Own::register(&service).await;
    let puts = (0..8).map(|i| own.put(&own.token, json!({"client_name": format!("n{i}")})));
    let replies = futures::future::join_all(puts).await;
    let newest = next(replies[0].clone());
    for reply in replies {
        assert_eq!(next(reply), newest);
    }
    assert_eq!(next(own.get(&newest).await), newest);
    must_be(&own.get(&own.token).await, 401, "invalid_token");
}

#[tokio::test]
async fn a_put_says_whose_it_is_and_nothing_that_isnt_its_to_say() {
    let service = Service::start(&["--registration"]).await;
    let (own, other) = (Own::register(&service).await, Own::register(&service).await);
    for change in [
        json!({"client_id": null}),
        json!({"client_id": other.id}),
        json!({"registration_access_token": own.token}),
        json!({"registration_client_uri": own.made["registration_client_uri"]}),
        json!({"client_secret_expires_at": 0}),
        json!({"client_id_issued_at": own.made["client_id_issued_at"]}),
        json!({"client_secret": "another-canary-secret-0123456789-0123456789"}),
        json!({"client_secret": other.secret}),
    ] {
        must_be(&own.put(&own.token, change).await, 400, "invalid_client_metadata");
    }
    must_be(&own.put(&own.token, json!({"redirect_uris": ["x"]})).await, 400, "invalid_redirect_uri");
    assert_eq!(next(own.get(&own.token).await), own.token, "none of that turned the token");
    // A token is good for its own client only, and only as a token.
    let bare = |method| Request::new(service.public, method, &format!("/oauth2/register/{}", own.id));
    for refused in [
        own.get(&other.token).await,
        own.get("").await,
        own.get(&own.secret).await,
        own.put(&other.token, json!({"grant_types": ["password"]})).await,
        bare("GET").send().await,
        bare("GET").basic(&own.id, &own.secret).send().await,
        Request::new(service.public, "GET", "/oauth2/register/nobody")
            .header("authorization", "Bearer x")
            .send()
            .await,
        Request::new(service.public, "GET", "/oauth2/register/%ff")
            .header("authorization", "Bearer x")
            .send()
            .await,
    ] {
        must_be(&refused, 401, "invalid_token");
    }
    bare("POST").send().await.must_be_error(405, "invalid_request");
    assert!(!service.process().log().contains("canary"));
}

#[tokio::test]
async fn a_client_that_has_an_owner_is_the_owners_to_manage() {
    let service = Service::start(&["--registration"]).await;
    let own = Own::register(&service).await;
    let path = format!("/admin/clients/{}", own.id);
    let etag = service.admin("GET", &path).send().await.must(200).header("etag").expect("an ETag").to_owned();
    let body = client(json!({"owner": owner(json!({})), "secret": null, "secretKind": null}));
    service.put(&own.id, &body).header("if-match", etag).send().await.must(200);
    must_be(&own.get(&own.token).await, 401, "invalid_token");
    must_be(&own.put(&own.token, json!({})).await, 401, "invalid_token");
    must_be(&own.request("DELETE", &own.token).send().await, 401, "invalid_token");
    assert!(own.works(&own.secret).await, "its secret is as it was");
    // And one that the admin API made has no such token at all.
    service.register("c", json!({})).await;
    let get = Request::new(service.public, "GET", "/oauth2/register/c").header("authorization", "Bearer x");
    must_be(&get.send().await, 401, "invalid_token");
}
