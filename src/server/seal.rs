//! The reply that a spent refresh token gave, kept for the grace so that a lost answer loses
//! nothing. Its key is derived from the spent token itself, which the store doesn't have: who
//! steals the file can't read the successor in it.

use super::random::{self, NoRandomness};
use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use hkdf::Hkdf;
use secrecy::{ExposeSecret as _, SecretString};
use sha2::Sha256;
use zeroize::Zeroize as _;

const NONCE: usize = 12;

fn cipher(token: &SecretString) -> ChaCha20Poly1305 {
    let mut key = [0u8; 32];
    let hkdf = Hkdf::<Sha256>::new(None, token.expose_secret().as_bytes());
    // HKDF-SHA-256 gives up to 8160 bytes; 32 can't fail.
    let done = hkdf.expand(b"applink refresh successor v1", &mut key);
    assert!(done.is_ok(), "32 bytes are within HKDF's bound");
    let cipher = ChaCha20Poly1305::new(&Key::from(key));
    key.zeroize();
    cipher
}

/// Seals `reply` under a key that `token` gives, bound to `client`.
///
/// # Errors
/// [`NoRandomness`].
pub fn seal(token: &SecretString, client: &str, reply: &[u8]) -> Result<Vec<u8>, NoRandomness> {
    let nonce = random::bytes::<NONCE>()?;
    let payload = Payload { msg: reply, aad: client.as_bytes() };
    // It fails for messages of 256 GiB and more.
    let sealed = cipher(token).encrypt(&Nonce::from(nonce), payload).unwrap_or_default();
    Ok([nonce.as_slice(), &sealed].concat())
}

/// Opens what [`seal`] made; `None` when it is damaged or was sealed for another.
pub fn open(token: &SecretString, client: &str, sealed: &[u8]) -> Option<Vec<u8>> {
    let (nonce, sealed) = sealed.split_first_chunk::<NONCE>()?;
    let payload = Payload { msg: sealed, aad: client.as_bytes() };
    cipher(token).decrypt(&Nonce::from(*nonce), payload).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_token_and_its_client_open_it() {
        let token = |t: &str| SecretString::from(t.to_owned());
        let sealed = seal(&token("spent"), "c", b"reply-canary").expect("random");
        assert!(!sealed.windows(6).any(|w| w == b"canary"));
        assert_eq!(open(&token("spent"), "c", &sealed).as_deref(), Some(&b"reply-canary"[..]));
        assert_eq!(open(&token("other"), "c", &sealed), None);
        assert_eq!(open(&token("spent"), "d", &sealed), None);
        assert_eq!(open(&token("spent"), "c", &sealed[..sealed.len() - 1]), None);
        assert_eq!(open(&token("spent"), "c", b"short"), None);
    }
}
