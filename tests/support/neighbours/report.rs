//! What may be, and the table.

use std::fmt::Write as _;

use super::victim::Measured;
use super::{Size, Way};

/// "At most twice" of a few milliseconds says how busy the machine was, not what the neighbour did: a time below its floor
/// is well, in milliseconds. Two quiet runs, which is what the way `nobody` is, differ by some 10 ms on two cores that do
/// nothing else, and by several hundred where other programs are compiled meanwhile; tokens here live for 30,000.
pub const FLOOR: f64 = 300.0;
/// The same for a page, of which nothing is written.
pub const PAGE_FLOOR: f64 = 150.0;
/// The limit of the chart, which the operator and the provider have each.
pub const MOST_MIB: u64 = 512;

/// What came of one way.
pub struct Row {
    pub way: &'static str,
    pub load: &'static str,
    pub quiet: Option<Measured>,
    pub beside: Option<Measured>,
    /// How much of the load there was.
    pub acts: usize,
    pub failures: Vec<String>,
    size: Size,
}

/// The part `p` of the values is at most this; 0 without any.
pub fn percentile(values: &[f64], p: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "an index")]
    let at = (values.len() as f64 * p).ceil() as usize;
    sorted.get(at.saturating_sub(1)).copied().unwrap_or_default()
}

/// Some of the times that were measured.
type Times = fn(&Measured) -> &[f64];
/// What is compared: its name, its values, and below what it is well anyway.
type Compared = (&'static str, Times, f64);

const COMPARED: [Compared; 4] = [
    ("apply to Ready", |m| &m.ready, FLOOR),
    ("refresh lateness", |m| &m.late, FLOOR),
    ("a token at the provider", |m| &m.token, FLOOR),
    ("a page of the consents", |m| &m.page, PAGE_FLOOR),
];

impl Row {
    pub fn of(way: &Way, size: Size) -> Self {
        let (way, load) = (way.name, way.load);
        Self { way, load, quiet: None, beside: None, acts: 0, failures: Vec::new(), size }
    }

    /// Holds what was measured against what may be.
    pub fn judge(&mut self) {
        let mut failures = Vec::new();
        for (run, measured) in [("quiet", &self.quiet), ("beside", &self.beside)] {
            let Some(m) = measured else { continue };
            failures.extend(m.wrong.iter().map(|wrong| format!("{run}: {wrong}")));
            for (number, what) in [(m.expired, "tokens expired"), (m.probes, "probes failed")] {
                if number > 0 {
                    failures.push(format!("{run}: {number} {what}"));
                }
            }
            for (mib, of) in [(m.operator_mib, "operator"), (m.provider_mib, "provider")] {
                if mib >= MOST_MIB {
                    failures.push(format!("{run}: the {of} held {mib} MiB"));
                }
            }
            if m.ready.is_empty() || m.late.len() < self.size.refreshed {
                failures.push(format!("{run}: {} links, {} refreshes", m.ready.len(), m.late.len()));
            }
        }
        if self.acts == 0 {
            failures.push("the neighbour did nothing".to_owned());
        }
        if let (Some(quiet), Some(beside)) = (&self.quiet, &self.beside) {
            for (what, of, floor) in COMPARED {
                let (before, now) = (percentile(of(quiet), 0.95), percentile(of(beside), 0.95));
                if now > (2.0 * before).max(floor) {
                    failures.push(format!("p95 of {what}: {now:.0} ms, {before:.0} ms quiet"));
                }
            }
        }
        self.failures.extend(failures);
    }
}

/// The head of the table.
pub fn head() -> String {
    "| way | load | done | Ready p50 | Ready p95 | late p95 | token p95 | page p95 | own write p95 | expired | probes failed | operator MiB | provider MiB |\n\
     |---|---|---|---|---|---|---|---|---|---|---|---|---|"
        .to_owned()
}

impl Row {
    /// Its line of the table: quiet → beside, times in milliseconds.
    pub fn line(&self) -> String {
        let mut line = format!("| {} | {} | {} |", self.way, self.load, self.acts);
        let pair = |of: &dyn Fn(&Measured) -> String| {
            let side = |m: &Option<Measured>| m.as_ref().map_or_else(|| "–".to_owned(), of);
            format!(" {} → {} |", side(&self.quiet), side(&self.beside))
        };
        let times: [(Times, f64); 6] = [
            (|m| &m.ready, 0.5),
            (|m| &m.ready, 0.95),
            (|m| &m.late, 0.95),
            (|m| &m.token, 0.95),
            (|m| &m.page, 0.95),
            (|m| &m.write, 0.95),
        ];
        for (of, p) in times {
            line.push_str(&pair(&|m| format!("{:.0}", percentile(of(m), p))));
        }
        let counts: [fn(&Measured) -> u64; 4] =
            [|m| m.expired as u64, |m| m.probes as u64, |m| m.operator_mib, |m| m.provider_mib];
        for of in counts {
            line.push_str(&pair(&|m| of(m).to_string()));
        }
        line
    }

    /// What failed, a line each.
    pub fn failed(&self) -> String {
        self.failures.iter().fold(String::new(), |mut text, failure| {
            let _ = writeln!(text, "FAILED {}: {failure}", self.way);
            text
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::WHOLE;
    use super::super::ways::WAYS;
    use super::*;

    /// A run in which each time was this long, in milliseconds.
    fn run(millis: f64) -> Measured {
        let times = vec![millis; 40];
        let (ready, late, token, page) = (times.clone(), times.clone(), times.clone(), times.clone());
        Measured { ready, late, token, page, write: times, ..Measured::default() }
    }

    fn failures(quiet: Measured, beside: Measured, acts: usize) -> Vec<String> {
        let mut row = Row::of(&WAYS[0], WHOLE);
        (row.quiet, row.beside, row.acts) = (Some(quiet), Some(beside), acts);
        row.judge();
        row.failures
    }

    #[test]
    fn a_row_fails_for_each_thing_that_may_not_be() {
        let all = COMPARED.len();
        let with = |change: fn(&mut Measured)| {
            let mut beside = run(1.0);
            change(&mut beside);
            beside
        };
        let table: [(&str, Measured, Measured, usize, usize); 11] = [
            ("well", run(1.0), run(2.0), 1, 0),
            ("below the floors", run(1.0), run(PAGE_FLOOR), 1, 0),
            ("twice", run(1000.0), run(2000.0), 1, 0),
            ("more than twice", run(1000.0), run(2001.0), 1, all),
            ("nothing was done", run(1.0), run(1.0), 0, 1),
            ("expired", run(1.0), with(|m| m.expired = 1), 1, 1),
            ("a probe", run(1.0), with(|m| m.probes = 1), 1, 1),
            ("memory", run(1.0), with(|m| m.operator_mib = MOST_MIB), 1, 1),
            ("memory of the provider", run(1.0), with(|m| m.provider_mib = MOST_MIB), 1, 1),
            ("no refreshes", run(1.0), with(|m| m.late.clear()), 1, 1),
            ("no links", run(1.0), with(|m| m.ready.clear()), 1, 1),
        ];
        for (what, quiet, beside, acts, number) in table {
            let found = failures(quiet, beside, acts);
            assert_eq!(found.len(), number, "{what}: {found:?}");
        }
        // Nineteen of twenty count, and one of twenty doesn't.
        let mut beside = run(1.0);
        beside.ready[..2].fill(60_000.0);
        assert!(failures(run(1.0), beside.clone(), 1).is_empty());
        beside.ready[..3].fill(60_000.0);
        assert_eq!(failures(run(1.0), beside, 1).len(), 1);
    }
}
