//! What anybody hangs on his Secrets takes none of the operator's memory, and the Secrets that links use are seen
//! all the same.

use std::time::Instant;

use futures::StreamExt as _;
use kube::api::{DeleteParams, ListParams, PostParams};
use serde_json::json;

use super::binary;
use super::refresh_rule::{Link, good};
use crate::support::objects::heavy_secret;
use crate::support::plane::{ControlPlane, Options};
use crate::support::stage::{SOON, Stage};
use crate::support::token_server::{Reply, TokenServer};
use crate::support::wait::eventually;

/// So much more the operator may have held at any time than before, in KiB.
const MORE: u64 = 20 * 1024;

/// Fills a namespace, sees that a Secret which a link uses is still seen at once, and that the operator never held
/// much more than before; then the same of one that starts where all that is there.
async fn is_taken_lightly(plane: &ControlPlane, count: usize, bytes: usize) {
    let mut stage = Stage::set(plane, binary(), 1, json!({})).await;
    let team = stage.team().to_owned();
    let server = TokenServer::start().await;
    Link::make(&stage, &server, "ci", false, Reply::json(200, &good(3600))).await;
    stage.ready(&team, "ci").await;
    let most = |stage: &Stage<'_>| stage.operator.process().memory("VmHWM");
    let before = most(&stage);

    let secrets = stage.secrets(&team);
    let made = futures::stream::iter(0..count).map(|i| {
        let (secrets, secret) = (secrets.clone(), heavy_secret(&format!("heavy-{i:05}"), bytes));
        async move { secrets.create(&PostParams::default(), &secret).await.map(drop) }
    });
    made.buffer_unordered(4).for_each(async |made| made.expect("a Secret")).await;
    let size = serde_json::to_string(&secrets.get_metadata("heavy-00000").await.expect("metadata"));
    let size = size.expect("JSON").len();
    assert!(size > bytes * 9 / 10, "{size} bytes of metadata");

    for again in [false, true] {
        if again {
            stage.operator.stop().await;
            stage.operator.start().await;
            stage.operator.until_ready(SOON).await;
        }
        // A change of a Secret that the link uses: it asks for a token with the new one.
        let asked = server.asked("/ci/token").len();
        let changed = Instant::now();
        let secret = format!("another-{asked}");
        stage.patch("Secret", &team, "ci-client", json!({"stringData": {"client-secret": secret}})).await;
        eventually(SOON, "the change to be acted on", async || server.asked("/ci/token").len() > asked).await;
        let seen = changed.elapsed();
        let held = most(&stage);
        eprintln!(
            "{count} Secrets of {size} bytes, {}: at most {} KiB, {before} KiB before; a change was acted on in {seen:?}",
            if again { "there at the start" } else { "made meanwhile" },
            held
        );
        assert!(held <= before + MORE, "{held} KiB at most, {before} KiB before");
    }
    let all = ListParams::default().fields("metadata.name!=ci-client");
    secrets.delete_collection(&DeleteParams::default(), &all).await.expect("deletion");
}

#[tokio::test(flavor = "multi_thread")]
async fn large_secrets_of_others_take_no_memory() {
    is_taken_lightly(ControlPlane::shared().await, 60, 1_000_000).await;
}

/// In `make sweep`: on a control plane of its own, which takes gigabytes.
#[tokio::test(flavor = "multi_thread")]
#[ignore = "minutes, and gigabytes for the control plane; run by make sweep"]
async fn many_large_secrets_of_others_take_no_memory() {
    let plane = ControlPlane::start(Options::default()).await;
    for (count, bytes) in [(300, 1_000_000), (5_000, 100_000)] {
        is_taken_lightly(&plane, count, bytes).await;
    }
}
