//! Randomness of the operating system, and what is made of it.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

/// The system gave no randomness. Nothing can be issued without.
#[derive(Debug, thiserror::Error)]
#[error("the system gave no randomness: {0}")]
pub struct NoRandomness(#[from] getrandom::Error);

/// `N` random bytes.
///
/// # Errors
/// [`NoRandomness`].
pub fn bytes<const N: usize>() -> Result<[u8; N], NoRandomness> {
    let mut out = [0; N];
    getrandom::fill(&mut out)?;
    Ok(out)
}

/// 256 random bits as 43 characters of base64url: a token, or a client secret.
///
/// # Errors
/// [`NoRandomness`].
pub fn token() -> Result<SecretString, NoRandomness> {
    let mut raw = bytes::<32>()?;
    let text = URL_SAFE_NO_PAD.encode(raw);
    raw.zeroize();
    Ok(text.into())
}

/// 96 random bits as text: for names that must not come twice and are no secret.
///
/// # Errors
/// [`NoRandomness`].
pub fn name() -> Result<String, NoRandomness> {
    Ok(URL_SAFE_NO_PAD.encode(bytes::<12>()?))
}

/// SHA-256 of a token: all that is kept of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenHash([u8; 32]);

impl TokenHash {
    /// The hash of a token.
    pub fn of(token: &SecretString) -> Self {
        Self(Sha256::digest(token.expose_secret().as_bytes()).into())
    }

    /// The bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_have_256_bits_and_differ() {
        let (a, b) = (token().expect("random"), token().expect("random"));
        assert_eq!(a.expose_secret().len(), 43);
        assert_ne!(a.expose_secret(), b.expose_secret());
        assert_ne!(TokenHash::of(&a), TokenHash::of(&b));
    }
}
