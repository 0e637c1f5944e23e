//! Which addresses are public. Pure.

use ipnet::{Ipv4Net, Ipv6Net};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

/// The IPv4 ranges that nobody on the internet answers from (IANA's special-purpose registry).
const SPECIAL_V4: &[Ipv4Net] = &[
    v4(0, 0, 0, 0, 8),        // "this network"; 0.0.0.0 reaches the machine itself
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // carrier-grade NAT; pod networks use it
    v4(127, 0, 0, 0, 8),      // loopback
    v4(169, 254, 0, 0, 16),   // link-local, with the metadata services of the clouds
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // IETF protocol assignments, with a metadata service
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 31, 196, 0, 24),  // AS112
    v4(192, 52, 193, 0, 24),  // AMT
    v4(192, 88, 99, 0, 24),   // 6to4 relays
    v4(192, 168, 0, 0, 16),   // private
    v4(192, 175, 48, 0, 24),  // AS112
    v4(198, 18, 0, 0, 15),    // benchmarks
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(168, 63, 129, 16, 32), // a public-looking address that is a cloud's host service
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and broadcast
];

/// The part of IPv6 that is handed out at all; everything outside of it is refused, which takes
/// in `::`, `::1`, v4-mapped and v4-compatible addresses, `64:ff9b::/96` and `64:ff9b:1::/48`,
/// `100::/64`, `fc00::/7`, `fe80::/10`, `fec0::/10` and `ff00::/8`.
const GLOBAL_V6: Ipv6Net = v6(0x2000, 0, 0, 3);

/// What is special inside [`GLOBAL_V6`].
const SPECIAL_V6: &[Ipv6Net] = &[
    v6(0x2001, 0, 0, 23), // protocol assignments, with Teredo, which carries an IPv4 address
    v6(0x2001, 0xdb8, 0, 32), // documentation
    v6(0x2002, 0, 0, 16), // 6to4, which carries an IPv4 address
    v6(0x2620, 0x4f, 0x8000, 48), // AS112
    v6(0x3fff, 0, 0, 20), // documentation
];

/// Whether an address is one that anybody on the internet could have.
///
/// IPv6 addresses that carry an IPv4 address are refused whatever they carry: no server that a
/// name resolves to needs one.
pub fn is_public(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|net| net.contains(&ip)),
        IpAddr::V6(ip) => GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|net| net.contains(&ip)),
    }
}

/// The last labels of names that the public DNS doesn't have.
const SPECIAL_NAMES: &[&str] = &[
    "alt",
    "arpa",
    "cluster",
    "consul",
    "corp",
    "docker",
    "home",
    "internal",
    "intranet",
    "invalid",
    "lan",
    "local",
    "localdomain",
    "localhost",
    "mail",
    "onion",
    "private",
    "svc",
    "test",
];

/// The longest name and label that DNS has (RFC 1035 section 2.3.4), in bytes without the last dot.
const MAX_NAME: usize = 253;
const MAX_LABEL: usize = 63;

/// Whether DNS can have a name at all. What it can't have is told by its text alone.
pub fn is_dns_name(host: &str) -> bool {
    let host = host.strip_suffix('.').unwrap_or(host);
    host.len() <= MAX_NAME && host.split('.').all(|label| (1..=MAX_LABEL).contains(&label.len()))
}

/// Whether a host name could be one of the public DNS: it has a dot and no special-use end.
///
/// Other names are refused before anything is resolved, so that the answer doesn't tell which
/// services a cluster has.
pub fn is_public_name(host: &str) -> bool {
    let bare = host.strip_suffix('.').unwrap_or(host);
    match bare.rsplit_once('.') {
        Some((_, last)) => is_dns_name(host) && !SPECIAL_NAMES.iter().any(|s| last.eq_ignore_ascii_case(s)),
        None => false,
    }
}
