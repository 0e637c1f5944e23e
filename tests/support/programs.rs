//! The pinned programs (etcd, kube-apiserver, kubectl, Helm, …): where they are, and how one is run to its end.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::sync::{Mutex, OnceCell};

/// What a command said and how it ended.
#[derive(Debug)]
pub struct Output {
    pub command: String,
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Output {
    pub fn is_ok(&self) -> bool {
        self.code == Some(0)
    }

    /// What it printed.
    ///
    /// # Panics
    /// When it failed: with all it said.
    #[track_caller]
    pub fn ok(self) -> String {
        assert!(self.is_ok(), "{} failed ({:?}):\n{}{}", self.command, self.code, self.stdout, self.stderr);
        self.stdout
    }
}

/// Runs a command to its end.
///
/// # Panics
/// When it can't be started.
pub async fn run(mut command: Command) -> Output {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let line = words.map(OsStr::to_string_lossy).collect::<Vec<_>>().join(" ");
    let output = tokio::task::spawn_blocking(move || command.output()).await.expect("no panic");
    let output = output.unwrap_or_else(|error| panic!("{line} can't start: {error}"));
    Output {
        command: line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The same, with a text on its standard input.
///
/// # Panics
/// When it can't be started.
pub async fn run_with_input(mut command: Command, input: String) -> Output {
    use std::io::Write as _;
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let line = format!("{:?}", command.get_program());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        // It reads all before it says a word.
        child.stdin.take().expect("a pipe").write_all(input.as_bytes())?;
        child.wait_with_output()
    });
    let output = output.await.expect("no panic").unwrap_or_else(|error| panic!("{line}: {error}"));
    Output {
        command: line,
        code: output.status.code(),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The folder of the control plane's programs. The other parts are asked for one by one: who tests something else
/// needs no Java.
pub(super) async fn folder() -> PathBuf {
    folder_of(&["etcd", "kubernetes", "helm"]).await
}

/// A folder with the programs of these parts of the rig, as `tests/rig/build.sh` finds or makes them; it is asked once.
pub(super) async fn folder_of(parts: &[&str]) -> PathBuf {
    static FOUND: Mutex<BTreeMap<String, PathBuf>> = Mutex::const_new(BTreeMap::new());
    let mut found = FOUND.lock().await;
    let name = parts.join(" ");
    if let Some(folder) = found.get(&name) {
        return folder.clone();
    }
    let mut command = Command::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/rig/build.sh"));
    // A first build takes minutes: whoever waits sees its progress.
    command.arg("--print-bin").args(parts).stderr(Stdio::inherit());
    let folder = PathBuf::from(run(command).await.ok().trim());
    found.insert(name, folder.clone());
    folder
}

/// The folder that a script installs other people's programs into; it runs once a test program.
pub async fn installed_by(folder: &OnceCell<PathBuf>, script: &str) -> PathBuf {
    let install = async || {
        let mut command = Command::new(script);
        command.stderr(Stdio::inherit());
        PathBuf::from(run(command).await.ok().trim())
    };
    folder.get_or_init(install).await.clone()
}
