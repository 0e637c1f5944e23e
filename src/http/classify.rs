//! From the HTTP library's errors to ours: how far did the request come?

use super::connect::Exceeded;
use super::resolve::{NoAddress, Refusal};
use super::{NoAnswer, NotSent, SendError, TlsFault};
use hyper_util::client::legacy;
use rustls::{AlertDescription as Alert, CertificateError as Cert};
use std::error::Error;
use std::io;
use tower::timeout::error::Elapsed;

/// Classifies an error of sending. Only types are looked at; no text is taken over.
pub(super) fn send_error(error: &legacy::Error) -> SendError {
    if let Some(Refusal(reason)) = find(error) {
        return SendError::Refused(*reason);
    }
    if error.is_connect() {
        return SendError::NotSent(connect_error(error));
    }
    // With TLS 1.3 a server looks at our certificate after we may write; it reads nothing before.
    if let Some(tls) = find::<rustls::Error>(error)
        && tls_fault(tls) == TlsFault::ClientCertificate
    {
        return SendError::NotSent(NotSent::Tls(TlsFault::ClientCertificate));
    }
    if let Some(hyper) = find::<hyper::Error>(error) {
        // hyper says "canceled" only while it still holds the whole request.
        if hyper.is_canceled() {
            return SendError::NotSent(NotSent::Closed);
        }
        if hyper.is_parse_too_large() {
            return SendError::TooLarge;
        }
        if hyper.is_parse() {
            return SendError::NoAnswer(NoAnswer::NotHttp);
        }
    }
    body_error(error)
}

/// Classifies an error of reading an answer.
pub(super) fn body_error(error: &(dyn Error + 'static)) -> SendError {
    if find::<Exceeded>(error).is_some() {
        return SendError::TooLarge;
    }
    SendError::NoAnswer(if is_timeout(error) { NoAnswer::Timeout } else { NoAnswer::Reset })
}

fn is_timeout(error: &(dyn Error + 'static)) -> bool {
    let by_system = |e: &io::Error| e.kind() == io::ErrorKind::TimedOut;
    chain(error).any(|e| e.is::<Elapsed>() || e.downcast_ref().is_some_and(by_system))
}

fn connect_error(error: &legacy::Error) -> NotSent {
    if let Some(tls) = find::<rustls::Error>(error) {
        return NotSent::Tls(tls_fault(tls));
    }
    if find::<NoAddress>(error).is_some() {
        NotSent::Dns
    } else if is_timeout(error) {
        NotSent::ConnectTimeout
    } else if chain(error).any(is_eof) || find::<Exceeded>(error).is_some() {
        // The other side hung up amid the handshake, or never ended it; a TCP connect never ends so.
        NotSent::Tls(TlsFault::Handshake)
    } else {
        NotSent::Connect
    }
}

fn tls_fault(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(cert) => match cert {
            // A bad signature is an authority of the same name with another key.
            Cert::UnknownIssuer | Cert::BadSignature => TlsFault::UnknownCa,
            Cert::NotValidForName | Cert::NotValidForNameContext { .. } => TlsFault::WrongName,
            Cert::Expired
            | Cert::ExpiredContext { .. }
            | Cert::NotValidYet
            | Cert::NotValidYetContext { .. } => TlsFault::Expired,
            _ => TlsFault::BadCertificate,
        },
        // Alerts by which a server speaks of the certificate of the other side, which is ours.
        rustls::Error::AlertReceived(
            Alert::NoCertificate
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::CertificateRequired
            | Alert::DecryptError,
        ) => TlsFault::ClientCertificate,
        _ => TlsFault::Handshake,
    }
}

fn is_eof(error: &(dyn Error + 'static)) -> bool {
    error.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof)
}

/// Finds an error of a type in the chain.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    chain(error).find_map(|e| e.downcast_ref())
}

/// An error and what it came from. An [`io::Error`] hides the error that it wraps from
/// `source()`, so it is asked for it.
fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| {
        let error: &'a (dyn Error + 'static) = *error;
        match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        }
    })
}
