//! The files of `deploy/examples` that other people's tools read: filled by the operator's own engine with tokens that would
//! break them, and read back by the tools themselves. And as a link gets them, from a real API server.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use applink_operator::domain::ExposeSecret as _;
use applink_operator::link::content::{Slot, Values};
use applink_operator::link::template::{self, TemplateError};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize as _;
use serde_json::{Value, json};

use super::binary;
use super::outgoing::ready_machine;
use crate::support::plane::ControlPlane;
use crate::support::programs::{Output, run};
use crate::support::stage::Stage;
use crate::support::token_server::{Reply, TokenServer};

/// Tokens with all that means something somewhere: quotes, comments, variables, separators of addresses, escapes.
const TOKENS: &[&str] = &[
    "eyJhbGciOiJSUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl-_",
    "a/b+c==",
    "at@evil.example/path:80?q#f",
    "%41%0a%00",
    "single'quote`tick",
    "$HOME$(id)!!*[a]{b}~",
    "semi;colon&amp|pipe<in>out,",
    "a;#b",
    "-dash",
    "123456",
    "=equals",
];
/// Those that some of the files can't hold.
const ODD: &[&str] = &[
    "with space",
    "double\"quote",
    "back\\slash\\",
    "#comment",
    "${HOME}",
    "line\nbreak\nmachine evil.example",
    "return\rreturn",
    "tab\ttab",
    "ünïcode",
    "nul\0nul",
    "null",
    "",
];

/// The objects of an example.
fn example(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("deploy/examples/{name}.yaml"));
    let text = std::fs::read_to_string(path).expect("an example");
    serde_yaml::Deserializer::from_str(&text).map(|d| Value::deserialize(d).expect("YAML")).collect()
}

/// What an example says of the link's Secret.
fn secret(name: &str) -> Value {
    let objects = example(name);
    let link = objects.iter().find(|o| o["kind"] == "ApplicationLink").expect("a link");
    link["spec"]["outgoing"]["secret"].clone()
}

fn source(name: &str, key: &str) -> String {
    secret(name)["template"][key].as_str().expect("a template").to_owned()
}

fn fill(source: &str, token: &str) -> Result<String, TemplateError> {
    let values = Values::from([(Slot::AccessToken, token.to_owned().into())]);
    template::render(source, &values).map(|text| text.expose_secret().to_owned())
}

/// The token is written, or refused as what such a file can't hold, which is so for those named alone.
fn filled(source: &str, token: &str, refused: &[&str]) -> Option<String> {
    let is = fill(source, token);
    if refused.contains(&token) {
        assert!(matches!(is, Err(TemplateError::CantHold(_))), "{token:?}: {is:?}");
        return None;
    }
    Some(is.unwrap_or_else(|e| panic!("{token:?}: {e}")))
}

fn all() -> impl Iterator<Item = &'static str> {
    TOKENS.iter().chain(ODD).copied()
}

struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        std::fs::write(&path, text).expect("written");
        path
    }

    /// A program that sees this home alone.
    async fn run(&self, program: &str, args: &[&str], input: Option<&str>) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.0.path()).env("HOME", self.0.path());
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_TERMINAL_PROMPT", "0").env_remove("NETRC");
        for proxy in ["http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"] {
            command.env_remove(proxy);
        }
        let input = self.write("input", input.unwrap_or_default());
        command.stdin(std::fs::File::open(input).expect("the input"));
        run(command).await
    }
}

#[test]
fn a_registry_login_is_read_back_as_it_was() {
    let source = source("outgoing-registry-login", ".dockerconfigjson");
    // RFC 7617 has no control characters in a password.
    let refused = ["line\nbreak\nmachine evil.example", "return\rreturn", "tab\ttab", "nul\0nul"];
    for token in all() {
        let Some(text) = filled(&source, token, &refused) else { continue };
        let config: Value = serde_json::from_str(&text).expect("JSON");
        let auths = config["auths"].as_object().expect("auths");
        assert_eq!((auths.len(), config.as_object().map(serde_json::Map::len)), (1, Some(1)));
        let login = &auths["registry.example.com"];
        let auth = STANDARD.decode(login["auth"].as_str().expect("auth")).expect("base64");
        assert_eq!(String::from_utf8(auth).expect("text"), format!("oauth2accesstoken:{token}"));
        assert_eq!(
            (login["username"].as_str(), login["password"].as_str()),
            (Some("oauth2accesstoken"), Some(token))
        );
    }
}

#[tokio::test]
async fn git_reads_its_credentials_and_its_header_as_they_were() {
    let home = Home::new();
    let (store, config) = (source("outgoing-git", ".git-credentials"), source("outgoing-git", ".gitconfig"));
    let control = ["line\nbreak\nmachine evil.example", "return\rreturn", "tab\ttab", "nul\0nul"];
    for token in all() {
        let text = filled(&store, token, &[]).expect("any text can be percent-encoded");
        assert_eq!(text.lines().count(), 1);
        let file = home.write("store", &text);
        let helper = format!("credential.helper=store --file={}", file.display());
        let question = "protocol=https\nhost=git.example.com\n\n";
        let answer = home.run("git", &["-c", &helper, "credential", "fill"], Some(question)).await;
        let says: BTreeMap<_, _> = answer.stdout.lines().filter_map(|l| l.split_once('=')).collect();
        if token.contains(['\n', '\r', '\0']) {
            // git itself takes no such credential, and none that was cut.
            assert!(!says.get("password").is_some_and(|p| p.contains("evil")), "{answer:?}");
        } else if !token.is_empty() {
            assert_eq!(
                (says.get("username"), says.get("password")),
                (Some(&"oauth2"), Some(&token)),
                "{answer:?}"
            );
        }
        // The user of another host gets nothing.
        let other = "protocol=https\nhost=evil.example\n\n";
        let answer = home.run("git", &["-c", &helper, "credential", "fill"], Some(other)).await;
        assert!(!answer.stdout.contains("password="), "{answer:?}");

        let Some(text) = filled(&config, token, &control) else { continue };
        let file = home.write("config", &text).display().to_string();
        let listed = home.run("git", &["config", "--file", &file, "--list", "--name-only"], None).await.ok();
        assert_eq!(listed.lines().collect::<Vec<_>>(), ["http.https://git.example.com/.extraheader"]);
        let ask = async |url: &str| {
            let args = ["config", "--file", &file, "--get-urlmatch", "http.extraHeader", url];
            home.run("git", &args, None).await
        };
        let header = ask("https://git.example.com/a/b.git").await.ok();
        let basic = STANDARD.encode(format!("oauth2:{token}"));
        assert_eq!(header.trim_end_matches('\n'), format!("Authorization: Basic {basic}"));
        assert!(!ask("https://git.example.com.evil.example/a").await.is_ok());
    }
}

const NETRC: &str = "import netrc, sys, json\nprint(json.dumps(netrc.netrc(sys.argv[1]).hosts))";

#[tokio::test]
async fn python_and_curl_read_a_netrc_alike() {
    let home = Home::new();
    let server = TokenServer::start().await;
    server.always("/", Reply::json(200, &json!({})));
    let source = source("outgoing-netrc", ".netrc");
    let refused: Vec<_> = ODD.iter().copied().filter(|t| !["${HOME}", "null"].contains(t)).collect();
    for (n, token) in all().enumerate() {
        let Some(text) = filled(&source, token, &refused) else { continue };
        let file = home.write("netrc", &text).display().to_string();
        let hosts = home.run("python3", &["-c", NETRC, &file], None).await.ok();
        let hosts: Value = serde_json::from_str(&hosts).expect("JSON");
        let (user, password) = (&hosts["artifacts.example.com"][0], &hosts["artifacts.example.com"][2]);
        assert_eq!((user.as_str(), password.as_str()), (Some("oauth2"), Some(token)), "{text}");
        assert_eq!(hosts.as_object().map(serde_json::Map::len), Some(1));

        let connect = format!("artifacts.example.com:80:127.0.0.1:{}", server.port());
        let args = ["-sS", "--max-time", "20", "--netrc-file", &file, "--connect-to", &connect];
        home.run("curl", &[&args[..], &[&format!("http://artifacts.example.com/?{n}")]].concat(), None)
            .await
            .ok();
        let path = format!("/?{n}");
        let asked = server.asked(&path);
        let header = asked.first().and_then(|a| a.header("authorization")).unwrap_or_default();
        assert_eq!(header, format!("Basic {}", STANDARD.encode(format!("oauth2:{token}"))), "{text}");
    }
}

#[tokio::test]
async fn npm_sends_the_token_of_its_npmrc() {
    let home = Home::new();
    let server = TokenServer::start().await;
    server.always("/-/whoami", Reply::json(200, &json!({"username": "us"})));
    let registry = format!("http://127.0.0.1:{}/", server.port());
    // npm wants the registry that it asks to be the one that the token is for.
    let source = source("outgoing-npmrc", ".npmrc")
        .replace("https://npm.example.com/", &registry)
        .replace("npm.example.com", &format!("127.0.0.1:{}", server.port()));
    let refused: Vec<_> = ODD
        .iter()
        .copied()
        .filter(|t| *t == "null" || t.contains("${") || !t.bytes().all(|b| (32..127).contains(&b)))
        .collect();
    let mut sent = 0;
    for token in all() {
        let Some(text) = filled(&source, token, &refused) else { continue };
        if token.is_empty() {
            continue;
        }
        let file = home.write("npmrc", &text).display().to_string();
        let args = ["whoami", "--userconfig", &file, "--registry", &registry, "--no-update-notifier"];
        home.run("npm", &args, None).await.ok();
        let asked = server.asked("/-/whoami");
        sent += 1;
        assert_eq!(asked.len(), sent);
        let header = asked.last().and_then(|a| a.header("authorization")).unwrap_or_default();
        assert_eq!(header, format!("Bearer {token}"), "{text}");
    }
    assert!(sent >= TOKENS.len());
}

/// Each file as the operator writes it, in a Secret of the example's type, with a token that the bundled provider gave.
#[tokio::test(flavor = "multi_thread")]
async fn the_examples_files_stand_in_the_secret() {
    let stage = Stage::set(ControlPlane::shared().await, binary(), 1, json!({})).await;
    for name in ["outgoing-registry-login", "outgoing-netrc", "outgoing-npmrc", "outgoing-git"] {
        let secret = secret(name);
        ready_machine(&stage, name, json!({"spec": {"outgoing": {"secret": secret}}})).await;
        let target = secret["name"].as_str().expect("a name");
        let found = stage.secrets(stage.team()).get(target).await.expect("the Secret");
        assert_eq!(found.type_.as_deref(), Some(secret["type"].as_str().unwrap_or("Opaque")), "{name}");
        let data = stage.data(stage.team(), target).await;
        for (key, source) in secret["template"].as_object().expect("templates") {
            let wanted = fill(source.as_str().expect("text"), &data["access-token"]).expect("filled");
            assert_eq!(data[key], wanted, "{name}");
            assert!(!wanted.contains("{{"), "{name}");
        }
    }
    // And every example is one that the API server takes.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/examples");
    let folder = folder.to_string_lossy();
    let args = ["apply", "--dry-run=server", "-n", stage.team(), "-f", &folder];
    stage.plane.kubectl(&args).await.ok();
}
