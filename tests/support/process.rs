//! Child processes that can't outlive this one, and the folder they live in.
//!
//! A child is started by a line of shell that leaves a guard beside it and then becomes the program, so that the child
//! is our own child, with its own PID, signals and exit status. The guard reads a pipe whose other end only this process
//! holds. The pipe closes when this process ends, however it ends (also by SIGKILL), and the guard then kills the whole
//! process group. The guard is in that group too, so its number can't have passed to anybody else by then.

use std::ffi::{OsStr, OsString};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::time::Duration;

use nix::sys::signal::Signal;
use nix::unistd::Pid;

use super::wait::eventually;

const GUARDED: &str = r#"
exec 3<&0 </dev/null
(read -r _ <&3; kill -s KILL -- "-$$") &
exec 3<&-
exec "$@"
"#;

const REMOVE_AFTERWARDS: &str = r#"
read -r _
tries=50
while [ "$tries" -gt 0 ]; do
    rm -rf "$1" 2>/dev/null && exit
    tries=$((tries - 1))
    sleep 0.1
done
"#;

/// What to start, and how.
#[derive(Clone)]
pub struct Program {
    path: PathBuf,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    folder: Option<PathBuf>,
    log: PathBuf,
}

impl Program {
    /// A program that writes its output to the end of `log`. It starts with no environment at all.
    pub fn new(path: impl Into<PathBuf>, log: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), args: Vec::new(), env: Vec::new(), folder: None, log: log.into() }
    }

    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The folder that it starts in.
    pub fn folder(mut self, folder: impl Into<PathBuf>) -> Self {
        self.folder = Some(folder.into());
        self
    }

    /// # Panics
    /// When it can't be started.
    pub fn start(&self) -> Process {
        let log =
            OpenOptions::new().create(true).append(true).open(&self.log).expect("the log can be opened");
        let mut command = Command::new("/bin/sh");
        command.args(["-c", GUARDED, "sh"]).arg(&self.path).args(&self.args);
        command.env_clear().envs(self.env.iter().map(|(name, value)| (name, value)));
        if let Some(folder) = &self.folder {
            command.current_dir(folder);
        }
        // A group of its own: Ctrl-C reaches this process only, and the guards do the rest.
        command.process_group(0).stdin(Stdio::piped());
        command.stdout(log.try_clone().expect("the log can be shared")).stderr(log);
        let mut child =
            command.spawn().unwrap_or_else(|error| panic!("{} can't start: {error}", self.path.display()));
        Process {
            name: self.path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
            pid: child.id(),
            leash: child.stdin.take(),
            child: Mutex::new(child),
            log: self.log.clone(),
        }
    }
}

/// A running child. Dropping it kills it.
pub struct Process {
    name: String,
    pid: u32,
    child: Mutex<Child>,
    /// Our end of the guard's pipe.
    leash: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// What the kernel says of its memory, in KiB: `VmRSS`, what it holds, or `VmHWM`, the most that it ever held.
    ///
    /// # Panics
    /// When it has ended.
    pub fn memory(&self, field: &str) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let text = line.unwrap_or_else(|| panic!("{} has no {field}: {status}", self.name));
        text.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// From now on `VmHWM` is the most that it held since.
    ///
    /// # Panics
    /// When it has ended.
    pub fn forget_peak_memory(&self) {
        std::fs::write(format!("/proc/{}/clear_refs", self.pid), "5").expect("it runs");
    }

    /// How it ended, or `None` while it runs.
    pub fn exit(&self) -> Option<ExitStatus> {
        self.child.lock().ok()?.try_wait().expect("a child can be asked for its state")
    }

    pub fn is_running(&self) -> bool {
        self.exit().is_none()
    }

    /// Sends a signal, unless it has ended.
    pub fn signal(&self, signal: Signal) {
        let Ok(mut child) = self.child.lock() else { return };
        if child.try_wait().expect("a child can be asked for its state").is_none() {
            // Nobody reaps it while its lock is held: its number is still its own.
            let pid = Pid::from_raw(i32::try_from(self.pid).expect("a PID fits"));
            nix::sys::signal::kill(pid, signal)
                .unwrap_or_else(|error| panic!("{signal} to {}: {error}", self.name));
        }
    }

    /// SIGKILL: as when its node dies.
    pub fn kill(&self) {
        self.signal(Signal::SIGKILL);
    }

    /// SIGTERM: as when its Pod is deleted.
    pub fn terminate(&self) {
        self.signal(Signal::SIGTERM);
    }

    /// Waits until it has ended.
    ///
    /// # Panics
    /// When it still runs after `deadline`.
    pub async fn wait(&self, deadline: Duration) -> ExitStatus {
        let what = format!("the end of {} ({})", self.name, self.pid);
        eventually(deadline, what, async || self.exit()).await
    }

    pub fn log_path(&self) -> &Path {
        &self.log
    }

    /// All it has written so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// # Panics
    /// When it has ended: with the end of its log. For a condition that can't come true any more then.
    pub fn must_run(&self) {
        if let Some(status) = self.exit() {
            let log = self.log();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines[lines.len().saturating_sub(20)..].join("\n");
            panic!("{} ended too early ({status}); the end of its log:\n{tail}", self.name);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut() {
            // Either fails only where it has ended already.
            let _ = child.kill();
            let _ = child.wait();
        }
        // The guard now ends what the program itself may have started.
        drop(self.leash.take());
    }
}

pub(super) fn read_log(path: &Path) -> String {
    std::fs::read(path).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
}

/// A folder that is removed when it is dropped, and also when this process ends without dropping it (statics are
/// never dropped). With `APPLINK_RIG_KEEP` set it stays, and its path is said.
pub struct RunDir {
    path: PathBuf,
    remover: Option<Child>,
}

impl RunDir {
    /// # Panics
    /// When it can't be made.
    pub fn new(prefix: &str) -> Self {
        // It holds the keys of a control plane.
        let private = std::fs::Permissions::from_mode(0o700);
        let folder = tempfile::Builder::new().prefix(prefix).permissions(private).tempdir();
        let path = folder.expect("a temporary folder").keep();
        if std::env::var_os("APPLINK_RIG_KEEP").is_some() {
            eprintln!("rig: keeping {}", path.display());
            return Self { path, remover: None };
        }
        let mut command = Command::new("/bin/sh");
        command.args(["-c", REMOVE_AFTERWARDS, "sh"]).arg(&path).process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { path, remover: Some(command.spawn().expect("a shell")) }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// A folder in it, made if need be.
    ///
    /// # Panics
    /// When it can't be made.
    pub fn folder(&self, name: impl AsRef<Path>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path).expect("a folder in the run's folder");
        path
    }

    /// Writes a file in it.
    ///
    /// # Panics
    /// When it can't be written.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path.join(name);
        std::fs::write(&path, content).expect("a file in the run's folder");
        path
    }

    /// Opens a file in it from its start, if it is there yet.
    pub fn open(&self, name: impl AsRef<Path>) -> Option<File> {
        File::open(self.path.join(name)).ok()
    }
}

impl Drop for RunDir {
    fn drop(&mut self) {
        if let Some(mut remover) = self.remover.take() {
            drop(remover.stdin.take());
            let _ = remover.wait();
        }
    }
}

/// Sends a process that a test started what Ctrl-C sends.
pub fn interrupt(pid: u32) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).expect("a process ID"));
    nix::sys::signal::kill(pid, Signal::SIGINT).expect("it runs");
}
