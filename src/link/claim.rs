//! Where a link's client was registered: the annotation that is written before the first call,
//! so that a client is found again whatever happened after. Pure.
//!
//! Whoever may edit a link may edit its annotations. So each claim carries a proof that the operator
//! wrote it, for this link.

use crate::api::link::ProviderKind;
use crate::api::names;
use crate::domain::KeyRing;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One place where a link's client is, or may be.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Claim {
    /// Kind of the provider.
    pub kind: ProviderKind,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

/// A claim as it stands in the annotation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stated {
    /// The claim.
    #[serde(flatten)]
    pub claim: Claim,
    /// The proof; `None` in one of the versions that wrote none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proof: Option<String>,
}

/// What a claim's proof says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The operator wrote it for this link.
    Proven,
    /// It has none, as those of the versions before.
    Unproven,
    /// It has one that isn't genuine, or is another link's.
    Forged,
}

const PURPOSE: &str = "claim";

fn parts<'a>(namespace: &'a str, link_uid: &'a str, claim: &'a Claim) -> [&'a str; 5] {
    [namespace, link_uid, claim.kind.as_str(), &claim.name, &claim.uid]
}

impl Stated {
    /// What the proof says for a link of this namespace and UID.
    pub fn standing(&self, keys: &KeyRing, namespace: &str, link_uid: &str) -> Standing {
        let Some(proof) = &self.proof else { return Standing::Unproven };
        if keys.is_fingerprint(PURPOSE, &parts(namespace, link_uid, &self.claim), proof) {
            Standing::Proven
        } else {
            Standing::Forged
        }
    }
}

/// What the annotation says, proven or not. Text that isn't ours, as after a person's edit, reads as
/// none: what it should say is found out again.
pub fn read(annotations: &BTreeMap<String, String>) -> Vec<Stated> {
    let mut stated: Vec<Stated> = annotations
        .get(names::REGISTERED_AT)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    // It may have been edited, and these become part of a path.
    let plain = |s: &str, extra: &[u8]| {
        (1..=253).contains(&s.len())
            && !s.starts_with('.')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || extra.contains(&b))
    };
    stated.retain(|s| plain(&s.claim.name, b".") && plain(&s.claim.uid, b""));
    stated
}

/// What the annotation says, whoever wrote it: a hint at whom the link may have to do with, and no more.
pub fn hints(annotations: &BTreeMap<String, String>) -> Vec<Claim> {
    read(annotations).into_iter().map(|s| s.claim).collect()
}

/// The annotation's text, with proofs by the active key.
pub fn write(keys: &KeyRing, namespace: &str, link_uid: &str, claims: &[Claim]) -> String {
    let stated: Vec<Stated> = claims
        .iter()
        .map(|claim| Stated {
            claim: claim.clone(),
            proof: Some(keys.fingerprint(PURPOSE, &parts(namespace, link_uid, claim))),
        })
        .collect();
    serde_json::to_string(&stated).unwrap_or_default()
}

/// Whether the annotation is just as [`write()`] would make it; one without claims may be left out.
pub fn is_current(
    keys: &KeyRing,
    namespace: &str,
    link_uid: &str,
    claims: &[Claim],
    annotations: &BTreeMap<String, String>,
) -> bool {
    match annotations.get(names::REGISTERED_AT) {
        None => claims.is_empty(),
        Some(text) => *text == write(keys, namespace, link_uid, claims),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::{InstallationId, MasterKey};

    fn keys(active: &str) -> KeyRing {
        let all = [("1", 7u8), ("2", 8)].map(|(id, b)| (id.to_owned(), MasterKey::from_bytes([b; 32])));
        KeyRing::from_keys(InstallationId::parse("inst").expect("an ID"), active, all.into()).expect("a ring")
    }

    fn claim(uid: &str) -> Claim {
        Claim { kind: ProviderKind::ClusterLinkProvider, name: "p".into(), uid: uid.into() }
    }

    #[test]
    fn a_proof_is_of_one_claim_of_one_link() {
        let keys = keys("1");
        let text = write(&keys, "a", "link", &[claim("x")]);
        let annotations = BTreeMap::from([(names::REGISTERED_AT.to_owned(), text)]);
        let [stated] = &read(&annotations)[..] else { panic!("one claim") };
        let standing = |s: &Stated, n, u| s.standing(&keys, n, u);
        assert_eq!(standing(stated, "a", "link"), Standing::Proven);
        assert_eq!(standing(stated, "b", "link"), Standing::Forged);
        assert_eq!(standing(stated, "a", "other"), Standing::Forged);
        let other = Stated { claim: claim("y"), ..stated.clone() };
        assert_eq!(standing(&other, "a", "link"), Standing::Forged);
        let cluster = Claim { kind: ProviderKind::LinkProvider, ..claim("x") };
        assert_eq!(standing(&Stated { claim: cluster, ..stated.clone() }, "a", "link"), Standing::Forged);
        assert_eq!(standing(&Stated { proof: None, ..stated.clone() }, "a", "link"), Standing::Unproven);
        let guessed = Stated { proof: Some(String::new()), ..stated.clone() };
        assert_eq!(standing(&guessed, "a", "link"), Standing::Forged);
    }

    #[test]
    fn a_proof_by_an_older_key_is_genuine_and_made_anew() {
        let (old, new) = (keys("1"), keys("2"));
        let text = write(&old, "a", "link", &[claim("x")]);
        let annotations = BTreeMap::from([(names::REGISTERED_AT.to_owned(), text)]);
        assert_eq!(read(&annotations)[0].standing(&new, "a", "link"), Standing::Proven);
        assert!(is_current(&old, "a", "link", &[claim("x")], &annotations));
        assert!(!is_current(&new, "a", "link", &[claim("x")], &annotations));
        assert!(!is_current(&old, "a", "link", &[], &annotations));
        assert!(is_current(&old, "a", "link", &[], &BTreeMap::new()));
    }

    #[test]
    fn every_claim_counts_however_many_there_are() {
        let keys = keys("1");
        let claims: Vec<Claim> = (0..20).map(|n| claim(&format!("u{n}"))).collect();
        let text = write(&keys, "a", "link", &claims);
        let annotations = BTreeMap::from([(names::REGISTERED_AT.to_owned(), text)]);
        assert_eq!(hints(&annotations), claims);
    }
}
