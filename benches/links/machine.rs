//! What the machine says of itself: load, processor time, memory.

use std::collections::BTreeMap;
use std::fs::read_to_string;

/// What `/proc` counts processor time in: Linux shows 100 to a second on every machine that this runs on.
const TICKS: f64 = 100.0;

/// The load of the machine: whatever else it does makes every figure smaller.
pub fn load() -> String {
    let load = read_to_string("/proc/loadavg").unwrap_or_default();
    let averages: Vec<&str> = load.split_whitespace().take(3).collect();
    let processors = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    format!("{processors} processors, load average {}", averages.join(" "))
}

/// Memory of a process in MiB: now, and the most that it ever had.
pub fn memory_mib(pid: u32) -> (f64, f64) {
    let status = read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap_or("0");
        line.split_whitespace().next().and_then(|n| n.parse::<f64>().ok()).unwrap_or(0.0) / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// Processor seconds of a process so far.
pub fn cpu_s(pid: u32) -> f64 {
    stat(&format!("/proc/{pid}/stat")).map_or(0.0, |s| s.ticks / TICKS)
}

struct Stat {
    name: String,
    parent: u32,
    ticks: f64,
}

fn stat(path: &str) -> Option<Stat> {
    let text = read_to_string(path).ok()?;
    let (head, rest) = text.rsplit_once(") ")?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |at: usize| fields.get(at).and_then(|n| n.parse::<f64>().ok());
    Some(Stat {
        name: head.split_once('(')?.1.to_owned(),
        parent: fields.get(1)?.parse().ok()?,
        ticks: number(11)? + number(12)?,
    })
}

/// Processor time so far: of this program and what it started, and of the whole machine.
#[derive(Clone, Debug, Default)]
pub struct Usage {
    /// Seconds by process.
    by_process: BTreeMap<String, f64>,
    machine: f64,
}

impl Usage {
    pub fn now() -> Self {
        let me = std::process::id();
        let mut by_process = BTreeMap::new();
        let processes = std::fs::read_dir("/proc").into_iter().flatten().flatten();
        for process in processes.filter_map(|p| p.file_name().to_str()?.parse::<u32>().ok()) {
            let Some(stat) = stat(&format!("/proc/{process}/stat")) else { continue };
            if stat.parent == me || process == me {
                let name = match stat.name.as_str() {
                    _ if process == me => "this program".to_owned(),
                    "applink" => command(process),
                    name => name.to_owned(),
                };
                *by_process.entry(name).or_default() += stat.ticks / TICKS;
            }
        }
        let all = read_to_string("/proc/stat").unwrap_or_default();
        let ticks: Vec<f64> = all
            .lines()
            .next()
            .unwrap_or_default()
            .split_whitespace()
            .skip(1)
            .filter_map(|n| n.parse().ok())
            .collect();
        // user, nice, system; idle and waiting aren't work; interrupts.
        let machine = [0, 1, 2, 5, 6].iter().filter_map(|i| ticks.get(*i)).sum::<f64>() / TICKS;
        Self { by_process, machine }
    }

    pub fn since(&self, before: &Self) -> Self {
        let by_process = self
            .by_process
            .iter()
            .map(|(name, s)| (name.clone(), s - before.by_process.get(name).copied().unwrap_or(0.0)))
            .collect();
        Self { by_process, machine: self.machine - before.machine }
    }

    /// By process, in ms a link, the most first; and what processes of others took.
    pub fn a_link(&self, links: usize) -> String {
        let ms = |s: f64| s * 1000.0 / links as f64;
        let mut parts: Vec<_> = self.by_process.iter().filter(|(_, s)| **s > 0.0).collect();
        parts.sort_by(|a, b| b.1.total_cmp(a.1));
        let ours: f64 = self.by_process.values().sum();
        let mut text: Vec<_> = parts.iter().map(|(name, s)| format!("{name} {:.1}", ms(**s))).collect();
        text.push(format!("all of these {:.1}", ms(ours)));
        text.push(format!("others {:.1}", ms((self.machine - ours).max(0.0))));
        text.join(", ")
    }
}

/// `applink operator` or `applink provider`.
fn command(pid: u32) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let word = line.split(|b| *b == 0).nth(1).unwrap_or_default();
    String::from_utf8_lossy(word).into_owned()
}
