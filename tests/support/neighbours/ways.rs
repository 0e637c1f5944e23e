//! The ways to be noisy. A new one is an entry here, and a function below that does it.

use std::time::Duration;

use kube::api::{Api, DeleteParams, PostParams};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use super::Way;
use super::neighbour::{CHOSEN, DERIVED, DERIVED_SECRET, Neighbour, incoming, outgoing, refreshing, secret};
use crate::support::admin_double::AdminDouble;
use crate::support::objects::heavy_secret;
use crate::support::stage::http;
use crate::support::token_server::{Reply, TokenServer};

/// All ways. The first is none at all: it shows by how much two quiet runs differ.
pub const WAYS: [Way; 20] = [
    Way { name: "nobody", load: "nothing", act: |n| Box::pin(nobody(n)) },
    Way {
        name: "told to wait",
        load: "20 links of 4 clients at the victim's token server, which answers them 429 with Retry-After: 5",
        act: |n| Box::pin(told_to_wait(n)),
    },
    Way {
        name: "tokens of 2 s",
        load: "80 links with rotating refresh tokens at a server that says expires_in: 2",
        act: |n| Box::pin(short_tokens(n, 80, 2)),
    },
    Way {
        name: "tokens of 20 s",
        load: "150 links with rotating refresh tokens, each refreshed about every 13 s",
        act: |n| Box::pin(short_tokens(n, 150, 20)),
    },
    Way {
        name: "a silent token server",
        load: "80 links at a server that takes requests and never answers",
        act: |n| Box::pin(silent_token_server(n)),
    },
    Way {
        name: "an endless answer",
        load: "80 links at a token server that sends 1 KiB every 100 ms and never ends",
        act: |n| Box::pin(endless_answer(n)),
    },
    Way {
        name: "silent issuers",
        load: "200 links with an issuer each, at a server that never answers",
        act: |n| Box::pin(silent_issuers(n)),
    },
    Way {
        name: "heavy Secrets",
        load: "a Secret with 500 kB of metadata every 500 ms, 30 at a time",
        act: |n| Box::pin(heavy_secrets(n)),
    },
    Way {
        name: "a Secret that changes",
        load: "a Secret that 50 links use, changed every 100 ms",
        act: |n| Box::pin(secret_that_changes(n)),
    },
    Way {
        name: "links edited",
        load: "20 incoming links, one of them changed every 50 ms",
        act: |n| Box::pin(links_edited(n)),
    },
    Way {
        name: "links made and deleted",
        load: "a link applied and another one deleted every 100 ms",
        act: |n| Box::pin(links_made_and_deleted(n)),
    },
    Way {
        name: "rotations",
        load: "20 incoming links, one of them asked to rotate every 100 ms",
        act: |n| Box::pin(rotations(n)),
    },
    Way {
        name: "LinkProvider edits",
        load: "a LinkProvider that 50 links use, changed every 100 ms",
        act: |n| Box::pin(provider_edits(n)),
    },
    Way {
        name: "a provider that says reset",
        load: "a LinkProvider of 50 links whose server says reset whenever it is asked",
        act: |n| Box::pin(provider_resets(n)),
    },
    Way {
        name: "silent providers",
        load: "20 LinkProviders whose server never answers, and 80 links that use them",
        act: |n| Box::pin(silent_providers(n)),
    },
    Way {
        name: "idle connections",
        load: "1,500 idle connections to each of four listeners, opened again half a second after they are closed",
        act: |n| Box::pin(idle_connections(n)),
    },
    Way {
        name: "half a consent",
        load: "64 POSTs at once with Content-Length: 100 and no body",
        act: |n| Box::pin(half_consents(n)),
    },
    Way {
        name: "wrong secrets",
        load: "16 at once try wrong secrets of a client with a chosen one, each every 80 ms",
        act: |n| Box::pin(secrets(n, CHOSEN, "a wrong secret")),
    },
    Way {
        name: "tokens without end",
        load: "16 at once ask for tokens by one client, each every 80 ms",
        act: |n| Box::pin(secrets(n, DERIVED, DERIVED_SECRET)),
    },
    Way {
        name: "made-up tokens",
        load: "16 at once have made-up tokens introspected by one client, each every 80 ms",
        act: |n| Box::pin(introspections(n)),
    },
];

/// The way of this name.
///
/// # Panics
/// When there is none.
pub fn named(name: &str) -> &'static Way {
    WAYS.iter().find(|way| way.name == name).unwrap_or_else(|| panic!("no way is called {name}"))
}

async fn nobody(n: &Neighbour) {
    n.did();
    n.watches().await;
}

async fn told_to_wait(n: &Neighbour) {
    n.apply_all((0..4).map(|c| {
        secret(&format!("client-{c}"), json!({"client-id": format!("us-{c}"), "client-secret": "ours"}))
    }))
    .await;
    for i in 0..20 {
        let (path, did) = (format!("/neighbour/{i}"), n.counter());
        n.shared.on(&path, move |_, _| {
            did();
            Reply::http(429, "Retry-After: 5\r\n", "")
        });
        let server = json!({"tokenEndpoint": n.shared.url(&path)});
        n.apply(&outgoing(&format!("told-{i}"), server, &format!("client-{}", i % 4), json!({}))).await;
    }
    n.watches().await;
}

/// The Secret of the client that the neighbour's links are.
async fn client(n: &Neighbour) {
    n.apply(&secret("client", json!({"client-id": "us", "client-secret": "ours"}))).await;
}

async fn short_tokens(n: &Neighbour, links: usize, lifetime: u64) {
    client(n).await;
    let server = TokenServer::start().await;
    for i in 0..links {
        let (path, did) = (format!("/{i}"), n.counter());
        server.on(&path, move |nth, _| {
            did();
            Reply::json(
                200,
                &json!({
                    "access_token": format!("access-{nth}"), "token_type": "Bearer", "expires_in": lifetime,
                    "refresh_token": format!("refresh-{nth}"),
                }),
            )
        });
    }
    let lists = (0..links).map(|i| {
        let name = format!("short-{i}");
        let (grant, seed) = refreshing(&name);
        let link = outgoing(&name, json!({"tokenEndpoint": server.url(&format!("/{i}"))}), "client", grant);
        json!({"apiVersion": "v1", "kind": "List", "items": [seed, link]})
    });
    n.apply_all(lists).await;
    n.watches().await;
}

async fn silent_token_server(n: &Neighbour) {
    client(n).await;
    let (server, did) = (TokenServer::start().await, n.counter());
    server.on("/token", move |_, _| {
        did();
        Reply::Silence
    });
    let at = server.url("/token");
    let link = |i| outgoing(&format!("silent-{i}"), json!({"tokenEndpoint": at}), "client", json!({}));
    n.apply_all((0..80).map(link)).await;
    n.watches().await;
}

async fn endless_answer(n: &Neighbour) {
    client(n).await;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let at = format!("http://{}/token", listener.local_addr().expect("an address"));
    let did = n.counter();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            did();
            tokio::spawn(async move {
                let head =
                    "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n";
                let mut said = stream.write_all(head.as_bytes()).await;
                while said.is_ok() {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    said = stream.write_all(format!("400\r\n{}\r\n", " ".repeat(1024)).as_bytes()).await;
                }
            });
        }
    });
    let link = |i| outgoing(&format!("endless-{i}"), json!({"tokenEndpoint": at}), "client", json!({}));
    n.apply_all((0..80).map(link)).await;
    n.watches().await;
}

/// A listener that takes connections and says nothing; counts them.
async fn silent_server(n: &Neighbour) -> String {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let did = n.counter();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            did();
            tokio::spawn(async move { stream.read_to_end(&mut Vec::new()).await });
        }
    });
    url
}

async fn silent_issuers(n: &Neighbour) {
    client(n).await;
    let url = silent_server(n).await;
    let link =
        |i| outgoing(&format!("issuer-{i}"), json!({"issuer": format!("{url}/{i}")}), "client", json!({}));
    n.apply_all((0..200).map(link)).await;
    n.watches().await;
}

async fn heavy_secrets(n: &Neighbour) {
    let secrets: Api<k8s_openapi::api::core::v1::Secret> = Api::namespaced(n.client(), &n.namespace);
    n.every(Duration::from_millis(500), async |nth| {
        let made =
            secrets.create(&PostParams::default(), &heavy_secret(&format!("heavy-{nth}"), 500_000)).await;
        made.expect("a Secret");
        if let Some(old) = nth.checked_sub(30) {
            let gone = secrets.delete(&format!("heavy-{old}"), &DeleteParams::default()).await;
            gone.expect("the Secret goes");
        }
    })
    .await;
}

async fn secret_that_changes(n: &Neighbour) {
    client(n).await;
    let server = TokenServer::start().await;
    server.always(
        "/token",
        Reply::json(200, &json!({"access_token": "access", "token_type": "Bearer", "expires_in": 3600})),
    );
    let at = server.url("/token");
    let link = |i| outgoing(&format!("user-{i}"), json!({"tokenEndpoint": at}), "client", json!({}));
    n.apply_all((0..50).map(link)).await;
    n.every(Duration::from_millis(100), async |nth| {
        let change = json!({"metadata": {"annotations": {"note": nth.to_string()}}});
        n.patch("Secret", "client", &change).await;
    })
    .await;
}

async fn links_edited(n: &Neighbour) {
    n.apply_all((0..20).map(|i| incoming(&format!("edited-{i}"), json!({})))).await;
    n.every(Duration::from_millis(50), async |nth| {
        let change = json!({"spec": {"application": {"name": format!("CI {nth}")}}});
        n.patch("ApplicationLink", &format!("edited-{}", nth % 20), &change).await;
    })
    .await;
}

async fn links_made_and_deleted(n: &Neighbour) {
    n.every(Duration::from_millis(100), async |nth| {
        n.apply(&incoming(&format!("brief-{nth}"), json!({}))).await;
        if let Some(old) = nth.checked_sub(10) {
            n.begin_deletion("ApplicationLink", &format!("brief-{old}")).await;
        }
    })
    .await;
}

async fn rotations(n: &Neighbour) {
    n.apply_all((0..20).map(|i| incoming(&format!("turning-{i}"), json!({})))).await;
    n.every(Duration::from_millis(100), async |nth| {
        let change =
            json!({"metadata": {"annotations": {"applink-operator.io/rotate-now": nth.to_string()}}});
        n.patch("ApplicationLink", &format!("turning-{}", nth % 20), &change).await;
    })
    .await;
}

/// A LinkProvider at this address, whose admin token is in the Secret `admin-0`, and in `admin-1`.
async fn provider(n: &Neighbour, name: &str, url: &str) {
    for of in ["admin-0", "admin-1"] {
        n.apply(&secret(of, json!({"token": "theirs"}))).await;
    }
    n.apply(&json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "LinkProvider", "metadata": {"name": name},
        "spec": {"bundled": {
            "url": url, "admin": {"url": url, "tokenSecretRef": {"name": "admin-0", "key": "token"}},
        }},
    }))
    .await;
}

/// Links that use a LinkProvider of the neighbour's.
async fn users_of(n: &Neighbour, provider: &str, links: usize) {
    let at = json!({"providerRef": {"kind": "LinkProvider", "name": provider}});
    n.apply_all((0..links).map(|i| incoming(&format!("of-{provider}-{i}"), at.clone()))).await;
}

async fn provider_edits(n: &Neighbour) {
    let double = AdminDouble::start().await;
    provider(n, "theirs", &double.url).await;
    users_of(n, "theirs", 50).await;
    n.every(Duration::from_millis(100), async |nth| {
        let of = format!("admin-{}", nth % 2);
        let change = json!({"spec": {"bundled": {"admin": {"tokenSecretRef": {"name": of}}}}});
        n.patch("LinkProvider", "theirs", &change).await;
    })
    .await;
}

async fn provider_resets(n: &Neighbour) {
    let double = AdminDouble::start().await;
    double.always_reset(n.counter());
    provider(n, "theirs", &double.url).await;
    users_of(n, "theirs", 50).await;
    n.watches().await;
}

async fn silent_providers(n: &Neighbour) {
    let url = silent_server(n).await;
    for i in 0..20 {
        let name = format!("silent-{i}");
        provider(n, &name, &url).await;
        users_of(n, &name, 4).await;
    }
    n.watches().await;
}

async fn idle_connections(n: &Neighbour) {
    n.at_once(1500 * n.listeners.len(), async |nth| {
        let port = n.listeners[nth % n.listeners.len()];
        // A Pod has an address of its own. One that is refused is one that is closed.
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 2], 0).into()).expect("an address");
        if let Ok(mut stream) = socket.connect(([127, 0, 0, 1], port).into()).await {
            let said = ["", "GET /healthz HTTP/1.1\r\nhost:"][nth / 4 % 2];
            let _ = stream.write_all(said.as_bytes()).await;
            let _ = stream.read_to_end(&mut Vec::new()).await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    })
    .await;
}

async fn half_consents(n: &Neighbour) {
    let url = url::Url::parse(&n.consent_url).expect("an address");
    let port = url.port().expect("a port");
    let head = format!(
        "POST {}/authorize/{}/nobody HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-www-form-urlencoded\r\n\
         content-length: 100\r\n\r\n",
        url.path(),
        n.namespace
    );
    n.at_once(64, async |_| {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await.expect("connected");
        let _ = stream.write_all(head.as_bytes()).await;
        let _ = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
}

async fn secrets(n: &Neighbour, id: &str, secret: &str) {
    let (http, url) = (http(), format!("{}/oauth2/token", n.provider_url));
    n.at_once(16, async |_| {
        let form = [("grant_type", "client_credentials")];
        let answer = http.post(&url).basic_auth(id, Some(secret)).form(&form).send().await;
        let status = answer.expect("an answer").status().as_u16();
        assert!([200, 401, 429].contains(&status), "{status}");
        tokio::time::sleep(Duration::from_millis(80)).await;
    })
    .await;
}

async fn introspections(n: &Neighbour) {
    let (http, url) = (http(), format!("{}/oauth2/introspect", n.provider_url));
    n.at_once(16, async |_| {
        let ask = http.post(&url).basic_auth(DERIVED, Some(DERIVED_SECRET)).form(&[("token", "made-up")]);
        assert_eq!(ask.send().await.expect("an answer").status().as_u16(), 200);
        tokio::time::sleep(Duration::from_millis(80)).await;
    })
    .await;
}
