//! Whether a URL may be called at all, before anything is resolved. Pure.

use super::address::{is_dns_name, is_public, is_public_name};
use super::{AllowList, RefusedReason};
use std::net::IpAddr;
use url::{Host, Url};

/// Whose word an address is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Trust {
    /// A tenant named it, or a document that a tenant's address returned: public HTTPS alone,
    /// but for what the operator's configuration allows.
    Guarded,
    /// The platform team named it (a `ClusterLinkProvider`): any address, HTTP too.
    Trusted,
}

/// Whether guarded calls may use a port at any public address. Behind the others are a node's
/// kubelet, databases and admin interfaces, of hosts that have public addresses too.
fn is_open_port(port: u16, allow: &AllowList) -> bool {
    port == 443 || allow.opens_port(port)
}

/// Checks scheme, user information, host and port of a URL.
///
/// A host that is a name is checked again by its addresses, when it is connected to.
///
/// # Errors
/// [`RefusedReason`]; it is the same for every kind of address that isn't public.
pub fn check_url(url: &Url, trust: Trust, allow: &AllowList) -> Result<(), RefusedReason> {
    let plain = match url.scheme() {
        "https" => false,
        "http" => true,
        _ => return Err(RefusedReason::Scheme),
    };
    let host = url.host().ok_or(RefusedReason::NoHost)?;
    let port = url.port_or_known_default().ok_or(RefusedReason::NoHost)?;
    if port == 0 {
        return Err(RefusedReason::Port);
    }
    // The client would make an Authorization header of it.
    if !url.username().is_empty() || url.password().is_some() {
        return Err(RefusedReason::UserInfo);
    }
    if trust == Trust::Trusted {
        return Ok(());
    }
    let (named, may_be_named) = match &host {
        Host::Domain(name) => {
            (allow.permits_name(name, port, plain), allow.has_ranges(port, plain) && is_dns_name(name))
        }
        Host::Ipv4(ip) => (allow.permits_address(IpAddr::V4(*ip), port, plain), false),
        Host::Ipv6(ip) => (allow.permits_address(IpAddr::V6(*ip), port, plain), false),
    };
    if named || may_be_named {
        // The resolver has the last word on a name.
        return Ok(());
    }
    if plain {
        return Err(RefusedReason::PlainHttp);
    }
    let public = match &host {
        Host::Domain(name) => is_public_name(name),
        Host::Ipv4(ip) => is_public(IpAddr::V4(*ip)),
        Host::Ipv6(ip) => is_public(IpAddr::V6(*ip)),
    };
    if !public {
        return Err(RefusedReason::NotPublic);
    }
    if !is_open_port(port, allow) {
        return Err(RefusedReason::Port);
    }
    Ok(())
}

/// Checks every address that a name resolved to; one bad address refuses them all, and so does
/// none: whether an inner name is there is nothing that a tenant should learn.
///
/// # Errors
/// [`RefusedReason::NotPublic`], whatever the address is.
pub fn check_addresses(
    name: &str,
    addresses: &[IpAddr],
    port: u16,
    plain: bool,
    allow: &AllowList,
) -> Result<(), RefusedReason> {
    if allow.permits_name(name, port, plain) {
        return Ok(());
    }
    let open = !plain && is_open_port(port, allow);
    if !addresses.is_empty()
        && addresses.iter().all(|ip| allow.permits_address(*ip, port, plain) || (open && is_public(*ip)))
    {
        Ok(())
    } else {
        Err(RefusedReason::NotPublic)
    }
}
