//! What a token endpoint's failures mean, and what to do about them.

use super::presets::{Dialect, Meaning};
use super::reply::{self, Malformed};
use crate::domain::Reason;
use crate::domain::text::known_error_code;
use crate::http::{BadHeader, NoAnswer, NotSent, RefusedReason, Response, SendError, json};
use serde_json::Value;
use std::time::Duration;

/// Why there is no token. Of what the server said, only known error codes and the status are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// The grant is gone. Only a person can give a new one.
    #[error("the server no longer accepts the grant ({code}); authorize the link again")]
    DeadGrant {
        /// What the server called it.
        code: &'static str,
    },
    /// The server doesn't accept the client's ID, secret or authentication method.
    #[error("the server doesn't accept the client's credentials{}; {}", Code(*code), check_client(*assertion))]
    BadClient {
        /// What the server called it, if it is known.
        code: Option<&'static str>,
        /// Whether an assertion of our own was sent, which hangs on clocks and keys.
        assertion: bool,
    },
    /// The server doesn't take the assertion that is the grant. It may tomorrow: the clocks differ,
    /// or the key isn't known there yet.
    #[error(
        "the server doesn't accept the assertion (invalid_grant); check that the operator's clock is right, that the \
         server knows the key, and issuer, subject and audience; it is tried again"
    )]
    AssertionRefused,
    /// The server refuses the request itself.
    #[error("the server refuses the request with status {status}{}; {}", Code(*code), remedy(*code, *status))]
    Rejected {
        /// What the server called it, if it is known.
        code: Option<&'static str>,
        /// The status.
        status: u16,
    },
    /// Too many requests.
    #[error("the server limits how often it may be asked; it is asked again later")]
    RateLimited {
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
    },
    /// The server has trouble of its own.
    #[error("the server has trouble of its own (status {status}{}); it is asked again later", Code(*code))]
    ServerFault {
        /// The status.
        status: u16,
        /// What the server called it, if it is known.
        code: Option<&'static str>,
        /// How long the server wants us to wait.
        retry_after: Option<Duration>,
    },
    /// A redirect, which is never followed: the request holds credentials.
    #[error(
        "the server redirects (status {status}), which isn't followed; give the token endpoint's own address"
    )]
    Redirected {
        /// The status.
        status: u16,
    },
    /// A token whose type asks for a proof beside it, which a plain client can't give.
    #[error(
        "the server gave a token of the type {0}, which is of use only with a proof that a plain client can't give; have it \
         give this client bearer tokens"
    )]
    TokenType(&'static str),
    /// A success that can't be used.
    #[error("the server's token reply can't be used: {0}")]
    Malformed(Malformed),
    /// The policy forbids the call.
    #[error("{0}")]
    Refused(RefusedReason),
    /// Certainly not sent.
    #[error("{0}")]
    NotSent(NotSent),
    /// Sent, or maybe sent, without a complete answer.
    #[error("{0}")]
    NoAnswer(NoAnswer),
    /// The answer is larger than is read.
    #[error("the server's answer is larger than is read; check that the address is the token endpoint's")]
    TooLarge,
}

/// What an error asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// New consent. Not tried again.
    DeadGrant,
    /// Other credentials. Not tried again until they change.
    BadClient,
    /// An edit of the link or of the client at the server.
    NeedsEdit,
    /// Time; the token in hand stays good for another try.
    BackOff,
    /// Another try whenever one likes: nothing was sent.
    NotSent,
    /// Another try with the same token, soon, within the server's grace: it may have acted.
    Unanswered,
}

struct Code(Option<&'static str>);

impl std::fmt::Display for Code {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Some(code) => write!(f, " ({code})"),
            None => Ok(()),
        }
    }
}

const fn check_client(assertion: bool) -> &'static str {
    if assertion {
        "it was sent an assertion that we signed: check that the operator's clock and the server's agree, that the server \
         knows the key (and its key ID), and the client ID and the audience"
    } else {
        "check the client ID, the client secret and the authentication method"
    }
}

fn remedy(code: Option<&str>, status: u16) -> &'static str {
    match code {
        Some("invalid_scope") => "check that the client may have the scopes that the link asks for",
        Some("unauthorized_client" | "unsupported_grant_type") => {
            "allow the client this grant type at the server, or choose another one"
        }
        Some("invalid_grant") => "check what the client may do at the server",
        Some("access_denied" | "insufficient_scope") => "check what the client may do at the server",
        _ if matches!(status, 404 | 405 | 410) => "check the address of the token endpoint",
        _ => "check the link's grant, scopes and token endpoint against the server's documentation",
    }
}

/// The codes that mean that a refresh can't succeed any more without a person.
const DEAD_GRANT: &[&str] = &[
    "invalid_grant",
    "bad_refresh_token",
    "expired_token",
    "interaction_required",
    "login_required",
    "consent_required",
    "account_selection_required",
];

impl TokenError {
    /// What the error asks for.
    pub const fn class(&self) -> ErrorClass {
        match self {
            Self::DeadGrant { .. } => ErrorClass::DeadGrant,
            Self::BadClient { .. } => ErrorClass::BadClient,
            Self::Rejected { .. } | Self::Redirected { .. } | Self::Refused(_) | Self::TokenType(_) => {
                ErrorClass::NeedsEdit
            }
            Self::RateLimited { .. } | Self::ServerFault { .. } | Self::AssertionRefused => {
                ErrorClass::BackOff
            }
            Self::NotSent(_) => ErrorClass::NotSent,
            Self::Malformed(_) | Self::NoAnswer(_) | Self::TooLarge => ErrorClass::Unanswered,
        }
    }

    /// The same, of a request that did or didn't rest on an assertion of our own.
    pub(super) fn by_assertion(self, assertion: bool) -> Self {
        match self {
            Self::BadClient { code, .. } => Self::BadClient { code, assertion },
            e => e,
        }
    }

    /// Whether the server may have spent the refresh token all the same.
    ///
    /// So it is where no answer came, where a success can't be read, and for a 5xx without an
    /// OAuth error in it: a gateway's 502 or 504 says nothing of the server behind it, and a 500
    /// may come after the new token was stored. It isn't for 501, 503 and 505, which by RFC 9110
    /// say that the request wasn't processed, and not where the server itself says which error it is.
    pub const fn outcome_unknown(&self) -> bool {
        match self {
            Self::NoAnswer(_) | Self::TooLarge | Self::Malformed(_) => true,
            Self::ServerFault { status, code: None, .. } => {
                *status >= 500 && !matches!(*status, 501 | 503 | 505)
            }
            _ => false,
        }
    }

    /// How long the server wants us to wait, at most an hour.
    pub const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after } | Self::ServerFault { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The reason of a condition.
    pub fn why(&self) -> Reason {
        match self {
            Self::DeadGrant { .. } => Reason::ReauthorizationRequired,
            Self::BadClient { .. } => Reason::InvalidClient,
            Self::AssertionRefused => Reason::AssertionRefused,
            Self::Rejected { code, .. } => match code {
                Some("invalid_scope") => Reason::InvalidScope,
                Some("unauthorized_client") => Reason::UnauthorizedClient,
                Some("unsupported_grant_type") => Reason::UnsupportedGrantType,
                Some("access_denied") => Reason::AccessDenied,
                _ => Reason::RequestRejected,
            },
            Self::RateLimited { .. } => Reason::RateLimited,
            Self::ServerFault { .. } => Reason::ServerError,
            Self::Redirected { .. } => Reason::Redirected,
            Self::Malformed(_) => Reason::MalformedReply,
            Self::TokenType(_) => Reason::UnsupportedTokenType,
            Self::Refused(_) => Reason::AddressRefused,
            Self::NotSent(_) => Reason::Unreachable,
            Self::NoAnswer(_) => Reason::NoAnswer,
            Self::TooLarge => Reason::ReplyTooLarge,
        }
    }

    /// Its word.
    pub fn reason(&self) -> &'static str {
        self.why().as_str()
    }
}

impl From<SendError> for TokenError {
    fn from(error: SendError) -> Self {
        match error {
            SendError::Refused(why) => Self::Refused(why),
            SendError::NotSent(why) => Self::NotSent(why),
            SendError::NoAnswer(why) => Self::NoAnswer(why),
            SendError::TooLarge => Self::TooLarge,
            SendError::Undecodable(why) => Self::Malformed(Malformed::Coding(why)),
        }
    }
}

impl From<BadHeader> for TokenError {
    fn from(_: BadHeader) -> Self {
        Self::NotSent(NotSent::Unbuildable)
    }
}

/// The `error` of an OAuth error body: `None` where there is none, `Some(None)` where there is
/// one that we don't know.
pub(super) fn error_code(body: &[u8]) -> Option<Option<&'static str>> {
    error_in(&json(body)?)
}

/// The same of a body that was read.
pub(super) fn error_in(body: &Value) -> Option<Option<&'static str>> {
    match body.get("error") {
        None | Some(Value::Null) => None,
        Some(code) => Some(code.as_str().and_then(known_error_code)),
    }
}

/// What a request was sent with: the same code means another thing with each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asked {
    /// A refresh token.
    WithRefreshToken,
    /// An assertion of our own as the grant.
    WithAssertion,
    /// Client credentials, or what a consent just gave.
    Otherwise,
}

/// What an answer that isn't a success means.
pub(super) fn classify(response: &Response, asked: Asked, dialect: Dialect) -> TokenError {
    let code = reply::value(response).as_ref().and_then(error_in).flatten();
    classify_parts(response.status, code, response.retry_after, asked, dialect)
}

pub(super) fn classify_parts(
    status: u16,
    code: Option<&'static str>,
    retry_after: Option<Duration>,
    asked: Asked,
    dialect: Dialect,
) -> TokenError {
    let fault = TokenError::ServerFault { status, code, retry_after };
    let own = code.and_then(|code| dialect.codes.iter().find(|(c, _)| *c == code));
    match own.map(|(_, meaning)| *meaning) {
        Some(Meaning::DeadGrant) if asked == Asked::WithRefreshToken && status < 500 => {
            return TokenError::DeadGrant { code: code.unwrap_or_default() };
        }
        Some(Meaning::BadClient) => return TokenError::BadClient { code, assertion: false },
        Some(Meaning::Transient) => return fault,
        _ => {}
    }
    match (status, code) {
        (429, _) | (200..=499, Some("slow_down")) => TokenError::RateLimited { retry_after },
        (300..=399, _) => TokenError::Redirected { status },
        (408 | 425 | 500.., _) | (_, Some("server_error" | "temporarily_unavailable")) => fault,
        (_, Some("invalid_client" | "incorrect_client_credentials")) => {
            TokenError::BadClient { code, assertion: false }
        }
        (_, Some(dead)) if asked == Asked::WithRefreshToken && DEAD_GRANT.contains(&dead) => {
            TokenError::DeadGrant { code: dead }
        }
        (_, Some("invalid_grant")) if asked == Asked::WithAssertion => TokenError::AssertionRefused,
        // These say what is wrong with the request, so the client was let in.
        (
            401,
            Some(
                "invalid_grant"
                | "invalid_scope"
                | "invalid_request"
                | "invalid_target"
                | "unsupported_grant_type",
            ),
        ) => TokenError::Rejected { code, status },
        // Keycloak calls a wrong secret `unauthorized_client`, with 401.
        (401, _) => TokenError::BadClient { code, assertion: false },
        _ => TokenError::Rejected { code, status },
    }
}
