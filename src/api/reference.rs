//! The reference page: every field of every kind, read off the schemas that are installed.

use super::crds;
use serde_json::Value;
use std::fmt::Write as _;

/// The page, as Markdown.
///
/// # Errors
/// Only if a type's schema isn't what the derive macro promises.
pub fn markdown() -> Result<String, serde_json::Error> {
    let mut out = String::from(
        "# Reference\n\nMade from the Rust types by `make generate`. Group `applink-operator.io`, version `v1alpha1`.\n",
    );
    for crd in crds::all()? {
        let crd = serde_json::to_value(&crd)?;
        let root = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
        let text = |v: &Value| v.as_str().unwrap_or_default().to_owned();
        // Writing into a String can't fail.
        let _ =
            write!(out, "\n## {}\n\n{}\n", text(&crd["spec"]["names"]["kind"]), text(&root["description"]));
        rules(&mut out, "", root);
        for part in ["spec", "status"] {
            let _ = write!(out, "\n| field | type | default | what it is |\n|---|---|---|---|\n");
            let mut notes = String::new();
            rules(&mut notes, part, &root["properties"][part]);
            fields(&mut out, &mut notes, part, &root["properties"][part]);
            out.push_str(&notes);
        }
    }
    Ok(out)
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ").replace('{', "&#123;")
}

fn fields(out: &mut String, notes: &mut String, path: &str, schema: &Value) {
    let required: Vec<&str> =
        schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let here = format!("{path}.{name}");
        let star = if required.contains(&name.as_str()) { " *required*" } else { "" };
        let default = match &field["default"] {
            Value::Null => String::new(),
            v => format!("`{}`", cell(&v.to_string())),
        };
        let what = field["description"].as_str().unwrap_or_default();
        // They stand in the column of types.
        let what =
            cell(crds::values(field).map_or_else(|| what.to_owned(), |v| what.replace(&v, "")).trim_end());
        let _ = writeln!(out, "| `{here}`{star} | {} | {default} | {what} |", cell(&kind(field)));
        rules(notes, &here, field);
        rules(notes, &format!("{here}[]"), &field["items"]);
        match field["type"].as_str() {
            Some("object") => fields(out, notes, &here, field),
            Some("array") if field["items"]["type"] == "object" => {
                fields(out, notes, &format!("{here}[]"), &field["items"]);
            }
            _ => {}
        }
    }
}

/// The rules that `kubectl apply` holds a field to, in their own words.
fn rules(out: &mut String, path: &str, schema: &Value) {
    let rules = schema["x-kubernetes-validations"].as_array().into_iter().flatten();
    for message in rules.filter_map(|r| r["message"].as_str()) {
        let of = if path.is_empty() { String::new() } else { format!("`{path}` ") };
        let _ = write!(out, "\n- {of}{}", cell(message));
    }
    if schema["x-kubernetes-validations"].is_array() {
        out.push('\n');
    }
}

fn kind(schema: &Value) -> String {
    let of = |v: &Value| v.as_str().unwrap_or("any").to_owned();
    let values = |v: &Value| -> Option<String> {
        let all: Vec<String> =
            v["enum"].as_array()?.iter().filter_map(Value::as_str).map(|s| format!("`{s}`")).collect();
        Some(all.join(", "))
    };
    match schema["type"].as_str() {
        Some("array") => {
            let items = &schema["items"];
            let set = if schema["x-kubernetes-list-type"] == "set" { "set" } else { "list" };
            format!("{set} of {}", values(items).unwrap_or_else(|| of(&items["type"])))
        }
        Some("object") if schema["additionalProperties"].is_object() => "map of string".to_owned(),
        _ => values(schema).unwrap_or_else(|| of(&schema["type"])),
    }
}
