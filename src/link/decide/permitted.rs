//! Whether provider service and platform team allow what an incoming link asks for.

use crate::domain::text::{Shown, listed};
use crate::domain::{Reason, RedirectUri};
use crate::link::facts::{Place, Restrictions};
use crate::link::problem::Problem;
use crate::link::validate::IncomingGoal;

const SCOPES: &str = "spec.incoming.oauth2.scopes";
const GRANTS: &str = "spec.incoming.oauth2.grantTypes";

/// Checks a link's wishes against its place.
///
/// # Errors
/// [`Problem`] that names the field, the value and the way out.
pub(super) fn permitted(goal: &IncomingGoal, place: &Place) -> Result<(), Problem> {
    let name = format!("{} {}", place.claim.kind.as_str(), place.claim.name);
    service(goal, place, &name)?;
    platform_team(goal, place, &name)?;
    rotation(goal, place, &name)
}

/// What the service itself can't do.
fn service(goal: &IncomingGoal, place: &Place, name: &str) -> Result<(), Problem> {
    let m = &goal.metadata;
    if let Some(offered) = &place.info.scopes
        && let Some((unknown, are)) = all_of(m.scopes.iter().filter(|s| !offered.contains(s)))
    {
        let text =
            format!("{SCOPES}: {unknown} {are} offered by {name}; it offers: {}", listed(offered.iter()));
        return Err(Problem::edit(Reason::UnknownScope, text));
    }
    if let Some(offered) = &place.info.grant_types
        && let Some((unknown, are)) = all_of(m.grant_types.iter().filter(|g| !offered.contains(g)))
    {
        let text =
            format!("{GRANTS}: {unknown} {are} what {name} can give a client; it can: {}", listed(offered));
        return Err(Problem::edit(Reason::UnsupportedGrantType, text));
    }
    if let Some(offered) = &place.info.auth_methods
        && !offered.contains(&m.auth_method)
    {
        let text = format!(
            "spec.incoming.oauth2.tokenEndpointAuthMethod: {} isn't something that {name} takes; set one of: {}",
            m.auth_method,
            listed(offered)
        );
        return Err(Problem::edit(Reason::UnsupportedAuthMethod, text));
    }
    if place.info.redirect_required && m.redirect_uris.is_empty() {
        let text = format!("spec.incoming.oauth2.redirectUris: {name} wants at least one; add it");
        return Err(Problem::edit(Reason::RedirectUriRequired, text));
    }
    Ok(())
}

/// What the link declares and the service's endpoints don't serve. The client is registered all the same, and its
/// Secret written: what is served works, and a later version of the service may serve the rest.
pub fn not_served(goal: &IncomingGoal, place: &Place) -> Option<Problem> {
    let served = place.info.served.as_ref()?;
    let missing: Vec<_> = goal.metadata.grant_types.iter().filter(|g| !served.contains(g)).collect();
    if missing.is_empty() {
        return None;
    }
    let name = format!("{} {}", place.claim.kind.as_str(), place.claim.name);
    let text = format!(
        "{GRANTS}: {name} doesn't serve {}; the client is registered and its Secret is written, and an application can't use \
         it so: use another provider, or grant types that this one serves: {}",
        listed(missing),
        listed(served)
    );
    Some(Problem::edit(Reason::GrantTypeNotOffered, text))
}

/// What the platform team doesn't allow.
fn platform_team(goal: &IncomingGoal, place: &Place, name: &str) -> Result<(), Problem> {
    let m = &goal.metadata;
    let Some(Restrictions { scopes, redirect_hosts, grant_types }) = &place.allow else { return Ok(()) };
    let refused = |reason: Reason, field: &str, (what, are): (String, &str), list: &str| {
        let text = format!(
            "{field}: {what} {are} among those that {name} allows; take an allowed one, or have the platform team add what is \
             missing to spec.allow.{list} there"
        );
        Err(Problem::edit(reason, text))
    };
    if let Some(allowed) = scopes
        && let Some(all) = all_of(m.scopes.iter().filter(|s| !allowed.contains(s.as_str())))
    {
        return refused(Reason::ScopeNotAllowed, SCOPES, all, "scopes");
    }
    if let Some(allowed) = grant_types
        && let Some(all) = all_of(m.grant_types.iter().filter(|g| !allowed.contains(g)))
    {
        return refused(Reason::GrantTypeNotAllowed, GRANTS, all, "grantTypes");
    }
    if let Some(allowed) = redirect_hosts {
        let fits = |host: &str, pattern: &String| match pattern.strip_prefix("*.") {
            Some(domain) => host.strip_suffix(domain).is_some_and(|h| h.len() > 1 && h.ends_with('.')),
            None => pattern == host,
        };
        let refuses = |uri: &&RedirectUri| !allowed.iter().any(|pattern| fits(&uri.host(), pattern));
        if let Some((uris, are)) = all_of(m.redirect_uris.iter().filter(refuses)) {
            let field = "spec.incoming.oauth2.redirectUris";
            return refused(
                Reason::RedirectHostNotAllowed,
                field,
                (format!("the host of {uris}"), are),
                "redirectHosts",
            );
        }
    }
    Ok(())
}

/// What the service can't do for the secret.
fn rotation(goal: &IncomingGoal, place: &Place, name: &str) -> Result<(), Problem> {
    let every = goal.rotation.every.is_some();
    if every && !place.caps.rotates {
        let text = format!(
            "spec.incoming.rotation: {name} ({}) can't give a client that is there a new secret; leave rotation out, or \
             use another kind of provider",
            place.type_
        );
        return Err(Problem::edit(Reason::RotationUnsupported, text));
    }
    if goal.rotation.overlap.is_some_and(|o| o > 0) && !place.caps.overlaps {
        let text = format!(
            "spec.incoming.rotation.overlap: {name} ({}) holds one secret for a client, so the old one ends when the new \
             one begins; set overlap to 0s or leave it out, and expect a moment in which neither is in the Secret",
            place.type_
        );
        return Err(Problem::edit(Reason::OverlapUnsupported, text));
    }
    Ok(())
}

/// All that isn't taken, so that who mends it needs one go, and the verb that goes with it.
fn all_of<T: std::fmt::Display>(refused: impl Iterator<Item = T>) -> Option<(String, &'static str)> {
    let all: Vec<String> = refused.map(|what| Shown(&what.to_string()).to_string()).collect();
    match all.as_slice() {
        [] => None,
        [_] => Some((all.join(", "), "isn't")),
        _ => Some((all.join(", "), "aren't")),
    }
}
