//! Ory Hydra, as a process of its own for whoever asks: it is ready in a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use reqwest::Method;
use serde_json::Value;

use super::ports;
use super::process::{Process, Program, RunDir};
use super::programs::{self, run};
use super::stage::http;
use super::wait::eventually;

const START: Duration = Duration::from_secs(60);

/// A running Hydra. Dropping it ends it and removes what it stored.
pub struct Hydra {
    // Dropped from the top, and the folder last.
    process: Option<Process>,
    program: Program,
    binary: PathBuf,
    /// Where it stores, unless that is its memory.
    database: Option<PathBuf>,
    public: u16,
    admin: u16,
    run: RunDir,
}

impl Hydra {
    /// A Hydra that forgets all when it ends.
    pub async fn start() -> Self {
        Self::begin(false, &[]).await
    }

    /// The same, where people sign in and agree at these addresses.
    pub async fn with_people(login: &str, consent: &str) -> Self {
        Self::begin(false, &[("URLS_LOGIN", login), ("URLS_CONSENT", consent)]).await
    }

    /// A Hydra that keeps what it knows in a file.
    pub async fn with_database() -> Self {
        Self::begin(true, &[]).await
    }

    async fn begin(lasting: bool, more: &[(&str, &str)]) -> Self {
        let binary = programs::folder_of(&["hydra"]).await.join("hydra");
        let run = RunDir::new("applink-hydra-");
        let (public, admin) = (ports::free(), ports::free());
        let database = lasting.then(|| run.folder("database").join("sqlite"));
        let program = Program::new(&binary, run.path().join("hydra.log"))
            // `--dev`: it is reached without TLS.
            .args(["serve", "all", "--dev", "--sqa-opt-out"])
            .env("DSN", dsn(database.as_deref()))
            .env("SECRETS_SYSTEM", "only-for-tests-0123456789abcdef")
            .env("URLS_SELF_ISSUER", format!("http://127.0.0.1:{public}"))
            .env("SERVE_PUBLIC_HOST", "127.0.0.1")
            .env("SERVE_PUBLIC_PORT", public.to_string())
            .env("SERVE_ADMIN_HOST", "127.0.0.1")
            .env("SERVE_ADMIN_PORT", admin.to_string());
        let program = more.iter().fold(program, |program, (name, value)| program.env(name, value));
        let mut hydra = Self { process: None, program, binary, database, public, admin, run };
        hydra.start_again().await;
        hydra
    }

    /// The base of its public addresses, and its issuer.
    pub fn issuer(&self) -> String {
        format!("http://127.0.0.1:{}", self.public)
    }

    /// The base of its admin API's addresses.
    pub fn admin_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.admin)
    }

    /// The file that it keeps what it knows in: for a test that puts an older copy in its place while it is stopped.
    ///
    /// # Panics
    /// When it has none.
    pub fn database(&self) -> &Path {
        self.database.as_deref().expect("a Hydra with a database")
    }

    /// All it has written to its log.
    pub fn log(&self) -> String {
        self.process.as_ref().map(Process::log).unwrap_or_default()
    }

    /// The folder of its log and its database.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// Kills it. Nobody else is given its ports.
    pub fn stop(&mut self) {
        self.process = None;
    }

    /// Starts it (killed first, if it runs) on its old ports. One with a database knows what it knew.
    pub async fn start_again(&mut self) {
        self.stop();
        if let Some(database) = &self.database {
            let mut migrate = Command::new(&self.binary);
            migrate.args(["migrate", "sql", "up", "--read-from-env", "--yes"]);
            migrate.env_clear().env("DSN", dsn(Some(database)));
            run(migrate).await.ok();
        }
        let process = self.program.start();
        let (admin, public) = (self.admin_url(), self.issuer());
        eventually(START, "Hydra to be ready", async || {
            process.must_run();
            for base in [&admin, &public] {
                http().get(format!("{base}/health/ready")).send().await?.error_for_status()?;
            }
            Ok::<_, reqwest::Error>(())
        })
        .await;
        self.process = Some(process);
    }

    /// Starts it again with nothing in it.
    pub async fn wipe(&mut self) {
        self.stop();
        if let Some(database) = &self.database {
            let folder = database.parent().expect("a folder");
            std::fs::remove_dir_all(folder).expect("the database can be removed");
            std::fs::create_dir(folder).expect("a folder for the database");
        }
        self.start_again().await;
    }

    /// Calls its admin API.
    pub async fn admin(&self, method: Method, path: &str, body: Option<Value>) -> (u16, Value) {
        let mut request = http().request(method, format!("{}{path}", self.admin_url()));
        if let Some(body) = body {
            request = request.json(&body);
        }
        let answer = request.send().await.expect("Hydra's admin API answers");
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }
}

fn dsn(database: Option<&Path>) -> String {
    database.map_or_else(|| "memory".to_owned(), |path| format!("sqlite://{}?_fk=true", path.display()))
}
