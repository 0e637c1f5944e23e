//! The adapter for Bitbucket Data Center, against the contract stub: none of this says what a real Bitbucket does.

use applink_operator::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, RedirectUri, ScopeSet, SecretString,
};
use applink_operator::http::HttpClient;
use applink_operator::provider::bitbucket::{BitbucketLogin, BitbucketProvider};
use applink_operator::provider::{
    ClientRef, Proof, Provider, ProviderError, PutClient, PutSecret, Registered, RegisteredClient,
};
use url::Url;

use super::conformance::conformance;
use super::faults::faults;
use super::subject::{Subject, for_people, http_client, owner};
use crate::support::bitbucket_stub::{ADMIN, BitbucketStub, Knobs, List, PASSWORD, Reset, Revoke, TOKEN};

/// The stub as most suppose Bitbucket to be, but with pages, so that there are some to read.
struct TheStub(BitbucketStub);

impl Subject for TheStub {
    async fn start() -> Self {
        Self(BitbucketStub::start(Knobs { list: List::Pages(50), ..Knobs::default() }).await)
    }

    fn bases(&self) -> Vec<String> {
        vec![self.0.url.clone()]
    }

    fn adapter(&self, http: HttpClient, bases: &[String]) -> Box<dyn Provider> {
        let base = Url::parse(&bases[0]).expect("a URL");
        Box::new(BitbucketProvider::new(http, &base, None, login()))
    }

    fn issuer(&self) -> String {
        self.0.url.clone()
    }

    fn scope_sets(&self) -> Vec<&'static str> {
        vec![
            "REPO_READ",
            "",
            "PUBLIC_REPOS REPO_READ",
            "ACCOUNT_WRITE ADMIN_WRITE REPO_ADMIN",
            "SYSTEM_ADMIN",
        ]
    }

    fn keeps_uri(&self) -> bool {
        false
    }

    fn takes_loopback_addresses(&self) -> bool {
        false
    }

    /// Where something isn't where it was, or the answer to a creation can't be read, the list has
    /// the last word.
    fn makes_up_for(&self, status: u16) -> bool {
        matches!(status, 200 | 404)
    }

    fn proves_in_two_ways(&self) -> bool {
        true
    }

    fn many(&self) -> usize {
        120
    }

    async fn make_by_hand(&self, id: &str, _: &str) -> Option<()> {
        self.0.add(&format!("By hand {id}"));
        self.0.edit(|all| all.last_mut().expect("a client").client_id = id.to_owned());
        Some(())
    }

    async fn rename_by_hand(&self, id: &ClientId, name: &str) -> Option<()> {
        self.0.edit(|all| {
            let client = all.iter_mut().find(|c| c.client_id == id.as_str());
            client.expect("a client").name = name.to_owned();
        });
        Some(())
    }
}

conformance!(TheStub);
faults!(TheStub);

const TAG: &str = "team-a.ci.0123456789abcdef0123";

/// Every way that an answer may come, one at a time, where the adapter is to do the same by all of them.
fn ways() -> Vec<Knobs> {
    let all: &[fn(&mut Knobs)] = &[
        |_| {},
        |k| k.get_tells_secret = true,
        |k| k.create_tells_secret = false,
        |k| k.create_status = 201,
        |k| k.create_is_empty = true,
        |k| (k.create_is_empty, k.create_status) = (true, 204),
        |k| k.put_tells = true,
        |k| k.delete_status = 204,
        |k| k.duplicate_status = 400,
        |k| k.list = List::Values,
        |k| k.list = List::Pages(2),
        |k| k.reset = Reset::SecretAlone,
        |k| k.reset = Reset::Text,
        |k| (k.reset, k.get_tells_secret) = (Reset::Empty, true),
        |k| k.text_ids = true,
        |k| k.scope_list = true,
        |k| k.extra = true,
        |k| k.well_known = true,
        |k| k.revoke = Revoke::Absent,
        |k| k.revoke = Revoke::TakesAll,
        |k| k.revoke = Revoke::RefusesAll,
        |k| (k.code_first, k.revoke) = (true, Revoke::Standard),
        |k| (k.wrong_code, k.revoke) = ("invalid_request", Revoke::Absent),
        |k| (k.wrong_secret, k.revoke) = ((400, "invalid_client"), Revoke::Absent),
        |k| (k.wrong_secret, k.revoke) = ((400, "unauthorized_client"), Revoke::Absent),
        |k| (k.wrong_secret, k.revoke) = ((401, "unauthorized_client"), Revoke::TakesAll),
    ];
    all.iter()
        .map(|turn| {
            let mut knobs = Knobs::default();
            turn(&mut knobs);
            knobs
        })
        .collect()
}

fn login() -> BitbucketLogin {
    BitbucketLogin::User { name: ADMIN.into(), password: PASSWORD.into() }
}

fn adapter(stub: &BitbucketStub, path: Option<&str>, login: BitbucketLogin) -> BitbucketProvider {
    let url = Url::parse(&stub.url).expect("a URL");
    BitbucketProvider::new(http_client(), &url, path, login)
}

fn metadata() -> ClientMetadata {
    for_people("REPO_READ PUBLIC_REPOS", AuthMethod::ClientSecretPost)
}

fn at(handle: Option<&SecretString>) -> ClientRef {
    ClientRef { id: ClientId::parse(TAG).expect("an id"), handle: handle.cloned() }
}

fn put(at: ClientRef, metadata: ClientMetadata, secret: PutSecret, exists: bool) -> PutClient {
    PutClient { at, metadata, secret, owner: owner("ci"), exists, version: None, revoke_tokens: false }
}

async fn create(adapter: &BitbucketProvider) -> Registered {
    adapter.put(&put(at(None), metadata(), PutSecret::Fresh, false)).await.expect("created")
}

async fn get(adapter: &BitbucketProvider, handle: Option<&SecretString>) -> Option<RegisteredClient> {
    adapter.get(&at(handle)).await.expect("an answer")
}

async fn proof(adapter: &BitbucketProvider, id: &ClientId, secret: &str) -> Proof {
    let info = adapter.info().await.expect("info");
    adapter.prove(&info, id, &secret.into(), AuthMethod::ClientSecretPost).await
}

fn secret(registered: &Registered) -> &str {
    registered.secret.as_ref().expect("a secret").expose_secret()
}

#[tokio::test]
async fn the_life_of_a_client_is_the_same_by_every_way_of_answering() {
    for knobs in ways() {
        let stub = BitbucketStub::start(knobs.clone()).await;
        for name in ["A", "B", "C (applink team-a.other.0123456789abcdef0123)"] {
            stub.add(name);
        }
        let others = stub.clients();
        let adapter = adapter(&stub, None, login());
        assert!(get(&adapter, None).await.is_none(), "{knobs:?}");

        let made = create(&adapter).await;
        let held = stub.clients().pop().expect("a client");
        assert_eq!(held.name, format!("CI dashboard (applink {TAG})"));
        assert_eq!((held.scope.as_str(), held.client_id.as_str()), ("REPO_READ", made.id.as_str()));
        assert_eq!(secret(&made), held.secret, "{knobs:?}");
        assert_eq!(proof(&adapter, &made.id, secret(&made)).await, Proof::Authenticated, "{knobs:?}");
        assert_eq!(proof(&adapter, &made.id, "another").await, Proof::Refused, "{knobs:?}");

        // What was wanted is what reads back, and nothing new is to be remembered.
        let handle = made.handle.clone().expect("a handle");
        let read = get(&adapter, Some(&handle)).await.expect("there");
        assert_eq!((&read.id, read.metadata.as_ref()), (&made.id, Some(&metadata())), "{knobs:?}");
        assert!(read.handle.is_none(), "{knobs:?}");
        let told = read.secret.as_ref().map(|s| s.expose_secret().to_owned());
        assert_eq!(told, knobs.get_tells_secret.then(|| held.secret.clone()));

        // A creation that is done twice makes no second client.
        let again = adapter.put(&put(at(None), metadata(), PutSecret::Fresh, false)).await;
        assert_eq!(again.map(|_| ()), Err(ProviderError::Conflict), "{knobs:?}");

        // Without the handle it is found by its tag, and the handle is given again.
        let found = get(&adapter, None).await.expect("found by its tag");
        assert_eq!((&found.id, found.handle.is_some()), (&made.id, true), "{knobs:?}");

        // A change keeps the secret; a fresh one ends the one before.
        let mut wanted = metadata();
        wanted.name = "CI".into();
        wanted.scopes = ScopeSet::parse("REPO_WRITE").expect("scopes");
        let kept = put(at(Some(&handle)), wanted.clone(), PutSecret::Kept, true);
        let changed = adapter.put(&kept).await.expect("changed");
        assert!(changed.secret.is_none());
        let read = get(&adapter, changed.handle.as_ref()).await.expect("there");
        assert_eq!(read.metadata.as_ref(), Some(&wanted), "{knobs:?}");
        assert_eq!(proof(&adapter, &made.id, secret(&made)).await, Proof::Authenticated);
        for handle in [changed.handle.as_ref(), None] {
            let fresh = put(at(handle), wanted.clone(), PutSecret::Fresh, true);
            let fresh = adapter.put(&fresh).await.expect("a fresh secret");
            assert_eq!(secret(&fresh), stub.clients().pop().expect("a client").secret, "{knobs:?}");
            assert_ne!(secret(&fresh), secret(&made));
        }
        assert_eq!(proof(&adapter, &made.id, secret(&made)).await, Proof::Refused);

        adapter.delete(&at(changed.handle.as_ref()), None).await.expect("deleted");
        assert!(get(&adapter, changed.handle.as_ref()).await.is_none());
        adapter.delete(&at(changed.handle.as_ref()), None).await.expect("deleted already");
        assert_eq!(stub.clients(), others, "{knobs:?}");
        stub.assert_kept();
    }
}

#[tokio::test]
async fn the_steady_state_is_one_read_and_one_proof() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let made = create(&adapter).await;
    let info = adapter.info().await.expect("info");
    let prove = async || {
        adapter
            .prove(&info, &made.id, made.secret.as_ref().expect("told"), AuthMethod::ClientSecretPost)
            .await
    };
    assert_eq!(prove().await, Proof::Authenticated);
    stub.asked();
    assert!(get(&adapter, made.handle.as_ref()).await.is_some());
    assert_eq!(prove().await, Proof::Authenticated);
    assert_eq!(stub.asked(), ["GET /client/1", "POST /revoke"]);
    stub.assert_kept();
}

#[tokio::test]
async fn what_cannot_be_told_is_unproved() {
    for (turn, right, wrong) in [
        // The code is looked at before the client, and the revocation endpoint says the same to all.
        (Revoke::TakesAll, Proof::Unproved, Proof::Unproved),
        (Revoke::RefusesAll, Proof::Unproved, Proof::Unproved),
        (Revoke::Absent, Proof::Unproved, Proof::Unproved),
        (Revoke::Standard, Proof::Authenticated, Proof::Refused),
    ] {
        let stub = BitbucketStub::start(Knobs { revoke: turn, code_first: true, ..Knobs::default() }).await;
        let adapter = adapter(&stub, None, login());
        let made = create(&adapter).await;
        assert_eq!(proof(&adapter, &made.id, secret(&made)).await, right, "{turn:?}");
        assert_eq!(proof(&adapter, &made.id, "another").await, wrong, "{turn:?}");
        stub.assert_kept();
    }
}

#[tokio::test]
async fn credentials_in_a_header_are_not_how_bitbucket_is_asked() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let info = adapter.info().await.expect("info");
    assert_eq!(info.auth_methods, Some([AuthMethod::ClientSecretPost].into()));
    assert!(info.redirect_required);
    let made = create(&adapter).await;
    let told = made.secret.expect("told");
    assert_eq!(adapter.prove(&info, &made.id, &told, AuthMethod::ClientSecretBasic).await, Proof::Unproved);
    assert!(stub.breaches().iter().all(|b| b.ends_with("clients authenticate in the body")));
    assert!(!stub.breaches().is_empty(), "the stub is strict");
}

#[tokio::test]
async fn where_the_endpoints_are() {
    for (well_known, api) in [(false, None), (true, None), (false, Some("/rest/oauth2/1.0"))] {
        let api_at = api.unwrap_or("/rest/oauth2/latest");
        let stub = BitbucketStub::start(Knobs { well_known, api: api_at, ..Knobs::default() }).await;
        let adapter = adapter(&stub, api, BitbucketLogin::Token(TOKEN.into()));
        let info = adapter.info().await.expect("info");
        assert_eq!(info.issuer, stub.url);
        let below = |path: &str| format!("{}{api_at}{path}", stub.url);
        assert_eq!(info.authorization_endpoint, Some(below("/authorize")));
        assert_eq!(info.token_endpoint, below("/token"));
        // The metadata may name another host, which no client's secret is sent to.
        assert_eq!(info.revocation_endpoint, Some(below("/revoke")));
        stub.assert_kept();
    }
}

#[tokio::test]
async fn an_absent_api_is_no_absent_client() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let made = create(&adapter).await;
    stub.turn(|k| k.absent = true);
    let handle = made.handle.as_ref();
    let unexpected = |e| matches!(e, ProviderError::Unexpected { status: 404, .. });
    assert!(unexpected(adapter.info().await.expect_err("absent")));
    assert!(unexpected(adapter.get(&at(handle)).await.expect_err("absent")));
    assert!(unexpected(adapter.get(&at(None)).await.expect_err("absent")));
    assert!(unexpected(adapter.delete(&at(handle), None).await.expect_err("absent")));
    stub.turn(|k| k.absent = false);
    assert!(get(&adapter, handle).await.is_some());
}

#[tokio::test]
async fn a_wrong_credential_is_said() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    for login in [
        BitbucketLogin::Token("another".into()),
        BitbucketLogin::User { name: ADMIN.into(), password: "another".into() },
        BitbucketLogin::User { name: "a:b".into(), password: "another".into() },
        BitbucketLogin::Token("line\nbreak".into()),
    ] {
        let adapter = adapter(&stub, None, login);
        assert!(matches!(adapter.info().await, Err(ProviderError::Unauthorized { .. })));
        assert!(matches!(adapter.get(&at(None)).await, Err(ProviderError::Unauthorized { .. })));
        let put = put(at(None), metadata(), PutSecret::Fresh, false);
        assert!(matches!(adapter.put(&put).await, Err(ProviderError::Unauthorized { .. })));
    }
    stub.assert_kept();
}

#[tokio::test]
async fn what_bitbucket_cannot_hold_is_refused_before_anything_is_sent() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let uri = |text: &str| RedirectUri::parse(text).expect("a URI");
    type Change = fn(&mut ClientMetadata);
    let cases: [(&str, Change); 6] = [
        ("invalid-scope", |m| m.scopes = ScopeSet::parse("ACCOUNT_WRITE REPO_READ").expect("scopes")),
        ("invalid-scope", |m| m.scopes = ScopeSet::parse("openid").expect("scopes")),
        ("invalid-redirect-uri", |m| m.redirect_uris.clear()),
        ("invalid-grant-types", |m| m.grant_types = [GrantType::ClientCredentials].into()),
        ("invalid-grant-types", |m| m.grant_types = [GrantType::RefreshToken].into()),
        ("invalid-auth-method", |m| m.auth_method = AuthMethod::ClientSecretBasic),
    ];
    for (expected, change) in cases {
        let mut wanted = metadata();
        change(&mut wanted);
        match adapter.put(&put(at(None), wanted, PutSecret::Fresh, false)).await {
            Err(ProviderError::Rejected { code, .. }) => assert_eq!(code, expected),
            other => panic!("{expected}: {other:?}"),
        }
    }
    let mut wanted = metadata();
    wanted.redirect_uris = [uri("http://127.0.0.1:8080/cb")].into();
    let refused = adapter.put(&put(at(None), wanted.clone(), PutSecret::Fresh, false)).await;
    assert!(matches!(refused, Err(ProviderError::Rejected { code: "invalid-redirect-uri", .. })));
    let chosen = PutSecret::Chosen { secret: "s".into(), derived: true, previous: None };
    let refused = adapter.put(&put(at(None), metadata(), chosen, false)).await;
    assert!(matches!(refused, Err(ProviderError::Unsupported { .. })));
    assert_eq!(stub.asked(), Vec::<String>::new());
    wanted.redirect_uris = [uri("http://localhost:8080/cb")].into();
    adapter.put(&put(at(None), wanted, PutSecret::Fresh, false)).await.expect("localhost will do");
    stub.assert_kept();
}

#[tokio::test]
async fn a_refusal_of_bitbuckets_own_is_no_conflict() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let made = create(&adapter).await;
    for status in [400, 409] {
        stub.turn(|k| (k.duplicate_status, k.refuses) = (status, false));
        // The name is taken, whatever status says so: somebody was quicker.
        let again = adapter.put(&put(at(None), metadata(), PutSecret::Fresh, false)).await;
        assert_eq!(again.map(|_| ()), Err(ProviderError::Conflict));
        // It isn't, and Bitbucket refuses something else.
        stub.turn(|k| k.refuses = true);
        let at_another = ClientRef { id: ClientId::parse("another").expect("an id"), handle: None };
        for put in [
            put(at_another, metadata(), PutSecret::Fresh, false),
            put(at(made.handle.as_ref()), metadata(), PutSecret::Kept, true),
        ] {
            let refused = adapter.put(&put).await;
            assert!(matches!(refused, Err(ProviderError::Rejected { .. })), "{refused:?}");
        }
    }
    assert_eq!(stub.clients().len(), 1);
    stub.assert_kept();
}

#[tokio::test]
async fn edits_by_hand_are_found() {
    let stub = BitbucketStub::start(Knobs::default()).await;
    let adapter = adapter(&stub, None, login());
    let made = create(&adapter).await;
    let handle = made.handle.as_ref();
    let edits: [fn(&mut Vec<crate::support::bitbucket_stub::Client>); 4] = [
        |all| all[0].scope = "REPO_ADMIN".into(),
        |all| all[0].redirects.push("https://evil.example/".into()),
        |all| all[0].name = "CI dashboard".into(),
        |all| all[0].name = format!("Renamed (applink {TAG})"),
    ];
    for edit in edits {
        stub.edit(edit);
        let read = get(&adapter, handle).await.expect("there");
        assert_ne!(read.metadata.as_ref(), Some(&metadata()));
        adapter.put(&put(at(handle), metadata(), PutSecret::Kept, true)).await.expect("put right");
        let read = get(&adapter, handle).await.expect("there");
        assert_eq!(read.metadata.as_ref(), Some(&metadata()));
    }
    // A client of another number in its place, as after a restore, is found by its tag.
    stub.edit(|all| (all[0].number, all[0].client_id) = (77, "restored".into()));
    let read = get(&adapter, handle).await.expect("found by its tag");
    assert_eq!((read.id.as_str(), read.metadata.as_ref()), ("restored", Some(&metadata())));
    assert!(read.handle.is_some());
    // A copy of it makes two, and none is chosen.
    stub.edit(|all| {
        let mut copy = all[0].clone();
        (copy.number, copy.client_id, copy.name) = (78, "copy".into(), format!("Copy (applink {TAG})"));
        all.push(copy);
    });
    let two = adapter.get(&at(None)).await;
    assert!(matches!(two, Err(ProviderError::Rejected { code: "two-clients", .. })), "{two:?}");
    stub.assert_kept();
}

#[tokio::test]
async fn clients_that_nobody_owns_are_listed() {
    for list in [List::Array, List::Values, List::Pages(2)] {
        let stub = BitbucketStub::start(Knobs { list, ..Knobs::default() }).await;
        let adapter = adapter(&stub, None, login());
        for name in ["By hand", "Other (x)"] {
            stub.add(name);
        }
        create(&adapter).await;
        let (mut names, mut after) = (Vec::new(), None);
        loop {
            let page = adapter.list(after.as_deref()).await.expect("a page");
            names.extend(page.clients.into_iter().map(|c| c.metadata.expect("readable").name));
            match page.next {
                None => break,
                next => after = next,
            }
        }
        assert_eq!(names, ["By hand", "Other (x)", "CI dashboard"]);
        // One that is there already is found by its identifier too.
        let by_id =
            ClientRef { id: ClientId::parse(&stub.clients()[0].client_id).expect("an id"), handle: None };
        assert!(adapter.get(&by_id).await.expect("an answer").is_some());
        stub.assert_kept();
    }
}
