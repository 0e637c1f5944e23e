//! The rules of our CRDs (`x-kubernetes-validations`), run here as the API server runs them.
//!
//! The language is the `cel` crate's, Kubernetes' functions are kube-cel's. Its functions for
//! addresses aren't used: they read `http://localhost` as having no scheme, and mend what Go
//! refuses; see [`super::url`]. Its schema walker isn't used either, since it can't be told so.

use super::url::{self, GoUrl};
use kube_cel::KubeCelExt as _;
use kube_cel::cel::extractors::This;
use kube_cel::cel::objects::{Key, Map, Opaque};
use kube_cel::cel::{Context, ExecutionError, Program, Value};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

/// What became of a rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// It holds.
    Holds,
    /// It doesn't.
    Broken,
    /// It can't be run here. The API server refuses where its own run ends so.
    Failed(String),
}

/// Runs rules.
pub struct Rules {
    context: Context<'static>,
    programs: RefCell<HashMap<String, Rc<Result<Program, String>>>>,
}

#[derive(Debug, PartialEq, Eq)]
struct Address(GoUrl);

impl Opaque for Address {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.URL"
    }
}

fn address(value: &Value) -> Result<&GoUrl, ExecutionError> {
    let found = match value {
        Value::Opaque(o) => o.downcast_ref::<Address>(),
        _ => None,
    };
    found.map(|a| &a.0).ok_or_else(|| ExecutionError::function_error("url", "isn't an address"))
}

fn parse_url(text: Arc<String>) -> Result<Value, ExecutionError> {
    url::parse(&text)
        .map(|u| Value::Opaque(Arc::new(Address(u))))
        .ok_or_else(|| ExecutionError::function_error("url", "isn't an address"))
}

fn is_url(text: Arc<String>) -> Result<Value, ExecutionError> {
    Ok(Value::Bool(url::parse(&text).is_some()))
}

fn get_scheme(This(this): This<Value>) -> Result<Value, ExecutionError> {
    Ok(Value::String(Arc::new(address(&this)?.scheme.clone())))
}

fn get_host(This(this): This<Value>) -> Result<Value, ExecutionError> {
    Ok(Value::String(Arc::new(address(&this)?.host.clone())))
}

/// Characters, as in CEL; the `cel` crate counts the bytes of a text.
fn size(This(this): This<Value>) -> Result<i64, ExecutionError> {
    let size = match this {
        Value::List(l) => l.len(),
        Value::Map(m) => m.map.len(),
        Value::String(s) => s.chars().count(),
        _ => return Err(ExecutionError::function_error("size", "has no size")),
    };
    Ok(i64::try_from(size).unwrap_or(i64::MAX))
}

impl Default for Rules {
    fn default() -> Self {
        let mut context = Context::default().with_all();
        context.add_function("url", parse_url);
        context.add_function("isURL", is_url);
        context.add_function("getScheme", get_scheme);
        context.add_function("getHost", get_host);
        context.add_function("size", size);
        Self { context, programs: RefCell::default() }
    }
}

/// Whether a rule is about a change: it needs the object as it was.
pub fn needs_old(rule: &str) -> bool {
    rule.contains("oldSelf")
}

impl Rules {
    /// Runs a rule on a value.
    pub fn run(&self, rule: &str, value: &serde_json::Value) -> Verdict {
        let program = self.program(rule);
        let program = match program.as_ref() {
            Ok(program) => program,
            Err(why) => return Verdict::Failed(why.clone()),
        };
        let mut scope = self.context.new_inner_scope();
        scope.add_variable_from_value("self", convert(value));
        match program.execute(&scope) {
            Ok(Value::Bool(true)) => Verdict::Holds,
            Ok(Value::Bool(false)) => Verdict::Broken,
            Ok(_) => Verdict::Failed("it gives neither true nor false".into()),
            Err(e) => Verdict::Failed(e.to_string()),
        }
    }

    fn program(&self, rule: &str) -> Rc<Result<Program, String>> {
        let mut programs = self.programs.borrow_mut();
        let compile = || Rc::new(Program::compile(rule).map_err(|e| e.to_string()));
        programs.entry(rule.to_owned()).or_insert_with(compile).clone()
    }
}

fn convert(value: &serde_json::Value) -> Value {
    match value {
        serde_json::Value::Null => Value::Null,
        serde_json::Value::Bool(b) => Value::Bool(*b),
        serde_json::Value::Number(n) => {
            n.as_i64().map_or_else(|| Value::Float(n.as_f64().unwrap_or_default()), Value::Int)
        }
        serde_json::Value::String(s) => Value::String(Arc::new(s.clone())),
        serde_json::Value::Array(items) => Value::List(Arc::new(items.iter().map(convert).collect())),
        serde_json::Value::Object(map) => {
            // To has() of the API server a null is as if it weren't there.
            let members = map
                .iter()
                .filter(|(_, v)| !v.is_null())
                .map(|(k, v)| (Key::String(Arc::new(k.clone())), convert(v)));
            Value::Map(Map { map: Arc::new(members.collect()) })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn rules_run_as_the_api_server_runs_them() {
        let rules = Rules::default();
        for (rule, value, verdict) in [
            ("isURL(self) && url(self).getScheme() == 'http'", json!("http://localhost"), Verdict::Holds),
            ("isURL(self)", json!("https://a b"), Verdict::Broken),
            ("url(self).getHost() != ''", json!("https:a"), Verdict::Broken),
            ("size(self) == 2", json!("üü"), Verdict::Holds),
            ("self.size() == 2", json!("üü"), Verdict::Holds),
            ("duration(self) >= duration('10s')", json!("1h30m"), Verdict::Holds),
            ("duration(self).getSeconds() == 5400", json!("1h30m"), Verdict::Holds),
            ("self.substring(self.indexOf('d') + 1) == '2h'", json!("30d2h"), Verdict::Holds),
            ("self.substring(self.indexOf('d') + 1) == '2h'", json!("2h"), Verdict::Holds),
            ("has(self.a) != has(self.b)", json!({"a": 1}), Verdict::Holds),
            ("has(self.a)", json!({"a": null}), Verdict::Broken),
            ("self.all(k, k.startsWith('a'))", json!({"ab": "", "b": ""}), Verdict::Broken),
            ("[has(self.a), has(self.b)].filter(x, x).size() == 1", json!({"a": {}}), Verdict::Holds),
            ("!self.matches('[\\\\x00-\\\\x1f]')", json!("a\nb"), Verdict::Broken),
            ("self > 1", json!(2), Verdict::Holds),
        ] {
            assert_eq!(rules.run(rule, &value), verdict, "{rule} on {value}");
        }
        assert!(matches!(rules.run("self.(", &json!(1)), Verdict::Failed(_)));
        assert!(matches!(rules.run("url(self).getHost() == ''", &json!("x")), Verdict::Failed(_)));
    }
}
