//! What the operator makes for the bundled provider: its admin token, and the
//! `ClusterLinkProvider`. The operator makes them and no template does, so that rendering the chart
//! twice gives the same, and nothing secret stands in a release.

use super::connections::random_secret;
use super::problem::Problem;
use crate::api::provider::{Allow, Bundled};
use crate::api::{ClusterLinkProvider, names};
use crate::domain::ExposeSecret as _;
use crate::domain::Reason;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams, PostParams};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use serde_json::json;
use std::collections::BTreeMap;

/// The key of the admin token in its Secret.
pub const TOKEN_KEY: &str = "token";

/// The bundled provider as the chart describes it.
#[derive(Debug, Clone)]
pub struct BundledSettings {
    /// Name of the `ClusterLinkProvider`.
    pub name: String,
    /// Its spec.
    pub bundled: Bundled,
    /// Who may use it, when it is made.
    pub allow: Allow,
    /// Whether it is the default, when it is made.
    pub default: bool,
}

/// Makes what is missing. What a person changed stays, but for the addresses, which are the
/// chart's to say.
///
/// # Errors
/// [`Problem`] when the API server refuses, or the name is taken.
pub async fn ensure(client: &Client, namespace: &str, settings: &BundledSettings) -> Result<(), Problem> {
    admin_token(client, namespace, &settings.bundled.admin.token_secret_ref.name).await?;
    let api: Api<ClusterLinkProvider> = Api::all(client.clone());
    let what = format!("ClusterLinkProvider {}", settings.name);
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
    let Some(found) = api.get_opt(&settings.name).await.map_err(|e| Problem::kube(&what, &e))? else {
        let mut provider = json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ClusterLinkProvider",
            "metadata": {
                "name": settings.name,
                "labels": {
                    names::MANAGED_BY: names::MANAGED_BY_VALUE,
                    names::OPERATOR_NAMESPACE: namespace,
                },
            },
            "spec": { "bundled": settings.bundled, "allow": settings.allow },
        });
        if settings.default {
            provider["metadata"]["annotations"] = json!({ names::DEFAULT_PROVIDER: "true" });
        }
        let provider: ClusterLinkProvider = serde_json::from_value(provider).map_err(|_| {
            Problem::edit(Reason::InvalidSpec, "the bundled provider's settings aren't a ClusterLinkProvider")
        })?;
        return match api.create(&params, &provider).await {
            Ok(_) => Ok(()),
            Err(e) => Err(Problem::kube(&what, &e)),
        };
    };
    if found.labels().get(names::OPERATOR_NAMESPACE).is_none_or(|n| n != namespace) {
        return Err(Problem::edit(
            Reason::NameTaken,
            format!(
                "{what} exists and belongs to another operator, or to nobody; set provider.name in the chart's values to another name"
            ),
        ));
    }
    let Some(there) = &found.spec.bundled else {
        return Err(Problem::edit(
            Reason::NameTaken,
            format!(
                "{what} exists and isn't the bundled provider; set provider.name in the chart's values to another name"
            ),
        ));
    };
    if there.url != settings.bundled.url {
        return Err(Problem::edit(
            Reason::IssuerFixed,
            format!(
                "{what} has the url {}, and the chart's values now say {}; a provider's address is its identity and can't \
                 change: set provider.url back, or set provider.name too, for another provider",
                there.url, settings.bundled.url
            ),
        ));
    }
    if there.admin == settings.bundled.admin {
        return Ok(());
    }
    let params = PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({ "spec": { "bundled": { "admin": settings.bundled.admin } } }));
    api.patch(&settings.name, &params, &patch).await.map(drop).map_err(|e| Problem::kube(&what, &e))
}

async fn admin_token(client: &Client, namespace: &str, name: &str) -> Result<(), Problem> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let what = format!("Secret {name}");
    if api.get_metadata_opt(name).await.map_err(|e| Problem::kube(&what, &e))?.is_some() {
        return Ok(());
    }
    let token = random_secret()
        .ok_or_else(|| Problem::wait(Reason::NoRandomness, "the system gives no random bytes"))?;
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some(BTreeMap::from([
                (names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into()),
                (names::COMPONENT.into(), "admin-token".into()),
            ])),
            ..ObjectMeta::default()
        },
        data: Some(BTreeMap::from([(
            TOKEN_KEY.to_owned(),
            ByteString(token.expose_secret().as_bytes().to_vec()),
        )])),
        ..Secret::default()
    };
    let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
    match api.create(&params, &secret).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(s)) if s.code == 409 => Ok(()),
        Err(e) => Err(Problem::kube(&what, &e)),
    }
}
