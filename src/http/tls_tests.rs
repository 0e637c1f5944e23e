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
    /// A server that wants a client's certificate of this CA.
    mutual: Arc<rustls::ServerConfig>,
    client: (String, String),
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
    let config = |mutual: bool| {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = rustls::RootCertStore::empty();
        roots.add(ca.der().clone()).expect("a root");
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
                .build()
                .expect("verifier");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions");
        let config =
            if mutual { config.with_client_cert_verifier(verifier) } else { config.with_no_client_auth() };
        let key = PrivateKeyDer::from_pem_slice(key.serialize_pem().as_bytes()).expect("key");
        Arc::new(config.with_single_cert(vec![leaf.der().clone()], key).expect("config"))
    };
    let client_key = KeyPair::generate().expect("key");
    let client = CertificateParams::new(vec!["operator".to_owned()]).expect("params");
    let client = client.signed_by(&client_key, &ca).expect("leaf");
    Pki {
        ca_pem: ca.pem(),
        config: config(false),
        mutual: config(true),
        client: (client.pem(), client_key.serialize_pem()),
    }
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
        // What it has to say is read before it hangs up.
        let _ = tcp.shutdown(std::net::Shutdown::Write);
        let _ = std::io::copy(&mut tcp, &mut std::io::sink());
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

async fn log_in(url: Url, pki: &Pki, client: Option<&(String, String)>) -> Result<u16, SendError> {
    let ca = CaBundle::parse(pki.ca_pem.as_bytes()).expect("bundle");
    let mut http = guard(&["localhost"]).client(Trust::Trusted, Some(ca));
    if let Some((certificate, key)) = client {
        http = http
            .with_identity(ClientIdentity::parse(certificate.as_bytes(), key.as_bytes()).expect("identity"));
    }
    http.send(Request::get(url)).await.map(|r| r.status)
}

#[tokio::test]
async fn a_server_that_wants_a_client_certificate_gets_it_and_says_when_it_isnt_the_one() {
    let (ours, theirs) = (pki("localhost", false), pki("localhost", false));
    assert_eq!(log_in(serve(ours.mutual.clone()), &ours, Some(&ours.client)).await, Ok(200));
    // One that doesn't ask isn't bothered.
    assert_eq!(log_in(serve(ours.config.clone()), &ours, Some(&ours.client)).await, Ok(200));
    let refused = Err(SendError::NotSent(NotSent::Tls(TlsFault::ClientCertificate)));
    for wrong in [None, Some(&theirs.client)] {
        assert_eq!(log_in(serve(ours.mutual.clone()), &ours, wrong).await, refused);
    }
}

#[test]
fn clients_of_two_identities_are_two_clients() {
    let (a, b) = (pki("localhost", false), pki("localhost", false));
    let parse = |p: &Pki| ClientIdentity::parse(p.client.0.as_bytes(), p.client.1.as_bytes());
    let (a, b) = (parse(&a).expect("identity"), parse(&b).expect("identity"));
    assert_ne!(a.digest(), b.digest());
    assert_eq!(format!("{a:?}"), "ClientIdentity { certificates: 1, .. }");
}

#[test]
fn client_certificates_that_cant_be_used() {
    use ClientIdentityError as E;
    let (ours, theirs) = (pki("localhost", false).client, pki("localhost", false).client);
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let long = "x".repeat(600_000);
    for (certificate, key, error) in [
        ("", ours.1.as_str(), E::BadCertificate),
        ("hello", &ours.1, E::BadCertificate),
        (broken, &ours.1, E::BadCertificate),
        (&ours.1, &ours.1, E::BadCertificate),
        (&ours.0, "", E::BadKey),
        (&ours.0, &ours.0, E::BadKey),
        (&ours.0, encrypted, E::BadKey),
        (&ours.0, "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", E::BadKey),
        (&ours.0, &theirs.1, E::Mismatch),
        (&ours.0, &long, E::TooLarge),
    ] {
        let found = ClientIdentity::parse(certificate.as_bytes(), key.as_bytes());
        assert_eq!(found.err(), Some(error));
    }
}
