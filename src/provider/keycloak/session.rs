//! What outlives a connection to a realm: the operator's access token, and whether clients can have
//! two secrets there. Connections are made anew each minute.

use super::scopes::Scopes;
use crate::domain::{ClientId, ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};
use url::Url;

/// How long a realm is taken not to let a client have two secrets. That it does is looked at again
/// with each client that it matters for.
const DOUBT: Duration = Duration::from_secs(600);

/// An access token of ours.
pub(super) struct Token {
    pub(super) secret: SecretString,
    pub(super) renew_at: Instant,
}

/// What is known for as long as somebody is connected.
#[derive(Default)]
pub(super) struct Session {
    /// Locked while a token is asked for, so that one is.
    pub(super) token: tokio::sync::Mutex<Option<Token>>,
    rotation: Mutex<Option<(bool, Instant)>>,
    scopes: Mutex<Option<Arc<Scopes>>>,
}

impl Session {
    /// The session of these credentials at a realm: the one that is under way, or a new one.
    pub(super) fn of(base: &Url, realm: &str, id: &ClientId, secret: &SecretString) -> Arc<Self> {
        static UNDER_WAY: OnceLock<Mutex<HashMap<[u8; 32], Weak<Session>>>> = OnceLock::new();
        let mut hash = Sha256::new();
        for part in [base.as_str(), realm, id.as_str(), secret.expose_secret()] {
            hash.update((part.len() as u64).to_be_bytes());
            hash.update(part.as_bytes());
        }
        let key = hash.finalize().into();
        let sessions = UNDER_WAY.get_or_init(Mutex::default);
        let mut sessions = sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(&key).and_then(Weak::upgrade) {
            return session;
        }
        sessions.retain(|_, s| s.strong_count() > 0);
        let session = Arc::new(Self::default());
        sessions.insert(key, Arc::downgrade(&session));
        session
    }

    /// Whether a client can have two secrets; `None` where that isn't known, or not any more.
    pub(super) fn rotates(&self) -> Option<bool> {
        let known = *self.rotation.lock().unwrap_or_else(PoisonError::into_inner);
        known.filter(|(yes, at)| *yes || at.elapsed() < DOUBT).map(|(yes, _)| yes)
    }

    /// What was last known of it; false where nothing was.
    pub(super) fn rotated(&self) -> bool {
        self.rotation.lock().unwrap_or_else(PoisonError::into_inner).is_some_and(|(yes, _)| yes)
    }

    pub(super) fn set_rotates(&self, yes: bool) {
        *self.rotation.lock().unwrap_or_else(PoisonError::into_inner) = Some((yes, Instant::now()));
    }

    pub(super) fn scopes(&self) -> Option<Arc<Scopes>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_scopes(&self, scopes: Option<Arc<Scopes>>) {
        *self.scopes.lock().unwrap_or_else(PoisonError::into_inner) = scopes;
    }
}
