//! Private keys and the signatures made with them (RFC 7515, 7518, 8037).
//!
//! `ring` signs; it is in the binary for TLS anyway. The JWT crates neither read SEC1 nor private
//! JWKs, and bring a second set of the same primitives.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::rsa::{KeyPairComponents, PublicKeyComponents};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm,
    Ed25519KeyPair, RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::sync::Arc;
use zeroize::Zeroizing;

/// An algorithm of RFC 7518 section 3.1, or of RFC 8037.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names are the RFCs'")]
pub enum SigningAlgorithm {
    RS256,
    PS256,
    ES256,
    ES384,
    EdDSA,
}

impl SigningAlgorithm {
    /// The registered name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RS256 => "RS256",
            Self::PS256 => "PS256",
            Self::ES256 => "ES256",
            Self::ES384 => "ES384",
            Self::EdDSA => "EdDSA",
        }
    }
}

/// Why a text isn't a key to sign with. It repeats nothing of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// Neither PEM nor JSON with a private key.
    #[error("is no private key; put one there as PEM (BEGIN PRIVATE KEY) or as JWK")]
    NotAKey,
    /// A certificate or a public key alone.
    #[error("has no private key, only what is public; put the private key there")]
    PublicOnly,
    /// Encrypted with a passphrase.
    #[error("is encrypted with a passphrase; put it there decrypted (openssl pkcs8 -topk8 -nocrypt)")]
    Encrypted,
    /// A JWK set.
    #[error("is a set of JWKs; put the one private key there")]
    KeySet,
    /// A file of Google's, where a plain key is expected.
    #[error("is a credentials file of Google's; use the grant jwtBearer with it")]
    GoogleFile,
    /// A kind, curve or size of key that isn't supported.
    #[error(
        "is a key that can't be signed with; use RSA with 2048 to 4096 bits, EC with the curve P-256 or P-384 (its \
         public key included), or Ed25519"
    )]
    Unsupported,
    /// The wanted algorithm needs another kind of key.
    #[error("is no key for {}; leave the algorithm out, or use a key of its kind", .0.as_str())]
    Algorithm(SigningAlgorithm),
}

enum Pair {
    Rsa(Box<RsaKeyPair>),
    Ec(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// A private key that signs JWTs.
#[derive(Clone)]
pub struct SigningKey {
    pair: Arc<Pair>,
    algorithm: SigningAlgorithm,
    key_id: Option<String>,
    /// `x5t#S256`: SHA-256 of the certificate that came with the key.
    thumbprint: Option<String>,
    text: SecretString,
}

impl fmt::Debug for SigningKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningKey")
            .field("algorithm", &self.algorithm)
            .field("key_id", &self.key_id)
            .field("thumbprint", &self.thumbprint)
            .finish_non_exhaustive()
    }
}

impl SigningKey {
    /// Reads a private key: PEM (PKCS#8, PKCS#1 or SEC1, with or without a certificate beside it),
    /// or a JWK (RFC 7517). `algorithm`: another one than the key's usual; `rsa`: what is usual for
    /// RSA, where the key doesn't say it.
    ///
    /// # Errors
    /// [`KeyError`].
    pub fn parse(
        text: &SecretString,
        algorithm: Option<SigningAlgorithm>,
        rsa: SigningAlgorithm,
    ) -> Result<Self, KeyError> {
        let plain = text.expose_secret();
        let (pair, usual, key_id, thumbprint) = if plain.trim_start().starts_with('{') {
            let jwk: Map<String, Value> = serde_json::from_str(plain).map_err(|_| KeyError::NotAKey)?;
            let (pair, usual) = from_jwk(&jwk)?;
            let member = |name: &str| jwk.get(name).and_then(Value::as_str).map(str::to_owned);
            (pair, usual, member("kid"), member("x5t#S256"))
        } else {
            let (pair, usual) = from_pem(plain)?;
            let certificate = CertificateDer::pem_slice_iter(plain.as_bytes()).find_map(Result::ok);
            let thumbprint = certificate.map(|c| URL_SAFE_NO_PAD.encode(Sha256::digest(&c)));
            (pair, usual, None, thumbprint)
        };
        let algorithm = match (algorithm, &pair) {
            (None, Pair::Rsa(_)) => usual.unwrap_or(rsa),
            (Some(a @ (SigningAlgorithm::RS256 | SigningAlgorithm::PS256)), Pair::Rsa(_)) => a,
            (None, Pair::Ec(..)) => usual.unwrap_or(SigningAlgorithm::ES256),
            (None, Pair::Ed25519(_)) => SigningAlgorithm::EdDSA,
            (Some(wanted), _) if Some(wanted) == usual => wanted,
            (Some(wanted), _) => return Err(KeyError::Algorithm(wanted)),
        };
        Ok(Self { pair: Arc::new(pair), algorithm, key_id, thumbprint, text: text.clone() })
    }

    /// The same with another `kid`.
    #[must_use]
    pub fn with_key_id(mut self, key_id: Option<String>) -> Self {
        self.key_id = key_id.or(self.key_id);
        self
    }

    /// The text that the key was read from.
    pub fn text(&self) -> &SecretString {
        &self.text
    }

    /// The algorithm that it signs with.
    pub const fn algorithm(&self) -> SigningAlgorithm {
        self.algorithm
    }

    /// The key's identifier, where it has one.
    pub fn key_id(&self) -> Option<&str> {
        self.key_id.as_deref()
    }

    /// A signed JWT (RFC 7515 section 7.1). `None` only where the machine gives no randomness.
    pub fn sign(&self, claims: &Value) -> Option<SecretString> {
        let mut head = json!({ "typ": "JWT", "alg": self.algorithm.as_str() });
        for (name, value) in [("kid", &self.key_id), ("x5t#S256", &self.thumbprint)] {
            if let Some(value) = value {
                head[name] = json!(value);
            }
        }
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let mut token = format!("{}.{}", encode(&head), encode(claims));
        let random = SystemRandom::new();
        let signature = match self.pair.as_ref() {
            Pair::Rsa(pair) => {
                let padding: &'static dyn ring::signature::RsaEncoding = match self.algorithm {
                    SigningAlgorithm::PS256 => &RSA_PSS_SHA256,
                    _ => &RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public().modulus_len()];
                pair.sign(padding, &random, token.as_bytes(), &mut signature).ok()?;
                signature
            }
            Pair::Ec(pair) => pair.sign(&random, token.as_bytes()).ok()?.as_ref().to_vec(),
            Pair::Ed25519(pair) => pair.sign(token.as_bytes()).as_ref().to_vec(),
        };
        token.push('.');
        token.push_str(&URL_SAFE_NO_PAD.encode(signature));
        Some(token.into())
    }
}

/// A key, and its algorithm, where the key says it.
type Read = (Pair, Option<SigningAlgorithm>);

fn from_pem(text: &str) -> Result<Read, KeyError> {
    if text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED") {
        return Err(KeyError::Encrypted);
    }
    let public = text.contains("BEGIN CERTIFICATE") || text.contains("PUBLIC KEY-----");
    let missing = if public { KeyError::PublicOnly } else { KeyError::NotAKey };
    let der = PrivateKeyDer::from_pem_slice(text.as_bytes()).map_err(|_| missing)?;
    let rsa = |pair| Ok((Pair::Rsa(Box::new(pair)), None));
    match &der {
        PrivateKeyDer::Pkcs1(key) => {
            RsaKeyPair::from_der(key.secret_pkcs1_der()).map_err(|_| KeyError::Unsupported).and_then(rsa)
        }
        PrivateKeyDer::Sec1(key) => from_sec1(key.secret_sec1_der()).ok_or(KeyError::Unsupported),
        PrivateKeyDer::Pkcs8(key) => {
            let der = key.secret_pkcs8_der();
            if let Ok(pair) = RsaKeyPair::from_pkcs8(der) {
                return rsa(pair);
            }
            if let Ok(pair) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der) {
                return Ok((Pair::Ed25519(pair), Some(SigningAlgorithm::EdDSA)));
            }
            curves()
                .into_iter()
                .find_map(|c| {
                    let pair = EcdsaKeyPair::from_pkcs8(c.signing, der, &SystemRandom::new()).ok()?;
                    Some((Pair::Ec(pair), Some(c.algorithm)))
                })
                .ok_or(KeyError::Unsupported)
        }
        _ => Err(KeyError::Unsupported),
    }
}

struct Curve {
    name: &'static str,
    algorithm: SigningAlgorithm,
    signing: &'static EcdsaSigningAlgorithm,
    /// Bytes of a coordinate.
    size: usize,
    /// The object identifier, in DER.
    oid: &'static [u8],
}

fn curves() -> [Curve; 2] {
    [
        Curve {
            name: "P-256",
            algorithm: SigningAlgorithm::ES256,
            signing: &ECDSA_P256_SHA256_FIXED_SIGNING,
            size: 32,
            oid: b"\x06\x08\x2a\x86\x48\xce\x3d\x03\x01\x07",
        },
        Curve {
            name: "P-384",
            algorithm: SigningAlgorithm::ES384,
            signing: &ECDSA_P384_SHA384_FIXED_SIGNING,
            size: 48,
            oid: b"\x06\x05\x2b\x81\x04\x00\x22",
        },
    ]
}

/// An `ECPrivateKey` of RFC 5915, which `ring` takes only inside PKCS#8 (RFC 5958).
fn from_sec1(sec1: &[u8]) -> Option<Read> {
    const EC_PUBLIC_KEY: &[u8] = b"\x06\x07\x2a\x86\x48\xce\x3d\x02\x01";
    curves().into_iter().find_map(|curve| {
        let algorithm = der(0x30, &[EC_PUBLIC_KEY, curve.oid])?;
        let key = der(0x04, &[sec1])?;
        let pkcs8 = der(0x30, &[b"\x02\x01\x00", &algorithm, &key])?;
        let pair = EcdsaKeyPair::from_pkcs8(curve.signing, &pkcs8, &SystemRandom::new()).ok()?;
        Some((Pair::Ec(pair), Some(curve.algorithm)))
    })
}

/// A DER value of less than 64 KiB.
fn der(tag: u8, parts: &[&[u8]]) -> Option<Zeroizing<Vec<u8>>> {
    let length = parts.iter().map(|p| p.len()).sum::<usize>();
    let [high, low] = u16::try_from(length).ok()?.to_be_bytes();
    let mut all = Zeroizing::new(vec![tag]);
    match length {
        0..0x80 => all.push(low),
        0x80..0x100 => all.extend([0x81, low]),
        _ => all.extend([0x82, high, low]),
    }
    parts.iter().for_each(|p| all.extend_from_slice(p));
    Some(all)
}

fn from_jwk(jwk: &Map<String, Value>) -> Result<Read, KeyError> {
    let text = |name: &str| jwk.get(name).and_then(Value::as_str);
    let Some(kind) = text("kty") else {
        return Err(match (jwk.contains_key("keys"), text("type")) {
            (true, _) => KeyError::KeySet,
            (_, Some("service_account" | "authorized_user" | "external_account")) => KeyError::GoogleFile,
            _ => KeyError::NotAKey,
        });
    };
    if !jwk.contains_key("d") {
        return Err(KeyError::PublicOnly);
    }
    let number = |name: &str| {
        let bytes = text(name).and_then(|t| URL_SAFE_NO_PAD.decode(t).ok());
        bytes.map(Zeroizing::new).ok_or(KeyError::Unsupported)
    };
    let unsupported = |_| KeyError::Unsupported;
    match (kind, text("crv")) {
        ("RSA", _) => {
            // Fixed width numbers may begin with zeros, which `ring` doesn't take.
            let number = |name: &str| {
                number(name)
                    .map(|n| Zeroizing::new(n.iter().copied().skip_while(|b| *b == 0).collect::<Vec<u8>>()))
            };
            let key = KeyPairComponents {
                public_key: PublicKeyComponents { n: number("n")?.to_vec(), e: number("e")?.to_vec() },
                d: number("d")?,
                p: number("p")?,
                q: number("q")?,
                dP: number("dp")?,
                dQ: number("dq")?,
                qInv: number("qi")?,
            };
            let pair = rsa_of(&key).ok_or(KeyError::Unsupported)?;
            let usual = match text("alg") {
                Some("PS256") => Some(SigningAlgorithm::PS256),
                Some("RS256") => Some(SigningAlgorithm::RS256),
                _ => None,
            };
            Ok((Pair::Rsa(Box::new(pair)), usual))
        }
        ("EC", Some(name)) => {
            let curve = curves().into_iter().find(|c| c.name == name).ok_or(KeyError::Unsupported)?;
            let wide = |name: &str| {
                let number = number(name)?;
                let missing = curve.size.checked_sub(number.len()).ok_or(KeyError::Unsupported)?;
                let mut wide = Zeroizing::new(vec![0; missing]);
                wide.extend_from_slice(&number);
                Ok::<_, KeyError>(wide)
            };
            let public = [&[4][..], &wide("x")?, &wide("y")?].concat();
            let pair = EcdsaKeyPair::from_private_key_and_public_key(
                curve.signing,
                &wide("d")?,
                &public,
                &SystemRandom::new(),
            );
            Ok((Pair::Ec(pair.map_err(unsupported)?), Some(curve.algorithm)))
        }
        ("OKP", Some("Ed25519")) => {
            let pair = Ed25519KeyPair::from_seed_and_public_key(&number("d")?, &number("x")?);
            Ok((Pair::Ed25519(pair.map_err(unsupported)?), Some(SigningAlgorithm::EdDSA)))
        }
        _ => Err(KeyError::Unsupported),
    }
}

fn rsa_of(key: &KeyPairComponents<Vec<u8>, Zeroizing<Vec<u8>>>) -> Option<RsaKeyPair> {
    let KeyPairComponents { public_key, d, p, q, dP, dQ, qInv } = key;
    let public_key = PublicKeyComponents { n: &public_key.n[..], e: &public_key.e[..] };
    RsaKeyPair::from_components(&KeyPairComponents {
        public_key,
        d: &d[..],
        p: &p[..],
        q: &q[..],
        dP: &dP[..],
        dQ: &dQ[..],
        qInv: &qInv[..],
    })
    .ok()
}
