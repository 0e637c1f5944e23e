//! A person connects an outgoing link: the tool, the pages in a real browser, real servers, and what must not go.

mod device;
mod elsewhere;
mod hydra;
mod id_tokens;
mod keycloak;
mod metadata;
mod places;
mod refusals;
mod refused;
mod token_types;
mod tool;

use serde_json::{Value, json};

use super::binary;
use crate::support::authorize::Authorize;
use crate::support::plane::ControlPlane;
use crate::support::ports;
use crate::support::stage::{SOON, Stage, merge};
use crate::support::wait::eventually;

/// An operator with an address for people.
pub async fn stage() -> Stage<'static> {
    let port = ports::free();
    let consent = json!({"consent": {"url": format!("http://127.0.0.1:{port}/links"), "port": port}});
    Stage::set(ControlPlane::shared().await, binary(), 1, consent).await
}

/// A link that a person connects, with the Secret NAME-client.
pub fn link(name: &str, server: Value, more: Value) -> Value {
    let mut link = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {"application": {"name": "Issue tracker"}, "outgoing": {"oauth2": {
            "server": {"custom": server},
            "grant": {"authorizationCode": {}},
            "client": {"secretRef": {"name": format!("{name}-client")}},
        }}},
    });
    merge(&mut link["spec"]["outgoing"]["oauth2"], more);
    link
}

/// The redirect URI that a link's status shows.
pub async fn redirect_uri(stage: &Stage<'_>, name: &str) -> String {
    let links = stage.links(stage.team());
    eventually(SOON, "a redirect URI in the status", async || {
        let link = links.get(name).await.map_err(|e| e.to_string())?;
        let outgoing = link.status.and_then(|s| s.outgoing).ok_or("no status")?;
        outgoing.redirect_uri.ok_or_else(|| "none yet".to_owned())
    })
    .await
}

/// Runs `applink authorize` for a link of the first team.
pub fn authorize(stage: &Stage<'_>, name: &str, more: &[&str]) -> Authorize {
    let mut args = vec![name, "-n", stage.team()];
    args.extend(more);
    Authorize::run(binary(), stage.plane.kubeconfig(), &args)
}

/// Waits until nothing is kept of a consent, and no annotation of one is left.
pub async fn nothing_left(stage: &Stage<'_>, name: &str) {
    let links = stage.links(stage.team());
    let records = stage.secrets(&stage.system);
    eventually(SOON, "no trace of a consent", async || {
        let link = links.get(name).await.map_err(|e| e.to_string())?;
        let uid = link.metadata.uid.clone().expect("a UID");
        let kept = records.get_opt(&format!("applink-consent-{uid}")).await.map_err(|e| e.to_string())?;
        let annotations = link.metadata.annotations.unwrap_or_default();
        let stays: Vec<_> = annotations.keys().filter(|k| k.contains("authoriz")).collect();
        if kept.is_none() && stays.is_empty() { Ok(()) } else { Err(format!("{} {stays:?}", kept.is_some())) }
    })
    .await;
}
