//! The tools, as people and pipelines run them: the binary itself, its output and its exit codes.

mod completion;
mod credentials;
mod doctor;
mod import;
mod lint;
mod orphans;
mod plan;
mod rotate;
mod rotate_key;
mod status;
mod ui;

use std::ffi::OsStr;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::api::{Api, PostParams};
use serde_json::{Value, json};

use crate::support::access::Credential;
use crate::support::plane::ControlPlane;
use crate::support::programs::{Output, run};
use crate::support::stage::{merge, unique};

/// The binary under test.
pub fn binary() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_applink"))
}

/// A run of the tool without any environment but a home that is empty.
pub fn command<S: AsRef<OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(binary());
    command.env_clear().env("HOME", "/nonexistent").stdin(Stdio::null()).args(args);
    command
}

/// Runs the tool without a cluster.
pub async fn offline(args: &[&str]) -> Output {
    run(command(args)).await
}

/// Runs the tool with something on its standard input.
pub async fn fed(args: &[&str], input: &str) -> Output {
    let mut file = tempfile::tempfile().expect("a file");
    file.write_all(input.as_bytes()).expect("written");
    std::io::Seek::rewind(&mut file).expect("rewound");
    let mut command = command(args);
    command.stdin(Stdio::from(file));
    run(command).await
}

/// Runs the tool with a kubeconfig.
pub async fn with(kubeconfig: &Path, args: &[&str]) -> Output {
    let mut command = command(args);
    command.env("KUBECONFIG", kubeconfig);
    run(command).await
}

/// An incoming link for machines, with these changes of its spec.
pub fn machine(name: &str, more: Value) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
        "metadata": {"name": name},
        "spec": {
            "application": {"name": "CI"},
            "incoming": {"oauth2": {"grantTypes": ["client_credentials"]}},
        },
    });
    merge(&mut link["spec"], more);
    link
}

/// What a run printed as JSON.
pub fn json_of(output: &Output) -> Value {
    serde_json::from_str(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"))
}

/// Somebody with these rules in a namespace and no others; gives back their kubeconfig.
pub async fn user(plane: &ControlPlane, namespace: &str, rules: Value) -> PathBuf {
    let name = format!("user-{}", unique());
    let objects = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": {"name": name}, "rules": rules},
        {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "RoleBinding", "metadata": {"name": name},
         "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name},
         "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}]},
    ]});
    crate::support::objects::apply(plane.access(), None, namespace, &objects.to_string()).await.ok();
    let accounts: Api<ServiceAccount> = Api::namespaced(plane.client(), namespace);
    let request = TokenRequest {
        spec: TokenRequestSpec { audiences: Vec::new(), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let answer =
        accounts.create_token_request(&name, &PostParams::default(), &request).await.expect("a token");
    let path = plane.run_dir().path().join(format!("{name}.kubeconfig"));
    plane.write_kubeconfig(&path, namespace, &Credential::Token(&answer.status.expect("a status").token));
    path
}

/// That nothing in a text can steer a terminal.
#[track_caller]
pub fn assert_harmless(text: &str) {
    let bad = |c: &char| (c.is_control() && *c != '\n') || matches!(*c, '\u{202a}'..='\u{202e}');
    assert!(!text.chars().any(|c| bad(&c)), "{text:?}");
}
