//! The filters: each writes a value so that one kind of file reads back just that value, and
//! refuses what that kind of file, or one of its common readers, can't hold. Pure; for
//! [`super::render`] alone.

use super::MAX_OUTPUT;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use minijinja::value::Value;
use minijinja::{Environment, Error, ErrorKind};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

/// The filters' names, as messages list them.
pub(super) const NAMES: &str = "json, sh, b64encode, urlencode, basic, netrc and npmrc";

/// Marks of what went wrong, in an [`Error`]'s detail.
pub(super) const TOO_MUCH: &str = "too much";
pub(super) const CANT_HOLD: &str = "can't hold";

/// All but the unreserved characters of RFC 3986 section 2.3.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

pub(super) fn add(env: &mut Environment<'_>) {
    env.add_filter("json", |text: String| bounded(json(&text)?));
    env.add_filter("sh", |text: String| {
        if text.contains('\0') {
            return Err(cant_hold());
        }
        bounded(format!("'{}'", text.replace('\'', "'\\''")))
    });
    env.add_filter("b64encode", |text: String| bounded(STANDARD.encode(text)));
    env.add_filter("urlencode", |text: String| bounded(utf8_percent_encode(&text, RESERVED).to_string()));
    env.add_filter("basic", basic);
    env.add_filter("netrc", netrc);
    env.add_filter("npmrc", npmrc);
}

fn bounded(text: String) -> Result<Value, Error> {
    if text.len() > MAX_OUTPUT {
        return Err(Error::new(ErrorKind::InvalidOperation, TOO_MUCH));
    }
    Ok(Value::from_safe_string(text))
}

fn cant_hold() -> Error {
    Error::new(ErrorKind::InvalidOperation, CANT_HOLD)
}

fn json(text: &str) -> Result<String, Error> {
    serde_json::to_string(text).map_err(|_| Error::new(ErrorKind::InvalidOperation, "json"))
}

/// The credentials of HTTP's Basic scheme (RFC 7617 section 2): the user is the argument, the value
/// is the password. It is what stands in `auth` of a registry login, too.
fn basic(password: String, user: &str) -> Result<Value, Error> {
    if user.contains(':') || user.chars().chain(password.chars()).any(char::is_control) {
        return Err(cant_hold());
    }
    bounded(STANDARD.encode(format!("{user}:{password}")))
}

/// A word of a `.netrc`. Its readers agree neither on quotes nor on backslashes (GNU's manual, curl
/// and Python each have rules of their own), so a value that needs either is refused; curl takes a
/// leading `#` as a comment.
fn netrc(text: String) -> Result<Value, Error> {
    let holds = |b: u8| b.is_ascii_graphic() && b != b'"' && b != b'\\';
    if text.is_empty() || text.starts_with('#') || !text.bytes().all(holds) {
        return Err(cant_hold());
    }
    bounded(text)
}

/// A value of a `.npmrc`: npm's ini reads a quoted one as JSON. After that npm puts variables of
/// the environment in the place of `${NAME}`, and how that is escaped differs among its kind. Three
/// words are no text to it even in quotes.
fn npmrc(text: String) -> Result<Value, Error> {
    let holds = |b: u8| b == b' ' || b.is_ascii_graphic();
    if text.contains("${") || matches!(text.as_str(), "true" | "false" | "null") || !text.bytes().all(holds) {
        return Err(cant_hold());
    }
    bounded(json(&text)?)
}
