//! What a provider's spec refers to: which values of which Secrets, and what they are once read.

use super::grant::Kept;
use super::lend::{self, Lent};
use super::problem::Problem;
use super::secrets::Secrets;
use crate::api::provider::Service;
use crate::domain::{Reason, SecretString};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use url::Url;

/// What a value is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Purpose {
    /// A bearer token.
    Token,
    /// The identifier of our own client, or the name of a user.
    Id,
    /// The secret of our own client, or the password of that user.
    Secret,
    /// The certificate that we log in with (PEM).
    Certificate,
    /// Its key (PEM).
    Key,
}

/// One value that a provider's spec refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reference {
    /// What it is for.
    pub purpose: Purpose,
    /// Name of the Secret.
    pub name: String,
    /// Its key.
    pub key: String,
    /// The field that names it.
    pub field: &'static str,
}

/// The values that a provider's spec refers to.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Credentials(BTreeMap<Purpose, Kept>);

impl Credentials {
    /// The value for a purpose, where the spec refers to one.
    pub fn get(&self, purpose: Purpose) -> Option<&SecretString> {
        self.0.get(&purpose).map(|k| &k.0)
    }

    /// The value for a purpose that the schema makes sure of.
    ///
    /// # Errors
    /// [`Problem`] where it was got round.
    pub fn need(&self, purpose: Purpose) -> Result<SecretString, Problem> {
        self.get(purpose).cloned().ok_or_else(|| {
            Problem::edit(
                Reason::InvalidSpec,
                "the provider's spec refers to no credential; see its reference page",
            )
        })
    }
}

/// All that a provider's spec refers to.
pub fn references(service: &Service) -> Vec<Reference> {
    let mut all = Vec::new();
    let mut add = |purpose, name: &str, key: &str, field| {
        all.push(Reference { purpose, name: name.to_owned(), key: key.to_owned(), field });
    };
    let certificate_field = match service {
        Service::Bundled(s) => {
            let r = &s.admin.token_secret_ref;
            add(Purpose::Token, &r.name, &r.key, "spec.bundled.admin.tokenSecretRef");
            "spec.bundled.clientCertificateSecretRef"
        }
        Service::Hydra(s) => {
            if let Some(r) = &s.admin.token_secret_ref {
                add(Purpose::Token, &r.name, &r.key, "spec.hydra.admin.tokenSecretRef");
            }
            "spec.hydra.clientCertificateSecretRef"
        }
        Service::Keycloak(s) => {
            let r = &s.client_secret_ref;
            add(Purpose::Id, &r.name, &r.id_key, "spec.keycloak.clientSecretRef");
            add(Purpose::Secret, &r.name, &r.secret_key, "spec.keycloak.clientSecretRef");
            "spec.keycloak.clientCertificateSecretRef"
        }
        Service::Registration(s) => {
            if let Some(r) = &s.initial_access_token_secret_ref {
                add(Purpose::Token, &r.name, &r.key, "spec.registration.initialAccessTokenSecretRef");
            }
            "spec.registration.clientCertificateSecretRef"
        }
        Service::Bitbucket(s) => {
            if let Some(r) = &s.user_secret_ref {
                let key = |k: &Option<String>, default: &str| k.clone().unwrap_or_else(|| default.to_owned());
                add(Purpose::Id, &r.name, &key(&r.username_key, "username"), "spec.bitbucket.userSecretRef");
                add(
                    Purpose::Secret,
                    &r.name,
                    &key(&r.password_key, "password"),
                    "spec.bitbucket.userSecretRef",
                );
            }
            if let Some(r) = &s.token_secret_ref {
                add(Purpose::Token, &r.name, &r.key, "spec.bitbucket.tokenSecretRef");
            }
            "spec.bitbucket.clientCertificateSecretRef"
        }
    };
    if let Some(r) = service.client_certificate() {
        add(Purpose::Certificate, &r.name, "tls.crt", certificate_field);
        add(Purpose::Key, &r.name, "tls.key", certificate_field);
    }
    all
}

/// Where what a provider's spec refers to may be sent, by what it is for.
#[derive(Debug, Clone, Default)]
pub struct Lending {
    /// The Secrets.
    pub of: BTreeMap<Purpose, Lent>,
    /// Whether each must say where it may go.
    pub demanded: bool,
}

impl Lending {
    /// Checks that what is for these purposes may go to these addresses.
    ///
    /// # Errors
    /// [`Problem`] that names Secret, address and host.
    pub fn check(&self, purposes: &[Purpose], targets: &[(&str, &Url)]) -> Result<(), Problem> {
        lend::check(purposes.iter().filter_map(|p| self.of.get(p)), self.demanded, targets)
    }
}

/// Reads all that a provider's spec refers to. `demanded`: each Secret must say where it may go.
///
/// # Errors
/// [`Problem`] while one of them isn't there.
pub async fn read(
    service: &Service,
    secrets: &Secrets,
    demanded: bool,
) -> Result<(Credentials, Lending), Problem> {
    let (mut found, mut lending) = (BTreeMap::new(), Lending { demanded, ..Lending::default() });
    let references = references(service);
    let reader = secrets.reader(references.iter().map(|r| (r.name.as_str(), r.key.as_str())));
    for r in &references {
        let value = reader.value(&r.name, &r.key, Reason::ProviderCredentialMissing, r.field).await?;
        found.insert(r.purpose, Kept(value));
        lending.of.extend(reader.lent(&r.name).await.map(|lent| (r.purpose, lent)));
    }
    Ok((Credentials(found), lending))
}
