//! Which provider a link uses, and whether it may. The choosing is pure.

use super::claim::Claim;
use super::facts::Restrictions;
use super::identity::{Before, Identity};
use super::problem::Problem;
use crate::api::link::ProviderKind;
use crate::api::provider::{Allow, Service};
use crate::api::{ClusterLinkProvider, LinkProvider, names};
use crate::domain::Reason;
use k8s_openapi::jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};

/// A provider of either kind, as links see it.
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderView {
    /// Which.
    pub claim: Claim,
    /// Its namespace; `None` for a `ClusterLinkProvider`.
    pub namespace: Option<String>,
    /// What it is; `None` where its spec says none or several.
    pub service: Option<Service>,
    /// For a `LinkProvider`: the clients that its namespace may adopt.
    pub adoptable: Vec<String>,
    /// Who may use it; `None` for a `LinkProvider`, which its namespace may use.
    pub allow: Option<Option<Allow>>,
    /// Whether it is being deleted.
    pub deleting: bool,
    /// Whether it is held until its links have let go.
    pub held: bool,
    /// Whether it is marked as the default.
    pub default: bool,
    /// When it was made.
    pub created: Option<Timestamp>,
    /// Its generation.
    pub generation: i64,
}

impl From<&LinkProvider> for ProviderView {
    fn from(p: &LinkProvider) -> Self {
        let adoptable = p.spec.adoptable.clone().unwrap_or_default();
        ProviderView { adoptable, ..view(p, ProviderKind::LinkProvider, p.spec.service(), None) }
    }
}

impl From<&ClusterLinkProvider> for ProviderView {
    fn from(p: &ClusterLinkProvider) -> Self {
        view(p, ProviderKind::ClusterLinkProvider, p.spec.service(), Some(p.spec.allow.clone()))
    }
}

fn view<K: kube::ResourceExt>(
    object: &K,
    kind: ProviderKind,
    service: Option<Service>,
    allow: Option<Option<Allow>>,
) -> ProviderView {
    ProviderView {
        claim: Claim { kind, name: object.name_any(), uid: object.uid().unwrap_or_default() },
        namespace: object.namespace(),
        service,
        adoptable: Vec::new(),
        allow,
        deleting: object.meta().deletion_timestamp.is_some(),
        held: object.finalizers().iter().any(|f| f == names::PROVIDER_FINALIZER),
        default: object.annotations().get(names::DEFAULT_PROVIDER).is_some_and(|v| v == "true"),
        created: object.creation_timestamp().map(|t| t.0),
        generation: object.meta().generation.unwrap_or_default(),
    }
}

impl ProviderView {
    /// Whether links of a namespace may name it at all.
    pub fn is_visible_to(&self, namespace: &str) -> bool {
        self.namespace.as_deref().is_none_or(|n| n == namespace)
    }

    /// What it is to links of a namespace, among `all`; `None` where its spec doesn't say.
    pub fn identity(&self, recorded_before: bool, links: &str, all: &[ProviderView]) -> Option<Identity> {
        let which = (self.claim.kind, self.namespace.as_deref(), self.claim.uid.as_str());
        Some(identity(which, self.service.as_ref()?, recorded_before, links, all))
    }
}

/// What a provider (kind, namespace and UID) is to links of the namespace `links`. `recorded_before` says
/// whether it was there already when type and address were a `LinkProvider`'s identity: then what was made
/// for that stays, unless another one that these links may name has the same.
pub fn identity(
    (kind, namespace, uid): (ProviderKind, Option<&str>, &str),
    service: &Service,
    recorded_before: bool,
    links: &str,
    all: &[ProviderView],
) -> Identity {
    let shared = service.identity();
    let others = all.iter().filter(|v| v.claim.uid != uid && v.is_visible_to(links));
    let others: BTreeSet<String> = others
        .filter_map(|v| {
            let other = v.service.as_ref().filter(|s| s.identity() == shared)?;
            Some(Identity::of(v.claim.kind, v.namespace.as_deref(), other, Before::Ends).own)
        })
        .collect();
    let before = if recorded_before && others.is_empty() { Before::Stays } else { Before::Ends };
    let mut is = Identity::of(kind, namespace, service, before);
    is.namesakes = others.into_iter().filter(|own| *own != is.own).collect();
    is
}

/// A provider's namespace and name.
pub fn full_name(view: &ProviderView) -> String {
    format!("{} {}", view.claim.kind.as_str(), view.claim.name)
}

/// Chooses the provider of a link: the one that it names; else the one where its client already
/// is, so that a changed default moves nobody; else the default, the newest one, one of the
/// namespace before one of the cluster.
///
/// # Errors
/// [`Problem`] where there is none, or more must be said.
pub fn choose<'a>(
    named: Option<&(ProviderKind, String)>,
    claims: &[Claim],
    namespace: &str,
    all: &'a [ProviderView],
) -> Result<&'a ProviderView, Problem> {
    let visible = |p: &&ProviderView| p.is_visible_to(namespace);
    if let Some((kind, name)) = named {
        return all
            .iter()
            .filter(visible)
            .find(|p| p.claim.kind == *kind && p.claim.name == *name)
            .ok_or_else(|| {
                Problem::wait(
                    Reason::ProviderNotFound,
                    format!(
                        "spec.providerRef: {} {name} doesn't exist; create it, or name another one",
                        kind.as_str()
                    ),
                )
            });
    }
    if let Some(claim) = claims.last() {
        return all.iter().filter(visible).find(|p| p.claim == *claim).ok_or_else(|| {
            Problem::wait(
                Reason::ProviderNotFound,
                format!(
                    "{} {}, where the client is registered, doesn't exist any more; create it again, or name another \
                     one in spec.providerRef",
                    claim.kind.as_str(),
                    claim.name
                ),
            )
        });
    }
    all.iter()
        .filter(visible)
        .filter(|p| p.default && !p.deleting)
        .max_by_key(|p| (p.namespace.is_some(), p.created, p.claim.name.clone()))
        .ok_or_else(|| {
            Problem::wait(
                Reason::NoDefaultProvider,
                format!(
                    "spec.providerRef is left out and there is no default provider; name one, or annotate one with \
                     {}=true",
                    names::DEFAULT_PROVIDER
                ),
            )
        })
}

/// What links of one namespace may do at a provider.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Permit {
    /// What is restricted; `None` for a provider of one namespace.
    pub restrictions: Option<Restrictions>,
    /// The clients that they may adopt.
    pub adoptable: Vec<String>,
    /// Whether they may take over their clients though the namespace was made anew.
    pub rebind: bool,
}

/// Whether links of a namespace may use a provider, and under what restrictions.
///
/// # Errors
/// [`Problem`] when they may not.
pub fn permit(
    view: &ProviderView,
    namespace: &str,
    labels: &BTreeMap<String, String>,
) -> Result<Permit, Problem> {
    let Some(allow) = &view.allow else {
        return Ok(Permit { adoptable: view.adoptable.clone(), ..Permit::default() });
    };
    let allowed = allow.as_ref().is_some_and(|allow| {
        let n = &allow.namespaces;
        n.all.is_some()
            || n.names.as_ref().is_some_and(|names| names.iter().any(|n| n == namespace))
            || n.match_labels.as_ref().is_some_and(|want| want.iter().all(|(k, v)| labels.get(k) == Some(v)))
    });
    match allow {
        Some(allow) if allowed => Ok(Permit {
            restrictions: Some(Restrictions {
                scopes: allow.scopes.as_ref().map(|s| s.iter().cloned().collect()),
                redirect_hosts: allow.redirect_hosts.clone(),
                grant_types: allow.grant_types.as_ref().map(|g| g.iter().copied().collect()),
            }),
            adoptable: allow
                .adoptable
                .iter()
                .flatten()
                .filter(|a| a.namespace == namespace)
                .map(|a| a.client_id.clone())
                .collect(),
            rebind: allow.rebind,
        }),
        _ => Err(Problem::wait(
            Reason::NamespaceNotAllowed,
            format!(
                "{} doesn't allow links of namespace {namespace}; use another provider, or have the platform team add the \
                 namespace to spec.allow.namespaces there",
                full_name(view)
            ),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::provider::{AllNamespaces, AllowNamespaces};

    fn provider(name: &str, namespace: Option<&str>, default: bool, age: i64) -> ProviderView {
        let kind =
            if namespace.is_some() { ProviderKind::LinkProvider } else { ProviderKind::ClusterLinkProvider };
        ProviderView {
            claim: Claim { kind, name: name.into(), uid: format!("uid-{name}") },
            namespace: namespace.map(str::to_owned),
            service: None,
            adoptable: Vec::new(),
            allow: namespace.is_none().then_some(None),
            deleting: false,
            held: true,
            default,
            created: Timestamp::from_second(age).ok(),
            generation: 1,
        }
    }

    #[test]
    fn the_newest_default_wins_and_one_of_the_namespace_first() {
        let all = [
            provider("old", None, true, 1),
            provider("new", None, true, 2),
            provider("no", None, false, 3),
            provider("ours", Some("a"), true, 1),
        ];
        let name = |ns: &str| choose(None, &[], ns, &all).map(|p| p.claim.name.clone());
        assert_eq!(name("a").as_deref(), Ok("ours"));
        assert_eq!(name("b").as_deref(), Ok("new"));
    }

    #[test]
    fn a_changed_default_moves_no_link() {
        let all = [provider("old", None, false, 1), provider("new", None, true, 2)];
        let claims = [all[0].claim.clone()];
        assert_eq!(choose(None, &claims, "a", &all).map(|p| p.claim.name.as_str()), Ok("old"));
    }

    #[test]
    fn another_namespace_s_provider_is_out_of_reach() {
        let all = [provider("theirs", Some("b"), true, 1)];
        let named = (ProviderKind::LinkProvider, "theirs".to_owned());
        assert_eq!(choose(Some(&named), &[], "a", &all).map_err(|p| p.reason), Err("ProviderNotFound"));
        assert_eq!(choose(None, &[], "a", &all).map_err(|p| p.reason), Err("NoDefaultProvider"));
        let claims = [all[0].claim.clone()];
        assert_eq!(choose(None, &claims, "a", &all).map_err(|p| p.reason), Err("ProviderNotFound"));
    }

    #[test]
    fn nobody_may_use_a_cluster_provider_that_allows_nobody() {
        let mut p = provider("p", None, true, 1);
        let labels = BTreeMap::from([("team".to_owned(), "a".to_owned())]);
        let reason = |p: &ProviderView| permit(p, "a", &labels).map(|_| ()).map_err(|p| p.reason);
        assert_eq!(reason(&p), Err("NamespaceNotAllowed"));
        let mut allow = |namespaces| {
            p.allow = Some(Some(Allow {
                namespaces,
                scopes: None,
                redirect_hosts: None,
                grant_types: None,
                adoptable: None,
                rebind: false,
            }));
            reason(&p)
        };
        let none = AllowNamespaces { all: None, names: None, match_labels: None };
        assert_eq!(allow(none.clone()), Err("NamespaceNotAllowed"));
        assert_eq!(allow(AllowNamespaces { all: Some(AllNamespaces {}), ..none.clone() }), Ok(()));
        assert_eq!(allow(AllowNamespaces { names: Some(vec!["a".into()]), ..none.clone() }), Ok(()));
        assert_eq!(
            allow(AllowNamespaces { names: Some(vec!["b".into()]), ..none.clone() }),
            Err("NamespaceNotAllowed")
        );
        assert_eq!(allow(AllowNamespaces { match_labels: Some(labels.clone()), ..none }), Ok(()));
    }
}
