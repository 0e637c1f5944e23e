//! Reading and writing the Secrets of links. Only `observe` and `execute` call this.

use super::cache::Cache;
use super::content::Data;
use super::facts::{OwnSecret, SecretFact, SecretId};
use super::handover;
use super::lend::{self, Lent};
use super::plan::SecretWrite;
use super::problem::Problem;
use crate::api::{ApplicationLink, names};
use crate::domain::{Reason, SecretString};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::PartialObjectMeta;
use kube::{Api, Client, Resource as _, ResourceExt as _};
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// The Secrets of a namespace.
#[derive(Clone)]
pub struct Secrets {
    api: Api<Secret>,
    /// Whoever names one of these Secrets may not be who may read them.
    by_tenant: bool,
}

impl Secrets {
    /// The Secrets of a namespace, as a link or a provider of it names them.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace), by_tenant: true }
    }

    /// The Secrets of the operator's namespace, as the platform team names them.
    pub fn of_platform_team(client: Client, namespace: &str) -> Self {
        Self { by_tenant: false, ..Self::new(client, namespace) }
    }

    /// What is read from here, each Secret once: these keys of Secrets, so that what is missing of one is said at
    /// once.
    pub fn reader<'k>(&self, keys: impl IntoIterator<Item = (&'k str, &'k str)>) -> Reader<'_> {
        let keys = keys.into_iter().map(|(name, key)| (name.to_owned(), key.to_owned())).collect();
        Reader { secrets: self, keys, read: tokio::sync::Mutex::default() }
    }

    /// Looks at the Secret that a link wants to write. `known` is the UID of the one of that name that was its own
    /// when it was looked at last.
    pub async fn look(
        &self,
        name: &str,
        link: &ApplicationLink,
        links: &Cache<ApplicationLink>,
        known: Option<&str>,
    ) -> SecretFact {
        match self.api.get_opt(name).await {
            Ok(None) => SecretFact::Absent,
            Ok(Some(secret)) => {
                let left = |owner: &OwnerReference| handover::gives_up(links, link, owner, name);
                judge(secret, link, left, known)
            }
            Err(e) => SecretFact::Unknown(Problem::kube(&format!("Secret {name}"), &e)),
        }
    }

    /// Writes a Secret: creates it where there is none, else changes what is ours in it. Gives back
    /// the version that it has then.
    ///
    /// # Errors
    /// [`Problem`]; a Secret that came or changed meanwhile is a conflict.
    pub async fn write(&self, write: &SecretWrite, owner: &OwnerReference) -> Result<String, Problem> {
        let what = format!("Secret {}", write.name);
        match self.send(write, owner, false).await? {
            Ok(secret) => Ok(secret.resource_version().unwrap_or_default()),
            Err(kube::Error::Api(s)) if s.code == 404 && write.over.is_some() => {
                Err(Problem::conflict(&what))
            }
            Err(e) => Err(Problem::kube(&what, &e)),
        }
    }

    /// Asks the API server whether it would take that write.
    ///
    /// # Errors
    /// [`Problem`] with what the API server says and a way out; nothing was written.
    pub async fn rehearse(&self, write: &SecretWrite, owner: &OwnerReference) -> Result<(), Problem> {
        let what = format!("Secret {}", write.name);
        match self.send(write, owner, true).await? {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.code == 404 && write.over.is_some() => {
                Err(Problem::conflict(&what))
            }
            // Nothing can be told beforehand then; the write itself says it.
            Err(kube::Error::Api(s)) if s.message.contains("does not support dry run") => Ok(()),
            Err(kube::Error::Api(s)) if matches!(s.code, 400 | 403 | 413 | 422) => Err(unwritable(write, &s)),
            Err(e) => Err(Problem::kube(&what, &e)),
        }
    }

    async fn send(
        &self,
        write: &SecretWrite,
        owner: &OwnerReference,
        dry_run: bool,
    ) -> Result<kube::Result<Secret>, Problem> {
        let mut data: Map<String, Value> =
            write.data.iter().map(|(k, v)| (k.clone(), json!(STANDARD.encode(v)))).collect();
        let mut labels: Map<String, Value> =
            write.labels.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let mut annotations: Map<String, Value> =
            write.annotations.iter().map(|(k, v)| (k.clone(), json!(v))).collect();
        let Some(over) = &write.over else {
            let secret: Secret = serde_json::from_value(json!({
                "metadata": {
                    "name": write.name, "labels": labels, "annotations": annotations, "ownerReferences": [owner],
                },
                "type": write.type_,
                "data": data,
            }))
            .map_err(|_| Problem::edit(Reason::TemplateError, "the Secret can't be written as JSON"))?;
            let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), dry_run };
            return Ok(self.api.create(&params, &secret).await);
        };
        // A strategic merge patch rather than a server-side apply: it carries the version that was
        // looked at, it can't make a Secret that was deleted meanwhile, and unlike an apply after a
        // create it takes away the keys that we wrote once and don't want any more.
        over.drop_keys.iter().for_each(|k| drop(data.insert(k.clone(), Value::Null)));
        over.drop_labels.iter().for_each(|k| drop(labels.insert(k.clone(), Value::Null)));
        over.drop_annotations.iter().for_each(|k| drop(annotations.insert(k.clone(), Value::Null)));
        let mut owners: Vec<Value> =
            over.drop_owners.iter().map(|uid| json!({ "$patch": "delete", "uid": uid })).collect();
        owners.push(json!(owner));
        let patch = json!({
            "metadata": {
                "uid": over.uid, "resourceVersion": over.resource_version,
                "labels": labels, "annotations": annotations, "ownerReferences": owners,
            },
            "data": data,
        });
        let params = PatchParams {
            field_manager: Some(names::FIELD_MANAGER.into()),
            dry_run,
            ..PatchParams::default()
        };
        Ok(self.api.patch(&write.name, &params, &Patch::Strategic(&patch)).await)
    }

    /// Deletes a Secret of the link with this UID; one that is gone, or is another one or another link's by now, is no
    /// error.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses, or somebody changes it at the same moment.
    pub async fn delete(&self, id: &SecretId, link_uid: &str) -> Result<(), Problem> {
        let what = format!("Secret {}", id.name);
        let found = self.api.get_metadata_opt(&id.name).await.map_err(|e| Problem::kube(&what, &e))?;
        let ours = |s: &PartialObjectMeta<Secret>| {
            s.uid().as_deref() == Some(&id.uid) && s.owner_references().iter().any(|o| o.uid == link_uid)
        };
        let Some(found) = found.filter(ours) else { return Ok(()) };
        let (uid, resource_version) = (found.uid(), found.resource_version());
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid, resource_version }),
            ..DeleteParams::default()
        };
        match self.api.delete(&id.name, &params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.code == 404 => Ok(()),
            Err(e) => Err(Problem::kube(&what, &e)),
        }
    }

    /// Takes our owner reference and label off a Secret, so that it outlives the link.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses.
    pub async fn release(&self, id: &SecretId, link_uid: &str) -> Result<(), Problem> {
        let patch = json!({
            "metadata": {
                "uid": id.uid,
                "labels": { names::MANAGED_BY: null, names::COMPONENT: null, names::LINK_NAME: null },
                "annotations": { names::LINK_NAME: null },
                "ownerReferences": [{ "$patch": "delete", "uid": link_uid }],
            },
        });
        let params =
            PatchParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PatchParams::default() };
        match self.api.patch(&id.name, &params, &Patch::Strategic(&patch)).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.code == 404 => Ok(()),
            Err(e) => Err(Problem::kube(&format!("Secret {}", id.name), &e)),
        }
    }
}

/// Reads values of Secrets, each Secret once: values that belong together, as an identifier and its
/// secret do, are of one version of it.
pub struct Reader<'a> {
    secrets: &'a Secrets,
    /// Names of Secrets, and keys there.
    keys: BTreeSet<(String, String)>,
    read: tokio::sync::Mutex<BTreeMap<String, Option<Secret>>>,
}

impl Reader<'_> {
    /// Reads one value that a link or a provider refers to. An absent Secret or key is something to
    /// wait for.
    ///
    /// # Errors
    /// [`Problem`] that names Secret and key and says what to do.
    pub async fn value(
        &self,
        name: &str,
        key: &str,
        reason: Reason,
        field: &str,
    ) -> Result<SecretString, Problem> {
        let mut read = self.read.lock().await;
        if !read.contains_key(name) {
            let found = self.secrets.api.get_opt(name).await;
            read.insert(name.to_owned(), found.map_err(|e| Problem::kube(&format!("Secret {name}"), &e))?);
        }
        let of_it = self.keys.iter().filter(|(secret, other)| secret == name && other != key);
        let all: BTreeSet<&str> = of_it.map(|(_, other)| other.as_str()).chain([key]).collect();
        let Some(secret) = read.get(name).and_then(Option::as_ref) else {
            let keys = named(&all, "the key", "the keys");
            return Err(Problem::wait(
                reason,
                format!("{field}: Secret {name} doesn't exist; create it with {keys}"),
            ));
        };
        let type_ = secret.type_.as_deref().unwrap_or_default();
        if self.secrets.by_tenant && lend::NEVER.contains(&type_) {
            return Err(Problem::edit(
                Reason::SecretTypeRefused,
                format!(
                    "{field}: Secret {name} has the type {type_}, and such a Secret is never sent anywhere; name one that \
                     holds the credential alone"
                ),
            ));
        }
        let data = secret.data.as_ref();
        let there = |key: &str| data.and_then(|d| d.get(key)).map(|bytes| text_of(&bytes.0));
        let missing: BTreeSet<&str> = all.iter().copied().filter(|k| there(k).is_none()).collect();
        let empty: BTreeSet<&str> = all.iter().copied().filter(|k| there(k) == Some("")).collect();
        let text = there(key).unwrap_or_default();
        if text.is_empty() {
            let mut wrong = Vec::new();
            if !missing.is_empty() {
                let them = if missing.len() == 1 { "it" } else { "them" };
                wrong.push(format!("Secret {name} has no {}; add {them}", named(&missing, "key", "keys")));
            }
            if !empty.is_empty() {
                let (are, them) = if empty.len() == 1 { ("is", "it") } else { ("are", "them") };
                let keys = named(&empty, "key", "keys");
                wrong.push(format!("{keys} of Secret {name} {are} empty or not text; fill {them}"));
            }
            let text = format!("{field}: {}", wrong.join("; "));
            // A key may be on its way; a value that is there is somebody's to correct.
            return Err(if empty.is_empty() {
                Problem::wait(reason, text)
            } else {
                Problem::edit(reason, text)
            });
        }
        Ok(SecretString::from(text.to_owned()))
    }

    /// Where the Secret of this name may be sent, by what was read.
    pub async fn lent(&self, name: &str) -> Option<Lent> {
        let read = self.read.lock().await;
        read.get(name)?.as_ref().map(|secret| lent(name, secret))
    }

    /// All that was read.
    pub fn all(self) -> Vec<Lent> {
        let read = self.read.into_inner();
        read.iter().filter_map(|(name, secret)| Some(lent(name, secret.as_ref()?))).collect()
    }
}

/// A value as it is used. A newline at the end is what an editor or echo leaves there; no credential has one.
fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default().trim_end_matches(['\n', '\r'])
}

/// Keys of a Secret in a message.
fn named(keys: &BTreeSet<&str>, one: &str, more: &str) -> String {
    let list = keys.iter().copied().collect::<Vec<_>>().join(", ");
    format!("{} {list}", if keys.len() == 1 { one } else { more })
}

fn lent(name: &str, secret: &Secret) -> Lent {
    let says = |annotation| secret.annotations().get(annotation).cloned();
    Lent { secret: name.to_owned(), allowed: says(names::ALLOWED_HOSTS), id_key: says(names::CLIENT_ID_KEY) }
}

/// Why the API server wouldn't take a Secret, in its own words where these show nothing of what is in it,
/// and what to do.
fn unwritable(write: &SecretWrite, status: &kube::core::Status) -> Problem {
    const MOST: usize = 400;
    let said: String = status.message.chars().filter(|c| !c.is_control()).take(MOST).collect();
    // A value whole, as it is and as it stands in the object, or a word of it, also of one that was there.
    let shows = |text: &str| text.len() >= 4 && status.message.contains(text);
    let word = |c: char| !(c.is_ascii_alphanumeric() || "-_+/=.".contains(c));
    let dense = |w: &str| w.len() >= 20 && w.bytes().any(|b| b.is_ascii_digit()) && !w.contains("applink");
    let tells = write.data.iter().any(|(_, value)| shows(value) || shows(&STANDARD.encode(value)))
        || status.message.split(word).any(dense);
    let said = if tells || said.is_empty() { format!("HTTP {}", status.code) } else { said };
    let has = |word: &str| status.message.to_ascii_lowercase().contains(word);
    let way_out = if has("immutable") {
        "delete the Secret, and it is written anew with the new secret"
    } else if has("quota") {
        "raise the namespace's quota"
    } else if has("denied") || has("policy") || has("webhook") {
        "change the policy, or the link's secret so that it fits"
    } else {
        "mend that, or change the link's secret so that it fits"
    };
    let text = format!(
        "a new client secret is due, and Secret {} couldn't be written with it, so nothing was changed at the provider: the \
         API server says: {said}; {way_out}",
        write.name
    );
    // Deleting the Secret is seen; what a policy or a quota says is asked again.
    if status.code == 422 {
        Problem::edit(Reason::SecretUnwritable, text)
    } else {
        Problem::wait(Reason::SecretUnwritable, text)
    }
}

/// The owner reference of a link's Secrets.
pub fn owner_reference(link: &ApplicationLink) -> OwnerReference {
    link.controller_owner_ref(&()).unwrap_or_default()
}

fn judge(
    secret: Secret,
    link: &ApplicationLink,
    left: impl Fn(&OwnerReference) -> bool,
    known: Option<&str>,
) -> SecretFact {
    let name = secret.name_any();
    let uid = link.uid().unwrap_or_default();
    let owners = secret.owner_references();
    let owned = owners.iter().any(|o| o.uid == uid);
    let label = |key: &str| secret.labels().get(key).map(String::as_str);
    let labelled = label(names::MANAGED_BY) == Some(names::MANAGED_BY_VALUE);
    let (handed, others): (Vec<_>, Vec<_>) = owners.iter().filter(|o| o.uid != uid).partition(|o| left(o));
    let other = others.iter().find(|o| o.controller == Some(true));
    // Somebody took the owner reference off, or it came back from a backup: the label, the annotation or the UID
    // still says whose it is, and nobody else claims it.
    let name_of_link = link.name_any();
    let annotated = |key: &str| secret.annotations().get(key) == Some(&name_of_link);
    let says = label(names::LINK_NAME) == Some(&name_of_link) && labelled || annotated(names::LINK_NAME);
    let orphaned = others.is_empty() && (says || known.is_some() && known == secret.meta().uid.as_deref());
    // Another link of ours left it to whoever names it, or it is this one's from before a restore.
    let handed_over = labelled && others.is_empty() && !handed.is_empty();
    let consent = annotated(names::TAKE_OVER_BY);
    if let Some(other) = other.filter(|_| !owned) {
        return SecretFact::Foreign(Problem::edit(
            Reason::SecretConflict,
            format!(
                "Secret {name} belongs to {} {}; give this link another Secret name",
                other.kind, other.name
            ),
        ));
    }
    if !owned && !orphaned && !handed_over && !consent {
        return SecretFact::Foreign(Problem::edit(
            Reason::SecretConflict,
            format!(
                "Secret {name} exists and isn't this link's; it is left alone: give this link another Secret name, or \
                 annotate the Secret with {}={} to have the link take it over, which replaces the values that it has under the \
                 link's keys, for good",
                names::TAKE_OVER_BY,
                link.name_any()
            ),
        ));
    }
    let (own_keys, own_labels, own_annotations) = own_fields(&secret);
    let data: Data = secret
        .data
        .iter()
        .flatten()
        // What isn't text was not written by us; it reads as another value than any of ours.
        .map(|(k, v)| (k.clone(), String::from_utf8_lossy(&v.0).into_owned().into()))
        .collect();
    SecretFact::Own(Box::new(OwnSecret {
        uid: secret.uid().unwrap_or_default(),
        resource_version: secret.resource_version().unwrap_or_default(),
        type_: secret.type_.clone().unwrap_or_else(|| "Opaque".into()),
        labels: secret.labels().clone(),
        annotations: secret.annotations().clone(),
        data,
        marked: owned && labelled && handed.is_empty(),
        drop_owners: handed.iter().map(|o| o.uid.clone()).collect(),
        own_keys,
        own_labels,
        own_annotations,
    }))
}

/// What of a Secret our writes own, by its managed fields: data keys, labels, annotations.
fn own_fields(secret: &Secret) -> (BTreeSet<String>, BTreeSet<String>, BTreeSet<String>) {
    let mut found = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
    for entry in secret.meta().managed_fields.iter().flatten() {
        if entry.manager.as_deref() != Some(names::FIELD_MANAGER) {
            continue;
        }
        let Some(fields) = entry.fields_v1.as_ref().map(|f| &f.0) else { continue };
        let keys = |path: &str| -> Vec<String> {
            fields
                .pointer(path)
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(|o| o.keys())
                .filter_map(|k| k.strip_prefix("f:").map(str::to_owned))
                .collect()
        };
        found.0.extend(keys("/f:data"));
        found.1.extend(keys("/f:metadata/f:labels"));
        found.2.extend(keys("/f:metadata/f:annotations"));
    }
    found
}
