//! The way to the API server, as kubectl finds it, with the user's own rights.

use super::ToolError;
use clap::Args;
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, Resource};
use serde::de::DeserializeOwned;
use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

/// Flags of every tool that asks the cluster.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Cluster")]
pub struct ClusterArgs {
    /// The kubeconfig file; left out: $KUBECONFIG, ~/.kube/config, or the Pod's own
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The context in it; left out: the current one
    #[arg(long, value_name = "NAME")]
    context: Option<String>,
    /// The namespace; left out: the context's
    #[arg(short, long, value_name = "NAME")]
    namespace: Option<String>,
}

/// A cluster to ask.
#[derive(Clone)]
pub struct Cluster {
    /// The client.
    pub client: Client,
    /// The namespace that is meant.
    pub namespace: String,
    /// Where the API server is.
    pub address: String,
}

/// How long the API server may take to answer.
const ANSWER: Duration = Duration::from_secs(30);

impl ClusterArgs {
    /// Finds the cluster; nothing is sent yet.
    ///
    /// # Errors
    /// [`ToolError::Config`].
    pub async fn connect(&self) -> Result<Cluster, ToolError> {
        let no_way = |e: &dyn std::error::Error| {
            let mut why = e.to_string();
            let mut source = e.source();
            while let Some(e) = source {
                why.push_str(&format!(": {e}"));
                source = e.source();
            }
            ToolError::Config(format!("there is no cluster to ask: {why}; see --kubeconfig and --context"))
        };
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config = match &self.kubeconfig {
            Some(path) => {
                let file = Kubeconfig::read_from(path).map_err(|e| no_way(&e))?;
                Config::from_custom_kubeconfig(file, &options).await.map_err(|e| no_way(&e))?
            }
            None if self.context.is_some() => {
                Config::from_kubeconfig(&options).await.map_err(|e| no_way(&e))?
            }
            None => Config::infer().await.map_err(|e| no_way(&e))?,
        };
        config.connect_timeout = Some(Duration::from_secs(10));
        config.read_timeout = Some(ANSWER);
        let namespace = self.namespace.clone().unwrap_or_else(|| config.default_namespace.clone());
        let address = config.cluster_url.to_string();
        let client = Client::try_from(config).map_err(|e| no_way(&e))?;
        Ok(Cluster { client, namespace, address })
    }
}

/// Why the API server didn't give what was asked for.
pub fn why(e: &kube::Error) -> String {
    match e {
        kube::Error::Api(s) if s.code == 401 => {
            "the API server doesn't know you (HTTP 401); log in again, or choose another --context".into()
        }
        kube::Error::Api(s) if s.code == 403 => format!("you aren't allowed to: {}", s.message),
        kube::Error::Api(s) if s.code == 404 && s.message.contains("the server could not find") => {
            "the API server doesn't know this kind; install the CRDs (applink crds | kubectl apply --server-side -f -)"
                .into()
        }
        kube::Error::Api(s) => format!("{} (HTTP {})", s.message, s.code),
        e => {
            let mut last: &dyn std::error::Error = e;
            while let Some(source) = last.source() {
                last = source;
            }
            format!("the API server can't be reached: {last}")
        }
    }
}

/// Makes a [`ToolError`] of an answer.
pub fn failed(what: impl Into<String>) -> impl FnOnce(kube::Error) -> ToolError {
    let what = what.into();
    move |e| ToolError::Kube { what, why: why(&e) }
}

/// Whether the answer is that we may not.
pub fn is_forbidden(e: &kube::Error) -> bool {
    matches!(e, kube::Error::Api(s) if s.code == 403)
}

/// All objects of a kind, page by page.
///
/// # Errors
/// What the API server said.
pub async fn list<K>(api: &Api<K>, params: &ListParams) -> Result<Vec<K>, kube::Error>
where
    K: Clone + DeserializeOwned + Debug + Resource,
{
    let mut params = params.clone().limit(500);
    let mut found = Vec::new();
    loop {
        let page = api.list(&params).await?;
        found.extend(page.items);
        match page.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => params.continue_token = Some(token),
            None => return Ok(found),
        }
    }
}
