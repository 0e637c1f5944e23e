//! What outlives a connection to a realm: the operator's access token, and whether clients can have
//! two secrets there. Connections are made anew each minute.

use super::scopes::Scopes;
use crate::domain::{ClientId, ExposeSecret as _, SecretString};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
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
    /// Locked while it is found out whether clients can have two secrets.
    pub(super) looking: tokio::sync::Mutex<()>,
    /// How many seconds Keycloak's clock is ahead of ours.
    ahead: AtomicI64,
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

    /// Reads Keycloak's clock off a token that it gave us between `asked` and `given`: one of its
    /// own, so a JWT.
    pub(super) fn set_clock(&self, token: &SecretString, asked: i64, given: i64) {
        if let Some(issued) = issued_at(token.expose_secret()) {
            let ahead = issued.saturating_sub(issued.clamp(asked, given.max(asked)));
            self.ahead.store(ahead, Ordering::Relaxed);
        }
    }

    /// What Keycloak's clock says when ours says `now`.
    pub(super) fn clock(&self, now: i64) -> i64 {
        now.saturating_add(self.ahead.load(Ordering::Relaxed))
    }

    pub(super) fn scopes(&self) -> Option<Arc<Scopes>> {
        self.scopes.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_scopes(&self, scopes: Option<Arc<Scopes>>) {
        *self.scopes.lock().unwrap_or_else(PoisonError::into_inner) = scopes;
    }
}

fn issued_at(token: &str) -> Option<i64> {
    #[derive(Deserialize)]
    struct Claims {
        iat: i64,
    }
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    Some(serde_json::from_slice::<Claims>(&claims).ok()?.iat)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keycloaks_clock_is_read_where_a_token_tells_it() {
        let session = Session::default();
        let token = |claims: &str| SecretString::from(format!("e30.{}.x", URL_SAFE_NO_PAD.encode(claims)));
        for (asked, given, clock) in
            [(1300, 1301, 2000), (1299, 1300, 2000), (1302, 1303, 1998), (990, 1000, 2300)]
        {
            session.set_clock(&token(r#"{"iat": 1300}"#), asked, given);
            assert_eq!(session.clock(2000), clock);
        }
        for other in [token("{}"), token("[]"), "opaque".into(), "a.ü.c".into()] {
            session.set_clock(&other, 1000, 1000);
            assert_eq!(session.clock(2000), 2300);
        }
    }

    #[test]
    fn a_session_is_of_one_credential_and_lives_while_it_is_used() {
        let base = Url::parse("https://sso.example.com").expect("a URL");
        let of = |realm: &str, secret: &str| {
            Session::of(&base, realm, &ClientId::parse("op").expect("an ID"), &secret.into())
        };
        let first = of("session-realm", "a");
        first.set_rotates(true);
        assert!(Arc::ptr_eq(&first, &of("session-realm", "a")));
        assert!(!of("session-realm", "b").rotated() && !of("session-realm-2", "a").rotated());
        drop(first);
        assert!(!of("session-realm", "a").rotated());
    }
}
