//! Trust anchors and the TLS configuration.

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
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

/// The client's TLS configuration: TLS 1.2 and 1.3 with ring, the compiled-in roots and the bundle.
///
/// The provider is named here, so nothing hangs on which one the process calls its default.
pub(super) fn config(extra: Option<&CaBundle>) -> Result<ClientConfig, rustls::Error> {
    let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    for certificate in extra.iter().flat_map(|b| &b.certificates) {
        roots.add(certificate.clone())?;
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
}
