//! How tools speak: tables for people, JSON and YAML for programs, colours on a terminal alone.
//!
//! Whatever came from elsewhere (a name in a link, a message of a condition, a server's header) goes
//! through [`clean`] before a person sees it: a terminal obeys control characters. JSON and YAML
//! escape them by themselves.

use clap::ValueEnum;
use jiff::Timestamp;
use serde::Serialize;
use std::borrow::Cow;
use std::io::{self, IsTerminal as _, Write as _};

/// How a command prints what it found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    #[default]
    Table,
    /// For programs
    Json,
    /// For programs
    Yaml,
}

impl Format {
    /// Prints `value` for programs; `false` where people are to read.
    ///
    /// # Errors
    /// When it can't be written.
    pub fn print<T: Serialize>(self, value: &T) -> io::Result<bool> {
        match self {
            Self::Table => return Ok(false),
            Self::Json => {
                say(&format!("{}\n", serde_json::to_string_pretty(value).map_err(io::Error::other)?))?;
            }
            Self::Yaml => say(&yaml(value)?)?,
        }
        Ok(true)
    }
}

/// A value as YAML. Values that are text are read back as text by YAML 1.1, as kubectl has it, and by
/// 1.2: what either could take for something else (`on`, `1e3`, `12:30`) is in quotes.
///
/// # Errors
/// When it can't be written.
pub fn yaml<T: Serialize>(value: &T) -> io::Result<String> {
    // A long line stays one line.
    let options = serde_saphyr::ser_options! { folded_wrap_chars: usize::MAX };
    serde_saphyr::to_string_with_options(value, options).map_err(io::Error::other)
}

/// Writes to standard output. Who closed it has read enough.
///
/// # Errors
/// When it can't be written.
pub fn say(text: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other,
    }
}

/// Writes a line to standard error, cleaned.
pub fn complain(text: &str) {
    // Nobody is left to tell where this fails.
    let _ = writeln!(io::stderr().lock(), "{}", clean(text));
}

/// Foreign text as it may go to a terminal: control characters, and those that turn the direction
/// of what follows, are written as escapes.
pub fn clean(text: &str) -> Cow<'_, str> {
    if !text.chars().any(is_harmful) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        if is_harmful(c) {
            out.extend(c.escape_default());
        } else {
            out.push(c);
        }
    }
    Cow::Owned(out)
}

fn is_harmful(c: char) -> bool {
    c.is_control()
        || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

/// A colour.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Colour {
    /// Good.
    Green,
    /// To be looked at.
    Yellow,
    /// Bad.
    Red,
    /// Beside the point.
    Dim,
    /// A head.
    Bold,
}

/// Colours what goes to standard output, where that is a terminal and `NO_COLOR` isn't set.
#[derive(Debug, Clone, Copy)]
pub struct Paint(bool);

impl Paint {
    /// As standard output is.
    pub fn detect() -> Self {
        let off = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|v| v == "dumb");
        Self(!off && io::stdout().is_terminal())
    }

    /// `text` in a colour.
    pub fn paint(self, colour: Colour, text: &str) -> String {
        let code = match colour {
            Colour::Green => 32,
            Colour::Yellow => 33,
            Colour::Red => 31,
            Colour::Dim => 2,
            Colour::Bold => 1,
        };
        if self.0 { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }
}

/// Rows in columns, three spaces apart as kubectl has them. The cells are cleaned.
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let rows: Vec<Vec<String>> = std::iter::once(head.iter().map(|h| (*h).to_owned()).collect())
        .chain(rows.iter().map(|r| r.iter().map(|c| clean(c).into_owned()).collect()))
        .collect();
    let columns = head.len();
    let width = |i: usize| rows.iter().filter_map(|r| r.get(i)).map(|c| c.chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for (cell, width) in row.iter().zip(&widths) {
            line.push_str(&format!("{cell:<width$}   "));
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out
}

/// How long ago, or in how long, a time (RFC 3339) is: `3m ago`, `in 2h`.
pub fn relative(time: &str, now: Timestamp) -> Option<String> {
    let at: Timestamp = time.parse().ok()?;
    let seconds = now.duration_since(at).as_secs();
    Some(match seconds {
        0 => "just now".to_owned(),
        s if s > 0 => format!("{} ago", span(s.unsigned_abs())),
        s => format!("in {}", span(s.unsigned_abs())),
    })
}

/// A span as kubectl has it: one unit, or two where the first is small.
pub fn span(seconds: u64) -> String {
    const MINUTE: u64 = 60;
    const HOUR: u64 = 60 * MINUTE;
    const DAY: u64 = 24 * HOUR;
    let two = |n: u64, unit: char, rest: u64, small: char| {
        if rest == 0 { format!("{n}{unit}") } else { format!("{n}{unit}{rest}{small}") }
    };
    match seconds {
        s if s < 2 * MINUTE => format!("{s}s"),
        s if s < 10 * MINUTE => two(s / MINUTE, 'm', s % MINUTE, 's'),
        s if s < 3 * HOUR => format!("{}m", s / MINUTE),
        s if s < 8 * HOUR => two(s / HOUR, 'h', s % HOUR / MINUTE, 'm'),
        s if s < 2 * DAY => format!("{}h", s / HOUR),
        s if s < 8 * DAY => two(s / DAY, 'd', s % DAY / HOUR, 'h'),
        s => format!("{}d", s / DAY),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_terminal_is_told_nothing() {
        assert_eq!(clean("CI dashboard ü 📚"), "CI dashboard ü 📚");
        assert_eq!(clean("a\x1b[31mb\nc\u{9b}\u{202e}d"), "a\\u{1b}[31mb\\nc\\u{9b}\\u{202e}d");
        let shown = table(&["NAME"], &[vec!["a\x1b]0;x\x07".into()]]);
        assert!(!shown.contains('\x1b') && !shown.contains('\x07'), "{shown:?}");
    }

    #[test]
    fn times_read_as_kubectl_has_them() {
        let now: Timestamp = "2026-11-22T10:00:00Z".parse().expect("a time");
        for (at, said) in [
            ("2026-11-22T10:00:00Z", "just now"),
            ("2026-11-22T09:59:30Z", "30s ago"),
            ("2026-11-22T09:57:00Z", "3m ago"),
            ("2026-11-22T09:56:55Z", "3m5s ago"),
            ("2026-11-22T12:00:00Z", "in 120m"),
            ("2026-11-22T05:00:00Z", "5h ago"),
            ("2026-11-19T10:00:00Z", "3d ago"),
            ("2026-01-01T10:00:00Z", "325d ago"),
        ] {
            assert_eq!(relative(at, now).as_deref(), Some(said), "{at}");
        }
        assert_eq!(relative("soon", now), None);
    }

    #[test]
    fn text_is_text_to_every_reader_of_yaml() {
        let odd = [
            "on",
            "On",
            "off",
            "yes",
            "NO",
            "y",
            "n",
            "true",
            "False",
            "null",
            "Null",
            "~",
            "",
            " ",
            " a",
            "a ",
            "123",
            "-1",
            "+1",
            "1_000",
            "017",
            "0o17",
            "0x1f",
            "0b1",
            "1e3",
            "1E+3",
            "1.",
            ".5",
            "1.5",
            "1.2.3",
            ".inf",
            "-.INF",
            ".nan",
            "12:30",
            "190:20:30",
            "2026-11-22",
            "2026-11-22T10:00:00Z",
            "=",
            "<<",
            "-",
            "- a",
            "?",
            "? a",
            ":",
            "a: b",
            "a:",
            "#",
            "a #b",
            "[a]",
            "{a}",
            "*a",
            "&a",
            "!a",
            "!!int 1",
            "|",
            ">",
            "'",
            "\"",
            "%a",
            "@a",
            "`a",
            ",",
            "---",
            "--- a",
            "...",
            "a\nb",
            "a\n",
            "\n",
            " a\n b\n\n",
            "a\tb",
            "\t",
            "a\rb",
            "\u{7}",
            "\u{7f}",
            "\u{85}",
            "\u{2028}",
            "\u{feff}a",
            "ü",
            "日本",
            "📚",
            "\\",
            "a\\nb",
            "/",
            "https://ci.example.com/callback?a=b&c=d#e",
            "0777",
            "08",
            "1,000",
            "NaN",
            "infinity",
            "e3",
        ];
        let long = "word ".repeat(60);
        let odd: Vec<&str> = odd.into_iter().chain([long.as_str(), long.trim_end()]).collect();
        let object =
            json!({"metadata": {"name": "on"}, "list": odd, "map": {"of": odd.last()}, "n": 1, "b": true});
        let text = yaml(&object).expect("YAML");
        // By YAML 1.1, as kubectl reads it, and by 1.2.
        let documents = crate::cli::lint::yaml::read(&text);
        let [document] = documents.as_slice() else { panic!("{text}") };
        let read = &document.content.as_ref().unwrap_or_else(|e| panic!("{e}: {text}")).value;
        for (n, wanted) in odd.iter().enumerate() {
            assert_eq!(read["list"][n], **wanted, "{wanted:?} in {text}");
        }
        assert_eq!(*read, object, "{text}");
        assert_eq!(serde_yaml::from_str::<serde_json::Value>(&text).expect("YAML 1.2"), object, "{text}");
        assert!(text.contains("  name: \"on\"\n"), "{text}");
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [vec!["a".to_owned(), "b".into()], vec!["long name".into(), String::new()]];
        assert_eq!(table(&["NAME", "READY"], &rows), "NAME        READY\na           b\nlong name\n");
    }
}
