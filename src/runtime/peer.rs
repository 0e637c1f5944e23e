//! Where a request comes from: the peer's address, or the one that a trusted proxy tells.

use axum::http::HeaderMap;
use ipnet::IpNet;
use std::net::{IpAddr, Ipv6Addr};

/// Where each proxy writes the address of its own peer, behind what was there.
const FORWARDED_FOR: &str = "x-forwarded-for";

/// In place of a list: there are no proxies, so every peer is a client.
const NONE: &str = "none";

/// The proxies whose word counts.
#[derive(Debug, Clone, Default)]
pub struct TrustedProxies {
    ranges: Vec<IpNet>,
    /// Whether anybody said which proxies there are. If nobody did, a peer may be one.
    told: bool,
}

/// A value that isn't a list of proxies. The text follows the flag's name and the value.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "is no address or range; write the proxies' ranges like 10.0.0.0/8,fd00::/8, or none where clients connect directly"
)]
pub struct NoProxy(pub String);

impl TrustedProxies {
    /// From a flag's values: addresses and ranges, or `none` alone. Without any, it isn't known which proxies there are.
    ///
    /// # Errors
    /// [`NoProxy`] with the value that can't be used.
    pub fn parse<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Self, NoProxy> {
        let values: Vec<&str> = values.into_iter().map(str::trim).filter(|v| !v.is_empty()).collect();
        if values == [NONE] {
            return Ok(Self { ranges: Vec::new(), told: true });
        }
        let range = |text: &&str| {
            let one = || text.parse::<IpAddr>().map(IpNet::from);
            text.parse::<IpNet>().or_else(|_| one()).map_err(|_| NoProxy((*text).to_owned()))
        };
        let ranges = values.iter().map(range).collect::<Result<Vec<_>, _>>()?;
        Ok(Self { told: !ranges.is_empty(), ranges })
    }

    fn has(&self, address: IpAddr) -> bool {
        self.ranges.iter().any(|range| range.contains(&address))
    }

    /// Where a request with these headers comes from, that this peer sent.
    pub fn origin(&self, peer: IpAddr, headers: &HeaderMap) -> Origin {
        let peer = peer.to_canonical();
        if !self.has(peer) {
            // Whatever its header says, it says it itself.
            return if self.told { Origin::Client(peer) } else { Origin::Peer(peer) };
        }
        let lines: Vec<_> = headers.get_all(FORWARDED_FOR).iter().collect();
        for line in lines.iter().rev() {
            let Ok(line) = line.to_str() else { return Origin::Hidden };
            for said in line.rsplit(',') {
                match address(said.trim()) {
                    Some(address) if self.has(address) => {}
                    Some(address) => return Origin::Client(address),
                    // What stands before it was written by whoever wrote this.
                    None => return Origin::Hidden,
                }
            }
        }
        Origin::Hidden
    }
}

/// An address as proxies write it, some of them with a port.
fn address(text: &str) -> Option<IpAddr> {
    let with_port = || text.parse::<std::net::SocketAddr>().ok().map(|a| a.ip());
    let in_brackets = || text.strip_prefix('[')?.strip_suffix(']')?.parse().ok();
    text.parse().ok().or_else(with_port).or_else(in_brackets).map(|a: IpAddr| a.to_canonical())
}

/// Where a request comes from, as far as that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Origin {
    /// A client with this address: the peer, which isn't a proxy, or whom a trusted proxy told.
    Client(IpAddr),
    /// A peer with this address, who may be a proxy that speaks for many.
    Peer(IpAddr),
    /// Somebody behind a trusted proxy that doesn't say who.
    #[default]
    Hidden,
}

impl Origin {
    /// The address of one client, if it is known to be that. What is shared fairly between addresses goes by this: by a
    /// proxy's address all who come through it would share one place.
    pub fn client(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) => Some(network(address)),
            Self::Peer(_) | Self::Hidden => None,
        }
    }

    /// The most that is known. For limits that would otherwise count everybody together.
    pub fn nearest(self) -> Option<IpAddr> {
        match self {
            Self::Client(address) | Self::Peer(address) => Some(network(address)),
            Self::Hidden => None,
        }
    }
}

/// An IPv6 host has a whole network to choose its addresses from.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() & !u128::from(u64::MAX)).into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ip(text: &str) -> IpAddr {
        text.parse().expect(text)
    }

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(FORWARDED_FOR, line.parse().expect("a header"));
        }
        headers
    }

    #[test]
    fn the_client_is_the_rightmost_address_that_is_no_trusted_proxy() {
        let proxies = TrustedProxies::parse(["10.0.0.0/8", "fd00::1"]).expect("proxies");
        for (peer, lines, origin) in [
            ("10.1.1.1", &["203.0.113.7"][..], Some("203.0.113.7")),
            ("10.1.1.1", &["198.51.100.1, 203.0.113.7"], Some("203.0.113.7")),
            ("10.1.1.1", &["198.51.100.1", "203.0.113.7, 10.2.2.2"], Some("203.0.113.7")),
            ("10.1.1.1", &["203.0.113.7", "10.2.2.2"], Some("203.0.113.7")),
            ("fd00::1", &["203.0.113.7:4711"], Some("203.0.113.7")),
            ("::ffff:10.1.1.1", &["::ffff:203.0.113.7"], Some("203.0.113.7")),
            ("10.1.1.1", &["[2001:db8::1]:443"], Some("2001:db8::1")),
            ("10.1.1.1", &["[2001:db8::1]"], Some("2001:db8::1")),
            // Nothing that can be used: nobody in particular.
            ("10.1.1.1", &[], None),
            ("10.1.1.1", &["10.2.2.2"], None),
            ("10.1.1.1", &["203.0.113.7, unknown"], None),
            ("10.1.1.1", &["203.0.113.7", ""], None),
        ] {
            let expected = origin.map_or(Origin::Hidden, |o| Origin::Client(ip(o)));
            assert_eq!(proxies.origin(ip(peer), &headers(lines)), expected, "{peer} {lines:?}");
        }
    }

    #[test]
    fn a_spoofed_header_changes_nothing() {
        let spoofed = headers(&["10.0.0.1, 198.51.100.1", "127.0.0.1"]);
        for (values, origin) in [
            (&["10.0.0.0/8"][..], Origin::Client(ip("203.0.113.7"))),
            (&["none"], Origin::Client(ip("203.0.113.7"))),
            (&[], Origin::Peer(ip("203.0.113.7"))),
        ] {
            let proxies = TrustedProxies::parse(values.iter().copied()).expect("proxies");
            for headers in [&spoofed, &HeaderMap::new()] {
                assert_eq!(proxies.origin(ip("203.0.113.7"), headers), origin, "{values:?}");
            }
        }
        // What a client wrote before the proxy's own word isn't looked at.
        let proxies = TrustedProxies::parse(["10.0.0.0/8"]).expect("proxies");
        let behind = headers(&["198.51.100.1, nonsense, 203.0.113.7"]);
        assert_eq!(proxies.origin(ip("10.1.1.1"), &behind), Origin::Client(ip("203.0.113.7")));
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let of = |text: &str| Origin::Client(ip(text)).client();
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8::1"), of("2001:db8:0:1::1"));
        assert_ne!(of("203.0.113.7"), of("203.0.113.8"));
        assert_eq!((Origin::Peer(ip("10.0.0.1")).client(), Origin::Hidden.nearest()), (None, None));
    }

    #[test]
    fn what_is_no_range_is_refused() {
        for bad in ["10.0.0.0/33", "proxy", "10.0.0.0/8 10.0.0.1", "none,10.0.0.1"] {
            let found = TrustedProxies::parse(bad.split(','));
            assert!(found.is_err(), "{bad}");
        }
        assert!(TrustedProxies::parse([" ", ""]).is_ok_and(|p| !p.told));
    }
}
