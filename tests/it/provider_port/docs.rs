//! The table of what each provider service can do, in docs/providers.md, is what the adapters say of themselves.

use std::collections::BTreeSet;
use std::fmt::Write as _;

use applink_operator::domain::ClientId;
use applink_operator::outgoing::Issuer;
use applink_operator::provider::bitbucket::{BitbucketLogin, BitbucketProvider};
use applink_operator::provider::bundled::BundledProvider;
use applink_operator::provider::hydra::HydraProvider;
use applink_operator::provider::keycloak::KeycloakProvider;
use applink_operator::provider::registration::RegistrationProvider;
use applink_operator::provider::{Capabilities, Provider as _};
use url::Url;

use super::subject::http_client;

/// What each capability is called there.
const ROWS: &[(&str, &str)] = &[
    ("choosesId", "we choose the client ID, so asking twice makes no second client"),
    ("choosesSecret", "we choose the secret: it is derived, and the same again after any crash or restore"),
    ("readsSecret", "the secret can be read back"),
    ("rotates", "a client that is there can get a new secret"),
    ("overlaps", "the old secret works beside the new one for a while (`rotation.overlap`)"),
    ("lists", "its clients can be listed (`applink orphans`, `applink import`)"),
    ("tellsOwner", "it keeps whose a client is, so two clusters can share it"),
    ("proves", "right credentials can be told from wrong ones, so Ready means that they authenticate"),
    ("tellsChanges", "it tells of edits at once; else they are found within `resync`"),
    ("expiresSecret", "it may end a secret by itself, and says when"),
    ("revokesTokens", "all tokens of a client can be ended together"),
];

/// The adapters, each with what it says in all of its settings.
fn adapters() -> Vec<(&'static str, Vec<Capabilities>)> {
    let url = || Url::parse("https://provider.example.com").expect("a URL");
    let bundled = BundledProvider::new(http_client(), url(), "token".into(), "docs");
    let hydra = HydraProvider::new(http_client(), url(), url(), None);
    let id = ClientId::parse("docs").expect("an ID");
    let keycloak = KeycloakProvider::new(http_client(), url(), "docs", id, "secret".into()).capabilities();
    // Its realm says more than its adapter: the suite is run with both kinds.
    let rotating = Capabilities { overlaps: true, ..keycloak };
    let issuer = Issuer::parse("https://provider.example.com").expect("an issuer");
    let registration = RegistrationProvider::new(http_client(), issuer, None);
    let login = BitbucketLogin::Token("token".into());
    let bitbucket = BitbucketProvider::new(http_client(), &url(), None, login);
    vec![
        ("bundled", vec![bundled.capabilities()]),
        ("hydra", vec![hydra.capabilities()]),
        ("keycloak", vec![keycloak, rotating]),
        ("registration", vec![registration.capabilities()]),
        ("bitbucket", vec![bitbucket.capabilities()]),
    ]
}

fn table() -> String {
    let adapters = adapters();
    let mut text = String::from("| |");
    for (name, _) in &adapters {
        write!(text, " `{name}` |").expect("text");
    }
    write!(text, "\n|---|{}\n", "---|".repeat(adapters.len())).expect("text");
    for (field, words) in ROWS {
        write!(text, "| {words} |").expect("text");
        for (_, settings) in &adapters {
            let can: BTreeSet<bool> = settings
                .iter()
                .map(|c| serde_json::to_value(c).expect("JSON")[field].as_bool().expect("a capability"))
                .collect();
            let cell = match (can.contains(&true), can.contains(&false)) {
                (true, false) => "yes",
                (true, true) => "by its settings",
                _ => "no",
            };
            write!(text, " {cell} |").expect("text");
        }
        text.push('\n');
    }
    text
}

#[tokio::test]
async fn the_table_says_what_the_adapters_say() {
    let all = serde_json::to_value(adapters()[0].1[0]).expect("JSON");
    let known: BTreeSet<&str> = all.as_object().expect("an object").keys().map(String::as_str).collect();
    let told: BTreeSet<&str> = ROWS.iter().map(|(field, _)| *field).collect();
    assert_eq!(known, told, "each capability has a row");
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/providers.md");
    let page = std::fs::read_to_string(path).expect("the page");
    let (_, rest) = page.split_once("<!-- capabilities -->\n").expect("where the table begins");
    let (found, _) = rest.split_once("<!-- end -->").expect("where it ends");
    assert_eq!(found, table(), "docs/providers.md has another table; it should be:\n{}", table());
}
