//! Templates of Secret keys: minijinja with fuel and output limits, without includes, macros or
//! functions. Pure.
//!
//! A value that stands bare in a template must be made of characters that mean nothing in any
//! file that people write this way; any other needs a filter that escapes it. So a token with a
//! quote or a newline can't write a second line into somebody's `.env`.

mod filters;

use super::content::{Slot, Values};
use crate::domain::{ExposeSecret as _, SecretString};
use filters::{CANT_HOLD, NAMES, TOO_MUCH};
use minijinja::syntax::SyntaxConfig;
use minijinja::value::{Value, ValueKind};
use minijinja::{AutoEscape, Environment, Error, ErrorKind, Output, State, UndefinedBehavior};
use std::collections::BTreeMap;
use std::io;

/// How many instructions a template may take.
const FUEL: u64 = 10_000;
/// How many bytes it may write.
const MAX_OUTPUT: usize = 64 * 1024;

/// Why a template can't be filled. Never has a value in it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// It doesn't parse.
    #[error("the template doesn't parse (line {0}); see the templates section of the documentation")]
    Syntax(usize),
    /// It names something that there isn't.
    #[error("the template names a value or filter that there isn't (line {line}); there are {known}")]
    Unknown {
        /// Line in the template.
        line: usize,
        /// What there is.
        known: String,
    },
    /// It runs too long or writes too much.
    #[error(
        "the template takes more than {FUEL} steps or writes more than {MAX_OUTPUT} bytes; make it shorter"
    )]
    TooMuch,
    /// A value needs escaping.
    #[error(
        "a value has characters that need escaping (line {0}); write it with the filter for its file, like {{{{ value | sh }}}}: there are {NAMES}"
    )]
    NeedsEscaping(usize),
    /// The filter's kind of file has no way to write a value.
    #[error(
        "a value has characters that can't be written by the filter there (line {0}), since its kind of file can't hold them or isn't read alike everywhere; use the value's own key, or another kind of file"
    )]
    CantHold(usize),
    /// Anything else.
    #[error("the template can't be filled (line {0}); use values, filters and if alone")]
    Failed(usize),
}

/// Letters, digits and the signs that mean nothing in shells, .env, JSON, YAML, TOML, ini and
/// .netrc files when they stand inside a word.
fn is_plain(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~+/=:@%,".contains(&b))
}

const NEEDS_ESCAPING: &str = "needs escaping";

fn environment() -> Environment<'static> {
    let mut env = Environment::empty();
    env.set_fuel(Some(FUEL));
    env.set_undefined_behavior(UndefinedBehavior::Strict);
    env.set_auto_escape_callback(|_| AutoEscape::None);
    env.set_syntax(SyntaxConfig::builder().keep_trailing_newline(true).build().unwrap_or_default());
    env.set_formatter(format_value);
    filters::add(&mut env);
    env
}

fn format_value(out: &mut Output<'_>, _: &mut State<'_, '_>, value: &Value) -> Result<(), Error> {
    let refuse = || Err(Error::new(ErrorKind::InvalidOperation, NEEDS_ESCAPING));
    match value.kind() {
        ValueKind::Undefined => Err(Error::from(ErrorKind::UndefinedError)),
        ValueKind::String => {
            let text = value.as_str().unwrap_or_default();
            if value.is_safe() || is_plain(text) {
                out.write_str(text).map_err(Error::from)
            } else {
                refuse()
            }
        }
        ValueKind::Number | ValueKind::Bool => out.write_str(&value.to_string()).map_err(Error::from),
        _ => refuse(),
    }
}

/// Stops a template that writes too much.
struct Limited(Vec<u8>);

impl io::Write for Limited {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.0.len() + bytes.len() > MAX_OUTPUT {
            return Err(io::Error::other(TOO_MUCH));
        }
        self.0.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn explain(e: &Error, known: &[Slot]) -> TemplateError {
    let line = e.line().unwrap_or(1);
    let detail = e.detail().unwrap_or_default();
    match e.kind() {
        ErrorKind::SyntaxError => TemplateError::Syntax(line),
        ErrorKind::UndefinedError
        | ErrorKind::UnknownFilter
        | ErrorKind::UnknownFunction
        | ErrorKind::UnknownTest => {
            let names: Vec<_> = known.iter().map(|s| s.variable()).collect();
            TemplateError::Unknown { line, known: format!("{}, and the filters {NAMES}", names.join(", ")) }
        }
        ErrorKind::OutOfFuel | ErrorKind::WriteFailure => TemplateError::TooMuch,
        _ if detail.contains(CANT_HOLD) => TemplateError::CantHold(line),
        _ if detail.contains(TOO_MUCH) => TemplateError::TooMuch,
        _ if detail.contains(NEEDS_ESCAPING) => TemplateError::NeedsEscaping(line),
        _ => TemplateError::Failed(line),
    }
}

fn run(source: &str, context: &BTreeMap<&str, &str>, known: &[Slot]) -> Result<SecretString, TemplateError> {
    plain_only(source, known)?;
    let env = environment();
    let template = env.template_from_str(source).map_err(|e| explain(&e, known))?;
    let mut out = Limited(Vec::new());
    template
        .render_captured_to(Value::from_pairs(context.iter().map(|(k, v)| (*k, *v))), &mut out)
        .map_err(|e| explain(&e, known))?;
    let text = String::from_utf8(out.0).map_err(|_| TemplateError::Failed(1))?;
    Ok(text.into())
}

/// How many tags a template may have.
const MAX_TAGS: usize = 200;
/// How many of them may be blocks (`if`, `elif`, …), which nest.
const MAX_BLOCKS: usize = 40;
/// How long the code of one tag may be, without its string literals.
const MAX_CODE: usize = 200;
/// How many filters, and how many parentheses, operators or words one tag may have.
const MAX_CHAIN: usize = 16;

/// Refuses what makes a large value out of a short template: fuel counts steps, and one step can
/// repeat or join without a limit. What is left is values, filters, comparisons and `if`. And it
/// refuses long chains and deep nesting: the engine walks them by recursion, and a stack that
/// overflows ends the process for everybody.
fn plain_only(source: &str, known: &[Slot]) -> Result<(), TemplateError> {
    let mut rest = source;
    let mut line = 1;
    let (mut tags, mut blocks) = (0, 0);
    while let Some(open) = rest.find('{') {
        let (before, at) = rest.split_at(open);
        line += before.matches('\n').count();
        let close = match at.as_bytes().get(1) {
            Some(b'{') => "}}",
            Some(b'%') => "%}",
            Some(b'#') => "#}",
            _ => {
                rest = at.get(1..).unwrap_or_default();
                continue;
            }
        };
        tags += 1;
        blocks += usize::from(close == "%}");
        if tags > MAX_TAGS || blocks > MAX_BLOCKS {
            return Err(TemplateError::TooMuch);
        }
        let inner = at.get(2..).unwrap_or_default();
        let mut quote = None;
        let mut code = String::new();
        let mut end = None;
        for (i, c) in inner.char_indices() {
            let here = inner.get(i..).unwrap_or_default();
            match quote {
                Some(q) if c == q => quote = None,
                Some(_) if c == '\\' => return Err(TemplateError::Failed(line)),
                Some(_) => {}
                None if here.starts_with(close) => {
                    end = Some(i + close.len());
                    break;
                }
                None if close == "#}" => {}
                None if c == '"' || c == '\'' => quote = Some(c),
                None => code.push(c),
            }
        }
        let Some(end) = end else { return Err(TemplateError::Syntax(line)) };
        if close != "#}" {
            if code.contains(['*', '~', '+', '/', '[', '{', '%']) {
                return Err(TemplateError::Failed(line));
            }
            let marks = code.matches(|c: char| c.is_ascii_punctuation() && c != '_').count();
            if code.len() > MAX_CODE || marks > MAX_CHAIN || code.split_whitespace().count() > MAX_CHAIN {
                return Err(TemplateError::TooMuch);
            }
            let word = code.trim_start_matches('-').split_whitespace().next().unwrap_or_default();
            if close == "%}" && !matches!(word, "if" | "elif" | "else" | "endif" | "else-" | "endif-") {
                let names: Vec<_> = known.iter().map(|s| s.variable()).collect();
                let known = format!("{}, the filters {NAMES}, and if", names.join(", "));
                return Err(TemplateError::Unknown { line, known });
            }
        }
        line += inner.get(..end).unwrap_or_default().matches('\n').count();
        rest = inner.get(end..).unwrap_or_default();
    }
    Ok(())
}

/// Checks a template before anything is done: fills it with harmless values.
///
/// # Errors
/// [`TemplateError`] as [`render`].
pub fn check(source: &str, known: &[Slot]) -> Result<(), TemplateError> {
    let context = known.iter().map(|s| (s.variable(), "x")).collect();
    run(source, &context, known).map(drop)
}

/// Fills a template.
///
/// # Errors
/// [`TemplateError`]; it never has a value in it.
pub fn render(source: &str, values: &Values) -> Result<SecretString, TemplateError> {
    let context = values.iter().map(|(slot, value)| (slot.variable(), value.expose_secret())).collect();
    let known: Vec<_> = values.keys().copied().collect();
    run(source, &context, &known)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::content::INCOMING;
    use base64::Engine as _;

    fn fill(source: &str, secret: &str) -> Result<String, TemplateError> {
        let values = Values::from([
            (Slot::ClientId, "id".to_owned().into()),
            (Slot::ClientSecret, secret.to_owned().into()),
        ]);
        render(source, &values).map(|s| s.expose_secret().to_owned())
    }

    #[test]
    fn plain_values_stand_as_they_are() {
        assert_eq!(
            fill("A={{ clientId }}\nB={{ clientSecret }}\n", "a-B_9").as_deref(),
            Ok("A=id\nB=a-B_9\n")
        );
    }

    #[test]
    fn what_would_break_a_file_needs_a_filter() {
        for bad in ["a b", "a\nB=1", "a'b", "a\"b", "$(id)", "a`b", "a;b", "a#b", "{{x}}", "ü"] {
            assert_eq!(fill("A={{ clientSecret }}", bad), Err(TemplateError::NeedsEscaping(1)), "{bad}");
            assert!(fill("A={{ clientSecret ~ 'x' }}", bad).is_err(), "{bad}");
        }
        assert_eq!(fill("{{ clientSecret | json }}", "a\"\nb").as_deref(), Ok("\"a\\\"\\nb\""));
        assert_eq!(fill("{{ clientSecret | sh }}", "a'$b").as_deref(), Ok("'a'\\''$b'"));
        assert_eq!(fill("{{ clientSecret | b64encode }}", "a b").as_deref(), Ok("YSBi"));
    }

    #[test]
    fn a_filter_writes_what_its_file_can_hold_and_refuses_the_rest() {
        let file = |filter: &str, value: &str| fill(&format!("{{{{ clientSecret | {filter} }}}}"), value);
        assert_eq!(file("urlencode", "a/b@c:d%e f+ü~").as_deref(), Ok("a%2Fb%40c%3Ad%25e%20f%2B%C3%BC~"));
        assert_eq!(file("basic('oauth2')", "a\"b").as_deref(), Ok("b2F1dGgyOmEiYg=="));
        assert_eq!(file("netrc", "a$b'c;d#e").as_deref(), Ok("a$b'c;d#e"));
        assert_eq!(file("npmrc", "a\"b\\;#").as_deref(), Ok("\"a\\\"b\\\\;#\""));
        for (filter, values) in [
            ("netrc", ["", "a b", "a\tb", "a\nb", "a\"b", "a\\b", "#a", "ü", "a\0b"].as_slice()),
            ("npmrc", &["a${HOME}", "${", "null", "true", "a\nb", "ü", "\u{7f}"]),
            ("basic('u')", &["a\nb", "a\0b"]),
            ("basic('u:v')", &["a"]),
            ("sh", &["a\0b"]),
        ] {
            for value in values {
                assert_eq!(file(filter, value), Err(TemplateError::CantHold(1)), "{filter} {value:?}");
            }
        }
        assert_eq!(file("basic", "a"), Err(TemplateError::Failed(1)));
    }

    #[test]
    fn a_bad_template_is_refused_beforehand() {
        assert!(matches!(check("{{ nope }}", INCOMING), Err(TemplateError::Unknown { .. })));
        assert!(matches!(check("{{ clientId | nope }}", INCOMING), Err(TemplateError::Unknown { .. })));
        assert!(matches!(check("\n{{ clientId", INCOMING), Err(TemplateError::Syntax(2))));
        for bad in [
            "{% include 'x' %}",
            "{% for a in range(100000) %}x{% endfor %}",
            "{{ 'x' * 100000000 }}",
            "{{ ('xxxxxxxxxxxxxxxx' * 100000) * 100000 }}",
            "{% for a in ['x'] * 1000000 %}{{ a }}{% endfor %}",
            "{% macro a() %}{{ a() }}{% endmacro %}{{ a() }}",
            "{{ clientId.__class__ }}",
            "{% set a = clientId %}{% set a = a ~ a %}{{ a | json }}",
            "{% with a = 'x' * 3 %}{{ a }}{% endwith %}",
            "{% raw %}{{ x }}{% endraw %}",
            "{{ 'x' * 1000 | json }}",
            "{{ (clientId ~ clientId) | b64encode }}",
            "{% if 'x' * 100000000 == clientId %}{% endif %}",
            "{{ clientId | json | json | nope }}",
            "{{ '\\' * 3 }}",
        ] {
            assert!(check(bad, INCOMING).is_err(), "{bad}");
        }
    }

    /// The engine recurses over these; the process must live.
    #[test]
    fn long_chains_and_deep_nesting_are_refused_before_they_are_parsed() {
        let deep = |open: &str, middle: &str, close: &str, n: usize| {
            format!("{}{middle}{}", open.repeat(n), close.repeat(n))
        };
        for bomb in [
            format!("{{{{ clientId{} }}}}", " | b64encode".repeat(1300)),
            format!("{{{{ clientId{} }}}}", "|json".repeat(3000)),
            format!("{{% if {}clientId %}}x{{% endif %}}", "not ".repeat(4000)),
            format!("{{{{ {}1 }}}}", "-".repeat(8000)),
            format!("{{{{ {} }}}}", deep("[", "1", "]", 4000)),
            format!("{{{{ {} }}}}", deep("(", "clientId", ")", 5000)),
            format!("{{{{ clientId{} }}}}", ".a".repeat(5000)),
            format!("{{{{ {}clientId }}}}", "clientId == ".repeat(1300)),
            format!("{{{{ {}clientId }}}}", "clientId and ".repeat(1200)),
            format!("{{{{ {}clientId }}}}", "clientId if clientId else ".repeat(600)),
            deep("{% if clientId %}", "x", "{% endif %}", 600),
            format!("{{% if clientId %}}{}{{% endif %}}", "{% elif clientId %}x".repeat(800)),
            "{{ clientId }}".repeat(1100),
        ] {
            assert!(check(&bomb, INCOMING).is_err(), "{}", bomb.get(..60).unwrap_or(&bomb));
        }
        let plain = "{% if clientSecret %}S={{ clientSecret | json | b64encode }}{% else %}none{% endif %}\n";
        assert_eq!(check(&plain.repeat(10), INCOMING), Ok(()));
    }

    #[test]
    fn errors_show_no_value() {
        let e = fill("{{ clientSecret + 1 }}", "s3cr3t-canary").expect_err("fails");
        assert!(!format!("{e} {e:?}").contains("canary"));
    }

    proptest::proptest! {
        /// No value adds a line to a file, or a word to a line, unless a filter says how.
        #[test]
        fn no_value_breaks_out(value in "\\PC{0,40}|[ -~\n\r\t\0]{0,40}") {
            let bare = fill("A={{ clientSecret }}\nB=x\n", &value);
            if let Ok(text) = bare {
                proptest::prop_assert_eq!(text.lines().count(), 2);
                let line = format!("A={value}\n");
                proptest::prop_assert!(is_plain(&value));
                proptest::prop_assert!(text.starts_with(&line));
            }
            let json = fill("{{ clientSecret | json }}", &value).expect("any text is JSON");
            proptest::prop_assert!(!json.contains('\n'));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&json).ok(), Some(value.clone()));
            let b64 = fill("{{ clientSecret | b64encode }}", &value).expect("any text is base64");
            let decoded = base64::engine::general_purpose::STANDARD.decode(b64).expect("base64");
            proptest::prop_assert_eq!(decoded, value.clone().into_bytes());
            if let Ok(word) = fill("{{ clientSecret | sh }}", &value) {
                proptest::prop_assert_eq!(word.replace("'\\''", "").matches('\'').count(), 2);
                proptest::prop_assert!(!value.contains('\0'));
            }
        }
    }
}
