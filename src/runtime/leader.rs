//! One operator at work at a time, by a Lease.
//!
//! The lease is kept by a library; it waits out another holder's lease, so a released one is
//! noticed by a watch of our own, and the second instance takes over at once. A lease is no fence:
//! effects are idempotent and conditional all the same.

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::{WatchStreamExt as _, watcher};
use kube::{Api, Client};
use kube_lease_manager::{LeaseCreateMode, LeaseManager, LeaseManagerBuilder};
use std::time::Duration;

/// How long a lease lasts after its holder died, in seconds.
const DURATION: u64 = 15;
/// How long before its end a lease is renewed, in seconds.
const GRACE: u64 = 5;

/// Why the lease can't be had.
#[derive(Debug, thiserror::Error)]
#[error("the lease {name} can't be kept: {why}")]
pub struct LeaderError {
    name: String,
    why: String,
}

/// A lease that was won.
pub struct Leadership {
    manager: LeaseManager,
    name: String,
}

/// Waits until the lease is ours.
///
/// # Errors
/// [`LeaderError`] when the API server refuses it for good.
pub async fn lead(
    client: Client,
    namespace: &str,
    name: &str,
    identity: &str,
) -> Result<Leadership, LeaderError> {
    let error = |why: String| LeaderError { name: name.to_owned(), why };
    let manager = LeaseManagerBuilder::new(client.clone(), name)
        .with_namespace(namespace)
        .with_identity(identity)
        // One that stays the same over a restart, or the Lease collects a manager each time.
        .with_field_manager(format!("applink-{identity}"))
        .with_create_mode(LeaseCreateMode::AutoCreate)
        .with_duration(DURATION)
        .with_grace(GRACE)
        .build()
        .await
        .map_err(|e| error(e.to_string()))?;
    let leases: Api<Lease> = Api::namespaced(client, namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let mut released =
        std::pin::pin!(watcher(leases, config).default_backoff().touched_objects().filter(|lease| {
            let free = lease.as_ref().is_ok_and(|l| {
                l.spec.as_ref().and_then(|s| s.holder_identity.as_deref()).is_none_or(str::is_empty)
            });
            futures::future::ready(free)
        }));
    let mut failures = 0u32;
    loop {
        tokio::select! {
            changed = manager.changed() => match changed {
                Ok(true) => return Ok(Leadership { manager, name: name.to_owned() }),
                Ok(false) => {}
                Err(e) => {
                    failures += 1;
                    tracing::warn!(lease = name, failures, "the lease can't be had yet");
                    if failures > 60 {
                        return Err(error(e.to_string()));
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            },
            // Dropping the wait and beginning anew makes the library look at the lease again.
            Some(_) = released.next() => {}
        }
    }
}

impl Leadership {
    /// Keeps the lease; resolves when it is lost.
    pub async fn lost(&self) {
        let mut failures = 0u32;
        loop {
            match self.manager.changed().await {
                Ok(true) => failures = 0,
                Ok(false) => return,
                Err(e) => {
                    failures += 1;
                    tracing::warn!(lease = %self.name, failures, error = %e, "the lease wasn't renewed");
                    // By then the lease has ended, and another instance may be at work.
                    if failures as u64 >= DURATION - GRACE {
                        return;
                    }
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
            }
        }
    }

    /// Gives the lease back, so that the next instance needn't wait it out.
    pub async fn release(self) {
        if let Err(e) = self.manager.release().await {
            tracing::warn!(lease = %self.name, error = %e, "the lease wasn't released; it ends by itself");
        }
    }
}
