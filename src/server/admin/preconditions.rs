//! If-Match and If-None-Match (RFC 9110 section 13.1).

use super::Problem;
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, header};

/// What the caller demands of the client as it is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Preconditions {
    if_match: Option<Tags>,
    if_none_match: Option<Tags>,
}

#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    /// Without their quotes.
    List(Vec<String>),
}

impl Tags {
    fn of(headers: &HeaderMap, name: &HeaderName) -> Result<Option<Self>, Problem> {
        let mut list = Vec::new();
        for value in headers.get_all(name) {
            let bad = || {
                Problem::invalid("If-Match", "If-Match and If-None-Match take * or entity tags like \"abc\"")
            };
            for tag in value.to_str().map_err(|_| bad())?.split(',').map(str::trim) {
                if tag == "*" {
                    return Ok(Some(Self::Any));
                }
                // A weak tag never matches here: these comparisons are strong.
                if tag.starts_with("W/\"") {
                    continue;
                }
                let inner = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"')).ok_or_else(bad)?;
                list.push(inner.to_owned());
            }
        }
        Ok(headers.contains_key(name).then_some(Self::List(list)))
    }

    fn has(&self, etag: Option<&str>) -> bool {
        match (self, etag) {
            (_, None) => false,
            (Self::Any, Some(_)) => true,
            (Self::List(tags), Some(etag)) => tags.iter().any(|t| t == etag),
        }
    }
}

impl Preconditions {
    fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        Ok(Self {
            if_match: Tags::of(headers, &header::IF_MATCH)?,
            if_none_match: Tags::of(headers, &header::IF_NONE_MATCH)?,
        })
    }

    /// Checks them; `etag` is the client's, if there is one.
    ///
    /// # Errors
    /// 412.
    pub fn check(&self, etag: Option<&str>) -> Result<(), Problem> {
        if self.if_match.as_ref().is_some_and(|tags| !tags.has(etag)) {
            return Err(Problem::precondition_failed(
                "the client isn't the one that If-Match names; read it again",
            ));
        }
        if self.if_none_match.as_ref().is_some_and(|tags| tags.has(etag)) {
            return Err(Problem::precondition_failed(
                "the client is there already, and If-None-Match says not to touch it",
            ));
        }
        Ok(())
    }

    /// Whether If-Match names this very state: the caller knows what it writes over. `*` doesn't.
    pub fn names(&self, etag: &str) -> bool {
        matches!(&self.if_match, Some(tags @ Tags::List(_)) if tags.has(Some(etag)))
    }

    /// Whether there is an If-Match.
    pub fn has_if_match(&self) -> bool {
        self.if_match.is_some()
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Preconditions {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        Self::of(&parts.headers)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(name: HeaderName, value: &str) -> Result<Preconditions, Problem> {
        Preconditions::of(&HeaderMap::from_iter([(name, value.parse().expect("a header"))]))
    }

    #[test]
    fn if_match() {
        let of = |value| with(header::IF_MATCH, value).expect("good");
        assert!(of("\"a\"").check(Some("a")).is_ok());
        assert!(of("\"b\", \"a\"").check(Some("a")).is_ok());
        assert!(of("*").check(Some("a")).is_ok());
        for refused in ["\"b\"", "W/\"a\""] {
            assert!(of(refused).check(Some("a")).is_err(), "{refused}");
        }
        assert!(of("*").check(None).is_err());
        assert!(of("\"a\"").names("a"));
        assert!(!of("*").names("a"));
        assert!(with(header::IF_MATCH, "a").is_err());
    }

    #[test]
    fn if_none_match() {
        let of = |value| with(header::IF_NONE_MATCH, value).expect("good");
        assert!(of("*").check(None).is_ok());
        assert!(of("*").check(Some("a")).is_err());
        assert!(of("\"b\"").check(Some("a")).is_ok());
        assert!(Preconditions::default().check(None).is_ok());
        assert!(!Preconditions::default().names("a"));
    }
}
