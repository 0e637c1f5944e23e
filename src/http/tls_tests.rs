//! TLS: whose certificates are taken. The server is rustls over a plain socket in a thread.

use super::testing::guard;
use super::*;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::pki_types::PrivateKeyDer;
use rustls::pki_types::pem::PemObject as _;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use url::Url;

struct Pki {
    ca_pem: String,
    config: Arc<rustls::ServerConfig>,
}

fn pki(host: &str, expired: bool) -> Pki {
    let mut params = CertificateParams::new(Vec::<String>::new()).expect("params");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("key")).expect("ca");
    let key = KeyPair::generate().expect("key");
    let mut params = CertificateParams::new(vec![host.to_owned()]).expect("params");
    if expired {
        params.not_before = rcgen::date_time_ymd(2001, 1, 1);
        params.not_after = rcgen::date_time_ymd(2002, 1, 1);
    }
    let leaf = params.signed_by(&key, &ca).expect("leaf");
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(
            vec![leaf.der().clone()],
            PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("key"),
        )
        .expect("config");
    Pki { ca_pem: ca.pem(), config: Arc::new(config) }
}

/// Answers one connection.
fn serve(config: Arc<rustls::ServerConfig>) -> Url {
    let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = listener.local_addr().expect("address").port();
    std::thread::spawn(move || {
        let (mut tcp, _) = listener.accept().expect("accept");
        let mut tls = rustls::ServerConnection::new(config).expect("connection");
        let mut stream = rustls::Stream::new(&mut tls, &mut tcp);
        let mut buffer = [0; 4096];
        if stream.read(&mut buffer).is_ok_and(|n| n > 0) {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n{}");
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
    });
    Url::parse(&format!("https://localhost:{port}/")).expect("url")
}

async fn call(url: Url, bundle: Option<&str>, trust: Trust) -> Result<u16, SendError> {
    let bundle = bundle.map(|pem| CaBundle::parse(pem.as_bytes()).expect("bundle"));
    guard(&["localhost"]).client(trust, bundle).send(Request::get(url)).await.map(|r| r.status)
}

#[tokio::test]
async fn a_ca_bundle_is_trusted_and_an_unknown_authority_isnt() {
    let (ours, theirs) = (pki("localhost", false), pki("localhost", false));
    let unknown = Err(SendError::NotSent(NotSent::Tls(TlsFault::UnknownCa)));
    for trust in [Trust::Guarded, Trust::Trusted] {
        assert_eq!(call(serve(ours.config.clone()), Some(&ours.ca_pem), trust).await, Ok(200));
        assert_eq!(call(serve(ours.config.clone()), None, trust).await, unknown);
        assert_eq!(call(serve(ours.config.clone()), Some(&theirs.ca_pem), trust).await, unknown);
        let both = format!("{}{}", theirs.ca_pem, ours.ca_pem);
        assert_eq!(call(serve(ours.config.clone()), Some(&both), trust).await, Ok(200));
    }
}

#[tokio::test]
async fn the_certificate_must_be_for_the_host_and_valid_now() {
    for (pki, fault) in
        [(pki("other.example.com", false), TlsFault::WrongName), (pki("localhost", true), TlsFault::Expired)]
    {
        let answer = call(serve(pki.config.clone()), Some(&pki.ca_pem), Trust::Guarded).await;
        assert_eq!(answer, Err(SendError::NotSent(NotSent::Tls(fault))));
    }
}

#[tokio::test]
async fn a_port_without_tls_is_told_as_such() {
    for words in ["", "HTTP/1.1 400 Bad Request\r\n\r\n"] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("bind");
        let port = listener.local_addr().expect("address").port();
        std::thread::spawn(move || {
            let (mut tcp, _) = listener.accept().expect("accept");
            let _ = tcp.read(&mut [0; 4096]);
            let _ = tcp.write_all(words.as_bytes());
        });
        let url = Url::parse(&format!("https://localhost:{port}/")).expect("url");
        assert_eq!(
            call(url, None, Trust::Guarded).await,
            Err(SendError::NotSent(NotSent::Tls(TlsFault::Handshake))),
            "{words:?}"
        );
    }
}

#[test]
fn bundles_that_cant_be_used() {
    let pem = pki("localhost", false).ca_pem;
    let cut = pem.replace("-----END", "----END");
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, error) in [
        (String::new(), CaBundleError::Empty),
        ("hello".to_owned(), CaBundleError::Empty),
        (cut, CaBundleError::NotPem),
        (format!("{pem}{broken}"), CaBundleError::BadCertificate(2)),
        ("x".repeat(600_000), CaBundleError::TooLarge),
    ] {
        assert_eq!(CaBundle::parse(text.as_bytes()).err(), Some(error));
    }
    assert_ne!(
        CaBundle::parse(pem.as_bytes()).expect("bundle").digest(),
        CaBundle::parse(pki("localhost", false).ca_pem.as_bytes()).expect("bundle").digest()
    );
}
