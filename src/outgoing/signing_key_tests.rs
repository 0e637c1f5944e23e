//! Keys and assertions: what is taken, what is refused and in which words, and what stands in a JWT.
//! That the signatures are right is for real servers to say (`tests/it/link/client_auth.rs`).

use super::assertion::{BearerKey, BearerKeyError, client_assertion};
use super::signing_key::{KeyError, SigningAlgorithm, SigningKey};
use crate::domain::ScopeSet;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519};
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, UnparsedPublicKey, VerificationAlgorithm,
};
use secrecy::{ExposeSecret as _, SecretString};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

const RS256: SigningAlgorithm = SigningAlgorithm::RS256;

fn parse(text: &str) -> Result<SigningKey, KeyError> {
    SigningKey::parse(&text.to_owned().into(), None, RS256)
}

fn parts(token: &SecretString) -> (Value, Value, String, Vec<u8>) {
    let token = token.expose_secret();
    let (signed, signature) = token.rsplit_once('.').expect("a signature");
    let (head, claims) = signed.split_once('.').expect("two parts");
    let json =
        |part: &str| serde_json::from_slice(&URL_SAFE_NO_PAD.decode(part).expect("base64")).expect("JSON");
    let signature = URL_SAFE_NO_PAD.decode(signature).expect("base64");
    (json(head), json(claims), signed.to_owned(), signature)
}

#[test]
fn a_signature_verifies_and_the_head_says_how() {
    let pair = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).expect("a key");
    let certificate = CertificateParams::new(["us.example".to_owned()])
        .expect("parameters")
        .self_signed(&pair)
        .expect("a certificate");
    let pem = format!("{}\n{}", certificate.pem(), pair.serialize_pem());
    let key = parse(&pem).expect("a key").with_key_id(Some("k".into()));
    let now = Timestamp::from_second(1_800_000_000).expect("a time");
    let token = client_assertion(&key, "us", "https://as.example/token", now).expect("randomness");
    let (head, claims, signed, signature) = parts(&token);
    let thumbprint = URL_SAFE_NO_PAD.encode(Sha256::digest(certificate.der()));
    assert_eq!(head, json!({"alg": "ES256", "typ": "JWT", "kid": "k", "x5t#S256": thumbprint}));
    let jti = claims["jti"].as_str().expect("jti").to_owned();
    assert_eq!(
        claims,
        json!({"iss": "us", "sub": "us", "aud": "https://as.example/token", "jti": jti,
            "iat": 1_799_999_990, "exp": 1_800_000_050})
    );
    let public = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, pair.public_key_raw());
    public.verify(signed.as_bytes(), &signature).expect("right");
    let again = client_assertion(&key, "us", "https://as.example/token", now).expect("randomness");
    assert_ne!(parts(&again).1["jti"], json!(jti), "used once");
    assert!(!format!("{key:?}").contains(pair.serialize_pem().lines().nth(1).expect("a line")));
}

#[test]
fn each_kind_of_key_signs_by_its_algorithm() {
    let one = |kind, verify: &'static dyn VerificationAlgorithm, name| {
        let pair = KeyPair::generate_for(kind).expect("a key");
        let token = parse(&pair.serialize_pem()).expect("a key").sign(&json!({"a": 1})).expect("randomness");
        let (head, claims, signed, signature) = parts(&token);
        assert_eq!((head, claims), (json!({"alg": name, "typ": "JWT"}), json!({"a": 1})));
        UnparsedPublicKey::new(verify, pair.public_key_raw())
            .verify(signed.as_bytes(), &signature)
            .expect(name);
    };
    one(&PKCS_ECDSA_P256_SHA256, &ECDSA_P256_SHA256_FIXED, "ES256");
    one(&PKCS_ECDSA_P384_SHA384, &ECDSA_P384_SHA384_FIXED, "ES384");
    one(&PKCS_ED25519, &ED25519, "EdDSA");
}

#[test]
fn what_is_no_key_is_said_without_a_word_of_it() {
    let ed = KeyPair::generate_for(&PKCS_ED25519).expect("a key").serialize_pem();
    let ec = KeyPair::generate().expect("a key");
    let certificate =
        CertificateParams::new(["x".to_owned()]).expect("p").self_signed(&ec).expect("a certificate").pem();
    let short = json!({"kty": "EC", "crv": "P-256", "d": "canary", "x": "canary", "y": "canary"}).to_string();
    let curve = json!({"kty": "EC", "crv": "secp256k1", "d": "AA", "x": "AA", "y": "AA"}).to_string();
    for (text, expected) in [
        ("canary", KeyError::NotAKey),
        ("{canary", KeyError::NotAKey),
        ("{}", KeyError::NotAKey),
        (r#"{"keys":[]}"#, KeyError::KeySet),
        (r#"{"type":"service_account"}"#, KeyError::GoogleFile),
        (r#"{"kty":"RSA","n":"AQAB","e":"AQAB"}"#, KeyError::PublicOnly),
        (r#"{"kty":"oct","k":"AA","d":"AA"}"#, KeyError::Unsupported),
        (r#"{"kty":"RSA","n":"AQAB","e":"AQAB","d":"AQAB"}"#, KeyError::Unsupported),
        (&certificate, KeyError::PublicOnly),
        (&ec.public_key_pem(), KeyError::PublicOnly),
        (&short, KeyError::Unsupported),
        (&curve, KeyError::Unsupported),
        (
            "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAA==\n-----END ENCRYPTED PRIVATE KEY-----",
            KeyError::Encrypted,
        ),
        ("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----", KeyError::Unsupported),
        ("-----BEGIN RSA PRIVATE KEY-----\nAAAA\n-----END RSA PRIVATE KEY-----", KeyError::Unsupported),
        ("-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----", KeyError::Unsupported),
    ] {
        let error = parse(text).expect_err(text);
        assert_eq!(error, expected, "{text}");
        assert!(!format!("{error} {error:?}").contains("canary"));
    }
    let wanted =
        |algorithm| SigningKey::parse(&ed.clone().into(), Some(algorithm), RS256).map(|k| k.algorithm());
    assert_eq!(wanted(SigningAlgorithm::EdDSA), Ok(SigningAlgorithm::EdDSA));
    assert_eq!(wanted(RS256).err(), Some(KeyError::Algorithm(RS256)));
}

#[test]
fn a_google_file_is_read_as_it_comes() {
    let pem = KeyPair::generate().expect("a key").serialize_pem();
    let file = |change: Value| {
        let mut file = json!({
            "type": "service_account", "private_key": pem, "private_key_id": "k1", "client_email": "r@p.example",
            "token_uri": "https://evil.example/token", "auth_uri": "https://evil.example", "universe_domain": "x",
        });
        file.as_object_mut().expect("a file").extend(change.as_object().expect("an object").clone());
        BearerKey::parse(&file.to_string().into())
    };
    let read = file(json!({})).expect("a key");
    assert_eq!((read.issuer.as_deref(), read.key.key_id()), (Some("r@p.example"), Some("k1")));
    for (change, expected) in [
        (json!({"type": "external_account"}), BearerKeyError::ExternalAccount),
        (json!({"type": "impersonated_service_account"}), BearerKeyError::ExternalAccount),
        (json!({"type": "authorized_user"}), BearerKeyError::AuthorizedUser),
        (json!({"type": "something"}), BearerKeyError::Key(KeyError::NotAKey)),
        (json!({"client_email": null}), BearerKeyError::Incomplete),
        (json!({"private_key": null}), BearerKeyError::Incomplete),
        (json!({"private_key": "canary"}), BearerKeyError::Key(KeyError::NotAKey)),
    ] {
        let error = file(change.clone()).expect_err("no key");
        assert_eq!(error, expected, "{change}");
        assert!(!error.to_string().contains("canary") && !error.to_string().contains("evil"));
    }
    // Google wants the scopes inside, and a subject only for somebody to act for.
    let assertion = super::BearerAssertion {
        key: read.key,
        issuer: "r@p.example".into(),
        subject: None,
        audience: None,
        carries_scopes: true,
    };
    let scopes = ScopeSet::parse("a b").expect("scopes");
    let sign = |assertion: &super::BearerAssertion| {
        parts(&assertion.sign("https://as.example/token", &scopes, Timestamp::UNIX_EPOCH).expect("signed")).1
    };
    let claims = sign(&assertion);
    assert_eq!(claims["scope"], "a b");
    assert_eq!((&claims["aud"], claims.get("sub")), (&json!("https://as.example/token"), None));
    let claims = sign(&super::BearerAssertion { carries_scopes: false, ..assertion });
    assert_eq!((claims.get("scope"), &claims["sub"]), (None, &json!("r@p.example")));
}
