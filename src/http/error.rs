//! How far a request came. Nothing here ever holds a word that the other side said.

use super::CodingError;
use crate::domain::Reason;

/// Why there is no answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SendError {
    /// The policy forbids it; nothing was sent.
    #[error("{0}")]
    Refused(RefusedReason),
    /// It is certain that no byte of the request reached a server.
    #[error("{0}")]
    NotSent(NotSent),
    /// The request was sent, or may have been, and there is no complete answer.
    #[error("{0}")]
    NoAnswer(NoAnswer),
    /// The answer is larger than is read.
    #[error("the server's answer is larger than is read; check that the address is the endpoint's")]
    TooLarge,
    /// The answer's body is in a content coding that can't be read.
    #[error("the server's answer can't be read: {0}")]
    Undecodable(CodingError),
}

/// What the policy forbids. The words are the same for every address that isn't public, so they
/// don't tell what stands behind one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum RefusedReason {
    /// Neither `https` nor `http`.
    #[error("the address has a scheme other than https; use an https:// address")]
    Scheme,
    /// Plain HTTP where HTTPS is required.
    #[error(
        "the address is plain http; use https, or have whoever runs the operator allow plain http to this host (outbound.allow in its chart)"
    )]
    PlainHttp,
    /// No host.
    #[error("the address has no host; give a full https:// address")]
    NoHost,
    /// `user:password@`.
    #[error("the address has user information before the host; remove it")]
    UserInfo,
    /// A port that isn't open to guarded calls.
    #[error(
        "the address has a port other than 443; use 443, or have whoever runs the operator allow the port or the host (outbound.allow in its chart)"
    )]
    Port,
    /// The host isn't a public one, or there is no such host: it is one answer to both.
    #[error(
        "the host has no public address: it isn't a public name, there is no such name, or an address of it isn't \
         public; check the host, or have whoever runs the operator allow it (outbound.allow in its chart)"
    )]
    NotPublic,
}

/// Why a request wasn't sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NotSent {
    /// The resolver didn't answer, or a host that is allowed by its name has no address.
    #[error("the server's name couldn't be resolved; check the host name and the cluster's DNS")]
    Dns,
    /// Refused or unreachable.
    #[error("no connection to the server; check its address and that it runs")]
    Connect,
    /// Nobody answered in time.
    #[error("no connection to the server in time; check its address and the network policies on the way")]
    ConnectTimeout,
    /// No TLS session.
    #[error("{0}")]
    Tls(TlsFault),
    /// The connection was closed before the request was written to it.
    #[error("the server closed the connection before the request was sent")]
    Closed,
    /// The request couldn't be built.
    #[error("the request couldn't be built; check the address for characters that a URL can't have")]
    Unbuildable,
}

/// Why there is no TLS session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum TlsFault {
    /// The certificate chain ends in an unknown certificate authority.
    #[error(
        "the server's certificate is from an authority that isn't known; give its certificate as the caBundle"
    )]
    UnknownCa,
    /// Not for this host.
    #[error("the server's certificate is for another host name; check the address")]
    WrongName,
    /// Expired or not valid yet.
    #[error("the server's certificate has expired or isn't valid yet; renew it, and check the clocks")]
    Expired,
    /// Some other trouble with the certificate.
    #[error("the server's certificate isn't acceptable; check it with its owner")]
    BadCertificate,
    /// The server wants a certificate from us, and there is none or it doesn't take it.
    #[error(
        "the server doesn't accept the client certificate, or wants one; check clientCertificateSecretRef with its owner"
    )]
    ClientCertificate,
    /// The handshake failed for another reason, such as a server without TLS on this port.
    #[error("no TLS session with the server; check that the port speaks TLS 1.2 or newer")]
    Handshake,
}

/// Why there is no complete answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum NoAnswer {
    /// Too slow.
    #[error("the server didn't answer in time")]
    Timeout,
    /// The connection ended before the answer did.
    #[error("the connection ended before the server's answer was complete")]
    Reset,
    /// Not HTTP.
    #[error("the server's answer isn't HTTP; check the address")]
    NotHttp,
}

impl SendError {
    /// The reason of a condition.
    pub const fn why(&self) -> Reason {
        match self {
            Self::Refused(_) => Reason::AddressRefused,
            Self::NotSent(_) => Reason::Unreachable,
            Self::NoAnswer(_) => Reason::NoAnswer,
            Self::TooLarge => Reason::ReplyTooLarge,
            Self::Undecodable(_) => Reason::MalformedReply,
        }
    }

    /// Its word.
    pub const fn reason(&self) -> &'static str {
        self.why().as_str()
    }

    /// Whether the server may have acted on the request.
    pub const fn outcome_unknown(&self) -> bool {
        matches!(self, Self::NoAnswer(_) | Self::TooLarge | Self::Undecodable(_))
    }
}

impl From<RefusedReason> for SendError {
    fn from(reason: RefusedReason) -> Self {
        Self::Refused(reason)
    }
}
