//! Trust anchors and the TLS configuration.

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;

/// The largest CA bundle that is read.
pub const MAX_CA_BUNDLE: usize = 512 * 1024;

/// Certificates of authorities that are trusted besides the compiled-in ones.
#[derive(Clone, PartialEq, Eq)]
pub struct CaBundle {
    certificates: Vec<CertificateDer<'static>>,
    digest: [u8; 32],
}

/// Why a CA bundle can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CaBundleError {
    /// Too large.
    #[error("is larger than {MAX_CA_BUNDLE} bytes; give only the certificates that are needed")]
    TooLarge,
    /// A PEM section that can't be read.
    #[error("isn't valid PEM; give -----BEGIN CERTIFICATE----- sections")]
    NotPem,
    /// No certificate in it.
    #[error("has no certificate; give at least one -----BEGIN CERTIFICATE----- section")]
    Empty,
    /// A certificate that can't be read, counted from 1.
    #[error("has a certificate (number {0}) that can't be read; check it with openssl x509 -text")]
    BadCertificate(usize),
}

impl CaBundle {
    /// Reads the certificates of a PEM text; sections of other kinds are passed over.
    ///
    /// # Errors
    /// [`CaBundleError`], which repeats nothing of the text.
    pub fn parse(pem: &[u8]) -> Result<Self, CaBundleError> {
        if pem.len() > MAX_CA_BUNDLE {
            return Err(CaBundleError::TooLarge);
        }
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| CaBundleError::NotPem)?;
        if certificates.is_empty() {
            return Err(CaBundleError::Empty);
        }
        let mut store = RootCertStore::empty();
        let mut hash = Sha256::new();
        for (i, certificate) in certificates.iter().enumerate() {
            store.add(certificate.clone()).map_err(|_| CaBundleError::BadCertificate(i + 1))?;
            hash.update((certificate.len() as u64).to_be_bytes());
            hash.update(certificate);
        }
        Ok(Self { certificates, digest: hash.finalize().into() })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for CaBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CaBundle").field("certificates", &self.certificates.len()).finish()
    }
}

/// The certificate that we log in with (mutual TLS), and its key.
#[derive(Clone)]
pub struct ClientIdentity {
    key: Arc<CertifiedKey>,
    digest: [u8; 32],
}

/// Why a client certificate can't be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ClientIdentityError {
    /// Too large.
    #[error("is larger than {MAX_CA_BUNDLE} bytes; give the certificate with its chain, and its key")]
    TooLarge,
    /// No certificate, or one that can't be read.
    #[error(
        "has no certificate in tls.crt that can be read; give -----BEGIN CERTIFICATE----- sections, the client's own first"
    )]
    BadCertificate,
    /// No key, or one that can't be used.
    #[error("has no key in tls.key that can be used; give one unencrypted RSA, ECDSA or Ed25519 key as PEM")]
    BadKey,
    /// The key of another certificate.
    #[error("has a key in tls.key that isn't the one of the first certificate in tls.crt")]
    Mismatch,
}

impl ClientIdentity {
    /// Reads a certificate with its chain, and its key.
    ///
    /// # Errors
    /// [`ClientIdentityError`], which repeats nothing of either.
    pub fn parse(certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self, ClientIdentityError> {
        use ClientIdentityError as E;
        if certificate_pem.len() > MAX_CA_BUNDLE || key_pem.len() > MAX_CA_BUNDLE {
            return Err(E::TooLarge);
        }
        let chain = CertificateDer::pem_slice_iter(certificate_pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|_| E::BadCertificate)?;
        if chain.is_empty() {
            return Err(E::BadCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key_pem).map_err(|_| E::BadKey)?;
        let mut hash = Sha256::new();
        for part in chain.iter().map(AsRef::as_ref).chain([key.secret_der()]) {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part);
        }
        let digest = hash.finalize().into();
        let key = CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider());
        let key = key.map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => E::Mismatch,
            rustls::Error::InvalidCertificate(_) => E::BadCertificate,
            _ => E::BadKey,
        })?;
        Ok(Self { key: Arc::new(key), digest })
    }

    pub(super) fn digest(&self) -> [u8; 32] {
        self.digest
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientIdentity").field("certificates", &self.key.cert.len()).finish_non_exhaustive()
    }
}

/// The client's TLS configuration: TLS 1.2 and 1.3 with ring, the compiled-in roots and the bundles;
/// the certificate that we log in with, where there is one.
///
/// The provider is named here, so nothing hangs on which one the process calls its default.
pub(super) fn config(
    extra: &[&CaBundle],
    identity: Option<&ClientIdentity>,
) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra.iter().flat_map(|b| &b.certificates) {
        roots.add(certificate.clone())?;
    }
    let config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots);
    let mut config = match identity {
        Some(identity) => {
            config.with_client_cert_resolver(Arc::new(SingleCertAndKey::from((*identity.key).clone())))
        }
        None => config.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
