//! The results: a row a scenario.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

use crate::world::World;
use applink_operator::link::turns::Limits;

/// What was measured. `docs/performance.md` explains each.
#[derive(Debug, Serialize)]
pub struct Row {
    pub scenario: &'static str,
    pub timers: usize,
    pub requests: usize,
    pub failed: usize,
    pub looks: usize,
    pub p50_lateness_ms: u32,
    pub p99_lateness_ms: u32,
    pub max_lateness_ms: u32,
    pub peak_to_mean: f64,
    pub peak_to_mean_10s: f64,
    pub peak_per_s: u32,
    pub peak_per_host_per_s: u32,
    pub caught_up_s: f64,
    pub tokens_ended: usize,
    pub new_link_p99_ms: u32,
    pub refreshed_early: usize,
    pub over_budget: usize,
    pub rss_mib: f64,
    pub cpu_s: f64,
}

fn percentile(sorted: &[u32], share: f64) -> u32 {
    let at = (sorted.len() as f64 * share).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// The busiest interval of so many seconds over the mean one, after the start.
fn peak_to_mean(seconds: &[u32], interval: usize) -> f64 {
    let sums: Vec<u32> = seconds.chunks_exact(interval).map(|c| c.iter().sum()).collect();
    let mean = sums.iter().map(|s| f64::from(*s)).sum::<f64>() / sums.len() as f64;
    f64::from(*sums.iter().max().expect("some")) / mean
}

impl Row {
    pub fn of(world: &World, cpu_s: f64) -> Self {
        let mut lateness = world.seen.lateness.clone();
        lateness.sort_unstable();
        let mut new = world.seen.new_waits.clone();
        new.sort_unstable();
        let limits = Limits::default();
        // In any second: what was saved up, and what came in.
        let most = 2 * limits.per_second;
        Self {
            scenario: world.scenario.name(),
            timers: world.timers,
            requests: world.seen.seconds.iter().map(|n| *n as usize).sum(),
            failed: world.seen.failed,
            looks: world.seen.looks,
            p50_lateness_ms: percentile(&lateness, 0.5),
            p99_lateness_ms: percentile(&lateness, 0.99),
            max_lateness_ms: percentile(&lateness, 1.0),
            peak_to_mean: peak_to_mean(&world.seen.seconds, 60),
            peak_to_mean_10s: peak_to_mean(&world.seen.seconds, 10),
            peak_per_s: *world.seen.seconds.iter().max().expect("some"),
            peak_per_host_per_s: world.seen.by_host.values().copied().max().unwrap_or_default(),
            caught_up_s: world.caught_up().as_secs_f64(),
            tokens_ended: world.seen.expired,
            new_link_p99_ms: percentile(&new, 0.99),
            refreshed_early: world.seen.early,
            over_budget: world.seen.by_host.values().filter(|n| **n > most).count(),
            rss_mib: memory_mib(),
            cpu_s,
        }
    }
}

/// This process's memory.
fn memory_mib() -> f64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|l| l.starts_with("VmRSS:")).expect("VmRSS");
    line.split_whitespace().nth(1).and_then(|kib| kib.parse::<f64>().ok()).expect("KiB") / 1024.0
}

/// The processor time that this process took so far.
pub fn cpu_s() -> f64 {
    let stat = std::fs::read_to_string("/proc/self/stat").expect("Linux");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    let ticks: f64 = fields[11..13].iter().map(|t| t.parse::<f64>().expect("ticks")).sum();
    // USER_HZ, which is 100 on every architecture that Linux still has.
    ticks / 100.0
}

/// Writes the rows so far: the figures of the first at the top, all of them in `rows`.
pub fn write(rows: &[Row]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench");
    let mut all = serde_json::to_value(&rows[0]).expect("json");
    all["rows"] = serde_json::to_value(rows).expect("json");
    let text = serde_json::to_string_pretty(&all).expect("json");
    std::fs::write(folder.join("refresh.json"), text + "\n").expect("target/bench/refresh.json");
}

/// The rows as a table in Markdown, a column a scenario.
pub fn print(rows: &[Row]) -> String {
    type Figure = (&'static str, fn(&Row) -> String);
    let figures: [Figure; 15] = [
        ("timers", |r| r.timers.to_string()),
        ("token requests (failed)", |r| format!("{} ({})", r.requests, r.failed)),
        ("passes", |r| r.looks.to_string()),
        ("lateness, median, s", |r| secs(r.p50_lateness_ms)),
        ("lateness, p99, s", |r| secs(r.p99_lateness_ms)),
        ("lateness, most, s", |r| secs(r.max_lateness_ms)),
        ("busiest minute / mean", |r| format!("{:.2}", r.peak_to_mean)),
        ("busiest 10 s / mean", |r| format!("{:.2}", r.peak_to_mean_10s)),
        ("most requests in a second (one host)", |r| format!("{} ({})", r.peak_per_s, r.peak_per_host_per_s)),
        ("caught up after, s", |r| format!("{:.0}", r.caught_up_s)),
        ("tokens that ended first", |r| r.tokens_ended.to_string()),
        ("a new link's wait, p99, s", |r| secs(r.new_link_p99_ms)),
        ("refreshed early", |r| r.refreshed_early.to_string()),
        ("memory, MiB", |r| format!("{:.0}", r.rss_mib)),
        ("processor time, s", |r| format!("{:.1}", r.cpu_s)),
    ];
    let mut text = String::from("| |");
    for row in rows {
        let _ = write!(text, " {} |", row.scenario);
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(rows.len()));
    for (name, figure) in figures {
        let _ = write!(text, "\n| {name} |");
        for row in rows {
            let _ = write!(text, " {} |", figure(row));
        }
    }
    text
}

fn secs(ms: u32) -> String {
    format!("{:.2}", f64::from(ms) / 1000.0)
}
