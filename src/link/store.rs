//! The records that the operator keeps in its own namespace: grants, and what unregistering from
//! a provider needs. Each is one Secret with one JSON document.

use super::consent::Consent;
use super::grant::Grant;
use super::identity::Identity;
use super::kept_client::KeptClients;
use super::orphans::Ledger;
use super::problem::Problem;
use super::providers::{self, ProviderView};
use crate::api::link::ProviderKind;
use crate::api::names;
use crate::api::provider::Service;
use crate::domain::Reason;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::ObjectMeta;
use kube::{Api, Client, ResourceExt as _};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const KEY: &str = "record.json";
const GRANT: &str = "grant";
const PROVIDER: &str = "provider";
const CLIENT: &str = "client";
const CONSENT: &str = "consent";
const ORPHANS: &str = "orphans";
/// There is one record of orphans.
const ALL: &str = "all";

/// What unregistering from a provider needs, kept while links use it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct KeptProvider {
    /// Its kind.
    pub kind: ProviderKind,
    /// Its namespace, if it has one.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// What it was.
    pub service: Service,
    /// Its credentials.
    pub credentials: super::credentials::Credentials,
    /// Whether a version recorded it to which type and address were a `LinkProvider`'s identity: it
    /// wrote nothing here.
    #[serde(default = "yes")]
    pub recorded_before: bool,
}

impl KeptProvider {
    /// What the provider is to links of a namespace, among all that there are.
    pub fn identity(&self, links: &str, all: &[ProviderView]) -> Identity {
        let namespace = self.namespace.as_deref();
        providers::identity(
            (self.kind, namespace, &self.uid),
            &self.service,
            self.recorded_before,
            links,
            all,
        )
    }
}

const fn yes() -> bool {
    true
}

/// The operator's own records.
#[derive(Clone)]
pub struct Store {
    api: Api<Secret>,
}

impl Store {
    /// The records of the operator's namespace.
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { api: Api::namespaced(client, namespace) }
    }

    /// The grant of a link, and its version.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn grant(&self, link_uid: &str) -> Result<Option<(Grant, String)>, Problem> {
        self.read(GRANT, link_uid).await
    }

    /// Writes a grant: makes it, or replaces the version that was read. Gives back the new version.
    ///
    /// # Errors
    /// [`Problem`]; a change since it was read is a conflict.
    pub async fn save_grant(&self, grant: &Grant, version: Option<&str>) -> Result<String, Problem> {
        self.save(GRANT, &grant.link.uid, grant, version).await
    }

    /// Removes a grant; one that is gone is no error.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses.
    pub async fn drop_grant(&self, link_uid: &str) -> Result<(), Problem> {
        self.remove(GRANT, link_uid).await
    }

    /// All grants.
    ///
    /// # Errors
    /// [`Problem`] when they can't be listed.
    pub async fn grants(&self) -> Result<Vec<(Grant, String)>, Problem> {
        self.list(GRANT).await
    }

    /// The consent under way of a link, and its version.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn consent(&self, link_uid: &str) -> Result<Option<(Consent, String)>, Problem> {
        self.read(CONSENT, link_uid).await
    }

    /// Writes a consent: makes it, or replaces the version that was read. Gives back the new version.
    ///
    /// # Errors
    /// [`Problem`]; a change since it was read is a conflict.
    pub async fn save_consent(&self, consent: &Consent, version: Option<&str>) -> Result<String, Problem> {
        self.save(CONSENT, &consent.link.uid, consent, version).await
    }

    /// Removes a consent of the version that was read; one that is gone is no error.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses. Another consent that took its place stays: a conflict.
    pub async fn drop_consent(&self, link_uid: &str, version: &str) -> Result<(), Problem> {
        let preconditions = Preconditions { resource_version: Some(version.to_owned()), uid: None };
        let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::default() };
        self.remove_with(CONSENT, link_uid, &params).await
    }

    /// All consents under way.
    ///
    /// # Errors
    /// [`Problem`] when they can't be listed.
    pub async fn consents(&self) -> Result<Vec<(Consent, String)>, Problem> {
        self.list(CONSENT).await
    }

    /// What is kept of a link's clients.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn clients(&self, link_uid: &str) -> Result<Option<(KeptClients, String)>, Problem> {
        self.read(CLIENT, link_uid).await
    }

    /// Keeps a link's clients: makes the record, or replaces the version that was read. Gives back
    /// the new version.
    ///
    /// # Errors
    /// [`Problem`]; a change since it was read is a conflict.
    pub async fn keep_clients(&self, kept: &KeptClients, version: Option<&str>) -> Result<String, Problem> {
        self.save(CLIENT, &kept.link.uid, kept, version).await
    }

    /// Forgets a link's clients; a record that is gone is no error.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses.
    pub async fn forget_clients(&self, link_uid: &str) -> Result<(), Problem> {
        self.remove(CLIENT, link_uid).await
    }

    /// What is kept of all links' clients.
    ///
    /// # Errors
    /// [`Problem`] when it can't be listed.
    pub async fn all_clients(&self) -> Result<Vec<(KeptClients, String)>, Problem> {
        self.list(CLIENT).await
    }

    /// Shows what is kept of each link's clients, a page of records in memory at a time.
    ///
    /// # Errors
    /// [`Problem`] when they can't be listed.
    pub async fn each_client_record(&self, mut show: impl FnMut(&KeptClients)) -> Result<(), Problem> {
        let mut params = Self::listing(CLIENT).limit(100);
        loop {
            let page =
                self.api.list(&params).await.map_err(|e| Problem::kube("the operator's records", &e))?;
            for secret in &page.items {
                if let Ok((kept, _)) = parse::<KeptClients>(CLIENT, secret) {
                    show(&kept);
                }
            }
            match page.metadata.continue_.filter(|c| !c.is_empty()) {
                Some(token) => params = params.continue_token(&token),
                None => return Ok(()),
            }
        }
    }

    /// What is known of orphans.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn orphans(&self) -> Result<Option<(Ledger, String)>, Problem> {
        self.read(ORPHANS, ALL).await
    }

    /// Keeps what is known of orphans: makes the record, or replaces the version that was read.
    ///
    /// # Errors
    /// [`Problem`]; a change since it was read is a conflict.
    pub async fn keep_orphans(&self, ledger: &Ledger, version: Option<&str>) -> Result<String, Problem> {
        self.save(ORPHANS, ALL, ledger, version).await
    }

    /// What is kept of a provider.
    ///
    /// # Errors
    /// [`Problem`] when it can't be read.
    pub async fn provider(&self, uid: &str) -> Result<Option<(KeptProvider, String)>, Problem> {
        self.read(PROVIDER, uid).await
    }

    /// Keeps a provider.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses.
    pub async fn keep_provider(&self, kept: &KeptProvider, version: Option<&str>) -> Result<String, Problem> {
        self.save(PROVIDER, &kept.uid, kept, version).await
    }

    /// Forgets a provider.
    ///
    /// # Errors
    /// [`Problem`] when the API server refuses.
    pub async fn forget_provider(&self, uid: &str) -> Result<(), Problem> {
        self.remove(PROVIDER, uid).await
    }

    /// All kept providers.
    ///
    /// # Errors
    /// [`Problem`] when they can't be listed.
    pub async fn providers(&self) -> Result<Vec<(KeptProvider, String)>, Problem> {
        self.list(PROVIDER).await
    }

    fn name(kind: &str, uid: &str) -> String {
        format!("applink-{kind}-{uid}")
    }

    async fn read<T: DeserializeOwned>(&self, kind: &str, uid: &str) -> Result<Option<(T, String)>, Problem> {
        let name = Self::name(kind, uid);
        let secret = self.api.get_opt(&name).await.map_err(|e| Problem::kube(&name, &e))?;
        secret.map(|s| parse(kind, &s)).transpose()
    }

    async fn list<T: DeserializeOwned>(&self, kind: &str) -> Result<Vec<(T, String)>, Problem> {
        let list = self
            .api
            .list(&Self::listing(kind))
            .await
            .map_err(|e| Problem::kube("the operator's records", &e))?;
        // One record that can't be read doesn't hide the others; it is said where it is used.
        Ok(list.items.iter().filter_map(|s| parse(kind, s).ok()).collect())
    }

    fn listing(kind: &str) -> ListParams {
        ListParams::default().labels(&format!(
            "{}={},{}={kind}",
            names::MANAGED_BY,
            names::MANAGED_BY_VALUE,
            names::COMPONENT
        ))
    }

    async fn save<T: Serialize>(
        &self,
        kind: &str,
        uid: &str,
        record: &T,
        version: Option<&str>,
    ) -> Result<String, Problem> {
        let name = Self::name(kind, uid);
        let bytes = serde_json::to_vec(record)
            .map_err(|_| Problem::edit(Reason::RecordError, format!("{name} can't be written as JSON")))?;
        let labels = BTreeMap::from([
            (names::MANAGED_BY.to_owned(), names::MANAGED_BY_VALUE.to_owned()),
            (names::COMPONENT.to_owned(), kind.to_owned()),
            (names::KEPT_FOR.to_owned(), uid.to_owned()),
        ]);
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(name.clone()),
                labels: Some(labels),
                resource_version: version.map(str::to_owned),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(KEY.to_owned(), ByteString(bytes))])),
            ..Secret::default()
        };
        let manager = Some(names::FIELD_MANAGER.to_owned());
        let saved = match version {
            None => {
                let params = PostParams { field_manager: manager, ..PostParams::default() };
                self.api.create(&params, &secret).await
            }
            // The version in it makes it conditional; the whole record is one value.
            Some(_) => {
                let params = PatchParams { field_manager: manager, ..PatchParams::default() };
                self.api.patch(&name, &params, &Patch::Merge(&secret)).await
            }
        };
        match saved {
            Ok(secret) => Ok(secret.resource_version().unwrap_or_default()),
            Err(kube::Error::Api(s)) if s.code == 404 => Err(Problem::conflict(&name)),
            Err(e) => Err(Problem::kube(&name, &e)),
        }
    }

    async fn remove(&self, kind: &str, uid: &str) -> Result<(), Problem> {
        self.remove_with(kind, uid, &DeleteParams::default()).await
    }

    async fn remove_with(&self, kind: &str, uid: &str, params: &DeleteParams) -> Result<(), Problem> {
        let name = Self::name(kind, uid);
        match self.api.delete(&name, params).await {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(s)) if s.code == 404 => Ok(()),
            Err(e) => Err(Problem::kube(&name, &e)),
        }
    }
}

fn parse<T: DeserializeOwned>(kind: &str, secret: &Secret) -> Result<(T, String), Problem> {
    let name = secret.name_any();
    let bytes = secret.data.as_ref().and_then(|d| d.get(KEY));
    let record = bytes.and_then(|b| serde_json::from_slice(&b.0).ok()).ok_or_else(|| {
        Problem::edit(
            Reason::RecordError,
            format!("the operator's {kind} record {name} can't be read; restore it from a backup, or delete it to start anew"),
        )
    })?;
    Ok((record, secret.resource_version().unwrap_or_default()))
}
