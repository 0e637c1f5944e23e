//! What a kubelet does for a container that runs: starts it again when it exits, after a pause that grows; keeps its
//! volumes current, projected tokens above all; and tells the API server, so that kubectl shows it.
//!
//! It has a thread of its own: it works on while a test's only thread is busy.

use std::os::unix::process::ExitStatusExt as _;
use std::process::ExitStatus;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, Runtime};
use tokio::task::AbortHandle;

use super::container::{Exit, PodContainer};

/// How often volumes are filled anew.
pub const SYNC: Duration = Duration::from_secs(60);

/// How often it looks whether the container still runs.
const LOOK: Duration = Duration::from_millis(50);

/// How long one call of the API server may take; what it is for is done at the next turn.
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
    /// Who ran this long starts over.
    const GOOD: Duration = Duration::from_secs(600);

    /// The pause after a container that ran so long: none at first, then 10 s, doubled up to 5 minutes.
    fn after(&mut self, ran: Duration) -> Duration {
        let pause = if ran >= Self::GOOD { Duration::ZERO } else { self.next };
        self.next = (pause * 2).clamp(Self::FIRST, Self::LONGEST);
        pause
    }
}

/// Looks after a started container until this is aborted.
pub(super) fn keep(container: Arc<PodContainer>, sync: Duration) -> AbortHandle {
    THREAD.spawn(look_after(container, sync)).abort_handle()
}

async fn look_after(container: Arc<PodContainer>, sync: Duration) {
    let mut backoff = Backoff::default();
    let mut synced = Instant::now();
    loop {
        tokio::time::sleep(LOOK).await;
        if synced.elapsed() >= sync {
            synced = Instant::now();
            match tokio::time::timeout(ANSWER, container.volumes.fill(&container.object)).await {
                Ok(Ok(())) => {}
                Ok(Err(why)) => eprintln!("kubelet: Pod {}: {why}", container.name()),
                Err(_) => {
                    eprintln!("kubelet: Pod {}: no answer while its volumes were filled", container.name())
                }
            }
        }
        if let Some((exit, ran)) = exited(&container) {
            let pause = backoff.after(ran);
            start_again(&container, &exit, ran, pause).await;
        }
    }
}

/// Takes note of an exit that nobody asked for.
fn exited(container: &PodContainer) -> Option<(Exit, Duration)> {
    let mut state = container.state();
    let status = state.process.as_ref().filter(|_| state.wanted && !state.ended)?.exit()?;
    let exit = Exit { code: code(status), said: status.to_string() };
    state.exits.push(exit.clone());
    state.ended = true;
    let ran = state.started.map_or(Duration::ZERO, |(at, _)| at.elapsed());
    Some((exit, ran))
}

fn code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| 128 + signal)).unwrap_or(-1)
}

async fn start_again(container: &PodContainer, exit: &Exit, ran: Duration, pause: Duration) {
    let name = container.name();
    let (ran, seconds) = (ran.as_secs(), pause.as_secs());
    eprintln!("kubelet: Pod {name} ended after {ran} s ({}); it is started again in {seconds} s", exit.said);
    report(container, false, Some("CrashLoopBackOff")).await;
    tokio::time::sleep(pause).await;
    loop {
        match tokio::time::timeout(ANSWER, container.prepare()).await {
            Ok(Ok(program)) => {
                container.state().restarts += 1;
                if !container.run(&program) {
                    return;
                }
                break;
            }
            Ok(Err(why)) => eprintln!("kubelet: Pod {name}: {why}"),
            Err(_) => eprintln!("kubelet: Pod {name}: no answer while it was prepared"),
        }
        tokio::time::sleep(AGAIN).await;
    }
    eprintln!("kubelet: Pod {name} is started again (restart {})", container.state().restarts);
    report(container, false, None).await;
    let probe = container.spec.readiness_probe.as_ref();
    while probe.is_some() && container.probe(probe).await.is_err() {
        if container.state().process.as_ref().is_none_or(|process| !process.is_running()) {
            return;
        }
        tokio::time::sleep(AGAIN).await;
    }
    report(container, true, None).await;
}

async fn report(container: &PodContainer, ready: bool, waiting: Option<&str>) {
    match tokio::time::timeout(ANSWER, container.report(ready, waiting)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => eprintln!("kubelet: the status of Pod {} isn't written: {error}", container.name()),
        Err(_) => eprintln!("kubelet: the status of Pod {} isn't written: no answer", container.name()),
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
