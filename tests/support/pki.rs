//! The keys and certificates of a control plane: made anew for each, valid for nothing else.

use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

use super::process::RunDir;

/// Where they lie.
pub struct Pki {
    pub ca: PathBuf,
    pub server_certificate: PathBuf,
    pub server_key: PathBuf,
    pub service_account_key: PathBuf,
    pub service_account_public_key: PathBuf,
}

impl Pki {
    /// # Panics
    /// When they can't be made.
    pub fn make(run: &RunDir) -> Self {
        Self::try_make(run).expect("keys and certificates")
    }

    fn try_make(run: &RunDir) -> Result<Self, rcgen::Error> {
        let folder = run.folder("pki");
        let write = |name: &str, content: String| run.write(folder.join(name), content);

        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "applink-rig-ca");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        let ca_key = KeyPair::generate()?;
        let ca_certificate = ca.self_signed(&ca_key)?;

        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let server_certificate = server.signed_by(&server_key, &Issuer::new(ca, ca_key))?;

        // The API server signs ServiceAccount tokens with it (ES256).
        let tokens_key = KeyPair::generate()?;
        Ok(Self {
            ca: write("ca.crt", ca_certificate.pem()),
            server_certificate: write("server.crt", server_certificate.pem()),
            server_key: write("server.key", server_key.serialize_pem()),
            service_account_key: write("sa.key", tokens_key.serialize_pem()),
            service_account_public_key: write("sa.pub", tokens_key.public_key_pem()),
        })
    }
}

/// `--name=path`, as the programs take it.
pub(super) fn file_flag(name: &str, path: &Path) -> String {
    format!("--{name}={}", path.display())
}
