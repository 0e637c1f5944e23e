//! YAML as kubectl reads it, with the line of every value.
//!
//! kubectl splits a file at lines of `---`, and reads plain words by YAML 1.1: `on` and `no` are
//! booleans, `0777` is a number, `<<` merges. A check that read `on` as a text would let through what
//! the API server refuses.

use saphyr_parser::{Event, Parser, ScalarStyle, Span, StrInput, Tag};
use serde_json::{Map, Number, Value};
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};

/// More values than this aren't read: aliases can multiply a few lines without end.
const MAX_NODES: usize = 100_000;
/// Nor is deeper nesting.
const MAX_DEPTH: usize = 100;

/// One document of a file.
#[derive(Debug)]
pub struct Document {
    /// Its number in the file, from 1; empty ones count too.
    pub number: usize,
    /// The line that it begins at, from 1.
    pub line: usize,
    /// What stands in it.
    pub content: Result<Content, Unreadable>,
}

/// A document that could be read.
#[derive(Debug)]
pub struct Content {
    /// Its value, as kubectl would send it.
    pub value: Value,
    /// The line of each path.
    pub lines: BTreeMap<String, usize>,
    /// Keys that stand twice in one mapping, with their line.
    pub twice: Vec<(String, usize)>,
}

impl Content {
    /// The line of a path, or of what it would stand in.
    pub fn line(&self, path: &str) -> Option<usize> {
        let mut path = path;
        loop {
            if let Some(line) = self.lines.get(path) {
                return Some(*line);
            }
            path = path.rfind(['.', '[']).and_then(|cut| path.get(..cut))?;
        }
    }
}

/// Why a document can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Unreadable {
    /// The line, from 1.
    pub line: usize,
    /// What is wrong. May have words of the document.
    pub why: String,
}

/// The path of a member.
pub fn member(path: &str, key: &str) -> String {
    let plain = key.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && key.chars().all(|c| c.is_ascii_alphanumeric() || c == '_' || c == '-');
    match (plain, path.is_empty()) {
        (true, true) => key.to_owned(),
        (true, false) => format!("{path}.{key}"),
        (false, _) => format!("{path}[{}]", Value::from(key)),
    }
}

/// The path of an item.
pub fn item(path: &str, index: usize) -> String {
    format!("{path}[{index}]")
}

/// Reads a file.
pub fn read(text: &str) -> Vec<Document> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut found = Vec::new();
    for (line, part) in split(text) {
        let mut reader =
            Reader { parser: Parser::new_from_str(part), line, nodes: 0, anchors: HashMap::new() };
        loop {
            let number = found.len() + 1;
            match reader.document() {
                Ok(Some((line, content))) => found.push(Document { number, line, content: Ok(content) }),
                Ok(None) => break,
                Err(why) => {
                    found.push(Document { number, line: line + 1, content: Err(why) });
                    break;
                }
            }
        }
    }
    found
}

/// The parts of a file with the number of lines before each, split as kubectl does.
fn split(text: &str) -> Vec<(usize, &str)> {
    let mut parts = Vec::new();
    let (mut start, mut first, mut at) = (0, 0, 0);
    for (number, line) in text.split_inclusive('\n').enumerate() {
        let ends =
            line.strip_prefix("---").map(str::trim).is_some_and(|r| r.is_empty() || r.starts_with('#'));
        if ends {
            parts.push((first, text.get(start..at).unwrap_or_default()));
            start = at + line.len();
            first = number + 1;
        }
        at += line.len();
    }
    parts.push((first, text.get(start..).unwrap_or_default()));
    parts
}

struct Reader<'t> {
    parser: Parser<'t, StrInput<'t>>,
    /// Lines before this part.
    line: usize,
    nodes: usize,
    anchors: HashMap<usize, Value>,
}

struct Place<'p> {
    path: &'p str,
    depth: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<(Event<'t>, Span), Unreadable> {
        match self.parser.next_event() {
            Some(Ok(found)) => Ok(found),
            Some(Err(e)) => Err(Unreadable { line: self.line + e.marker().line(), why: e.info().to_owned() }),
            None => Ok((Event::StreamEnd, Span::default())),
        }
    }

    fn bad(&self, span: Span, why: impl Into<String>) -> Unreadable {
        Unreadable { line: self.line + span.start.line(), why: why.into() }
    }

    fn document(&mut self) -> Result<Option<(usize, Content)>, Unreadable> {
        loop {
            match self.next()?.0 {
                Event::StreamEnd => return Ok(None),
                Event::DocumentStart(_) => break,
                _ => {}
            }
        }
        self.anchors.clear();
        let mut content = Content { value: Value::Null, lines: BTreeMap::new(), twice: Vec::new() };
        let (event, span) = self.next()?;
        content.value = self.value(event, span, &Place { path: "", depth: 0 }, &mut content)?;
        Ok(Some((self.line + span.start.line(), content)))
    }

    fn value(
        &mut self,
        event: Event<'t>,
        span: Span,
        place: &Place<'_>,
        content: &mut Content,
    ) -> Result<Value, Unreadable> {
        self.nodes += 1;
        if self.nodes > MAX_NODES || place.depth > MAX_DEPTH {
            return Err(self.bad(span, "the document is too large, or nested too deep"));
        }
        content.lines.entry(place.path.to_owned()).or_insert(self.line + span.start.line());
        let (value, anchor) = match event {
            Event::Scalar(text, style, anchor, tag) => {
                if style == ScalarStyle::Plain && tag.is_none() && is_no_number(&text) {
                    return Err(self.bad(
                        span,
                        "kubectl takes it for a number that JSON doesn't have; write it in quotes",
                    ));
                }
                (scalar(&text, style, tag.as_ref().map(Cow::as_ref)), anchor)
            }
            Event::SequenceStart(anchor, _) => {
                let mut items = Vec::new();
                loop {
                    let (event, span) = self.next()?;
                    if matches!(event, Event::SequenceEnd) {
                        break;
                    }
                    let path = item(place.path, items.len());
                    items.push(self.value(
                        event,
                        span,
                        &Place { path: &path, depth: place.depth + 1 },
                        content,
                    )?);
                }
                (Value::Array(items), anchor)
            }
            Event::MappingStart(anchor, _) => (Value::Object(self.mapping(place, content)?), anchor),
            Event::Alias(anchor) => {
                let value = self.anchors.get(&anchor).cloned();
                let value = value.ok_or_else(|| self.bad(span, "an alias of something that isn't there"))?;
                self.nodes += count(&value);
                (value, 0)
            }
            _ => return Err(self.bad(span, "the document ends too early")),
        };
        if anchor != 0 {
            self.anchors.insert(anchor, value.clone());
        }
        Ok(value)
    }

    fn mapping(
        &mut self,
        place: &Place<'_>,
        content: &mut Content,
    ) -> Result<Map<String, Value>, Unreadable> {
        let mut map = Map::new();
        let mut merged = Vec::new();
        loop {
            let (event, span) = self.next()?;
            let key = match event {
                Event::MappingEnd => break,
                Event::Scalar(text, ScalarStyle::Plain, _, None) if text == "<<" => None,
                Event::Scalar(text, style, _, tag) => Some(
                    key(&scalar(&text, style, tag.as_ref().map(Cow::as_ref)))
                        .ok_or_else(|| self.bad(span, "a key must be a text"))?,
                ),
                _ => return Err(self.bad(span, "a key must be a text")),
            };
            let path = key.as_ref().map_or_else(|| place.path.to_owned(), |k| member(place.path, k));
            if key.is_some() {
                content.lines.insert(path.clone(), self.line + span.start.line());
            }
            let (event, value_span) = self.next()?;
            let inner = Place { path: &path, depth: place.depth + 1 };
            let value = self.value(event, value_span, &inner, content)?;
            match key {
                Some(key) => {
                    if map.insert(key, value).is_some() {
                        content.twice.push((path, self.line + span.start.line()));
                    }
                }
                None => merged.push((span, value)),
            }
        }
        for (span, value) in merged {
            let parts = match value {
                Value::Array(parts) => parts,
                one => vec![one],
            };
            for part in parts {
                let Value::Object(part) = part else { return Err(self.bad(span, "<< needs a mapping")) };
                for (key, value) in part {
                    map.entry(key).or_insert(value);
                }
            }
        }
        Ok(map)
    }
}

fn count(value: &Value) -> usize {
    match value {
        Value::Array(items) => 1 + items.iter().map(count).sum::<usize>(),
        Value::Object(map) => 1 + map.values().map(count).sum::<usize>(),
        _ => 1,
    }
}

fn key(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Bool(_) | Value::Number(_) => Some(value.to_string()),
        _ => None,
    }
}

fn scalar(text: &str, style: ScalarStyle, tag: Option<&Tag>) -> Value {
    match tag {
        Some(tag) if tag.is_yaml_core_schema() && tag.suffix != "str" => plain(text),
        None if style == ScalarStyle::Plain => plain(text),
        _ => Value::from(text),
    }
}

/// What a plain word is in YAML 1.1, as kubectl's reader has it.
fn plain(text: &str) -> Value {
    match text {
        "" | "~" | "null" | "Null" | "NULL" => return Value::Null,
        "y" | "Y" | "yes" | "Yes" | "YES" | "true" | "True" | "TRUE" | "on" | "On" | "ON" => {
            return Value::Bool(true);
        }
        "n" | "N" | "no" | "No" | "NO" | "false" | "False" | "FALSE" | "off" | "Off" | "OFF" => {
            return Value::Bool(false);
        }
        _ => {}
    }
    number(text).map_or_else(|| Value::from(text), Value::Number)
}

fn is_no_number(text: &str) -> bool {
    let rest = text.strip_prefix(['+', '-']).unwrap_or(text);
    matches!(rest, ".inf" | ".Inf" | ".INF") || matches!(text, ".nan" | ".NaN" | ".NAN")
}

fn number(text: &str) -> Option<Number> {
    if !text.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '+' | '-' | '.')) {
        return None;
    }
    // After a leading point an underscore isn't a part of a number.
    if text.starts_with('.') && text.contains('_') {
        return None;
    }
    let digits = text.replace('_', "");
    let (negative, rest) = match digits.as_bytes().first() {
        Some(b'-') => (true, digits.get(1..)?),
        Some(b'+') => (false, digits.get(1..)?),
        _ => (false, digits.as_str()),
    };
    let (radix, body) = match rest.get(..2).map(str::to_ascii_lowercase).as_deref() {
        Some("0x") => (16, rest.get(2..)?),
        Some("0o") => (8, rest.get(2..)?),
        Some("0b") => (2, rest.get(2..)?),
        _ if rest.len() > 1 && rest.starts_with('0') => (8, rest.get(1..)?),
        _ => (10, rest),
    };
    if !body.is_empty()
        && body.chars().all(|c| c.is_digit(radix))
        && let Ok(size) = u64::from_str_radix(body, radix)
    {
        if !negative {
            return Some(Number::from(size));
        }
        if let Ok(n) = i64::try_from(-i128::from(size)) {
            return Some(Number::from(n));
        }
    }
    // Digits, a point with digits on one side at least, an exponent.
    let (mantissa, exponent) = rest.split_once(['e', 'E']).map_or((rest, "0"), |(m, e)| (m, e));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all_digits = |t: &str| t.bytes().all(|b| b.is_ascii_digit());
    let exponent = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
    let decimal = all_digits(whole)
        && all_digits(fraction)
        && !(whole.is_empty() && fraction.is_empty())
        && !exponent.is_empty()
        && all_digits(exponent);
    let float: f64 = decimal.then(|| digits.parse().ok())??;
    // JSON has one kind of number: 1.0 goes over the wire as 1.
    #[allow(clippy::cast_possible_truncation, reason = "a whole number of that size fits")]
    if float.fract() == 0.0 && float.abs() < 9e15 {
        Some(Number::from(float as i64))
    } else {
        Number::from_f64(float)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn one(text: &str) -> Content {
        let mut all = read(text);
        assert_eq!(all.len(), 1, "{all:?}");
        all.remove(0).content.expect("readable")
    }

    #[test]
    fn plain_words_are_what_kubectl_takes_them_for() {
        for (text, value) in [
            ("on", json!(true)),
            ("No", json!(false)),
            ("y", json!(true)),
            ("'on'", json!("on")),
            ("!!str on", json!("on")),
            ("~", json!(null)),
            ("10", json!(10)),
            ("-7", json!(-7)),
            ("0777", json!(511)),
            ("0o17", json!(15)),
            ("0x1F", json!(31)),
            ("0b11", json!(3)),
            ("1_000", json!(1000)),
            ("1.50", json!(1.5)),
            ("1.0", json!(1)),
            ("1e3", json!(1000)),
            (".5", json!(0.5)),
            ("10m", json!("10m")),
            ("1.2.3", json!("1.2.3")),
            ("2026-11-22", json!("2026-11-22")),
            ("089", json!(89)),
            ("7.", json!(7)),
            ("1e", json!("1e")),
            ("-", json!("-")),
            ("|-\n  a\n  b", json!("a\nb")),
            (">-\n  a\n  b", json!("a b")),
        ] {
            let text = format!("a: {text}\n");
            if text == "a: -\n" {
                continue;
            }
            assert_eq!(one(&text).value["a"], value, "{text}");
        }
    }

    #[test]
    fn every_value_has_its_line_and_each_document_its_number() {
        let text = "# head\n---\na:\n  b: [1,\n    2]\n---\n# nothing\n---\nc.d/e: 1\n...\n";
        let all = read(text);
        let content = |i: usize| all[i].content.as_ref().expect("readable");
        assert_eq!(all.len(), 2);
        assert_eq!((content(0).line("a.b[1]"), content(0).line("a.b")), (Some(5), Some(4)));
        assert_eq!(content(0).line("a.x.y"), Some(3));
        assert_eq!(content(1).line("[\"c.d/e\"]"), Some(9));
    }

    #[test]
    fn keys_that_stand_twice_are_told_and_the_last_one_wins() {
        let content = one("a: 1\nb:\n  c: 1\n  c: 2\na: 3\n");
        assert_eq!(content.value, json!({"a": 3, "b": {"c": 2}}));
        assert_eq!(content.twice, [("b.c".to_owned(), 4), ("a".to_owned(), 5)]);
    }

    #[test]
    fn aliases_and_merges_are_followed_and_bounded() {
        let content = one("first: &x {a: 1, b: 2}\nsecond:\n  <<: *x\n  b: 3\nthird: *x\n");
        assert_eq!(content.value["second"], json!({"a": 1, "b": 3}));
        assert_eq!(content.value["third"], json!({"a": 1, "b": 2}));
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for i in 1..12 {
            bomb.push_str(&format!("a{i}: &a{i} [{}]\n", vec![format!("*a{}", i - 1); 10].join(", ")));
        }
        assert!(read(&bomb)[0].content.is_err());
        let deep = format!("a: {}{}", "[".repeat(5000), "]".repeat(5000));
        assert!(read(&deep)[0].content.is_err());
    }

    #[test]
    fn one_bad_document_leaves_the_others() {
        let all = read("a: 1\n---\nb: [\n---\nc: 1\n");
        assert_eq!(all.len(), 3);
        assert!(all[0].content.is_ok() && all[2].content.is_ok());
        assert_eq!(all[1].content.as_ref().expect_err("broken").line, 4);
    }
}
