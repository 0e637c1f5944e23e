//! `applink authorize` as a person runs it: what it says is read while it runs, and a code can be typed.

use std::path::Path;
use std::process::Stdio;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::process::{Child, Command};

use super::wait::{SOON, eventually};

/// A run of the tool. Dropping it ends it.
pub struct Authorize {
    child: Child,
    said: Arc<Mutex<String>>,
}

impl Authorize {
    /// Runs it with a kubeconfig.
    pub fn run(binary: &Path, kubeconfig: &Path, args: &[&str]) -> Self {
        let mut child = Command::new(binary)
            .env_clear()
            .env("HOME", "/nonexistent")
            .env("KUBECONFIG", kubeconfig)
            .arg("authorize")
            .args(args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .expect("the tool starts");
        let said = Arc::new(Mutex::new(String::new()));
        let (mut out, mut err) = (child.stdout.take().expect("stdout"), child.stderr.take().expect("stderr"));
        let (a, b) = (said.clone(), said.clone());
        let keep = |said: &Mutex<String>, bytes: &[u8]| {
            said.lock().expect("not poisoned").push_str(&String::from_utf8_lossy(bytes));
        };
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = out.read(&mut buffer).await {
                keep(&a, &buffer[..n]);
            }
        });
        tokio::spawn(async move {
            let mut buffer = [0; 4096];
            while let Ok(n @ 1..) = err.read(&mut buffer).await {
                keep(&b, &buffer[..n]);
            }
        });
        Self { child, said }
    }

    /// All that it said so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("not poisoned").clone()
    }

    /// Waits for a line in which `part` stands, and gives back its text.
    pub async fn line(&self, part: &str) -> String {
        eventually(SOON, format!("a line with {part:?}"), async || {
            let said = self.said();
            // A line that is still being written has no end yet.
            let whole = said.rfind('\n').map_or("", |end| &said[..end]);
            whole.lines().find(|l| l.contains(part)).map(|l| l.trim().to_owned()).ok_or(said.clone())
        })
        .await
    }

    /// The address to open.
    pub async fn address(&self) -> String {
        self.line("?ticket=").await
    }

    /// Types a line.
    pub async fn type_in(&mut self, text: &str) {
        let stdin = self.child.stdin.as_mut().expect("stdin");
        stdin.write_all(format!("{text}\n").as_bytes()).await.expect("typed");
        stdin.flush().await.expect("typed");
    }

    /// Waits for its end: the exit code, and all that it said.
    pub async fn end(mut self) -> (Option<i32>, String) {
        let status = tokio::time::timeout(SOON, self.child.wait())
            .await
            .unwrap_or_else(|_| panic!("it doesn't end; it said:\n{}", self.said()))
            .expect("an end");
        (status.code(), self.said())
    }

    /// Presses Ctrl-C.
    pub fn interrupt(&self) {
        let pid = self.child.id().expect("it runs");
        super::process::interrupt(pid);
    }
}
