//! A disk that fails when a test says so: a library in C that is loaded before all others into the program under test, and
//! fails its writes, syncs and truncations of certain files. Ours forbids unsafe code, and a program can't fail another's
//! system calls without some.

use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use tokio::sync::OnceCell;

use super::process::RunDir;
use super::programs::run;

/// How an operation fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    NoSpace = 1,
    IoError = 2,
    /// Half of it is written, and there is no space for the rest.
    ShortWrite = 3,
}

/// The faults there are.
pub const FAULTS: [Fault; 3] = [Fault::NoSpace, Fault::IoError, Fault::ShortWrite];

/// The disk below certain files. The fields of its control file are those of `faults.c`.
pub struct Disk {
    control: std::fs::File,
    env: Vec<(&'static str, PathBuf)>,
}

const LEFT: u64 = 0;
const KIND: u64 = 8;
const LASTING: u64 = 16;
const STRUCK: u64 = 24;
const ROOM: u64 = 32;
const BOUNDED: u64 = 40;

impl Disk {
    /// A disk for the files of a folder whose names begin so. It does nothing until it is told to.
    ///
    /// # Panics
    /// When there is no C compiler.
    pub async fn below(dir: &RunDir, files: &str) -> Self {
        static LIBRARY: OnceCell<(RunDir, PathBuf)> = OnceCell::const_new();
        let (_, library) = LIBRARY.get_or_init(build).await;
        let path = dir.write("disk-control", [0; 48]);
        let control =
            std::fs::OpenOptions::new().read(true).write(true).open(&path).expect("the control file");
        let disk = Self {
            control,
            env: vec![
                ("LD_PRELOAD", library.clone()),
                ("FAULTS_CONTROL", path),
                ("FAULTS_PATH", dir.path().join(files)),
            ],
        };
        disk.heal();
        disk
    }

    /// What the program under test must have in its environment.
    pub fn env(&self) -> impl Iterator<Item = (&'static str, &Path)> {
        self.env.iter().map(|(name, path)| (*name, path.as_path()))
    }

    fn get(&self, field: u64) -> u64 {
        let mut bytes = [0; 8];
        self.control.read_exact_at(&mut bytes, field).expect("the control file");
        u64::from_ne_bytes(bytes)
    }

    fn set(&self, field: u64, value: u64) {
        self.control.write_all_at(&value.to_ne_bytes(), field).expect("the control file");
    }

    /// The next operation but `n - 1` fails, once.
    pub fn strike(&self, n: u64, fault: Fault) {
        self.heal();
        self.set(KIND, fault as u64);
        self.set(LEFT, n);
    }

    /// All operations fail from now on.
    pub fn fail(&self, fault: Fault) {
        self.set(KIND, fault as u64);
        self.set(LASTING, 1);
    }

    /// The files may grow by so many bytes in all, and by what files that are removed had.
    pub fn room(&self, bytes: u32) {
        self.set(ROOM, bytes.into());
        self.set(BOUNDED, 1);
    }

    /// Nothing fails any more; there is room.
    pub fn heal(&self) {
        for field in [LEFT, LASTING, STRUCK, BOUNDED] {
            self.set(field, 0);
        }
    }

    /// How many operations failed since the last fault was asked for.
    pub fn struck(&self) -> u64 {
        self.get(STRUCK)
    }
}

async fn build() -> (RunDir, PathBuf) {
    let dir = RunDir::new("applink-disk-");
    let library = dir.path().join("libfaults.so");
    let mut cc = Command::new("cc");
    cc.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&library);
    cc.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/disk/faults.c")).arg("-ldl");
    run(cc).await.ok();
    (dir, library)
}
