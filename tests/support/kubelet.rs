//! What a kubelet does for a container that runs: starts it again when it exits, after a pause that grows; keeps its
//! volumes current, projected tokens above all; and tells the API server, so that kubectl shows it.
//!
//! It has a thread of its own: it works on while a test's only thread is busy.

use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinHandle;

use super::container::{Exit, PodContainer};

/// How often volumes are filled anew.
pub const SYNC: Duration = Duration::from_secs(60);

/// How often it looks whether the container still runs.
const LOOK: Duration = Duration::from_millis(50);

/// How long one call of the API server may take. A slower one is given up and made again later.
const ANSWER: Duration = Duration::from_secs(10);

/// How often what failed is tried again.
const AGAIN: Duration = Duration::from_secs(1);

static THREAD: LazyLock<Runtime> = LazyLock::new(|| {
    Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("kubelet")
        .enable_all()
        .build()
        .expect("a runtime")
});

/// The pauses before a container is started again.
#[derive(Debug, Default)]
struct Backoff {
    next: Duration,
}

impl Backoff {
    const FIRST: Duration = Duration::from_secs(10);
    const LONGEST: Duration = Duration::from_secs(300);
    /// A container that ran this long is started again without a pause.
    const GOOD: Duration = Duration::from_secs(600);

    /// The pause after a container that ran so long: none at first, then 10 s, doubled up to 5 minutes.
    fn after(&mut self, ran: Duration) -> Duration {
        let pause = if ran >= Self::GOOD { Duration::ZERO } else { self.next };
        self.next = (pause * 2).clamp(Self::FIRST, Self::LONGEST);
        pause
    }
}

/// Looks after the container in this generation, until it is told to stop or the container is another generation's.
pub(super) fn keep(container: Arc<PodContainer>, generation: u64, sync: Duration) -> JoinHandle<()> {
    let keeper = Keeper {
        container,
        generation,
        backoff: Backoff::default(),
        next_sync: Instant::now() + sync,
        start_at: None,
        probe_at: None,
    };
    THREAD.spawn(keeper.run(sync))
}

struct Keeper {
    container: Arc<PodContainer>,
    generation: u64,
    backoff: Backoff,
    next_sync: Instant,
    /// When the container that exited is started again.
    start_at: Option<Instant>,
    /// When the container that was started again is asked whether it is ready.
    probe_at: Option<Instant>,
}

impl Keeper {
    async fn run(mut self, sync: Duration) {
        while self.container.is_of(self.generation) {
            tokio::time::sleep(LOOK).await;
            let now = Instant::now();
            if now >= self.next_sync {
                self.next_sync = now + sync;
                self.fill().await;
            }
            if let Some((exit, ran)) = self.container.take_exit(self.generation) {
                self.exited(&exit, ran).await;
            }
            if self.start_at.is_some_and(|at| now >= at) {
                self.start_again().await;
            }
            if self.probe_at.is_some_and(|at| now >= at) {
                self.probe().await;
            }
        }
    }

    fn say(&self, what: &str) {
        eprintln!("kubelet: Pod {}: {what}", self.container.name());
    }

    async fn fill(&self) {
        match tokio::time::timeout(ANSWER, self.container.volumes.fill(&self.container.object)).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => self.say(&why),
            Err(_) => self.say("no answer while its volumes were filled"),
        }
    }

    async fn exited(&mut self, exit: &Exit, ran: Duration) {
        self.probe_at = None;
        if self.container.state().stays_dead {
            return;
        }
        let pause = self.backoff.after(ran);
        let (ran, seconds) = (ran.as_secs(), pause.as_secs());
        self.say(&format!("ended after {ran} s ({}); it is started again in {seconds} s", exit.said));
        self.start_at = Some(Instant::now() + pause);
        if !pause.is_zero() {
            self.report(false, Some("CrashLoopBackOff")).await;
        }
    }

    async fn start_again(&mut self) {
        self.start_at = Some(Instant::now() + AGAIN);
        match tokio::time::timeout(ANSWER, self.container.prepare()).await {
            Ok(Ok(program)) => {
                self.start_at = None;
                if self.container.run(&program, self.generation, true) {
                    self.say(&format!("started again (restart {})", self.container.state().restarts));
                    self.report(false, None).await;
                    self.probe_at = Some(Instant::now());
                }
            }
            Ok(Err(why)) => self.say(&why),
            Err(_) => self.say("no answer while it was prepared"),
        }
    }

    async fn probe(&mut self) {
        let probe = self.container.spec.readiness_probe.as_ref();
        if probe.is_some() && self.container.probe(probe).await.is_err() {
            self.probe_at = Some(Instant::now() + AGAIN);
        } else {
            self.probe_at = None;
            self.report(true, None).await;
        }
    }

    async fn report(&self, ready: bool, waiting: Option<&str>) {
        if !self.container.is_of(self.generation) {
            return;
        }
        match tokio::time::timeout(ANSWER, self.container.report(ready, waiting)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => self.say(&format!("its status isn't written: {error}")),
            Err(_) => self.say("its status isn't written: no answer"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_as_a_kubelets_do() {
        let mut backoff = Backoff::default();
        let short: Vec<_> = (0..8).map(|_| backoff.after(Duration::from_secs(3)).as_secs()).collect();
        assert_eq!(short, [0, 10, 20, 40, 80, 160, 300, 300]);
        assert_eq!(backoff.after(Backoff::GOOD).as_secs(), 0);
        assert_eq!(backoff.after(Duration::ZERO).as_secs(), 10);
    }
}
