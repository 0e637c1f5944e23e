//! The installation: its identity and master keys, kept in one Secret of the operator's
//! namespace. Made once, create-only; missing while links exist it is said, never made anew.

use super::problem::Problem;
use crate::api::names;
use crate::domain::{InstallationId, KeyRing, MasterKey, Reason};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::api::PostParams;
use kube::core::ObjectMeta;
use kube::{Api, Client};
use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

const ID: &str = "installation";

/// The keys, as they were last read.
pub struct Installation {
    secret: String,
    state: RwLock<Result<Arc<KeyRing>, Problem>>,
}

impl Installation {
    /// The key of the Secret with the name of the active master key.
    pub const ACTIVE: &'static str = "active";
    /// What the keys of the Secret with master keys begin with; the rest is the name.
    pub const KEY: &'static str = "key.";

    /// An installation whose keys stand in the Secret of this name.
    pub fn new(secret: impl Into<String>) -> Self {
        let unread = Problem::wait(Reason::MasterKeyUnread, "the operator hasn't read its master key yet");
        Self { secret: secret.into(), state: RwLock::new(Err(unread)) }
    }

    /// Name of the Secret.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The keys.
    ///
    /// # Errors
    /// [`Problem`] while there are none.
    pub fn keys(&self) -> Result<Arc<KeyRing>, Problem> {
        self.state.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Reads the keys; makes them where there are none and `may_create` says that nothing was ever
    /// derived from any. Says whether they changed.
    pub async fn load(&self, client: &Client, namespace: &str, may_create: bool) -> bool {
        let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
        let found = match api.get_opt(&self.secret).await {
            Ok(Some(secret)) => self.parse(&secret),
            Ok(None) if may_create => self.create(&api).await,
            Ok(None) => Err(Problem::edit(
                Reason::MasterKeyMissing,
                format!(
                    "Secret {} of namespace {namespace} with the installation's master key is gone, and links depend on it; \
                     restore it from the backup (a new key would change every client secret)",
                    self.secret
                ),
            )),
            Err(e) => Err(Problem::kube(&format!("Secret {}", self.secret), &e)),
        };
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        // An API server that doesn't answer doesn't take away the keys that we have.
        if let (Ok(_), Err(p)) = (state.as_ref(), &found)
            && p.mend != super::problem::Mend::Edit
        {
            return false;
        }
        let same = match (state.as_ref(), &found) {
            (Ok(a), Ok(b)) => a == b,
            (Err(a), Err(b)) => a == b,
            _ => false,
        };
        *state = found;
        !same
    }

    async fn create(&self, api: &Api<Secret>) -> Result<Arc<KeyRing>, Problem> {
        let random = |bytes: &mut [u8]| {
            getrandom::fill(bytes)
                .map_err(|_| Problem::wait(Reason::NoRandomness, "the system gives no random bytes"))
        };
        let (mut id, mut key) = ([0u8; 10], [0u8; 32]);
        random(&mut id)?;
        random(&mut key)?;
        let id: String = id.iter().map(|b| format!("{b:02x}")).collect();
        let bytes = |b: &[u8]| ByteString(b.to_vec());
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(self.secret.clone()),
                labels: Some(BTreeMap::from([
                    (names::MANAGED_BY.into(), names::MANAGED_BY_VALUE.into()),
                    (names::COMPONENT.into(), "master-key".into()),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([
                (ID.to_owned(), bytes(id.as_bytes())),
                (Self::ACTIVE.to_owned(), bytes(b"1")),
                (format!("{}1", Self::KEY), bytes(&key)),
            ])),
            ..Secret::default()
        };
        let params = PostParams { field_manager: Some(names::FIELD_MANAGER.into()), ..PostParams::default() };
        match api.create(&params, &secret).await {
            Ok(secret) => {
                tracing::info!(secret = %self.secret, "made the installation's master key; back it up");
                self.parse(&secret)
            }
            // Somebody was faster: theirs counts.
            Err(kube::Error::Api(s)) if s.code == 409 => {
                let secret = api.get(&self.secret).await.map_err(|e| Problem::kube("the master key", &e))?;
                self.parse(&secret)
            }
            Err(e) => Err(Problem::kube(&format!("Secret {}", self.secret), &e)),
        }
    }

    fn parse(&self, secret: &Secret) -> Result<Arc<KeyRing>, Problem> {
        let bad =
            |why: &str| Problem::edit(Reason::MasterKeyInvalid, format!("Secret {}: {why}", self.secret));
        let data = secret.data.as_ref().ok_or_else(|| bad("is empty; restore it from the backup"))?;
        let text = |key: &str| {
            data.get(key)
                .and_then(|b| std::str::from_utf8(&b.0).ok())
                .map(str::trim)
                .unwrap_or_default()
                .to_owned()
        };
        let id = InstallationId::parse(&text(ID)).ok_or_else(|| {
            bad("key installation must hold 1 to 64 characters of a-z, 0-9 and -, the installation's identity")
        })?;
        let mut keys = BTreeMap::new();
        for (name, bytes) in data.iter().filter_map(|(k, v)| k.strip_prefix(Self::KEY).map(|n| (n, &v.0))) {
            let key: [u8; 32] = bytes.as_slice().try_into().map_err(|_| {
                bad(&format!("key {}{name} must be exactly 32 bytes, and is {}", Self::KEY, bytes.len()))
            })?;
            keys.insert(name.to_owned(), MasterKey::from_bytes(key));
        }
        KeyRing::from_keys(id, &text(Self::ACTIVE), keys)
            .map(|ring| Arc::new(ring.at_home(secret.metadata.uid.as_deref().unwrap_or_default())))
            .ok_or_else(|| bad("key active must hold the NAME of one of the keys key.NAME"))
    }
}
