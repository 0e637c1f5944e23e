//! For tests: a world in memory for the incoming part and the end of a link. What a plan says is
//! done there, wholly or up to some effect, until there is nothing left to do.

mod deeds;
mod want;

use super::*;
use crate::api::link::ProviderKind;
use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, Deletion, ExposeSecret as _, InstallationId, KeyRing, MasterKey,
    Owner, OwnerMark, Scope,
};
use crate::link::derive::{self, Source};
use crate::link::facts::{Elsewhere, IncomingFacts, LastSecret, Place, PlaceFacts, SecretId};
use crate::link::grant::LinkRef;
use crate::link::identity::{Before, Identity};
use crate::link::kept_client::KeptClients;
use crate::provider::{
    Capabilities, ClientRef, Previous, Proof, ProviderInfo, PutSecret, Registered, RegisteredClient,
};
use std::sync::Arc;

pub(super) use want::Want;

const NAMESPACE: &str = "team-a";
const LINK: &str = "ci";
pub(super) const SECRETS: [&str; 3] = ["ci-oauth", "other", "taken"];

pub(super) fn keys(installation: &str) -> KeyRing {
    ring(installation, false)
}

/// The installation's keys, before and after a key rotation.
pub(super) fn ring(installation: &str, rotated: bool) -> KeyRing {
    let all = [("1", 7u8), ("2", 8)].map(|(id, b)| (id.to_owned(), MasterKey::from_bytes([b; 32])));
    let active = if rotated { "2" } else { "1" };
    KeyRing::from_keys(InstallationId::parse(installation).expect("an ID"), active, all.into())
        .expect("a ring")
}

/// What each service can do: "one" holds two secrets, "two" one, and "three" picks identifier and
/// secret itself and is asked by name.
pub(super) fn caps(service: &str) -> Capabilities {
    let chosen = service != "three";
    Capabilities {
        chooses_id: chosen,
        chooses_secret: chosen,
        reads_secret: false,
        rotates: true,
        overlaps: service == "one" || service == "evil",
        lists: true,
        tells_owner: chosen,
        proves: true,
        tells_changes: false,
        expires_secret: false,
        revokes_tokens: false,
    }
}

/// A client as a provider service holds it.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Held {
    pub(super) metadata: ClientMetadata,
    pub(super) secret: Option<String>,
    /// The secret before, and until when it works.
    pub(super) previous: Option<(String, i64)>,
    pub(super) owner: Option<Owner>,
    /// By what it is found again, where the service picks identifiers.
    pub(super) tag: String,
    pub(super) version: u64,
}

/// A Secret in the link's namespace.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) uid: String,
    /// UID of the link that owns it; `None` is somebody else's.
    pub(super) owner: Option<String>,
    pub(super) labels: BTreeMap<String, String>,
    pub(super) annotations: BTreeMap<String, String>,
    pub(super) data: BTreeMap<String, String>,
    /// What we wrote, as managed fields say it.
    pub(super) own: BTreeSet<String>,
}

/// Everything outside of the operator.
#[derive(Debug, Clone)]
pub(super) struct World {
    /// Provider objects by UID: the service behind each, and whether it answers.
    pub(super) providers: BTreeMap<String, (&'static str, bool)>,
    /// Clients by service and identifier.
    pub(super) clients: BTreeMap<(&'static str, String), Held>,
    pub(super) secrets: BTreeMap<String, Kept>,
    pub(super) uid: String,
    pub(super) finalizer: bool,
    pub(super) claims: Vec<Claim>,
    /// What the status last said.
    pub(super) last: LastSecret,
    /// Our record of clients.
    pub(super) kept: Option<KeptClients>,
    pub(super) now: i64,
    pub(super) counter: u64,
    /// All that clients were registered with: service, UID of the link, serial; in order.
    pub(super) serials: Vec<(&'static str, String, i64)>,
    pub(super) finished: bool,
    pub(super) keys: bool,
    pub(super) key_rotated: bool,
    /// What the provider answered last, until the pass ends.
    pub(super) reply: Option<Registered>,
    /// Each secret of ours that a service was told, and which: no other one may hear it.
    pub(super) told: BTreeMap<String, &'static str>,
    /// The clients that may be adopted.
    pub(super) adoptable: Vec<String>,
    /// What a version before made for t1 stays as it is.
    pub(super) stays: bool,
    /// After how many seconds service three ends a secret that it picked.
    pub(super) secret_life: Option<i64>,
}

/// The providers whose UID begins with "t" are of the link's namespace.
pub(super) fn claim(uid: &str) -> Claim {
    let kind =
        if uid.starts_with('t') { ProviderKind::LinkProvider } else { ProviderKind::ClusterLinkProvider };
    Claim { kind, name: format!("name-{uid}"), uid: uid.to_owned() }
}

impl World {
    /// p1 and p1-again stand for the same service, and so does the tenant's t1. Its t2 says so too, and
    /// has another one called.
    pub(super) fn new() -> Self {
        let foreign = Kept {
            uid: "foreign".into(),
            owner: None,
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            data: [("mine".to_owned(), "1".to_owned())].into(),
            own: BTreeSet::new(),
        };
        Self {
            providers: [
                ("p1", "one"),
                ("p1-again", "one"),
                ("p2", "two"),
                ("p3", "three"),
                ("t1", "one"),
                ("t2", "evil"),
            ]
            .map(|(uid, service)| (uid.to_owned(), (service, true)))
            .into(),
            clients: BTreeMap::new(),
            secrets: [("taken".to_owned(), foreign)].into(),
            uid: "link-1".into(),
            finalizer: false,
            claims: vec![],
            last: LastSecret::default(),
            kept: None,
            now: 1_000_000,
            counter: 0,
            serials: vec![],
            finished: false,
            keys: true,
            key_rotated: false,
            reply: None,
            told: BTreeMap::new(),
            adoptable: vec!["clicked".into()],
            stays: false,
            secret_life: None,
        }
    }

    pub(super) fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// What the providers' specs say that they are.
    fn service(service: &str) -> String {
        let named = if service == "evil" { "one" } else { service };
        format!("bundled|https://{named}.example.com")
    }

    /// The identity of a provider, and of those that say that they are the same service.
    pub(super) fn identity(uid: &str, service: &str) -> Identity {
        let shared = Self::service(service);
        let all = ["t1", "t2", "t3"].map(|t| format!("LinkProvider {t}"));
        let own = if uid.starts_with('t') { format!("LinkProvider {uid}") } else { shared.clone() };
        let alike = shared == Self::service("one");
        let namesakes = all.into_iter().chain([shared.clone()]).filter(|o| alike && *o != own).collect();
        Identity { own, service: shared, before: Before::Ends, namesakes }
    }

    pub(super) fn id(service: &str) -> ClientId {
        derive::client_id(&keys("ours"), &Self::identity("p", service), NAMESPACE, LINK)
            .expect("an identifier")
    }

    fn ring(&self) -> KeyRing {
        ring("ours", self.key_rotated)
    }

    fn at(
        &self,
        identity: &Identity,
        service: &str,
        adopt: Option<&'static str>,
        seen: &Observed,
    ) -> ClientRef {
        let kept = seen.kept_at(identity);
        let adopt = adopt.map(|id| ClientId::parse(id).expect("an ID"));
        derive::lookup(&self.ring(), identity, caps(service), adopt.as_ref(), kept, seen).expect("an ID")
    }

    /// The client's key at its service: by handle, by tag, or by identifier.
    fn find(&self, service: &'static str, at: &ClientRef) -> Option<(&'static str, String)> {
        let handle = at.handle.as_ref().map(|h| h.expose_secret().to_owned());
        let fits = |(s, id): &(&'static str, String), held: &Held| {
            *s == service
                && match &handle {
                    Some(handle) => handle == id,
                    None => *id == at.id.as_str() || held.tag == at.id.as_str(),
                }
        };
        self.clients.iter().find(|(k, h)| fits(k, h)).map(|(k, _)| k.clone())
    }

    pub(super) fn registered(&self, service: &'static str, at: &ClientRef) -> Option<RegisteredClient> {
        let key = self.find(service, at)?;
        let held = &self.clients[&key];
        Some(RegisteredClient {
            id: ClientId::parse(&key.1).expect("an ID"),
            metadata: Some(held.metadata.clone()),
            has_secret: held.secret.is_some(),
            secret: None,
            secret_expires_at: None,
            has_previous: false,
            owner: held.owner.clone(),
            protected: false,
            version: Some(held.version.to_string()),
            handle: (!caps(service).chooses_id).then(|| key.1.clone().into()),
        })
    }

    pub(super) fn authenticates(&self, service: &'static str, id: &str, secret: &str) -> Proof {
        let held = self.clients.get(&(service, id.to_owned()));
        let right = held.is_some_and(|h| {
            h.secret.as_deref() == Some(secret)
                || h.previous.as_ref().is_some_and(|(p, until)| p == secret && *until > self.now)
        });
        if right { Proof::Authenticated } else { Proof::Refused }
    }

    pub(super) fn look(&self, name: &str) -> SecretFact {
        let Some(kept) = self.secrets.get(name) else { return SecretFact::Absent };
        if kept.owner.as_deref() != Some(&self.uid) {
            return SecretFact::Foreign(Problem::edit("SecretConflict", "not ours"));
        }
        let has = |k: &str| kept.labels.contains_key(k);
        SecretFact::Own(Box::new(OwnSecret {
            uid: kept.uid.clone(),
            resource_version: "1".into(),
            type_: "Opaque".into(),
            labels: kept.labels.clone(),
            annotations: kept.annotations.clone(),
            data: kept.data.iter().map(|(k, v)| (k.clone(), v.clone().into())).collect(),
            marked: has(names::MANAGED_BY),
            drop_owners: Vec::new(),
            own_keys: kept.own.clone(),
            own_labels: BTreeSet::new(),
            own_annotations: BTreeSet::new(),
        }))
    }

    pub(super) fn place(&self, uid: &str) -> Result<(Place, &'static str), Problem> {
        match self.providers.get(uid) {
            None => Err(Problem::wait("ProviderNotFound", "not there")),
            Some((_, false)) => Err(Problem::wait("ProviderUnreachable", "down")),
            Some((service, true)) => {
                let issuer = format!("https://{service}.example.com");
                let place = Place {
                    claim: claim(uid),
                    identity: Identity {
                        before: if self.stays { Before::Stays } else { Before::Ends },
                        ..Self::identity(uid, service)
                    },
                    type_: "bundled",
                    caps: caps(service),
                    adoptable: self.adoptable.clone(),
                    info: ProviderInfo {
                        instance: "i".into(),
                        token_endpoint: format!("{issuer}/oauth2/token"),
                        authorization_endpoint: None,
                        revocation_endpoint: None,
                        scopes: Some([Scope::parse("REPO_READ").expect("a scope")].into_iter().collect()),
                        grant_types: None,
                        served: None,
                        auth_methods: None,
                        redirect_required: false,
                        issuer,
                    },
                    rebind: false,
                    allow: None,
                };
                Ok((place, service))
            }
        }
    }

    pub(super) fn observe(&self, want: &Want) -> Observed {
        let goal = want.goal();
        let mut seen = Observed {
            namespace: NAMESPACE.into(),
            namespace_uid: "ns".into(),
            name: LINK.into(),
            uid: self.uid.clone(),
            finalizer: self.finalizer,
            claims: self.claims.clone(),
            claims_current: true,
            last: self.last.clone(),
            kept: self.kept.clone().map(|k| (k, "1".to_owned())),
            accepted_endpoint: None,
            keys: Ok(Arc::new(self.ring())),
            incoming: None,
            outgoing: None,
            elsewhere: vec![],
            strays: vec![],
            grant: None,
            consent: None,
            ticket: None,
            completion: None,
        };
        let owned = self.secrets.iter().filter(|(_, k)| k.owner.as_deref() == Some(&self.uid));
        let strays: Vec<_> = owned.map(|(n, k)| SecretId { name: n.clone(), uid: k.uid.clone() }).collect();
        if !self.keys {
            seen.keys = Err(Problem::edit("MasterKeyMissing", "gone"));
            return Observed { strays, ..seen };
        }
        let mut here = None;
        if let Goal::Present(link) = &goal {
            let incoming = link.incoming.as_ref().expect("an incoming part");
            let mut facts = IncomingFacts {
                place: Err(Problem::wait("ProviderNotReady", "nobody looked there yet")),
                at: None,
                client: None,
                adopt_secret: None,
                proof: None,
                controlled: true,
                secret: self.look(want.secret),
                unwritable: None,
            };
            match self.place(&want.provider) {
                Ok((place, service)) => {
                    let mut at = self.at(&place.identity, service, want.adopt, &seen);
                    facts.client = self.registered(service, &at);
                    if facts.client.is_none() && service == "three" {
                        let id = derive::client_tag(&self.ring(), &place.identity, &seen).expect("a tag");
                        let tag = ClientRef { id, handle: None };
                        facts.client = self.registered(service, &tag);
                        if facts.client.is_some() {
                            at = tag;
                        }
                    }
                    let same = facts
                        .client
                        .as_ref()
                        .filter(|c| c.metadata.as_ref() == Some(&incoming.metadata) && !want.public);
                    if let Some(client) = same {
                        let kept = seen.kept_at(&place.identity);
                        let present = derive::present(
                            &self.ring(),
                            &place.identity,
                            place.caps,
                            &at.id,
                            Some(client),
                            kept,
                            &seen,
                        );
                        let may = place.identity.may_have(&present.made_for);
                        facts.proof = present
                            .secret
                            .filter(|_| may || present.source != Source::Derived)
                            .map(|s| self.authenticates(service, client.id.as_str(), s.expose_secret()));
                    }
                    if want.adopt.is_some() && facts.client.as_ref().is_some_and(|c| c.owner.is_none()) {
                        // As if the link said where the secret stands: read until something is kept.
                        let kept = seen.kept_at(&place.identity).and_then(|k| k.secret.clone());
                        facts.adopt_secret = kept.is_none().then(|| Ok("clicked-secret".into()));
                        let secret =
                            kept.map_or("clicked-secret".to_owned(), |k| k.0.expose_secret().to_owned());
                        facts.proof = Some(self.authenticates(service, at.id.as_str(), &secret));
                    }
                    facts.at = Some(at);
                    here = Some(place.claim.clone());
                    facts.place = Ok(place);
                }
                Err(problem) => facts.place = Err(problem),
            }
            seen.incoming = Some(facts);
        }
        if here.is_some() || matches!(goal, Goal::Absent { .. }) {
            for at in self.claims.iter().filter(|c| Some(*c) != here.as_ref()) {
                let client = self.place(&at.uid).map(|(p, service)| {
                    let look = self.at(&p.identity, service, want.adopt, &seen);
                    let client = self.registered(service, &look);
                    Elsewhere { identity: p.identity, caps: p.caps, at: look, client }
                });
                let identity = self.providers.get(&at.uid).map(|p| Self::identity(&at.uid, p.0));
                seen.elsewhere.push(PlaceFacts { claim: at.clone(), identity, client });
            }
        }
        seen.strays = strays;
        if matches!(goal, Goal::Present(_)) {
            seen.strays.retain(|s| s.name != want.secret);
        }
        seen
    }

    pub(super) fn time(&self) -> Timestamp {
        Timestamp::from_second(self.now).expect("a time")
    }

    /// One pass, which ends after `most` effects as if the operator was killed there. Says whether
    /// there was anything to do, and what stands in the way.
    pub(super) fn pass(&mut self, want: &Want, most: usize) -> (usize, Option<Problem>) {
        self.reply = None;
        let seen = self.observe(want);
        let decision = decide(&want.goal(), &seen, self.time());
        let plan = decision.plan;
        let names = plan.names();
        if let Some(at) = names.iter().position(|n| *n == "Finish") {
            assert_eq!(at, names.len() - 1, "Finish comes last: {names:?}");
        }
        if matches!(want.goal(), Goal::Present(_)) {
            assert!(!names.contains(&"Finish") && !names.contains(&"ReleaseSecret"), "{names:?}");
        }
        let mut left = most;
        let mut verdict = plan.incoming.as_ref().map_or(Ok(()), |p| p.verdict.clone());
        let part = plan.incoming.iter().flat_map(|p| &p.effects);
        for (closing, effect) in
            plan.opening.iter().chain(part).map(|e| (false, e)).chain(plan.closing.iter().map(|e| (true, e)))
        {
            if closing && verdict.is_err() {
                break;
            }
            if left == 0 {
                return (names.len(), None);
            }
            left -= 1;
            if let Err(problem) = self.apply(effect) {
                verdict = Err(problem);
                if closing {
                    break;
                }
            }
        }
        // A pass that came to its end writes the status.
        if let Some(view) = &decision.incoming {
            self.last = LastSecret {
                serial: self.last.serial.max(view.serial),
                since: view.since,
                previous_until: view.previous_until.unwrap_or_default(),
                request: view.request.clone(),
                deletes: view.deletion_once_written == Some(Deletion::Delete),
            };
        }
        (names.len(), verdict.err().or(plan.pending))
    }

    /// Passes until one has nothing to do.
    pub(super) fn settle(&mut self, want: &Want) -> Option<Problem> {
        for _ in 0..12 {
            let (effects, problem) = self.pass(want, usize::MAX);
            if effects == 0 || self.finished {
                return problem;
            }
        }
        panic!("no fixpoint: {:?}", decide(&want.goal(), &self.observe(want), self.time()).plan.names());
    }

    pub(super) fn ours(&self) -> Vec<&'static str> {
        let ours = |h: &Held| h.owner.as_ref().is_some_and(|o| o.uid == self.uid);
        self.clients.iter().filter(|(_, h)| ours(h)).map(|((s, _), _)| *s).collect()
    }

    /// Whether the Secret's own values open the provider.
    pub(super) fn works(&self, want: &Want) -> bool {
        let Some(kept) = self.secrets.get(want.secret) else { return false };
        let Ok((_, service)) = self.place(&want.provider) else { return false };
        let id = if want.renamed_key { "CLIENT_ID" } else { "client-id" };
        let Some(held) = kept.data.get(id).and_then(|id| self.clients.get(&(service, id.clone()))) else {
            return false;
        };
        // A public client has no secret; what somebody else put there is theirs.
        if want.public {
            return held.secret.is_none();
        }
        let before = held.previous.as_ref().filter(|(_, until)| *until > self.now).map(|(p, _)| p);
        let has = kept.data.get("client-secret");
        has.is_some() && (held.secret.as_ref() == has || before == has)
    }

    /// A client that a person clicked together.
    pub(super) fn put_clicked(&mut self, service: &'static str) {
        let Goal::Present(link) = Want::new().goal() else { return };
        let metadata = link.incoming.expect("incoming").metadata;
        let version = self.next();
        let secret = Some("clicked-secret".into());
        let held = Held { metadata, secret, previous: None, owner: None, tag: String::new(), version };
        self.clients.insert((service, "clicked".into()), held);
    }

    /// Somebody else's client stands under our identifier.
    pub(super) fn put_foreign(&mut self, service: &'static str) {
        let id = Self::id(service);
        let identity = Self::service(service);
        let owner = Owner {
            installation: "theirs".into(),
            namespace: NAMESPACE.into(),
            namespace_uid: "ns".into(),
            name: LINK.into(),
            uid: self.uid.clone(),
            serial: 1,
            since: 0,
            previous_until: 0,
            request: String::new(),
            mark: String::new(),
            deletion: None,
        };
        let at = OwnerMark { provider: &identity, client_id: id.as_str() };
        let owner = owner.signed(&keys("theirs"), at, Deletion::Delete);
        let Goal::Present(link) = Want::new().goal() else { return };
        let metadata = link.incoming.expect("incoming").metadata;
        let version = self.next();
        self.clients.insert(
            (service, id.to_string()),
            Held { metadata, secret: None, previous: None, owner: Some(owner), tag: String::new(), version },
        );
    }
}

/// A link that is settled, and a moment later.
pub(super) fn settled(want: &Want) -> World {
    let mut world = World::new();
    assert_eq!(world.settle(want), None);
    world.now += 10;
    world
}
