//! From the HTTP library's errors to ours: how far did the request come?

use super::resolve::Refusal;
use super::{NoAnswer, NotSent, SendError, TlsFault};
use rustls::CertificateError as Cert;
use std::error::Error;
use std::io;

/// Classifies an error of sending. Only types are looked at; no text is taken over.
pub(super) fn send_error(error: &reqwest::Error) -> SendError {
    if let Some(Refusal(reason)) = find(error) {
        return SendError::Refused(*reason);
    }
    if error.is_builder() {
        return SendError::NotSent(NotSent::Unbuildable);
    }
    if error.is_connect() {
        return SendError::NotSent(connect_error(error));
    }
    if let Some(hyper) = find::<hyper::Error>(error) {
        // hyper says "canceled" only while it still holds the whole request.
        if hyper.is_canceled() {
            return SendError::NotSent(NotSent::Closed);
        }
        if hyper.is_parse() {
            return SendError::NoAnswer(NoAnswer::NotHttp);
        }
    }
    SendError::NoAnswer(if error.is_timeout() { NoAnswer::Timeout } else { NoAnswer::Reset })
}

fn connect_error(error: &reqwest::Error) -> NotSent {
    if let Some(tls) = find::<rustls::Error>(error) {
        return NotSent::Tls(tls_fault(tls));
    }
    if error.is_dns() {
        NotSent::Dns
    } else if error.is_timeout() {
        NotSent::ConnectTimeout
    } else if find::<io::Error>(error).is_some_and(|e| e.kind() == io::ErrorKind::UnexpectedEof) {
        // The other side hung up amid the handshake; a TCP connect never ends so.
        NotSent::Tls(TlsFault::Handshake)
    } else {
        NotSent::Connect
    }
}

fn tls_fault(error: &rustls::Error) -> TlsFault {
    match error {
        rustls::Error::InvalidCertificate(cert) => match cert {
            Cert::UnknownIssuer => TlsFault::UnknownCa,
            Cert::NotValidForName | Cert::NotValidForNameContext { .. } => TlsFault::WrongName,
            Cert::Expired
            | Cert::ExpiredContext { .. }
            | Cert::NotValidYet
            | Cert::NotValidYetContext { .. } => TlsFault::Expired,
            _ => TlsFault::BadCertificate,
        },
        _ => TlsFault::Handshake,
    }
}

/// Finds an error of a type in the chain. An [`io::Error`] hides the error that it wraps from
/// `source()`, so it is asked for it.
fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    // The chain ends by itself; the bound is for the case that it doesn't.
    let mut next = Some(error);
    for _ in 0..32 {
        let error = next?;
        if let Some(found) = error.downcast_ref::<T>() {
            return Some(found);
        }
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
