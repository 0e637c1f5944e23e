//! `applink operator`: the controllers.

use crate::api::provider::{Allow, Bundled, BundledAdmin};
use crate::api::{ClusterLinkProvider, SecretKeyRef};
use crate::domain::duration::{DurationError, parse as duration};
use crate::domain::text::Shown;
use crate::http::{AllowList, AllowListError, CaBundle, Guard, GuardError, GuardOptions};
use crate::link::bootstrap::{BundledSettings, TOKEN_KEY};
use crate::link::cache::Cache;
use crate::link::consent::Consents;
use crate::link::context::{Context, Namespaces};
use crate::link::discoveries::Discoveries;
use crate::link::grant::BEGUN_ELSEWHERE;
use crate::link::held::{KEEP_TRYING, Tenure};
use crate::link::installation::Installation;
use crate::link::metrics::Metrics;
use crate::link::run::{self as controllers, Settings};
use crate::link::service_account::AccountTokens;
use crate::link::shared_read::SharedReads;
use crate::link::store::Store;
use crate::link::taken::Taken;
use crate::link::turns::{Limits, Turns};
use crate::link::write_rate::WriteRate;
use crate::runtime::files;
use crate::runtime::leader::{self, LeaderError};
use crate::runtime::peer::TrustedProxies;
use crate::runtime::shutdown::Shutdown;
use crate::runtime::telemetry::{self, LogFormat};
use crate::web::{self, Probe};
use axum::http::{Method, Request};
use clap::Args;
use kube::api::ListParams;
use kube::client::{Body, ClientBuilder};
use kube::runtime::events::{Recorder, Reporter};
use kube::{Api, Client};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tower::util::MapRequestLayer;
use url::Url;

/// A time, or never.
#[derive(Debug, Clone, Copy)]
struct OrNever(Option<Duration>);

fn or_never(text: &str) -> Result<OrNever, DurationError> {
    if text == "never" { Ok(OrNever(None)) } else { Ok(OrNever(Some(duration(text)?))) }
}

/// Flags of `applink operator`.
#[derive(Debug, Args)]
pub struct OperatorArgs {
    /// Where health is served, and metrics too
    #[arg(long, env = "APPLINK_LISTEN", default_value = "0.0.0.0:8080")]
    listen: SocketAddr,
    /// Where metrics are served alone
    #[arg(long, env = "APPLINK_METRICS_LISTEN")]
    metrics_listen: Option<SocketAddr>,
    /// Whether --listen has health alone, and --metrics-listen the metrics
    #[arg(long, env = "APPLINK_HEALTH_ALONE", requires = "metrics_listen")]
    health_alone: bool,
    /// The namespaces to watch, separated by commas; all when left out
    #[arg(long, env = "APPLINK_WATCH_NAMESPACES", value_delimiter = ',')]
    watch_namespaces: Vec<String>,
    /// How many links are worked on at once
    #[arg(long, env = "APPLINK_CONCURRENCY", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..=1024))]
    concurrency: u16,
    /// How often each link is looked at though nothing changed
    #[arg(long, env = "APPLINK_RESYNC", default_value = "10m", value_parser = duration)]
    resync: Duration,
    /// How long the client of a link that is gone without unregistering it stays, such as 24h; never: until
    /// a person removes it
    #[arg(long, env = "APPLINK_UNREGISTER_ORPHANS_AFTER", default_value = "24h", value_parser = or_never)]
    unregister_orphans_after: OrNever,
    /// How many token requests one host is sent a second, of all links together
    #[arg(long, env = "APPLINK_TOKEN_REQUESTS_PER_SECOND", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    token_requests_per_second: u32,
    /// How many token requests to one host may be without an answer
    #[arg(long, env = "APPLINK_TOKEN_REQUESTS_IN_FLIGHT", default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=1024))]
    token_requests_in_flight: u16,
    /// How many token requests a namespace may send a second, to all hosts together, while another one's wait or the API
    /// server is written to more than --api-writes-per-second says
    #[arg(long, env = "APPLINK_TOKEN_REQUESTS_PER_NAMESPACE", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    token_requests_per_namespace: u32,
    /// How many writes a second to the API server are so many that each namespace keeps to its token requests
    #[arg(long, env = "APPLINK_API_WRITES_PER_SECOND", default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    api_writes_per_second: u32,
    /// The least time between two refreshes of a link; a token must live twice as long, and one that doesn't is
    /// asked for every five minutes. 0s: none
    #[arg(long, env = "APPLINK_MIN_REFRESH_INTERVAL", default_value = "10s", value_parser = duration)]
    min_refresh_interval: Duration,
    /// A host or range that links may call though it isn't public, such as ci.example.com:8443,
    /// 10.0.0.0/8 or http://127.0.0.1, or a port of all public addresses, such as :8443; may be given several times
    #[arg(long, env = "APPLINK_OUTBOUND_ALLOW", value_delimiter = ',')]
    outbound_allow: Vec<String>,
    /// Certificates (PEM) of authorities that are trusted in outbound calls besides the public ones
    #[arg(long, env = "APPLINK_OUTBOUND_CA_BUNDLE", value_name = "PEM", value_parser = ca_bundle)]
    outbound_ca_bundle: Option<CaBundle>,
    /// Where people reach the operator's pages, to consent to outgoing links: https, or http on
    /// loopback; without it no link can be connected by a person
    #[arg(long, env = "APPLINK_CONSENT_URL")]
    consent_url: Option<String>,
    /// Where those pages are served
    #[arg(long, env = "APPLINK_CONSENT_LISTEN", default_value = "0.0.0.0:8082")]
    consent_listen: SocketAddr,
    /// Addresses and ranges of the proxies before those pages, whose X-Forwarded-For says where a request comes from,
    /// divided by commas; none where browsers connect directly. Left out: a peer may be a proxy, and no limit counts by address
    #[arg(long, env = "APPLINK_TRUSTED_PROXIES", value_name = "CIDR", value_delimiter = ',', num_args = 1..)]
    trusted_proxies: Vec<String>,
    /// Whether the metrics have two series for each outgoing link: when its token ends, and when its refresh is due
    #[arg(long, env = "APPLINK_METRICS_PER_LINK", default_value_t = true, action = clap::ArgAction::Set)]
    metrics_per_link: bool,
    /// Whether a Secret with credentials must say where it may be sent, for servers that a link
    /// names: in the annotation applink-operator.io/allowed-hosts
    #[arg(long, env = "APPLINK_OUTBOUND_REQUIRE_ALLOWED_HOSTS")]
    outbound_require_allowed_hosts: bool,
    /// The operator's own namespace
    #[arg(long, env = "POD_NAMESPACE", default_value = "applink-system")]
    namespace: String,
    /// What this instance is called in the lease
    #[arg(long, env = "POD_NAME")]
    identity: Option<String>,
    /// Name of the lease
    #[arg(long, env = "APPLINK_LEASE", default_value = "applink-operator")]
    lease: String,
    /// Name of the Secret with the master key
    #[arg(long, env = "APPLINK_MASTER_KEY_SECRET", default_value = "applink-operator-master-key")]
    master_key_secret: String,
    /// Name of the ClusterLinkProvider to make for the bundled provider
    #[arg(long, default_value = "bundled")]
    bundled_provider_name: String,
    /// Address of the bundled provider; none is set up when left out
    #[arg(long)]
    bundled_provider_url: Option<String>,
    /// Address of its admin API
    #[arg(long, requires = "bundled_provider_url")]
    bundled_provider_admin_url: Option<String>,
    /// Name of the Secret with its admin token
    #[arg(long, requires = "bundled_provider_url")]
    bundled_provider_admin_token_secret: Option<String>,
    /// Who may use it, as the JSON of spec.allow
    #[arg(long, default_value = r#"{"namespaces":{"all":{}}}"#)]
    bundled_provider_allow: String,
    /// Whether it is the default provider
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set)]
    bundled_provider_default: bool,
    /// How log lines look
    #[arg(long, env = "APPLINK_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
    /// What is logged: a level, or target=level pairs
    #[arg(long, env = "APPLINK_LOG_LEVEL", default_value = "info")]
    log_level: String,
}

/// Why the operator stopped.
#[derive(Debug, thiserror::Error)]
pub enum OperatorError {
    /// A flag's value.
    #[error("--{flag}: {why}")]
    Flag {
        /// The flag.
        flag: &'static str,
        /// What is wrong with its value, and the way out.
        why: String,
    },
    /// The allow list.
    #[error("--outbound-allow: {0}")]
    Allow(#[from] AllowListError),
    /// Logging.
    #[error("{0}")]
    Telemetry(#[from] telemetry::TelemetryError),
    /// No way to the API server.
    #[error("there is no way to the API server: {0}; run in a Pod with a ServiceAccount, or set KUBECONFIG")]
    Kube(String),
    /// The HTTP client.
    #[error("{0}")]
    Guard(#[from] GuardError),
    /// A listener.
    #[error("can't listen on {address}: {why}; choose another address with --{flag}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// The flag that says where.
        flag: &'static str,
        /// Why not.
        why: std::io::Error,
    },
    /// The lease.
    #[error("{0}")]
    Leader(#[from] LeaderError),
    /// The lease was lost: another instance is at work, and this one must not be.
    #[error("the lease was lost; the operator stops so that no two are at work")]
    LeaseLost,
    /// The system refuses signal handlers.
    #[error("signals can't be handled: {0}")]
    Signals(std::io::Error),
}

fn bundled(args: &OperatorArgs) -> Result<Option<BundledSettings>, OperatorError> {
    let Some(url) = &args.bundled_provider_url else { return Ok(None) };
    let flag = |flag, why: &str| OperatorError::Flag { flag, why: why.to_owned() };
    let admin = args
        .bundled_provider_admin_url
        .clone()
        .ok_or_else(|| flag("bundled-provider-admin-url", "must be given with --bundled-provider-url"))?;
    let secret = args.bundled_provider_admin_token_secret.clone().ok_or_else(|| {
        flag("bundled-provider-admin-token-secret", "must be given with --bundled-provider-url")
    })?;
    let allow: Allow =
        serde_json::from_str(&args.bundled_provider_allow).map_err(|e| OperatorError::Flag {
            flag: "bundled-provider-allow",
            why: format!(
                "isn't the JSON of spec.allow ({e}); write it like {{\"namespaces\":{{\"all\":{{}}}}}}"
            ),
        })?;
    Ok(Some(BundledSettings {
        name: args.bundled_provider_name.clone(),
        bundled: Bundled {
            url: url.clone(),
            admin: BundledAdmin {
                url: admin,
                token_secret_ref: SecretKeyRef { name: secret, key: TOKEN_KEY.into() },
            },
            ca_bundle: None,
            client_certificate_secret_ref: None,
        },
        allow,
        default: args.bundled_provider_default,
    }))
}

/// The address of the operator's pages, to which only paths are added.
fn consent_url(text: &str) -> Result<Url, OperatorError> {
    let bad = |why: &str| OperatorError::Flag { flag: "consent-url", why: format!("{} {why}", Shown(text)) };
    let url = Url::parse(text)
        .map_err(|_| bad("isn't an absolute URL; write it like https://links.example.com"))?;
    let loopback = match url.host() {
        Some(url::Host::Ipv4(ip)) => ip.is_loopback(),
        Some(url::Host::Ipv6(ip)) => ip.is_loopback(),
        Some(url::Host::Domain(name)) => name == "localhost",
        None => return Err(bad("has no host; write it like https://links.example.com")),
    };
    if url.scheme() != "https" && !(url.scheme() == "http" && loopback) {
        return Err(bad("must be https, or http on loopback: consents pass there"));
    }
    if !url.username().is_empty()
        || url.password().is_some()
        || url.query().is_some()
        || url.fragment().is_some()
    {
        return Err(bad("must have no user information, query or fragment"));
    }
    Ok(url)
}

/// Runs the operator until it is told to stop.
///
/// # Errors
/// [`OperatorError`], one sentence for who started it.
pub async fn run(args: OperatorArgs) -> Result<(), OperatorError> {
    telemetry::init(args.log_format, &args.log_level)?;
    let bundled = bundled(&args)?;
    let allow = AllowList::parse(args.outbound_allow.iter().map(String::as_str).filter(|e| !e.is_empty()))?;
    if args.resync < Duration::from_secs(1) {
        return Err(OperatorError::Flag { flag: "resync", why: "must be at least 1s".into() });
    }
    if args.min_refresh_interval > Duration::from_secs(3600) {
        let why = "must be at most 1h: most tokens live an hour or two".into();
        return Err(OperatorError::Flag { flag: "min-refresh-interval", why });
    }
    let consent_url = args.consent_url.as_deref().filter(|u| !u.is_empty()).map(consent_url).transpose()?;
    let proxies = TrustedProxies::parse(args.trusted_proxies.iter().map(String::as_str))
        .map_err(|e| OperatorError::Flag { flag: "trusted-proxies", why: format!("{} {e}", Shown(&e.0)) })?;
    files::raise_limit();
    let shutdown = Shutdown::on_signals().map_err(OperatorError::Signals)?;
    let mut guard = Guard::new(allow, GuardOptions::default())?;
    if let Some(authorities) = args.outbound_ca_bundle.clone() {
        guard = guard.trusting(authorities);
    }
    let writes = WriteRate::new(args.api_writes_per_second);
    let kube = client(writes.clone()).await?;
    let identity = args.identity.clone().filter(|i| !i.is_empty()).unwrap_or_else(random_identity);
    let metrics = Metrics::default();
    let tenure = Arc::new(Tenure::default());
    let limits = Limits {
        per_second: args.token_requests_per_second,
        in_flight: usize::from(args.token_requests_in_flight),
    };
    let ctx = Arc::new(Context {
        store: Store::new(kube.clone(), &args.namespace),
        installation: Installation::new(args.master_key_secret.clone()),
        recorder: Recorder::new(
            kube.clone(),
            Reporter { controller: "applink-operator".into(), instance: Some(identity.clone()) },
        ),
        namespace: args.namespace.clone(),
        connections: crate::link::connections::Connections::default(),
        taken: Taken::default(),
        tenure: tenure.clone(),
        discoveries: Discoveries::default(),
        turns: Turns::budgeted(limits, args.token_requests_per_namespace, writes.clone()),
        min_refresh_interval: args.min_refresh_interval,
        namespaces: Namespaces::default(),
        accounts: AccountTokens::new(kube.clone()),
        standing: SharedReads::default(),
        links: Cache::default(),
        link_providers: Cache::default(),
        cluster_providers: Cache::default(),
        own: Mutex::default(),
        memos: Mutex::default(),
        identity: identity.clone(),
        client: kube.clone(),
        metrics: metrics.clone(),
        consent_url: consent_url.clone(),
        guard,
        require_allowed_hosts: args.outbound_require_allowed_hosts,
    });
    let namespaces: Vec<String> = args.watch_namespaces.iter().filter(|n| !n.is_empty()).cloned().collect();
    let mut consenting = None;
    if let Some(url) = consent_url {
        let listener = tokio::net::TcpListener::bind(args.consent_listen).await.map_err(|why| {
            OperatorError::Listen { address: args.consent_listen, flag: "consent-listen", why }
        })?;
        let consents = Arc::new(Consents::new(ctx.clone(), namespaces.clone()));
        let serving = web::consent::serve(listener, url, consents, proxies, shutdown.triggered());
        consenting = Some(tokio::spawn(serving));
    }
    let listener = tokio::net::TcpListener::bind(args.listen).await.map_err(|why| OperatorError::Listen {
        address: args.listen,
        flag: "listen",
        why,
    })?;
    let (counted, counting, each) = (ctx.clone(), Mutex::new(()), args.metrics_per_link);
    let probe = Probe::new(move || {
        // One at a time: what is counted of links is made anew each time.
        let _one = counting.lock();
        counted.count_links(each);
        counted.metrics.text()
    });
    let serving = tokio::spawn(web::serve(listener, probe.clone(), !args.health_alone, shutdown.triggered()));
    if let Some(address) = args.metrics_listen {
        tokio::spawn(web::serve_metrics(address, probe.clone(), shutdown.triggered()));
    }

    // Pages are served by every instance, at work or not: what a person agreed to is stored before it ends.
    let consents_end = async {
        if let Some(serving) = consenting {
            let _ = serving.await;
        }
        if tokio::time::timeout(KEEP_TRYING, tenure.nothing_held()).await.is_err() {
            tracing::error!("what a person agreed to couldn't be stored in time");
        }
    };
    tokio::select! {
        () = crds_served(&kube) => {}
        () = shutdown.triggered() => {
            consents_end.await;
            return Ok(());
        }
    }
    probe.set_ready(true);
    let connect = async move || client(writes).await.map_err(|e| e.to_string());
    let losing = tenure.clone();
    let on_lost = move || losing.lose(Instant::now());
    let mut leadership = tokio::select! {
        won = leader::lead(connect, &args.namespace, &args.lease, &identity, on_lost) => match won {
            Ok(leadership) => leadership,
            Err(e) => {
                shutdown.trigger();
                consents_end.await;
                return Err(e.into());
            }
        },
        () = shutdown.triggered() => {
            consents_end.await;
            return Ok(());
        }
    };
    tenure.begin(Instant::now(), leadership.released_by());
    tracing::info!(identity = %identity, lease = %args.lease, "leading");
    metrics.leading.set(1);
    let settings = Settings {
        namespaces,
        concurrency: usize::from(args.concurrency),
        resync: args.resync,
        unregister_orphans_after: args.unregister_orphans_after.0,
        bundled,
    };
    let mut work = std::pin::pin!(controllers::run(ctx, settings, shutdown.triggered()));
    let lost = tokio::select! {
        () = &mut work => false,
        () = leadership.lost() => true,
    };
    probe.set_ready(false);
    metrics.leading.set(0);
    if lost {
        tracing::error!("the lease is lost: nothing new is begun, and what servers answered is stored");
        shutdown.trigger();
        let ended = tokio::time::timeout(BEGUN_ELSEWHERE, futures::future::join(work, consents_end)).await;
        if ended.is_err() {
            tracing::error!("what servers answered couldn't be stored in time");
        }
        return Err(OperatorError::LeaseLost);
    }
    // What people agreed to needs no lease.
    leadership.release().await;
    shutdown.trigger();
    consents_end.await;
    // A health listener that panicked is nobody's trouble at the very end.
    let _ = serving.await;
    tracing::info!("stopped");
    Ok(())
}

fn ca_bundle(pem: &str) -> Result<CaBundle, String> {
    CaBundle::parse(pem.as_bytes()).map_err(|e| e.to_string())
}

/// The way to the API server; what is written there is counted.
async fn client(writes: WriteRate) -> Result<Client, OperatorError> {
    let mut config = kube::Config::infer().await.map_err(|e| OperatorError::Kube(e.to_string()))?;
    config.connect_timeout = Some(Duration::from_secs(10));
    config.write_timeout = Some(Duration::from_secs(30));
    let count = MapRequestLayer::new(move |request: Request<Body>| {
        if request.method() != Method::GET {
            writes.saw(Instant::now());
        }
        request
    });
    let builder = ClientBuilder::try_from(config).map_err(|e| OperatorError::Kube(e.to_string()))?;
    Ok(builder.with_layer(&count).build())
}

/// Waits until the API server serves our kinds: the chart brings CRDs and operator together.
async fn crds_served(client: &Client) {
    let api: Api<ClusterLinkProvider> = Api::all(client.clone());
    let mut wait = Duration::from_millis(200);
    loop {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return,
            Err(kube::Error::Api(s)) => {
                tracing::info!(
                    status = s.code,
                    "the API server doesn't serve ClusterLinkProviders yet; are the CRDs installed?"
                );
            }
            Err(_) => tracing::warn!("the API server doesn't answer"),
        }
        tokio::time::sleep(wait).await;
        wait = (wait * 2).min(Duration::from_secs(5));
    }
}

fn random_identity() -> String {
    let mut bytes = [0u8; 8];
    // The identity must differ, not be secret; without randomness the time differs.
    if getrandom::fill(&mut bytes).is_err() {
        bytes = jiff::Timestamp::now().as_microsecond().to_be_bytes();
    }
    format!("applink-{}", bytes.iter().map(|b| format!("{b:02x}")).collect::<String>())
}
