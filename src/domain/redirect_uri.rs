//! Redirect URIs (RFC 6749 section 3.1.2, RFC 9700 section 4.1, RFC 8252 section 7.3).

use std::fmt;
use url::{Host, Url};

/// The longest redirect URI that is taken, in bytes (Bitbucket's own limit).
pub const MAX_REDIRECT_URI: usize = 450;

/// An absolute URI that a client may be redirected to: https, or http on loopback; no fragment,
/// no user information, no wildcard.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RedirectUri(String);

/// Why a redirect URI was refused. The text says what to change.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectUriError {
    /// Not an absolute URI.
    #[error("is not an absolute URI; write it like https://app.example.com/callback")]
    NotAbsolute,
    /// Too long.
    #[error("is longer than {MAX_REDIRECT_URI} bytes")]
    TooLong,
    /// Characters beyond ASCII, spaces or control characters: matching is by exact text.
    #[error(
        "has characters that a URI can't have; percent-encode them, and write a host with other letters in its xn-- form"
    )]
    BadCharacter,
    /// Has a `#fragment` (RFC 6749 section 3.1.2).
    #[error("has a fragment (#…), which RFC 6749 section 3.1.2 forbids; remove it")]
    Fragment,
    /// Has `user:password@`.
    #[error("has user information before the host; remove it")]
    UserInfo,
    /// Has a `*`.
    #[error("has a wildcard (*); redirect URIs are matched exactly, so list each one")]
    Wildcard,
    /// Plain http to another machine.
    #[error("is plain http, which is allowed for loopback (localhost, 127.0.0.1, [::1]) alone; use https")]
    PlainHttp,
    /// Some other scheme.
    #[error("has a scheme other than https (or http on loopback)")]
    Scheme,
    /// A `.` or `..` segment, which a browser and a server may read differently.
    #[error("has a . or .. segment in its path; write the path without it")]
    DotSegment,
}

impl RedirectUri {
    /// Checks a redirect URI.
    ///
    /// # Errors
    /// [`RedirectUriError`], one sentence for the one who wrote it.
    pub fn parse(text: &str) -> Result<Self, RedirectUriError> {
        use RedirectUriError as E;
        if text.len() > MAX_REDIRECT_URI {
            return Err(E::TooLong);
        }
        if text.bytes().any(|b| !(0x21..=0x7e).contains(&b) || b"\"<>\\^`{|}".contains(&b)) {
            return Err(E::BadCharacter);
        }
        if text.contains('#') {
            return Err(E::Fragment);
        }
        if text.contains('*') {
            return Err(E::Wildcard);
        }
        let url = Url::parse(text).map_err(|_| E::NotAbsolute)?;
        let host = match url.scheme() {
            "https" | "http" => url.host().ok_or(E::NotAbsolute)?,
            _ => return Err(E::Scheme),
        };
        // `https:host/path` parses but isn't what a client would compare with.
        if !text.get(url.scheme().len()..).is_some_and(|rest| rest.starts_with("://")) {
            return Err(E::NotAbsolute);
        }
        let authority = text.split("://").nth(1).unwrap_or("").split(['/', '?']).next().unwrap_or("");
        if authority.contains('@') {
            return Err(E::UserInfo);
        }
        let path = text.split(['?']).next().unwrap_or(text);
        if path
            .split('/')
            .skip(3)
            .any(|s| matches!(s.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | ".."))
        {
            return Err(E::DotSegment);
        }
        if url.scheme() == "http" && !is_loopback(&host) {
            return Err(E::PlainHttp);
        }
        Ok(Self(text.to_owned()))
    }

    /// The URI exactly as it was written: redirect URIs are compared as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Its host, lower-case, without port.
    pub fn host(&self) -> String {
        Url::parse(&self.0).ok().and_then(|u| u.host_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl fmt::Display for RedirectUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost",
        Host::Ipv4(ip) => ip.is_loopback(),
        Host::Ipv6(ip) => ip.is_loopback(),
    }
}

#[cfg(test)]
mod tests {
    use super::{RedirectUriError as E, *};

    #[test]
    fn good_ones() {
        for good in [
            "https://ci.example.com/callback",
            "https://ci.example.com",
            "https://ci.example.com:8443/a?b=c",
            "http://localhost:8080/cb",
            "http://127.0.0.1/cb",
            "http://[::1]:9/cb",
        ] {
            assert_eq!(RedirectUri::parse(good).map(|u| u.as_str().to_owned()), Ok(good.to_owned()));
        }
    }

    #[test]
    fn bad_ones() {
        for (bad, why) in [
            ("", E::NotAbsolute),
            ("/callback", E::NotAbsolute),
            ("https:ci.example.com/cb", E::NotAbsolute),
            ("https://a/#f", E::Fragment),
            ("https://*.example.com/cb", E::Wildcard),
            ("https://u:p@a.example.com/", E::UserInfo),
            ("https://a.example.com@evil.example/", E::UserInfo),
            ("http://a.example.com/", E::PlainHttp),
            ("http://localhost.evil.example/", E::PlainHttp),
            ("javascript:alert(1)", E::Scheme),
            ("com.example.app:/cb", E::Scheme),
            ("https://a.example.com/a/../b", E::DotSegment),
            ("https://a.example.com/%2E%2e/b", E::DotSegment),
            ("https://exämple.com/", E::BadCharacter),
            ("https://a.example.com/a b", E::BadCharacter),
            ("https://a.example.com\\@evil/", E::BadCharacter),
        ] {
            assert_eq!(RedirectUri::parse(bad), Err(why), "{bad}");
        }
        assert_eq!(RedirectUri::parse(&format!("https://a/{}", "x".repeat(450))), Err(E::TooLong));
    }
}
