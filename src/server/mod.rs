//! The bundled provider service: OAuth clients and their tokens, on two listeners (and two more for a kubelet and for
//! Prometheus) and one SQLite file.
//!
//! | file | what lives there |
//! |---|---|
//! | `config` | what the service is told at its start |
//! | `router` | all routes of all listeners, and the layers around them |
//! | `listen` | connections: limits, timeouts, draining |
//! | `oauth2/` | the OAuth 2.0 endpoints, a file each, and the grants, a file each |
//! | `admin/` | the admin API: clients and grants |
//! | `store/` | SQLite; the only place with SQL |
//! | `secret`, `seal`, `random` | client secrets, sealed replies, tokens |
//! | `client_budget` | how many tokens one client is issued |
//! | `client_rules` | what a client may be registered with, whoever registers it |
//! | `changes` | what became of the clients, for who wants to be told |
//! | `state` | what handlers share |
//! | `health`, `metrics` | what Kubernetes and Prometheus ask |
//!
//! Only `cli::provider` calls this module, by [`run`]; it uses `domain` and nothing else of the
//! house. People, consent and authorization codes are not here yet: clients may be registered for
//! `authorization_code`, the token endpoint says `unsupported_grant_type` to it, and the metadata
//! lists only what works.

mod admin;
mod changes;
mod client_budget;
mod client_rules;
pub mod config;
mod health;
mod metrics;
mod oauth2;
mod random;
mod router;
mod seal;
mod secret;
mod state;
mod store;

pub use admin::{AdminTokenError, check_token_file};
pub use client_budget::ClientLimits;
pub use config::{Config, Issuer, IssuerError, Limits, TokenPolicy};

use crate::runtime::listen::{self, Server};
use state::App;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::time::{MissedTickBehavior, interval};

/// For how long an idle connection of a client is left alone when there are too many: time to send a request from anywhere.
const LEFT_ALONE: Duration = Duration::from_secs(3);

const SWEEP_EVERY: Duration = Duration::from_secs(60);

/// Why the service could not start, one sentence each.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address can't be listened on.
    #[error(
        "{flag} {address} can't be listened on ({source}); give an address of this machine with a free port"
    )]
    Listen {
        /// The flag that named it.
        flag: &'static str,
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: std::io::Error,
    },
    /// The database can't be used.
    #[error("--database {path:?} can't be used: {reason}; {way_out}")]
    Database {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
        /// What to do about it.
        way_out: &'static str,
    },
    /// The system has no randomness.
    #[error("the system gave no randomness; run where the getrandom system call works")]
    Randomness,
    /// The system gives no threads to check chosen secrets on.
    #[error("{0}; give the process room for a few more threads")]
    Hashing(secret::HashingFailed),
}

/// Serves until `stop` resolves, then lets requests in flight finish for the drain timeout.
///
/// # Errors
/// [`ServerError`] when it can't start. Once it has started it doesn't fail.
pub async fn run(config: Config, stop: impl Future<Output = ()> + Send) -> Result<(), ServerError> {
    let public = bind("--listen", config.listen).await?;
    let admin = bind("--admin-listen", config.admin_listen).await?;
    let app = Arc::new(App::open(&config).await?);
    tracing::info!(
        issuer = config.issuer.as_str(),
        listen = %config.listen,
        admin_listen = %config.admin_listen,
        version = env!("CARGO_PKG_VERSION"),
        "the provider service is ready"
    );

    let sweeper = tokio::spawn(sweep(app.clone()));
    let serve = |name, listener, router, left_alone, proxies| {
        let server = Server {
            name,
            listener,
            router,
            bounds: config.limits.connections,
            left_alone,
            drain: config.drain_timeout,
            open: app.metrics.connections(name),
            proxies,
        };
        server.run(app.stopping())
    };
    // Without one of these the service does its work all the same.
    let aside = async |name, address: Option<SocketAddr>, router| {
        let Some(address) = address else { return };
        let mut stopping = app.stopping();
        let listener = tokio::select! {
            listener = listen::bind(name, address) => listener,
            _ = stopping.wait_for(|stop| *stop) => return,
        };
        serve(name, listener, router, Duration::ZERO, Arc::default()).await;
    };
    let signal = async {
        stop.await;
        app.stop();
    };
    tokio::join!(
        serve("public", public, router::public(&app), LEFT_ALONE, Arc::new(config.proxies.clone())),
        serve("admin", admin, router::admin_listener(&app), Duration::ZERO, Arc::default()),
        aside("health", config.health_listen, router::health_listener(&app)),
        aside("metrics", config.metrics_listen, router::metrics_listener(&app)),
        signal,
    );
    sweeper.abort();
    // It may hold the writer; it is gone when this returns.
    let _ = sweeper.await;
    app.store.close().await;
    tracing::info!("the provider service has stopped");
    Ok(())
}

async fn bind(flag: &'static str, address: SocketAddr) -> Result<TcpListener, ServerError> {
    TcpListener::bind(address).await.map_err(|source| ServerError::Listen { flag, address, source })
}

async fn sweep(app: Arc<App>) {
    let mut ticks = interval(SWEEP_EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        app.budget.forget();
        app.secrets.forget();
        match app.store.sweep(app.now(), app.tokens.refresh_grace).await {
            Ok(0) => {}
            Ok(gone) => tracing::debug!(gone, "expired tokens were cleared out"),
            Err(error) => {
                tracing::warn!(%error, "expired tokens could not be cleared out; trying again in a minute")
            }
        }
    }
}
