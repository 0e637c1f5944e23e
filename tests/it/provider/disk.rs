//! A disk that fails: after each write, sync and truncation of each request has failed once, what was acknowledged is
//! there, nothing else is, and the next request works. And a disk that stays full, or broken, for a while.

use super::http::{Reply, Request};
use super::service::{DERIVED, Service, client};
use crate::support::disk::{FAULTS, Fault};
use crate::support::wait::{SOON, eventually};
use serde_json::json;

/// A request that writes. One more is a line here, and a line in each of the three functions below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Register,
    Replace,
    Delete,
    Token,
    Grant,
    Refresh,
    Revoke,
    /// A spent refresh token comes again, and its family ends.
    Reuse,
    InitialToken,
    SelfRegistration,
}

const DEEDS: [Deed; 10] = [
    Deed::Register,
    Deed::Replace,
    Deed::Delete,
    Deed::Token,
    Deed::Grant,
    Deed::Refresh,
    Deed::Revoke,
    Deed::Reuse,
    Deed::InitialToken,
    Deed::SelfRegistration,
];

impl Deed {
    /// What it needs, made before; gives back what names it.
    async fn prepare(self, service: &Service, id: &str) -> Vec<String> {
        match self {
            Self::Register | Self::Token | Self::Grant | Self::InitialToken => vec![id.to_owned()],
            Self::Replace | Self::Delete => {
                service.register(id, json!({})).await;
                vec![id.to_owned()]
            }
            Self::Refresh => vec![service.grant("base").await],
            Self::Revoke => vec![service.access("base").await],
            Self::Reuse => {
                let spent = service.grant("base").await;
                let next = service.refresh("base", &spent).await.must(200).text("refresh_token");
                vec![spent, next]
            }
            Self::SelfRegistration => vec![service.initial_token(1).await],
        }
    }

    async fn act(self, service: &Service, with: &[String]) -> Reply {
        let with: Vec<_> = with.iter().map(String::as_str).collect();
        match (self, with.as_slice()) {
            (Self::Register, [id]) => service.put(id, &client(json!({}))).send().await,
            (Self::Replace, [id]) => service.put(id, &client(json!({"name": "changed"}))).send().await,
            (Self::Delete, [id]) => service.admin("DELETE", &format!("/admin/clients/{id}")).send().await,
            (Self::Token, _) => {
                let form = "grant_type=client_credentials";
                service.post("/oauth2/token").basic("base", DERIVED).form(form).send().await
            }
            (Self::Grant, _) => {
                let body = json!({"clientId": "base", "subject": "ada"});
                service.admin("POST", "/admin/grants").json(&body).send().await
            }
            (Self::Refresh, [token]) | (Self::Reuse, [token, _]) => service.refresh("base", token).await,
            (Self::Revoke, [token]) => {
                let form = format!("token={token}");
                service.post("/oauth2/revoke").basic("base", DERIVED).form(&form).send().await
            }
            (Self::InitialToken, _) => {
                let body = json!({"expiresIn": 3600, "uses": 1});
                service.admin("POST", "/admin/registration-tokens").json(&body).send().await
            }
            (Self::SelfRegistration, [token]) => {
                let body = json!({"client_name": "self", "grant_types": ["client_credentials"]});
                let request = service.post("/oauth2/register");
                request.header("authorization", format!("Bearer {token}")).json(&body).send().await
            }
            (deed, with) => panic!("{deed:?} with {with:?}"),
        }
    }

    /// Whether the reply says that it is done.
    fn is_acknowledged(self, reply: &Reply) -> bool {
        match self {
            Self::Reuse => reply.status == 400 && reply.body.contains("invalid_grant"),
            _ => (200..300).contains(&reply.status),
        }
    }

    /// Whether it is done, as far as anybody can see.
    async fn is_done(self, service: &Service, with: &[String], reply: &Reply) -> bool {
        let read = async |id: &str| service.admin("GET", &format!("/admin/clients/{id}")).send().await;
        let told = self.is_acknowledged(reply);
        match self {
            Self::Register => read(&with[0]).await.status == 200,
            Self::Replace => read(&with[0]).await.must(200).text("name") == "changed",
            Self::Delete => read(&with[0]).await.status == 404,
            Self::Token => told && service.is_active("base", &reply.text("access_token")).await,
            Self::Grant => told && service.is_active("base", &reply.text("refreshToken")).await,
            Self::Refresh => {
                let spent = !service.is_active("base", &with[0]).await;
                assert!(!told || service.is_active("base", &reply.text("refresh_token")).await);
                spent
            }
            Self::Revoke => !service.is_active("base", &with[0]).await,
            Self::Reuse => !service.is_active("base", &with[1]).await,
            Self::InitialToken => told,
            // The token is used up, or isn't.
            Self::SelfRegistration => {
                let left = service.admin("GET", "/admin/registration-tokens").send().await.must(200).json();
                let left = left["items"].as_array().expect("items").iter();
                !left.clone().any(|t| t["usesLeft"] == 1) || told
            }
        }
    }
}

/// Has a deed's every operation fail once in this way. Gives back how many there were.
async fn sweep(service: &Service, deed: Deed, fault: Fault) -> u64 {
    let disk = service.disk();
    for n in 1.. {
        assert!(n < 200, "{deed:?}: no end of operations");
        let name = format!("{deed:?}-{fault:?}-{n}").to_lowercase();
        let with = deed.prepare(service, &name).await;
        disk.strike(n, fault);
        let reply = deed.act(service, &with).await;
        let struck = disk.struck();
        disk.heal();
        let told = deed.is_acknowledged(&reply);
        if struck == 0 {
            assert!(told, "{name}: nothing failed, and it says {reply:?}");
            return n - 1;
        }
        if !told {
            let wanted = if fault == Fault::IoError { 500 } else { 503 };
            assert!(reply.status == wanted || reply.status == 500, "{name}: {reply:?}");
        }
        assert_eq!(deed.is_done(service, &with, &reply).await, told, "{name}: {reply:?}");
        if !told {
            let again = deed.act(service, &with).await;
            assert!(deed.is_acknowledged(&again), "{name}: the next request: {again:?}");
            assert!(deed.is_done(service, &with, &again).await, "{name}: the next request");
        }
        let next = deed.prepare(service, &format!("{name}-next")).await;
        let reply = deed.act(service, &next).await;
        assert!(deed.is_acknowledged(&reply), "{name}: another request: {reply:?}");
        Request::new(service.admin, "GET", "/readyz").send().await.must(200);
    }
    unreachable!("it returns when nothing fails")
}

#[tokio::test]
async fn every_operation_may_fail_once() {
    let service = Service::on_a_disk(&["--registration", "--refresh-grace", "0"]).await;
    service.register("base", json!({})).await;
    let mut cases = 0;
    for deed in DEEDS {
        for fault in FAULTS {
            let met = sweep(&service, deed, fault).await;
            assert!(met > 0, "{deed:?} writes nothing");
            cases += met;
        }
    }
    eprintln!("{cases} operations failed, one at a time");
}

async fn probe(service: &Service, path: &str) -> u16 {
    Request::new(service.admin, "GET", path).send().await.status
}

#[tokio::test]
async fn a_full_disk_issues_nothing_and_still_takes_away() {
    let service = Service::on_a_disk(&[]).await;
    service.register("base", json!({})).await;
    let (access, grant) = (service.access("base").await, service.grant("base").await);
    for id in ["a", "b"] {
        service.register(id, json!({})).await;
    }
    service.disk().room(0);
    // The write-ahead log may have had room for some more.
    let token = async || Deed::Token.act(&service, &[]).await;
    let full =
        eventually(SOON, "the disk to be full", async || Some(token().await).filter(|r| r.status != 200))
            .await;
    full.must_be_error(503, "temporarily_unavailable");
    let refused = eventually(SOON, "no more clients", async || {
        let id = format!("c-{}", crate::support::stage::unique());
        Some(Deed::Register.act(&service, &[id]).await).filter(|r| r.status != 201)
    })
    .await;
    assert_eq!((refused.status, refused.text("code").as_str()), (503, "no-room"), "{refused:?}");
    assert_eq!((probe(&service, "/readyz").await, probe(&service, "/healthz").await), (200, 200));

    // Nobody keeps what was taken away, whoever asks for more meanwhile.
    let refused_all = async || {
        for _ in 0..50 {
            token().await.must_be_error(503, "temporarily_unavailable");
        }
    };
    service
        .post("/oauth2/revoke")
        .basic("base", DERIVED)
        .form(&format!("token={access}"))
        .send()
        .await
        .must(200);
    assert!(!service.is_active("base", &access).await);
    service
        .post("/oauth2/revoke")
        .basic("base", DERIVED)
        .form(&format!("token={grant}"))
        .send()
        .await
        .must(200);
    assert!(!service.is_active("base", &grant).await);
    for id in ["a", "b"] {
        service.admin("DELETE", &format!("/admin/clients/{id}")).send().await.must(204);
    }

    refused_all().await;

    service.disk().heal();
    eventually(SOON, "a token", async || token().await.status == 200).await;
    service.register("later", json!({})).await;
    assert_eq!((probe(&service, "/readyz").await, probe(&service, "/healthz").await), (200, 200));
}

#[tokio::test]
async fn a_broken_disk_is_said_and_the_service_goes_on_once_it_is_mended() {
    let service = Service::on_a_disk(&[]).await;
    service.register("base", json!({})).await;
    service.disk().fail(Fault::IoError);
    assert_eq!(probe(&service, "/readyz").await, 200, "nobody has tried to write yet");
    Deed::Token.act(&service, &[]).await.must_be_error(500, "server_error");
    let tried = service.disk().struck();
    for _ in 0..20 {
        assert_eq!(probe(&service, "/readyz").await, 503);
    }
    assert!(service.disk().struck() <= tried + 10, "one try for all that ask");
    assert_eq!(Deed::Token.act(&service, &[]).await.status, 500);
    // Reading works all the while.
    service.admin("GET", "/admin/clients/base").send().await.must(200);
    assert_eq!(probe(&service, "/healthz").await, 200);
    eventually(SOON, "a new start to be asked for", async || probe(&service, "/healthz").await == 503).await;
    service.disk().heal();
    eventually(SOON, "the service to be ready", async || probe(&service, "/readyz").await == 200).await;
    assert_eq!(probe(&service, "/healthz").await, 200);
    service.access("base").await;
}
