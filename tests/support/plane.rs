//! A control plane: etcd, kube-apiserver and kube-controller-manager as plain processes, with an administrator.
//!
//! [`ControlPlane::shared`] is started once a test process and serves all its tests, each in a namespace of its own.
//! [`ControlPlane::start`] makes a private one, for tests that stop it, or that look at all of it.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use axum::http::Request;
use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::api::{Api, ObjectMeta, PostParams};
use tokio::sync::{OnceCell, Semaphore, SemaphorePermit};

use super::access::{Access, Credential};
use super::audit::{self, AuditEvent, Mark};
use super::pki::{Pki, file_flag};
use super::ports;
use super::process::{Process, Program, RunDir};
use super::programs::{self, Output, run};
use super::wait::{SOON, eventually};

/// What a cluster does by itself that this project or its tests rest on; there are some forty more.
const CONTROLLERS: &str = "clusterrole-aggregation-controller,deployment-controller,disruption-controller,\
    garbage-collector-controller,namespace-controller,replicaset-controller,\
    root-ca-certificate-publisher-controller,serviceaccount-controller,serviceaccount-token-controller,\
    statefulset-controller";

/// Go collects garbage when the heap has grown by so many percent. Its default of 100 costs a fifth of the processor's time.
const GOGC: (&str, &str) = ("GOGC", "400");

/// How many releases may be installed and started at once: more of them only make each other slower, until tests time out.
const INSTALLS: usize = 3;

/// How a private control plane differs from the usual one.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// More arguments of kube-apiserver; they come last and so win.
    pub apiserver_args: Vec<String>,
    /// No ServiceAccounts by themselves, no garbage collection, no Pods of Deployments, no end of a namespace.
    pub without_controller_manager: bool,
}

pub struct ControlPlane {
    // In this order: dropped from the top, and the folder last.
    controller_manager: Option<Process>,
    apiserver: Mutex<Option<Process>>,
    etcd: Mutex<Process>,
    etcd_program: Program,
    apiserver_program: Program,
    bin: PathBuf,
    admin: PathBuf,
    access: Access,
    crds: OnceCell<()>,
    installs: Semaphore,
    run: RunDir,
}

impl ControlPlane {
    /// The control plane of this test process; the first call starts it.
    pub async fn shared() -> &'static Self {
        static SHARED: OnceCell<ControlPlane> = OnceCell::const_new();
        SHARED.get_or_init(|| Self::start(Options::default())).await
    }

    /// A control plane of one's own. Dropping it ends its processes and removes its folder.
    ///
    /// # Panics
    /// When it doesn't come up: with the end of the log of the part that failed.
    pub async fn start(options: Options) -> Self {
        // Whoever comes first chooses; all choose the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let bin = programs::folder().await;
        let run = RunDir::new("applink-plane-");
        let pki = Pki::make(&run);
        let token = |user: &str| {
            format!("{user}-of-{}", run.path().file_name().unwrap_or_default().to_string_lossy())
        };
        let (admin_token, manager_token) = (token("admin"), token("manager"));
        let tokens = run.write(
            "tokens.csv",
            format!(
                "{admin_token},admin,1,\"system:masters\"\n{manager_token},system:kube-controller-manager,2\n"
            ),
        );

        let etcd_url = format!("http://127.0.0.1:{}", ports::free());
        let peer_url = format!("http://127.0.0.1:{}", ports::free());
        let etcd_program =
            Program::new(bin.join("etcd"), run.path().join("etcd.log")).env(GOGC.0, GOGC.1).args([
                format!("--data-dir={}", run.path().join("etcd").display()),
                format!("--listen-client-urls={etcd_url}"),
                format!("--advertise-client-urls={etcd_url}"),
                format!("--listen-peer-urls={peer_url}"),
                "--unsafe-no-fsync".to_owned(),
                "--log-level=warn".to_owned(),
            ]);
        let etcd = Mutex::new(etcd_program.start());

        let port = ports::free();
        let url = format!("https://127.0.0.1:{port}");
        let policy = run.write("audit-policy.yaml", audit::POLICY);
        let apiserver_program =
            Program::new(bin.join("kube-apiserver"), run.path().join("kube-apiserver.log"))
                .env(GOGC.0, GOGC.1)
                .args([
                    format!("--etcd-servers={etcd_url}"),
                    format!("--secure-port={port}"),
                    "--bind-address=127.0.0.1".to_owned(),
                    // Without these a machine that has no network but the loopback can't run it.
                    "--advertise-address=127.0.0.1".to_owned(),
                    "--endpoint-reconciler-type=none".to_owned(),
                    "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                    "--authorization-mode=RBAC".to_owned(),
                    // API Priority and Fairness divides a busy server among its callers; here it only takes time.
                    "--enable-priority-and-fairness=false".to_owned(),
                    // Where it can be found: who trusts its tokens fetches its keys there.
                    format!("--service-account-issuer={url}"),
                    file_flag("service-account-key-file", &pki.service_account_public_key),
                    file_flag("service-account-signing-key-file", &pki.service_account_key),
                    file_flag("tls-cert-file", &pki.server_certificate),
                    file_flag("tls-private-key-file", &pki.server_key),
                    file_flag("token-auth-file", &tokens),
                    file_flag("audit-policy-file", &policy),
                    file_flag("audit-log-path", &run.path().join(audit::LOG)),
                    // In MB: it must not begin a new file under the readers.
                    "--audit-log-maxsize=100000".to_owned(),
                ])
                .args(&options.apiserver_args);
        let apiserver = apiserver_program.start();

        let admin = run.path().join("admin.kubeconfig");
        let access = Access::new(url, pki.ca, &admin, run.path(), &admin_token).await;
        let manager = run.path().join("controller-manager.kubeconfig");
        access.write_kubeconfig(&manager, "default", &Credential::Token(&manager_token));

        let mut plane = Self {
            controller_manager: None,
            apiserver: Mutex::new(Some(apiserver)),
            etcd,
            etcd_program,
            apiserver_program,
            bin,
            admin,
            access,
            crds: OnceCell::new(),
            installs: Semaphore::new(INSTALLS),
            run,
        };
        plane.until_ready().await;
        if !options.without_controller_manager {
            let manager = Program::new(
                plane.bin.join("kube-controller-manager"),
                plane.run.path().join("kube-controller-manager.log"),
            )
            .env(GOGC.0, GOGC.1)
            .args([
                file_flag("kubeconfig", &manager),
                file_flag("service-account-private-key-file", &pki.service_account_key),
                file_flag("root-ca-file", plane.ca()),
                "--use-service-account-credentials".to_owned(),
                "--leader-elect=false".to_owned(),
                "--secure-port=0".to_owned(),
                format!("--controllers={CONTROLLERS}"),
                "--kube-api-qps=500".to_owned(),
                "--kube-api-burst=1000".to_owned(),
            ])
            .start();
            plane.controller_manager = Some(manager);
            plane.until_namespace_usable("default").await;
        }
        plane
    }

    async fn until_ready(&self) {
        let client = self.client();
        eventually(SOON, "the API server to be ready", async || {
            self.etcd.lock().expect("no panic while etcd was exchanged").must_run();
            if let Some(apiserver) =
                &*self.apiserver.lock().expect("no panic while the API server was exchanged")
            {
                apiserver.must_run();
            }
            let request = Request::get("/readyz").body(Vec::new()).expect("a request");
            client.request_text(request).await
        })
        .await;
    }

    /// With the controller manager, a Pod can be made only once the namespace has its ServiceAccount.
    async fn until_namespace_usable(&self, namespace: &str) {
        let accounts: Api<ServiceAccount> = Api::namespaced(self.client(), namespace);
        eventually(SOON, format!("the default ServiceAccount of namespace {namespace}"), async || {
            if let Some(manager) = &self.controller_manager {
                manager.must_run();
            }
            accounts.get("default").await
        })
        .await;
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.admin
    }

    /// Where the API server listens; also the issuer of the tokens of its ServiceAccounts.
    pub fn url(&self) -> &str {
        self.access.url()
    }

    /// How to reach it, for a part that can't borrow it.
    pub fn access(&self) -> &Access {
        &self.access
    }

    /// The folder with everything of this control plane, logs included.
    pub fn run_dir(&self) -> &RunDir {
        &self.run
    }

    /// The folder of the pinned programs.
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// Has the CRDs installed by whoever comes first.
    pub async fn once_crds(&self, install: impl Future<Output = ()>) {
        self.crds.get_or_init(|| install).await;
    }

    /// A permit to install a release and to start it; to be held until that is done.
    ///
    /// # Panics
    /// Never: the semaphore isn't closed.
    pub async fn install_permit(&self) -> SemaphorePermit<'_> {
        self.installs.acquire().await.expect("the semaphore is open")
    }

    /// A client of the administrator: [`Access::client`].
    pub fn client(&self) -> kube::Client {
        self.access.client()
    }

    /// A client of somebody else.
    pub async fn client_of(&self, kubeconfig: &Path) -> kube::Client {
        super::access::client_of(kubeconfig).await
    }

    /// Writes a kubeconfig for this control plane.
    pub fn write_kubeconfig(&self, path: &Path, namespace: &str, credential: &Credential<'_>) {
        self.access.write_kubeconfig(path, namespace, credential);
    }

    /// The CA of its certificate.
    pub fn ca(&self) -> &Path {
        self.access.ca()
    }

    /// Makes a namespace whose name begins so and is used by nobody else.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn namespace(&self, prefix: &str) -> String {
        self.namespace_with(prefix, &[]).await
    }

    /// The same with labels.
    ///
    /// # Panics
    /// When it can't be made.
    pub async fn namespace_with(&self, prefix: &str, labels: &[(&str, &str)]) -> String {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let name = format!("{prefix}-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        let metadata = ObjectMeta { name: Some(name.clone()), labels: Some(labels), ..ObjectMeta::default() };
        let namespaces: Api<Namespace> = Api::all(self.client());
        let namespace = Namespace { metadata, ..Namespace::default() };
        namespaces.create(&PostParams::default(), &namespace).await.expect("a namespace");
        if self.controller_manager.is_some() {
            self.until_namespace_usable(&name).await;
        }
        name
    }

    /// A mark behind everything that has been answered so far, for [`Self::audit_since`].
    pub async fn audit_mark(&self) -> Mark {
        self.audit_fence(Mark::default()).await;
        audit::end(&self.run)
    }

    /// All the requests so far that the filter lets through, in the order of their answers.
    pub async fn audit(&self, filter: impl Fn(&AuditEvent) -> bool) -> Vec<AuditEvent> {
        self.audit_since(Mark::default(), filter).await
    }

    /// The requests since a mark.
    pub async fn audit_since(&self, mark: Mark, filter: impl Fn(&AuditEvent) -> bool) -> Vec<AuditEvent> {
        let mut events = self.audit_fence(mark).await;
        events.retain(filter);
        events
    }

    /// An answer may reach us before it is in the log. So ask something, and read until that is there.
    async fn audit_fence(&self, mark: Mark) -> Vec<AuditEvent> {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        let uri = format!("/version?fence={}", NEXT.fetch_add(1, Ordering::Relaxed));
        let request = Request::get(&uri).body(Vec::new()).expect("a request");
        self.client().request_text(request).await.expect("the API server's version");
        eventually(SOON, "the last request to be in the audit log", async || {
            let mut events = audit::read(&self.run, mark);
            let fence = events.iter().position(|event| event.request_uri == uri)?;
            events.truncate(fence);
            events.retain(|event| !event.request_uri.starts_with("/version?fence="));
            Some(events)
        })
        .await
    }

    /// Kills the API server. Requests fail until it is started again.
    pub fn stop_apiserver(&self) {
        *self.apiserver.lock().expect("no panic while the API server was exchanged") = None;
    }

    /// Starts the API server (killed first, if it runs) at its old address, and waits until it is ready.
    pub async fn restart_apiserver(&self) {
        self.stop_apiserver();
        let apiserver = self.apiserver_program.start();
        *self.apiserver.lock().expect("no panic while the API server was exchanged") = Some(apiserver);
        self.until_ready().await;
    }

    /// Stops etcd and the API server, has something done with etcd's folder, and starts them again: a
    /// backup that is taken, or put back.
    ///
    /// # Panics
    /// When they don't come up again.
    pub async fn with_etcd_stopped(&self, act: impl FnOnce(&Path)) {
        self.stop_apiserver();
        {
            let mut etcd = self.etcd.lock().expect("no panic while etcd was exchanged");
            etcd.kill();
            while etcd.is_running() {
                std::thread::yield_now();
            }
            act(&self.run.path().join("etcd"));
            *etcd = self.etcd_program.start();
        }
        self.restart_apiserver().await;
    }

    /// The PIDs of its programs that run.
    pub fn pids(&self) -> Vec<u32> {
        let apiserver = self.apiserver.lock().expect("no panic while the API server was exchanged");
        let etcd = self.etcd.lock().expect("no panic while etcd was exchanged");
        let parts = [Some(&*etcd), apiserver.as_ref(), self.controller_manager.as_ref()];
        parts.into_iter().flatten().filter(|part| part.is_running()).map(Process::pid).collect()
    }

    /// One of the pinned programs (`kubectl`, `helm`) as the administrator, for a caller that wants to change something.
    pub fn command(&self, program: &str) -> Command {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let folders = std::iter::once(self.bin.clone()).chain(std::env::split_paths(&path));
        let mut command = Command::new(self.bin.join(program));
        command.env_clear().stdin(Stdio::null());
        command.env("KUBECONFIG", &self.admin).env("HOME", self.run.folder("home"));
        command.env("PATH", std::env::join_paths(folders).unwrap_or_default());
        command
    }

    /// Runs the pinned kubectl as the administrator.
    pub async fn kubectl(&self, args: &[&str]) -> Output {
        let mut command = self.command("kubectl");
        command.args(args);
        run(command).await
    }

    /// Runs the pinned Helm as the administrator.
    pub async fn helm(&self, args: &[&str]) -> Output {
        let mut command = self.command("helm");
        command.args(args);
        run(command).await
    }
}
