//! Why a consent doesn't go on, as a page or the tool says it. Pure.

use crate::api::link::ExpectedAccount;
use crate::domain::{Account, Reason};
use crate::link::problem::Problem;
use crate::outgoing::{IdTokenFault, TokenError};

/// Why an account isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Stranger {
    /// The server didn't say whose grant it is.
    #[error(
        "the server doesn't say whose account it is (a user endpoint on another server than the token endpoint isn't asked \
         before a link is connected), and the link names the only one that may be connected"
    )]
    Unknown,
    /// Another one.
    #[error("it is another account than the one that the link names as the only one that may be connected")]
    Other,
}

impl Stranger {
    /// Whether this account may be connected.
    ///
    /// # Errors
    /// Why not.
    pub fn check(expected: Option<&ExpectedAccount>, account: Option<&Account>) -> Result<(), Self> {
        let Some(expected) = expected else { return Ok(()) };
        let account = account.ok_or(Self::Unknown)?;
        let issuer = expected.issuer.as_ref().is_none_or(|i| account.issuer() == i);
        if issuer && account.subject() == expected.subject { Ok(()) } else { Err(Self::Other) }
    }
}

/// Why a consent doesn't go on. Each is one sentence of what happened and one of what to do; none
/// holds a secret, or what a server wrote but for known error codes.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Trouble {
    /// No such link, another ticket, or one that is over: nobody is told which.
    #[error(
        "this address isn't good, or not any more: an address works once, for ten minutes. Run the command again that gave it to you."
    )]
    NoTicket,
    /// The ticket was used.
    #[error("this address was used already: it works once. Run the command again that gave it to you.")]
    Used,
    /// An answer to a request that isn't under way.
    #[error(
        "this answer belongs to no consent that is under way: it came twice, too late, or wasn't asked for. Nothing was changed. Run the command again."
    )]
    Unasked,
    /// The answer came to another browser.
    #[error(
        "this consent was begun in another browser, or this one keeps no cookies. Nothing was changed. Use the same browser from beginning to end."
    )]
    OtherBrowser,
    /// The link was deleted or changed since it began.
    #[error(
        "the link was deleted or changed since this consent began, so nothing was taken. Run the command again."
    )]
    Changed,
    /// The answer names another issuer (RFC 9207), or should name one and doesn't.
    #[error(
        "the answer doesn't name the server that was asked, so it wasn't taken. Somebody may be mixing up servers: tell your platform team."
    )]
    WrongIssuer,
    /// The server, or the person there, said no (RFC 6749 section 4.1.2.1).
    #[error("the server didn't give its consent ({}). Nothing was changed. {}", .0.unwrap_or("with an error that isn't known"), denied(*.0))]
    Denied(Option<&'static str>),
    /// The answer has neither a code nor an error.
    #[error("the server's answer has no code in it. Nothing was changed. Run the command again.")]
    NoCode,
    /// Another account than the expected one, and whether its grant was revoked.
    #[error(
        "{why}. {} Nothing was changed. Sign in there with the right account, and run the command again.",
        what_becomes(*.given_back)
    )]
    Stranger {
        /// Why it isn't taken.
        why: Stranger,
        /// Whether its server revoked what it granted.
        given_back: bool,
    },
    /// The ID token isn't what it must be, and whether the grant was revoked.
    #[error(
        "the server's ID token can't be relied on: {why}. {} Nothing was changed. If it stays so, tell your platform team.",
        what_becomes(*.given_back)
    )]
    IdToken {
        /// Why it isn't taken.
        why: IdTokenFault,
        /// Whether its server revoked what it granted.
        given_back: bool,
    },
    /// The code wasn't exchanged.
    #[error("the server gave no token: {}. Nothing was changed; then run the command again.", once(.0))]
    Token(TokenError),
    /// The server didn't take the request that was pushed to it (RFC 9126).
    #[error("the server doesn't take the authorization request: {}. Nobody was asked to sign in; then run the command again.", once(.0))]
    NotPushed(TokenError),
    /// The link can't be connected as it is.
    #[error("{0}")]
    Link(String),
    /// The link's grant is given in another way.
    #[error("this link isn't connected in this way; run: kubectl applink authorize")]
    OtherGrant,
    /// An earlier consent is still being cleared away, or somebody wrote at the same moment.
    #[error("an earlier consent of this link is still being cleared away. Try it again in a moment.")]
    Busy,
    /// As many requests as there may be of one link, one namespace, one address, or of all, are being worked on.
    #[error("too many requests are being worked on at this moment. Try it again in a few seconds.")]
    Crowded,
    /// The operator can't look or write now.
    #[error("the operator can't do this now: {0}. Try it again in a moment.")]
    Later(String),
}

const fn what_becomes(given_back: bool) -> &'static str {
    if given_back {
        "What it granted is given back."
    } else {
        "What it granted isn't kept, and can't be revoked from here: end it at the server."
    }
}

/// A failure in the words of a consent, which nobody tries again by itself.
fn once(e: &TokenError) -> String {
    match e {
        TokenError::ServerFault { status, .. } => {
            format!("it has trouble of its own (status {status}); wait until that is over")
        }
        TokenError::RateLimited { .. } => "it limits how often it may be asked; wait a while".to_owned(),
        e => e.to_string(),
    }
}

fn denied(code: Option<&'static str>) -> &'static str {
    match code {
        Some("access_denied") => {
            "Somebody declined there, or may not consent; run the command again to try anew."
        }
        Some("invalid_scope") => "Check the scopes of the link with what the client may ask for there.",
        Some("unauthorized_client") => "Allow the client this grant at the server.",
        Some("invalid_request" | "redirect_uri_mismatch") => {
            "Check that the client at the server has the redirect URI that the link's status shows."
        }
        Some("temporarily_unavailable" | "server_error") => {
            "The server has trouble of its own; run the command again later."
        }
        Some("expired_token") => "The code wasn't entered in time; run the command again.",
        _ => "Run the command again, and look at the server when it stays so.",
    }
}

impl Trouble {
    /// The machine-readable name, for programs and for tests.
    pub const fn reason(&self) -> &'static str {
        let why = match self {
            Self::NoTicket => Reason::NoTicket,
            Self::Used => Reason::TicketUsed,
            Self::Unasked => Reason::Unasked,
            Self::OtherBrowser => Reason::OtherBrowser,
            Self::Changed => Reason::LinkChanged,
            Self::WrongIssuer => Reason::WrongIssuer,
            Self::Denied(_) => Reason::Denied,
            Self::NoCode => Reason::NoCode,
            Self::Stranger { .. } => Reason::OtherAccount,
            Self::IdToken { .. } => Reason::IdTokenRefused,
            Self::Token(_) => Reason::NoToken,
            Self::NotPushed(_) => Reason::RequestRefused,
            Self::Link(_) => Reason::LinkNotReady,
            Self::OtherGrant => Reason::OtherGrant,
            Self::Busy => Reason::Busy,
            Self::Crowded => Reason::TooManyAtOnce,
            Self::Later(_) => Reason::Unavailable,
        };
        why.as_str()
    }

    /// The status that a page of it has.
    pub const fn status(&self) -> u16 {
        match self {
            Self::NoTicket => 404,
            Self::Used | Self::Unasked | Self::Changed | Self::Busy => 409,
            Self::OtherBrowser
            | Self::WrongIssuer
            | Self::Denied(_)
            | Self::NoCode
            | Self::Stranger { .. }
            | Self::IdToken { .. } => 403,
            Self::Link(_) | Self::OtherGrant => 422,
            Self::Token(_) | Self::NotPushed(_) => 502,
            Self::Crowded => 429,
            Self::Later(_) => 503,
        }
    }

    /// What stands in the link's own way.
    pub(super) fn of(problem: &Problem) -> Self {
        use crate::link::problem::Mend;
        match problem.mend {
            Mend::Edit => Self::Link(problem.message.clone()),
            Mend::Conflict => Self::Busy,
            Mend::Wait | Mend::Unanswered => Self::Later(problem.message.clone()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_expected_account_is_taken() {
        let account = Account::new("a", "1").expect("an account");
        let expected = |issuer: Option<&str>, subject: &str| ExpectedAccount {
            issuer: issuer.map(str::to_owned),
            subject: subject.into(),
        };
        let check = |e: Option<&ExpectedAccount>, a| Stranger::check(e, a);
        assert_eq!(check(None, None), Ok(()));
        assert_eq!(check(Some(&expected(None, "1")), None), Err(Stranger::Unknown));
        assert_eq!(check(Some(&expected(None, "1")), Some(&account)), Ok(()));
        assert_eq!(check(Some(&expected(Some("a"), "1")), Some(&account)), Ok(()));
        assert_eq!(check(Some(&expected(Some("b"), "1")), Some(&account)), Err(Stranger::Other));
        assert_eq!(check(Some(&expected(None, "2")), Some(&account)), Err(Stranger::Other));
    }
}
