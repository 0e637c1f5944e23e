//! How a control plane is reached: its address, its CA, and clients of its administrator.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::json;

/// How someone shows the API server who they are.
pub enum Credential<'a> {
    Token(&'a str),
    /// A file that the client reads again and again, as in a Pod.
    TokenFile(&'a Path),
}

/// Clients by who they are and by the runtime that they were made in: a client's connections end with that.
type Clients = BTreeMap<(Option<String>, String), kube::Client>;

/// How to reach a control plane as its administrator. It can be cloned into a task; the control plane may be gone by then.
#[derive(Clone)]
pub struct Access {
    url: String,
    ca: PathBuf,
    config: kube::Config,
    folder: PathBuf,
    clients: Arc<Mutex<Clients>>,
}

impl Access {
    /// Writes the administrator's kubeconfig, and reads it back as every client does.
    pub(super) async fn new(url: String, ca: PathBuf, admin: &Path, folder: &Path, token: &str) -> Self {
        write_kubeconfig(admin, &url, &ca, "default", &Credential::Token(token));
        let (config, clients) = (load(admin).await, Arc::default());
        Self { url, ca, config, folder: folder.to_owned(), clients }
    }

    /// Where the API server listens; also the issuer of the tokens of its ServiceAccounts.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The CA of the API server's certificate.
    pub fn ca(&self) -> &Path {
        &self.ca
    }

    /// The folder of the control plane, and of all that runs in it.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The administrator's client in this runtime.
    ///
    /// # Panics
    /// Outside a runtime, or when it can't be made.
    pub fn client(&self) -> kube::Client {
        self.client_as(None)
    }

    /// The client of a user whom the administrator impersonates, as kubectl does with `--as`.
    ///
    /// # Panics
    /// As [`Self::client`].
    pub fn client_as(&self, user: Option<&str>) -> kube::Client {
        let runtime = tokio::runtime::Handle::current().id().to_string();
        let mut clients = self.clients.lock().expect("no panic while a client was made");
        let made = clients.entry((user.map(str::to_owned), runtime)).or_insert_with(|| {
            let mut config = self.config.clone();
            config.auth_info.impersonate = user.map(str::to_owned);
            kube::Client::try_from(config).expect("a client of the control plane")
        });
        made.clone()
    }

    /// Writes a kubeconfig for this control plane.
    pub fn write_kubeconfig(&self, path: &Path, namespace: &str, credential: &Credential<'_>) {
        self.write_kubeconfig_at(path, &self.url, namespace, credential);
    }

    /// The same for somebody who reaches it by another address.
    pub fn write_kubeconfig_at(&self, path: &Path, url: &str, namespace: &str, credential: &Credential<'_>) {
        write_kubeconfig(path, url, &self.ca, namespace, credential);
    }
}

/// A client of whoever a kubeconfig belongs to.
///
/// # Panics
/// When it can't be read.
pub(super) async fn client_of(kubeconfig: &Path) -> kube::Client {
    kube::Client::try_from(load(kubeconfig).await).expect("a client of the control plane")
}

async fn load(kubeconfig: &Path) -> kube::Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .expect("a kubeconfig of the control plane")
}

fn write_kubeconfig(path: &Path, url: &str, ca: &Path, namespace: &str, credential: &Credential<'_>) {
    let user = match credential {
        Credential::Token(token) => json!({"token": token}),
        Credential::TokenFile(file) => json!({"tokenFile": file}),
    };
    let kubeconfig = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "rig",
        "clusters": [{"name": "rig", "cluster": {"server": url, "certificate-authority": ca}}],
        "users": [{"name": "rig", "user": user}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "rig", "namespace": namespace}}],
    });
    std::fs::write(path, kubeconfig.to_string()).expect("a kubeconfig");
}
