//! What was found: the input of `decide`. Values alone; nothing here can do I/O.

use super::claim::Claim;
use super::consent::{Consent, Ticket};
use super::content::Data;
use super::grant::{Access, Grant};
use super::identity::Identity;
use super::kept_client::{KeptClient, KeptClients};
use super::lend::Lent;
use super::problem::Problem;
use crate::domain::{GrantType, KeyRing, SecretString};
use crate::outgoing::{BearerKey, ClientCredentials, ServerEndpoints};
use crate::provider::{Capabilities, ClientRef, Proof, ProviderInfo, RegisteredClient};
use jiff::Timestamp;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// All that was found about a link.
#[derive(Debug, Clone)]
pub struct Observed {
    /// The link's namespace.
    pub namespace: String,
    /// UID of that namespace.
    pub namespace_uid: String,
    /// The link's name.
    pub name: String,
    /// The link's UID.
    pub uid: String,
    /// Whether our finalizer stands on it.
    pub finalizer: bool,
    /// Where its client is, as recorded, and proven to be.
    pub claims: Vec<Claim>,
    /// Whether the annotation says just that, by the active key.
    pub claims_current: bool,
    /// What the status last said of the client's secret.
    pub last: LastSecret,
    /// What is kept of the link's clients, and the record's version.
    pub kept: Option<(KeptClients, String)>,
    /// The token endpoint that the author accepted after discovery moved it.
    pub accepted_endpoint: Option<String>,
    /// The installation's keys.
    pub keys: Result<Arc<KeyRing>, Problem>,
    /// For a link that has an incoming part.
    pub incoming: Option<IncomingFacts>,
    /// For a link that has an outgoing part.
    pub outgoing: Option<OutgoingFacts>,
    /// Places where a client is or may be and isn't wanted.
    pub elsewhere: Vec<PlaceFacts>,
    /// Our Secrets that aren't wanted any more.
    pub strays: Vec<SecretId>,
    /// The grant, also of a link that has no outgoing part any more.
    pub grant: Option<(Grant, String)>,
    /// The consent under way, likewise.
    pub consent: Option<(Consent, String)>,
    /// What stands on the link to begin a consent, if it can be read as such.
    pub ticket: Option<Ticket>,
    /// The code that stands on the link to complete one.
    pub completion: Option<String>,
}

impl Observed {
    /// What is kept of the client at the provider of this identity.
    pub fn kept_at(&self, identity: &Identity) -> Option<&KeptClient> {
        self.kept.as_ref().and_then(|(kept, _)| kept.at.get(&identity.own)).filter(|k| k.bound)
    }

    /// The identities whose marks are recognised at a provider that is wanted: its own, and those of the
    /// others of the same type and address, also of ones that the link leaves and that are gone. They may
    /// be the same service, named by another object: only the operator makes a mark, and it says which
    /// link's client it stands on.
    pub fn marks_at<'a>(&'a self, here: &'a Identity) -> Vec<&'a str> {
        let left = self.elsewhere.iter().filter_map(|e| e.identity.as_ref());
        let left = left.filter(|i| i.service == here.service).map(|i| i.own.as_str());
        let mut all = here.names();
        for own in here.namesakes.iter().map(String::as_str).chain(left) {
            if !all.contains(&own) {
                all.push(own);
            }
        }
        all
    }

    /// Whether a secret that was made for `made_for` may be sent to the provider that is wanted: not where
    /// the link leaves a provider that it may have been made for.
    pub fn may_have(&self, here: &Identity, made_for: &str) -> bool {
        let left =
            |p: &PlaceFacts| p.identity.as_ref().is_some_and(|i| i.own == made_for && i.own != here.own);
        here.may_have(made_for) && !self.elsewhere.iter().any(left)
    }

    /// The identities whose marks are recognised at a provider that isn't wanted. Where the wanted one
    /// may be the same service, a mark of that one's is not this one's.
    pub fn marks_left<'a>(&'a self, there: &'a Identity) -> Vec<&'a str> {
        let here =
            self.incoming.as_ref().and_then(|i| i.place.as_ref().ok()).map(|p| p.identity.own.as_str());
        there.names().into_iter().filter(|own| Some(*own) != here).collect()
    }
}

/// What the status last said of the client's secret: so that a provider that forgot everything
/// gets the same client again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LastSecret {
    /// The highest serial.
    pub serial: i64,
    /// When it began, in seconds since 1970; 0 for not said.
    pub since: i64,
    /// Until when the one before works, in seconds since 1970; 0 for not said.
    pub previous_until: i64,
    /// The last rotation request that was carried out.
    pub request: String,
    /// Whether the owner record at the provider says that the client goes with the link.
    pub deletes: bool,
}

/// A Secret to remove or to let go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct SecretId {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A provider that is there, answers, and may be used.
#[derive(Debug, Clone)]
pub struct Place {
    /// Which.
    pub claim: Claim,
    /// What identifiers, secrets and marks are made from.
    pub identity: Identity,
    /// The kind of provider service, such as `bundled`.
    pub type_: &'static str,
    /// Who it says it is.
    pub info: ProviderInfo,
    /// What it can do.
    pub caps: Capabilities,
    /// The clients there that the link's namespace may adopt.
    pub adoptable: Vec<String>,
    /// Whether a link may take over its client though its namespace was made anew.
    pub rebind: bool,
    /// What it restricts; `None` for a provider of one namespace.
    pub allow: Option<Restrictions>,
}

/// What a `ClusterLinkProvider` restricts.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Restrictions {
    /// The only scopes; `None` for all.
    pub scopes: Option<BTreeSet<String>>,
    /// The only hosts of redirect URIs; `None` for all.
    pub redirect_hosts: Option<Vec<String>>,
    /// The only grant types; `None` for all.
    pub grant_types: Option<BTreeSet<GrantType>>,
}

/// The provider side of an incoming part.
#[derive(Debug, Clone)]
pub struct IncomingFacts {
    /// The provider to use.
    pub place: Result<Place, Problem>,
    /// By what the client is looked for there; `None` while there is no place.
    pub at: Option<ClientRef>,
    /// The client there.
    pub client: Option<RegisteredClient>,
    /// The secret of a client to adopt, where the link says where it stands.
    pub adopt_secret: Option<Result<SecretString, Problem>>,
    /// Whether the credentials that we would write authenticate; `None` if that wasn't asked.
    pub proof: Option<Proof>,
    /// Whether the provider was seen to take right credentials and to refuse wrong ones: only then
    /// is a refusal worth giving a client up for.
    pub controlled: bool,
    /// The Secret.
    pub secret: SecretFact,
    /// Why the Secret couldn't be written with the new client secret that is due, as this pass found out.
    pub unwritable: Option<Problem>,
}

/// Another place, of a provider that isn't the wanted one.
#[derive(Debug, Clone)]
pub struct PlaceFacts {
    /// Which.
    pub claim: Claim,
    /// What it is, as far as that is known.
    pub identity: Option<Identity>,
    /// The client there; `Err` when it can't be asked.
    pub client: Result<Elsewhere, Problem>,
}

/// A client at a place that isn't the wanted one.
#[derive(Debug, Clone)]
pub struct Elsewhere {
    /// The place's identity.
    pub identity: Identity,
    /// What the place can do.
    pub caps: Capabilities,
    /// By what the client was looked for.
    pub at: ClientRef,
    /// The client.
    pub client: Option<RegisteredClient>,
}

/// A Secret of ours.
#[derive(Debug, Clone)]
pub struct OwnSecret {
    /// Its UID.
    pub uid: String,
    /// Its version.
    pub resource_version: String,
    /// Its type.
    pub type_: String,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Its data.
    pub data: Data,
    /// Whether the owner reference and our label stand as they should.
    pub marked: bool,
    /// Links that own it and leave it to this one, by their UIDs.
    pub drop_owners: Vec<String>,
    /// Data keys that we wrote.
    pub own_keys: BTreeSet<String>,
    /// Label keys that we wrote.
    pub own_labels: BTreeSet<String>,
    /// Annotation keys that we wrote.
    pub own_annotations: BTreeSet<String>,
}

/// A Secret by the name that a link wants to write.
#[derive(Debug, Clone)]
pub enum SecretFact {
    /// There is none.
    Absent,
    /// Ours.
    Own(Box<OwnSecret>),
    /// Not ours.
    Foreign(Problem),
    /// It couldn't be read.
    Unknown(Problem),
}

/// A token request that the server turned down: not sent again until it changes, or until the
/// server wants to be asked again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refused {
    /// What was asked for, and with what.
    pub fingerprint: String,
    /// Why there was no token.
    pub problem: Problem,
    /// When it may be sent again as it is; `None` for never.
    pub until: Option<Timestamp>,
    /// From when on it is for a person to mend, where that isn't so yet.
    pub stalls: Option<Timestamp>,
}

/// Who was at work before the operator instance that observes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Before {
    /// One that was may still be storing an answer.
    pub may_store: bool,
    /// The one that released the lease: it has nothing under way.
    pub released_by: Option<String>,
}

impl Before {
    /// Whether what this instance began may be under way still.
    pub fn may_have_begun(&self, holder: &str) -> bool {
        self.may_store && self.released_by.as_deref() != Some(holder)
    }
}

/// The other side of an outgoing part.
#[derive(Debug, Clone)]
pub struct OutgoingFacts {
    /// The server's endpoints.
    pub endpoints: Result<ServerEndpoints, Problem>,
    /// Our client there, if the link has one.
    pub client: Result<Option<ClientCredentials>, Problem>,
    /// The seed; `None` for grants without one.
    pub seed: Option<Result<SecretString, Problem>>,
    /// The key of the grant jwt-bearer; `None` for the others.
    pub bearer: Option<Result<BearerKey, Problem>>,
    /// The Secrets that something is read from.
    pub inputs: Vec<Lent>,
    /// Whether it must say some, for servers that a link names.
    pub require_allowed_hosts: bool,
    /// The Secret.
    pub secret: SecretFact,
    /// The request that was last turned down.
    pub refused: Option<Refused>,
    /// A refresh was sent whose answer was lost, and no token came since.
    pub doubt: bool,
    /// A token that was got and couldn't be published yet.
    pub in_hand: Option<Access>,
    /// The host was asked for leave to send a token request, and has no room for it now.
    pub in_line: bool,
    /// The least time between two refreshes of a link.
    pub min_refresh_interval: Duration,
    /// The operator instance that observes.
    pub holder: String,
    /// Who was at work before this instance.
    pub before: Before,
    /// Where people consent, for the grants that need it.
    pub desk: Option<Result<Desk, Problem>>,
}

/// Where people consent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Desk {
    /// The page that `applink authorize` opens.
    pub consent_uri: Url,
    /// The redirect URI (RFC 6749 section 3.1.2), for the grant `authorizationCode`.
    pub redirect_uri: Option<Url>,
}
