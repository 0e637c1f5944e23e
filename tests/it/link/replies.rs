//! What real servers send, and what becomes of it: here, at `golang.org/x/oauth2` (with go-oidc for metadata and keys), at
//! Authlib and at openid-client. The corpus is in `tests/corpus/replies`, a list of cases a file: `token.yaml` (answers
//! to a refresh), `discovery.yaml` and `jwks.yaml`. To add one, add a case; run this test with `APPLINK_WRITE=1` to have the tables
//! in docs/replies.md written, which says what each client makes of it when it isn't what the case says.
//!
//! | key | |
//! |---|---|
//! | `case` | what is odd about it, in the words of the table; unique |
//! | `takes` | who takes it: `us`, `go`, `authlib`, `openid` |
//! | `why` | why it isn't safe, where we refuse what somebody takes |
//! | `gives` | what we make of it, where that isn't what the plain reply has |
//! | `set` | other values in the plain reply; `$gone` takes a member out |
//! | `body`, `hex` | another body |
//! | `deep`, `long` | the plain reply with an object this deep; with a value of 70,000 characters |
//! | `keys` | the keys of a set: `$KEY` is the one that signed, `$BARE` the same without `kid`, `alg` and `use` |
//! | `text` | how the text is encoded: `utf-8`, `utf-16le`, `utf-16be`, and `mark` for a byte order mark |
//! | `coding` | what is done to the body: `gzip`, `deflate` (with the zlib header), `raw` (without); `cut` takes the checksum of gzip off, `half` the second half, `flip` makes it wrong |
//! | `headers` | other headers; null takes one out |
//! | `status` | another status |
//! | `framing` | how it is sent: see [`wire`] |
//!
//! `$ISSUER` is the issuer, `$BASE` the server, and `$GOOD` an address with a plain answer.

mod case;
mod wire;

use std::process::{Command, Stdio};

use applink_operator::domain::{AuthMethod, ClientId, ExposeSecret as _, Lifetime, ScopeSet};
use applink_operator::http::{AllowList, Guard, GuardOptions, HttpClient, Trust};
use applink_operator::outgoing::id_token::read_id_token;
use applink_operator::outgoing::{
    ClientCredentials, Dialect, Grant, Issuer, ServerEndpoints, TokenRequest, discover, presets,
    request_token,
};
use serde_json::{Value, json};
use url::Url;

use case::{Case, Client, Kind, all};

use crate::support::clients;
use crate::support::programs::run_with_input;
use crate::support::token_server::{Reply, TokenServer};

/// Verifies by `$KEY`: signed once, for an API that doesn't exist, until 2100.
const JWT: &str = "eyJ0eXAiOiJhdCtqd3QiLCJhbGciOiJFUzI1NiIsImtpZCI6ImsxIn0.eyJpc3MiOiJodHRwczovL2lzc3Vlci5leGFtcGxlIiwic3ViIjoidXMiLCJhdWQiOiJhcGkiLCJjbGllbnRfaWQiOiJ1cyIsImp0aSI6IjEiLCJpYXQiOjE3NjcyMjU2MDAsImV4cCI6NDEwMjQ0NDgwMH0.hC0PKZwQDNhk1SUZhjxRi4eiVHCo2Yqz6rTNn2Tc0CgHWRVP6K-2HHIinnAGnfgqRA5FH2qhOMtevwU19M0sow";

/// Where the answer of a case is.
fn address(server: &TokenServer, kind: Kind, at: usize) -> String {
    server.url(&format!("/{}/{at}", kind.name()))
}

/// Has the double answer as the cases say.
async fn serve(cases: &[Case]) -> TokenServer {
    let server = TokenServer::start().await;
    for (at, case) in cases.iter().enumerate() {
        let kind = case.kind;
        let issuer = address(&server, kind, at);
        let good = format!("/good/{}/{at}", kind.name());
        let words = |text: &str| {
            text.replace("$ISSUER", &issuer)
                .replace("$GOOD", &server.url(&good))
                .replace("$BASE", &server.url(""))
        };
        let own = format!("/{}/{at}", kind.name());
        let paths = match kind {
            Kind::Discovery => vec![
                format!("{own}/.well-known/openid-configuration"),
                format!("/.well-known/oauth-authorization-server{own}"),
            ],
            Kind::Token | Kind::Jwks => vec![own],
        };
        let reply = Reply::Bytes(case.bytes(&words));
        paths.iter().for_each(|path| server.always(path, reply.clone()));
        server.always(&good, Reply::Bytes(Case::plain(kind).bytes(&words)));
    }
    server
}

fn client() -> HttpClient {
    let guard = Guard::new(AllowList::default(), GuardOptions::default()).expect("a guard");
    guard.client(Trust::Trusted, None)
}

/// What we make of a token reply, as the corpus has it.
async fn token(http: &HttpClient, address: &str) -> Result<Value, String> {
    let client = ClientCredentials::by_secret(
        ClientId::parse("us").expect("an ID"),
        AuthMethod::ClientSecretBasic,
        "secret".to_owned().into(),
    );
    let request = TokenRequest {
        endpoint: Url::parse(address).expect("a URL"),
        client: Some(client),
        grant: Grant::RefreshToken("spent".to_owned().into()),
        scopes: ScopeSet::default(),
        dialect: Dialect::STANDARD,
    };
    let reply = request_token(http, &request).await.map_err(|e| e.to_string())?;
    Ok(json!({
        "access_token": reply.access_token.expose_secret(),
        "refresh_token": reply.refresh_token.as_ref().map(|t| t.expose_secret()),
        "expires_in": reply.lifetime.map(Lifetime::as_secs),
        "scope": reply.scopes.map(|s| s.to_string()),
    }))
}

/// The same of a discovery document.
async fn discovery(http: &HttpClient, server: &TokenServer, address: &str) -> Result<Value, String> {
    let issuer = Issuer::parse(address).expect("an issuer");
    let found = discover(http, &issuer).await.map_err(|e| e.to_string())?;
    assert_eq!(found.token_endpoint.as_str(), server.url("/t"), "{address}");
    Ok(Value::Null)
}

/// The same of a set of keys: whether the ID token verifies by it.
async fn keys(http: &HttpClient, address: &str) -> Result<Value, String> {
    // Over plain HTTP a signature is looked at.
    let mut endpoints = ServerEndpoints::new(Url::parse("http://127.0.0.1/token").expect("a URL"));
    endpoints.issuer = Some("https://issuer.example".to_owned());
    endpoints.declared.jwks_uri = Some(Url::parse(address).expect("a URL"));
    let client = ClientCredentials::by_secret(
        ClientId::parse("api").expect("an ID"),
        AuthMethod::ClientSecretBasic,
        "secret".to_owned().into(),
    );
    let token = JWT.to_owned().into();
    let claims = read_id_token(http, &presets::CUSTOM, &endpoints, &client, &token, None).await;
    claims.map_err(|e| e.to_string())?.expect("the keys were read");
    Ok(Value::Null)
}

#[tokio::test(flavor = "multi_thread")]
async fn we_take_what_is_safe_and_nothing_else() {
    let (cases, http) = (all(), client());
    let server = serve(&cases).await;
    let mut wrong = Vec::new();
    for (at, case) in cases.iter().enumerate() {
        let address = address(&server, case.kind, at);
        let got = match case.kind {
            Kind::Token => token(&http, &address).await,
            Kind::Discovery => discovery(&http, &server, &address).await,
            Kind::Jwks => keys(&http, &address).await,
        };
        let takes = case.takes.contains(&Client::Us);
        let fits = match &got {
            Ok(value) => takes && (case.kind != Kind::Token || *value == case.given()),
            Err(_) => !takes,
        };
        if !fits {
            wrong.push(format!("{} ({}): {got:?}", case.case, case.kind.name()));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// What other people's client makes of the cases.
async fn others(command: Command, cases: &[Case], server: &TokenServer) -> Vec<(bool, String)> {
    let asked: Vec<_> = cases
        .iter()
        .enumerate()
        .map(|(at, case)| {
            let url = address(server, case.kind, at);
            json!({"case": case.case, "kind": case.kind.name(), "url": url, "jwt": JWT})
        })
        .collect();
    let mut command = command;
    command.env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1").stderr(Stdio::inherit());
    let said = run_with_input(command, json!(asked).to_string()).await.ok();
    let said: Vec<Value> = serde_json::from_str(&said).unwrap_or_else(|e| panic!("{e}: {said}"));
    assert_eq!(said.len(), cases.len());
    let answer = |s: &Value| (s["takes"] == true, s["error"].as_str().unwrap_or_default().to_owned());
    said.iter().map(answer).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn other_clients_take_what_the_corpus_says() {
    let cases = all();
    let server = serve(&cases).await;
    let folder = tempfile::tempdir().expect("a folder");
    let (go, python, node) = futures::join!(
        clients::go("replies"),
        clients::python("replies.py"),
        clients::node("replies.mjs", folder.path())
    );
    let all = futures::join!(
        others(go, &cases, &server),
        others(python, &cases, &server),
        others(node, &cases, &server)
    );
    let mut wrong = Vec::new();
    for (client, answers) in [(Client::Go, all.0), (Client::Authlib, all.1), (Client::Openid, all.2)] {
        for (case, (takes, error)) in cases.iter().zip(answers) {
            if takes != case.takes.contains(&client) {
                let what = if takes { "takes it" } else { "refuses it" };
                let kind = case.kind.name();
                wrong.push(format!("{} ({kind}): {client:?} {what} {error}", case.case));
            }
        }
    }
    assert!(wrong.is_empty(), "the corpus says otherwise:\n{}", wrong.join("\n"));
}

#[test]
fn the_tables_are_in_the_documentation() {
    let cases = all();
    let count = |kind| cases.iter().filter(|c| c.kind == kind).count();
    assert!(count(Kind::Token) >= 60, "{}", count(Kind::Token));
    for case in &cases {
        let refused = !case.takes.contains(&Client::Us);
        let somebody = !case.takes.is_empty();
        assert_eq!(
            case.why.is_some(),
            refused && somebody,
            "{}: `why` says why we refuse what another client takes",
            case.case
        );
    }
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/replies.md");
    let page = std::fs::read_to_string(file).expect("docs/replies.md");
    let mut wanted = page.clone();
    for kind in Kind::ALL {
        let (begin, end) =
            (format!("<!-- {} -->\n", kind.name()), format!("<!-- end of {} -->", kind.name()));
        let from = wanted.find(&begin).expect("the table's place") + begin.len();
        let to = wanted.find(&end).expect("the table's end");
        wanted.replace_range(from..to, &case::table(kind, &cases));
    }
    if std::env::var_os("APPLINK_WRITE").is_some() {
        std::fs::write(file, &wanted).expect("written");
    } else {
        assert!(page == wanted, "docs/replies.md isn't current; run this test with APPLINK_WRITE=1");
    }
}
