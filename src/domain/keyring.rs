//! The installation's identity and master keys, and all that is derived from them.
//!
//! A client secret is never stored by us: it is HKDF-SHA-256 of the master key over
//! length-prefixed parts, so a crash anywhere derives the same value again.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chacha20poly1305::aead::{Aead as _, Payload};
use chacha20poly1305::{Key, XChaCha20Poly1305, XNonce};
use hkdf::Hkdf;
use hmac::{Hmac, KeyInit as _, Mac as _};
use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use std::collections::BTreeMap;
use std::fmt;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// Appends `part` with its length before it, so that no two lists of parts give the same bytes.
pub(super) fn lp(out: &mut Vec<u8>, part: &[u8]) {
    out.extend_from_slice(&(part.len() as u64).to_be_bytes());
    out.extend_from_slice(part);
}

/// The identity of an installation: one operator and its master key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InstallationId(String);

impl InstallationId {
    /// Takes 1 to 64 characters of `[a-z0-9-]`.
    ///
    /// Returns `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let ok = (1..=64).contains(&text.len())
            && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-');
        ok.then(|| Self(text.to_owned()))
    }

    /// The identity as text. It is no secret.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// 256 bits that every derived secret of an installation hangs on.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct MasterKey([u8; 32]);

impl MasterKey {
    /// Wraps 32 bytes of a cryptographic random source.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The bytes, to be stored in the installation's own Secret and nowhere else.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey([redacted])")
    }
}

/// The keys of an installation; the active one derives, all of them verify marks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyRing {
    installation: InstallationId,
    active: String,
    keys: BTreeMap<String, MasterKey>,
    home: String,
}

/// Bytes that only a key of the installation opens.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sealed {
    /// The identifier of the key.
    key: String,
    /// Nonce and sealed bytes, base64url.
    text: String,
}

/// What a client secret is derived from.
#[derive(Debug, Clone, Copy)]
pub struct SecretInput<'a> {
    /// The provider's identity: type and issuer.
    pub provider: &'a str,
    /// The client's identifier.
    pub client_id: &'a str,
    /// The link's UID.
    pub link_uid: &'a str,
    /// The rotation serial; never falls.
    pub serial: i64,
}

impl KeyRing {
    /// A ring of one key.
    pub fn new(installation: InstallationId, active: &str, key: MasterKey) -> Self {
        Self {
            installation,
            active: active.to_owned(),
            keys: BTreeMap::from([(active.to_owned(), key)]),
            home: String::new(),
        }
    }

    /// A ring of several keys, `active` among them.
    ///
    /// Returns `None` when `active` isn't.
    pub fn from_keys(
        installation: InstallationId,
        active: &str,
        keys: BTreeMap<String, MasterKey>,
    ) -> Option<Self> {
        keys.contains_key(active).then(|| Self {
            installation,
            active: active.to_owned(),
            keys,
            home: String::new(),
        })
    }

    /// The same ring, which stands at `home`: what only one cluster may say hangs on it, since a copy
    /// of the keys may be in another.
    #[must_use]
    pub fn at_home(mut self, home: &str) -> Self {
        home.clone_into(&mut self.home);
        self
    }

    /// Where the keys stand.
    pub fn home(&self) -> &str {
        &self.home
    }

    /// The installation that the keys belong to.
    pub fn installation(&self) -> &InstallationId {
        &self.installation
    }

    /// The identifier of the active key.
    pub fn active_id(&self) -> &str {
        &self.active
    }

    fn active_key(&self) -> &MasterKey {
        // Both constructors made sure of it.
        self.keys.get(&self.active).unwrap_or_else(|| unreachable!("the active key is in the ring"))
    }

    /// The client secret by the active key: 256 bits, base64url without padding (43 characters,
    /// safe in any file).
    pub fn client_secret(&self, input: SecretInput<'_>) -> SecretString {
        self.derived(self.active_key(), input)
    }

    /// The client secret by another key of the ring; `None` where there is none of this name.
    pub fn client_secret_by(&self, key: &str, input: SecretInput<'_>) -> Option<SecretString> {
        self.keys.get(key).map(|key| self.derived(key, input))
    }

    fn derived(&self, key: &MasterKey, input: SecretInput<'_>) -> SecretString {
        let mut info = Vec::new();
        lp(&mut info, b"applink client secret v1");
        for part in [
            self.installation.as_str(),
            input.provider,
            input.client_id,
            input.link_uid,
            &input.serial.to_string(),
        ] {
            lp(&mut info, part.as_bytes());
        }
        let mut out = [0u8; 32];
        // HKDF-SHA-256 gives up to 8160 bytes; 32 can't fail.
        let done = Hkdf::<Sha256>::new(None, key.expose()).expand(&info, &mut out);
        assert!(done.is_ok(), "32 bytes are within HKDF's bound");
        let text = URL_SAFE_NO_PAD.encode(out);
        out.zeroize();
        text.into()
    }

    /// The client identifier of a link at a provider: readable, unique to the installation, and
    /// the same whenever it is asked for.
    pub fn client_id(&self, provider: &str, namespace: &str, name: &str) -> String {
        let mut hash = Sha256::new();
        let mut parts = Vec::new();
        for part in ["applink client id v1", self.installation.as_str(), provider, namespace, name] {
            lp(&mut parts, part.as_bytes());
        }
        hash.update(&parts);
        let digest = hash.finalize();
        let readable: String = format!("{namespace}.{name}").chars().take(80).collect();
        let tail: String = digest.iter().take(10).map(|b| format!("{b:02x}")).collect();
        format!("{readable}.{tail}")
    }

    /// A keyed fingerprint of some parts (HMAC-SHA-256, base64url): recognises them again and
    /// says nothing of them to whoever doesn't hold the key.
    pub fn fingerprint(&self, purpose: &str, parts: &[&str]) -> String {
        self.mark(&Self::parts(purpose, parts))
    }

    /// Whether a fingerprint is of these parts, made with any key of the ring. Constant time.
    pub fn is_fingerprint(&self, purpose: &str, parts: &[&str], fingerprint: &str) -> bool {
        self.check_mark(&Self::parts(purpose, parts), fingerprint)
    }

    fn parts(purpose: &str, parts: &[&str]) -> Vec<u8> {
        let mut message = Vec::new();
        lp(&mut message, b"applink fingerprint v1");
        lp(&mut message, purpose.as_bytes());
        parts.iter().for_each(|part| lp(&mut message, part.as_bytes()));
        message
    }

    fn mark_with(key: &MasterKey, message: &[u8]) -> [u8; 32] {
        // A key of its own for marks, so that no mark says anything of a derived secret.
        let mut mac_key = [0u8; 32];
        let done = Hkdf::<Sha256>::new(None, key.expose()).expand(b"applink owner mark key v1", &mut mac_key);
        assert!(done.is_ok(), "32 bytes are within HKDF's bound");
        let mac = Hmac::<Sha256>::new_from_slice(&mac_key);
        mac_key.zeroize();
        // HMAC takes a key of any length.
        let mut mac = mac.unwrap_or_else(|_| unreachable!("HMAC takes any key"));
        mac.update(message);
        mac.finalize().into_bytes().into()
    }

    /// Seals bytes under the active key, for a purpose and these parts alone. `nonce` is random.
    pub fn seal(&self, purpose: &str, parts: &[&str], nonce: [u8; 24], plain: &[u8]) -> Sealed {
        let aad = Self::parts(purpose, parts);
        // It fails for messages of 256 GiB and more.
        let sealed = Self::cipher(self.active_key())
            .encrypt(&XNonce::from(nonce), Payload { msg: plain, aad: &aad })
            .unwrap_or_default();
        Sealed {
            key: self.active.clone(),
            text: URL_SAFE_NO_PAD.encode([nonce.as_slice(), &sealed].concat()),
        }
    }

    /// Opens what [`Self::seal`] made; `None` where it is damaged, was sealed for something else, or by a key
    /// that isn't in the ring.
    pub fn open(&self, purpose: &str, parts: &[&str], sealed: &Sealed) -> Option<Vec<u8>> {
        let aad = Self::parts(purpose, parts);
        let bytes = URL_SAFE_NO_PAD.decode(&sealed.text).ok()?;
        let (nonce, msg) = bytes.split_first_chunk::<24>()?;
        let cipher = Self::cipher(self.keys.get(&sealed.key)?);
        cipher.decrypt(&XNonce::from(*nonce), Payload { msg, aad: &aad }).ok()
    }

    fn cipher(key: &MasterKey) -> XChaCha20Poly1305 {
        // A key of its own for this, as for marks.
        let mut own = [0u8; 32];
        let done = Hkdf::<Sha256>::new(None, key.expose()).expand(b"applink sealing key v1", &mut own);
        assert!(done.is_ok(), "32 bytes are within HKDF's bound");
        let cipher = XChaCha20Poly1305::new(&Key::from(own));
        own.zeroize();
        cipher
    }

    pub(super) fn mark(&self, message: &[u8]) -> String {
        URL_SAFE_NO_PAD.encode(Self::mark_with(self.active_key(), message))
    }

    pub(super) fn check_mark(&self, message: &[u8], mark: &str) -> bool {
        self.marked_by(message, mark).is_some()
    }

    /// The identifier of the key that a mark was made with, if it is one of the ring. Constant time
    /// in the mark.
    pub(super) fn marked_by(&self, message: &[u8], mark: &str) -> Option<&str> {
        use subtle::ConstantTimeEq as _;
        let given = URL_SAFE_NO_PAD.decode(mark).ok()?;
        let made = |key: &MasterKey| bool::from(Self::mark_with(key, message).as_slice().ct_eq(&given));
        // The active one first: it is nearly always that one.
        let mut all = self.keys.iter().collect::<Vec<_>>();
        all.sort_by_key(|(id, _)| **id != self.active);
        all.into_iter().find(|(_, key)| made(key)).map(|(id, _)| id.as_str())
    }
}

/// SHA-256 of a text as lower-case hex: for recognising a value without keeping it.
pub fn digest_hex(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().map(|b| format!("{b:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use secrecy::ExposeSecret as _;

    fn ring(byte: u8) -> KeyRing {
        KeyRing::new(InstallationId::parse("i").expect("id"), "k", MasterKey::from_bytes([byte; 32]))
    }

    const INPUT: SecretInput<'_> =
        SecretInput { provider: "bundled|https://p", client_id: "c", link_uid: "u", serial: 1 };

    #[test]
    fn the_same_parts_give_the_same_secret_and_others_another() {
        let secret = |r: &KeyRing, i| r.client_secret(i).expose_secret().to_owned();
        let one = secret(&ring(1), INPUT);
        assert_eq!(one.len(), 43);
        assert_eq!(one, secret(&ring(1), INPUT));
        assert_ne!(one, secret(&ring(2), INPUT));
        assert_ne!(one, secret(&ring(1), SecretInput { serial: 2, ..INPUT }));
        assert_ne!(one, secret(&ring(1), SecretInput { link_uid: "v", ..INPUT }));
        // Moving a character from one part to the next gives other bytes.
        assert_ne!(
            secret(&ring(1), SecretInput { client_id: "cu", link_uid: "", ..INPUT }),
            secret(&ring(1), SecretInput { client_id: "c", link_uid: "u", ..INPUT })
        );
    }

    /// The derivation is a promise to every installation: a change of it would change every
    /// client secret, so the bytes stand here.
    #[test]
    fn the_derivation_does_not_change() {
        // Computed by another implementation of RFC 5869 and SHA-256.
        assert_eq!(
            ring(1).client_secret(INPUT).expose_secret(),
            "1h69vfJre62iAivSSIdcpDpRACQoq6mgyQ1oidu-m-0"
        );
        assert_eq!(ring(1).client_id("bundled|https://p", "team-a", "ci"), "team-a.ci.2be665aad83305e4d563");
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", MasterKey::from_bytes([65; 32])), "MasterKey([redacted])");
    }

    #[test]
    fn long_names_stay_within_a_client_id() {
        let id = ring(1).client_id("p", &"n".repeat(63), &"l".repeat(253));
        assert!(crate::domain::ClientId::parse(&id).is_ok());
        assert_ne!(id, ring(1).client_id("p", &"n".repeat(63), &"l".repeat(252)));
    }
}
