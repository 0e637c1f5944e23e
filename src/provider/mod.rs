//! The port to a provider service, and an adapter a file.
//!
//! Only `link::observe` and `link::execute` call a provider. An adapter knows its service's API
//! and nothing of Kubernetes: it is given an address, a credential and a client, and gives back
//! facts. What a service can't do is said by [`Capabilities`], not by an error halfway.

pub mod bitbucket;
pub mod bundled;
pub mod hydra;
pub mod keycloak;
mod proof;
pub mod registration;
mod wire;

use crate::domain::{
    AuthMethod, ClientId, ClientMetadata, ExposeSecret as _, GrantType, Owner, Reason, ScopeSet, SecretString,
};
use crate::http::RefusedReason;
use async_trait::async_trait;
use std::collections::BTreeSet;
use std::fmt;
use std::time::Duration;

/// A running provider service that owns OAuth clients.
///
/// Every call is one attempt: nothing in an adapter tries again what may have happened. A call
/// that gives back a new [`RegisteredClient::handle`] or [`Registered::handle`] has made the one
/// before worthless, so the caller keeps it before the next call.
#[async_trait]
pub trait Provider: Send + Sync {
    /// What the service can do.
    fn capabilities(&self) -> Capabilities;
    /// Asks the service who it is; also the check that our credential is taken.
    async fn info(&self) -> Result<ProviderInfo, ProviderError>;
    /// The client, if there is one.
    async fn get(&self, at: &ClientRef) -> Result<Option<RegisteredClient>, ProviderError>;
    /// Makes the client be as told: creates it or converges it. Idempotent where
    /// [`Capabilities::chooses_id`].
    async fn put(&self, put: &PutClient) -> Result<Registered, ProviderError>;
    /// Removes the client and its tokens; one that isn't there is no error.
    async fn delete(&self, at: &ClientRef, version: Option<&str>) -> Result<(), ProviderError>;
    /// A page of all clients, from the start or from [`Page::next`]; an error where the service
    /// doesn't list ([`Capabilities::lists`]).
    async fn list(&self, after: Option<&str>) -> Result<Page, ProviderError>;
    /// Whether the credentials authenticate at the token endpoint.
    async fn prove(
        &self,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        method: AuthMethod,
    ) -> Proof;
    /// The addresses that the service named of itself and that the operator's own login goes to, known
    /// after [`Self::info`].
    fn registration_endpoints(&self) -> Vec<url::Url> {
        Vec::new()
    }
    /// Waits for changes that others made since `after`, for half a minute at most; an error where
    /// the service doesn't tell ([`Capabilities::tells_changes`]). `None` asks where to begin.
    async fn changes(&self, after: Option<&str>) -> Result<Changes, ProviderError> {
        let _ = after;
        Err(ProviderError::Unsupported { what: "telling of changes" })
    }
}

/// What a provider service can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(clippy::struct_excessive_bools, reason = "a table of independent facts")]
pub struct Capabilities {
    /// We choose the client identifier, so a client is found again by it, and a repeated creation
    /// makes no second one.
    pub chooses_id: bool,
    /// We choose the secret, so it can be derived and never has to be kept.
    pub chooses_secret: bool,
    /// The secret can be read back.
    pub reads_secret: bool,
    /// A new secret can be had for a client that is there.
    pub rotates: bool,
    /// The secret before goes on working for a while beside the new one.
    pub overlaps: bool,
    /// All clients can be listed.
    pub lists: bool,
    /// The owner record stands at the client.
    pub tells_owner: bool,
    /// Wrong credentials can be told from right ones.
    pub proves: bool,
    /// Changes that others make are told, and not only found.
    pub tells_changes: bool,
    /// The service may end a secret by itself, at a time that it says.
    pub expires_secret: bool,
    /// The tokens of a client can be revoked together.
    pub revokes_tokens: bool,
}

/// Who a provider service says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderInfo {
    /// Another one at each start of the service; empty where the service doesn't say.
    pub instance: String,
    /// Its issuer (RFC 8414).
    pub issuer: String,
    /// Its authorization endpoint, where it has one.
    pub authorization_endpoint: Option<String>,
    /// Its token endpoint.
    pub token_endpoint: String,
    /// Its revocation endpoint (RFC 7009), by which credentials are proved.
    pub revocation_endpoint: Option<String>,
    /// The scopes that it offers; `None` where it takes any, or doesn't say.
    pub scopes: Option<ScopeSet>,
    /// The grant types that a client may have there; `None` for all that we know.
    pub grant_types: Option<BTreeSet<GrantType>>,
    /// The grant types that its endpoints serve, whatever a client may be registered with; `None` where it doesn't
    /// say.
    pub served: Option<BTreeSet<GrantType>>,
    /// The authentication methods that a client may have there; `None` for all that we know.
    pub auth_methods: Option<BTreeSet<AuthMethod>>,
    /// Whether every client must have a redirect URI.
    pub redirect_required: bool,
}

/// A client by what is known of it.
#[derive(Debug, Clone)]
pub struct ClientRef {
    /// Its identifier. Where the service chooses that, and no handle is there: the name by which
    /// the client is found again, the same whenever it is derived.
    pub id: ClientId,
    /// What the service gave us for it at an earlier call, as the adapter wrote it.
    pub handle: Option<SecretString>,
}

/// A client as it stands at the provider.
#[derive(Debug, Clone)]
pub struct RegisteredClient {
    /// Its identifier at the provider.
    pub id: ClientId,
    /// What it is registered with; `None` where it has values that we would never write, or is
    /// disabled.
    pub metadata: Option<ClientMetadata>,
    /// Whether the provider holds a secret for it.
    pub has_secret: bool,
    /// The secret, where it can be read.
    pub secret: Option<SecretString>,
    /// When the provider ends the secret by itself (seconds since 1970).
    pub secret_expires_at: Option<i64>,
    /// Whether an earlier secret works beside the present one.
    pub has_previous: bool,
    /// Whose it is, as recorded; not yet verified.
    pub owner: Option<Owner>,
    /// Part of the service itself, or the client that the operator logs in with: never touched.
    pub protected: bool,
    /// The version to make a change conditional on.
    pub version: Option<String>,
    /// To be kept in place of [`ClientRef::handle`] before the next call; `None`: as it was.
    pub handle: Option<SecretString>,
}

/// The secret that a client should have.
#[derive(Clone)]
pub enum PutSecret {
    /// None: a public client.
    Public,
    /// This one.
    Chosen {
        /// The secret.
        secret: SecretString,
        /// Whether it has the 256 bits of a derived one, so that a fast hash is enough.
        derived: bool,
        /// The one before, which is to go on working; `None`: it ends at once.
        previous: Option<Previous>,
    },
    /// The one that is there.
    Kept,
    /// A new one that the provider picks.
    Fresh,
}

/// The secret before the present one.
#[derive(Clone)]
pub struct Previous {
    /// The secret.
    pub secret: SecretString,
    /// Until when it is to work (seconds since 1970).
    pub until: i64,
}

impl fmt::Debug for Previous {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Previous").field("until", &self.until).finish_non_exhaustive()
    }
}

impl fmt::Debug for PutSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Public => "Public",
            Self::Chosen { previous: None, .. } => "Chosen",
            Self::Chosen { .. } => "Chosen beside the previous one",
            Self::Kept => "Kept",
            Self::Fresh => "Fresh",
        })
    }
}

/// A client as it should stand at the provider.
#[derive(Debug, Clone)]
pub struct PutClient {
    /// Which.
    pub at: ClientRef,
    /// What it is registered with.
    pub metadata: ClientMetadata,
    /// Its secret.
    pub secret: PutSecret,
    /// Whose it is.
    pub owner: Owner,
    /// Whether a client was seen there, which is changed; else one is made.
    pub exists: bool,
    /// Only if the client still has this version, where the service knows versions.
    pub version: Option<String>,
    /// Its tokens end too.
    pub revoke_tokens: bool,
}

/// What became of a put.
#[derive(Debug, Clone)]
pub struct Registered {
    /// The client's identifier at the provider.
    pub id: ClientId,
    /// The secret, where the provider picked it and told it now.
    pub secret: Option<SecretString>,
    /// When the provider ends that secret by itself (seconds since 1970).
    pub secret_expires_at: Option<i64>,
    /// To be kept in place of [`ClientRef::handle`] before the next call; `None`: as it was.
    pub handle: Option<SecretString>,
}

/// The longest client secret that is kept, in bytes.
pub const MAX_CLIENT_SECRET: usize = 4096;

impl Registered {
    /// The answer, if its secret isn't longer than is kept.
    ///
    /// # Errors
    /// [`ProviderError::TooLong`].
    pub fn kept_whole(self) -> Result<Self, ProviderError> {
        let (what, most) = ("client secret", MAX_CLIENT_SECRET);
        let fits = self.secret.as_ref().is_none_or(|s| s.expose_secret().len() <= most);
        fits.then_some(self).ok_or(ProviderError::TooLong { what, most })
    }

    /// The answer of a service where we choose both identifier and secret.
    pub fn chosen(id: &ClientId) -> Self {
        Self { id: id.clone(), secret: None, secret_expires_at: None, handle: None }
    }
}

/// Some of a provider's clients.
#[derive(Debug, Clone)]
pub struct Page {
    /// The clients; those that can't be read as ours have no `metadata`.
    pub clients: Vec<RegisteredClient>,
    /// What [`Provider::list`] goes on after; `None`: this was the last page.
    pub next: Option<String>,
}

/// What others changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changes {
    /// What to go on after.
    pub next: String,
    /// Something may have been missed: all clients are to be looked at.
    pub reset: bool,
    /// The clients that were changed or deleted.
    pub clients: Vec<ClientId>,
}

/// What a proof of credentials gave.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// The provider took them.
    Authenticated,
    /// The provider refused them.
    Refused,
    /// The provider gave no answer that means either.
    Unproved,
}

/// Why a provider didn't do what it was asked. Holds nothing that the provider wrote but known
/// codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProviderError {
    /// No connection, or no answer. It may have happened all the same.
    #[error("{url} can't be reached: {why}")]
    Unreachable {
        /// The address, without query.
        url: String,
        /// What went wrong, from our side of the wire.
        why: String,
    },
    /// The policy forbids the call; nothing was sent.
    #[error("{url} isn't called: {why}")]
    Refused {
        /// The address, without query.
        url: String,
        /// Which rule forbids it.
        why: RefusedReason,
    },
    /// 401 or 403: our own credential isn't taken.
    #[error(
        "{url} refuses the operator's credential (HTTP {status}); check the provider's credential Secret"
    )]
    Unauthorized {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
    },
    /// The provider refuses what the client should be.
    #[error("the provider refuses the client ({code}); {hint}")]
    Rejected {
        /// A code that we know.
        code: &'static str,
        /// What to do.
        hint: &'static str,
    },
    /// A client with this identifier belongs to somebody else.
    #[error("a client with this identifier exists already and belongs to another owner; it is left alone")]
    ForeignOwner,
    /// The client changed between our look and our write.
    #[error("the client was changed at the same moment; it is looked at again")]
    Conflict,
    /// [`Capabilities`] says that the service can't.
    #[error("{what} isn't something that this provider service can do")]
    Unsupported {
        /// What was asked for.
        what: &'static str,
    },
    /// 429 or 503 with a wait.
    #[error("the provider asks to wait (HTTP {status})")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// What would have to be kept of a client is too long to keep.
    #[error(
        "the provider's {what} is longer than the {most} bytes that are kept of it; have whoever runs the provider make it \
         shorter, and remove the client there"
    )]
    TooLong {
        /// What.
        what: &'static str,
        /// How many bytes are kept.
        most: usize,
    },
    /// An answer that this provider shouldn't give.
    #[error("{url} answers {}, which the operator has no use for: {why}", http(*status))]
    Unexpected {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What was wrong with it.
        why: &'static str,
    },
}

/// The status of an answer; 0 where it wasn't read so far.
fn http(status: u16) -> String {
    if status == 0 { "something".to_owned() } else { format!("HTTP {status}") }
}

impl ProviderError {
    /// The reason of a condition.
    pub fn why(&self) -> Reason {
        match self {
            Self::Unreachable { .. } => Reason::ProviderUnreachable,
            Self::Refused { .. } => Reason::AddressRefused,
            Self::Unauthorized { .. } => Reason::ProviderUnauthorized,
            Self::Rejected { .. } => Reason::ClientRejected,
            Self::ForeignOwner => Reason::ClientConflict,
            Self::Conflict => Reason::Conflict,
            Self::Unsupported { .. } => Reason::Unsupported,
            Self::Busy { .. } => Reason::ProviderBusy,
            Self::TooLong { .. } => Reason::ReplyTooLarge,
            Self::Unexpected { .. } => Reason::ProviderError,
        }
    }

    /// Its word.
    pub fn reason(&self) -> &'static str {
        self.why().as_str()
    }

    /// Whether only a person can mend it, by an edit of the link or of the provider.
    pub fn is_terminal(&self) -> bool {
        matches!(
            self,
            Self::Rejected { .. }
                | Self::ForeignOwner
                | Self::Refused { .. }
                | Self::Unsupported { .. }
                | Self::TooLong { .. }
        )
    }

    /// How long the provider asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
