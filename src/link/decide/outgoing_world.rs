//! A model of the world of one link with an outgoing part, for tests: what is observed, and a server that rotates its
//! refresh tokens or doesn't. It does what a plan says, and asserts what every plan must keep to.

use super::{Goal, decide, token_secret};
use crate::api::link::DeletionPolicy;
use crate::domain::keyring::{InstallationId, MasterKey};
use crate::domain::{AuthMethod, ClientId, ExposeSecret as _, KeyRing, ScopeSet, TokenReply};
use crate::link::content::{OUTGOING, SecretGoal};
use crate::link::facts::{Observed, OutgoingFacts, OwnSecret, SecretFact};
use crate::link::grant::{Access, Grant, Intent, Kept};
use crate::link::plan::{AskBy, Effect, Part, Publication, TokenPlan};
use crate::link::problem::Problem;
use crate::link::validate::{
    ClientAuthGoal, ClientGoal, ClientIdGoal, GrantGoal, OutgoingGoal, SecretKey, ServerGoal, ServerPlace,
    ValidatedLink,
};
use crate::outgoing::presets::CUSTOM;
use crate::outgoing::{ClientCredentials, Issuer, RefreshPolicy, ServerEndpoints};
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

pub(super) const LIFETIME: i64 = 3600;

/// The world of one link: what is observed, and a server that rotates or doesn't.
pub(super) struct World {
    pub(super) link: ValidatedLink,
    pub(super) seen: Observed,
    pub(super) now: Timestamp,
    pub(super) version: u64,
    pub(super) rotates: bool,
    /// What the server takes: the token in force, and within its grace the one before.
    pub(super) valid: String,
    pub(super) spent: String,
    pub(super) tokens: u64,
    pub(super) requests: u64,
    pub(super) lifetime: i64,
}

/// What a reply leaves in the pass that got it; lost when the pass stops.
pub(super) type Carry = Option<(TokenReply, Access)>;

pub(super) fn at(secret: &str, key: &str) -> SecretKey {
    SecretKey { secret: secret.into(), key: key.into() }
}

pub(super) fn goal(refresh: bool) -> OutgoingGoal {
    OutgoingGoal {
        server: ServerGoal {
            preset: &CUSTOM,
            place: ServerPlace::Issuer(Issuer::parse("https://as.example").expect("issuer")),
            named: true,
        },
        grant: if refresh {
            GrantGoal::RefreshToken(at("seed", "token"))
        } else {
            GrantGoal::ClientCredentials
        },
        client: Some(ClientGoal {
            id: ClientIdGoal::Secret(at("client", "client-id")),
            auth: ClientAuthGoal::Secret {
                method: AuthMethod::ClientSecretBasic,
                named: false,
                at: at("client", "client-secret"),
            },
        }),
        scopes: ScopeSet::parse("a").expect("scopes"),
        refresh: RefreshPolicy::Default,
        secret: SecretGoal {
            name: "token".into(),
            type_: "Opaque".into(),
            labels: BTreeMap::from([("team".into(), "a".into())]),
            annotations: BTreeMap::new(),
            keys: OUTGOING[..4].iter().map(|s| (*s, s.default_key().to_owned())).collect(),
            templates: BTreeMap::from([(".env".into(), "T={{ accessToken }}\n".into())]),
        },
    }
}

pub(super) fn endpoints(path: &str) -> ServerEndpoints {
    let token = Url::parse(&format!("https://as.example/{path}")).expect("url");
    ServerEndpoints { issuer: Some("https://as.example".into()), ..ServerEndpoints::new(token) }
}

impl World {
    pub(super) fn new(refresh: bool, rotates: bool) -> Self {
        let installation = InstallationId::parse("i").expect("id");
        let keys = KeyRing::new(installation, "k", MasterKey::from_bytes([1; 32]));
        let client = ClientCredentials::by_secret(
            ClientId::parse("us").expect("id"),
            AuthMethod::ClientSecretBasic,
            "client-secret".to_owned().into(),
        );
        Self {
            link: ValidatedLink {
                provider_ref: None,
                incoming: None,
                outgoing: Some(goal(refresh)),
                deletion_policy: DeletionPolicy::Delete,
                suspend: false,
            },
            seen: Observed {
                namespace: "team".into(),
                namespace_uid: "n".into(),
                name: "link".into(),
                uid: "u".into(),
                finalizer: false,
                claims: vec![],
                claims_current: true,
                last: crate::link::facts::LastSecret::default(),
                kept: None,
                accepted_endpoint: None,
                keys: Ok(Arc::new(keys)),
                incoming: None,
                outgoing: Some(OutgoingFacts {
                    desk: None,
                    endpoints: Ok(endpoints("token")),
                    client: Ok(Some(client)),
                    bearer: None,
                    inputs: vec![crate::link::lend::Lent {
                        secret: "client".into(),
                        allowed: None,
                        id_key: None,
                    }],
                    require_allowed_hosts: false,
                    seed: refresh.then(|| Ok("seed-0".to_owned().into())),
                    secret: SecretFact::Absent,
                    refused: None,
                    before: crate::link::facts::Before::default(),
                    doubt: false,
                    in_line: false,
                    in_hand: None,
                    min_refresh_interval: Duration::ZERO,
                    holder: "one".into(),
                }),
                elsewhere: vec![],
                strays: vec![],
                grant: None,
                consent: None,
                ticket: None,
                completion: None,
            },
            now: "2026-11-22T00:00:00Z".parse().expect("time"),
            version: 0,
            rotates,
            valid: "seed-0".into(),
            spent: String::new(),
            tokens: 0,
            requests: 0,
            lifetime: LIFETIME,
        }
    }

    pub(super) fn facts(&mut self) -> &mut OutgoingFacts {
        self.seen.outgoing.as_mut().expect("an outgoing part")
    }

    pub(super) fn goal(&mut self) -> &mut OutgoingGoal {
        self.link.outgoing.as_mut().expect("an outgoing part")
    }

    pub(super) fn decide(&self) -> (Vec<Effect>, Part) {
        let plan = decide(&Goal::Present(Box::new(self.link.clone())), &self.seen, self.now).plan;
        let effects: Vec<_> = plan.effects().cloned().collect();
        let asks = plan.names().iter().filter(|n| **n == "RequestToken").count();
        assert!(asks <= 1, "{:?}", plan.names());
        (effects, plan.outgoing.expect("an outgoing part"))
    }

    pub(super) fn save(&mut self, grant: Grant) {
        self.version += 1;
        self.seen.grant = Some((grant, self.version.to_string()));
    }

    /// Does one effect; `false` ends the part.
    pub(super) fn apply(&mut self, effect: &Effect, carry: &mut Carry) -> bool {
        match effect {
            Effect::Claim(_) => self.seen.finalizer = true,
            Effect::SaveGrant(grant, version) => {
                assert_eq!(*version, self.seen.grant.as_ref().map(|(_, v)| v.clone()), "conditional");
                self.save((**grant).clone());
            }
            Effect::BeginRefresh(holder) => {
                let (mut grant, _) = self.seen.grant.clone().expect("a grant");
                grant.intent = Some(Intent { holder: holder.clone(), at: self.now });
                self.save(grant);
            }
            Effect::RequestToken(plan) => return self.request(plan, carry),
            Effect::KeepReply => {
                let (mut grant, _) = self.seen.grant.clone().expect("a grant");
                let (reply, access) = carry.clone().expect("a reply");
                grant.take(&reply, access);
                self.save(grant);
            }
            Effect::PublishToken(publication) => {
                let token = publication.token.clone();
                let token = token.or_else(|| carry.as_ref().map(|(_, a)| a.clone())).expect("a token");
                self.publish(publication, &token);
            }
            Effect::GiveBack(grant) => {
                let (kept, _) = self.seen.grant.clone().expect("a grant");
                assert!(kept.refresh_token != grant.refresh_token, "the grant in hand");
            }
            other => panic!("{other:?} has no place here"),
        }
        true
    }

    pub(super) fn request(&mut self, plan: &TokenPlan, carry: &mut Carry) -> bool {
        self.requests += 1;
        let (grant, _) = self.seen.grant.clone().expect("a request without a record could not be bound");
        assert_eq!(grant.binding.token_endpoint, plan.endpoint.as_str(), "sent where it is bound to");
        assert!(grant.dead.is_none() && !self.link.suspend);
        assert_eq!(matches!(plan.by, AskBy::RefreshToken), grant.refresh_token.is_some());
        let mut refresh_token = None;
        if let Some(Kept(token)) = &grant.refresh_token {
            if self.rotates {
                assert!(grant.intent.is_some(), "announced before it is spent");
            }
            let token = token.expose_secret();
            if *token == *self.valid && self.rotates {
                self.tokens += 1;
                self.spent = std::mem::replace(&mut self.valid, format!("refresh-{}", self.tokens));
            } else if *token != *self.valid && *token != *self.spent {
                let mut dead = grant;
                dead.dead = Some("invalid_grant".into());
                self.save(dead);
                return false;
            }
            refresh_token = self.rotates.then(|| self.valid.clone().into());
        }
        self.tokens += 1;
        let access = Access {
            token: Kept(format!("access-{}", self.tokens).into()),
            token_type: "Bearer".into(),
            issued_at: self.now,
            expires_at: self.now + SignedDuration::from_secs(self.lifetime),
            scope: plan.scopes.to_string(),
            fingerprint: plan.fingerprint.clone(),
        };
        let reply = TokenReply {
            access_token: access.token.0.clone(),
            token_type: "Bearer".into(),
            lifetime: None,
            refresh_token,
            scopes: None,
            id_token: None,
            account: None,
        };
        *carry = Some((reply, access));
        true
    }

    pub(super) fn publish(&mut self, publication: &Publication, token: &Access) {
        let keys = self.seen.keys.clone().expect("keys");
        let (data, annotations) =
            token_secret(&publication.goal, publication.provider, token, &keys).expect("rendered");
        let old = match &self.facts().secret {
            SecretFact::Own(own) => Some(own.clone()),
            _ => None,
        };
        assert_eq!(
            publication.over.as_ref().map(|o| o.resource_version.clone()),
            old.as_ref().map(|o| o.resource_version.clone()),
            "conditional"
        );
        self.version += 1;
        let own_keys = data.iter().map(|(k, _)| k.clone()).collect();
        let mut all = old.as_ref().map(|o| o.data.clone()).unwrap_or_default();
        all = all.iter().chain(data.iter()).map(|(k, v)| (k.clone(), v.to_owned().into())).collect();
        self.facts().secret = SecretFact::Own(Box::new(OwnSecret {
            uid: "s".into(),
            resource_version: self.version.to_string(),
            type_: "Opaque".into(),
            own_labels: publication.labels.keys().cloned().collect(),
            own_annotations: annotations.keys().cloned().collect(),
            own_keys,
            labels: publication.labels.clone(),
            annotations,
            data: all,
            marked: true,
            drop_owners: Vec::new(),
        }));
    }

    /// One pass that stops after `stop` effects. Says whether there was nothing to do, and how it is.
    pub(super) fn pass(&mut self, stop: usize) -> (bool, Result<(), Problem>) {
        let (effects, part) = self.decide();
        let mut carry = None;
        for effect in effects.iter().take(stop) {
            if !self.apply(effect, &mut carry) {
                break;
            }
        }
        (effects.is_empty(), part.verdict)
    }

    /// Passes until there is nothing to do.
    pub(super) fn settle(&mut self) -> Result<(), Problem> {
        for _ in 0..6 {
            if let (true, verdict) = self.pass(usize::MAX) {
                return verdict;
            }
        }
        panic!("no rest: {:?}", self.decide().0);
    }

    pub(super) fn published(&mut self) -> Option<Access> {
        let (keys, goal) = (self.seen.keys.clone().expect("keys"), self.goal().clone());
        match &self.facts().secret {
            SecretFact::Own(own) => super::published(own, &goal, &keys),
            _ => None,
        }
    }
}
