//! What stands between a link and Ready, as a condition shows it. Pure.

use crate::domain::Reason;
use crate::domain::text::cut;
use crate::outgoing::{DiscoveryError, ErrorClass, TokenError};
use crate::provider::ProviderError;
use std::time::Duration;

/// Who can mend it, and when to look again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// A person must edit something: `Stalled`.
    Edit,
    /// It may pass, or an object may appear: `Reconciling`, tried again with back-off.
    Wait,
    /// Sent and not answered: the same again after 1, 3 and 10 seconds, then as `Wait`.
    Unanswered,
    /// Somebody else wrote at the same moment: tried again at once.
    Conflict,
}

/// Why a part of a link isn't as it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The machine reason of the condition, from the list of all.
    pub why: Reason,
    /// Its word.
    pub reason: &'static str,
    /// What is wrong and what to do. Holds no secret, and of what a server wrote a few names at most.
    pub message: String,
    /// Who can mend it.
    pub mend: Mend,
    /// How long the other side asked us to wait.
    pub retry_after: Option<Duration>,
}

impl Problem {
    /// A person must edit something.
    pub fn edit(why: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self::new(why.into(), message.into(), Mend::Edit)
    }

    /// It may pass.
    pub fn wait(why: impl Into<Reason>, message: impl Into<String>) -> Self {
        Self::new(why.into(), message.into(), Mend::Wait)
    }

    /// Somebody else wrote at the same moment.
    pub fn conflict(what: &str) -> Self {
        let message = format!("{what} was changed at the same moment; it is looked at again");
        Self::new(Reason::Conflict, message, Mend::Conflict)
    }

    fn new(why: Reason, message: String, mend: Mend) -> Self {
        Self { why, reason: why.as_str(), message: cut(message), mend, retry_after: None }
    }

    /// The same under another reason.
    #[must_use]
    pub fn called(self, why: Reason) -> Self {
        Self { why, reason: why.as_str(), ..self }
    }

    /// An answer of the API server that we have no other use for.
    pub fn kube(what: &str, e: &kube::Error) -> Self {
        match e {
            kube::Error::Api(s) if s.code == 409 => Self::conflict(what),
            kube::Error::Api(s) if s.code == 403 => Self::wait(
                Reason::Forbidden,
                format!(
                    "the operator may not write {what}; check its RBAC, the namespace's quota, and whether it is being deleted"
                ),
            ),
            kube::Error::Api(s) if matches!(s.code, 400 | 413 | 422) => Self::edit(
                Reason::RefusedByApiServer,
                format!(
                    "the API server refuses {what} as it should be written (HTTP {}, {}{})",
                    s.code,
                    known(&s.reason),
                    fields(s)
                ),
            ),
            kube::Error::Api(s) => Self::wait(
                Reason::ApiServerError,
                format!("the API server answers HTTP {} for {what}; it is tried again", s.code),
            ),
            _ => Self::wait(
                Reason::ApiServerUnreachable,
                format!("the API server didn't answer for {what}; it is tried again"),
            ),
        }
    }
}

/// The fields that the API server names. What it says of them may hold what stands in them.
fn fields(status: &kube::core::Status) -> String {
    const MOST: usize = 3;
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-/[]".contains(c);
    let causes = status.details.iter().flat_map(|d| &d.causes);
    let named: Vec<&str> = causes
        .map(|c| c.field.as_str())
        .filter(|f| !f.is_empty() && f.len() <= 120 && f.chars().all(plain))
        .take(MOST)
        .collect();
    if named.is_empty() { String::new() } else { format!(": {}", named.join(", ")) }
}

fn known(reason: &str) -> &str {
    const REASONS: &[&str] = &[
        "Invalid",
        "BadRequest",
        "RequestEntityTooLarge",
        "FieldValueInvalid",
        "Forbidden",
        "AlreadyExists",
    ];
    REASONS.iter().find(|r| **r == reason).copied().unwrap_or("no known reason")
}

impl From<&ProviderError> for Problem {
    fn from(e: &ProviderError) -> Self {
        let mend = match e {
            ProviderError::Conflict => Mend::Conflict,
            e if e.is_terminal() => Mend::Edit,
            _ => Mend::Wait,
        };
        Self { retry_after: e.retry_after(), ..Self::new(e.why(), e.to_string(), mend) }
    }
}

impl Problem {
    /// The server declared the grant dead with this code; `way_out` is what a person does about it.
    pub fn dead_grant(code: &str, way_out: &str) -> Self {
        Self::edit(
            Reason::ReauthorizationRequired,
            format!("the server no longer accepts the refresh token ({code}); {way_out}"),
        )
    }
}

impl From<&TokenError> for Problem {
    fn from(e: &TokenError) -> Self {
        let mend = match e.class() {
            ErrorClass::DeadGrant | ErrorClass::BadClient | ErrorClass::NeedsEdit => Mend::Edit,
            ErrorClass::BackOff | ErrorClass::NotSent => Mend::Wait,
            ErrorClass::Unanswered => Mend::Unanswered,
        };
        Self { retry_after: e.retry_after(), ..Self::new(e.why(), e.to_string(), mend) }
    }
}

impl From<&DiscoveryError> for Problem {
    fn from(e: &DiscoveryError) -> Self {
        let mend = if e.is_transient() { Mend::Wait } else { Mend::Edit };
        Self { retry_after: e.retry_after(), ..Self::new(e.why(), e.to_string(), mend) }
    }
}
