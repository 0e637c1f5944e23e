//! Secrets that were found to be right lately, so that a client pays for Argon2 once and not with each request.
//!
//! What is kept is a digest under a random key of this process, over the client, the form that the secret was checked
//! against and the secret itself. A client that is given another secret, here or at another replica, has another form in
//! the store, which is read with each request: so nothing has to be forgotten for it to count at once.

use super::StoredSecret;
use crate::domain::ClientId;
use crate::server::random::{self, NoRandomness};
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// For how long a secret is remembered that nobody presents.
const KEPT: Duration = Duration::from_secs(600);

/// So many are remembered at a time; then the one that wasn't used for longest goes.
const MOST: usize = 10_000;

/// A digest of client, stored form and secret.
pub type Digest = [u8; 32];

/// The secrets that are remembered.
pub struct Known {
    mac: Hmac<Sha256>,
    /// When each was last presented.
    used: Mutex<HashMap<Digest, Instant>>,
}

impl Known {
    /// Nothing, under a new key.
    ///
    /// # Errors
    /// [`NoRandomness`].
    pub fn nothing() -> Result<Self, NoRandomness> {
        let mac = Hmac::new(&random::bytes::<64>()?.into());
        Ok(Self { mac, used: Mutex::default() })
    }

    fn used(&self) -> MutexGuard<'_, HashMap<Digest, Instant>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The digest of a secret that a client presented, and of the form that it is checked against.
    pub fn digest(&self, client: &ClientId, stored: &StoredSecret, secret: &SecretString) -> Digest {
        let mut mac = self.mac.clone();
        for part in [client.as_str(), stored.to_stored(), secret.expose_secret()] {
            // With its length, so that nothing can move from one part to the next.
            mac.update(&u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            mac.update(part.as_bytes());
        }
        mac.finalize().into_bytes().into()
    }

    /// Whether this was found to be right lately.
    pub fn has(&self, digest: &Digest, now: Instant) -> bool {
        match self.used().get_mut(digest) {
            Some(used) if now.saturating_duration_since(*used) < KEPT => {
                *used = now;
                true
            }
            _ => false,
        }
    }

    /// Remembers what was found to be right.
    pub fn remember(&self, digest: Digest, now: Instant) {
        let mut used = self.used();
        if used.len() >= MOST
            && let Some(oldest) = used.iter().min_by_key(|(_, at)| **at).map(|(digest, _)| *digest)
        {
            used.remove(&oldest);
        }
        used.insert(digest, now);
    }

    /// Forgets what nobody presents any more.
    pub fn forget(&self, now: Instant) {
        self.used().retain(|_, used| now.saturating_duration_since(*used) < KEPT);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_known_while_it_is_used_and_only_with_its_client_and_form() {
        let known = Known::nothing().expect("random");
        let digest = |client: &str, stored: &str, secret: &str| {
            let client = ClientId::parse(client).expect("an ID");
            known.digest(&client, &StoredSecret::from_stored(stored.into()), &secret.to_owned().into())
        };
        let mut now = Instant::now();
        let right = digest("c", "form", "secret");
        assert!(!known.has(&right, now));
        known.remember(right, now);
        for _ in 0..3 {
            now += KEPT / 2;
            assert!(known.has(&digest("c", "form", "secret"), now));
        }
        for other in [
            digest("d", "form", "secret"),
            digest("c", "form2", "secret"),
            digest("c", "form", "secret2"),
            digest("cf", "orm", "secret"),
            digest("c", "forms", "ecret"),
        ] {
            assert!(!known.has(&other, now));
        }
        assert!(!Known::nothing().expect("random").has(&right, now));
        now += KEPT;
        assert!(!known.has(&right, now));
        known.forget(now);
        assert!(known.used().is_empty());
    }

    #[test]
    fn when_there_are_too_many_the_oldest_goes() {
        let known = Known::nothing().expect("random");
        let digest = |n: u32| {
            let mut digest = [0; 32];
            digest[..4].copy_from_slice(&n.to_be_bytes());
            digest
        };
        let most = u32::try_from(MOST).expect("a number");
        let at = |n: u32| Instant::now() + Duration::from_secs(n.into());
        for n in 0..=most {
            known.remember(digest(n), at(n));
        }
        assert_eq!(known.used().len(), MOST);
        let now = at(most);
        assert!(!known.used().contains_key(&digest(0)) && known.used().contains_key(&digest(1)));
        assert!(known.has(&digest(most), now));
    }
}
