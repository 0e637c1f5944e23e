//! A share of the crash sweep (`make sweep` runs it whole): see `support::sweep`.

use super::binary;
use crate::support::plane::ControlPlane;
use crate::support::sweep::{Report, rounds, sweep};

/// Every how manieth death is tried here.
const SHARE: usize = 5;

async fn share(round: usize) {
    let plane = ControlPlane::shared().await;
    let mut report = Report::default();
    // Not the same ones in every round, and the same ones in every run.
    sweep(plane, binary(), &rounds()[round], SHARE, round, &mut report).await;
    assert!(report.cases > 0);
    assert!(
        report.failed.is_empty(),
        "{} of {} failed: {:#?}",
        report.failed.len(),
        report.cases,
        report.failed
    );
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
