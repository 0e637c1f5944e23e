//! Conditions name at once all that is wrong of a kind, so that who mends it needs one go.

use kube::api::DeleteParams;
use serde_json::{Value, json};

use super::binary;
use crate::support::plane::ControlPlane;
use crate::support::stage::Stage;
use crate::support::wait::{SOON, eventually};

fn link(name: &str, grant: Value, client: Value) -> Value {
    json!({
        "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": name},
        "spec": {"application": {"name": "CI"}, "outgoing": {"oauth2": {
            "server": {"custom": {"tokenEndpoint": "https://ci.example.com/token"}},
            "grant": grant, "client": client,
        }}},
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn all_that_is_missing_of_a_secret() {
    let plane = ControlPlane::shared().await;
    let stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let client = json!({"secretRef": {"name": "s"}});
    let machine = || json!({"clientCredentials": {}});
    let seed = |name: &str| json!({"refreshToken": {"secretRef": {"name": name, "key": "seed"}}});
    stage.apply_object(&team, &link("machine", machine(), client.clone())).await;
    stage.apply_object(&team, &link("seeded", seed("s"), client.clone())).await;
    stage.apply_object(&team, &link("apart", seed("t"), client)).await;
    for (data, link, says) in [
        (None, "machine", "Secret s doesn't exist; create it with the keys client-id, client-secret"),
        (None, "seeded", "Secret s doesn't exist; create it with the keys client-id, client-secret, seed"),
        (None, "apart", "Secret s doesn't exist; create it with the keys client-id, client-secret"),
        (Some(vec![("x", "y")]), "machine", "Secret s has no keys client-id, client-secret; add them"),
        (Some(vec![("seed", "y")]), "seeded", "Secret s has no keys client-id, client-secret; add them"),
        (Some(vec![("client-id", "y")]), "seeded", "Secret s has no keys client-secret, seed; add them"),
        (
            Some(vec![("client-id", "y"), ("seed", "z")]),
            "seeded",
            "Secret s has no key client-secret; add it",
        ),
        (
            Some(vec![("client-id", "\n"), ("client-secret", "")]),
            "machine",
            "keys client-id, client-secret of Secret s are empty or not text; fill them",
        ),
        (
            Some(vec![("client-id", ""), ("seed", "z")]),
            "seeded",
            "Secret s has no key client-secret; add it; key client-id of Secret s is empty or not text; fill it",
        ),
    ] {
        if let Some(data) = &data {
            // Anew, since an apply leaves the keys that were there.
            let secrets = stage.secrets(&team);
            if secrets.get_metadata_opt("s").await.expect("an answer").is_some() {
                secrets.delete("s", &DeleteParams::default()).await.expect("deleted");
            }
            stage.put_secret(&team, "s", data).await;
        }
        let links = stage.links(&team);
        eventually(SOON, format!("{data:?}: {link}: {says}"), async || {
            let link = links.get(link).await.map_err(|e| e.to_string())?;
            let conditions = link.status.map(|s| s.conditions).unwrap_or_default();
            let ready = conditions.into_iter().find(|c| c.type_ == "Ready").ok_or("no condition yet")?;
            // Whole: nothing more is named than is missing.
            if ready.message.ends_with(&format!(": {says}")) { Ok(()) } else { Err(ready.message) }
        })
        .await;
    }
}
