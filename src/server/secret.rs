//! Client secrets: how they are kept, and how one is checked.
//!
//! A secret of 256 random bits is kept as SHA-256 and checked in microseconds; nothing can guess
//! it. A secret that a person chose is kept as Argon2id. The stored form says which. Argon2 runs on
//! threads of its own, few at a time, so that a flood of wrong secrets costs neither the other
//! requests nor the memory.

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher as _, PasswordVerifier as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;
use tokio::sync::Semaphore;

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

/// Makes stored forms and checks secrets against them.
#[derive(Debug, Clone)]
pub struct SecretHasher {
    permits: Arc<Semaphore>,
}

impl SecretHasher {
    /// With at most `at_once` Argon2 computations at a time.
    pub fn new(at_once: usize) -> Self {
        Self { permits: Arc::new(Semaphore::new(at_once.max(1))) }
    }

    /// The form to keep.
    ///
    /// # Errors
    /// [`HashingFailed`].
    pub async fn store(
        &self,
        kind: SecretKind,
        secret: &SecretString,
    ) -> Result<StoredSecret, HashingFailed> {
        if kind == SecretKind::Derived {
            return Ok(StoredSecret(digest(secret)));
        }
        let secret = secret.clone();
        let done = self.on_a_thread(move || {
            let hash: Result<PasswordHash, _> =
                Argon2::default().hash_password(secret.expose_secret().as_bytes());
            hash.map(|h| h.to_string()).map_err(|e| HashingFailed(e.to_string()))
        });
        done.await?.map(StoredSecret)
    }

    /// Whether `secret` is the one that `stored` was made of. Constant time.
    ///
    /// # Errors
    /// [`HashingFailed`]; a wrong secret is `Ok(false)`.
    pub async fn verify(&self, stored: &StoredSecret, secret: &SecretString) -> Result<bool, HashingFailed> {
        if stored.kind() == SecretKind::Derived {
            return Ok(digest(secret).as_bytes().ct_eq(stored.0.as_bytes()).into());
        }
        // What could never have been stored needs no Argon2.
        if secret.expose_secret().len() > MAX_SECRET {
            return Ok(false);
        }
        let (stored, secret) = (stored.0.clone(), secret.clone());
        let done = self.on_a_thread(move || {
            let hash = PasswordHash::new(&stored).map_err(|e| HashingFailed(e.to_string()))?;
            Ok(Argon2::default().verify_password(secret.expose_secret().as_bytes(), &hash).is_ok())
        });
        done.await?
    }

    async fn on_a_thread<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HashingFailed> {
        let permit = self.permits.clone().acquire_owned().await;
        let permit = permit.map_err(|e| HashingFailed(e.to_string()))?;
        let work = tokio::task::spawn_blocking(move || {
            // The work goes on when the request is given up, and so must its permit.
            let _permit = permit;
            work()
        });
        work.await.map_err(|e| HashingFailed(e.to_string()))
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
        let hasher = SecretHasher::new(1);
        for (kind, prefix) in [(SecretKind::Derived, "sha256:"), (SecretKind::Chosen, "$argon2id$")] {
            let stored = hasher.store(kind, &secret("the right one, canary")).await.expect("stored");
            assert_eq!(stored.kind(), kind);
            assert!(stored.to_stored().starts_with(prefix), "{}", stored.to_stored());
            assert!(hasher.verify(&stored, &secret("the right one, canary")).await.expect("checked"));
            for wrong in ["", "the wrong one", "the right one, canary ", &"x".repeat(5000)] {
                assert!(!hasher.verify(&stored, &secret(wrong)).await.expect("checked"));
            }
            assert!(!format!("{stored:?}").contains(stored.to_stored()));
        }
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
