//! Keycloak's dynamic registration.

use super::*;

pub(super) async fn initial_token(realm: &Realm) -> String {
    let wanted = json!({"count": 10_000, "expiration": 0});
    let (status, body) = realm.admin(Method::POST, "/clients-initial-access", Some(wanted)).await;
    assert_eq!(status, 200, "{body}");
    body["token"].as_str().expect("a token").to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn keycloaks_registration_takes_a_client_through_its_life() {
    let realm = Realm::new().await;
    let initial = initial_token(&realm).await;
    let mut caller = Caller::new(adapter(&realm.issuer(), Some(&initial)));
    let info = caller.adapter.info().await.expect("info");
    assert_eq!(info.issuer, realm.issuer());
    assert!(info.revocation_endpoint.is_some());
    assert!(caller.get().await.expect("an answer").is_none());

    for method in [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost] {
        caller.handle = None;
        let mut wanted = metadata();
        wanted.auth_method = method;
        let made = caller.put(wanted.clone(), PutSecret::Fresh).await.expect("created");
        let (id, secret) = (made.id.clone(), text(made.secret.as_ref()).to_owned());
        assert!(realm.client(id.as_str()).await.is_some());
        assert_eq!(caller.proof(&id, &secret, method).await, Proof::Authenticated);
        assert_eq!(caller.proof(&id, "another", method).await, Proof::Refused);

        // A read leaves the token as it was, so nothing is to be kept.
        caller.kept = 0;
        for _ in 0..2 {
            let read = caller.get().await.expect("an answer").expect("there");
            assert_eq!((&read.id, read.metadata.as_ref()), (&id, Some(&wanted)));
            assert_eq!(text(read.secret.as_ref()), secret);
        }
        assert_eq!(caller.kept, 0);

        // Each write changes it, and the handle goes with it.
        for name in ["CI 2", "CI 3"] {
            wanted.name = name.into();
            wanted.redirect_uris.insert(RedirectUri::parse("https://ci.example.com/other").expect("a URI"));
            let changed = caller.put(wanted.clone(), PutSecret::Kept).await.expect("changed");
            assert_eq!((&changed.id, changed.secret.is_none()), (&id, true));
            let held = realm.client(id.as_str()).await.expect("there");
            assert_eq!(
                (held["name"].as_str(), held["redirectUris"].as_array().map(Vec::len)),
                (Some(name), Some(2))
            );
            assert_eq!(caller.get().await.expect("an answer").expect("there").metadata, Some(wanted.clone()));
        }
        // What is asked for no more goes, though Keycloak keeps what a change leaves out.
        wanted.scopes = ScopeSet::default();
        wanted.redirect_uris.clear();
        wanted.grant_types = [GrantType::ClientCredentials].into();
        caller.put(wanted.clone(), PutSecret::Kept).await.expect("changed");
        let held = realm.client(id.as_str()).await.expect("there");
        for list in ["redirectUris", "optionalClientScopes"] {
            assert_eq!(held[list], json!([]), "{list}");
        }
        assert_eq!(caller.proof(&id, &secret, method).await, Proof::Authenticated);
        let fresh = caller.put(wanted.clone(), PutSecret::Fresh).await;
        assert!(matches!(fresh, Err(ProviderError::Unsupported { .. })), "{fresh:?}");

        caller.delete().await.expect("deleted");
        assert!(realm.client(id.as_str()).await.is_none());
        caller.delete().await.expect("deleted already");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_is_gone_at_keycloak_is_made_anew() {
    let realm = Realm::new().await;
    let initial = initial_token(&realm).await;
    let mut caller = Caller::new(adapter(&realm.issuer(), Some(&initial)));
    let first = caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    // Before a read was done, the read finds it.
    remove(&realm, &first.id).await;
    assert!(caller.get().await.expect("an answer").is_none());
    caller.handle = None;

    // A change of one that went in between doesn't make another.
    let second = caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    remove(&realm, &second.id).await;
    // Seen: Keycloak answers 500.
    assert!(caller.put(metadata(), PutSecret::Kept).await.is_err());
    assert!(caller.get().await.expect("an answer").is_none());
    let secret = text(second.secret.as_ref());
    assert_eq!(caller.proof(&second.id, secret, AuthMethod::ClientSecretBasic).await, Proof::Refused);
}

async fn remove(realm: &Realm, id: &ClientId) {
    let uuid = realm.client(id.as_str()).await.expect("there")["id"].as_str().expect("an id").to_owned();
    let (status, body) = realm.admin(Method::DELETE, &format!("/clients/{uuid}"), None).await;
    assert_eq!(status, 204, "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_keycloak_refuses_is_said_and_nothing_is_lost() {
    let realm = Realm::new().await;
    let initial = initial_token(&realm).await;
    let mut caller = Caller::new(adapter(&realm.issuer(), Some(&initial)));
    caller.put(metadata(), PutSecret::Fresh).await.expect("created");
    let mut wanted = metadata();
    wanted.scopes = ScopeSet::parse("REPO_READ").expect("scopes");
    let refused = caller.put(wanted, PutSecret::Kept).await;
    assert!(
        matches!(refused, Err(ProviderError::Rejected { code: "insufficient_scope", .. })),
        "{refused:?}"
    );
    caller.put(metadata(), PutSecret::Kept).await.expect("its token still works");

    // Who asks for no scopes gets the server's own.
    let mut wanted = metadata();
    wanted.scopes = ScopeSet::default();
    wanted.grant_types = [GrantType::ClientCredentials].into();
    wanted.redirect_uris.clear();
    caller.handle = None;
    let made = caller.put(wanted.clone(), PutSecret::Fresh).await.expect("created");
    assert_eq!(caller.get().await.expect("an answer").expect("there").metadata, Some(wanted.clone()));
    let secret = text(made.secret.as_ref());
    assert_eq!(caller.proof(&made.id, secret, AuthMethod::ClientSecretBasic).await, Proof::Authenticated);

    let mut public = metadata();
    public.auth_method = AuthMethod::None;
    caller.handle = None;
    let made = caller.put(public.clone(), PutSecret::Public).await.expect("created");
    assert!(made.secret.is_none());
    let read = caller.get().await.expect("an answer").expect("there");
    assert_eq!((read.metadata, read.has_secret), (Some(public), false));

    for (initial, policy) in [(None, true), (Some("another"), false)] {
        let other = adapter(&realm.issuer(), initial);
        let refused = other.put(&put(None, metadata(), PutSecret::Fresh)).await;
        let by_policy = matches!(refused, Err(ProviderError::Rejected { code: "insufficient_scope", .. }));
        let by_token = matches!(refused, Err(ProviderError::Unauthorized { status: 401, .. }));
        assert_eq!((by_policy, by_token), (policy, !policy), "{refused:?}");
    }
}
