//! A share of the crash sweep (`make sweep` runs it whole): see `support::sweep`.

use super::binary;
use crate::support::plane::ControlPlane;
use crate::support::sweep::{Report, chaos, rounds, sweep};

/// Every how manieth death is tried here.
const SHARE: usize = 5;

fn all_well(report: &Report) {
    assert!(report.cases > 0);
    assert!(
        report.failed.is_empty(),
        "{} of {} failed: {:#?}",
        report.failed.len(),
        report.cases,
        report.failed
    );
}

async fn share(round: usize) {
    let plane = ControlPlane::shared().await;
    let mut report = Report::default();
    // Not the same ones in every round, and the same ones in every run.
    sweep(plane, binary(), &rounds()[round], SHARE, round, &mut report).await;
    all_well(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incoming_link_at_the_bundled_provider_survives_deaths() {
    share(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incoming_link_at_hydra_survives_deaths() {
    share(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_client_credentials_survives_deaths() {
    share(2).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_refresh_token_rotates_survives_deaths() {
    share(3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_two_way_link_survives_deaths() {
    share(4).await;
}

/// A share of the troubles that an API server makes at the writes of each deed: it is cut off, or answers 429, 500 or 403.
async fn trouble(round: usize) {
    let mut report = Report::default();
    chaos(ControlPlane::shared().await, binary(), &rounds()[round], 2 * SHARE, round, &mut report).await;
    all_well(&report);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incoming_link_endures_an_api_server_s_troubles() {
    trouble(0).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_at_hydra_endures_an_api_server_s_troubles() {
    trouble(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_refresh_token_rotates_endures_an_api_server_s_troubles() {
    trouble(3).await;
}
