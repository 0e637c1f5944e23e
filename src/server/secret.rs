//! Client secrets: how they are kept, and how one is checked.
//!
//! A secret of 256 random bits is kept as SHA-256 and checked in microseconds; nothing can guess
//! it. A secret that a person chose is kept as Argon2id. The stored form says which. What Argon2
//! costs is bounded: it runs on few threads, each of which has its memory once ([`hashing`]); a
//! right secret is remembered for minutes ([`known`]); and who tries many is told to wait ([`tries`]).

mod hashing;
mod known;
mod tries;

use super::random::NoRandomness;
use crate::domain::ClientId;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use known::Digest;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};
use subtle::ConstantTimeEq as _;
use tokio::sync::OnceCell;

/// The shortest secret that a person may choose, in characters.
pub const MIN_CHOSEN: usize = 16;
/// The shortest derived secret: 256 bits in base64url.
pub const MIN_DERIVED: usize = 43;
/// The longest secret.
pub const MAX_SECRET: usize = 255;

const DIGEST_PREFIX: &str = "sha256:";

/// Where a secret comes from, which decides how it is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum SecretKind {
    /// At least 256 bits from a key or a random source.
    Derived,
    /// A person thought of it.
    #[default]
    Chosen,
}

/// A secret as it is kept; says nothing of the secret when it is shown.
#[derive(Clone, PartialEq, Eq)]
pub struct StoredSecret(String);

impl StoredSecret {
    /// From the store.
    pub fn from_stored(text: String) -> Self {
        Self(text)
    }

    /// For the store.
    pub fn to_stored(&self) -> &str {
        &self.0
    }

    /// What it was kept as.
    pub fn kind(&self) -> SecretKind {
        if self.0.starts_with(DIGEST_PREFIX) { SecretKind::Derived } else { SecretKind::Chosen }
    }
}

impl fmt::Debug for StoredSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StoredSecret({:?}, [redacted])", self.kind())
    }
}

/// Why a secret can't be taken. The text follows the field's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// A derived secret that is none.
    #[error("must be at least {MIN_DERIVED} characters of base64url when secretKind is derived")]
    NotDerived,
    /// Too short to be chosen.
    #[error("must have at least {MIN_CHOSEN} characters")]
    TooShort,
    /// Too long.
    #[error("must have at most {MAX_SECRET} characters")]
    TooLong,
    /// Not VSCHAR.
    #[error("has characters other than visible ASCII and space, which RFC 6749 appendix A.2 doesn't allow")]
    BadCharacter,
}

/// Checks what a secret must look like.
///
/// # Errors
/// [`SecretError`].
pub fn check_form(kind: SecretKind, secret: &SecretString) -> Result<(), SecretError> {
    let text = secret.expose_secret();
    let base64url = |b: u8| b.is_ascii_alphanumeric() || b == b'-' || b == b'_';
    if text.len() > MAX_SECRET {
        return Err(SecretError::TooLong);
    }
    match kind {
        SecretKind::Derived if text.len() < MIN_DERIVED || !text.bytes().all(base64url) => {
            Err(SecretError::NotDerived)
        }
        SecretKind::Chosen if text.len() < MIN_CHOSEN => Err(SecretError::TooShort),
        _ if !text.bytes().all(crate::domain::text::is_vschar) => Err(SecretError::BadCharacter),
        _ => Ok(()),
    }
}

/// The work could not be done: Argon2 failed or its thread did.
#[derive(Debug, thiserror::Error)]
#[error("hashing a secret failed: {0}")]
pub struct HashingFailed(String);

impl From<NoRandomness> for HashingFailed {
    fn from(error: NoRandomness) -> Self {
        Self(error.to_string())
    }
}

/// Why a secret was not looked at.
#[derive(Debug, thiserror::Error)]
pub enum NotChecked {
    /// Too many were tried; another one may be after this time.
    #[error("too many secrets were tried; the next one may be in {0:?}")]
    TooMany(Duration),
    /// It can't be.
    #[error(transparent)]
    Failed(#[from] HashingFailed),
}

/// Whose secret it is, and who presents it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Who {
    /// The client.
    pub client: ClientId,
    /// Where the request comes from, as far as that is known.
    pub address: Option<IpAddr>,
}

impl Who {
    #[cfg(test)]
    fn testing(client: &str) -> Self {
        Self { client: ClientId::parse(client).expect("an ID"), address: None }
    }

    /// Somebody who may write this client: whose tries aren't counted.
    pub fn writer(client: &ClientId) -> Self {
        Self { client: client.clone(), address: None }
    }
}

/// Makes stored forms and checks secrets against them.
pub struct SecretHasher {
    threads: hashing::Threads,
    known: known::Known,
    tries: tries::Tries,
    /// What is being checked: many who present the same at once wait for one answer.
    underway: Mutex<HashMap<Vec<Digest>, Weak<OnceCell<bool>>>>,
}

impl SecretHasher {
    /// With at most `at_once` Argon2 computations at a time.
    ///
    /// # Errors
    /// [`HashingFailed`] when the system gives no threads or no randomness.
    pub fn new(at_once: usize) -> Result<Self, HashingFailed> {
        Ok(Self {
            threads: hashing::Threads::start(at_once).map_err(|e| HashingFailed(e.to_string()))?,
            known: known::Known::nothing()?,
            tries: tries::Tries::none(),
            underway: Mutex::default(),
        })
    }

    /// The form to keep.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub async fn store(
        &self,
        kind: SecretKind,
        client: &ClientId,
        secret: &SecretString,
    ) -> Result<StoredSecret, HashingFailed> {
        match kind {
            SecretKind::Derived => Ok(StoredSecret(digest(secret))),
            SecretKind::Chosen => self.threads.hash(&Who::writer(client), secret).await.map(StoredSecret),
        }
    }

    /// Whether `secret` is the one that `stored` was made of, for somebody who may write the client.
    ///
    /// # Errors
    /// [`HashingFailed`]; a wrong secret is `Ok(false)`.
    pub async fn is_of(
        &self,
        client: &ClientId,
        stored: &StoredSecret,
        secret: &SecretString,
    ) -> Result<bool, HashingFailed> {
        match at_once(stored, secret) {
            Some(answer) => Ok(answer),
            None => self.threads.verify(&Who::writer(client), &stored.0, secret).await,
        }
    }

    /// Whether `secret` is one of those that `stored` were made of, for whoever presents it.
    ///
    /// # Errors
    /// [`NotChecked`]; a wrong secret is `Ok(false)`.
    pub async fn verify(
        &self,
        who: &Who,
        stored: &[&StoredSecret],
        secret: &SecretString,
    ) -> Result<bool, NotChecked> {
        let mut slow = Vec::new();
        for form in stored {
            match at_once(form, secret) {
                Some(true) => return Ok(true),
                Some(false) => {}
                None => {
                    let digest = self.known.digest(&who.client, form, secret);
                    if self.known.has(&digest, Instant::now()) {
                        return Ok(true);
                    }
                    slow.push((digest, *form));
                }
            }
        }
        if slow.is_empty() {
            return Ok(false);
        }
        // The address is no part of it: the answer is the same for all.
        let digests: Vec<Digest> = slow.iter().map(|(digest, _)| *digest).collect();
        let answer = self.underway(digests.clone());
        let done = answer.get_or_try_init(|| self.compute(who, &slow, secret)).await.copied();
        drop(answer);
        self.forget_underway(&digests);
        done
    }

    /// By Argon2.
    async fn compute(
        &self,
        who: &Who,
        slow: &[(Digest, &StoredSecret)],
        secret: &SecretString,
    ) -> Result<bool, NotChecked> {
        self.tries.take(who).map_err(NotChecked::TooMany)?;
        for (digest, form) in slow {
            if self.threads.verify(who, &form.0, secret).await? {
                self.known.remember(*digest, Instant::now());
                return Ok(true);
            }
        }
        Ok(false)
    }

    fn underway(&self, digests: Vec<Digest>) -> Arc<OnceCell<bool>> {
        let mut all = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = all.entry(digests).or_default();
        slot.upgrade().unwrap_or_else(|| {
            let new = Arc::default();
            *slot = Arc::downgrade(&new);
            new
        })
    }

    /// Forgets what nobody waits for any more.
    fn forget_underway(&self, digests: &[Digest]) {
        let mut all = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        if all.get(digests).is_some_and(|slot| slot.strong_count() == 0) {
            all.remove(digests);
        }
    }

    /// Forgets what needs not be known any more.
    pub fn forget(&self) {
        self.known.forget(Instant::now());
        self.tries.forget();
        // Of requests that were given up.
        let mut all = self.underway.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|_, slot| slot.strong_count() > 0);
    }
}

/// What can be said without Argon2.
fn at_once(stored: &StoredSecret, secret: &SecretString) -> Option<bool> {
    match stored.kind() {
        SecretKind::Derived => Some(digest(secret).as_bytes().ct_eq(stored.0.as_bytes()).into()),
        // What could never have been stored.
        SecretKind::Chosen => (secret.expose_secret().len() > MAX_SECRET).then_some(false),
    }
}

fn digest(secret: &SecretString) -> String {
    let hash = Sha256::digest(secret.expose_secret().as_bytes());
    format!("{DIGEST_PREFIX}{}", URL_SAFE_NO_PAD.encode(hash))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(text: &str) -> SecretString {
        text.to_owned().into()
    }

    #[tokio::test]
    async fn both_forms_verify_their_own_secret_only() {
        let hasher = SecretHasher::new(1).expect("threads");
        let who = Who::testing("c");
        let right = secret("the right one, canary");
        for (kind, prefix) in [(SecretKind::Derived, "sha256:"), (SecretKind::Chosen, "$argon2id$")] {
            let stored = hasher.store(kind, &who.client, &right).await.expect("stored");
            assert_eq!(stored.kind(), kind);
            assert!(stored.to_stored().starts_with(prefix), "{}", stored.to_stored());
            for (text, good) in [
                ("the right one, canary", true),
                ("", false),
                ("the wrong one", false),
                ("the right one, canary ", false),
                (&"x".repeat(5000), false),
                ("the right one, canary", true),
            ] {
                assert_eq!(hasher.verify(&who, &[&stored], &secret(text)).await.expect("checked"), good);
                assert_eq!(hasher.is_of(&who.client, &stored, &secret(text)).await.expect("checked"), good);
            }
            assert!(!format!("{stored:?}").contains(stored.to_stored()));
        }
        assert!(hasher.underway.lock().expect("whole").is_empty());
    }

    /// Tries wrong secrets until one isn't looked at.
    async fn use_up(hasher: &SecretHasher, who: &Who, stored: &StoredSecret) {
        for n in 0..1000 {
            match hasher.verify(who, &[stored], &secret(&format!("wrong {n}"))).await {
                Ok(good) => assert!(!good),
                Err(NotChecked::TooMany(wait)) => return assert!(wait <= Duration::from_secs(3)),
                Err(error) => panic!("{error}"),
            }
        }
        panic!("all were tried");
    }

    #[tokio::test]
    async fn wrong_tries_are_limited_and_lock_out_nobody_else() {
        let hasher = SecretHasher::new(2).expect("threads");
        let here = Who::testing("c");
        let right = secret("the right one, canary");
        let stored = hasher.store(SecretKind::Chosen, &here.client, &right).await.expect("stored");
        let elsewhere = Who { address: "203.0.113.7".parse().ok(), ..here.clone() };
        use_up(&hasher, &elsewhere, &stored).await;
        assert!(hasher.verify(&here, &[&stored], &right).await.expect("checked"));
        // It is known now, and so is good there too.
        assert!(hasher.verify(&elsewhere, &[&stored], &right).await.expect("checked"));
        // Another secret is another form, which nothing is known of; a try of it is one.
        let newer = hasher.store(SecretKind::Chosen, &here.client, &right).await.expect("stored");
        assert!(hasher.verify(&elsewhere, &[&newer], &right).await.is_err());
        assert!(hasher.verify(&here, &[&newer], &right).await.expect("checked"));
        // One that costs nothing isn't counted.
        let derived = hasher.store(SecretKind::Derived, &here.client, &right).await.expect("stored");
        for n in 0..1000 {
            assert!(!hasher.verify(&here, &[&derived], &secret(&n.to_string())).await.expect("checked"));
        }
    }

    #[tokio::test]
    async fn the_previous_secret_is_known_too_and_the_same_one_many_times_is_one_try() {
        let hasher = SecretHasher::new(2).expect("threads");
        let who = Who::testing("c");
        let (old, new) = (secret("the old one, canary"), secret("the new one, canary"));
        let store =
            async |secret| hasher.store(SecretKind::Chosen, &who.client, secret).await.expect("stored");
        let (stored, previous) = (store(&new).await, store(&old).await);
        let forms = [&stored, &previous];
        let all = (0..200).map(|n| hasher.verify(&who, &forms, if n % 2 == 0 { &new } else { &old }));
        assert!(futures::future::join_all(all).await.into_iter().all(|r| r.expect("checked")));
        use_up(&hasher, &who, &stored).await;
        for secret in [&old, &new] {
            assert!(hasher.verify(&who, &forms, secret).await.expect("checked"));
        }
        // Without its overlap the old one is as wrong as any.
        assert!(hasher.verify(&who, &[&stored], &old).await.is_err());
    }

    #[test]
    fn forms() {
        use SecretError as E;
        let of = |kind, text: &str| check_form(kind, &secret(text));
        assert_eq!(of(SecretKind::Derived, &"a".repeat(43)), Ok(()));
        assert_eq!(of(SecretKind::Derived, &"a".repeat(42)), Err(E::NotDerived));
        assert_eq!(of(SecretKind::Derived, &"a+".repeat(43)), Err(E::NotDerived));
        assert_eq!(of(SecretKind::Chosen, "sixteen letters!"), Ok(()));
        assert_eq!(of(SecretKind::Chosen, "fifteen letters"), Err(E::TooShort));
        assert_eq!(of(SecretKind::Chosen, "sixteen letters\n"), Err(E::BadCharacter));
        assert_eq!(of(SecretKind::Chosen, &"a".repeat(256)), Err(E::TooLong));
    }
}
