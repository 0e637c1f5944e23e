//! What the API server would store if a manifest were applied.

use crate::api::{ApplicationLink, names};
use crate::cli::ToolError;
use crate::cli::cluster::{Cluster, failed, is_forbidden, why};
use crate::cli::lint::files::{self, NotRead};
use crate::cli::lint::{self, yaml};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use serde::Serialize;
use serde_json::{Map, Value, json};
use std::path::PathBuf;

pub(in crate::cli) const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// A longer value is cut.
const SHOWN: usize = 80;

/// A link of a file, or one that is there.
pub(super) struct Manifest {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) file: Option<String>,
    object: Value,
    live: Option<ApplicationLink>,
}

/// A link as it would be, and as it is.
pub(super) struct Wanted {
    pub(super) link: ApplicationLink,
    pub(super) live: Option<ApplicationLink>,
    /// The API server wasn't asked.
    pub(super) locally: bool,
}

/// The links of the files.
pub(super) fn read(paths: &[PathBuf], namespace: &str) -> (Vec<Manifest>, Vec<NotRead>) {
    let (texts, mut failed) = files::read(paths);
    let mut found = Vec::new();
    for text in texts {
        for document in yaml::read(&text.text) {
            let value = match document.content {
                Ok(content) => content.value,
                Err(e) => {
                    let why = format!("line {}: isn't YAML: {}", e.line, e.why);
                    failed.push(NotRead { file: text.name.clone(), why });
                    continue;
                }
            };
            let is_list = value["kind"].as_str().is_some_and(|k| k.ends_with("List"));
            let objects = match value["items"].as_array().filter(|_| is_list) {
                Some(items) => items.clone(),
                None => vec![value],
            };
            for object in objects {
                let group = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map(|(g, _)| g);
                if group != Some(names::GROUP) || object["kind"] != "ApplicationLink" {
                    continue;
                }
                let Some(name) = object["metadata"]["name"].as_str().map(str::to_owned) else {
                    let why = format!("line {}: an ApplicationLink without metadata.name", document.line);
                    failed.push(NotRead { file: text.name.clone(), why });
                    continue;
                };
                let own = object["metadata"]["namespace"].as_str();
                let namespace = own.unwrap_or(namespace).to_owned();
                found.push(Manifest { namespace, name, file: Some(text.name.clone()), object, live: None });
            }
        }
    }
    (found, failed)
}

impl Manifest {
    /// Of a link that stands in no file: it stays as it is.
    pub(super) fn of_live(link: ApplicationLink) -> Self {
        Self {
            namespace: link.namespace().unwrap_or_default(),
            name: link.name_any(),
            file: None,
            object: Value::Null,
            live: Some(link),
        }
    }

    /// What would be stored; `Err` says why it is refused.
    pub(super) async fn wanted(
        &self,
        cluster: &Cluster,
        manager: &str,
    ) -> Result<Result<Wanted, String>, ToolError> {
        if let Some(link) = &self.live {
            return Ok(Ok(Wanted { link: link.clone(), live: Some(link.clone()), locally: false }));
        }
        let what = format!("ApplicationLink {}/{}", self.namespace, self.name);
        let api: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &self.namespace);
        let live = match api.get_opt(&self.name).await {
            Ok(live) => live,
            Err(e) if is_forbidden(&e) => None,
            Err(e) => return Err(failed(what)(e)),
        };
        match self.dry_run(&api, live.as_ref(), manager).await {
            Ok(link) => Ok(Ok(Wanted { link, live, locally: false })),
            Err(e) if is_forbidden(&e) => {
                Ok(self.locally(live.as_ref())?.map(|link| Wanted { link, live, locally: true }))
            }
            Err(kube::Error::Api(s)) if matches!(s.code, 400 | 404 | 409 | 422) => Ok(Err(s.message.clone())),
            Err(e) => Err(ToolError::Kube { what, why: why(&e) }),
        }
    }

    /// As `kubectl apply` would do it: a three-way merge where that was the way before, else a
    /// server-side apply.
    async fn dry_run(
        &self,
        api: &Api<ApplicationLink>,
        live: Option<&ApplicationLink>,
        manager: &str,
    ) -> Result<ApplicationLink, kube::Error> {
        let params =
            PatchParams { dry_run: true, field_manager: Some(manager.into()), ..PatchParams::default() };
        let Some(live) = live else {
            let mut object = self.object.clone();
            object["metadata"]["namespace"] = json!(self.namespace);
            let post = PostParams { dry_run: true, field_manager: Some(manager.into()) };
            return create(api.clone().into_client(), object, &post).await;
        };
        let applied =
            live.annotations().get(LAST_APPLIED).and_then(|t| serde_json::from_str::<Value>(t).ok());
        let mut object = self.object.clone();
        if let Some(map) = object.as_object_mut() {
            map.remove("status");
        }
        match applied {
            Some(applied) => {
                // As kubectl has it in hand: with a namespace, and with its own annotation.
                object["metadata"]["namespace"] = json!(self.namespace);
                if !object["metadata"]["annotations"].is_object() {
                    object["metadata"]["annotations"] = json!({});
                }
                let patch = three_way(&applied, &object);
                api.patch(&self.name, &params, &Patch::Merge(&patch)).await
            }
            None => api.patch(&self.name, &params.force(), &Patch::Apply(&object)).await,
        }
    }

    /// By the schema that this tool has.
    fn locally(&self, live: Option<&ApplicationLink>) -> Result<Result<ApplicationLink, String>, ToolError> {
        let mut object = match lint::defaulted(&self.object)? {
            Ok(object) => object,
            Err(faults) => {
                let all: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.field, f.message)).collect();
                return Ok(Err(all.join("; ")));
            }
        };
        if let Some(live) = live {
            let mut metadata = serde_json::to_value(&live.metadata)?;
            for part in ["labels", "annotations"] {
                for (k, v) in object["metadata"][part].as_object().cloned().unwrap_or_default() {
                    metadata[part][k] = v;
                }
            }
            object["metadata"] = metadata;
            object["status"] = serde_json::to_value(&live.status)?;
        } else {
            object["metadata"]["namespace"] = json!(self.namespace);
            object["metadata"]["uid"] = json!("00000000-0000-0000-0000-000000000000");
        }
        Ok(serde_json::from_value(object).map_err(|e| e.to_string()))
    }
}

/// Creates a link that may not be one by our types: the API server says what is wrong with it. The
/// object names its namespace.
pub(in crate::cli) async fn create(
    client: Client,
    mut object: Value,
    params: &PostParams,
) -> Result<ApplicationLink, kube::Error> {
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    let namespace = object["metadata"]["namespace"].as_str().unwrap_or_default();
    let url = format!("/apis/{}/v1alpha1/namespaces/{namespace}/applicationlinks", names::GROUP);
    let body = serde_json::to_vec(&object).map_err(kube::Error::SerdeError)?;
    let request = kube::core::Request::new(url).create(params, body).map_err(kube::Error::BuildRequest)?;
    client.request(request).await
}

/// The merge patch that turns what was applied into what is to be applied: what went is taken away,
/// and what others wrote stays.
pub(in crate::cli) fn three_way(applied: &Value, wanted: &Value) -> Value {
    let (Value::Object(before), Value::Object(after)) = (applied, wanted) else { return wanted.clone() };
    let mut patch = Map::new();
    for (key, value) in after {
        patch.insert(key.clone(), three_way(before.get(key).unwrap_or(&Value::Null), value));
    }
    for key in before.keys().filter(|k| !after.contains_key(*k)) {
        patch.insert(key.clone(), Value::Null);
    }
    Value::Object(patch)
}

/// One field that changes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(in crate::cli) struct Change {
    pub(in crate::cli) path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) from: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) to: Option<Value>,
}

impl Change {
    pub(super) fn text(&self) -> String {
        let shown = |v: &Option<Value>| {
            let text = v.as_ref().map_or_else(|| "left out".to_owned(), Value::to_string);
            if text.chars().count() > SHOWN {
                format!("{}…", text.chars().take(SHOWN).collect::<String>())
            } else {
                text
            }
        };
        format!("{}: {} → {}", self.path, shown(&self.from), shown(&self.to))
    }
}

/// The fields of the spec that change, and the annotations and labels that the operator reads.
pub(in crate::cli) fn changes(live: Option<&ApplicationLink>, wanted: &ApplicationLink) -> Vec<Change> {
    let whole = |l: &ApplicationLink| {
        let mut map = l.annotations().clone();
        // What the operator writes itself, and what kubectl keeps, is no news.
        map.retain(|k, _| k != names::REGISTERED_AT && k != LAST_APPLIED);
        json!({"metadata": {"annotations": map, "labels": l.labels()}, "spec": l.spec})
    };
    let before = live.map_or_else(|| json!({}), whole);
    let mut found = Vec::new();
    compare(String::new(), Some(&before), Some(&whole(wanted)), &mut found);
    found
}

fn compare(path: String, from: Option<&Value>, to: Option<&Value>, found: &mut Vec<Change>) {
    if from == to {
        return;
    }
    match (from, to) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let keys: std::collections::BTreeSet<&String> = a.keys().chain(b.keys()).collect();
            for key in keys {
                compare(yaml::member(&path, key), a.get(key), b.get(key), found);
            }
        }
        (None | Some(Value::Null), Some(Value::Object(b))) => {
            b.iter().for_each(|(key, value)| compare(yaml::member(&path, key), None, Some(value), found));
        }
        (None, Some(Value::Null)) | (Some(Value::Null), None) => {}
        _ => found.push(Change { path, from: from.cloned(), to: to.cloned() }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_from_the_manifest_goes_and_what_others_wrote_stays() {
        let applied = json!({"spec": {"a": 1, "b": {"c": 1, "d": 2}, "e": [1]}});
        let wanted = json!({"spec": {"a": 2, "b": {"c": 1}}});
        assert_eq!(
            three_way(&applied, &wanted),
            json!({"spec": {"a": 2, "b": {"c": 1, "d": null}, "e": null}})
        );
    }

    #[test]
    fn a_change_names_its_field() {
        let mut found = Vec::new();
        let (a, b) = (json!({"a": {"b": [1]}, "c": null}), json!({"a": {"b": [1, 2]}, "d": {"e": true}}));
        compare(String::new(), Some(&a), Some(&b), &mut found);
        let texts: Vec<String> = found.iter().map(Change::text).collect();
        assert_eq!(texts, ["a.b: [1] → [1,2]", "d.e: left out → true"]);
    }
}
