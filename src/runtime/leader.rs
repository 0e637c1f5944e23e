//! One operator at work at a time, by a Lease.
//!
//! Every write of the lease is conditional on the version that was read, so of several who see it
//! end only one gets it. Whether another's lease has ended is told by how long it stood still on
//! our own clock, not by its times, which come from a clock of another machine. The holder gives up
//! before anybody else may think that its lease has ended. A lease is no fence all the same:
//! effects are idempotent and conditional.
//!
//! The lease is kept by a thread of its own, with its own connections: however much there is to do, or
//! however long a step of it takes, that delays no renewal.

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::api::{ObjectMeta, PostParams};
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client, ResourceExt as _};
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout};

/// How long a lease lasts after its holder died, in seconds.
const DURATION: i32 = 15;
/// How often it is renewed.
const RENEW: Duration = Duration::from_secs(5);
/// A holder that couldn't renew for so long stops working: well before its lease ends.
const GIVE_UP: Duration = Duration::from_secs(10);
/// The longest wait for one answer.
const ANSWER: Duration = Duration::from_secs(3);
/// The wait after a failure.
const AGAIN: Duration = Duration::from_secs(1);
/// After so many failures in a row, one who waits for the lease gives up.
const FAILURES: u32 = 60;

/// Why the lease can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the lease {name} can't be kept: {why}")]
pub struct LeaderError {
    name: String,
    why: String,
}

/// What a try to take or keep the lease came to.
enum Try {
    /// It is ours, in this version; and who released it before, if that one did.
    Ours(Box<Lease>, Option<String>),
    /// Another holds it, in this version, for so many seconds after it was last renewed.
    Theirs(String, Duration),
}

/// On a lease that was released: who released it, and so has nothing under way.
const RELEASED_BY: &str = "applink-operator.io/released-by";

struct Candidate {
    api: Api<Lease>,
    name: String,
    identity: String,
}

/// A lease that was won. It is kept until it is released, or this is dropped.
pub struct Leadership {
    released_by: Option<String>,
    lost: oneshot::Receiver<()>,
    release: oneshot::Sender<()>,
    ended: oneshot::Receiver<()>,
}

/// A lease that is held.
struct Holding {
    candidate: Candidate,
    lease: Box<Lease>,
    /// When the last renewal that succeeded began.
    renewed: Instant,
}

/// Waits until the lease is ours. One that stands in our own name is of an earlier life of this
/// Pod, and is taken up at once. `connect` makes the thread's own way to the API server; `on_lost` is called by
/// the thread, before anybody else hears that the lease is lost.
///
/// # Errors
/// [`LeaderError`] when the API server refuses it for good.
pub async fn lead<C>(
    connect: impl FnOnce() -> C + Send + 'static,
    namespace: &str,
    name: &str,
    identity: &str,
    on_lost: impl FnOnce() + Send + 'static,
) -> Result<Leadership, LeaderError>
where
    C: Future<Output = Result<Client, String>>,
{
    let error = |why: String| LeaderError { name: name.to_owned(), why };
    let (won, on_won) = oneshot::channel();
    let (lost, on_loss) = oneshot::channel();
    let (release, on_release) = oneshot::channel::<()>();
    let (ended, on_end) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|e| error(format!("no thread for it can be set up: {e}")))?;
    let (namespace, its_name, identity) = (namespace.to_owned(), name.to_owned(), identity.to_owned());
    // Made in the thread, so that nothing in it must be able to move.
    let keep = move || async move {
        let mut won = won;
        let campaign = async {
            let client = connect().await.map_err(|why| LeaderError { name: its_name.clone(), why })?;
            campaign(client, &namespace, &its_name, &identity).await
        };
        let result = tokio::select! {
            result = campaign => result,
            () = won.closed() => return,
        };
        let (mut holding, result) = match result {
            Ok((holding, released_by)) => (holding, Ok(released_by)),
            Err(e) => return drop(won.send(Err(e))),
        };
        if won.send(result).is_err() {
            // Nobody waits any more.
            return holding.release().await;
        }
        tokio::select! {
            () = holding.lost() => {
                on_lost();
                let _ = lost.send(());
            }
            asked = on_release => if asked.is_ok() {
                holding.release().await;
            },
        }
        let _ = ended.send(());
    };
    std::thread::Builder::new()
        .name("lease".into())
        .spawn(move || runtime.block_on(keep()))
        .map_err(|e| error(format!("no thread for it can be begun: {e}")))?;
    let released_by = on_won.await.map_err(|_| error("its thread ended".into()))??;
    Ok(Leadership { released_by, lost: on_loss, release, ended: on_end })
}

impl Leadership {
    /// The instance that had the lease before and released it, if one did. Any other may not know yet
    /// that it lost the lease, or be busy storing what it was told.
    pub fn released_by(&self) -> Option<&str> {
        self.released_by.as_deref()
    }

    /// Resolves when the lease is lost.
    pub async fn lost(&mut self) {
        // An error means that its thread is gone, and so nobody renews it.
        let _ = (&mut self.lost).await;
    }

    /// Gives the lease back, so that the next instance needn't wait it out.
    pub async fn release(self) {
        if self.release.send(()).is_ok() {
            let _ = self.ended.await;
        }
    }
}

/// Waits until the lease is ours; says who released it, too.
async fn campaign(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
) -> Result<(Holding, Option<String>), LeaderError> {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    // A lease that was released, or removed, is noticed at once.
    let mut changes = std::pin::pin!(watcher(api.clone(), config).default_backoff().touched_objects());
    let candidate = Candidate { api, name: name.to_owned(), identity: identity.to_owned() };
    let mut seen: Option<(String, Instant)> = None;
    let mut failures = 0u32;
    loop {
        let began = Instant::now();
        let ended = |version: &str, lasts: Duration| {
            seen.as_ref().is_some_and(|(v, since)| v == version && since.elapsed() >= lasts)
        };
        let wait = match candidate.take(ended).await {
            Ok(Try::Ours(lease, released_by)) => {
                return Ok((Holding { candidate, lease, renewed: began }, released_by));
            }
            Ok(Try::Theirs(version, lasts)) => {
                failures = 0;
                if seen.as_ref().is_none_or(|(v, _)| *v != version) {
                    seen = Some((version, began));
                }
                let since = seen.as_ref().map_or(began, |(_, since)| *since);
                lasts.saturating_sub(since.elapsed())
            }
            Err(why) => {
                failures += 1;
                tracing::warn!(lease = name, failures, error = %why, "the lease can't be had yet");
                if failures > FAILURES {
                    return Err(LeaderError { name: name.to_owned(), why });
                }
                AGAIN
            }
        };
        tokio::select! {
            () = sleep(wait) => {}
            Some(_) = changes.next() => {}
        }
    }
}

impl Candidate {
    /// Takes the lease where nobody has it, where it is ours already, and where `ended` says so of
    /// the version that is there. Who was slower than another finds out what that one wrote.
    async fn take(&self, ended: impl Fn(&str, Duration) -> bool) -> Result<Try, String> {
        loop {
            let Some(found) = answer(self.api.get_opt(&self.name)).await? else {
                let metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                let new = self.held(Lease { metadata, spec: None });
                match answer(self.api.create(&PostParams::default(), &new)).await {
                    Ok(lease) => return Ok(Try::Ours(Box::new(lease), None)),
                    Err(Refusal::Conflict) => continue,
                    Err(e) => return Err(e.into()),
                }
            };
            let spec = found.spec.clone().unwrap_or_default();
            let holder = spec.holder_identity.filter(|h| !h.is_empty());
            let released_by =
                holder.is_none().then(|| found.annotations().get(RELEASED_BY).cloned()).flatten();
            if holder.as_ref().is_some_and(|h| *h != self.identity) {
                let lasts =
                    spec.lease_duration_seconds.and_then(|s| u64::try_from(s).ok()).unwrap_or_default();
                let (version, lasts) =
                    (found.resource_version().unwrap_or_default(), Duration::from_secs(lasts));
                if !ended(&version, lasts) {
                    return Ok(Try::Theirs(version, lasts));
                }
            }
            match self.write(self.held(found)).await {
                Ok(lease) => return Ok(Try::Ours(Box::new(lease), released_by)),
                Err(Refusal::Conflict) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }

    /// Writes the lease over the version that was read.
    async fn write(&self, lease: Lease) -> Result<Lease, Refusal> {
        let params = PostParams::default();
        answer(async {
            match self.api.replace(&self.name, &params, &lease).await {
                // Removed meanwhile: that is a change too.
                Err(kube::Error::Api(s)) if s.code == 404 => Ok(None),
                done => done.map(Some),
            }
        })
        .await?
        .ok_or(Refusal::Conflict)
    }

    /// The lease, held by us from now, or still.
    fn held(&self, mut lease: Lease) -> Lease {
        let now = Some(MicroTime(jiff::Timestamp::now()));
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if spec.holder_identity.as_ref() != Some(&self.identity) {
            spec.holder_identity = Some(self.identity.clone());
            spec.acquire_time.clone_from(&now);
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        spec.renew_time = now;
        spec.lease_duration_seconds = Some(DURATION);
        lease
    }
}

impl Holding {
    /// Keeps the lease; resolves when it is lost.
    async fn lost(&mut self) {
        loop {
            let since = self.renewed.elapsed();
            sleep(RENEW.saturating_sub(since)).await;
            while let Err(why) = self.renew().await {
                tracing::warn!(lease = %self.candidate.name, error = %why, "the lease wasn't renewed");
                if matches!(why, Refusal::Taken) || self.renewed.elapsed() + AGAIN >= GIVE_UP {
                    return;
                }
                sleep(AGAIN).await;
            }
        }
    }

    async fn renew(&mut self) -> Result<(), Refusal> {
        let began = Instant::now();
        let left = GIVE_UP.saturating_sub(self.renewed.elapsed());
        let candidate = &self.candidate;
        let renewed = timeout(left, async {
            match candidate.write(candidate.held((*self.lease).clone())).await {
                // Somebody else wrote it: perhaps only a label.
                Err(Refusal::Conflict) => match candidate.take(|_, _| false).await {
                    Ok(Try::Ours(lease, _)) => Ok(*lease),
                    Ok(Try::Theirs(..)) => Err(Refusal::Taken),
                    Err(why) => Err(Refusal::Other(why)),
                },
                done => done,
            }
        });
        let lease = renewed.await.map_err(|_| Refusal::Other("no answer in time".into()))??;
        *self.lease = lease;
        self.renewed = began;
        Ok(())
    }

    async fn release(self) {
        let Self { candidate, lease, .. } = self;
        let mut lease = *lease;
        loop {
            let mut free = lease;
            free.annotations_mut().insert(RELEASED_BY.to_owned(), candidate.identity.clone());
            let spec = free.spec.get_or_insert_with(LeaseSpec::default);
            spec.holder_identity = None;
            spec.acquire_time = None;
            spec.renew_time = None;
            spec.lease_duration_seconds = None;
            let why = match candidate.write(free).await {
                Ok(_) => return,
                // A renewal that we didn't wait for, or somebody else.
                Err(Refusal::Conflict) => match answer(candidate.api.get_opt(&candidate.name)).await {
                    Ok(Some(found)) if holds(&found, &candidate.identity) => {
                        lease = found;
                        continue;
                    }
                    Ok(_) => return,
                    Err(e) => e,
                },
                Err(e) => e,
            };
            tracing::warn!(lease = %candidate.name, error = %why, "the lease wasn't released; it ends by itself");
            return;
        }
    }
}

fn holds(lease: &Lease, identity: &str) -> bool {
    lease.spec.as_ref().and_then(|s| s.holder_identity.as_deref()) == Some(identity)
}

/// Why a write of the lease didn't go through.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("it changed meanwhile")]
    Conflict,
    #[error("another instance has it")]
    Taken,
    #[error("{0}")]
    Other(String),
}

impl From<Refusal> for String {
    fn from(refusal: Refusal) -> Self {
        refusal.to_string()
    }
}

async fn answer<T>(asked: impl Future<Output = kube::Result<T>>) -> Result<T, Refusal> {
    match timeout(ANSWER, asked).await {
        Ok(Ok(found)) => Ok(found),
        Ok(Err(kube::Error::Api(s))) if s.code == 409 => Err(Refusal::Conflict),
        Ok(Err(e)) => Err(Refusal::Other(e.to_string())),
        Err(_) => Err(Refusal::Other("the API server doesn't answer".into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::{Method, Request, Response, StatusCode};
    use http_body_util::BodyExt as _;
    use kube::client::Body;
    use std::convert::Infallible;
    use std::sync::mpsc;

    /// An API server that has no lease, and tells of each request for one.
    fn api_server(told: mpsc::Sender<Method>) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let told = told.clone();
            async move {
                let (parts, body) = request.into_parts();
                let body = body.collect().await.expect("a body").to_bytes();
                told.send(parts.method.clone()).expect("somebody listens");
                let (status, body) = match parts.method {
                    Method::GET => (
                        StatusCode::NOT_FOUND,
                        r#"{"kind":"Status","status":"Failure","reason":"NotFound","code":404}"#.into(),
                    ),
                    _ => (StatusCode::OK, body),
                };
                let mut response = Response::new(Body::from(body.to_vec()));
                *response.status_mut() = status;
                Ok::<_, Infallible>(response)
            }
        });
        Client::new(service, "default")
    }

    /// On a runtime of one thread, as a test has it, nothing else runs while that waits.
    #[tokio::test]
    async fn the_lease_is_renewed_whatever_else_there_is_to_do() {
        let (told, seen) = mpsc::channel();
        let leadership =
            lead(async || Ok(api_server(told)), "system", "it", "a", || {}).await.expect("the lease");
        assert_eq!(leadership.released_by(), None);
        let next = || seen.recv_timeout(Duration::from_secs(120)).expect("a request");
        assert_eq!([next(), next(), next(), next()], [Method::GET, Method::POST, Method::PUT, Method::PUT]);
        leadership.release().await;
        // The lease that it releases.
        assert_eq!(next(), Method::PUT);
    }

    #[tokio::test]
    async fn one_that_cant_connect_says_why() {
        let failed = lead(async || Err("no way".to_owned()), "system", "it", "a", || {}).await.err();
        assert_eq!(failed.expect("no lease").to_string(), "the lease it can't be kept: no way");
    }
}
