//! Measures this project beside a bare client: a program that does the same writes with no controller, on the same
//! control plane and provider, in the same run. Prints tables, writes `target/bench/links.json`, and asserts only that
//! what it measured came to its end: machines differ. `docs/performance.md` says what each column is.
//!
//! `BENCH_LINKS` (1000,5000) are the numbers of links, `BENCH_PROVIDERS` the provider services, `APPLINK` another
//! program than the one built for this.

#![allow(clippy::print_stdout, reason = "it is here to print figures")]

// A benchmark is compiled as a test is, and has no tests: theirs go, and what these use stays.
#[allow(unused_imports)]
#[path = "../../tests/support/mod.rs"]
mod support;

mod bare;
mod machine;
mod operator;
mod service;
mod table;

use std::path::PathBuf;
use std::time::Instant;

use bare::{Bare, Writes};
use machine::Usage;
use operator::Operator;
use serde_json::json;
use service::Service;
use support::plane::{ControlPlane, Options};
use support::stage::Stage;
use table::Row;

/// So many requests of the bare client are tried at once; the best is taken.
const CONCURRENCIES: [usize; 5] = [1, 4, 8, 16, 32];
/// So many links are made one after another.
const ALONE: usize = 50;
/// So many links are deleted against the clock, at most.
const DELETED: usize = 1000;

#[tokio::main]
async fn main() {
    let sizes: Vec<usize> =
        list("BENCH_LINKS", "1000,5000").iter().map(|n| n.parse().expect("a number")).collect();
    let services = list("BENCH_PROVIDERS", "bundled,hydra");
    let program = std::env::var_os("APPLINK")
        .map_or_else(|| PathBuf::from(env!("CARGO_BIN_EXE_applink")), PathBuf::from);
    println!("{}", machine::load());

    let mut rows = Vec::new();
    for name in &services {
        let plane = ControlPlane::start(Options::default()).await;
        // A namespace that is watched for each number, and the warm-up.
        let values = json!({"log": {"level": "warn"}});
        let stage = Stage::set(&plane, &program, sizes.len() + 1, values).await;
        let service = Service::start(name, &stage).await;
        let mut run = Run::begin(&plane, stage, service).await;
        for (at, links) in sizes.iter().enumerate() {
            rows.push(run.measure(at + 1, *links).await);
            table::write(&rows);
        }
    }
    println!("\n{}\n{}", table::print(&rows), machine::load());
}

/// One provider service, and an operator on it.
struct Run<'p> {
    operator: Operator<'p>,
    bare: Bare,
    service: Service,
    concurrency: usize,
    /// How long one link alone takes, in ms: median and p95.
    ready: (f64, f64),
}

impl<'p> Run<'p> {
    async fn begin(plane: &'p ControlPlane, stage: Stage<'p>, service: Service) -> Self {
        let operator = Operator::new(plane, stage);
        // One link of the operator's shows what there is to write.
        let sample = operator.sample(&service).await;
        let namespace = plane.namespace("bare").await;
        let bare = Bare::new(plane, namespace, sample, &service).await;
        let mut best = (0.0, 1);
        for concurrency in CONCURRENCIES {
            let rate = bare.run(&service, 96, concurrency, Writes::All).await;
            println!("{}: bare client, {concurrency} at once: {rate:.0} links a second", service.name());
            if rate > best.0 {
                best = (rate, concurrency);
            }
        }
        let ready = operator.one_by_one(&service, ALONE).await;
        Self { operator, bare, service, concurrency: best.1, ready }
    }

    /// The bare client, the operator, the bare client again: what else the machine does meanwhile slows both.
    async fn measure(&mut self, namespace: usize, links: usize) -> Row {
        let Self { operator, bare, service, concurrency, ready } = self;
        let concurrency = *concurrency;
        println!("{}: {links} links, {concurrency} at once; {}", service.name(), machine::load());
        let half = links / 2;

        let before = Usage::now();
        let first = Instant::now();
        bare.run(service, half, concurrency, Writes::All).await;
        let first = first.elapsed();
        let bare_usage = Usage::now().since(&before);

        let made = operator.create(service, namespace, links, concurrency).await;

        let second = Instant::now();
        bare.run(service, links - half, concurrency, Writes::All).await;
        let bare_s = (first + second.elapsed()).as_secs_f64();
        let least = bare.run(service, links.min(1000), concurrency, Writes::Least).await;

        println!("  processor time a link, in ms, of the bare client's run: {}", bare_usage.a_link(half));
        println!("  processor time a link, in ms, of the operator's run:    {}", made.usage.a_link(links));

        let restart = operator.restart(links).await;
        let gone = operator.delete(service, namespace, links, links.min(DELETED), concurrency).await;
        let bare_per_s = links as f64 / bare_s;
        let operator_per_s = links as f64 / made.seconds;
        Row {
            provider: service.name().to_owned(),
            links,
            concurrency,
            bare_per_s,
            operator_per_s,
            ratio: operator_per_s / bare_per_s,
            ready_ms: ready.0,
            ready_p95_ms: ready.1,
            least_per_s: least,
            ratio_to_least: operator_per_s / least,
            writes_per_link: made.writes as f64 / links as f64,
            events_per_link: made.events as f64 / links as f64,
            reads_per_link: made.reads as f64 / links as f64,
            provider_requests_per_link: made.provider_requests as f64 / links as f64,
            rss_mib: made.rss_mib,
            peak_mib: made.peak_mib,
            cpu_s: made.cpu_s,
            restart_writes: restart.writes,
            restart_reads: restart.reads,
            restart_settle_s: restart.seconds,
            restart_rss_mib: restart.rss_mib,
            deleted: gone.deleted,
            delete_per_s: gone.per_s,
            left_behind: gone.clients,
            secrets_left: gone.secrets,
        }
    }
}

fn list(variable: &str, default: &str) -> Vec<String> {
    let given = std::env::var(variable).ok().filter(|v| !v.is_empty());
    let given = given.unwrap_or_else(|| default.to_owned());
    given.split(',').map(|word| word.trim().to_owned()).collect()
}
