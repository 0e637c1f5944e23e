//! Signatures of JWTs, checked with a server's keys (RFC 7515, 7517, 7518 and 8037). Pure.
//!
//! `ring` verifies, as it signs in [`super::signing_key`]; no JOSE library is in the lock file.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512, RSA_PSS_2048_8192_SHA256,
    RSA_PSS_2048_8192_SHA384, RSA_PSS_2048_8192_SHA512, RsaParameters, RsaPublicKeyComponents,
    UnparsedPublicKey, VerificationAlgorithm,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::Value;

/// Why a signature isn't taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the texts say it")]
pub enum SignatureFault {
    #[error(
        "it is signed in a way that isn't supported; have the server sign with RS256, PS256, ES256, ES384 or EdDSA"
    )]
    Algorithm,
    #[error("the server's keys have none that it could be signed with")]
    NoKey,
    #[error("its signature is wrong")]
    Wrong,
}

/// What was signed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Signed<'a> {
    /// `alg`.
    pub algorithm: &'a str,
    /// `kid`.
    pub key_id: Option<&'a str>,
    /// Header and payload as they came, with the dot between.
    pub text: &'a [u8],
    /// The signature.
    pub signature: &'a [u8],
}

/// A kind of key, and how it verifies.
enum Kind {
    Rsa(&'static RsaParameters),
    /// The curve's name, and its bytes a coordinate.
    Ec(&'static str, usize, &'static dyn VerificationAlgorithm),
    Ed25519,
}

impl Signed<'_> {
    /// Checks the signature with a JWK set, or, where it is a MAC, with the client's secret.
    ///
    /// # Errors
    /// [`SignatureFault`].
    pub fn verify(&self, keys: &Value, secret: Option<&SecretString>) -> Result<(), SignatureFault> {
        let kind = match self.algorithm {
            "HS256" => return self.verify_mac(hmac::HMAC_SHA256, secret),
            "HS384" => return self.verify_mac(hmac::HMAC_SHA384, secret),
            "HS512" => return self.verify_mac(hmac::HMAC_SHA512, secret),
            "RS256" => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA256),
            "RS384" => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA384),
            "RS512" => Kind::Rsa(&RSA_PKCS1_2048_8192_SHA512),
            "PS256" => Kind::Rsa(&RSA_PSS_2048_8192_SHA256),
            "PS384" => Kind::Rsa(&RSA_PSS_2048_8192_SHA384),
            "PS512" => Kind::Rsa(&RSA_PSS_2048_8192_SHA512),
            "ES256" => Kind::Ec("P-256", 32, &ECDSA_P256_SHA256_FIXED),
            "ES384" => Kind::Ec("P-384", 48, &ECDSA_P384_SHA384_FIXED),
            "EdDSA" | "Ed25519" => Kind::Ed25519,
            _ => return Err(SignatureFault::Algorithm),
        };
        let all = keys.get("keys").and_then(Value::as_array);
        let mut fault = SignatureFault::NoKey;
        for key in all.into_iter().flatten().filter(|key| self.may_be_of(key)) {
            match self.verify_by(key, &kind) {
                Some(true) => return Ok(()),
                Some(false) => fault = SignatureFault::Wrong,
                None => {}
            }
        }
        Err(fault)
    }

    fn verify_mac(
        &self,
        algorithm: hmac::Algorithm,
        secret: Option<&SecretString>,
    ) -> Result<(), SignatureFault> {
        let secret = secret.ok_or(SignatureFault::NoKey)?;
        let key = hmac::Key::new(algorithm, secret.expose_secret().as_bytes());
        hmac::verify(&key, self.text, self.signature).map_err(|_| SignatureFault::Wrong)
    }

    /// Whether a key may be the one: by what it says of itself.
    fn may_be_of(&self, key: &Value) -> bool {
        let says = |name: &str| key.get(name).and_then(Value::as_str);
        let id = self.key_id.is_none_or(|id| says("kid") == Some(id));
        // RFC 9864 names the same algorithm anew.
        let name = |a| if a == "Ed25519" { "EdDSA" } else { a };
        let algorithm = says("alg").is_none_or(|a| name(a) == name(self.algorithm));
        id && algorithm && says("use").is_none_or(|u| u == "sig")
    }

    /// Checks it with a key; `None` for one of another kind, or that can't be read.
    fn verify_by(&self, key: &Value, kind: &Kind) -> Option<bool> {
        let says = |name: &str| key.get(name).and_then(Value::as_str);
        let bytes = |name: &str| URL_SAFE_NO_PAD.decode(says(name)?.trim_end_matches('=')).ok();
        let verified = match kind {
            Kind::Rsa(parameters) if says("kty") == Some("RSA") => {
                let unpadded = |bytes: Vec<u8>| bytes.into_iter().skip_while(|b| *b == 0).collect::<Vec<_>>();
                let public = RsaPublicKeyComponents { n: unpadded(bytes("n")?), e: unpadded(bytes("e")?) };
                public.verify(parameters, self.text, self.signature)
            }
            Kind::Ec(curve, size, algorithm) if says("kty") == Some("EC") && says("crv") == Some(curve) => {
                let (x, y) = (bytes("x")?, bytes("y")?);
                if x.len() != *size || y.len() != *size {
                    return None;
                }
                // RFC 5480 section 2.2: an uncompressed point.
                let point = [&[4], x.as_slice(), y.as_slice()].concat();
                UnparsedPublicKey::new(*algorithm, point).verify(self.text, self.signature)
            }
            Kind::Ed25519 if says("kty") == Some("OKP") && says("crv") == Some("Ed25519") => {
                UnparsedPublicKey::new(&ED25519, bytes("x")?).verify(self.text, self.signature)
            }
            _ => return None,
        };
        Some(verified.is_ok())
    }
}
