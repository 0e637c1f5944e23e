//! The structural schema of our CRDs, checked as the API server checks it: unknown fields, nulls,
//! defaults, types and limits, then the rules of each part that is sound.

use super::cel::{Rules, Verdict, needs_old};
use super::yaml::{item, member};
use super::{Fault, Source};
use crate::domain::text::Shown;
use regex::Regex;
use serde_json::{Map, Value};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What a schema of ours may say. One that says more isn't checked in full, which a test forbids.
#[cfg(test)]
pub(super) const KNOWN: &[&str] = &[
    "title",
    "description",
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "default",
    "nullable",
    "enum",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minimum",
    "maximum",
    "x-kubernetes-list-type",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-validations",
];

/// What a pattern of ours means, in words.
const PATTERNS: &[(&str, &str)] = &[
    (
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
        "must be the name of an object: lower case letters, digits, - and ., such as my-name",
    ),
    (
        "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$",
        "must be the name of a namespace: lower case letters, digits and -, such as team-a",
    ),
    ("^[-._a-zA-Z0-9]+$", "must be a key of a Secret: letters, digits, -, _ and ."),
    ("^[!#-\\[\\]-~]+$", "must be a scope: visible ASCII without spaces, \" and \\"),
    (crate::api::schema::DURATION, "must be a duration such as 10m, 1h30m or 30d"),
    ("^[ -~]+$", "must be a client's identifier: visible ASCII and spaces"),
    ("^(/[-._~A-Za-z0-9]+)+$", "must be a path such as /rest/oauth2/latest"),
    ("-----BEGIN CERTIFICATE-----", "must be certificates in PEM (-----BEGIN CERTIFICATE-----)"),
];

/// What is said of a field that there isn't.
pub const UNKNOWN_FIELD: &str = "unknown field";

/// Checks objects against a schema, and makes of them what the API server would store.
#[derive(Default)]
pub struct Checker {
    rules: Rules,
    patterns: RefCell<HashMap<String, Option<Regex>>>,
}

/// The findings of one object.
pub type Faults = Vec<Fault>;

fn fault(path: &str, value: Option<&Value>, message: impl Into<String>) -> Fault {
    Fault {
        source: Source::Schema,
        field: path.to_owned(),
        value: value.map(shown),
        message: message.into(),
        way_out: None,
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Array(_) => "a list".into(),
        Value::Object(_) => "a mapping".into(),
        Value::String(text) => Shown(text).to_string(),
        other => other.to_string(),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(n) if n.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn is_nullable(schema: &Value) -> bool {
    schema["nullable"] == true
}

fn number(schema: &Value, key: &str) -> Option<usize> {
    schema[key].as_u64().and_then(|n| usize::try_from(n).ok())
}

impl Checker {
    /// Checks `value`; `true` when nothing was found.
    pub fn check(&self, schema: &Value, value: &mut Value, path: &str, found: &mut Faults) -> bool {
        let before = found.len();
        if value.is_null() && is_nullable(schema) {
            return true;
        }
        let wanted = schema["type"].as_str().unwrap_or_default();
        let is = kind(value);
        if !wanted.is_empty() && wanted != is && !(wanted == "number" && is == "integer") {
            let mut fault = fault(path, Some(value), format!("must be of type {wanted}, not {is}"));
            if wanted == "string" && matches!(is, "boolean" | "integer" | "number") {
                fault.way_out =
                    Some("write it in quotes: YAML takes the bare word for something else".into());
            }
            found.push(fault);
            return false;
        }
        match value {
            Value::Object(map) => self.object(schema, map, path, found),
            Value::Array(items) => self.list(schema, items, path, found),
            Value::String(text) => self.text(schema, text, path, found),
            _ => {}
        }
        if let Some(allowed) = schema["enum"].as_array()
            && !allowed.contains(value)
        {
            let names: Vec<_> = allowed.iter().map(shown).collect();
            found.push(fault(path, Some(value), format!("isn't one of {}", names.join(", "))));
        }
        for (key, wrong) in [("minimum", "at least"), ("maximum", "at most")] {
            if let (Some(limit), Some(n)) = (schema[key].as_f64(), value.as_f64())
                && ((key == "minimum" && n < limit) || (key == "maximum" && n > limit))
            {
                found.push(fault(path, Some(value), format!("must be {wrong} {}", schema[key])));
            }
        }
        if found.len() == before {
            self.rules(schema, value, path, found);
        }
        found.len() == before
    }

    fn rules(&self, schema: &Value, value: &Value, path: &str, found: &mut Faults) {
        for rule in schema["x-kubernetes-validations"].as_array().into_iter().flatten() {
            let text = rule["rule"].as_str().unwrap_or_default();
            if needs_old(text) {
                continue;
            }
            let message = rule["message"].as_str().unwrap_or("breaks a rule of the CRD");
            let shown = value.is_string().then_some(value);
            match self.rules.run(text, value) {
                Verdict::Holds => {}
                Verdict::Broken => {
                    found.push(Fault { source: Source::Rule, ..fault(path, shown, message) });
                }
                Verdict::Failed(why) => {
                    let mut fault = Fault { source: Source::Rule, ..fault(path, shown, message) };
                    fault.way_out = Some(format!("the rule {text} can't be run on this value: {why}"));
                    found.push(fault);
                }
            }
        }
    }

    fn object(&self, schema: &Value, map: &mut Map<String, Value>, path: &str, found: &mut Faults) {
        let none = Map::new();
        let properties = schema["properties"].as_object().unwrap_or(&none);
        let others = Some(&schema["additionalProperties"]).filter(|s| s.is_object());
        if others.is_none() {
            unknown(properties, map, path, found);
        }
        // A null is as if the field weren't there, unless the schema knows it.
        map.retain(|k, v| !v.is_null() || properties.get(k).is_some_and(is_nullable));
        for (key, property) in properties {
            if let Some(default) = property.get("default") {
                map.entry(key.clone()).or_insert_with(|| default.clone());
            }
        }
        for key in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !map.contains_key(key) {
                let mut fault = fault(&member(path, key), None, "Required value: it must be set");
                fault.way_out = properties[key]["description"].as_str().map(first_sentence);
                found.push(fault);
            }
        }
        self.counts(schema, ["minProperties", "maxProperties", "member"], map.len(), path, found);
        for (key, value) in map.iter_mut() {
            if let Some(schema) = properties.get(key).or(others) {
                self.check(schema, value, &member(path, key), found);
            }
        }
    }

    fn list(&self, schema: &Value, items: &mut [Value], path: &str, found: &mut Faults) {
        self.counts(schema, ["minItems", "maxItems", "item"], items.len(), path, found);
        for (i, value) in items.iter_mut().enumerate() {
            self.check(&schema["items"], value, &item(path, i), found);
        }
        let keys: Vec<&str> = match schema["x-kubernetes-list-type"].as_str() {
            Some("set") => Vec::new(),
            Some("map") => {
                let keys = schema["x-kubernetes-list-map-keys"].as_array().into_iter().flatten();
                keys.filter_map(Value::as_str).collect()
            }
            _ => return,
        };
        let mut seen = BTreeSet::new();
        for (i, value) in items.iter().enumerate() {
            let part = if keys.is_empty() {
                value.clone()
            } else {
                keys.iter().map(|k| value[*k].clone()).collect()
            };
            if !seen.insert(part.to_string()) {
                found.push(fault(
                    &item(path, i),
                    Some(value),
                    "Duplicate value: it stands in the list twice",
                ));
            }
        }
    }

    fn counts(
        &self,
        schema: &Value,
        [least, most, what]: [&str; 3],
        n: usize,
        path: &str,
        found: &mut Faults,
    ) {
        let plural = |n: usize| if n == 1 { "" } else { "s" };
        if let Some(limit) = number(schema, least).filter(|limit| n < *limit) {
            found.push(fault(
                path,
                None,
                format!("must have at least {limit} {what}{}, has {n}", plural(limit)),
            ));
        }
        if let Some(limit) = number(schema, most).filter(|limit| n > *limit) {
            found.push(fault(
                path,
                None,
                format!("must have at most {limit} {what}{}, has {n}", plural(limit)),
            ));
        }
    }

    fn text(&self, schema: &Value, text: &str, path: &str, found: &mut Faults) {
        let value = Value::from(text);
        self.counts(schema, ["minLength", "maxLength", "character"], text.chars().count(), path, found);
        if let Some(pattern) = schema["pattern"].as_str()
            && !self.matches(pattern, text)
        {
            let words = PATTERNS.iter().find(|(p, _)| *p == pattern).map(|(_, words)| (*words).to_owned());
            let words = words.unwrap_or_else(|| format!("must match {pattern}"));
            found.push(fault(path, Some(&value), words));
        }
        if schema["format"] == "date-time" && text.parse::<jiff::Timestamp>().is_err() {
            found.push(fault(path, Some(&value), "must be a time such as 2026-11-22T10:00:00Z (RFC 3339)"));
        }
    }

    fn matches(&self, pattern: &str, text: &str) -> bool {
        let mut patterns = self.patterns.borrow_mut();
        let compiled = patterns.entry(pattern.to_owned()).or_insert_with(|| Regex::new(pattern).ok());
        compiled.as_ref().is_some_and(|p| p.is_match(text))
    }
}

fn first_sentence(text: &str) -> String {
    text.split_once(". ").map_or(text, |(first, _)| first).trim_end_matches('.').replace('\n', " ")
}

/// Names the fields that there aren't. A value that is null is named too.
pub(super) fn unknown(
    properties: &Map<String, Value>,
    map: &mut Map<String, Value>,
    path: &str,
    found: &mut Faults,
) {
    let strange: Vec<String> = map.keys().filter(|k| !properties.contains_key(*k)).cloned().collect();
    for key in strange {
        map.remove(&key);
        let mut fault = fault(&member(path, &key), None, UNKNOWN_FIELD);
        let near = properties
            .keys()
            .map(|p| (distance(&p.to_lowercase(), &key.to_lowercase()), p))
            .min()
            .filter(|(d, p)| *d <= 2.max(p.len() / 4));
        let names: Vec<&str> = properties.keys().map(String::as_str).collect();
        fault.way_out = Some(match near {
            Some((_, name)) => format!("did you mean {name}?"),
            None if names.is_empty() => "there are no fields here; write {}".to_owned(),
            None => format!("there are {}", names.join(", ")),
        });
        found.push(fault);
    }
}

/// Levenshtein's distance.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(64).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().take(64).enumerate() {
        let mut last = i;
        let mut before = i + 1;
        for (slot, y) in row.iter_mut().skip(1).zip(&b) {
            let cost = (last + usize::from(x != *y)).min(before + 1).min(*slot + 1);
            last = *slot;
            *slot = cost;
            before = cost;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or_default()
}

/// The schemas of our kinds: kind, then version.
///
/// # Errors
/// Only if a type's schema isn't what the derive macro promises.
pub fn ours() -> Result<BTreeMap<(String, String), Value>, serde_json::Error> {
    let mut found = BTreeMap::new();
    for crd in crate::api::crds::all()? {
        let kind = crd.spec.names.kind.clone();
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|s| s.open_api_v3_schema.as_ref());
            found.insert((kind.clone(), version.name.clone()), serde_json::to_value(schema)?);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn walk(schema: &Value, path: &str, seen: &mut impl FnMut(&str, &Value)) {
        seen(path, schema);
        for (key, part) in schema["properties"].as_object().into_iter().flatten() {
            walk(part, &member(path, key), seen);
        }
        for part in ["items", "additionalProperties"] {
            if schema[part].is_object() {
                walk(&schema[part], &format!("{path}.{part}"), seen);
            }
        }
    }

    #[test]
    fn every_word_of_our_schemas_is_known_here() {
        let checker = Checker::default();
        let mut rules = 0;
        for ((kind, _), schema) in ours().expect("schemas") {
            walk(&schema, "", &mut |path, part| {
                for word in part.as_object().expect("an object").keys() {
                    assert!(KNOWN.contains(&word.as_str()), "{kind} {path}: {word}");
                }
                let format = part["format"].as_str();
                assert!(
                    matches!(format, None | Some("int64" | "int32" | "date-time")),
                    "{kind} {path}: {format:?}"
                );
                if let Some(pattern) = part["pattern"].as_str() {
                    assert!(Regex::new(pattern).is_ok(), "{kind} {path}: {pattern}");
                }
                for rule in part["x-kubernetes-validations"].as_array().into_iter().flatten() {
                    let text = rule["rule"].as_str().expect("a rule");
                    assert!(rule.get("messageExpression").is_none(), "{kind} {path}: {text}");
                    // How a rule writes a field that is a word of the language, such as namespace.
                    assert!(!text.contains("__"), "{kind} {path}: {text}");
                    // It compiles and names only functions that there are; the value may not fit.
                    if let Verdict::Failed(why) = checker.rules.run(text, &Value::from("")) {
                        let strange = why.contains("Undeclared") && !why.contains("oldSelf");
                        assert!(
                            !strange && !why.to_lowercase().contains("syntax"),
                            "{kind} {path}: {text}: {why}"
                        );
                    }
                    rules += 1;
                }
                for name in part["properties"].as_object().into_iter().flatten().map(|(k, _)| k) {
                    assert!(name.chars().all(|c| c.is_ascii_alphanumeric()), "{path}.{name}");
                }
            });
        }
        assert!(rules > 20, "{rules}");
    }

    #[test]
    fn near_names_are_found() {
        assert_eq!(distance("scopes", "scope"), 1);
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
