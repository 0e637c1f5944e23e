//! The operator as tools see it: its namespace, its keys, its records and its providers, read with
//! the user's own rights. The context that is made here is the operator's own type, so that a tool
//! looks with the same eyes; it is only read with.

use super::ToolError;
use super::cluster::{Cluster, failed, is_forbidden, list};
use crate::api::link::ProviderKind;
use crate::api::{ApplicationLink, ClusterLinkProvider, LinkProvider, names};
use crate::domain::Reason;
use crate::domain::{KeyRing, Owner};
use crate::http::{AllowList, Guard, GuardOptions};
use crate::link::cache::{Cache, Key};
use crate::link::connections::{Connected, Connections};
use crate::link::context::{Context, Namespaces};
use crate::link::derive;
use crate::link::discoveries::Discoveries;
use crate::link::identity::Identity;
use crate::link::installation::Installation;
use crate::link::metrics::Metrics;
use crate::link::observe::connection;
use crate::link::own::OwnMeta;
use crate::link::problem::Problem;
use crate::link::providers::{ProviderView, full_name};
use crate::link::service_account::AccountTokens;
use crate::link::store::Store;
use crate::link::taken::Taken;
use crate::provider::{ProviderError, RegisteredClient};
use clap::{Args, ValueEnum};
use futures::stream;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Secret;
use kube::api::ListParams;
use kube::runtime::events::{Recorder, Reporter};
use kube::runtime::watcher::Event;
use kube::{Api, ResourceExt as _};
use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};

/// The labels of the chart's operator.
pub const OPERATOR: &str = "app.kubernetes.io/name=applink-operator,app.kubernetes.io/component=operator";
/// Who we are to a provider, and to the API server where we write.
pub const ACTOR: &str = "applink-cli";
/// So many pages of clients are read; more are a provider whose pages don't end.
const MOST_PAGES: usize = 100_000;

/// Flags of the tools that look with the operator's eyes.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Operator")]
pub struct HouseArgs {
    /// The operator's namespace; left out: it is looked for
    #[arg(long, value_name = "NAME")]
    operator_namespace: Option<String>,
    /// Name of the Secret with the master key
    #[arg(
        long = "secret",
        value_name = "NAME",
        env = "APPLINK_MASTER_KEY_SECRET",
        default_value = "applink-operator-master-key"
    )]
    secret: String,
    /// What the operator may call though it isn't public, as its flag of this name
    #[arg(long, value_name = "HOST", value_delimiter = ',')]
    outbound_allow: Vec<String>,
}

impl HouseArgs {
    /// Name of the Secret with the master key.
    pub fn secret(&self) -> &str {
        &self.secret
    }

    /// The operator's namespace, where it was given.
    pub fn given_namespace(&self) -> Option<&str> {
        self.operator_namespace.as_deref()
    }

    /// The operator's namespace.
    ///
    /// # Errors
    /// [`ToolError`] where none or several are found.
    pub async fn namespace(&self, cluster: &Cluster) -> Result<String, ToolError> {
        if let Some(namespace) = &self.operator_namespace {
            return Ok(namespace.clone());
        }
        let say = "say where with --operator-namespace";
        let api: Api<Deployment> = Api::all(cluster.client.clone());
        let found = match list(&api, &ListParams::default().labels(OPERATOR)).await {
            Ok(found) => found,
            Err(e) if is_forbidden(&e) => {
                let why = format!("the operator's namespace isn't known, and you may not look for it; {say}");
                return Err(ToolError::Precondition(why));
            }
            Err(e) => return Err(failed("the operator's Deployment")(e)),
        };
        let namespaces: BTreeSet<String> = found.iter().filter_map(|d| d.namespace()).collect();
        let mut all = namespaces.into_iter();
        match (all.next(), all.next()) {
            (Some(one), None) => Ok(one),
            (None, _) => Err(ToolError::Precondition(format!("no operator is found in the cluster; {say}"))),
            (Some(a), Some(b)) => Err(ToolError::Precondition(format!(
                "there are several operators, in the namespaces {a}, {b} and perhaps more; {say}"
            ))),
        }
    }

    /// A context to look with. Its caches are empty, and it has no keys yet.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn context(&self, cluster: &Cluster) -> Result<Context, ToolError> {
        let namespace = self.namespace(cluster).await?;
        let allow = AllowList::parse(self.outbound_allow.iter().map(String::as_str))
            .map_err(|e| ToolError::Config(format!("--outbound-allow: {e}")))?;
        let guard =
            Guard::new(allow, GuardOptions::default()).map_err(|e| ToolError::Config(e.to_string()))?;
        let client = cluster.client.clone();
        let reporter = Reporter { controller: ACTOR.into(), instance: None };
        Ok(Context {
            consent_url: None,
            store: Store::new(client.clone(), &namespace),
            installation: Installation::new(self.secret.clone()),
            recorder: Recorder::new(client.clone(), reporter),
            namespace,
            connections: Connections::default(),
            taken: Taken::default(),
            tenure: Arc::default(),
            discoveries: Discoveries::default(),
            turns: crate::link::turns::Turns::default(),
            // The operator's flags aren't known here: what is due is said as due.
            min_refresh_interval: std::time::Duration::ZERO,
            namespaces: Namespaces::default(),
            links: Cache::default(),
            link_providers: Cache::default(),
            cluster_providers: Cache::default(),
            own: Mutex::default(),
            accounts: AccountTokens::new(client.clone()),
            standing: Default::default(),
            memos: Mutex::default(),
            identity: ACTOR.into(),
            client,
            metrics: Metrics::default(),
            guard,
            // What the operator demands isn't known here; it says so in the link's conditions.
            require_allowed_hosts: false,
        })
    }
}

/// Reads the installation's keys; none are ever made here.
///
/// # Errors
/// [`ToolError`] where they can't be had.
pub async fn keys(ctx: &Context) -> Result<Arc<KeyRing>, ToolError> {
    ctx.installation.load(&ctx.client, &ctx.namespace, false).await;
    ctx.installation
        .keys()
        .map_err(|p| refusal(&format!("Secret {}/{}", ctx.namespace, ctx.installation.secret()), &p))
}

/// What a problem of the operator's says to a user of a tool.
pub fn refusal(what: &str, p: &Problem) -> ToolError {
    // The operator would speak of its own rights.
    let why = if p.why == Reason::Forbidden {
        "you may not read all that this needs; it needs the platform team's rights".to_owned()
    } else {
        format!("{} ({})", p.message, p.reason)
    };
    ToolError::Kube { what: what.to_owned(), why }
}

/// Puts objects into a cache, as a watch would.
pub async fn fill<K: kube::ResourceExt + Debug>(cache: &Cache<K>, objects: Vec<K>) {
    let applied = objects.into_iter().map(|o| Ok(Event::InitApply(o)));
    let events = std::iter::once(Ok(Event::Init)).chain(applied).chain(std::iter::once(Ok(Event::InitDone)));
    cache.follow(None, stream::iter(events), |_| {}).await;
}

/// Fills in the providers that there are: those of the cluster, and those of these namespaces.
///
/// # Errors
/// What the API server said.
pub async fn fill_providers(ctx: &Context, namespaces: &BTreeSet<String>) -> Result<(), kube::Error> {
    let api: Api<ClusterLinkProvider> = Api::all(ctx.client.clone());
    fill(&ctx.cluster_providers, list(&api, &ListParams::default()).await?).await;
    let mut found = Vec::new();
    for namespace in namespaces {
        let api: Api<LinkProvider> = Api::namespaced(ctx.client.clone(), namespace);
        found.extend(list(&api, &ListParams::default()).await?);
    }
    fill(&ctx.link_providers, found).await;
    Ok(())
}

/// Fills in which Secrets of a namespace are the operator's.
///
/// # Errors
/// What the API server said.
pub async fn fill_own(ctx: &Context, namespaces: &BTreeSet<String>) -> Result<(), kube::Error> {
    for namespace in namespaces {
        let api: Api<Secret> = Api::namespaced(ctx.client.clone(), namespace);
        let params =
            ListParams::default().labels(&format!("{}={}", names::MANAGED_BY, names::MANAGED_BY_VALUE));
        for secret in api.list_metadata(&params).await?.items {
            let owners = secret.owner_references().iter().map(|o| o.uid.clone()).collect();
            let mut own = ctx.own.lock().unwrap_or_else(PoisonError::into_inner);
            own.insert(Key::of(&secret), OwnMeta { uid: secret.uid().unwrap_or_default(), owners });
        }
    }
    Ok(())
}

/// All links of the cluster: what is nobody's can only be told by who knows them all.
///
/// # Errors
/// [`ToolError`].
pub async fn all_links(cluster: &Cluster) -> Result<Vec<ApplicationLink>, ToolError> {
    let api: Api<ApplicationLink> = Api::all(cluster.client.clone());
    list(&api, &ListParams::default()).await.map_err(failed("the ApplicationLinks of all namespaces"))
}

/// The kinds of provider, as a flag.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum KindArg {
    /// For the namespaces that it allows
    #[default]
    #[value(name = "ClusterLinkProvider", alias = "clusterlinkprovider")]
    Cluster,
    /// For one namespace
    #[value(name = "LinkProvider", alias = "linkprovider")]
    Namespace,
}

impl KindArg {
    /// As the API has it.
    pub const fn kind(self) -> ProviderKind {
        match self {
            Self::Cluster => ProviderKind::ClusterLinkProvider,
            Self::Namespace => ProviderKind::LinkProvider,
        }
    }
}

/// Flags that name a provider.
#[derive(Debug, Clone, Args)]
pub struct ProviderArgs {
    /// Name of the provider
    #[arg(long, value_name = "NAME")]
    provider: String,
    /// Its kind; a LinkProvider is one of the namespace that is meant
    #[arg(long, value_name = "KIND", value_enum, default_value_t)]
    kind: KindArg,
}

/// A provider that answers.
pub struct Reached {
    /// What the cluster says of it.
    pub view: ProviderView,
    /// The connection to it.
    pub connected: Arc<Connected>,
    /// What identifiers and marks are made from.
    pub identity: Identity,
}

impl Reached {
    /// Its kind and name.
    pub fn name(&self) -> String {
        full_name(&self.view)
    }

    /// All its clients. They are all read before anything is done to one: a page that comes after a
    /// deletion leaves clients out at some services.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn clients(&self) -> Result<Vec<RegisteredClient>, ToolError> {
        let mut all = Vec::new();
        let mut seen = std::collections::BTreeSet::new();
        let mut after: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let page = self.connected.provider.list(after.as_deref()).await.map_err(|e| self.failed(&e))?;
            // A service that pages by number may show one twice, when others go meanwhile.
            all.extend(page.clients.into_iter().filter(|c| seen.insert(c.id.clone())));
            match page.next {
                Some(next) => after = Some(next),
                None => return Ok(all),
            }
        }
        Err(ToolError::Precondition(format!("{}: its pages don't end", self.name())))
    }

    /// What it didn't do.
    pub fn failed(&self, e: &ProviderError) -> ToolError {
        ToolError::Kube { what: self.name(), why: format!("{e} ({})", e.reason()) }
    }

    /// Whose a client is, as far as its record says.
    pub fn whose<'o>(&self, keys: &KeyRing, client: &'o RegisteredClient) -> Whose<'o> {
        if client.protected {
            return Whose::Provider;
        }
        match &client.owner {
            None => Whose::Nobody,
            Some(owner) if !owner.is_of(keys.installation()) => Whose::Others,
            Some(owner) => {
                let namesakes = self.identity.namesakes.iter().map(String::as_str);
                let marks: Vec<&str> = self.identity.names().into_iter().chain(namesakes).collect();
                let marked = derive::marked(keys, &marks, &client.id, owner);
                if marked.is_some() { Whose::Ours(owner) } else { Whose::Forged }
            }
        }
    }
}

/// Whose a client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose<'o> {
    /// Part of the provider itself, or the operator's own login.
    Provider,
    /// Nobody's that we know of.
    Nobody,
    /// Another installation's.
    Others,
    /// It says that it is ours, and its mark isn't genuine.
    Forged,
    /// This installation's: the mark is genuine.
    Ours(&'o Owner),
}

impl ProviderArgs {
    /// Finds the provider and connects to it.
    ///
    /// # Errors
    /// [`ToolError`].
    pub async fn reach(&self, cluster: &Cluster, ctx: &Context) -> Result<Reached, ToolError> {
        let name = &self.provider;
        let kind = self.kind.kind().as_str();
        let missing = || {
            let way_out = match self.kind {
                KindArg::Cluster => {
                    "see kubectl get clusterlinkproviders, and --kind LinkProvider for one of a namespace"
                }
                KindArg::Namespace => "see kubectl get linkproviders, and -n for another namespace",
            };
            ToolError::Precondition(format!("{kind} {name} doesn't exist; {way_out}"))
        };
        let view = match self.kind {
            KindArg::Cluster => {
                let api: Api<ClusterLinkProvider> = Api::all(ctx.client.clone());
                let found = api.get_opt(name).await.map_err(failed(format!("{kind} {name}")))?;
                let found = found.ok_or_else(missing)?;
                if !ctx.serves(&found) {
                    return Err(ToolError::Precondition(format!(
                        "{kind} {name} belongs to the operator of another namespace, not to that of {}; see \
                         --operator-namespace",
                        ctx.namespace
                    )));
                }
                ProviderView::from(&found)
            }
            KindArg::Namespace => {
                let api: Api<LinkProvider> = Api::namespaced(ctx.client.clone(), &cluster.namespace);
                let found = api.get_opt(name).await.map_err(failed(format!("{kind} {name}")))?;
                ProviderView::from(&found.ok_or_else(missing)?)
            }
        };
        let connected = connection(ctx, &view).await.map_err(|p| refusal(&full_name(&view), &p))?;
        // To whoever may not list the others, their clients have a mark that isn't genuine.
        let others = list(&Api::<LinkProvider>::all(ctx.client.clone()), &ListParams::default()).await;
        let others: Vec<_> = others.unwrap_or_default().iter().map(ProviderView::from).collect();
        let mut identity =
            view.identity(connected.recorded_before, &cluster.namespace, &others).ok_or_else(|| {
                ToolError::Precondition(format!("{}: its spec names no provider service", full_name(&view)))
            })?;
        // A tool looks at the clients of all namespaces.
        let all = others.iter().filter_map(|v| v.identity(false, v.namespace.as_deref()?, &[]));
        let alike = all.filter(|i| i.service == identity.service && i.own != identity.own).map(|i| i.own);
        identity.namesakes = alike.collect();
        Ok(Reached { view, connected, identity })
    }
}
