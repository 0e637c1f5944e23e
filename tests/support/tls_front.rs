//! TLS before a plain service: a port with a certificate of a private authority, which may let nobody in who has no
//! certificate of that authority.

use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// A running front; it ends with the test's runtime.
pub struct TlsFront {
    pub url: String,
    /// The authority's certificate (PEM).
    pub ca: String,
    /// A certificate that is let in, and its key (PEM).
    pub certificate: String,
    pub key: String,
}

impl TlsFront {
    /// Starts one before a service at this `host:port`, for those alone who have a certificate.
    pub async fn before(upstream: &str) -> Self {
        Self::start(upstream, false).await
    }

    /// Starts one that lets everybody in.
    pub async fn open(upstream: &str) -> Self {
        Self::start(upstream, true).await
    }

    async fn start(upstream: &str, everybody: bool) -> Self {
        let mut params = CertificateParams::new(Vec::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().expect("a key")).expect("a CA");
        let issue = |names: Vec<String>, usage| {
            let mut params = CertificateParams::new(names).expect("names");
            params.extended_key_usages = vec![usage];
            let key = KeyPair::generate().expect("a key");
            (params.signed_by(&key, &ca).expect("a certificate"), key)
        };
        let (server, server_key) = issue(vec!["127.0.0.1".into()], ExtendedKeyUsagePurpose::ServerAuth);
        let (client, client_key) = issue(vec!["operator".into()], ExtendedKeyUsagePurpose::ClientAuth);
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from(ca.der().to_vec())).expect("the CA");
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone());
        let verifier = if everybody { verifier.allow_unauthenticated() } else { verifier };
        let verifier = verifier.build().expect("a verifier");
        let config = rustls::ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_client_cert_verifier(verifier)
            .with_single_cert(
                vec![server.der().clone()],
                PrivateKeyDer::try_from(server_key.serialize_der()).expect("a key"),
            )
            .expect("a configuration");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("https://{}", listener.local_addr().expect("an address"));
        let upstream = upstream.to_owned();
        tokio::spawn(async move {
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, upstream) = (acceptor.clone(), upstream.clone());
                tokio::spawn(async move {
                    // Who isn't let in, or hangs up, is the caller's to tell.
                    let Ok(mut tls) = acceptor.accept(tcp).await else { return };
                    let Ok(mut plain) = TcpStream::connect(&upstream).await else { return };
                    let _ = tokio::io::copy_bidirectional(&mut tls, &mut plain).await;
                });
            }
        });
        Self { url, ca: ca.pem(), certificate: client.pem(), key: client_key.serialize_pem() }
    }
}
