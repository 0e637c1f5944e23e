//! The demo: a control plane, the bundled provider and the operator as the chart runs them, and some links. It shows what a
//! user does in the first five minutes, then stays up until Ctrl-C. With `--check` it asserts each step and ends.

#![allow(clippy::print_stdout, reason = "it is here to show something")]

#[path = "../support/mod.rs"]
mod support;

use std::io::IsTerminal as _;
use std::panic::AssertUnwindSafe;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::Instant;

use futures::FutureExt as _;
use serde_json::{Value, json};
use support::authorize::Authorize;
use support::chart::Release;
use support::consent_app::ConsentApp;
use support::hydra::Hydra;
use support::plane::{ControlPlane, Options};
use support::pod::Pod;
use support::wait::{SOON, eventually};
use support::{person, ports, programs};
use tokio::signal::unix::{SignalKind, signal};

const SYSTEM: &str = "applink-system";
const TEAM: &str = "team-a";
const EXAMPLES: [&str; 3] = ["incoming", "incoming-public-client", "incoming-machine-to-machine"];

#[tokio::main]
async fn main() -> ExitCode {
    let check = std::env::args().any(|a| a == "--check");
    let mut terminate = signal(SignalKind::terminate()).expect("signals");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signals");
    // Everything that is started is stopped when its owner is dropped, and by a guard if we die.
    let demo = tokio::select! {
        demo = AssertUnwindSafe(run(check)).catch_unwind() => demo,
        _ = terminate.recv() => return ExitCode::SUCCESS,
        _ = interrupt.recv() => return ExitCode::SUCCESS,
    };
    // What was wrong has been said by then.
    let Ok(demo) = demo else { return ExitCode::FAILURE };
    if !check {
        // It goes on when one of them doesn't; what happens is said.
        demo.operator.may_exit();
        demo.provider.may_exit();
        println!(
            "\nIn another terminal:\n\n  source target/demo/env\n  kubectl get applicationlinks -A\n\nThe Pods' logs (no \
             kubelet serves kubectl logs): {}\nCtrl-C stops all of it.",
            demo.logs.display()
        );
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        println!("\nStopping. What target/demo/env names in other terminals is gone, too.");
    }
    let env = root().join("target/demo/env");
    // The file names what is about to go.
    let _ = std::fs::remove_file(env);
    demo.stop().await;
    ExitCode::SUCCESS
}

struct Demo {
    /// Where the Pods' folders are.
    logs: PathBuf,
    operator: Pod<'static>,
    provider: Pod<'static>,
    _hydra: Hydra,
    _release: Release<'static>,
}

impl Demo {
    async fn stop(mut self) {
        self.operator.stop().await;
        self.provider.stop().await;
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// The program that was built beside this one.
fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a program");
    me.parent().and_then(Path::parent).expect("a target folder").join("applink")
}

fn step(text: &str) {
    if std::io::stdout().is_terminal() { println!("\n\x1b[1m{text}\x1b[0m") } else { println!("\n== {text}") }
}

async fn run(check: bool) -> Demo {
    let started = Instant::now();
    step("A Kubernetes control plane");
    // It lives as long as this process does.
    let plane: &'static ControlPlane = Box::leak(Box::new(ControlPlane::start(Options::default()).await));
    println!("kube-apiserver at {}", plane.url());

    step("The chart");
    let (port, admin, consent) = (ports::free(), ports::free(), ports::free());
    let provider_url = format!("http://127.0.0.1:{port}");
    let values = json!({
        "bindAddress": "127.0.0.1",
        "log": {"format": "human"},
        // The provider of the demo is on this machine; without this, links may call public addresses alone.
        "outbound": {"allow": ["http://127.0.0.1"]},
        "operator": {"port": ports::free(), "metricsPort": ports::free()},
        // Where people consent. Loopback may be plain HTTP.
        "consent": {"url": format!("http://127.0.0.1:{consent}"), "port": consent},
        "provider": {
            "url": provider_url, "adminUrl": format!("http://127.0.0.1:{admin}"), "port": port, "adminPort": admin,
            "metricsPort": ports::free(), "healthPort": ports::free(),
        },
    });
    println!("$ helm install applink-operator charts/applink-operator -n {SYSTEM} --create-namespace …");
    let release = Release::install(plane, "applink-operator", SYSTEM, &values).await;
    let binary = binary();
    let mut operator = release.deployment_pod("applink-operator", &binary).await;
    let mut provider = release.stateful_set_pod("applink-operator-provider", &binary).await;
    operator.start().await;
    provider.start().await;
    provider.until_ready(SOON).await;
    operator.until_ready(SOON).await;
    env_file(plane, &provider_url);
    show(plane, &["get", "clusterlinkproviders"], async |out| out.contains("True")).await;

    step("Links");
    plane.kubectl(&["create", "namespace", TEAM]).await.ok();
    for example in EXAMPLES {
        let file = format!("deploy/examples/{example}.yaml");
        println!("$ kubectl apply -n {TEAM} -f {file}");
        print!(
            "{}",
            plane.kubectl(&["apply", "-n", TEAM, "-f", &root().join(&file).to_string_lossy()]).await.ok()
        );
    }
    let farm = include_str!("build-farm.yaml").replace("${PROVIDER_URL}", &provider_url);
    let file = plane.run_dir().write("build-farm.yaml", farm);
    println!(
        "$ kubectl apply -n {TEAM} -f tests/demo/build-farm.yaml   # a copy with the provider's address in it"
    );
    print!("{}", plane.kubectl(&["apply", "-n", TEAM, "-f", &file.to_string_lossy()]).await.ok());
    show(plane, &["get", "applicationlinks", "-n", TEAM], async |out| {
        out.lines().count() == 1 + EXAMPLES.len() + 2
            && out.matches("Connected").count() == 3
            // People can't sign in at the bundled provider yet.
            && out.matches("GrantTypeNotOffered").count() == 2
    })
    .await;

    step("The application's side: a token with what stands in its Secret");
    let secret = secret(plane, "build-farm-client").await;
    let text = |key: &str| secret[key].clone();
    println!(
        "$ curl -u \"$CLIENT_ID:$CLIENT_SECRET\" -d grant_type=client_credentials {}",
        text("token-endpoint")
    );
    let reply = curl(&text("token-endpoint"), &text("client-id"), &text("client-secret")).await;
    let reply: Value = serde_json::from_str(&reply).unwrap_or_else(|_| panic!("not JSON: {reply}"));
    assert_eq!(reply["scope"], "REPO_READ", "{reply}");
    let mut shown = reply.clone();
    shown["access_token"] = json!("(43 characters)");
    println!("{shown}");

    step("A new secret, and the old one works on for a day");
    println!("$ applink rotate build-farm -n {TEAM}");
    let mut command = Command::new(&binary);
    command.args(["rotate", "build-farm", "-n", TEAM]).env("KUBECONFIG", plane.kubeconfig());
    print!("{}", programs::run(command).await.ok());
    let rotated = secret_of(plane, "build-farm-client").await;
    assert_ne!(rotated["client-secret"], text("client-secret"));
    for (which, secret) in [("old", text("client-secret")), ("new", rotated["client-secret"].clone())] {
        let reply = curl(&text("token-endpoint"), &text("client-id"), &secret).await;
        assert!(reply.contains("access_token"), "the {which} secret: {reply}");
        println!("the {which} secret gets a token");
    }
    show(
        plane,
        &["get", "applicationlink", "build-farm", "-n", TEAM, "-o", "jsonpath={.status.incoming}"],
        async |out| out.contains("previousUntil"),
    )
    .await;

    step("Our side: a token that is kept fresh");
    let before = secret_of(plane, "repository-reader-token").await["access-token"].clone();
    println!("$ kubectl get applicationlink repository-reader -n {TEAM} -o jsonpath='{{.status.outgoing}}'");
    println!("{}", outgoing(plane).await);
    eventually(SOON, "another access token in the Secret repository-reader-token", async || {
        let now = secret_of(plane, "repository-reader-token").await["access-token"].clone();
        if now == before { Err("still the first one") } else { Ok(()) }
    })
    .await;
    println!("… and after the refresh:\n{}", outgoing(plane).await);
    let hydra = connect(plane, &binary).await;
    if check {
        println!("\nEvery step was as it should be.");
    }
    println!("\nReady in {} s.", started.elapsed().as_secs());
    let logs = plane.run_dir().path().join("pods").join(SYSTEM);
    Demo { logs, operator, provider, _hydra: hydra, _release: release }
}

/// A link that a person connects, at an Ory Hydra. The demo plays the person's browser.
async fn connect(plane: &ControlPlane, binary: &Path) -> Hydra {
    const SECRET: &str = "only-for-the-demo-0123456789";
    step("Our side, in the name of a person: consent, once");
    let app = ConsentApp::start().await;
    let hydra = Hydra::with_people(&app.login_url(), &app.consent_url()).await;
    app.serves(hydra.admin_url());
    let text = std::fs::read_to_string(root().join("deploy/examples/outgoing-authorization-code.yaml"));
    let text = text.expect("the example").replace("https://id.example.com", &hydra.issuer());
    let text =
        text.replace("client-id: REPLACE-ME", "client-id: release-notes").replace("REPLACE-ME", SECRET);
    let file = plane.run_dir().write("release-notes.yaml", text);
    println!(
        "$ kubectl apply -n {TEAM} -f deploy/examples/outgoing-authorization-code.yaml   # a copy with this server's address"
    );
    print!("{}", plane.kubectl(&["apply", "-n", TEAM, "-f", &file.to_string_lossy()]).await.ok());
    let path = "jsonpath={.status.outgoing.redirectUri}";
    let mut uri = String::new();
    show(plane, &["get", "applicationlink", "release-notes", "-n", TEAM, "-o", path], async |out| {
        uri = out.trim().to_owned();
        uri.starts_with("http")
    })
    .await;
    let scope = "notes:write offline_access";
    let client = json!({
        "client_id": "release-notes", "client_secret": SECRET, "redirect_uris": [uri], "scope": scope,
        "grant_types": ["authorization_code", "refresh_token"], "response_types": ["code"],
        "token_endpoint_auth_method": "client_secret_basic",
    });
    let (status, body) = hydra.admin(reqwest::Method::POST, "/admin/clients", Some(client)).await;
    assert_eq!(status, 201, "{body}");
    println!("… which is registered there, beside the client of the Secret.");
    println!("$ kubectl applink authorize release-notes -n {TEAM} --no-browser");
    let args = ["release-notes", "-n", TEAM, "--no-browser"];
    let mut tool = Authorize::run(binary, plane.kubeconfig(), &args);
    let code = person::consents(&tool.address().await, "ann").await;
    tool.type_in(&code).await;
    let (exit, said) = tool.end().await;
    assert_eq!(exit, Some(0), "{said}");
    // The ticket is used up; a page full of it shows nothing.
    let short = said.lines().map(|l| match l.split_once("?ticket=") {
        Some((address, _)) => format!("{address}?ticket=…"),
        None => l.to_owned(),
    });
    let short: Vec<_> = short.collect();
    println!("{}", short.join("\n"));
    show(plane, &["get", "applicationlink", "release-notes", "-n", TEAM], async |out| {
        out.contains("Connected")
    })
    .await;
    hydra
}

/// Shows a kubectl command once its output is as it should be.
async fn show(plane: &ControlPlane, args: &[&str], mut is_right: impl AsyncFnMut(&str) -> bool) {
    let out = eventually(SOON, format!("kubectl {}", args.join(" ")), async || {
        let out = plane.kubectl(args).await.ok();
        if is_right(&out).await { Ok(out) } else { Err(out) }
    })
    .await;
    println!("$ kubectl {}", args.iter().map(|a| quoted(a)).collect::<Vec<_>>().join(" "));
    println!("{}", out.trim_end());
}

/// An argument as it is pasted into a shell.
fn quoted(arg: &str) -> String {
    match arg.strip_prefix("jsonpath=") {
        Some(path) => format!("jsonpath='{path}'"),
        None => arg.to_owned(),
    }
}

async fn outgoing(plane: &ControlPlane) -> String {
    let path = "jsonpath={.status.outgoing}";
    plane.kubectl(&["get", "applicationlink", "repository-reader", "-n", TEAM, "-o", path]).await.ok()
}

async fn secret(plane: &ControlPlane, name: &str) -> std::collections::BTreeMap<String, String> {
    secret_of(plane, name).await
}

async fn secret_of(plane: &ControlPlane, name: &str) -> std::collections::BTreeMap<String, String> {
    let api: kube::Api<k8s_openapi::api::core::v1::Secret> = kube::Api::namespaced(plane.client(), TEAM);
    support::stage::text(&api.get(name).await.expect("the Secret"))
}

/// Asks as an application would. The credentials go in by a file, since arguments are for everybody to see.
async fn curl(url: &str, id: &str, secret: &str) -> String {
    let file = tempfile::NamedTempFile::new().expect("a file");
    std::fs::write(file.path(), format!("user = \"{id}:{secret}\"\n")).expect("a file");
    let mut command = Command::new("curl");
    command.args(["-sS", "--fail-with-body", "--noproxy", "*", "-d", "grant_type=client_credentials", "-K"]);
    command.arg(file.path()).arg(url);
    programs::run(command).await.ok()
}

/// What another terminal sources. `applink` is there also as kubectl's plugin.
fn env_file(plane: &ControlPlane, provider_url: &str) {
    let folder = root().join("target/demo");
    let bin = folder.join("bin");
    std::fs::create_dir_all(&bin).expect("target/demo/bin");
    for name in ["applink", "kubectl-applink"] {
        let link = bin.join(name);
        let _ = std::fs::remove_file(&link);
        std::os::unix::fs::symlink(binary(), &link).expect("target/demo/bin");
    }
    let text = format!(
        "export KUBECONFIG='{}'\nexport PATH='{}':'{}':\"$PATH\"\nexport PROVIDER_URL='{provider_url}'\n",
        plane.kubeconfig().display(),
        plane.bin().display(),
        bin.display(),
    );
    std::fs::write(folder.join("env"), text).expect("target/demo/env");
}
