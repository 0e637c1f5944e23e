//! `applink lint` beside the API server: both are asked about every document of `tests/corpus/lint`.

use std::path::{Path, PathBuf};

use futures::StreamExt as _;
use serde_json::Value;

use super::{assert_harmless, fed, json_of, offline};
use crate::support::plane::ControlPlane;
use crate::support::programs::Output;
use crate::support::stage::crds;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Taken,
    Refused,
    Stalled,
}

struct Case {
    /// File and line of its first line.
    place: String,
    verdict: Verdict,
    field: String,
    words: String,
    text: String,
}

fn corpus() -> Vec<Case> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/lint");
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder).expect("the corpus").map(|e| e.expect("an entry").path()).collect();
    files.retain(|f| f.extension().is_some_and(|e| e == "yaml"));
    files.sort();
    let mut cases = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).expect("text");
        let mut line = 1;
        for part in text.split("\n---\n") {
            let head = part.lines().next().unwrap_or_default();
            let place = format!("{}:{line}", file.file_name().unwrap_or_default().to_string_lossy());
            let says = head.strip_prefix("# ").unwrap_or_else(|| panic!("{place}: no verdict: {head}"));
            let (word, rest) = says.split_once(' ').unwrap_or((says, ""));
            let verdict = match word {
                "taken" => Verdict::Taken,
                "refused" => Verdict::Refused,
                "stalled" => Verdict::Stalled,
                other => panic!("{place}: {other}?"),
            };
            let (field, words) = rest.split_once(':').unwrap_or((rest, ""));
            cases.push(Case {
                place,
                verdict,
                field: field.trim().to_owned(),
                words: words.trim().to_owned(),
                text: part.to_owned(),
            });
            line += part.lines().count() + 1;
        }
    }
    cases
}

/// What is wrong with what the two say of a case, if anything is.
fn judge(case: &Case, kubectl: &Output, lint: &Output) -> Result<(), String> {
    let report = json_of(lint);
    let findings = report["findings"].as_array().expect("findings");
    let both = || format!("kubectl: {}{}lint: {findings:#?}", kubectl.stdout, kubectl.stderr);
    let by_operator = |f: &Value| f["source"] == "operator" || f["source"] == "mistake";
    let here = if findings.is_empty() {
        Verdict::Taken
    } else if findings.iter().all(by_operator) {
        Verdict::Stalled
    } else {
        Verdict::Refused
    };
    if here != case.verdict {
        return Err(format!("lint says {here:?}, not {:?}; {}", case.verdict, both()));
    }
    if kubectl.is_ok() == (case.verdict == Verdict::Refused) {
        return Err(format!("the API server doesn't agree that it is {:?}; {}", case.verdict, both()));
    }
    if lint.code != Some(i32::from(here != Verdict::Taken)) {
        return Err(format!("exit code {:?}", lint.code));
    }
    let said = |f: &Value| {
        let text = format!("{} {} {}", f["value"], f["message"], f["wayOut"]).replace("\\\"", "\"");
        f["field"].as_str().is_some_and(|at| at.starts_with(&case.field)) && text.contains(&case.words)
    };
    // A hint that ends where its words should begin is none.
    let hint = |f: &Value| f["wayOut"].as_str().map(str::to_owned);
    if let Some(hint) = findings.iter().filter_map(hint).find(|h| h.trim() != h || h.is_empty()) {
        return Err(format!("an empty hint: {hint:?}"));
    }
    if case.verdict != Verdict::Taken && !findings.iter().any(said) {
        return Err(format!("lint doesn't say {:?} of {}; {}", case.words, case.field, both()));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn lint_agrees_with_the_api_server() {
    let plane = ControlPlane::shared().await;
    crds(plane).await;
    let namespace = plane.namespace("lint").await;
    let cases = corpus();
    assert!(cases.len() > 90, "{}", cases.len());
    let results = futures::stream::iter(cases.iter().enumerate()).map(|(i, case)| {
        let (plane, namespace) = (plane, namespace.as_str());
        async move {
            let file = plane.run_dir().write(format!("lint-{i}.yaml"), &case.text);
            let file = file.to_string_lossy();
            // Not apply, which drops every null before the API server sees it.
            let apply = ["create", "--dry-run=server", "-n", namespace, "-f", &file];
            let args = ["lint", "-o", "json", &file];
            let (kubectl, lint) = tokio::join!(plane.kubectl(&apply), offline(&args));
            judge(case, &kubectl, &lint).map_err(|why| format!("{}: {why}", case.place))
        }
    });
    let wrong: Vec<String> = results.buffered(4).filter_map(async |r| r.err()).collect().await;
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

const GOOD: &str = "\
apiVersion: applink-operator.io/v1alpha1
kind: ApplicationLink
metadata: {name: ci, namespace: a}
spec:
  application: {name: CI}
  incoming: {oauth2: {}}
";

#[tokio::test(flavor = "multi_thread")]
async fn exit_codes_and_lines() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = |name: &str| folder.path().join(name);
    std::fs::create_dir(path("sub")).expect("a folder");
    let bad = format!("{GOOD}---\n# two\n{}", GOOD.replace("oauth2: {}", "oauth2: {scopes: [A, a b]}"));
    std::fs::write(path("sub/bad.yaml"), bad).expect("written");
    std::fs::write(path("good.yml"), GOOD).expect("written");
    std::fs::write(path("notes.txt"), "not read").expect("written");
    let good = path("good.yml").display().to_string();

    let clean = offline(&["lint", &good]).await;
    assert_eq!((clean.code, clean.stderr.as_str()), (Some(0), ""), "{clean:?}");
    assert_eq!(clean.stdout, "0 findings in 1 object of 1 file\n");

    let all = offline(&["lint", &folder.path().display().to_string()]).await;
    assert_eq!((all.code, all.stderr.as_str()), (Some(1), ""), "{all:?}");
    let place = format!(
        "{}:14: ApplicationLink/ci: spec.incoming.oauth2.scopes[1]: \"a b\": must be a scope",
        path("sub/bad.yaml").display()
    );
    assert!(
        all.stdout.contains(&place) && all.stdout.contains("1 finding in 3 objects of 2 files"),
        "{}",
        all.stdout
    );

    let report =
        json_of(&offline(&["lint", "-o", "json", &path("sub/bad.yaml").display().to_string()]).await);
    let finding = &report["findings"][0];
    assert_eq!(
        (&finding["line"], &finding["document"], &finding["source"]),
        (&14.into(), &2.into(), &"schema".into())
    );
    assert_eq!((&finding["kind"], &finding["name"]), (&"ApplicationLink".into(), &"ci".into()));

    let examples = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/examples");
    let ours = offline(&["lint", examples]).await;
    assert_eq!(ours.code, Some(0), "{ours:?}");

    let stdin = fed(&["lint", "-"], &GOOD.replace("application:", "aplication:")).await;
    assert_eq!(stdin.code, Some(1), "{stdin:?}");
    assert!(stdin.stdout.contains("did you mean application?"), "{}", stdin.stdout);

    let gone = offline(&["lint", &good, "/does/not/exist.yaml"]).await;
    assert_eq!(gone.code, Some(2), "{gone:?}");
    assert!(gone.stderr.contains("/does/not/exist.yaml") && gone.stdout.contains("0 findings"), "{gone:?}");
    assert_eq!(offline(&["lint"]).await.code, Some(2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_examples_of_the_page_on_outgoing_links_are_clean() {
    let page =
        std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/outgoing.md")).expect("the page");
    let blocks: Vec<_> = page
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split_once("```"))
        .map(|(yaml, _)| yaml)
        .collect();
    assert!(blocks.len() >= 5, "{}", blocks.len());
    for yaml in blocks {
        let said = fed(&["lint", "-"], yaml).await;
        assert_eq!(said.code, Some(0), "{yaml}{said:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_hostile_file_can_t_steer_the_terminal_or_the_process() {
    let name = "\"\\e]0;owned\\a\\u009b31m\\u202e\"";
    let evil = GOOD
        .replace("name: CI", &format!("name: {name}"))
        .replace("name: ci", &format!("name: {name}, {name}: x"));
    let said = fed(&["lint", "-"], &evil).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_harmless(&said.stdout);
    assert_harmless(&said.stderr);
    for bomb in [
        format!("a: {}", "[".repeat(100_000)),
        format!("{}x", "- ".repeat(50_000)),
        "\0\u{1}\u{2}".to_owned(),
        "a: &a [*a]".to_owned(),
        format!("{GOOD}{}", "x: &x [x, x]\n".repeat(3)),
    ] {
        let said = fed(&["lint", "-"], &bomb).await;
        assert!(matches!(said.code, Some(0 | 1)), "{said:?}");
        assert_harmless(&said.stdout);
    }
}
