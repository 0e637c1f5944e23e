//! `make sweep`: the crash sweep, whole, and the same with an API server that makes trouble. Ends with one line,
//! `N cases, M failed`, and fails when M isn't 0. With an argument: only the rounds whose name has it, such as `hydra`.
//!
//! `honesty`: links under random deeds, looked at once a second, with three seeds for ten minutes each; with a seed after it, that
//! one alone. Ends with `N samples, M lies`.
//!
//! `neighbours` as the first argument: a namespace at full tilt in each of many ways, and what another one notices of it;
//! with further arguments the ways whose name has them. Prints a table, and ends with `N ways, M failed`.

#![allow(clippy::print_stdout, reason = "the last line is what it is run for")]

#[path = "../support/mod.rs"]
mod support;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use support::honesty::honesty;
use support::neighbours::{WHOLE, beside_or_failed, report, ways::WAYS};
use support::plane::{ControlPlane, Options};
use support::sweep::{Report, chaos, rounds, sweep};

/// The program that was built beside this.
fn binary() -> PathBuf {
    let me = std::env::current_exe().expect("a program");
    me.parent().and_then(Path::parent).expect("a target folder").join("applink")
}

/// All ways to be noisy whose name has this.
async fn neighbours(only: &str) -> ExitCode {
    let plane = ControlPlane::start(Options::default()).await;
    println!("{}", report::head());
    let (mut ways, mut failed) = (0, Vec::new());
    for way in WAYS.iter().filter(|way| way.name.to_lowercase().contains(only)) {
        let row = beside_or_failed(&plane, &binary(), way, WHOLE).await;
        println!("{}", row.line());
        ways += 1;
        failed.extend((!row.failures.is_empty()).then(|| row.failed()));
    }
    for row in &failed {
        print!("{row}");
    }
    println!("{ways} ways, {} failed", failed.len());
    if failed.is_empty() && ways > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Whether Ready is honest, with each of these seeds; all at once.
async fn honest(seeds: &[u64]) -> ExitCode {
    let plane = ControlPlane::start(Options::default()).await;
    let (at, program) = (&plane, binary());
    let runs = seeds.iter().map(|seed| honesty(at, &program, *seed, Duration::from_secs(600)));
    let (mut samples, mut lies) = (0, 0);
    for (seed, run) in seeds.iter().zip(futures::future::join_all(runs).await) {
        println!(
            "seed {seed}: {} samples, {} of them Ready, {} deeds, {} lies",
            run.samples,
            run.ready,
            run.deeds,
            run.lies.len()
        );
        run.lies.iter().for_each(|lie| println!("LIE {lie}"));
        samples += run.samples;
        lies += run.lies.len();
    }
    println!("{samples} samples, {lies} lies");
    if lies == 0 && samples > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

#[tokio::main]
async fn main() -> ExitCode {
    let only = std::env::args().nth(1).unwrap_or_default().to_lowercase();
    if only == "honesty" {
        let seed = std::env::args().nth(2).map(|seed| seed.parse().expect("a seed is a number"));
        return honest(&seed.map_or(vec![1, 2, 3], |seed| vec![seed])).await;
    }
    if only == "neighbours" {
        // The names of ways have more than one word.
        let words: Vec<_> = std::env::args().skip(2).collect();
        return neighbours(&words.join(" ").to_lowercase()).await;
    }
    let plane = ControlPlane::start(Options::default()).await;
    let binary = binary();
    // Each has an operator and providers of its own, and mostly waits: all go on at once.
    let chosen: Vec<_> =
        rounds().into_iter().filter(|r| format!("{r:?}").to_lowercase().contains(&only)).collect();
    let (at, program) = (&plane, binary.as_path());
    let swept = chosen.iter().map(|round| async move {
        let (mut deaths, mut troubles) = (Report::default(), Report::default());
        futures::join!(
            sweep(at, program, round, 1, 0, &mut deaths),
            chaos(at, program, round, 1, 0, &mut troubles)
        );
        println!("{round:?}: {} deaths, {} troubles", deaths.cases, troubles.cases);
        [deaths, troubles]
    });
    let mut report = Report::default();
    for part in futures::future::join_all(swept).await.into_iter().flatten() {
        report.cases += part.cases;
        report.failed.extend(part.failed);
    }
    for failed in &report.failed {
        println!("FAILED {failed}");
    }
    println!("{} cases, {} failed", report.cases, report.failed.len());
    if report.failed.is_empty() && report.cases > 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
