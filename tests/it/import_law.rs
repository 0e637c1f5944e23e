//! The import law of the house: who may use whom, read off the `use` lines and paths of the source.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// What a part of the source may import: modules of this crate, and whether kube.
struct Law {
    /// Path below `src/`: a folder or a file without its ending.
    part: &'static str,
    modules: &'static [&'static str],
    kube: bool,
}

const LAWS: &[Law] = &[
    Law { part: "domain", modules: &[], kube: false },
    Law { part: "api", modules: &["domain"], kube: true },
    Law { part: "http", modules: &["domain"], kube: false },
    Law { part: "outgoing", modules: &["domain", "http"], kube: false },
    Law { part: "provider", modules: &["domain", "http", "outgoing"], kube: false },
    Law { part: "server", modules: &["domain", "runtime"], kube: false },
    Law { part: "web", modules: &["domain", "link", "runtime"], kube: false },
    Law { part: "runtime", modules: &[], kube: true },
    Law { part: "link", modules: &["api", "domain", "http", "outgoing", "provider"], kube: true },
];

/// The pure files: no client, no runtime, no clock, no randomness.
const PURE: &[&str] = &[
    "link/validate",
    "link/decide",
    "link/plan",
    "link/derive",
    "link/status",
    "link/facts",
    "link/claim",
    "link/grant",
    "link/unread",
    "link/consent/form",
    "link/consent/places",
    "link/consent/record",
    "link/consent/request",
    "link/consent/trouble",
    "link/kept_client",
    "link/content",
    "link/template",
    "link/providers",
    "link/run/queue",
    "link/run/line",
    "link/turns",
    "link/budgets",
    "link/write_rate",
    "domain",
];

/// What a pure file must not name. `kube::ResourceExt` and the like are accessors of values.
const IMPURE: &[&str] = &[
    "kube::Client",
    "kube::Api",
    "Api<",
    "tokio::",
    "hyper::",
    "hyper_util::",
    "reqwest::",
    "getrandom",
    "Timestamp::now()",
    "Instant::now()",
    "SystemTime",
];

fn files(below: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(below).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
    found
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

/// A file's code, without comments and tests.
fn code(path: &Path) -> String {
    let text = std::fs::read_to_string(path).expect("text");
    let text = text.split("#[cfg(test)]\nmod tests {").next().expect("a first part").to_owned();
    text.lines().filter(|l| !l.trim_start().starts_with("//")).map(|l| format!("{l}\n")).collect()
}

fn is_test(path: &Path) -> bool {
    let name = path.file_stem().and_then(|s| s.to_str()).unwrap_or_default();
    name.ends_with("tests") || name == "testing"
}

fn part_of(path: &Path) -> String {
    let below = path.strip_prefix(source()).expect("below src");
    below.with_extension("").to_string_lossy().replace('\\', "/")
}

fn within(part: &str, of: &str) -> bool {
    part == of || part.strip_prefix(of).is_some_and(|rest| rest.starts_with('/'))
}

#[test]
fn the_import_law_holds() {
    let own: BTreeSet<String> = std::fs::read_dir(source())
        .expect("src")
        .filter_map(|e| {
            let path = e.expect("an entry").path();
            path.is_dir().then(|| path.file_name().expect("a name").to_string_lossy().into_owned())
        })
        .collect();
    let mut broken = Vec::new();
    for path in files(&source()) {
        let part = part_of(&path);
        let Some(law) = LAWS.iter().find(|l| within(&part, l.part)) else { continue };
        if is_test(&path) {
            continue;
        }
        let code = code(&path);
        for module in own.iter().filter(|m| *m != law.part && !law.modules.contains(&m.as_str())) {
            if code.contains(&format!("crate::{module}::")) || code.contains(&format!("crate::{module};")) {
                broken.push(format!("{part} uses {module}"));
            }
        }
        if !law.kube && (code.contains("kube::") || code.contains("k8s_openapi")) {
            broken.push(format!("{part} uses kube"));
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
    let unruled: Vec<_> = own.iter().filter(|m| *m != "cli" && !LAWS.iter().any(|l| l.part == *m)).collect();
    assert!(unruled.is_empty(), "no law for {unruled:?}");
}

#[test]
fn what_is_called_pure_is_pure() {
    let mut broken = Vec::new();
    let mut seen = BTreeSet::new();
    for path in files(&source()) {
        let part = part_of(&path);
        let Some(pure) = PURE.iter().find(|p| within(&part, p)) else { continue };
        seen.insert(*pure);
        if is_test(&path) {
            continue;
        }
        let code = code(&path);
        broken.extend(IMPURE.iter().filter(|i| code.contains(**i)).map(|i| format!("{part} names {i}")));
    }
    assert!(broken.is_empty(), "{broken:#?}");
    assert_eq!(seen.len(), PURE.len(), "a pure file is gone");
}
