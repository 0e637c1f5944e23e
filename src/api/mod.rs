//! The custom resources: types, schema rules, defaults and printer columns; nothing else.
//!
//! Everybody on the Kubernetes side may use this module. What a schema can refuse is refused
//! here, at `kubectl apply`; what needs more than the object itself is for `link::validate`.

pub mod common;
pub mod crds;
pub mod link;
pub mod names;
pub mod provider;
pub mod reference;
pub(crate) mod schema;

pub use common::{ConditionStatus, SecretKeyRef};
pub use link::{ApplicationLink, ApplicationLinkSpec, ApplicationLinkStatus};
pub use provider::{
    ClusterLinkProvider, ClusterLinkProviderSpec, LinkProvider, LinkProviderSpec, ProviderStatus,
};
