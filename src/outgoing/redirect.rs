//! What servers demand of redirect URIs. Pure.

use std::net::{Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// What a server demands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RedirectRule {
    /// HTTPS, but for loopback (RFC 8252 section 7.3, RFC 9700 section 2.6).
    Https,
    /// Google's.
    Google,
    /// Microsoft's.
    Microsoft,
}

/// Why a server wouldn't take a redirect URI.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum RedirectFault {
    #[error("isn't an absolute URL with a host")]
    NotUrl,
    #[error("isn't https, which is demanded of every host but loopback")]
    NotHttps,
    #[error("has user information before the host")]
    UserInfo,
    #[error("has a fragment (#…)")]
    Fragment,
    #[error("has an asterisk, which Google doesn't take")]
    Wildcard,
    #[error("goes up a folder (/.. or /%2e%2e), which Google doesn't take")]
    Traversal,
    #[error("has an address for a host, which Google doesn't take but for loopback; use a name")]
    RawAddress,
    #[error("has a host without a public top-level domain, which Google doesn't take; use a public name")]
    NotPublic,
    #[error("is longer than 256 characters, which Microsoft doesn't take")]
    TooLong,
    #[error("has one of the characters ! $ ' ( ) , ; which Microsoft doesn't take")]
    Character,
}

impl RedirectRule {
    /// Whether a server with this rule takes a redirect URI.
    ///
    /// # Errors
    /// [`RedirectFault`], which reads on after the address.
    pub fn check(self, uri: &str) -> Result<(), RedirectFault> {
        let url = Url::parse(uri).map_err(|_| RedirectFault::NotUrl)?;
        let host = url.host().ok_or(RedirectFault::NotUrl)?;
        let loopback = is_loopback(&host);
        match url.scheme() {
            "https" => {}
            "http" if loopback => {}
            _ => return Err(RedirectFault::NotHttps),
        }
        if !url.username().is_empty() || url.password().is_some() || authority(uri).contains('@') {
            return Err(RedirectFault::UserInfo);
        }
        if uri.contains('#') {
            return Err(RedirectFault::Fragment);
        }
        match self {
            Self::Https => Ok(()),
            Self::Google => google(uri, &host, loopback),
            Self::Microsoft => microsoft(uri),
        }
    }
}

fn authority(uri: &str) -> &str {
    let rest = uri.split_once("://").map_or(uri, |(_, rest)| rest);
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_loopback(host: &Host<&str>) -> bool {
    match host {
        Host::Domain(name) => *name == "localhost" || name.ends_with(".localhost"),
        Host::Ipv4(at) => *at == Ipv4Addr::LOCALHOST,
        Host::Ipv6(at) => *at == Ipv6Addr::LOCALHOST,
    }
}

fn google(uri: &str, host: &Host<&str>, loopback: bool) -> Result<(), RedirectFault> {
    if uri.contains('*') {
        return Err(RedirectFault::Wildcard);
    }
    // As it is written: a parser has taken these away.
    let path = uri.to_ascii_lowercase().replace("%2e", ".").replace("%2f", "/").replace("%5c", "\\");
    if path.split(['/', '\\', '?']).any(|part| part == "..") {
        return Err(RedirectFault::Traversal);
    }
    match host {
        _ if loopback => Ok(()),
        Host::Domain(name) => {
            let name = name.trim_end_matches('.').as_bytes();
            let known = psl::suffix(name).is_some_and(|s| s.is_known());
            // The suffix itself is nobody's name.
            if known && psl::domain(name).is_some() { Ok(()) } else { Err(RedirectFault::NotPublic) }
        }
        Host::Ipv4(_) | Host::Ipv6(_) => Err(RedirectFault::RawAddress),
    }
}

fn microsoft(uri: &str) -> Result<(), RedirectFault> {
    const MOST: usize = 256;
    if uri.chars().count() > MOST {
        return Err(RedirectFault::TooLong);
    }
    if uri.contains(['!', '$', '\'', '(', ')', ',', ';']) {
        return Err(RedirectFault::Character);
    }
    Ok(())
}
