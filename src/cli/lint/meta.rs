//! The part of an object that is the same for all kinds: its metadata.

use super::{Fault, Source};
use crate::domain::text::Shown;
use serde_json::{Map, Value, json};

/// All annotations together, in bytes.
const MAX_ANNOTATIONS: usize = 256 * 1024;

/// The schema of the metadata, as far as it is one.
pub fn schema() -> Value {
    let text = json!({"type": "string"});
    let texts = json!({"type": "object", "additionalProperties": {"type": "string"}});
    let any = json!({});
    let number = json!({"type": "integer"});
    let owner = json!({"type": "object", "required": ["apiVersion", "kind", "name", "uid"], "properties": {
        "apiVersion": text, "kind": text, "name": text, "uid": text,
        "controller": {"type": "boolean"}, "blockOwnerDeletion": {"type": "boolean"},
    }});
    json!({"type": "object", "properties": {
        "name": text, "generateName": text, "namespace": text, "labels": texts, "annotations": texts,
        "finalizers": {"type": "array", "items": text}, "ownerReferences": {"type": "array", "items": owner},
        "uid": text, "resourceVersion": text, "generation": number, "creationTimestamp": text,
        "deletionTimestamp": text, "deletionGracePeriodSeconds": number, "selfLink": text,
        "managedFields": {"type": "array", "items": any},
    }})
}

fn fault(field: &str, value: Option<&str>, message: &str) -> Fault {
    Fault {
        source: Source::Schema,
        field: field.to_owned(),
        value: value.map(|v| Shown(v).to_string()),
        message: message.to_owned(),
        way_out: None,
    }
}

/// What the schema can't say of an object's metadata.
pub fn check(metadata: &Map<String, Value>, found: &mut Vec<Fault>) {
    let text = |key: &str| metadata.get(key).and_then(Value::as_str).filter(|t| !t.is_empty());
    match (text("name"), text("generateName")) {
        (None, None) => found.push(fault("metadata.name", None, "Required value: an object must have a name")),
        (Some(name), _) if !is_subdomain(name) => found.push(fault(
            "metadata.name",
            Some(name),
            "must be lower case letters, digits, - and ., begin and end with a letter or digit, and have at most 253 \
             characters",
        )),
        _ => {}
    }
    if let Some(namespace) = text("namespace").filter(|n| !is_label(n)) {
        found.push(fault(
            "metadata.namespace",
            Some(namespace),
            "must be lower case letters, digits and -, at most 63",
        ));
    }
    let pairs = |key: &str| metadata.get(key).and_then(Value::as_object).into_iter().flatten();
    for (key, value) in pairs("labels") {
        if !is_qualified(key) {
            found.push(fault(
                "metadata.labels",
                Some(key),
                "isn't the name of a label, such as example.com/name",
            ));
        }
        let value = value.as_str().unwrap_or_default();
        if !value.is_empty() && !is_name(value) {
            let message = "must be letters, digits, -, _ and ., begin and end with a letter or digit, and have at most 63";
            found.push(fault(&super::yaml::member("metadata.labels", key), Some(value), message));
        }
    }
    let mut size = 0;
    for (key, value) in pairs("annotations") {
        size += key.len() + value.as_str().map_or(0, str::len);
        if !is_qualified(&key.to_lowercase()) {
            found.push(fault(
                "metadata.annotations",
                Some(key),
                "isn't the name of an annotation, such as example.com/name",
            ));
        }
    }
    if size > MAX_ANNOTATIONS {
        found.push(fault("metadata.annotations", None, "may have at most 262144 bytes together"));
    }
    for finalizer in metadata.get("finalizers").and_then(Value::as_array).into_iter().flatten() {
        if let Some(name) = finalizer.as_str().filter(|f| !is_qualified(f)) {
            found.push(fault(
                "metadata.finalizers",
                Some(name),
                "isn't the name of a finalizer, such as example.com/name",
            ));
        }
    }
}

fn is_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_subdomain(text: &str) -> bool {
    text.len() <= 253
        && text.split('.').all(|l| {
            let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
            !l.is_empty() && l.chars().all(inner) && !l.starts_with('-') && !l.ends_with('-')
        })
}

/// The last part of a qualified name, and a label's value.
fn is_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.ends_with(|c: char| c.is_ascii_alphanumeric())
}

fn is_qualified(text: &str) -> bool {
    match text.split_once('/') {
        Some((prefix, name)) => is_subdomain(prefix) && is_name(name),
        None => is_name(text),
    }
}
