//! The operator killed at each of its writes and proofs, before it is sent and after it is done with the answer withheld,
//! and started again: one client a link, Secrets that authenticate, no client without a link, and nothing written once
//! all is in order. For every kind of link, every deed, and the bundled provider and a real Hydra.

use std::path::Path;
use std::time::Duration;

use futures::FutureExt as _;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use super::bench::{
    Bench, Kind, Scopes, check, check_nothing, clients, link, narrow, no_secrets, owned, seed,
};
use super::plane::ControlPlane;
use super::proxy::{API_SERVER, Death, Point, Trouble, Write};
use super::stage::{SOON, http};
use super::wait::{always, eventually};

/// What happens to a link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Deed {
    Create,
    Change,
    /// A new secret, with an overlap where the provider can.
    Rotate,
    /// To the other provider.
    Move,
    Delete,
}

/// Where a link's client is when a deed begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Home {
    Bundled,
    Hydra,
}

impl Home {
    const fn other(self) -> Self {
        match self {
            Self::Bundled => Self::Hydra,
            Self::Hydra => Self::Bundled,
        }
    }
}

/// What is swept: one kind of link at one provider, and the deeds.
#[derive(Clone, Debug)]
pub struct Round {
    pub kind: Kind,
    pub home: Home,
    pub deeds: Vec<Deed>,
}

/// All there is to sweep.
pub fn rounds() -> Vec<Round> {
    use Deed::{Change, Create, Delete, Move, Rotate};
    let round = |kind, home, deeds: &[Deed]| Round { kind, home, deeds: deeds.to_vec() };
    vec![
        round(Kind::Incoming, Home::Bundled, &[Create, Change, Rotate, Move, Delete]),
        round(Kind::Incoming, Home::Hydra, &[Create, Change, Rotate, Move, Delete]),
        round(Kind::Machine, Home::Bundled, &[Create, Change, Delete]),
        round(Kind::Refreshing, Home::Bundled, &[Create, Change, Delete]),
        round(Kind::TwoWay, Home::Bundled, &[Create, Change, Delete]),
    ]
}

/// What came of it.
#[derive(Debug, Default)]
pub struct Report {
    pub cases: usize,
    /// What failed, and how.
    pub failed: Vec<String>,
}

/// How many of these change something.
fn changes(writes: &[Write]) -> usize {
    writes.iter().filter(|w| !w.is_proof()).count()
}

/// How long nothing must be written once all is in order.
const QUIET: Duration = Duration::from_millis(400);

/// Sweeps a round; of the deaths, each `share`th, beginning with `first`.
pub async fn sweep(
    plane: &ControlPlane,
    binary: &Path,
    round: &Round,
    share: usize,
    first: usize,
    report: &mut Report,
) {
    let mut bench = set(plane, binary, round).await;
    for &deed in &round.deeds {
        let label = format!("{deed:?}-{:?}-{:?}", round.kind, round.home).to_lowercase();
        let writes = {
            let mut story = Story { bench: &mut bench, kind: round.kind, home: round.home, deed };
            story.undisturbed(&format!("{label}-0")).await
        };
        let list: Vec<_> = writes.iter().map(ToString::to_string).collect();
        eprintln!("{label}:\n  {}", list.join("\n  "));
        let usual = changes(&writes);
        let mut points: Vec<_> = (1..=usual).map(Point::Write).collect();
        points.extend(writes.iter().any(Write::is_proof).then_some(Point::Proof));
        let points = points.into_iter().flat_map(|at| [(at, Death::Before), (at, Death::After)]);
        for (i, (at, death)) in points.enumerate() {
            if !(i + first).is_multiple_of(share) {
                continue;
            }
            report.cases += 1;
            let at_text = match at {
                Point::Write(n) => n.to_string(),
                Point::Proof => "proof".to_owned(),
            };
            let name = format!("{label}-{at_text}-{}", format!("{death:?}").to_lowercase());
            let mut story = Story { bench: &mut bench, kind: round.kind, home: round.home, deed };
            let told = std::panic::AssertUnwindSafe(story.die(&name, at, death)).catch_unwind().await;
            let most = match told {
                // What was underway is done again, and what was done isn't: a death costs a write or two a direction.
                Ok(all) => {
                    let more = if round.kind == Kind::TwoWay { 4 } else { 2 };
                    (all > usual + more).then(|| format!("{all} writes where {usual} do"))
                }
                Err(panic) => Some(text(panic.as_ref())),
            };
            if let Some(why) = most {
                eprintln!("FAILED {name}: {why}");
                report.failed.push(format!("{name}: {why}"));
                // What it left behind isn't the next one's fault.
                bench = set(plane, binary, round).await;
            }
        }
    }
    no_secrets(&bench.stage, bench.stage.team()).await;
}

/// Troubles at each write to the API server.
const EVERYWHERE: [Trouble; 4] = [
    Trouble::Answers(429),
    Trouble::Answers(500),
    Trouble::Answers(403),
    Trouble::Cut(Duration::from_secs(5)),
];
/// And at one write of each deed: they take their time.
const ONCE: [Trouble; 4] = [
    Trouble::Cut(Duration::from_secs(20)),
    Trouble::Cut(Duration::from_secs(60)),
    Trouble::Cut(Duration::from_secs(130)),
    Trouble::Stops(Duration::from_secs(40)),
];

/// Has the API server make trouble at each write of each deed of a round; of the troubles, each `share`th, beginning with
/// `first`. With a share, the short ones alone.
pub async fn chaos(
    plane: &ControlPlane,
    binary: &Path,
    round: &Round,
    share: usize,
    first: usize,
    report: &mut Report,
) {
    let mut bench = set(plane, binary, round).await;
    let mut number = first;
    for &deed in &round.deeds {
        let label = format!("{deed:?}-{:?}-{:?}", round.kind, round.home).to_lowercase();
        let writes = {
            let mut story = Story { bench: &mut bench, kind: round.kind, home: round.home, deed };
            story.undisturbed(&format!("{label}-t0")).await
        };
        let usual = writes.iter().filter(|w| w.by == API_SERVER).count();
        let everywhere = (1..=usual).flat_map(|at| EVERYWHERE.map(|trouble| (at, trouble)));
        let once = ONCE.into_iter().filter(|_| share == 1).map(|trouble| (usual.div_ceil(2), trouble));
        for (at, trouble) in everywhere.chain(once) {
            number += 1;
            if !number.is_multiple_of(share) {
                continue;
            }
            report.cases += 1;
            let name = format!("{label}-t{number}");
            let mut story = Story { bench: &mut bench, kind: round.kind, home: round.home, deed };
            let told = std::panic::AssertUnwindSafe(story.endure(&name, at, trouble)).catch_unwind().await;
            if let Err(panic) = told {
                let why = format!("{name}: {trouble:?} at {at} of {usual}: {}", text(panic.as_ref()));
                eprintln!("FAILED {why}");
                report.failed.push(why);
                bench = set(plane, binary, round).await;
            }
        }
    }
    no_secrets(&bench.stage, bench.stage.team()).await;
}

async fn set<'p>(plane: &'p ControlPlane, binary: &Path, round: &Round) -> Bench<'p> {
    let bench = Bench::set(plane, binary, 1, json!({})).await;
    let needs = round.home == Home::Hydra || round.deeds.contains(&Deed::Move);
    if needs { bench.with_hydra().await } else { bench }
}

fn text(panic: &(dyn std::any::Any + Send)) -> String {
    let said = panic.downcast_ref::<String>().map(String::as_str);
    said.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic").chars().take(2000).collect()
}

/// One deed on one kind of link.
struct Story<'b, 'p> {
    bench: &'b mut Bench<'p>,
    kind: Kind,
    home: Home,
    deed: Deed,
}

impl Story<'_, '_> {
    fn provider(&self, home: Home) -> Value {
        let name = match home {
            Home::Bundled => self.bench.stage.provider_name.clone(),
            Home::Hydra => self.bench.hydra.as_ref().map(|(_, name)| name.clone()).expect("a Hydra"),
        };
        json!({"kind": "ClusterLinkProvider", "name": name})
    }

    async fn apply(&self, name: &str) {
        let stage = &self.bench.stage;
        let mut object = link(name, self.kind, Scopes::Wide, &self.bench.tokens);
        if self.kind.is_incoming() {
            object["spec"]["providerRef"] = self.provider(self.home);
        }
        stage.apply_object(stage.team(), &object).await;
    }

    /// The link as it is before the deed.
    async fn prepare(&self, name: &str) {
        let stage = &self.bench.stage;
        if self.kind == Kind::Refreshing {
            seed(stage, stage.team(), name).await;
        }
        if self.deed != Deed::Create {
            self.apply(name).await;
            stage.ready(stage.team(), name).await;
        }
    }

    async fn patch(&self, name: &str, patch: Value) {
        let links = self.bench.stage.links(self.bench.stage.team());
        links.patch(name, &PatchParams::default(), &Patch::Merge(patch)).await.expect("the link changes");
    }

    async fn act(&self, name: &str) {
        let stage = &self.bench.stage;
        let team = stage.team();
        match self.deed {
            Deed::Create => self.apply(name).await,
            Deed::Change => narrow(stage, team, name, self.kind).await,
            Deed::Rotate => {
                let asked = json!({"metadata": {"annotations": {"applink-operator.io/rotate": name}}});
                self.patch(name, asked).await;
            }
            Deed::Move => {
                self.patch(name, json!({"spec": {"providerRef": self.provider(self.home.other())}})).await;
            }
            Deed::Delete => {
                stage.links(team).delete(name, &kube::api::DeleteParams::default()).await.expect("delete");
            }
        }
    }

    /// Waits until the deed is done, and checks what came of it.
    async fn settle(&self, name: &str) {
        let stage = &self.bench.stage;
        let team = stage.team();
        match self.deed {
            Deed::Delete => {
                stage.gone(team, name).await;
                self.nothing().await;
                return;
            }
            Deed::Rotate => {
                let links = stage.links(team);
                eventually(SOON, format!("{name}: the request carried out"), async || {
                    let link = links.get(name).await.map_err(|e| e.to_string())?;
                    let done = link.status.and_then(|s| s.incoming).and_then(|i| i.last_request);
                    if done.as_deref() == Some(name) { Ok(()) } else { Err(format!("{done:?}")) }
                })
                .await;
            }
            _ => {}
        }
        stage.ready(team, name).await;
        let scopes = if self.deed == Deed::Change { Scopes::Narrow } else { Scopes::Wide };
        let home = if self.deed == Deed::Move { self.home.other() } else { self.home };
        match home {
            Home::Bundled => {
                check(stage, team, name, self.kind, scopes).await;
                assert!(self.at_hydra().await.is_empty(), "no client stays at Hydra");
            }
            Home::Hydra => self.check_hydra(name, scopes).await,
        }
    }

    async fn at_hydra(&self) -> Vec<String> {
        let Some((hydra, _)) = &self.bench.hydra else { return vec![] };
        let (status, reply) = hydra.admin(reqwest::Method::GET, "/admin/clients?page_size=500", None).await;
        assert_eq!(status, 200, "{reply}");
        let ids = reply.as_array().expect("clients").iter();
        ids.map(|c| c["client_id"].as_str().expect("an ID").to_owned()).collect()
    }

    async fn check_hydra(&self, name: &str, scopes: Scopes) {
        let stage = &self.bench.stage;
        assert_eq!(owned(stage, stage.team(), Some(name)).await.len(), 1, "one Secret");
        assert!(clients(stage).await.is_empty(), "no client stays at the bundled provider");
        let data = stage.data(stage.team(), &format!("{name}-oauth")).await;
        assert_eq!(self.at_hydra().await, [data["client-id"].clone()], "one client");
        let answer = self.token(name, scopes).await;
        assert_eq!(answer.0, 200, "{}", answer.1);
    }

    /// A token by what the Secret says, at the token endpoint that it says.
    async fn token(&self, name: &str, scopes: Scopes) -> (u16, Value) {
        let data = self.bench.stage.data(self.bench.stage.team(), &format!("{name}-oauth")).await;
        let scope = scopes.list().join(" ");
        let answer = http()
            .post(&data["token-endpoint"])
            .basic_auth(&data["client-id"], Some(&data["client-secret"]))
            .form(&[("grant_type", "client_credentials"), ("scope", scope.as_str())])
            .send()
            .await
            .expect("the token endpoint answers");
        (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
    }

    async fn nothing(&self) {
        check_nothing(&self.bench.stage).await;
        assert!(self.at_hydra().await.is_empty(), "no client stays at Hydra");
    }

    async fn clear(&self, name: &str) {
        if self.deed != Deed::Delete {
            self.bench.stage.delete(self.bench.stage.team(), name).await;
        }
        self.nothing().await;
    }

    /// The writes of an undisturbed run.
    async fn undisturbed(&mut self, name: &str) -> Vec<Write> {
        self.prepare(name).await;
        self.bench.journal.open();
        self.act(name).await;
        self.settle(name).await;
        let writes = self.bench.journal.writes();
        assert!(!writes.is_empty());
        self.clear(name).await;
        writes
    }

    /// Does the deed while the API server makes trouble at a write, and checks what came of it.
    async fn endure(&mut self, name: &str, at: usize, trouble: Trouble) {
        let journal = self.bench.journal.clone();
        self.prepare(name).await;
        // One that can't renew its lease exits, and is started again.
        self.bench.stage.operator.may_exit();
        let restarts = self.bench.stage.operator.restarts();
        journal.trouble(self.bench.stage.operator.process().pid(), at, trouble);
        self.act(name).await;
        eventually(SOON, format!("{name}: the trouble over"), async || journal.is_over()).await;
        self.settle(name).await;
        let after = changes(&journal.writes());
        always(QUIET, format!("{name}: nothing is written any more"), async || {
            let writes = journal.writes();
            if changes(&writes) == after { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
        journal.open();
        self.clear(name).await;
        // The kubelet's back-off grows with each exit, up to five minutes: the next case begins without one.
        if self.bench.stage.operator.restarts() > restarts {
            self.bench.stage.operator.stop().await;
            self.bench.stage.operator.start().await;
            self.bench.stage.operator.until_ready(SOON).await;
        }
    }

    /// Gives back the number of writes, before and after the death; proofs change nothing and don't count.
    async fn die(&mut self, name: &str, at: Point, death: Death) -> usize {
        let journal = self.bench.journal.clone();
        self.prepare(name).await;
        self.bench.stage.operator.stays_dead();
        journal.arm(self.bench.stage.operator.process().pid(), at, death);
        self.act(name).await;
        let what = format!("{name}: the operator to come to {at:?}");
        eventually(SOON, what, async || {
            let seen = journal.writes();
            if journal.has_struck() { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
        self.bench.stage.operator.process().wait(SOON).await;
        let before = journal.writes();
        // Where two secrets can be held, and where nothing was taken away, the application goes on.
        journal.open();
        let works = match (self.deed, self.home) {
            (Deed::Rotate, Home::Bundled) | (Deed::Move, _) => true,
            (Deed::Change, _) => self.kind == Kind::Incoming,
            _ => false,
        };
        if works {
            let answer = self.token(name, Scopes::Narrow).await;
            assert_eq!(
                answer.0, 200,
                "{name}: the Secret authenticates while the operator is dead: {}",
                answer.1
            );
        }
        self.bench.stage.operator.start().await;
        self.settle(name).await;
        let after = changes(&journal.writes());
        always(QUIET, format!("{name}: nothing is written any more"), async || {
            let writes = journal.writes();
            if changes(&writes) == after { Ok(()) } else { Err(format!("{writes:?}")) }
        })
        .await;
        self.clear(name).await;
        changes(&before) + after
    }
}
