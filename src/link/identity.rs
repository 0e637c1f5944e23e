//! What a provider is to a link: what secrets, owner marks and records are bound to. Pure.
//!
//! A `ClusterLinkProvider` is the platform team's word, so type and address say which service it is. A
//! `LinkProvider` is a tenant's: whoever writes one may name the platform's address and have another one
//! called. So its identity has its namespace and all addresses in it, and nothing that was made for it
//! is of any use elsewhere.

use crate::api::link::ProviderKind;
use crate::api::provider::Service;

/// A provider's identity.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// What secrets, owner marks and records are bound to.
    pub own: String,
    /// Type and address. Client identifiers are made from it, for both kinds of provider: nothing
    /// rests on their secrecy.
    pub service: String,
    /// What becomes of what a version made that took `service` for the identity of a `LinkProvider`.
    pub before: Before,
    /// What the other objects of the same type and address are bound to that a link of the namespace may
    /// name: they may stand for the same service.
    pub namesakes: Vec<String>,
}

/// What becomes of a secret that was made by type and address alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// It stays until its next rotation: no other provider has the same type and address.
    Stays,
    /// It is replaced at once.
    Ends,
}

impl Identity {
    /// The identity of a provider. `before` matters to a `LinkProvider` alone.
    pub fn of(kind: ProviderKind, namespace: Option<&str>, service: &Service, before: Before) -> Self {
        let shared = service.identity();
        match kind {
            ProviderKind::ClusterLinkProvider => {
                Self { own: shared.clone(), service: shared, before: Before::Stays, namesakes: Vec::new() }
            }
            ProviderKind::LinkProvider => {
                let mut parts = vec![namespace.unwrap_or_default(), service.type_()];
                parts.extend(service.addresses().into_iter().map(|a| a.trim_end_matches('/')));
                // As JSON, so that no two lists give the same text.
                let own = format!("LinkProvider {}", serde_json::json!(parts));
                Self { own, service: shared, before, namesakes: Vec::new() }
            }
        }
    }

    /// Whether a secret that was made for `made_for` may be sent to this provider.
    pub fn may_have(&self, made_for: &str) -> bool {
        made_for == self.own || (made_for == self.service && self.before == Before::Stays)
    }

    /// The identities whose marks are recognised at this provider, the newest first.
    pub fn names(&self) -> Vec<&str> {
        if self.own == self.service { vec![&self.own] } else { vec![&self.own, &self.service] }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(url: &str, admin: &str) -> Service {
        let value = serde_json::json!({"hydra": {"url": url, "admin": {"url": admin}}});
        serde_json::from_value(value).expect("a service")
    }

    #[test]
    fn a_tenant_s_provider_is_its_namespace_and_all_its_addresses() {
        let of = |kind, namespace, admin| {
            Identity::of(kind, namespace, &service("https://h.example/", admin), Before::Ends)
        };
        use ProviderKind::{ClusterLinkProvider as Cluster, LinkProvider as Own};
        let platform = of(Cluster, None, "http://admin.example");
        // As it was, byte for byte.
        assert_eq!(platform.own, "hydra|https://h.example");
        assert_eq!(platform, of(Cluster, None, "http://moved.example"));
        let ours = of(Own, Some("a"), "http://admin.example/");
        assert_eq!(ours.own, r#"LinkProvider ["a","hydra","https://h.example","http://admin.example"]"#);
        assert_eq!(ours, of(Own, Some("a"), "http://admin.example"));
        assert_eq!(ours.service, platform.own);
        for other in
            [of(Own, Some("b"), "http://admin.example"), of(Own, Some("a"), "http://evil.example"), platform]
        {
            assert!(
                ours.own != other.own && !ours.may_have(&other.own) && !other.may_have(&ours.own),
                "{other:?}"
            );
        }
        let stays = Identity { before: Before::Stays, ..ours };
        assert!(stays.may_have("hydra|https://h.example") && !stays.may_have("hydra|https://other.example"));
    }
}
