//! Ory Hydra, as a process of its own for whoever asks: it is ready in a fraction of a second.

use std::path::{Path, PathBuf};
use std::process::Command;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::process::{Process, Program, RunDir};
use super::programs::{self, run};
use super::stage::{browser, http};
use super::wait::{SOON, eventually};
use super::{keys, ports};

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

    /// A Hydra that keeps what it knows in a file. It takes requests at the same time, where one that keeps it in its
    /// memory answers some of them with 500.
    pub async fn with_database() -> Self {
        Self::with_settings(&[]).await
    }

    /// The same, with settings by the names of their variables.
    pub async fn with_settings(settings: &[(&str, &str)]) -> Self {
        Self::begin(true, settings).await
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
        // Who has no Node.js does without.
        if Command::new("node").arg("--version").output().is_ok() {
            hydra.give_key().await;
        }
        hydra
    }

    /// Gives it the key that it signs ID tokens with. Otherwise it makes one of 4096 bits when it first needs it, which
    /// sometimes takes longer than the client's timeout.
    async fn give_key(&self) {
        static KEY: OnceCell<Value> = OnceCell::const_new();
        let make = async || {
            let keys::Keys { mut jwk, public, .. } = keys::make("RS256").await;
            for name in ["kid", "use", "alg"] {
                jwk[name] = public[name].clone();
            }
            json!({"keys": [jwk]})
        };
        let set = KEY.get_or_init(make).await.clone();
        let (status, body) = self.admin(Method::PUT, "/admin/keys/hydra.openid.id-token", Some(set)).await;
        assert_eq!(status, 200, "{body}");
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
        eventually(SOON, "Hydra to be ready", async || {
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

    /// The refresh token that a person's consent gives a client, which has this redirect URI; login and consent are
    /// granted by the admin API.
    pub async fn consent(&self, id: &str, secret: &str, redirect_uri: &str, scopes: &[&str]) -> String {
        let mut cookies = Vec::new();
        let mut at = format!(
            "{}/oauth2/auth?response_type=code&client_id={id}&scope={}&state=0123456789&redirect_uri={redirect_uri}",
            self.issuer(),
            scopes.join("+")
        );
        for (step, body) in
            [("login", json!({"subject": "ann"})), ("consent", json!({"grant_scope": scopes}))]
        {
            let to = follow(&at, &mut cookies).await;
            let challenge = query(&to, &format!("{step}_challenge"));
            let path = format!("/admin/oauth2/auth/requests/{step}/accept?{step}_challenge={challenge}");
            let (status, reply) = self.admin(Method::PUT, &path, Some(body)).await;
            assert_eq!(status, 200, "{reply}");
            at = reply["redirect_to"].as_str().expect("an address").to_owned();
        }
        let code = query(&follow(&at, &mut cookies).await, "code");
        let form =
            [("grant_type", "authorization_code"), ("code", code.as_str()), ("redirect_uri", redirect_uri)];
        let request = http().post(format!("{}/oauth2/token", self.issuer())).basic_auth(id, Some(secret));
        let reply: Value = request.form(&form).send().await.expect("an answer").json().await.expect("JSON");
        reply["refresh_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_owned()
    }
}

/// A browser that is sent about: where it is sent next, and its cookies.
async fn follow(url: &str, cookies: &mut Vec<String>) -> url::Url {
    let answer = browser().get(url).header("cookie", cookies.join("; ")).send().await.expect("an answer");
    let set = answer.headers().get_all("set-cookie").iter();
    cookies.extend(set.filter_map(|c| c.to_str().ok()?.split(';').next().map(str::to_owned)));
    let to = answer.headers().get("location").unwrap_or_else(|| panic!("{url}: {}", answer.status()));
    url::Url::parse(to.to_str().expect("text")).expect("an address")
}

fn query(url: &url::Url, name: &str) -> String {
    url.query_pairs().find(|(n, _)| n == name).unwrap_or_else(|| panic!("no {name} in {url}")).1.into_owned()
}

fn dsn(database: Option<&Path>) -> String {
    database.map_or_else(
        || "memory".to_owned(),
        |path| {
            // Without waiting for the disk: what is tested isn't SQLite, and Hydra drops requests that take long.
            format!("sqlite://{}?_fk=true&_journal=WAL&_sync=0&_busy_timeout=20000", path.display())
        },
    )
}
