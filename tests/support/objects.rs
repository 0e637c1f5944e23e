//! Objects through the API, as kubectl does it: the same requests, without a process for each. Where kubectl's own words
//! matter, tests run kubectl ([`super::plane::ControlPlane::kubectl`]).

use axum::http::{Request, header};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{
    Api, ApiResource, DeleteParams, DynamicObject, GroupVersionKind, Patch, PatchParams, Preconditions,
    ValidationDirective,
};
use serde::Deserialize as _;
use serde_json::{Map, Value, json};

use super::access::Access;
use super::programs::Output;
use super::wait::{SOON, eventually};

/// What `kubectl apply` remembers of what it was given.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// The kinds that tests name by kind alone, in any case: group and version, and whether they stand in a namespace.
const KINDS: [(&str, &str, bool); 14] = [
    ("ApplicationLink", "applink-operator.io/v1alpha1", true),
    ("LinkProvider", "applink-operator.io/v1alpha1", true),
    ("ClusterLinkProvider", "applink-operator.io/v1alpha1", false),
    ("Namespace", "v1", false),
    ("Secret", "v1", true),
    ("ConfigMap", "v1", true),
    ("ServiceAccount", "v1", true),
    ("Role", "rbac.authorization.k8s.io/v1", true),
    ("RoleBinding", "rbac.authorization.k8s.io/v1", true),
    ("ClusterRole", "rbac.authorization.k8s.io/v1", false),
    ("ClusterRoleBinding", "rbac.authorization.k8s.io/v1", false),
    ("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1", false),
    ("ValidatingAdmissionPolicyBinding", "admissionregistration.k8s.io/v1", false),
    ("CustomResourceDefinition", "apiextensions.k8s.io/v1", false),
];

/// The API of a kind for a user whom the administrator impersonates, or for the administrator. Without a version, the kind
/// is one of [`KINDS`].
fn api(
    access: &Access,
    user: Option<&str>,
    version: Option<&str>,
    kind: &str,
    namespace: &str,
) -> Api<DynamicObject> {
    let known = KINDS.iter().find(|(known, ..)| known.eq_ignore_ascii_case(kind));
    let (kind, version, namespaced) = match (known, version) {
        (Some((kind, _, namespaced)), Some(version)) => (*kind, version, *namespaced),
        (Some(known), None) => *known,
        (None, Some(version)) => (kind, version, true),
        (None, None) => panic!("tests/support/objects.rs doesn't know the kind {kind}"),
    };
    let (group, version) = version.split_once('/').unwrap_or(("", version));
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
    let client = access.client_as(user);
    if namespaced {
        Api::namespaced_with(client, namespace, &resource)
    } else {
        Api::all_with(client, &resource)
    }
}

/// Takes every `null` out, as kubectl does of what it creates.
fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Array(all) => all.iter().map(without_nulls).collect(),
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect::<Map<_, _>>().into()
        }
        other => other.clone(),
    }
}

/// What turns an object that was applied as `last` into what is applied now: `null` for what is left out.
fn changes(last: &Value, now: &Value) -> Value {
    let (Value::Object(last), Value::Object(now)) = (last, now) else { return now.clone() };
    let gone = last.keys().filter(|key| !now.contains_key(*key)).map(|key| (key.clone(), Value::Null));
    let kept = now.iter().map(|(key, value)| {
        let value = last.get(key).map_or_else(|| value.clone(), |old| changes(old, value));
        (key.clone(), value)
    });
    gone.chain(kept).collect::<Map<_, _>>().into()
}

/// Applies YAML or JSON, of any number of objects, as `kubectl apply` does: with strict validation, and remembering what was
/// applied. The output is what the API server said.
pub async fn apply(access: &Access, user: Option<&str>, namespace: &str, text: &str) -> Output {
    let mut output = Output {
        command: format!("apply in {namespace}"),
        code: Some(0),
        stdout: String::new(),
        stderr: String::new(),
    };
    for document in serde_yaml::Deserializer::from_str(text) {
        let object = match Value::deserialize(document) {
            Ok(object) => object,
            Err(error) => {
                output.code = Some(1);
                output.stderr.push_str(&format!("error parsing: {error}\n"));
                continue;
            }
        };
        let all = match object["items"].as_array() {
            Some(items) if object["kind"] == "List" => items.clone(),
            _ => vec![object],
        };
        for object in all.iter().filter(|object| !object.is_null()) {
            match apply_one(access, user, namespace, object).await {
                Ok(done) => output.stdout.push_str(&done),
                Err(error) => {
                    output.code = Some(1);
                    let said = match error {
                        kube::Error::Api(status) => {
                            format!("Error from server ({}): {}\n", status.reason, status.message)
                        }
                        other => format!("{other}\n"),
                    };
                    output.stderr.push_str(&said);
                }
            }
        }
    }
    output
}

async fn apply_one(
    access: &Access,
    user: Option<&str>,
    namespace: &str,
    object: &Value,
) -> Result<String, kube::Error> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let (version, kind) = (text(&object["apiVersion"]), text(&object["kind"]));
    let name = text(&object["metadata"]["name"]);
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or(namespace);
    let api = api(access, user, Some(&version), &kind, namespace);
    let mut wanted = object.clone();
    if !wanted["metadata"]["annotations"].is_object() {
        wanted["metadata"]["annotations"] = json!({});
    }
    wanted["metadata"]["annotations"][LAST_APPLIED] = json!(without_nulls(object).to_string());

    let old = api.get_opt(&name).await?;
    let done = if let Some(old) = old {
        let last = old.metadata.annotations.as_ref().and_then(|all| all.get(LAST_APPLIED));
        let last = last.and_then(|text| serde_json::from_str(text).ok()).unwrap_or(Value::Null);
        let patch = changes(&last, &wanted);
        let params = PatchParams::default().validation(ValidationDirective::Strict);
        api.patch(&name, &params, &Patch::Merge(patch)).await?;
        "configured"
    } else {
        let request = Request::post(format!("{}?fieldValidation=Strict", api.resource_url()))
            .header(header::CONTENT_TYPE, "application/json")
            .body(without_nulls(&wanted).to_string().into_bytes())
            .expect("a request");
        access.client_as(user).request::<Value>(request).await?;
        "created"
    };
    Ok(format!("{}/{name} {done}\n", kind.to_lowercase()))
}

/// A Secret with about so many bytes of metadata: labels, and their keys once more in its managed fields.
pub fn heavy_secret(name: &str, bytes: usize) -> Secret {
    let long = "x".repeat(60);
    let prefix = [long.as_str(); 4].join(".");
    let labels: Map<_, _> =
        (0..bytes / 600).map(|i| (format!("{prefix}/{i:05}-{}", &long[..50]), json!("1"))).collect();
    let object = json!({"metadata": {"name": name, "labels": labels}, "data": {}});
    serde_json::from_value(object).expect("a Secret")
}

/// An object as JSON; `None` where there is none.
///
/// # Panics
/// When the API server refuses it.
pub async fn get(access: &Access, kind: &str, namespace: &str, name: &str) -> Option<Value> {
    let found = api(access, None, None, kind, namespace).get_opt(name).await;
    found.expect("the object can be read").map(|object| serde_json::to_value(object).expect("JSON"))
}

/// Patches an object.
///
/// # Panics
/// When the API server refuses it: with what it said.
#[track_caller]
pub fn patch(
    access: &Access,
    kind: &str,
    namespace: &str,
    name: &str,
    patch: &Value,
) -> impl Future<Output = ()> {
    let api = api(access, None, None, kind, namespace);
    let what = format!("{kind} {name} is patched with {patch}");
    // A list of operations is a JSON patch, an object is merged.
    let patch = match patch {
        Value::Array(_) => Patch::Json(serde_json::from_value(patch.clone()).expect("a JSON patch")),
        _ => Patch::Merge(patch.clone()),
    };
    let name = name.to_owned();
    async move {
        let done: Result<DynamicObject, _> = api.patch(&name, &PatchParams::default(), &patch).await;
        done.unwrap_or_else(|error| panic!("{what}: {error}"));
    }
}

/// Has an object deleted, and doesn't wait for its end. Gives back its UID.
///
/// # Panics
/// When there is none, or the API server refuses it.
pub async fn begin_deletion(access: &Access, kind: &str, namespace: &str, name: &str) -> Option<String> {
    let api = api(access, None, None, kind, namespace);
    let uid = api.get(name).await.unwrap_or_else(|error| panic!("{kind} {name}: {error}")).metadata.uid;
    let only = Preconditions { uid: uid.clone(), resource_version: None };
    let deleted = api.delete(name, &DeleteParams::default().preconditions(only)).await;
    deleted.unwrap_or_else(|error| panic!("{kind} {name}: {error}"));
    uid
}

/// Deletes an object, and waits until it is gone; another one of its name may be there by then.
///
/// # Panics
/// When the API server refuses it, or it doesn't go.
pub async fn delete(access: &Access, kind: &str, namespace: &str, name: &str) {
    let uid = begin_deletion(access, kind, namespace, name).await;
    let api = api(access, None, None, kind, namespace);
    eventually(SOON, format!("the end of {kind} {name}"), async || {
        match api.get_opt(name).await.map_err(|error| error.to_string())? {
            Some(left) if left.metadata.uid == uid => Err(serde_json::to_string(&left).expect("JSON")),
            _ => Ok(()),
        }
    })
    .await;
}

/// Waits until an object's condition `Ready` is `True`.
///
/// # Panics
/// When it doesn't become so.
pub async fn until_ready(access: &Access, kind: &str, namespace: &str, name: &str) {
    eventually(SOON, format!("{kind} {name} to be Ready"), async || {
        let found = get(access, kind, namespace, name).await.ok_or("it isn't there")?;
        let ready = super::stage::condition(&found["status"], "Ready").is_some_and(|c| c["status"] == "True");
        let current = found["status"]["observedGeneration"] == found["metadata"]["generation"];
        if ready && current { Ok(()) } else { Err(found["status"].to_string()) }
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_out_of_an_object_is_taken_away() {
        let last = json!({"spec": {"a": 1, "b": {"c": 1, "d": [1]}, "e": {}}});
        let now = json!({"spec": {"a": 2, "b": {"d": [2]}}, "more": {"x": null}});
        let expected = json!({"spec": {"a": 2, "b": {"c": null, "d": [2]}, "e": null}, "more": {"x": null}});
        assert_eq!(changes(&last, &now), expected);
        assert_eq!(changes(&Value::Null, &now), now);
    }
}
