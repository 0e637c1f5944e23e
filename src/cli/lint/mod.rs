//! `applink lint`: says offline what the API server, and then the operator, would refuse.
//!
//! | file | what lives there |
//! |---|---|
//! | [`yaml`] | YAML as kubectl reads it, with lines |
//! | [`files`] | which files are read |
//! | [`schema`] | the structural schema of our CRDs |
//! | [`meta`] | an object's metadata |
//! | [`cel`], [`url`] | the CRDs' rules |
//!
//! What it says of an object agrees with the API server: a test asks both about every document of
//! `tests/corpus/lint`. What no schema can say is asked of `link::validate`, which the operator asks.

pub mod cel;
pub mod files;
pub mod meta;
pub mod schema;
pub mod url;
pub mod yaml;

use super::output::{Colour, Format, Paint, clean, complain, say};
use super::{Answer, ToolError};
use crate::api::{ApplicationLink, names};
use crate::domain::text::Shown;
use crate::http::CaBundle;
use crate::link::validate::validate;
use clap::Args;
use schema::Checker;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Flags of `applink lint`.
#[derive(Debug, Args)]
#[command(after_help = "\
Exit codes: 0 nothing found, 1 something found, 2 wrong usage or a file that can't be read.
Objects of other kinds are passed over. Rules about changes of an object need the cluster, and aren't checked here.")]
pub struct LintArgs {
    /// Files, folders (their .yaml, .yml and .json files, also in folders below), or - for standard input
    #[arg(required = true)]
    files: Vec<PathBuf>,
    /// How to print what is found
    #[arg(short, long, value_enum, default_value_t)]
    output: Format,
}

/// Who would refuse it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The document isn't YAML, or no object.
    Yaml,
    /// The API server, by the schema.
    Schema,
    /// The API server, by a rule of the CRD.
    Rule,
    /// The operator: the API server takes the object, and it never becomes Ready.
    Operator,
    /// Nobody: it is taken, and can't be what was meant.
    Mistake,
}

/// Something wrong with an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Who would refuse it.
    pub source: Source,
    /// Path of the field.
    pub field: String,
    /// The value, cut and escaped.
    pub value: Option<String>,
    /// What is wrong.
    pub message: String,
    /// What to do.
    pub way_out: Option<String>,
}

/// A fault and where it stands.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Finding {
    file: String,
    document: usize,
    line: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    kind: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    source: Source,
    field: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    value: Option<String>,
    message: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    way_out: Option<String>,
}

/// All that `applink lint` found.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    /// How many files were read.
    files: usize,
    /// How many of our objects were checked.
    checked: usize,
    /// How many others were passed over.
    passed_over: usize,
    findings: Vec<Finding>,
    /// Files that couldn't be read.
    unreadable: Vec<files::NotRead>,
}

/// Checks files.
///
/// # Errors
/// [`ToolError`] when nothing can be printed; what can't be read is in the report.
pub fn run(args: &LintArgs) -> Result<Answer, ToolError> {
    let mut linter = Linter::new()?;
    let (found, unreadable) = files::read(&args.files);
    for file in found {
        linter.file(&file.name, &file.text);
    }
    let mut report = linter.report;
    report.unreadable = unreadable;
    if !args.output.print(&report)? {
        say(&people(&report, Paint::detect()))?;
        for file in &report.unreadable {
            complain(&format!("error: {}: {}", file.file, file.why));
        }
    }
    Ok(match (report.unreadable.is_empty(), report.findings.is_empty()) {
        (false, _) => Answer::Failed,
        (true, false) => Answer::No,
        (true, true) => Answer::Yes,
    })
}

fn people(report: &Report, paint: Paint) -> String {
    let mut out = String::new();
    for f in &report.findings {
        let place = format!("{}:{}:", clean(&f.file), f.line);
        let mut what = match (&f.kind, &f.name) {
            (Some(kind), Some(name)) => format!("{kind}/{name}: "),
            (Some(kind), None) => format!("{kind}: "),
            _ => String::new(),
        };
        if !f.field.is_empty() {
            what.push_str(&format!("{}: ", f.field));
        }
        let value = f.value.as_ref().map(|v| format!("{v}: ")).unwrap_or_default();
        out.push_str(&format!(
            "{} {}{}{}\n",
            paint.paint(Colour::Bold, &place),
            clean(&what),
            clean(&value),
            paint.paint(Colour::Red, &clean(&f.message))
        ));
        if let Some(way_out) = &f.way_out {
            out.push_str(&format!("    {}\n", clean(way_out)));
        }
    }
    let plural = |n: usize| if n == 1 { "" } else { "s" };
    let (found, checked) = (report.findings.len(), report.checked);
    let passed = match report.passed_over {
        0 => String::new(),
        n => format!(", {n} other{} passed over", plural(n)),
    };
    out.push_str(&format!(
        "{found} finding{} in {checked} object{} of {} file{}{passed}\n",
        plural(found),
        plural(checked),
        report.files,
        plural(report.files)
    ));
    out
}

struct Linter {
    checker: Checker,
    schemas: BTreeMap<(String, String), Value>,
    report: Report,
}

impl Linter {
    fn new() -> Result<Self, ToolError> {
        let mut schemas = schema::ours()?;
        for schema in schemas.values_mut() {
            let text = serde_json::json!({"type": "string"});
            schema["properties"]["apiVersion"] = text.clone();
            schema["properties"]["kind"] = text;
            schema["properties"]["metadata"] = meta::schema();
        }
        Ok(Self { checker: Checker::default(), schemas, report: Report::default() })
    }

    fn file(&mut self, file: &str, text: &str) {
        self.report.files += 1;
        for document in yaml::read(text) {
            let place = |line, kind, name, f: Fault| Finding {
                file: file.to_owned(),
                document: document.number,
                line,
                kind,
                name,
                source: f.source,
                field: f.field,
                value: f.value,
                message: f.message,
                way_out: f.way_out,
            };
            let plain = |message: String| Fault {
                source: Source::Yaml,
                field: String::new(),
                value: None,
                message,
                way_out: None,
            };
            let content = match &document.content {
                Ok(content) => content,
                Err(e) => {
                    let fault = plain(format!("isn't YAML: {}", Shown(&e.why)));
                    self.report.findings.push(place(e.line, None, None, fault));
                    continue;
                }
            };
            if content.value.is_null() {
                continue;
            }
            // A list of objects, as `kubectl get -o yaml` writes it.
            let list = content.value["kind"].as_str().is_some_and(|k| k.ends_with("List"));
            let items = content.value["items"].as_array().filter(|_| list);
            let objects: Vec<(String, &Value)> = match items {
                Some(items) => items.iter().enumerate().map(|(i, o)| (yaml::item("items", i), o)).collect(),
                None => vec![(String::new(), &content.value)],
            };
            for (base, object) in objects {
                let Some(mut faults) = self.object(object) else {
                    self.report.passed_over += 1;
                    continue;
                };
                self.report.checked += 1;
                let (kind, name) = (object["kind"].as_str(), object["metadata"]["name"].as_str());
                let (kind, name) = (kind.map(str::to_owned), name.map(str::to_owned));
                for (path, line) in &content.twice {
                    let below = base.is_empty() || path.starts_with(&base);
                    if below {
                        let field =
                            path.strip_prefix(&base).unwrap_or(path).trim_start_matches('.').to_owned();
                        let message = "the key stands twice in one mapping, and the last one counts";
                        let fault = Fault { source: Source::Mistake, field, ..plain(message.into()) };
                        self.report.findings.push(place(*line, kind.clone(), name.clone(), fault));
                    }
                }
                faults.dedup();
                for fault in faults {
                    let path =
                        if base.is_empty() { fault.field.clone() } else { format!("{base}.{}", fault.field) };
                    let line = content.line(&path).unwrap_or(document.line);
                    self.report.findings.push(place(line, kind.clone(), name.clone(), fault));
                }
            }
        }
    }

    /// The faults of one object; `None` where it isn't one of ours.
    fn object(&self, object: &Value) -> Option<Vec<Fault>> {
        let version = object["apiVersion"].as_str().unwrap_or_default();
        let (group, version) = version.split_once('/').unwrap_or(("", version));
        if group != names::GROUP {
            return None;
        }
        let kind = object["kind"].as_str().unwrap_or_default();
        let known = (kind.to_owned(), version.to_owned());
        let Some(schema) = self.schemas.get(&known) else {
            let kinds: Vec<String> =
                self.schemas.keys().map(|(kind, version)| format!("{group}/{version} {kind}")).collect();
            let of_kind = self.schemas.keys().any(|(k, _)| k == kind);
            return Some(vec![Fault {
                source: Source::Schema,
                field: if of_kind { "apiVersion" } else { "kind" }.to_owned(),
                value: Some(Shown(if of_kind { version } else { kind }).to_string()),
                message: "there is no such kind in this group".into(),
                way_out: Some(format!("there are {}", kinds.join(", "))),
            }]);
        };
        let mut object = object.clone();
        let mut found = Vec::new();
        let none = serde_json::Map::new();
        let metadata = object["metadata"].as_object().unwrap_or(&none);
        meta::check(metadata, &mut found);
        // The API server makes up the name before it looks at the rules.
        let prefix = metadata.get("generateName").and_then(Value::as_str);
        if let (false, Some(prefix)) = (metadata.contains_key("name"), prefix) {
            object["metadata"]["name"] = Value::from(format!("{prefix}xxxxx"));
        }
        // Nobody but the operator writes a status; only its fields' names are looked at.
        if let Some(mut status) = object.as_object_mut().and_then(|o| o.remove("status")) {
            let mut strange = Vec::new();
            self.checker.check(&schema["properties"]["status"], &mut status, "status", &mut strange);
            found.extend(strange.into_iter().filter(|f| f.message == schema::UNKNOWN_FIELD));
        }
        self.checker.check(schema, &mut object, "", &mut found);
        if found.is_empty() {
            found.extend(by_the_operator(kind, &object));
        }
        Some(found)
    }
}

/// What the operator refuses though the API server takes it.
fn by_the_operator(kind: &str, object: &Value) -> Option<Fault> {
    let fault = |field: String, message: String| Fault {
        source: Source::Operator,
        field,
        value: None,
        message,
        way_out: None,
    };
    if kind != "ApplicationLink" {
        let parts = object["spec"].as_object().into_iter().flatten();
        for (part, value) in parts {
            let Some(pem) = value["caBundle"].as_str() else { continue };
            if let Err(e) = CaBundle::parse(pem.as_bytes()) {
                return Some(fault(format!("spec.{part}.caBundle"), e.to_string()));
            }
        }
        return None;
    }
    let mut object = object.clone();
    if let Some(map) = object.as_object_mut() {
        map.remove("status");
    }
    match serde_json::from_value::<ApplicationLink>(object) {
        Ok(link) => validate(&link).err().map(|e| fault(e.field, e.message)),
        Err(e) => Some(fault(String::new(), Shown(&e.to_string()).to_string())),
    }
}

/// What is wrong with an object of ours that a tool made.
///
/// # Errors
/// [`ToolError::Schema`].
pub fn object(object: &Value) -> Result<Vec<Fault>, ToolError> {
    Ok(Linter::new()?.object(object).unwrap_or_default())
}

/// An object of ours as the API server would store it, if it takes it: with its defaults.
///
/// # Errors
/// [`ToolError::Schema`].
pub fn defaulted(object: &Value) -> Result<Result<Value, Vec<Fault>>, ToolError> {
    let linter = Linter::new()?;
    let kind = object["kind"].as_str().unwrap_or_default();
    let version = object["apiVersion"].as_str().and_then(|v| v.split_once('/')).map_or("", |(_, v)| v);
    let mut object = object.clone();
    let mut found = Vec::new();
    if let Some(schema) = linter.schemas.get(&(kind.to_owned(), version.to_owned())) {
        linter.checker.check(schema, &mut object, "", &mut found);
    }
    Ok(if found.is_empty() { Ok(object) } else { Err(found) })
}
