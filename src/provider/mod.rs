//! The port to a provider service, and an adapter a file.
//!
//! Only `link::observe` and `link::execute` call a provider. An adapter knows its service's API
//! and nothing of Kubernetes: it is given an address, a credential and a client, and gives back
//! facts. What a service can't do is said by [`Capabilities`], not by an error halfway.

pub mod bundled;

use crate::domain::{AuthMethod, ClientId, ClientMetadata, Owner, ScopeSet, SecretString};
use crate::http::RefusedReason;
use futures::future::BoxFuture;
use std::fmt;
use std::time::Duration;

/// A running provider service that owns OAuth clients.
pub trait Provider: Send + Sync {
    /// What the service can do.
    fn capabilities(&self) -> Capabilities;
    /// Asks the service who it is; also the check that our credential is taken.
    fn info(&self) -> BoxFuture<'_, Result<ProviderInfo, ProviderError>>;
    /// The client with this identifier, if there is one.
    fn get<'a>(&'a self, id: &'a ClientId) -> BoxFuture<'a, Result<Option<RegisteredClient>, ProviderError>>;
    /// Makes the client be as told: creates it or converges it. Idempotent.
    fn put<'a>(&'a self, put: &'a PutClient) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// Removes the client and its tokens; one that isn't there is no error.
    fn delete<'a>(
        &'a self,
        id: &'a ClientId,
        version: Option<&'a str>,
    ) -> BoxFuture<'a, Result<(), ProviderError>>;
    /// Whether the credentials authenticate at the token endpoint.
    fn prove<'a>(
        &'a self,
        info: &'a ProviderInfo,
        id: &'a ClientId,
        secret: &'a SecretString,
        method: AuthMethod,
    ) -> BoxFuture<'a, Proof>;
}

/// What a provider service can do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// We choose the client identifier and the secret, so both can be derived.
    pub chosen_credentials: bool,
}

/// Who a provider service says it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProviderInfo {
    /// Another one at each start of the service.
    pub instance: String,
    /// Its issuer (RFC 8414).
    pub issuer: String,
    /// Its authorization endpoint, where it has one.
    pub authorization_endpoint: Option<String>,
    /// Its token endpoint.
    pub token_endpoint: String,
    /// Its revocation endpoint (RFC 7009), by which credentials are proved.
    pub revocation_endpoint: Option<String>,
    /// The scopes that it offers.
    pub scopes: ScopeSet,
}

/// A client as it stands at the provider. Its secret doesn't come back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegisteredClient {
    /// What it is registered with; `None` where it has values that we would never write.
    pub metadata: Option<ClientMetadata>,
    /// Whether the provider holds a secret for it.
    pub has_secret: bool,
    /// Whose it is, as recorded; not yet verified.
    pub owner: Option<Owner>,
    /// The version to make a change conditional on.
    pub version: Option<String>,
}

/// A client as it should stand at the provider.
#[derive(Clone)]
pub struct PutClient {
    /// Its identifier.
    pub id: ClientId,
    /// What it is registered with.
    pub metadata: ClientMetadata,
    /// Its secret, derived; `None` for a public client.
    pub secret: Option<SecretString>,
    /// Whose it is.
    pub owner: Owner,
    /// Only if the client still has this version; `None`: only if that needs no takeover.
    pub version: Option<String>,
}

impl fmt::Debug for PutClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PutClient")
            .field("id", &self.id)
            .field("metadata", &self.metadata)
            .field("secret", &self.secret.as_ref().map(|_| "[redacted]"))
            .field("owner", &self.owner.name)
            .finish_non_exhaustive()
    }
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
    /// 429 or 503 with a wait.
    #[error("the provider asks to wait (HTTP {status})")]
    Busy {
        /// The HTTP status.
        status: u16,
        /// How long it asks to wait.
        retry_after: Option<Duration>,
    },
    /// An answer that this provider shouldn't give.
    #[error("{url} answers HTTP {status}, which the operator has no use for: {why}")]
    Unexpected {
        /// The address.
        url: String,
        /// The HTTP status.
        status: u16,
        /// What was wrong with it.
        why: &'static str,
    },
}

impl ProviderError {
    /// The machine reason of a condition.
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Unreachable { .. } => "ProviderUnreachable",
            Self::Refused { .. } => "AddressRefused",
            Self::Unauthorized { .. } => "ProviderUnauthorized",
            Self::Rejected { .. } => "ClientRejected",
            Self::ForeignOwner => "ClientConflict",
            Self::Conflict => "Conflict",
            Self::Busy { .. } => "ProviderBusy",
            Self::Unexpected { .. } => "ProviderError",
        }
    }

    /// Whether only a person can mend it, by an edit of the link or of the provider.
    pub fn is_terminal(&self) -> bool {
        matches!(self, Self::Rejected { .. } | Self::ForeignOwner | Self::Refused { .. })
    }

    /// How long the provider asks us to wait.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } => *retry_after,
            _ => None,
        }
    }
}
