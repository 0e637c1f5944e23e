//! The operator killed at each of its writes, before it is sent and after it is done, and started again: one client, one
//! Secret that works, nothing left over, and nothing written once all is in order.

use std::time::{Duration, Instant};

use serde_json::json;

use super::bench::{Bench, Kind, Scopes, check, check_nothing, link, narrow, no_secrets, seed};
use crate::support::plane::ControlPlane;
use crate::support::proxy::Death;
use crate::support::stage::SOON;
use crate::support::wait::{always, eventually};

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Deed {
    Create,
    Change,
    Delete,
}

/// How long nothing must be written once all is in order.
const QUIET: Duration = Duration::from_millis(400);

/// One deed on one kind of link, undisturbed or not.
struct Story<'b, 'p> {
    bench: &'b mut Bench<'p>,
    kind: Kind,
    deed: Deed,
}

impl Story<'_, '_> {
    /// The link as it is before the deed.
    async fn prepare(&self, name: &str) {
        let stage = &self.bench.stage;
        let team = stage.team();
        if self.kind == Kind::Refreshing {
            seed(stage, team, name).await;
        }
        if self.deed != Deed::Create {
            stage.apply_object(team, &link(name, self.kind, Scopes::Wide, &self.bench.tokens)).await;
            stage.ready(team, name).await;
        }
    }

    async fn act(&self, name: &str) {
        let stage = &self.bench.stage;
        let team = stage.team();
        match self.deed {
            Deed::Create => {
                stage.apply_object(team, &link(name, self.kind, Scopes::Wide, &self.bench.tokens)).await;
            }
            Deed::Change => narrow(stage, team, name, self.kind).await,
            Deed::Delete => {
                stage.links(team).delete(name, &kube::api::DeleteParams::default()).await.expect("delete");
            }
        }
    }

    /// Waits until the deed is done, and checks what came of it.
    async fn settle(&self, name: &str) {
        let stage = &self.bench.stage;
        let team = stage.team();
        if self.deed == Deed::Delete {
            stage.gone(team, name).await;
            check_nothing(stage).await;
        } else {
            stage.ready(team, name).await;
            let scopes = if self.deed == Deed::Change { Scopes::Narrow } else { Scopes::Wide };
            check(stage, team, name, self.kind, scopes).await;
        }
    }

    async fn clear(&self, name: &str) {
        if self.deed != Deed::Delete {
            self.bench.stage.delete(self.bench.stage.team(), name).await;
        }
        check_nothing(&self.bench.stage).await;
    }

    /// Counts the writes of an undisturbed run, then dies at each of them.
    async fn sweep(&mut self) {
        let label = format!("{:?} {:?}", self.deed, self.kind).to_lowercase();
        let started = Instant::now();
        let first = format!("{}-0", label.replace(' ', "-"));
        self.prepare(&first).await;
        self.bench.journal.open();
        self.act(&first).await;
        self.settle(&first).await;
        let writes = self.bench.journal.writes();
        let list: Vec<_> = writes.iter().map(ToString::to_string).collect();
        self.clear(&first).await;
        assert!(!writes.is_empty());
        let mut most = 0;
        for at in 1..=writes.len() {
            for death in [Death::Before, Death::After] {
                let name =
                    format!("{}-{at}-{}", label.replace(' ', "-"), format!("{death:?}").to_lowercase());
                most = most.max(self.die(&name, at, death).await);
            }
        }
        println!(
            "{label}: {} writes, {} deaths, at most {most} writes in all with one of them, {:.1?}; undisturbed:\n  {}",
            writes.len(),
            writes.len() * 2,
            started.elapsed(),
            list.join("\n  ")
        );
        // What was underway is done again, and what was done isn't: a death costs a few writes at the very most.
        assert!(most <= writes.len() + 2, "{label}: {most} writes where {} do", writes.len());
    }

    /// Gives back the number of writes, before and after the death.
    async fn die(&mut self, name: &str, at: usize, death: Death) -> usize {
        let journal = self.bench.journal.clone();
        self.prepare(name).await;
        journal.arm(self.bench.stage.operator.process().pid(), at, death);
        self.act(name).await;
        let what = format!("{name}: the operator to come to its write {at}");
        eventually(SOON, what, async || {
            let seen = journal.writes();
            if journal.has_struck() { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        self.bench.stage.operator.process().wait(Duration::from_secs(10)).await;
        journal.open();
        self.bench.stage.operator.start().await;
        self.settle(name).await;
        let after = journal.writes().len();
        always(QUIET, format!("{name}: nothing is written any more"), async || {
            let writes = journal.writes();
            if writes.len() == after { Ok(()) } else { Err(format!("{:?}", &writes[after..])) }
        })
        .await;
        self.clear(name).await;
        at + after
    }
}

async fn sweep(kind: Kind) {
    let plane = ControlPlane::shared().await;
    let mut bench = Bench::set(plane, 1, json!({})).await;
    for deed in [Deed::Create, Deed::Change, Deed::Delete] {
        Story { bench: &mut bench, kind, deed }.sweep().await;
    }
    no_secrets(&bench.stage, bench.stage.team()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_incoming_link_survives_a_death_at_each_write() {
    sweep(Kind::Incoming).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_by_client_credentials_survives_a_death_at_each_write() {
    sweep(Kind::Machine).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_link_whose_refresh_token_rotates_survives_a_death_at_each_write() {
    sweep(Kind::Refreshing).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_two_way_link_survives_a_death_at_each_write() {
    sweep(Kind::TwoWay).await;
}
