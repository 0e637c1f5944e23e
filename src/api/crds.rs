//! The three CRDs as they are installed.

use super::{ApplicationLink, ClusterLinkProvider, LinkProvider};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt as _;
use serde_json::{Value, json};

/// The CRDs, in the order in which they are written.
///
/// # Errors
/// Only if a type's schema isn't what the derive macro promises.
pub fn all() -> Result<Vec<CustomResourceDefinition>, serde_json::Error> {
    [ApplicationLink::crd(), LinkProvider::crd(), ClusterLinkProvider::crd()]
        .into_iter()
        .map(finish)
        .collect()
}

/// An object without a status reads as current to kstatus; so each one gets a status that says
/// that nothing was observed yet, served from the first read on without a write.
fn finish(crd: CustomResourceDefinition) -> Result<CustomResourceDefinition, serde_json::Error> {
    let mut value = serde_json::to_value(crd)?;
    if let Some(status) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema/properties/status") {
        status["default"] = json!({ "observedGeneration": -1 });
        if let Some(o) = status.as_object_mut() {
            o.remove("nullable");
        }
    }
    strip_formats(&mut value);
    serde_json::from_value(value)
}

/// Kubernetes knows no `uint*` formats, and `int32`/`int64` say nothing more than `integer` here.
fn strip_formats(value: &mut Value) {
    match value {
        Value::Object(map) => {
            if map.get("format").and_then(Value::as_str).is_some_and(|f| f.starts_with("uint")) {
                map.remove("format");
            }
            map.values_mut().for_each(strip_formats);
        }
        Value::Array(items) => items.iter_mut().for_each(strip_formats),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_field_is_described() {
        fn walk(path: &str, v: &Value, missing: &mut Vec<String>) {
            if let Some(props) = v.get("properties").and_then(Value::as_object) {
                for (name, prop) in props {
                    let here = format!("{path}.{name}");
                    let known = ["apiVersion", "kind", "metadata", "spec", "status"].contains(&name.as_str())
                        && path.is_empty();
                    if !known && prop.get("description").is_none() {
                        missing.push(here.clone());
                    }
                    walk(&here, prop, missing);
                }
            }
            if let Some(items) = v.get("items") {
                walk(&format!("{path}[]"), items, missing);
            }
        }
        for crd in all().expect("crds") {
            let value = serde_json::to_value(&crd).expect("json");
            let mut missing = Vec::new();
            walk("", &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"], &mut missing);
            assert!(missing.is_empty(), "{missing:?}");
        }
    }

    #[test]
    fn a_new_object_reads_as_not_yet_observed() {
        for crd in all().expect("crds") {
            let value = serde_json::to_value(&crd).expect("json");
            assert_eq!(
                value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"]["default"],
                json!({ "observedGeneration": -1 })
            );
        }
    }
}
