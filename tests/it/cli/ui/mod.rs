//! `applink ui`: the links page, as a person uses it in a real browser, on a real API server.

mod life;
mod list;
mod security;

use std::path::Path;

use serde_json::{Value, json};

use super::binary;
use crate::support::browser::Browser;
use crate::support::plane::ControlPlane;
use crate::support::process::{Process, Program};
use crate::support::stage::{crds, unique};
use crate::support::wait::{SOON, eventually};

/// A running `applink ui`.
struct Ui {
    process: Process,
    /// The printed address, with its secret.
    address: String,
    /// The page's own.
    origin: String,
}

impl Ui {
    async fn start(plane: &ControlPlane, kubeconfig: &Path, args: &[&str]) -> Self {
        let log = plane.run_dir().path().join(format!("ui-{}.log", unique()));
        let process = Program::new(binary(), log)
            .args(["ui", "--kubeconfig"])
            .args([kubeconfig])
            .args(args)
            .env("HOME", "/nonexistent")
            .start();
        let address = eventually(SOON, "the page's address", async || {
            process.must_run();
            process.log().lines().find(|l| l.contains("/?key=")).map(str::to_owned)
        })
        .await;
        let origin = address.split_once("/?").expect("an address").0.to_owned();
        Self { process, address, origin }
    }

    /// The address of a page.
    fn at(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }

    /// Opens the printed address, as its user does.
    async fn open(&self, browser: &Browser) {
        browser.goto(&self.address).await;
        assert_eq!(browser.place().await, "/", "the secret is gone from the address");
    }
}

/// The application's name as link `ci` has it.
async fn stored_name(plane: &ControlPlane, namespace: &str) -> String {
    let path = "jsonpath={.spec.application.name}";
    plane.kubectl(&["get", "applicationlink", "ci", "-n", namespace, "-o", path]).await.ok()
}

/// A namespace that no operator watches.
async fn desk() -> (&'static ControlPlane, String) {
    let plane = ControlPlane::shared().await;
    crds(plane).await;
    (plane, plane.namespace("ui").await)
}

async fn apply(plane: &ControlPlane, namespace: &str, object: &Value) {
    let file = plane.run_dir().write(format!("ui-{}.json", unique()), object.to_string());
    // Not kubectl apply, whose annotation would say that a file keeps the link.
    plane.kubectl(&["create", "-n", namespace, "-f", &file.to_string_lossy()]).await.ok();
}

/// An incoming link, by what the list shows.
fn named(name: &str, application: &str) -> Value {
    super::machine(name, json!({"application": {"name": application}}))
}

/// The links that the list shows, by their application, from the top.
async fn applications(browser: &Browser) -> Vec<String> {
    let script = "return [...document.querySelectorAll('#rows .name')].map(a => a.textContent);";
    let names = browser.script(script).await;
    names.as_array().expect("a list").iter().map(|n| n.as_str().expect("a name").to_owned()).collect()
}

/// Presses Tab until the element of this id has the focus.
async fn tab_to(browser: &Browser, id: &str) {
    let mut seen = Vec::new();
    for _ in 0..60 {
        let now = browser.script("return document.activeElement.id || document.activeElement.name || document.activeElement.tagName;").await;
        if now == id {
            return;
        }
        seen.push(now.to_string());
        browser.press("\u{e004}").await;
    }
    panic!("Tab never leads to {id}: {seen:?}");
}
