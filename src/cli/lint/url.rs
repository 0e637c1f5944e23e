//! Addresses as the API server reads them: Go's `url.ParseRequestURI`.
//!
//! The `url` crate reads as browsers do, who mend what they are given (`https:example.com`, a space,
//! a backslash); Go refuses it. A check that mends would let through what the API server refuses.

use std::net::Ipv6Addr;

/// An address that Go would take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GoUrl {
    /// The scheme in lower case; may be empty.
    pub scheme: String,
    /// Host and port; may be empty.
    pub host: String,
}

/// Where in an address a text stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Host,
    Zone,
    Other,
}

/// Reads an address, or `None` where Go refuses it.
pub fn parse(text: &str) -> Option<GoUrl> {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return None;
    }
    if text == "*" {
        return Some(GoUrl { scheme: String::new(), host: String::new() });
    }
    let (scheme, rest) = scheme(text)?;
    let rest = rest.split('?').next().unwrap_or_default();
    let of = |host: &str| GoUrl { scheme: scheme.clone(), host: host.to_owned() };
    if !rest.starts_with('/') {
        return (!scheme.is_empty()).then(|| of(""));
    }
    let Some(after) = rest.strip_prefix("//").filter(|_| !scheme.is_empty()) else {
        return unescape(rest, Part::Other).map(|_| of(""));
    };
    let cut = after.find('/').unwrap_or(after.len());
    let (authority, path) = after.split_at(cut);
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(u, h)| (Some(u), h));
    let host = parse_host(&scheme, host)?;
    if let Some(user) = user {
        let fine = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
        if !user.chars().all(fine) || !user.splitn(2, ':').all(|p| unescape(p, Part::Other).is_some()) {
            return None;
        }
    }
    unescape(path, Part::Other)?;
    Some(of(&host))
}

fn scheme(text: &str) -> Option<(String, &str)> {
    for (i, c) in text.char_indices() {
        match c {
            'a'..='z' | 'A'..='Z' => {}
            '0'..='9' | '+' | '-' | '.' if i > 0 => {}
            ':' if i == 0 => return None,
            ':' => {
                let (scheme, rest) = text.split_at(i);
                return Some((scheme.to_ascii_lowercase(), rest.get(1..).unwrap_or_default()));
            }
            _ => break,
        }
    }
    Some((String::new(), text))
}

fn parse_host(scheme: &str, host: &str) -> Option<String> {
    match host.rfind('[') {
        Some(0) => {
            let (inner, port) = host.get(1..)?.rsplit_once(']')?;
            if !is_port(port) {
                return None;
            }
            let inner = match inner.find("%25") {
                Some(cut) => {
                    let (address, zone) = inner.split_at(cut);
                    unescape(address, Part::Host)? + &unescape(zone, Part::Zone)?
                }
                None => unescape(inner, Part::Host)?,
            };
            let (address, zone) = inner.split_once('%').map_or((inner.as_str(), None), |(a, z)| (a, Some(z)));
            if zone.is_some_and(str::is_empty) || address.parse::<Ipv6Addr>().is_err() {
                return None;
            }
            Some(format!("[{inner}]{port}"))
        }
        Some(_) => None,
        None => {
            let colon = if matches!(scheme, "http" | "https") { host.find(':') } else { host.rfind(':') };
            if colon.is_some_and(|i| !host.get(i..).is_some_and(is_port)) {
                return None;
            }
            unescape(host, Part::Host)
        }
    }
}

/// Nothing, or a colon and digits, which may be none.
fn is_port(text: &str) -> bool {
    text.is_empty() || text.strip_prefix(':').is_some_and(|p| p.bytes().all(|b| b.is_ascii_digit()))
}

fn unescape(text: &str, part: Part) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(b) = bytes.next() {
        if b == b'%' {
            let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
            let byte = high << 4 | low;
            let fine = match part {
                Part::Other => true,
                Part::Host => high >= 8 || byte == b'%',
                Part::Zone => byte == b'%' || byte == b' ' || host_byte(byte),
            };
            if !fine {
                return None;
            }
            out.push(byte);
        } else if part != Part::Other && b < 0x80 && !host_byte(b) {
            return None;
        } else {
            out.push(b);
        }
    }
    Some(String::from_utf8_lossy(&out).into_owned())
}

fn hex(b: u8) -> Option<u8> {
    char::from(b).to_digit(16).and_then(|d| u8::try_from(d).ok())
}

fn host_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!\"$&'()*+,-.:;<=>[]_~".contains(&b)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each seen with Go 1.26.
    #[test]
    fn addresses_are_read_as_go_reads_them() {
        for (text, scheme, host) in [
            ("https://app.example.com", "https", "app.example.com"),
            ("HTTPS://App.example.com:8443/x?y", "https", "App.example.com:8443"),
            ("http://localhost", "http", "localhost"),
            ("http://[::1]:80/", "http", "[::1]:80"),
            ("http://[fe80::1%25en0]/", "http", "[fe80::1%en0]"),
            ("https://u:p@h/", "https", "h"),
            ("https://bücher.example/", "https", "bücher.example"),
            ("https://a.example.com/a b", "https", "a.example.com"),
            ("https://a.example.com:/", "https", "a.example.com:"),
            ("https:a.example.com", "https", ""),
            ("https:///x", "https", ""),
            ("mailto:x", "mailto", ""),
            ("/x", "", ""),
            ("*", "", ""),
            ("pg://a:1,b:2/", "pg", "a:1,b:2"),
        ] {
            let wanted = GoUrl { scheme: scheme.into(), host: host.into() };
            assert_eq!(parse(text), Some(wanted), "{text}");
        }
        for text in [
            "",
            "app.example.com",
            "a b",
            ":x",
            "https://a b/",
            "https://a\tb/",
            "https://a.example.com:port/",
            "https://a:1:2/",
            "https://a.example.com/%zz",
            "https://a.example.com/%2",
            "https://a%41/",
            "https://[::1/",
            "https://[1.2.3.4]/",
            "https://x[::1]/",
            "https://a.example.com#top",
            "https://u ser@h/",
            "https://a\\b/",
            "https://a^b/",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
