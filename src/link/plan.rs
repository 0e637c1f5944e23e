//! What is to be done, as data. A plan names every write, in order, so a test can stop after each.
//! Pure.

use super::claim::Claim;
use super::content::{Data, SecretGoal};
use super::facts::SecretId;
use super::grant::{Access, Grant, Kept};
use super::kept_client::KeptClient;
use super::problem::Problem;
use crate::domain::{AuthMethod, ClientId, ScopeSet, SecretString};
use crate::outgoing::{BearerAssertion, ClientCredentials, Dialect, Grace};
use crate::provider::{ClientRef, PutClient, Registered};
use std::collections::BTreeMap;
use std::fmt;
use url::Url;

/// One write (or one proof); everything that a plan can do.
#[derive(Clone)]
pub enum Effect {
    /// Finalizer and annotation onto the link, before anything else.
    Claim(Vec<Claim>),
    /// The client, at the provider.
    PutClient(Claim, Box<PutClient>),
    /// What is kept of the client at the provider of this identity, before the next call to it.
    KeepClient(String, Box<KeepClient>),
    /// What is kept of the client at the provider of this identity goes.
    ForgetClient(String),
    /// The API server says whether it would take this Secret; nothing is written. Asked before what stands
    /// at a provider changes, since a secret that can't be written is a secret that nobody has.
    RehearseSecret(Box<SecretWrite>),
    /// The status says that the credentials will not work for a moment, before they don't.
    Announce(Problem),
    /// The credentials must authenticate, or the rest of the part isn't done.
    Prove(Claim, ClientId, SecretString, AuthMethod),
    /// The Secret with the client's credentials.
    WriteSecret(Box<SecretWrite>),
    /// A grant, made or replaced.
    SaveGrant(Box<Grant>, Option<String>),
    /// The intent to spend the refresh token.
    BeginRefresh(String),
    /// The token request.
    RequestToken(Box<TokenPlan>),
    /// The reply, kept before anything uses it.
    KeepReply,
    /// The Secret with the access token.
    PublishToken(Box<Publication>),
    /// The client goes.
    Unregister(Claim, ClientRef, Option<String>),
    /// The grant is revoked at the server.
    Revoke(Box<Grant>),
    /// A grant that another one took the place of is revoked at its server, if that answers now.
    GiveBack(Box<Grant>),
    /// The grant's record goes.
    DropGrant,
    /// The record of a consent goes, of this version.
    DropConsent(String),
    /// One of our Secrets goes.
    DeleteSecret(SecretId),
    /// One of our Secrets stays, without our mark.
    ReleaseSecret(SecretId),
    /// The link's claims are cut down to these.
    Unclaim(Vec<Claim>),
    /// The finalizer goes; last.
    Finish,
}

impl Effect {
    /// Its name, for logs: never a value.
    pub const fn name(&self) -> &'static str {
        match self {
            Self::Claim(_) => "Claim",
            Self::PutClient(..) => "PutClient",
            Self::KeepClient(..) => "KeepClient",
            Self::ForgetClient(_) => "ForgetClient",
            Self::RehearseSecret(_) => "RehearseSecret",
            Self::Announce(_) => "Announce",
            Self::Prove(..) => "Prove",
            Self::WriteSecret(_) => "WriteSecret",
            Self::SaveGrant(..) => "SaveGrant",
            Self::BeginRefresh(_) => "BeginRefresh",
            Self::RequestToken(_) => "RequestToken",
            Self::KeepReply => "KeepReply",
            Self::PublishToken(_) => "PublishToken",
            Self::Unregister(..) => "Unregister",
            Self::Revoke(_) => "Revoke",
            Self::GiveBack(_) => "GiveBack",
            Self::DropGrant => "DropGrant",
            Self::DropConsent(_) => "DropConsent",
            Self::DeleteSecret(_) => "DeleteSecret",
            Self::ReleaseSecret(_) => "ReleaseSecret",
            Self::Unclaim(_) => "Unclaim",
            Self::Finish => "Finish",
        }
    }
}

impl fmt::Debug for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A Secret to write.
#[derive(Debug, Clone)]
pub struct SecretWrite {
    /// Its name.
    pub name: String,
    /// Its type.
    pub type_: String,
    /// All labels that we keep on it.
    pub labels: BTreeMap<String, String>,
    /// All annotations that we keep on it.
    pub annotations: BTreeMap<String, String>,
    /// The data.
    pub data: Data,
    /// `None`: there is none, so create it, and fail if somebody else was faster.
    pub over: Option<Over>,
}

/// A Secret of ours that is there.
#[derive(Debug, Clone)]
pub struct Over {
    /// Its UID.
    pub uid: String,
    /// Its version; a change since then fails the write.
    pub resource_version: String,
    /// Data keys that we wrote once and don't want any more.
    pub drop_keys: Vec<String>,
    /// Labels, likewise.
    pub drop_labels: Vec<String>,
    /// Annotations, likewise.
    pub drop_annotations: Vec<String>,
    /// Owners that leave it to this link, by their UIDs.
    pub drop_owners: Vec<String>,
}

/// What to keep of a client.
#[derive(Debug, Clone)]
pub struct KeepClient {
    /// As far as it is known when the plan is made.
    pub known: KeptClient,
    /// Whether the answer to the put just before says the rest.
    pub from_reply: bool,
}

impl KeepClient {
    /// With what the provider answered. A secret that it picked is another one than before.
    pub fn with(&self, reply: &Registered) -> KeptClient {
        let mut kept = self.known.clone();
        kept.id = reply.id.to_string();
        if let Some(handle) = &reply.handle {
            kept.handle = Some(Kept(handle.clone()));
        }
        if let Some(secret) = &reply.secret {
            let secret = Kept(secret.clone());
            if kept.secret.as_ref().is_some_and(|s| *s != secret) {
                kept.serial += 1;
            }
            kept.secret = Some(secret);
            kept.secret_expires_at = reply.secret_expires_at;
        }
        kept
    }
}

/// A token request.
#[derive(Debug, Clone)]
pub struct TokenPlan {
    /// Where to.
    pub endpoint: Url,
    /// Who we are.
    pub client: Option<ClientCredentials>,
    /// The scopes to ask for.
    pub scopes: ScopeSet,
    /// What entitles us.
    pub by: AskBy,
    /// How the server speaks.
    pub dialect: Dialect,
    /// What a refresh token gives that was spent by a request whose answer was lost.
    pub grace: Grace,
    /// What the token is asked for with.
    pub fingerprint: String,
    /// What a person does when the server declares the grant dead.
    pub way_out: String,
}

/// What entitles us to a token.
#[derive(Debug, Clone)]
pub enum AskBy {
    /// Our own credentials.
    ClientCredentials,
    /// The grant's refresh token, which it may spend.
    RefreshToken,
    /// An assertion of our own.
    JwtBearer(Box<BearerAssertion>),
}

/// A token to publish: the reply's, or the grant's kept one.
#[derive(Debug, Clone)]
pub struct Publication {
    /// The Secret as the user wants it.
    pub goal: SecretGoal,
    /// What stands under `provider`.
    pub provider: &'static str,
    /// The labels and annotations that stand on every Secret of the link.
    pub labels: BTreeMap<String, String>,
    /// The token; `None` for the reply's.
    pub token: Option<Access>,
    /// `None`: create it.
    pub over: Option<Over>,
}

/// One part of a plan: its effects, and what holds once they are done.
#[derive(Debug, Clone)]
pub struct Part {
    /// In order; the first that fails ends the part.
    pub effects: Vec<Effect>,
    /// Whether the part is as it should be once the effects are done.
    pub verdict: Result<(), Problem>,
    /// What the client was, put back where the Secret with its new secret can't be written all the same,
    /// and nothing works on beside that.
    pub undo: Option<(Claim, Box<PutClient>)>,
    /// Only a step: what comes next depends on what the other side answers, so all is looked at
    /// again at once.
    pub again: bool,
}

impl Part {
    /// Nothing to do, and all is well.
    pub const fn settled() -> Self {
        Self { effects: Vec::new(), verdict: Ok(()), undo: None, again: false }
    }

    /// Nothing can be done now.
    pub const fn blocked(problem: Problem) -> Self {
        Self { effects: Vec::new(), verdict: Err(problem), undo: None, again: false }
    }
}

/// What is to be done in one pass.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// First; when it fails, nothing else is done.
    pub opening: Vec<Effect>,
    /// The incoming part.
    pub incoming: Option<Part>,
    /// The outgoing part; independent of the incoming one.
    pub outgoing: Option<Part>,
    /// Last, and only when both parts went well.
    pub closing: Vec<Effect>,
    /// What is left to do that can't be done now, though both parts are as they should be: the
    /// place that a link moved away from doesn't answer, or a deletion has to wait.
    pub pending: Option<Problem>,
    /// The closing effects are tried, and what can't be done is left: a forced deletion.
    pub best_effort: bool,
}

impl Plan {
    /// Whether a part of it is only a step.
    pub fn again(&self) -> bool {
        self.incoming.iter().chain(&self.outgoing).any(|p| p.again)
    }

    /// The names of the effects, in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.effects().map(Effect::name).collect()
    }

    /// The effects, in order.
    pub fn effects(&self) -> impl Iterator<Item = &Effect> {
        let parts = self.incoming.iter().chain(&self.outgoing).flat_map(|p| &p.effects);
        self.opening.iter().chain(parts).chain(&self.closing)
    }
}
