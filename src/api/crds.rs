//! The three CRDs as they are installed.

use super::{ApplicationLink, ClusterLinkProvider, LinkProvider, schema};
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
    if let Some(root) = value.pointer_mut("/spec/versions/0/schema/openAPIV3Schema") {
        for (part, limits) in [("spec", true), ("status", false)] {
            explain(&mut root["properties"][part], limits);
        }
    }
    serde_json::from_value(value)
}

/// Adds to the descriptions below what `kubectl explain` doesn't show by itself, or not everywhere: the values of
/// enums, the format of durations, and, with `limits`, how long lists may be.
fn explain(schema: &mut Value, limits: bool) {
    for field in schema["properties"].as_object_mut().into_iter().flat_map(|o| o.values_mut()) {
        let limit = field["maxItems"].as_u64().filter(|_| limits);
        let more = [values(field), duration(field), limit.map(|most| format!("At most {most}."))]
            .into_iter()
            .flatten();
        let said = field["description"].as_str().unwrap_or_default().to_owned();
        let text = more.fold(said, |said, more| format!("{said} {more}"));
        if !text.is_empty() {
            field["description"] = json!(text);
        }
        explain(field, limits);
    }
    if schema["items"].is_object() {
        explain(&mut schema["items"], limits);
    }
}

/// The values that a field, or each item of it, may have.
pub(super) fn values(field: &Value) -> Option<String> {
    let all = [field, &field["items"]].into_iter().find_map(|s| s["enum"].as_array())?;
    let all: Vec<&str> = all.iter().filter_map(Value::as_str).collect();
    Some(format!("One of: {}.", all.join(", ")))
}

fn duration(field: &Value) -> Option<String> {
    let rule = field["x-kubernetes-validations"][0]["message"].as_str();
    let bounds = rule?.strip_prefix("must be a ")?;
    (field["pattern"] == schema::DURATION).then(|| format!("A {bounds}: {}", schema::DURATION_FORMAT))
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
    fn kubectl_explain_says_values_formats_and_limits() {
        fn walk(path: &str, v: &Value, of_spec: bool, seen: &mut [usize; 3]) {
            for (name, field) in v["properties"].as_object().into_iter().flatten() {
                let here = format!("{path}.{name}");
                let said = field["description"].as_str().unwrap_or_default();
                let says = |what: &str| assert!(said.contains(what), "{here}: {said}: {what}");
                let enums = [field, &field["items"]].into_iter().filter_map(|s| s["enum"].as_array());
                for value in enums.flatten().filter_map(Value::as_str) {
                    says(value);
                    seen[0] += 1;
                }
                if field["x-kubernetes-validations"].to_string().contains("duration(")
                    && field["type"] == "string"
                {
                    says(schema::DURATION_FORMAT);
                    says("A duration ");
                    seen[1] += 1;
                }
                if let (true, Some(most)) = (of_spec, field["maxItems"].as_u64()) {
                    says(&format!("At most {most}."));
                    seen[2] += 1;
                }
                walk(&here, field, of_spec, seen);
                walk(&format!("{here}[]"), &field["items"], of_spec, seen);
            }
        }
        let mut seen = [0; 3];
        for crd in all().expect("crds") {
            let value = serde_json::to_value(&crd).expect("json");
            let root = &value["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"];
            walk("spec", &root["spec"], true, &mut seen);
            walk("status", &root["status"], false, &mut seen);
        }
        assert!(seen[0] > 30 && seen[1] >= 4 && seen[2] > 5, "{seen:?}");
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
