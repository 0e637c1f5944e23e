//! A Pod's volumes as folders, filled as a kubelet fills them.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;

use jiff::Timestamp;

use k8s_openapi::ByteString;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, DownwardAPIVolumeFile, KeyToPath, PersistentVolumeClaim, Pod, Secret,
    ServiceAccount, Volume, VolumeProjection,
};
use kube::api::{Api, PostParams};

use super::access::Access;
use super::container::field;

type Files = BTreeMap<String, Vec<u8>>;

/// A path that the container knows, and the folder that is there in truth.
#[derive(Clone, Debug)]
pub struct Mount {
    pub path: String,
    pub folder: PathBuf,
}

/// A token of a ServiceAccount that lies in a volume.
#[derive(Clone, Debug)]
struct Token {
    text: String,
    issued: Timestamp,
    ends: Timestamp,
}

/// When a projected token is exchanged for a new one, in hundredths of its life: as a kubelet does it.
pub const RENEW_AT: i64 = 80;

/// Whether `hundredths` of a token's life are over.
fn is_due(issued: Timestamp, ends: Timestamp, hundredths: i64, now: Timestamp) -> bool {
    let (life, lived) = (ends.as_second() - issued.as_second(), now.as_second() - issued.as_second());
    lived * 100 >= life * hundredths
}

/// The volumes of one Pod.
pub struct Volumes {
    access: Access,
    namespace: String,
    folder: PathBuf,
    /// By the path in the volume and the audience. A token is kept until it is due.
    tokens: Mutex<BTreeMap<(String, Option<String>), Token>>,
    renew_at: Mutex<i64>,
    /// Two that fill at the same time would write into each other's files, and an older content over a newer one.
    filling: tokio::sync::Mutex<()>,
}

impl Volumes {
    pub fn new(access: Access, namespace: &str, folder: PathBuf) -> Self {
        let (tokens, renew_at) = (Mutex::default(), Mutex::new(RENEW_AT));
        let filling = tokio::sync::Mutex::default();
        Self { access, namespace: namespace.to_owned(), folder, tokens, renew_at, filling }
    }

    /// Has tokens renewed after another part of their life than [`RENEW_AT`].
    pub fn renew_tokens_at(&self, hundredths: i64) {
        *self.renew_at.lock().expect("no panic while it was set") = hundredths;
    }

    /// Where the container sees them, the longest path first.
    pub fn mounts(&self, pod: &Pod, container: &Container) -> Vec<Mount> {
        let volumes = volumes(pod);
        let mut mounts: Vec<Mount> = Vec::new();
        for mount in container.volume_mounts.iter().flatten() {
            let volume = volumes.iter().find(|volume| volume.name == mount.name);
            let volume = volume.unwrap_or_else(|| panic!("there is no volume for the mount {}", mount.name));
            let folder = self.folder_of(volume).join(mount.sub_path.as_deref().unwrap_or_default());
            mounts.push(Mount { path: mount.mount_path.trim_end_matches('/').to_owned(), folder });
        }
        mounts.sort_by_key(|mount| std::cmp::Reverse(mount.path.len()));
        mounts
    }

    /// A claim's folder is the claim's, not the Pod's: it outlives the Pod.
    fn folder_of(&self, volume: &Volume) -> PathBuf {
        match &volume.persistent_volume_claim {
            Some(claim) => self.access.folder().join("claims").join(&self.namespace).join(&claim.claim_name),
            None => self.folder.join(&volume.name),
        }
    }

    /// Fills them, as a kubelet does before it starts a container and from time to time afterwards.
    ///
    /// # Errors
    /// When something that must be there isn't: the others are filled all the same, and what was there stays.
    ///
    /// # Panics
    /// When the Pod has a kind of volume that isn't known here.
    pub async fn fill(&self, pod: &Pod) -> Result<(), String> {
        let _filling = self.filling.lock().await;
        let mut missing = Ok(());
        for volume in volumes(pod) {
            match self.files(pod, volume).await {
                Ok(files) => self.write(volume, files),
                Err(why) => missing = Err(format!("volume {}: {why}", volume.name)),
            }
        }
        missing
    }

    fn write(&self, volume: &Volume, files: Option<Files>) {
        let folder = self.folder_of(volume);
        std::fs::create_dir_all(&folder).expect("a volume's folder");
        if let Some(files) = files {
            write_files(&folder, &files);
        }
    }

    /// What should be in a volume; `None` where that is the container's own affair.
    async fn files(&self, pod: &Pod, volume: &Volume) -> Result<Option<Files>, String> {
        if volume.empty_dir.is_some() {
            return Ok(None);
        }
        if let Some(claim) = &volume.persistent_volume_claim {
            let claims: Api<PersistentVolumeClaim> = self.api();
            claims.get(&claim.claim_name).await.map_err(|error| error.to_string())?;
            return Ok(None);
        }
        if let Some(secret) = &volume.secret {
            let name = secret.secret_name.as_deref().unwrap_or_default();
            return self.secret(name, secret.items.as_deref(), secret.optional).await.map(Some);
        }
        if let Some(map) = &volume.config_map {
            return self.config_map(&map.name, map.items.as_deref(), map.optional).await.map(Some);
        }
        if let Some(downward) = &volume.downward_api {
            return Ok(Some(self.downward(pod, downward.items.as_deref())));
        }
        if let Some(projected) = &volume.projected {
            let mut files = Files::new();
            for source in projected.sources.iter().flatten() {
                files.extend(self.projection(pod, source).await?);
            }
            return Ok(Some(files));
        }
        panic!("the rig does not know this kind of volume: {volume:?}")
    }

    async fn projection(&self, pod: &Pod, source: &VolumeProjection) -> Result<Files, String> {
        if let Some(token) = &source.service_account_token {
            let key = (token.path.clone(), token.audience.clone());
            let held = self.tokens.lock().expect("no panic while a token was kept").get(&key).cloned();
            let hundredths = *self.renew_at.lock().expect("no panic while it was set");
            let token = match held {
                Some(held) if !is_due(held.issued, held.ends, hundredths, Timestamp::now()) => held,
                _ => self.token(pod, token.audience.clone(), token.expiration_seconds).await?,
            };
            let files = Files::from([(key.0.clone(), token.text.clone().into_bytes())]);
            self.tokens.lock().expect("no panic while a token was kept").insert(key, token);
            return Ok(files);
        }
        if let Some(secret) = &source.secret {
            return self.secret(&secret.name, secret.items.as_deref(), secret.optional).await;
        }
        if let Some(map) = &source.config_map {
            return self.config_map(&map.name, map.items.as_deref(), map.optional).await;
        }
        if let Some(downward) = &source.downward_api {
            return Ok(self.downward(pod, downward.items.as_deref()));
        }
        panic!("the rig does not know this kind of projection: {source:?}")
    }

    /// A token of the Pod's ServiceAccount, as the kubelet asks for it (but not bound to the Pod).
    async fn token(
        &self,
        pod: &Pod,
        audience: Option<String>,
        seconds: Option<i64>,
    ) -> Result<Token, String> {
        let account =
            pod.spec.as_ref().and_then(|spec| spec.service_account_name.as_deref()).unwrap_or("default");
        let accounts: Api<ServiceAccount> = self.api();
        let spec = TokenRequestSpec {
            audiences: audience.into_iter().collect(),
            expiration_seconds: seconds,
            ..TokenRequestSpec::default()
        };
        let request = TokenRequest { spec, ..TokenRequest::default() };
        let issued = Timestamp::now();
        let answer = accounts.create_token_request(account, &PostParams::default(), &request).await;
        let status = answer.map_err(|error| error.to_string())?.status;
        let status = status.ok_or("a TokenRequest without an answer")?;
        Ok(Token { text: status.token, issued, ends: status.expiration_timestamp.0 })
    }

    /// The content of a Secret, or of nothing where it is optional and not there.
    async fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Files, String> {
        let data = self.secret_data(name).await?;
        chosen(&format!("Secret {name}"), data, items, optional.unwrap_or_default())
    }

    async fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
    ) -> Result<Files, String> {
        let data = self.config_map_data(name).await?;
        chosen(&format!("ConfigMap {name}"), data, items, optional.unwrap_or_default())
    }

    /// A Secret's content; `None` where there is no such Secret.
    pub async fn secret_data(&self, name: &str) -> Result<Option<Files>, String> {
        let secrets: Api<Secret> = self.api();
        let secret = secrets.get_opt(name).await.map_err(|error| error.to_string())?;
        let content =
            |data: BTreeMap<String, ByteString>| data.into_iter().map(|(key, value)| (key, value.0));
        Ok(secret.map(|secret| content(secret.data.unwrap_or_default()).collect()))
    }

    /// A ConfigMap's content; `None` where there is no such ConfigMap.
    pub async fn config_map_data(&self, name: &str) -> Result<Option<Files>, String> {
        let maps: Api<ConfigMap> = self.api();
        let map = maps.get_opt(name).await.map_err(|error| error.to_string())?;
        Ok(map.map(|map| {
            let text = map.data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.into_bytes()));
            let binary = map.binary_data.unwrap_or_default().into_iter().map(|(key, value)| (key, value.0));
            text.chain(binary).collect()
        }))
    }

    fn downward(&self, pod: &Pod, items: Option<&[DownwardAPIVolumeFile]>) -> Files {
        let content = |item: &DownwardAPIVolumeFile| {
            let path = item.field_ref.as_ref().map_or("", |reference| &reference.field_path);
            (item.path.clone(), field(pod, path).into_bytes())
        };
        items.unwrap_or_default().iter().map(content).collect()
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = k8s_openapi::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.access.client(), &self.namespace)
    }
}

fn volumes(pod: &Pod) -> &[Volume] {
    pod.spec.as_ref().and_then(|spec| spec.volumes.as_deref()).unwrap_or_default()
}

/// The keys that a volume names, under the paths that it gives them; without names, all of them.
fn chosen(
    what: &str,
    data: Option<Files>,
    items: Option<&[KeyToPath]>,
    optional: bool,
) -> Result<Files, String> {
    let Some(data) = data else {
        return if optional { Ok(Files::new()) } else { Err(format!("there is no {what}")) };
    };
    let Some(items) = items else {
        return Ok(data);
    };
    let mut files = Files::new();
    for item in items {
        match data.get(&item.key) {
            Some(content) => _ = files.insert(item.path.clone(), content.clone()),
            None if optional => {}
            None => return Err(format!("{what} has no key {}", item.key)),
        }
    }
    Ok(files)
}

/// Makes these files the folder's content. Each is exchanged whole: a reader sees the old or the new one.
fn write_files(folder: &Path, files: &Files) {
    for (name, content) in files {
        let path = folder.join(name);
        if std::fs::read(&path).is_ok_and(|old| old == *content) {
            continue;
        }
        let parent = path.parent().expect("a file in a folder");
        std::fs::create_dir_all(parent).expect("a folder in a volume");
        let fresh = parent.join("..fresh");
        std::fs::write(&fresh, content).expect("a file in a volume");
        std::fs::rename(&fresh, &path).expect("a file in a volume");
    }
    let first_parts: BTreeSet<&str> = files.keys().filter_map(|name| name.split('/').next()).collect();
    for entry in std::fs::read_dir(folder).expect("a volume's folder").flatten() {
        if entry.path().is_file() && !first_parts.contains(entry.file_name().to_string_lossy().as_ref()) {
            std::fs::remove_file(entry.path()).expect("a file that has gone from a volume");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_renewed_after_the_greater_part_of_its_life() {
        let at = |second| Timestamp::from_second(second).expect("a time");
        let due = |now| is_due(at(1_000), at(1_000 + 3_600), RENEW_AT, at(now));
        assert!(!due(1_000) && !due(1_000 + 2_879));
        assert!(due(1_000 + 2_880) && due(1_000 + 3_600) && due(9_000));
    }
}
