//! Where a link's client was registered: the annotation that is written before the first call,
//! so that a client is found again whatever happened after. Pure.

use crate::api::link::ProviderKind;
use crate::api::names;
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

/// Reads the annotation. Text that isn't ours, as after a person's edit, reads as none: what it
/// should say is found out again.
pub fn read(annotations: &BTreeMap<String, String>) -> Vec<Claim> {
    let mut claims: Vec<Claim> = annotations
        .get(names::REGISTERED_AT)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    // It may have been edited, and these become part of a path.
    let plain = |s: &str, extra: &[u8]| {
        (1..=253).contains(&s.len())
            && !s.starts_with('.')
            && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || extra.contains(&b))
    };
    claims.retain(|c| plain(&c.name, b".") && plain(&c.uid, b""));
    claims.truncate(8);
    claims
}

/// The annotation's text.
pub fn write(claims: &[Claim]) -> String {
    serde_json::to_string(claims).unwrap_or_default()
}
