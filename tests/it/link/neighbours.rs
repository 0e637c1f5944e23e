//! A share of the noisy neighbours (`make sweep` runs all of them, beside quiet runs): see `support::neighbours`.

use super::binary;
use crate::support::neighbours::{SHARE, beside, ways};
use crate::support::plane::ControlPlane;

/// Each of the victim's links becomes Ready, no token of its ends, no probe fails, and memory keeps to the chart's limit.
async fn bothers_nobody(way: &str) {
    let row = beside(ControlPlane::shared().await, binary(), ways::named(way), SHARE).await;
    assert!(row.failures.is_empty(), "{}\n{}", row.line(), row.failed());
}

#[tokio::test(flavor = "multi_thread")]
async fn links_that_are_told_to_wait_bother_nobody() {
    bothers_nobody("told to wait").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn links_whose_server_is_silent_bother_nobody() {
    bothers_nobody("a silent token server").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_provider_that_changes_all_the_time_bothers_nobody() {
    bothers_nobody("LinkProvider edits").await;
}
