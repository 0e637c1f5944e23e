//! Connections to provider services: made from a provider object and its credential, checked,
//! and kept for a while, so that ten thousand links don't ask ten thousand times who a provider is,
//! and a dead one is tried once and not by each of its links.

use super::problem::Problem;
use crate::domain::{AuthMethod, ClientId, SecretString};
use crate::provider::{Proof, Provider, ProviderInfo};
use base64::Engine as _;
use std::collections::HashMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long a provider is taken to be what it said it is.
const FRESH: Duration = Duration::from_secs(60);
/// How long a provider that failed isn't tried again.
const FAILED: Duration = Duration::from_secs(3);

/// A provider that answered.
pub struct Connected {
    /// Its adapter.
    pub provider: Box<dyn Provider>,
    /// Who it says it is.
    pub info: ProviderInfo,
    /// Whether a record of it was made by a version to which type and address were a `LinkProvider`'s
    /// identity.
    pub recorded_before: bool,
    /// Whether it was seen to refuse a wrong secret since it started.
    controlled: Mutex<bool>,
}

impl Connected {
    /// A provider that just answered.
    pub fn new(provider: Box<dyn Provider>, info: ProviderInfo) -> Self {
        Self { provider, info, recorded_before: false, controlled: Mutex::new(false) }
    }

    /// Proves credentials. A provider that takes any secret proves nothing: so after the first
    /// success a random one must be refused.
    pub async fn prove(&self, id: &ClientId, secret: &SecretString, method: AuthMethod) -> Proof {
        let proof = self.provider.prove(&self.info, id, secret, method).await;
        if proof != Proof::Authenticated || *self.controlled.lock().unwrap_or_else(PoisonError::into_inner) {
            return proof;
        }
        let Some(wrong) = random_secret() else { return Proof::Unproved };
        if self.provider.prove(&self.info, id, &wrong, method).await != Proof::Refused {
            return Proof::Unproved;
        }
        *self.controlled.lock().unwrap_or_else(PoisonError::into_inner) = true;
        proof
    }
}

impl Connected {
    /// Whether it was seen to take right credentials and to refuse wrong ones since it started: then
    /// a refusal means what it says.
    pub fn is_controlled(&self) -> bool {
        *self.controlled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A random secret of the derived ones' form.
pub fn random_secret() -> Option<SecretString> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into())
}

struct Entry {
    /// What it was made from.
    version: String,
    at: Instant,
    result: Result<Arc<Connected>, Problem>,
}

/// The connections that there are.
#[derive(Default)]
pub struct Connections {
    entries: Mutex<HashMap<String, Entry>>,
    /// One attempt at a time for each provider.
    turns: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Connections {
    fn fresh(&self, uid: &str, version: &str) -> Option<Result<Arc<Connected>, Problem>> {
        let entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = entries.get(uid).filter(|e| e.version == version)?;
        let keep = if entry.result.is_ok() { FRESH } else { FAILED };
        (entry.at.elapsed() < keep).then(|| entry.result.clone())
    }

    /// The connection to a provider, as it is known or made by `connect`.
    ///
    /// # Errors
    /// What `connect` said, now or a moment ago.
    pub async fn get<F>(&self, uid: &str, version: &str, connect: F) -> Result<Arc<Connected>, Problem>
    where
        F: Future<Output = Result<Connected, Problem>>,
    {
        if let Some(known) = self.fresh(uid, version) {
            return known;
        }
        let turn = self
            .turns
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .entry(uid.to_owned())
            .or_default()
            .clone();
        let _turn = turn.lock().await;
        if let Some(known) = self.fresh(uid, version) {
            return known;
        }
        let result = connect.await.map(Arc::new);
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Ok(new), Some(Ok(old))) = (&result, entries.get(uid).map(|e| &e.result))
            && new.info.instance == old.info.instance
        {
            let seen = *old.controlled.lock().unwrap_or_else(PoisonError::into_inner);
            *new.controlled.lock().unwrap_or_else(PoisonError::into_inner) = seen;
        }
        entries.insert(
            uid.to_owned(),
            Entry { version: version.to_owned(), at: Instant::now(), result: result.clone() },
        );
        result
    }

    /// Remembers that a provider just failed, so that its other links don't each find out.
    pub fn failed(&self, uid: &str, problem: &Problem) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = entries.get_mut(uid) {
            entry.at = Instant::now();
            entry.result = Err(problem.clone());
        }
    }

    /// Forgets a provider: its object or its credential changed.
    pub fn forget(&self, uid: &str) {
        let kept = Self::kept(uid);
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).retain(|k, _| k != uid && *k != kept);
        let mut turns = self.turns.lock().unwrap_or_else(PoisonError::into_inner);
        turns.retain(|k, turn| (k != uid && *k != kept) || Arc::strong_count(turn) > 1);
    }

    /// The name of the connection that is made from what was kept of a provider.
    pub fn kept(uid: &str) -> String {
        format!("kept {uid}")
    }
}
