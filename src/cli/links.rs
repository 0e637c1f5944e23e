//! What tools read off links and providers: readings of the status that the operator wrote, never
//! a judgement of their own.

use super::ToolError;
use super::cluster::{Cluster, failed};
use crate::api::common::Condition;
use crate::api::link::ProviderKind;
use crate::api::provider::Service;
use crate::api::{ApplicationLink, ClusterLinkProvider, ConditionStatus, LinkProvider, ProviderStatus};
use crate::domain::Reason;
use kube::{Api, ResourceExt as _};
use serde::Serialize;

/// Whether an object is ready, and why not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Readiness {
    /// `True`, `False` or `Unknown`, of the generation that there is.
    pub ready: &'static str,
    /// The machine reason.
    pub reason: String,
    /// What is wrong and what to do; empty where all is well.
    pub message: String,
    /// Since when (RFC 3339).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub since: Option<String>,
}

impl Readiness {
    /// Whether it is.
    pub fn is_ready(&self) -> bool {
        self.ready == "True"
    }

    /// Of an object's conditions, as they were found for `generation`.
    pub fn of(conditions: &[Condition], observed: i64, generation: Option<i64>) -> Self {
        let unknown = |reason: Reason, message: &str| Self {
            ready: "Unknown",
            reason: reason.to_string(),
            message: message.into(),
            since: None,
        };
        let Some(ready) = conditions.iter().find(|c| c.type_ == "Ready") else {
            return unknown(Reason::NotObserved, "the operator hasn't looked at it yet; does it run?");
        };
        if generation.is_some_and(|g| g != observed) {
            return unknown(
                Reason::Outdated,
                "it was changed and the operator hasn't looked at it since; does it run?",
            );
        }
        Self {
            ready: match ready.status {
                ConditionStatus::True => "True",
                ConditionStatus::False => "False",
                ConditionStatus::Unknown => "Unknown",
            },
            reason: ready.reason.clone(),
            message: ready.message.clone(),
            since: Some(ready.last_transition_time.clone()),
        }
    }

    /// Of a link.
    pub fn of_link(link: &ApplicationLink) -> Self {
        let status = link.status.as_ref();
        let conditions = status.map_or(&[][..], |s| &s.conditions);
        Self::of(conditions, status.map_or(-1, |s| s.observed_generation), link.metadata.generation)
    }
}

/// A provider of either kind, as tools see it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProviderRow {
    /// `LinkProvider` or `ClusterLinkProvider`.
    pub kind: &'static str,
    /// Its namespace, where it has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// The kind of service.
    #[serde(rename = "type", skip_serializing_if = "Option::is_none")]
    pub type_: Option<String>,
    /// Its address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Whether it is ready.
    #[serde(flatten)]
    pub readiness: Readiness,
    /// Where its metadata stand, if it has any.
    #[serde(skip)]
    pub issuer: Option<String>,
    /// Certificates (PEM) to trust there.
    #[serde(skip)]
    pub ca_bundle: Option<String>,
}

/// Where a service's metadata stand (RFC 8414, OpenID Connect); Bitbucket has none.
fn issuer(service: &Service) -> Option<String> {
    match service {
        Service::Bundled(_) | Service::Hydra(_) | Service::Registration(_) => Some(service.url().to_owned()),
        Service::Keycloak(k) => Some(format!("{}/realms/{}", k.url.trim_end_matches('/'), k.realm)),
        Service::Bitbucket(_) => None,
    }
}

impl ProviderRow {
    fn new(
        kind: ProviderKind,
        object: &impl kube::ResourceExt,
        service: Option<&Service>,
        status: Option<&ProviderStatus>,
    ) -> Self {
        let conditions = status.map_or(&[][..], |s| &s.conditions);
        let observed = status.map_or(-1, |s| s.observed_generation);
        Self {
            kind: kind.as_str(),
            namespace: object.namespace(),
            name: object.name_any(),
            type_: service.map(|s| s.type_().to_owned()),
            url: service.map(|s| s.url().to_owned()),
            readiness: Readiness::of(conditions, observed, object.meta().generation),
            issuer: service.and_then(issuer),
            ca_bundle: service.and_then(Service::ca_bundle).map(str::to_owned),
        }
    }

    /// Whether a link's status names this provider.
    pub fn is_of(&self, link: &ApplicationLink) -> bool {
        let named = link.status.as_ref().and_then(|s| s.provider.as_ref());
        named.is_some_and(|p| {
            p.kind.as_str() == self.kind
                && p.name == self.name
                && self.namespace.as_ref().is_none_or(|n| Some(n) == link.namespace().as_ref())
        })
    }
}

impl From<&LinkProvider> for ProviderRow {
    fn from(p: &LinkProvider) -> Self {
        Self::new(ProviderKind::LinkProvider, p, p.spec.service().as_ref(), p.status.as_ref())
    }
}

impl From<&ClusterLinkProvider> for ProviderRow {
    fn from(p: &ClusterLinkProvider) -> Self {
        Self::new(ProviderKind::ClusterLinkProvider, p, p.spec.service().as_ref(), p.status.as_ref())
    }
}

/// The link of a name.
///
/// # Errors
/// [`ToolError`] where it can't be had.
pub async fn get(cluster: &Cluster, name: &str) -> Result<ApplicationLink, ToolError> {
    let what = format!("ApplicationLink {}/{name}", cluster.namespace);
    let links: Api<ApplicationLink> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    match links.get_opt(name).await.map_err(failed(what.clone()))? {
        Some(link) => Ok(link),
        None => {
            // The API server says the same of a kind that it doesn't know.
            links
                .list_metadata(&kube::api::ListParams::default().limit(1))
                .await
                .map_err(failed(what.clone()))?;
            Err(ToolError::Precondition(format!(
                "{what} doesn't exist; see applink status, and -n for another namespace"
            )))
        }
    }
}

/// What the operator says of a part of the link that a person must mend before anything can come of it: the
/// condition `part`, or `Ready` where that part wasn't looked at. What is wrong with the other part is in
/// nobody's way.
pub fn stalled<'l>(link: &'l ApplicationLink, part: &str) -> Option<&'l Condition> {
    let said = refused(link, part)?;
    find(link, "Stalled")
        .is_some_and(|c| c.status == ConditionStatus::True && c.reason == said.reason)
        .then_some(said)
}

/// The same condition, whoever can mend it.
pub fn refused<'l>(link: &'l ApplicationLink, part: &str) -> Option<&'l Condition> {
    link.status.as_ref().filter(|s| Some(s.observed_generation) == link.metadata.generation)?;
    find(link, part).or_else(|| find(link, "Ready")).filter(|c| c.status == ConditionStatus::False)
}

fn find<'l>(link: &'l ApplicationLink, type_: &str) -> Option<&'l Condition> {
    link.status.as_ref()?.conditions.iter().find(|c| c.type_ == type_)
}

/// Whether an object is a link's own.
pub fn owns(link: &ApplicationLink, owned: &impl kube::ResourceExt) -> bool {
    let uid = link.uid();
    uid.is_some() && owned.owner_references().iter().any(|o| Some(&o.uid) == uid.as_ref())
}

/// The client identifier of the status.
pub fn client_id(link: &ApplicationLink) -> Option<&str> {
    link.status.as_ref()?.incoming.as_ref().map(|i| i.client_id.as_str())
}
