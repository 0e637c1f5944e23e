//! Reads the corpus; see the README beside. The client's test and the operator's both use it.

use serde::Deserialize;
use std::collections::BTreeSet;
use std::path::Path;

/// An attempt.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub case: String,
    pub url: String,
    pub dns: Option<Vec<String>>,
    #[serde(default)]
    pub why: Why,
}

/// Why it is refused.
#[derive(Deserialize, Clone, Copy, Default, PartialEq, Debug)]
pub enum Why {
    #[default]
    NotPublic,
    PlainHttp,
    Port,
    Scheme,
    UserInfo,
    NoHost,
    NotUrl,
}

/// All of them, file by file.
pub fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/outbound");
    let mut files: Vec<_> =
        std::fs::read_dir(folder).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.sort();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    let read = |path: &std::path::PathBuf| {
        let text = std::fs::read_to_string(path).expect("a file of the corpus");
        serde_yaml::from_str::<Vec<Case>>(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
    };
    let cases: Vec<_> = files.iter().flat_map(read).collect();
    let names: BTreeSet<_> = cases.iter().map(|c| &c.case).collect();
    assert_eq!(names.len(), cases.len(), "a case's name stands twice");
    cases
}
