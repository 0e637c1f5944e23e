//! What the user wants, in few words.

use super::SECRETS;
use crate::api::link::DeletionPolicy;
use crate::domain::{AuthMethod, ClientId, ClientMetadata, Deletion, GrantType, Scope};
use crate::link::content::{SecretGoal, Slot};
use crate::link::decide::Goal;
use crate::link::validate::{AdoptGoal, IncomingGoal, RotationGoal, RotationRequest, ValidatedLink};
use std::collections::{BTreeMap, BTreeSet};

/// What the user wants.
#[derive(Debug, Clone)]
pub(in crate::link::decide) struct Want {
    pub(in crate::link::decide) provider: String,
    pub(in crate::link::decide) scope: bool,
    pub(in crate::link::decide) public: bool,
    pub(in crate::link::decide) secret: &'static str,
    pub(in crate::link::decide) renamed_key: bool,
    pub(in crate::link::decide) suspend: bool,
    pub(in crate::link::decide) every: Option<i64>,
    pub(in crate::link::decide) request: Option<(String, bool)>,
    pub(in crate::link::decide) adopt: Option<&'static str>,
    pub(in crate::link::decide) retain: bool,
    /// `Some`: deleted, with these.
    pub(in crate::link::decide) deleted: Option<(bool, bool)>,
}

impl Want {
    pub(in crate::link::decide) fn new() -> Self {
        Self {
            provider: "p1".into(),
            scope: false,
            public: false,
            secret: SECRETS[0],
            renamed_key: false,
            suspend: false,
            every: None,
            request: None,
            adopt: None,
            retain: false,
            deleted: None,
        }
    }

    pub(in crate::link::decide) fn goal(&self) -> Goal {
        if let Some((retain, force)) = self.deleted {
            return Goal::Absent { retain, force };
        }
        let (grant_types, auth_method) = if self.public {
            (GrantType::RefreshToken, AuthMethod::None)
        } else {
            (GrantType::ClientCredentials, AuthMethod::ClientSecretBasic)
        };
        let id_key = if self.renamed_key { "CLIENT_ID" } else { "client-id" };
        let slots = [
            (Slot::ClientId, id_key),
            (Slot::ClientSecret, "client-secret"),
            (Slot::IssuerUri, "issuer-uri"),
            (Slot::TokenEndpoint, "token-endpoint"),
            (Slot::TokenEndpointAuthMethod, "token-endpoint-auth-method"),
        ];
        Goal::Present(Box::new(ValidatedLink {
            provider_ref: None,
            incoming: Some(IncomingGoal {
                metadata: ClientMetadata {
                    name: "CI".into(),
                    uri: None,
                    redirect_uris: BTreeSet::new(),
                    grant_types: [grant_types].into(),
                    scopes: self
                        .scope
                        .then(|| Scope::parse("REPO_READ").expect("a scope"))
                        .into_iter()
                        .collect(),
                    auth_method,
                },
                adopt: self
                    .adopt
                    .map(|id| AdoptGoal { id: ClientId::parse(id).expect("an ID"), secret: None }),
                rotation: RotationGoal { every: self.every.filter(|_| !self.public), overlap: None },
                request: self
                    .request
                    .clone()
                    .filter(|_| !self.public)
                    .map(|(value, now)| RotationRequest { now: now.then(|| value.clone()), value }),
                secret: SecretGoal {
                    name: self.secret.into(),
                    type_: "Opaque".into(),
                    labels: BTreeMap::new(),
                    annotations: BTreeMap::new(),
                    keys: slots.into_iter().map(|(s, k)| (s, k.to_owned())).collect(),
                    templates: BTreeMap::new(),
                },
                deletion: if self.retain { Deletion::Retain } else { Deletion::Delete },
            }),
            outgoing: None,
            deletion_policy: DeletionPolicy::Delete,
            suspend: self.suspend,
        }))
    }
}
