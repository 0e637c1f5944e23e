//! The results: a row a provider and number of links.

use std::fmt::Write as _;
use std::path::Path;

use serde::Serialize;

/// What was measured. `docs/performance.md` explains each.
#[derive(Debug, Serialize)]
pub struct Row {
    pub provider: String,
    pub links: usize,
    pub concurrency: usize,
    pub bare_per_s: f64,
    pub operator_per_s: f64,
    pub ratio: f64,
    pub ready_ms: f64,
    pub ready_p95_ms: f64,
    pub least_per_s: f64,
    pub ratio_to_least: f64,
    pub writes_per_link: f64,
    pub events_per_link: f64,
    pub reads_per_link: f64,
    pub provider_requests_per_link: f64,
    pub rss_mib: f64,
    pub peak_mib: f64,
    pub cpu_s: f64,
    pub restart_writes: usize,
    pub restart_reads: usize,
    pub restart_settle_s: f64,
    pub restart_rss_mib: f64,
    pub deleted: usize,
    pub delete_per_s: f64,
    pub left_behind: usize,
    pub secrets_left: usize,
}

/// Writes the rows so far.
pub fn write(rows: &[Row]) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder).expect("target/bench");
    let text = serde_json::to_string_pretty(rows).expect("json");
    std::fs::write(folder.join("links.json"), text + "\n").expect("target/bench/links.json");
}

/// The rows as a table in Markdown, a column a row: there are more figures than rows.
pub fn print(rows: &[Row]) -> String {
    type Figure = (&'static str, fn(&Row) -> String);
    let figures: [Figure; 20] = [
        ("links a second, bare client", |r| format!("{:.0}", r.bare_per_s)),
        ("links a second, operator", |r| format!("{:.0}", r.operator_per_s)),
        ("operator / bare client", |r| format!("{:.2}", r.ratio)),
        ("links a second, bare client with two writes", |r| format!("{:.0}", r.least_per_s)),
        ("operator / that", |r| format!("{:.2}", r.ratio_to_least)),
        ("one link alone, median (p95), ms", |r| format!("{:.0} ({:.0})", r.ready_ms, r.ready_p95_ms)),
        ("Kubernetes writes a link", |r| format!("{:.2}", r.writes_per_link)),
        ("of them events", |r| format!("{:.2}", r.events_per_link)),
        ("Kubernetes reads a link", |r| format!("{:.2}", r.reads_per_link)),
        ("provider requests a link", |r| format!("{:.2}", r.provider_requests_per_link)),
        ("operator's memory, MiB", |r| format!("{:.1}", r.rss_mib)),
        ("the most it had, MiB", |r| format!("{:.1}", r.peak_mib)),
        ("operator's processor time, s", |r| format!("{:.1}", r.cpu_s)),
        ("writes after a restart", |r| r.restart_writes.to_string()),
        ("reads after a restart", |r| r.restart_reads.to_string()),
        ("restart until all were looked at, s", |r| format!("{:.1}", r.restart_settle_s)),
        ("memory then, MiB", |r| format!("{:.1}", r.restart_rss_mib)),
        ("links deleted a second", |r| format!("{:.0} (of {})", r.delete_per_s, r.deleted)),
        ("clients left behind", |r| r.left_behind.to_string()),
        ("Secrets left behind", |r| r.secrets_left.to_string()),
    ];
    let mut text = String::from("| |");
    for row in rows {
        let _ = write!(text, " {}, {} links |", row.provider, row.links);
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
