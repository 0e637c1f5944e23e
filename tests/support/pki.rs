//! The keys and certificates of a control plane: made anew for each, valid for nothing else. The authority is the
//! same for all of this process, so that who trusts it needn't know which control plane it will talk to.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose,
};

use super::process::RunDir;

/// The authority of this process.
///
/// # Panics
/// When it can't be made.
fn authority() -> &'static CertifiedIssuer<'static, KeyPair> {
    static AUTHORITY: OnceLock<CertifiedIssuer<'static, KeyPair>> = OnceLock::new();
    AUTHORITY.get_or_init(|| {
        let mut ca = CertificateParams::default();
        ca.distinguished_name.push(DnType::CommonName, "applink-rig-ca");
        ca.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::DigitalSignature];
        CertifiedIssuer::self_signed(ca, KeyPair::generate().expect("a key")).expect("an authority")
    })
}

/// The certificate (PEM) of the authority of every control plane of this process.
pub fn authority_pem() -> String {
    authority().pem()
}

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

        let names = ["127.0.0.1", "localhost", "kubernetes.default.svc"].map(str::to_owned);
        let mut server = CertificateParams::new(names)?;
        server.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let server_key = KeyPair::generate()?;
        let server_certificate = server.signed_by(&server_key, authority())?;

        // The API server signs ServiceAccount tokens with it (ES256).
        let tokens_key = KeyPair::generate()?;
        Ok(Self {
            ca: write("ca.crt", authority_pem()),
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
