//! What several of these tests ask and do.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::stage::{SOON, Stage, http, merge, text};
use crate::support::wait::{always, eventually};

/// Long enough for a pass that is due to have come.
pub const A_WHILE: Duration = Duration::from_millis(1500);

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

/// A provider object of either kind for the stage's service.
pub fn provider(stage: &Stage<'_>, kind: &str, name: &str, token_secret: &str) -> Value {
    let mut provider = json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": kind,
        "metadata": {"name": name},
        "spec": {"bundled": {
            "url": stage.provider_url,
            "admin": {"url": stage.admin_url, "tokenSecretRef": {"name": token_secret, "key": "token"}},
        }},
    });
    if kind == "ClusterLinkProvider" {
        provider["metadata"]["labels"] = json!({"applink-operator.io/operator-namespace": stage.system});
        provider["spec"]["allow"] = json!({"namespaces": {"names": stage.teams}});
    }
    provider
}

/// Whether the credentials of a Secret open the provider: by a revocation, as RFC 7009 has it.
pub async fn authenticates(stage: &Stage<'_>, data: &BTreeMap<String, String>) -> bool {
    let field = |k: &str| data.get(k).cloned().unwrap_or_default();
    let (id, secret) = (field("client-id"), field("client-secret"));
    let mut form = vec![("token", "none".to_owned())];
    let mut request = http().post(format!("{}/oauth2/revoke", stage.provider_url));
    if field("token-endpoint-auth-method") == "client_secret_post" {
        form.extend([("client_id", id), ("client_secret", secret)]);
    } else {
        request = request.basic_auth(id, Some(secret));
    }
    request.form(&form).send().await.expect("the provider answers").status() == 200
}

/// The data of a Secret as it is now, if it is there.
pub async fn data(stage: &Stage<'_>, namespace: &str, name: &str) -> Option<BTreeMap<String, String>> {
    stage.secrets(namespace).get_opt(name).await.expect("an answer").as_ref().map(text)
}

/// Waits until a Secret is there and satisfies `is`.
pub async fn secret(
    stage: &Stage<'_>,
    namespace: &str,
    name: &str,
    what: &str,
    is: impl Fn(&Secret) -> bool,
) -> Secret {
    eventually(SOON, format!("Secret {namespace}/{name}: {what}"), async || {
        let secret = stage.secrets(namespace).get(name).await.map_err(|e| e.to_string())?;
        if is(&secret) {
            Ok(secret)
        } else {
            Err(format!("{:?} {:?}", secret.metadata, secret.data.map(|d| d.into_keys().collect::<Vec<_>>())))
        }
    })
    .await
}

/// Waits until a Secret is gone.
pub async fn no_secret(stage: &Stage<'_>, namespace: &str, name: &str) {
    eventually(SOON, format!("no Secret {namespace}/{name}"), async || {
        data(stage, namespace, name).await.is_none()
    })
    .await;
}

/// Patches a Secret as somebody else.
pub async fn patch_secret(stage: &Stage<'_>, namespace: &str, name: &str, patch: Value) {
    let params = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    stage.secrets(namespace).patch(name, &params, &Patch::Merge(patch)).await.expect("a patch");
}

/// Patches a link as somebody else.
pub async fn patch_link(stage: &Stage<'_>, namespace: &str, name: &str, patch: Value) {
    let params = PatchParams { field_manager: Some("somebody".into()), ..PatchParams::default() };
    stage.links(namespace).patch(name, &params, &Patch::Merge(patch)).await.expect("a patch");
}

/// A client at the provider, without its owner and times.
pub async fn client(stage: &Stage<'_>, id: &str) -> Option<Value> {
    let (status, body) = stage.admin(Method::GET, &format!("/admin/clients/{id}"), None).await;
    match status {
        200 => Some(body),
        404 => None,
        other => panic!("HTTP {other}: {body}"),
    }
}

/// Waits until a client at the provider satisfies `is`.
pub async fn client_is(stage: &Stage<'_>, id: &str, what: &str, is: impl Fn(&Value) -> bool) -> Value {
    eventually(SOON, format!("client {id}: {what}"), async || match client(stage, id).await {
        Some(c) if is(&c) => Ok(c),
        other => Err(format!("{other:?}")),
    })
    .await
}

/// Waits until nothing is registered at the provider.
pub async fn no_clients(stage: &Stage<'_>) {
    eventually(SOON, "no client at the provider", async || {
        let left = stage.clients().await;
        if left.is_empty() { Ok(()) } else { Err(format!("{left:?}")) }
    })
    .await;
}

/// The message of a link's condition.
pub async fn message(stage: &Stage<'_>, namespace: &str, name: &str, type_: &str) -> String {
    let link = stage.links(namespace).get(name).await.expect("the link");
    let status = serde_json::to_value(&link.status).expect("json");
    let found = crate::support::stage::condition(&status, type_).cloned().unwrap_or_default();
    found["message"].as_str().unwrap_or_default().to_owned()
}

/// Goes on holding for a while.
pub async fn stays<O: crate::support::wait::Outcome>(what: &str, look: impl AsyncFnMut() -> O) {
    always(A_WHILE, what, look).await;
}
