//! Noisy neighbours: one namespace at full tilt in each of the ways that [`ways::WAYS`] lists, and what another one, the
//! victim, notices of it. `make sweep` runs each way beside a quiet run of the same operator, `make test` a share of them.
//!
//! - [`ways`]: the ways, one entry each.
//! - [`neighbour`]: what an entry acts with.
//! - [`victim`]: what the other namespace does meanwhile, and what is measured of it.
//! - [`report`]: the bounds, and the table.

pub mod neighbour;
pub mod report;
pub mod victim;
pub mod ways;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, DeleteParams, ListParams};
use serde_json::json;

use super::plane::ControlPlane;
use super::ports;
use super::stage::Stage;
use super::token_server::TokenServer;
use neighbour::{Neighbour, Noise};
use report::Row;
use victim::{Measured, Victim};

/// A way to be noisy.
pub struct Way {
    /// What the neighbour does, as the table calls it.
    pub name: &'static str,
    /// How much of it there is: what bounds the load.
    pub load: &'static str,
    /// Does it until it is dropped; says when all of it is on ([`Neighbour::full_tilt`]), and counts what it does
    /// ([`Neighbour::did`]).
    pub act: for<'n> fn(&'n Neighbour) -> LocalBoxFuture<'n, ()>,
}

/// How much the victim does in a run.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// For how long it is looked at.
    pub span: Duration,
    /// Its links whose tokens are refreshed all the time.
    pub refreshed: usize,
    /// The lifetime of those tokens, and how often they are refreshed.
    pub lifetime: Duration,
    pub every: Duration,
    /// The links that it applies one after another, spread over the span: half of them incoming, half outgoing.
    pub applied: usize,
    /// Whether there is a quiet run to compare with.
    pub compared: bool,
}

/// For `make sweep`.
pub const WHOLE: Size = Size {
    span: Duration::from_secs(30),
    refreshed: 20,
    lifetime: Duration::from_secs(30),
    every: Duration::from_secs(12),
    applied: 60,
    compared: true,
};

/// For `make test`: no times are compared, so a token has more time to spare on a busy machine, and ends only where a
/// refresh was held up for half a minute.
pub const SHARE: Size = Size {
    span: Duration::from_secs(50),
    refreshed: 8,
    lifetime: Duration::from_secs(40),
    every: Duration::from_secs(10),
    applied: 10,
    compared: false,
};

/// Runs one way on an operator of its own, with the chart's limits.
pub async fn beside(plane: &ControlPlane, binary: &Path, way: &Way, size: Size) -> Row {
    let consent = ports::free();
    let url = format!("http://127.0.0.1:{consent}/links");
    let values = json!({
        "consent": {"url": url, "port": consent},
        "operator": {"minRefreshInterval": "10s"},
    });
    let stage = Stage::set(plane, binary, 2, values).await;
    let shared = Arc::new(TokenServer::start().await);
    let mut row = Row::of(way, size);
    let victim = Victim::settle(&stage, &shared, size).await;
    neighbour::register(&stage).await;
    if size.compared {
        row.quiet = Some(victim.measure("quiet").await);
    }
    let noise = Noise::begin(way, Neighbour::of(&stage, &shared, &url));
    // What the neighbour panics with is its own row's failure.
    let measured: Option<Measured> = match noise.full_tilt().await {
        Ok(()) => Some(victim.measure("beside").await),
        Err(ended) => {
            row.failures.push(ended);
            None
        }
    };
    row.beside = measured;
    match noise.end() {
        Ok(acts) => row.acts = acts,
        Err(panicked) => row.failures.push(panicked),
    }
    // Gigabytes of Secrets would slow down the ways that follow.
    let secrets: Api<Secret> = stage.secrets(&stage.teams[1]);
    let all = secrets.delete_collection(&DeleteParams::default(), &ListParams::default()).await;
    all.expect("the neighbour's Secrets go");
    row.judge();
    row
}

/// The same, and a panic is a failure of its row.
pub async fn beside_or_failed(plane: &ControlPlane, binary: &Path, way: &Way, size: Size) -> Row {
    let run = std::panic::AssertUnwindSafe(beside(plane, binary, way, size)).catch_unwind();
    run.await.unwrap_or_else(|panic| {
        let mut row = Row::of(way, size);
        row.failures.push(neighbour::said(panic.as_ref()));
        row
    })
}
