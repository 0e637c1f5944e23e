//! Argo CD's health check, as its ConfigMap gets it, run by a Lua interpreter.

use std::path::{Path, PathBuf};

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde_json::{Value, json};

const KINDS: [&str; 3] = ["ApplicationLink", "LinkProvider", "ClusterLinkProvider"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/argocd")
}

fn read(file: &str) -> String {
    std::fs::read_to_string(folder().join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The script that Argo CD runs for a kind.
fn script(kind: &str) -> String {
    let patch: Value = serde_yaml::from_str(&read("argocd-cm.yaml")).expect("YAML");
    let key = format!("resource.customizations.health.applink-operator.io_{kind}");
    patch["data"][&key].as_str().unwrap_or_else(|| panic!("no {key}")).to_owned()
}

fn lua_value(lua: &Lua, value: &Value) -> mlua::Result<mlua::Value> {
    Ok(match value {
        Value::Null => mlua::Nil,
        Value::Bool(value) => mlua::Value::Boolean(*value),
        // Argo CD's interpreter has one kind of number.
        Value::Number(number) => mlua::Value::Number(number.as_f64().unwrap_or_default()),
        Value::String(text) => mlua::Value::String(lua.create_string(text)?),
        Value::Array(items) => {
            let items: Vec<_> = items.iter().map(|item| lua_value(lua, item)).collect::<mlua::Result<_>>()?;
            mlua::Value::Table(lua.create_sequence_from(items)?)
        }
        Value::Object(fields) => {
            let table = lua.create_table()?;
            for (key, value) in fields {
                table.set(key.as_str(), lua_value(lua, value)?)?;
            }
            mlua::Value::Table(table)
        }
    })
}

/// What Argo CD shows for an object: health and message.
fn health(kind: &str, object: &Value) -> (String, String) {
    // Argo CD opens these libraries, and no others, unless it is told to.
    let lua = Lua::new_with(StdLib::TABLE | StdLib::STRING, LuaOptions::default()).expect("an interpreter");
    let answer = lua_value(&lua, object)
        .and_then(|object| lua.globals().set("obj", object))
        .and_then(|()| lua.load(script(kind)).eval::<Table>())
        .unwrap_or_else(|error| panic!("{kind}: {error}"));
    (
        answer.get("status").expect("a status"),
        answer.get::<Option<String>>("message").expect("text").unwrap_or_default(),
    )
}

fn condition(kind: &str, status: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": "Reason", "message": message, "observedGeneration": 2})
}

fn object(spec: Value, status: Value) -> Value {
    json!({"metadata": {"name": "x", "generation": 2}, "spec": spec, "status": status})
}

#[test]
fn the_patch_has_the_script_for_each_kind_and_for_nothing_else() {
    let patch: Value = serde_yaml::from_str(&read("argocd-cm.yaml")).expect("YAML");
    assert_eq!(patch["data"].as_object().map(serde_json::Map::len), Some(KINDS.len()));
    for kind in KINDS {
        assert_eq!(script(kind), read("health.lua"), "{kind}: run `make generate`");
    }
}

#[test]
fn health_follows_the_conditions() {
    let conditions = |list: &[&Value]| json!({"observedGeneration": 2, "conditions": list});
    let (ready, not_ready) =
        (condition("Ready", "True", "connected"), condition("Ready", "False", "the provider is down"));
    let (stalled, reconciling) =
        (condition("Stalled", "True", "fix the scope"), condition("Reconciling", "True", "retrying"));
    let none = || json!({});
    let suspended = || json!({"suspend": true});
    let cases = [
        ("no status", none(), Value::Null, "Progressing", "Waiting for the operator"),
        (
            "the CRD's default status",
            none(),
            json!({"observedGeneration": -1}),
            "Progressing",
            "Waiting for the operator",
        ),
        (
            "a status of an older spec",
            none(),
            json!({"observedGeneration": 1, "conditions": [ready]}),
            "Progressing",
            "Waiting for the operator",
        ),
        ("no conditions yet", none(), json!({"observedGeneration": 2}), "Progressing", "Not ready yet"),
        ("ready", none(), conditions(&[&ready]), "Healthy", "connected"),
        ("not ready", none(), conditions(&[&reconciling, &not_ready]), "Progressing", "the provider is down"),
        ("stalled", none(), conditions(&[&not_ready, &stalled]), "Degraded", "fix the scope"),
        (
            "not stalled any more",
            none(),
            conditions(&[&condition("Stalled", "False", ""), &ready]),
            "Healthy",
            "connected",
        ),
        ("suspended", suspended(), conditions(&[&ready]), "Suspended", "connected"),
        (
            "suspended, and out of date",
            suspended(),
            conditions(&[&not_ready]),
            "Suspended",
            "the provider is down",
        ),
        ("suspended and stalled", suspended(), conditions(&[&stalled]), "Degraded", "fix the scope"),
        ("not suspended", json!({"suspend": false}), conditions(&[&ready]), "Healthy", "connected"),
    ];
    for kind in KINDS {
        for (what, spec, status, expected, message) in &cases {
            let found = health(kind, &object(spec.clone(), status.clone()));
            assert_eq!(found, ((*expected).to_owned(), (*message).to_owned()), "{kind}: {what}");
        }
    }
}

#[test]
fn what_is_being_deleted_is_in_progress() {
    let ready = condition("Ready", "False", "the provider can't be reached");
    let mut object = object(json!({}), json!({"observedGeneration": 2, "conditions": [ready]}));
    object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
    let found = health("ApplicationLink", &object);
    assert_eq!(found, ("Progressing".to_owned(), "the provider can't be reached".to_owned()));
}
