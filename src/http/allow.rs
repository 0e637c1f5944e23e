//! What the operator's configuration allows beyond public HTTPS. Pure.

use crate::domain::text::Shown;
use ipnet::IpNet;
use std::fmt;
use std::net::IpAddr;
use url::Host;

/// The hosts and ranges that guarded calls may also reach.
///
/// An entry is a host name, `*.` and a host name (every name below it), an address or a range;
/// with `:port` it holds for that port alone (an IPv6 range takes brackets: `[fd00::/8]:443`).
/// With `http://` before it, plain HTTP is permitted there too; without, HTTPS stays required.
/// A `:port` alone opens that port of every public address, for HTTPS.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowList(Vec<Entry>);

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    target: Target,
    port: Option<u16>,
    plain: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Target {
    Name(String),
    /// With the dot before it.
    Below(String),
    Net(IpNet),
    /// Whatever is public without the entry.
    Public,
}

/// An entry of the allow list that can't be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub struct AllowListError {
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    pub fault: AllowFault,
}

impl fmt::Display for AllowListError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "allowed address {} {}; write a host (ci.example.com), a wildcard (*.example.com), an address or a \
             range (10.0.0.0/8), with :port for one port alone and http:// before it to permit plain HTTP, or :port \
             without a host to open that port of all public addresses",
            Shown(&self.entry),
            self.fault
        )
    }
}

/// What is wrong with an entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AllowFault {
    /// Nothing there.
    #[error("is empty")]
    Empty,
    /// Some other scheme than http and https.
    #[error("has a scheme other than http or https")]
    Scheme,
    /// A path, a query, user information or a space.
    #[error("has more than a host and a port")]
    MoreThanHost,
    /// Not a port.
    #[error("has a port that isn't a number from 1 to 65535")]
    Port,
    /// Not a host.
    #[error("isn't a host name, an address or a range")]
    Host,
    /// A `*` anywhere but in front.
    #[error("has a * that doesn't stand alone before the first dot")]
    Wildcard,
    /// Octal, hex or short IPv4.
    #[error("isn't an address written in full (four decimal numbers)")]
    ShortAddress,
    /// `http://:8080`.
    #[error("permits plain HTTP to everybody; name the host too")]
    PlainEverywhere,
    /// `10.1.2.3/8`.
    #[error("has bits set beyond the length of its range")]
    HostBits,
}

impl AllowList {
    /// Reads the entries.
    ///
    /// # Errors
    /// [`AllowListError`] for the first entry that can't be read.
    pub fn parse<I>(entries: I) -> Result<Self, AllowListError>
    where
        I: IntoIterator,
        I::Item: AsRef<str>,
    {
        entries
            .into_iter()
            .map(|e| {
                let e = e.as_ref();
                parse_entry(e).map_err(|fault| AllowListError { entry: e.to_owned(), fault })
            })
            .collect::<Result<_, _>>()
            .map(Self)
    }

    /// Whether a host name (not an address) is allowed by name.
    pub fn permits_name(&self, host: &str, port: u16, plain: bool) -> bool {
        let host = host.strip_suffix('.').unwrap_or(host).to_ascii_lowercase();
        self.holding_for(port, plain).any(|e| match &e.target {
            Target::Name(name) => *name == host,
            Target::Below(end) => host.len() > end.len() && host.ends_with(end.as_str()),
            Target::Net(_) | Target::Public => false,
        })
    }

    /// Whether an address is allowed by address or range.
    pub fn permits_address(&self, ip: IpAddr, port: u16, plain: bool) -> bool {
        self.holding_for(port, plain).any(|e| matches!(&e.target, Target::Net(net) if net.contains(&ip)))
    }

    /// Whether a port is open at every public address.
    pub fn opens_port(&self, port: u16) -> bool {
        self.0.iter().any(|e| e.target == Target::Public && e.port == Some(port))
    }

    /// Whether any address or range is allowed at all, so that a name may turn out to be allowed
    /// once it is resolved.
    pub fn has_ranges(&self, port: u16, plain: bool) -> bool {
        self.holding_for(port, plain).any(|e| matches!(e.target, Target::Net(_)))
    }

    fn holding_for(&self, port: u16, plain: bool) -> impl Iterator<Item = &Entry> {
        self.0.iter().filter(move |e| e.port.is_none_or(|p| p == port) && (e.plain || !plain))
    }
}

fn parse_entry(text: &str) -> Result<Entry, AllowFault> {
    let (plain, rest) = match text.split_once("://") {
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") => (true, rest),
        Some((scheme, rest)) if scheme.eq_ignore_ascii_case("https") => (false, rest),
        Some(_) => return Err(AllowFault::Scheme),
        None => (false, text),
    };
    if rest.is_empty() {
        return Err(AllowFault::Empty);
    }
    if rest.contains(['@', '?', '#', '\\']) || rest.contains(char::is_whitespace) {
        return Err(AllowFault::MoreThanHost);
    }
    let (target, port) = split_port(rest)?;
    if target.is_empty() && port.is_some() {
        return if plain {
            Err(AllowFault::PlainEverywhere)
        } else {
            Ok(Entry { target: Target::Public, port, plain })
        };
    }
    Ok(Entry { target: parse_target(target)?, port, plain })
}

/// Takes `:port` off. More than one colon outside of brackets is an IPv6 address without a port.
fn split_port(text: &str) -> Result<(&str, Option<u16>), AllowFault> {
    let port_of = |p: &str| match p.parse::<u16>() {
        Ok(port) if port > 0 && p.bytes().all(|b| b.is_ascii_digit()) => Ok(Some(port)),
        _ => Err(AllowFault::Port),
    };
    if let Some(inner) = text.strip_prefix('[') {
        let (inner, after) = inner.split_once(']').ok_or(AllowFault::Host)?;
        return match after.strip_prefix(':') {
            Some(port) => Ok((inner, port_of(port)?)),
            None if after.is_empty() => Ok((inner, None)),
            None => Err(AllowFault::MoreThanHost),
        };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => Ok((host, port_of(port)?)),
        _ => Ok((text, None)),
    }
}

fn parse_target(text: &str) -> Result<Target, AllowFault> {
    if let Some((_, prefix)) = text.split_once('/') {
        if prefix.is_empty() || !prefix.bytes().all(|b| b.is_ascii_digit()) {
            return Err(AllowFault::MoreThanHost);
        }
        let net: IpNet = text.parse().map_err(|_| AllowFault::Host)?;
        return if net.addr() == net.network() { Ok(Target::Net(net)) } else { Err(AllowFault::HostBits) };
    }
    if let Ok(ip) = text.parse::<IpAddr>() {
        return Ok(Target::Net(IpNet::from(ip)));
    }
    let (below, name) = match text.strip_prefix("*.") {
        Some(name) => (true, name),
        None => (false, text),
    };
    if name.contains('*') {
        return Err(AllowFault::Wildcard);
    }
    let name = match Host::parse(name) {
        Ok(Host::Domain(name)) => name,
        Ok(_) => return Err(AllowFault::ShortAddress),
        Err(_) => return Err(AllowFault::Host),
    };
    let name = name.strip_suffix('.').unwrap_or(&name).to_ascii_lowercase();
    if name.split('.').any(str::is_empty) {
        return Err(AllowFault::Host);
    }
    Ok(if below { Target::Below(format!(".{name}")) } else { Target::Name(name) })
}
