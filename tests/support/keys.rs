//! Key pairs in every form that people keep them in, made by Node.js: none of our own code, and no key in the repository.

use std::process::Command;

use serde_json::Value;

use super::programs::run;

/// A key pair.
pub struct Keys {
    /// The private key as PKCS#8.
    pub pkcs8: String,
    /// The same as PKCS#1 (RSA) or SEC1 (EC); Ed25519 has no such form.
    pub classic: Option<String>,
    /// The same as a JWK.
    pub jwk: Value,
    /// The public key as a JWK, with `kid`, `use` and `alg`.
    pub public: Value,
}

/// Makes a key pair for an algorithm (`RS256`, `PS256`, `ES256`, `ES384`, `EdDSA`); its `kid` is `key-1`.
pub async fn make(algorithm: &str) -> Keys {
    const SCRIPT: &str = r"
        const { generateKeyPairSync } = require('crypto');
        const alg = process.argv[1];
        const [kind, options, classic] = {
            R: ['rsa', { modulusLength: 2048 }, 'pkcs1'], P: ['rsa', { modulusLength: 2048 }, 'pkcs1'],
            E: ['ec', { namedCurve: alg === 'ES384' ? 'P-384' : 'P-256' }, 'sec1'],
        }[alg === 'EdDSA' ? '-' : alg[0]] || ['ed25519', {}, null];
        const { privateKey, publicKey } = generateKeyPairSync(kind, options);
        const pem = (type) => type && privateKey.export({ type, format: 'pem' });
        console.log(JSON.stringify({
            pkcs8: pem('pkcs8'), classic: pem(classic), jwk: privateKey.export({ format: 'jwk' }),
            public: { ...publicKey.export({ format: 'jwk' }), kid: 'key-1', use: 'sig', alg },
        }));
    ";
    let mut node = Command::new("node");
    node.args(["-e", SCRIPT, algorithm]);
    let made: Value = serde_json::from_str(&run(node).await.ok()).expect("JSON");
    let text = |name: &str| made[name].as_str().map(str::to_owned);
    Keys {
        pkcs8: text("pkcs8").expect("a PKCS#8 key"),
        classic: text("classic"),
        jwk: made["jwk"].clone(),
        public: made["public"].clone(),
    }
}
