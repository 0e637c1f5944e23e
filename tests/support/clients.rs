//! Other people's OAuth clients, as `tests/clients/setup.sh` installs them.

use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;

use super::programs::installed_by;

const SCRIPTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients");

/// The folder they are installed in.
async fn installed() -> PathBuf {
    static FOLDER: OnceCell<PathBuf> = OnceCell::const_new();
    installed_by(&FOLDER, &format!("{SCRIPTS}/setup.sh")).await
}

/// A program in Go.
pub async fn go(name: &str) -> Command {
    Command::new(installed().await.join("bin").join(name))
}

/// A script in Python.
pub async fn python(script: &str) -> Command {
    let mut command = Command::new(installed().await.join("bin/python"));
    command.arg("-B").arg(format!("{SCRIPTS}/{script}"));
    command
}

/// A script in JavaScript, which is run from `folder`: Node.js looks for modules beside it.
pub async fn node(script: &str, folder: &Path) -> Command {
    let (here, modules) = (folder.join(script), folder.join("node_modules"));
    std::fs::copy(format!("{SCRIPTS}/{script}"), &here).expect("copied");
    std::os::unix::fs::symlink(installed().await.join("node_modules"), modules).expect("linked");
    let mut command = Command::new("node");
    command.arg(here).env("NO_PROXY", "127.0.0.1").env("no_proxy", "127.0.0.1");
    command
}
