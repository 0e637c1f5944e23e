//! Measures when refreshes come: 100,000 outgoing links with tokens of an hour, in the real queue with the real
//! budgets, in a simulated world with a clock of its own. Prints a table, writes `target/bench/refresh.json`.
//! `docs/performance.md` says what each column is. `BENCH_TIMERS` is another number of links.

#![allow(clippy::print_stdout, reason = "it is here to print figures")]

mod report;
mod world;

use report::Row;
use world::{Scenario, World};

fn main() {
    let timers = std::env::var("BENCH_TIMERS").ok().filter(|t| !t.is_empty());
    let timers = timers.map_or(100_000, |t| t.parse().expect("BENCH_TIMERS is a number"));
    let mut rows = Vec::new();
    for scenario in Scenario::ALL {
        let began = report::cpu_s();
        let mut world = World::new(timers, scenario);
        world.run();
        rows.push(Row::of(&world, report::cpu_s() - began));
        report::write(&rows);
    }
    println!("{}", report::print(&rows));
    for row in &rows {
        assert_eq!(row.refreshed_early, 0, "{}: nothing is asked for before its time", row.scenario);
        assert_eq!(row.over_budget, 0, "{}: no host is sent more than its budget", row.scenario);
    }
}
