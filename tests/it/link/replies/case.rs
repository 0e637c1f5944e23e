//! The cases: what they are, and the bytes that they make.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::wire;

/// What an answer is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Token,
    Discovery,
    Jwks,
}

impl Kind {
    pub const ALL: [Self; 3] = [Self::Token, Self::Discovery, Self::Jwks];

    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Discovery => "discovery",
            Self::Jwks => "jwks",
        }
    }
}

/// Who reads it.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Client {
    Us,
    Go,
    Authlib,
    Openid,
}

#[derive(Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub case: String,
    #[serde(skip, default = "token")]
    pub kind: Kind,
    pub takes: Vec<Client>,
    pub why: Option<String>,
    #[serde(default)]
    gives: Map<String, Value>,
    #[serde(default)]
    set: Map<String, Value>,
    body: Option<String>,
    hex: Option<String>,
    deep: Option<usize>,
    long: Option<String>,
    keys: Option<Vec<Value>>,
    text: Option<String>,
    coding: Option<String>,
    #[serde(default)]
    headers: BTreeMap<String, Option<String>>,
    status: Option<u16>,
    framing: Option<String>,
}

fn token() -> Kind {
    Kind::Token
}

/// All cases, token replies first.
pub fn all() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/replies");
    let of = |kind: Kind| {
        let file = folder.join(format!("{}.yaml", kind.name()));
        let text = std::fs::read_to_string(&file).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let cases: Vec<Case> =
            serde_yaml::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let mut names: Vec<_> = cases.iter().map(|c| c.case.clone()).collect();
        names.sort();
        names.windows(2).for_each(|pair| assert_ne!(pair[0], pair[1], "{}", file.display()));
        cases.into_iter().map(move |case| Case { kind, ..case })
    };
    Kind::ALL.into_iter().flat_map(of).collect()
}

const KEY: &str = r#"{"kty":"EC","crv":"P-256","x":"mv9Kx-XOMP8Sj4iAMrOe1pvrf9uu5HmCrkdPJyMGl6o","y":"g7shEMNfb4LoqmE3VNesAK4k5pkc7mR-plGewZbMpJw","kid":"k1","alg":"ES256","use":"sig"}"#;

fn key(value: &Value) -> Value {
    let mut key: Value = serde_json::from_str(KEY).expect("JSON");
    match value.as_str() {
        Some("$KEY") => key,
        Some("$BARE") => {
            for name in ["kid", "alg", "use"] {
                key.as_object_mut().expect("an object").remove(name);
            }
            key
        }
        _ => value.clone(),
    }
}

impl Case {
    /// The plain answer of a kind.
    pub fn plain(kind: Kind) -> Self {
        let case: Self = serde_json::from_value(json!({"case": "plain", "takes": []})).expect("a case");
        Self { kind, ..case }
    }

    /// What we make of a token reply.
    pub fn given(&self) -> Value {
        let mut given =
            json!({"access_token": "at", "refresh_token": "rt", "expires_in": 3600, "scope": null});
        self.gives.iter().for_each(|(name, value)| given[name] = value.clone());
        given
    }

    fn object(&self) -> Value {
        let mut object = match self.kind {
            Kind::Token => {
                json!({"access_token": "at", "token_type": "Bearer", "expires_in": 3600, "refresh_token": "rt"})
            }
            Kind::Discovery => json!({
                "issuer": "$ISSUER", "token_endpoint": "$BASE/t", "authorization_endpoint": "$BASE/a", "jwks_uri": "$BASE/k",
                "response_types_supported": ["code"], "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }),
            Kind::Jwks => {
                let plain = vec![json!("$KEY")];
                json!({"keys": self.keys.as_ref().unwrap_or(&plain).iter().map(key).collect::<Vec<_>>()})
            }
        };
        for (name, value) in &self.set {
            if value == "$gone" {
                object.as_object_mut().expect("an object").remove(name);
            } else {
                object[name] = value.clone();
            }
        }
        if let Some(deep) = self.deep {
            object["deep"] = (0..deep).fold(json!(1), |inner, _| json!({ "d": inner }));
        }
        if let Some(name) = &self.long {
            object[name] = "x".repeat(70_000).into();
        }
        object
    }

    /// The whole answer; `words` fills in the addresses.
    pub fn bytes(&self, words: &dyn Fn(&str) -> String) -> Vec<u8> {
        let body = match (&self.hex, &self.body) {
            (Some(hex), _) => (0..hex.len())
                .step_by(2)
                .map(|i| u8::from_str_radix(&hex[i..i + 2], 16).expect("hex"))
                .collect(),
            (None, Some(body)) => words(&body.replace("$KEY", KEY)).into_bytes(),
            (None, None) => words(&self.object().to_string()).into_bytes(),
        };
        let body = wire::encoded(body, self.text.as_deref().unwrap_or("utf-8"));
        let (body, coding) = wire::coded(body, self.coding.as_deref().unwrap_or_default());
        let mut headers = BTreeMap::from([("Content-Type".to_owned(), "application/json".to_owned())]);
        if !coding.is_empty() {
            headers.insert("Content-Encoding".to_owned(), coding);
        }
        for (name, value) in &self.headers {
            match value {
                Some(value) => headers.insert(name.clone(), words(value)),
                None => headers.remove(name),
            };
        }
        wire::framed(self.status.unwrap_or(200), &headers, &body, self.framing.as_deref().unwrap_or("length"))
    }
}

/// The table of a kind, as the documentation has it.
pub fn table(kind: Kind, cases: &[Case]) -> String {
    let go = if kind == Kind::Token { "x/oauth2" } else { "go-oidc" };
    let mut text = format!(
        "| the answer | we | {go} | Authlib | openid-client | why not |\n|---|---|---|---|---|---|\n"
    );
    for case in cases.iter().filter(|c| c.kind == kind) {
        let cell = |client| if case.takes.contains(&client) { "yes" } else { "–" };
        let [us, go, authlib, openid] = [Client::Us, Client::Go, Client::Authlib, Client::Openid].map(cell);
        let why = case.why.as_deref().unwrap_or_default();
        text += &format!("| {} | {us} | {go} | {authlib} | {openid} | {why} |\n", case.case);
    }
    text
}
