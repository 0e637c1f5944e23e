//! Whose a Secret of ours is where another link of ours is named as its owner. Pure, by what the watches saw.

use super::cache::{Cache, Key};
use crate::api::{ApplicationLink, names};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt as _};

/// The Secrets that a link writes, by the raw spec: also one that can't be read in full names them.
pub fn written_by(link: &ApplicationLink) -> Vec<String> {
    let name = link.name_any();
    let incoming = link.spec.incoming.as_ref().map(|i| {
        let named = i.secret.as_ref().and_then(|s| s.name.clone());
        named.unwrap_or_else(|| format!("{name}-oauth"))
    });
    let outgoing = link.spec.outgoing.as_ref().map(|o| {
        let named = o.secret.as_ref().and_then(|s| s.name.clone());
        named.unwrap_or_else(|| format!("{name}-token"))
    });
    incoming.into_iter().chain(outgoing).collect()
}

/// Whether the owner of a Secret leaves it to a link that names it: the link itself as it was before a restore, or
/// another one that doesn't name it any more. The owner is changed in one write, so nobody deletes it meanwhile.
pub fn gives_up(
    links: &Cache<ApplicationLink>,
    link: &ApplicationLink,
    owner: &OwnerReference,
    secret: &str,
) -> bool {
    let (group, _) = owner.api_version.split_once('/').unwrap_or_default();
    if group != names::GROUP || owner.kind != ApplicationLink::kind(&()) {
        return false;
    }
    if owner.name == link.name_any() {
        return true;
    }
    let namespace = link.namespace().unwrap_or_default();
    links.get(&Key::new(namespace, owner.name.as_str())).is_some_and(|other| {
        other.uid().as_deref() == Some(&owner.uid)
            && other.meta().deletion_timestamp.is_none()
            && !other.spec.suspend
            && !written_by(&other).iter().any(|name| name == secret)
    })
}

/// Whether another link in the namespace names this Secret as its own: it takes it over as it is.
pub fn wanted_by_another(links: &Cache<ApplicationLink>, namespace: &str, uid: &str, secret: &str) -> bool {
    links.all().iter().any(|link| {
        link.namespace().as_deref() == Some(namespace)
            && link.uid().as_deref() != Some(uid)
            && link.meta().deletion_timestamp.is_none()
            && !link.spec.suspend
            && written_by(link).iter().any(|name| name == secret)
    })
}
