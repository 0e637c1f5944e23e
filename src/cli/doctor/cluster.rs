//! The API server, the CRDs, the user's rights and the operator.

use super::{Check, Outcome, provider::skew};
use crate::api::names;
use crate::cli::ToolError;
use crate::cli::cluster::{Cluster, failed, is_forbidden, why};
use crate::cli::output::span;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, PostParams};
use kube::client::Body;
use kube::{Api, ResourceExt as _};
use std::time::Duration;

/// The labels of the chart's operator.
const OPERATOR: &str = "app.kubernetes.io/name=applink-operator,app.kubernetes.io/component=operator";
/// A lease may be this much older than it lasts before it counts as ended: clocks differ.
const SLACK: i64 = 10;

/// Whether the API server answers, and whether its clock is ours.
pub async fn api_server(at: &Cluster) -> Result<Check, ToolError> {
    let what = "the API server";
    let request = axum::http::Request::get("/version").body(Body::empty());
    let request = request.map_err(|e| ToolError::Config(e.to_string()))?;
    let answer = at.client.send(request).await.map_err(failed(what))?;
    let date = answer.headers().get("date").and_then(|v| v.to_str().ok()).map(str::to_owned);
    if answer.status().as_u16() == 401 {
        return Err(ToolError::Kube {
            what: what.into(),
            why: "it doesn't know you (HTTP 401); log in again, or choose another --context".into(),
        });
    }
    Ok(skew("api-server", "", "answers", date.as_deref()))
}

/// Whether the CRDs are there and are those that this tool has. `false` where one isn't served.
pub async fn crds(at: &Cluster) -> Result<(bool, Vec<Check>), ToolError> {
    let api: Api<CustomResourceDefinition> = Api::all(at.client.clone());
    let apply = "install them: applink crds | kubectl apply --server-side -f -";
    let mut checks = Vec::new();
    let mut served = true;
    for wanted in crate::api::crds::all()? {
        let name = wanted.name_any();
        let check = |result, message: &str| Check::new("crds", name.clone(), result, message);
        checks.push(match api.get_opt(&name).await {
            Ok(None) => {
                served = false;
                check(Outcome::Fail, "isn't installed").way_out(apply)
            }
            Ok(Some(found)) => {
                let conditions = found.status.iter().flat_map(|s| s.conditions.iter().flatten());
                let established =
                    conditions.into_iter().any(|c| c.type_ == "Established" && c.status == "True");
                served &= established;
                if !established {
                    check(Outcome::Fail, "isn't served yet")
                        .way_out("look at its conditions: kubectl describe crd")
                } else if same(&found, &wanted) {
                    check(Outcome::Ok, "is installed and current")
                } else {
                    let version = env!("CARGO_PKG_VERSION");
                    check(Outcome::Warn, &format!("differs from what applink {version} has")).way_out(
                        "use CRDs, operator and applink of one version: upgrade the chart, or this tool",
                    )
                }
            }
            Err(e) if is_forbidden(&e) => {
                let kinds = at.client.list_api_group_resources(&format!("{}/v1alpha1", names::GROUP)).await;
                let plural = &wanted.spec.names.plural;
                if kinds.is_ok_and(|k| k.resources.iter().any(|r| r.name == *plural)) {
                    check(Outcome::Ok, "is served; you may not read it, so its version isn't compared")
                } else {
                    served = false;
                    check(Outcome::Fail, "isn't served").way_out(apply)
                }
            }
            Err(e) => return Err(failed(name)(e)),
        });
    }
    Ok((served, checks))
}

fn same(a: &CustomResourceDefinition, b: &CustomResourceDefinition) -> bool {
    let versions = |c: &CustomResourceDefinition| -> Vec<_> {
        c.spec.versions.iter().map(|v| (v.name.clone(), serde_json::to_value(&v.schema).ok())).collect()
    };
    versions(a) == versions(b)
}

/// What the user may do, and what won't work without it.
pub async fn rights(at: &Cluster) -> Vec<Check> {
    let own = Some(at.namespace.as_str());
    let wanted: [(&str, &str, &str, Option<&str>, &str); 6] = [
        ("list", names::GROUP, "applicationlinks", own, "status and doctor"),
        ("patch", names::GROUP, "applicationlinks", own, "rotate and authorize"),
        ("get", "", "secrets", own, "credentials, and proving them here"),
        ("list", "", "secrets", own, "the state of Secrets in status"),
        ("list", names::GROUP, "linkproviders", own, "the providers of the namespace in status and doctor"),
        ("list", names::GROUP, "clusterlinkproviders", None, "the cluster's providers in status and doctor"),
    ];
    let api: Api<SelfSubjectAccessReview> = Api::all(at.client.clone());
    let mut checks = Vec::new();
    let mut granted = Vec::new();
    for (verb, group, resource, namespace, use_) in wanted {
        let review = SelfSubjectAccessReview {
            spec: SelfSubjectAccessReviewSpec {
                resource_attributes: Some(ResourceAttributes {
                    verb: Some(verb.into()),
                    group: Some(group.into()),
                    resource: Some(resource.into()),
                    namespace: namespace.map(str::to_owned),
                    ..ResourceAttributes::default()
                }),
                ..SelfSubjectAccessReviewSpec::default()
            },
            ..SelfSubjectAccessReview::default()
        };
        let right = format!("{verb} {resource}");
        let place = namespace.map_or_else(|| "the cluster".to_owned(), |n| format!("namespace {n}"));
        match api.create(&PostParams::default(), &review).await {
            Ok(answer) if answer.status.as_ref().is_some_and(|s| s.allowed) => granted.push(right),
            Ok(_) => checks.push(
                Check::new(
                    "rights",
                    right.clone(),
                    Outcome::Warn,
                    format!("you may not, so this won't work: {use_}"),
                )
                .way_out(format!("have somebody grant you {right} in {place}")),
            ),
            Err(e) => checks.push(Check::new("rights", right, Outcome::Skipped, why(&e))),
        }
    }
    if !granted.is_empty() {
        checks.insert(0, Check::new("rights", "", Outcome::Ok, format!("you may {}", granted.join(", "))));
    }
    checks
}

/// Whether the operator runs and one of its Pods leads.
pub async fn operator(at: &Cluster, namespace: Option<&str>) -> Vec<Check> {
    let api: Api<Deployment> = match namespace {
        Some(namespace) => Api::namespaced(at.client.clone(), namespace),
        None => Api::all(at.client.clone()),
    };
    let skipped = |why: String| {
        let check = Check::new("operator", "", Outcome::Skipped, why);
        vec![
            check.way_out("give its namespace with --operator-namespace, or ask somebody who may look there"),
        ]
    };
    let found = match api.list(&ListParams::default().labels(OPERATOR)).await {
        Ok(found) => found.items,
        Err(e) => return skipped(why(&e)),
    };
    if found.is_empty() {
        let place = namespace.map_or_else(|| "any namespace".to_owned(), |n| format!("namespace {n}"));
        let check =
            Check::new("operator", "", Outcome::Fail, format!("no Deployment of the operator in {place}"));
        return vec![check.way_out("install the chart applink-operator")];
    }
    let mut checks = Vec::new();
    for deployment in &found {
        let namespace = deployment.namespace().unwrap_or_default();
        let subject = format!("{namespace}/{}", deployment.name_any());
        let available = deployment.status.as_ref().and_then(|s| s.available_replicas).unwrap_or(0);
        let wanted = deployment.spec.as_ref().and_then(|s| s.replicas).unwrap_or(1);
        let result = if available > 0 { Outcome::Ok } else { Outcome::Fail };
        let check = Check::new(
            "operator",
            subject.clone(),
            result,
            format!("{available} of {wanted} Pods available"),
        );
        checks.push(if available > 0 {
            check
        } else {
            check.way_out(format!(
                "see why: kubectl describe deployment -n {namespace} {}",
                deployment.name_any()
            ))
        });
        checks.push(lease(at, &namespace, &lease_name(deployment), &subject).await);
    }
    checks
}

/// The name of the lease is an argument of the container.
fn lease_name(deployment: &Deployment) -> String {
    let containers =
        deployment.spec.iter().filter_map(|s| s.template.spec.as_ref()).flat_map(|p| &p.containers);
    let mut args = containers.flat_map(|c| c.args.iter().flatten());
    args.find_map(|a| a.strip_prefix("--lease=")).map_or_else(|| deployment.name_any(), str::to_owned)
}

async fn lease(at: &Cluster, namespace: &str, name: &str, subject: &str) -> Check {
    let api: Api<Lease> = Api::namespaced(at.client.clone(), namespace);
    let check = |result, message: String| Check::new("lease", subject, result, message);
    let logs = format!("see the operator's log: kubectl logs -n {namespace} -l {OPERATOR}");
    let lease = match api.get_opt(name).await {
        Ok(Some(lease)) => lease,
        Ok(None) => {
            return check(Outcome::Fail, format!("no lease {name}: no operator has led yet")).way_out(logs);
        }
        Err(e) => return check(Outcome::Skipped, why(&e)),
    };
    let spec = lease.spec.unwrap_or_default();
    let holder = spec.holder_identity.filter(|h| !h.is_empty());
    let (Some(holder), Some(renewed)) = (holder, spec.renew_time) else {
        return check(Outcome::Fail, "nobody leads".into()).way_out(logs);
    };
    let age = Timestamp::now().duration_since(renewed.0).as_secs();
    let said = format!("{holder} leads, renewed {} ago", span(age.max(0).unsigned_abs()));
    if age > i64::from(spec.lease_duration_seconds.unwrap_or(15)) + SLACK {
        return check(Outcome::Fail, format!("{said}: it doesn't run any more")).way_out(logs);
    }
    check(Outcome::Ok, said)
}

/// A difference of clocks that is worth a word.
pub const SKEW: Duration = Duration::from_secs(5);
