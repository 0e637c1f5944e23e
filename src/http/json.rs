//! JSON as servers write it. RFC 8259 wants UTF-8 without a byte order mark, Unicode scalar values and
//! numbers; some servers have one of the others, in a member that nobody needs, and all clients but
//! a strict one read on. So what no reader understands differently is put right, and nothing else is.

use serde_json::Value;
use std::borrow::Cow;

/// Reads a body as JSON; `None` for one that isn't.
///
/// Beyond RFC 8259 it takes: a byte order mark; bytes that are no UTF-8, half of a surrogate pair (both as U+FFFD); numbers that no `f64` holds, `NaN` and `Infinity` (as `null`).
pub fn json(body: &[u8]) -> Option<Value> {
    let text = text(body);
    serde_json::from_str(&text).or_else(|_| serde_json::from_str(&mended(&text))).ok()
}

fn text(body: &[u8]) -> Cow<'_, str> {
    String::from_utf8_lossy(body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body))
}

/// The text with what no member that is needed can hold replaced: halves of surrogate pairs, and
/// numbers that aren't any.
fn mended(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    let mut quoted = false;
    while let Some(c) = rest.chars().next() {
        let end = if quoted {
            in_text(rest, &mut out)
        } else if c == '-' || c.is_ascii_alphanumeric() {
            let end = rest.find(|c: char| !(c.is_ascii_alphanumeric() || "+-.".contains(c)));
            let word = &rest[..end.unwrap_or(rest.len())];
            let is_none = matches!(word, "NaN" | "Infinity" | "-Infinity")
                || (word.ends_with(|c: char| c.is_ascii_digit()) && word.parse().is_ok_and(f64::is_infinite));
            out.push_str(if is_none { "null" } else { word });
            word.len()
        } else {
            out.push(c);
            c.len_utf8()
        };
        if c == '"' {
            quoted = !quoted;
        }
        rest = &rest[end..];
    }
    out
}

/// Copies one character or escape of a text, and says how long it was.
fn in_text(rest: &str, out: &mut String) -> usize {
    let unit = |at: usize| {
        let hex = rest.get(at..at + 6)?.strip_prefix("\\u")?;
        u16::from_str_radix(hex, 16).ok().filter(|_| hex.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    let length = match (unit(0), unit(6)) {
        (Some(0xd800..=0xdbff), Some(0xdc00..=0xdfff)) => 12,
        (Some(0xd800..=0xdfff), _) => {
            out.push_str("\\ufffd");
            return 6;
        }
        (Some(_), _) => 6,
        // An escaped quote or backslash isn't looked at again.
        (None, _) if rest.starts_with('\\') => 1 + rest[1..].chars().next().map_or(0, char::len_utf8),
        (None, _) => rest.chars().next().map_or(0, char::len_utf8),
    };
    out.push_str(&rest[..length]);
    length
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn what_every_reader_takes_alike_is_taken() {
        let text = "{\"a\": \"ü\"}";
        let plain = json!({"a": "ü"});
        let marked = format!("\u{feff}{text}");
        for (body, wanted) in [
            (text.into(), plain.clone()),
            (marked.into_bytes(), plain),
            (b"{\"a\": \"\xfc\"}".to_vec(), json!({"a": "\u{fffd}"})),
            (
                br#"{"a": "x\ud83d", "b": "\ude00y", "c": "\ud83d\ude00"}"#.to_vec(),
                json!({"a": "x\u{fffd}", "b": "\u{fffd}y", "c": "😀"}),
            ),
            (
                br#"{"a": "\\ud83d\"NaN", "b": NaN, "c": [-Infinity, 1e999, -1e999]}"#.to_vec(),
                json!({"a": "\\ud83d\"NaN", "b": null, "c": [null, null, null]}),
            ),
            (br#"{"a": 1, "a": 2}"#.to_vec(), json!({"a": 2})),
        ] {
            assert_eq!(json(&body), Some(wanted), "{}", String::from_utf8_lossy(&body));
        }
        for body in [
            "",
            "{",
            "\u{feff}\u{feff}{}",
            "{'a': 1}",
            "{\"a\": 1,}",
            "{\"a\": 1} x",
            "// x\n{}",
            "{\"a\": nan}",
            "{\"a\": \"\n\"}",
            "{a: 1}",
            "NaNo",
        ] {
            assert_eq!(json(body.as_bytes()), None, "{body}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics_and_json_is_what_it_was(text in "[\\PC\\\\\"ud8{}:,\u{0}]{0,40}", bytes: Vec<u8>) {
            let _ = json(&bytes);
            if let Some(value) = json(text.as_bytes()) {
                prop_assert_eq!(json(value.to_string().as_bytes()), Some(value));
            }
        }
    }
}
