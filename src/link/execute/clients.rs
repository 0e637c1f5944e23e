//! What is kept of a link's clients.

use super::{Carry, Patience, Work};
use crate::link::grant::{Kept, LinkRef};
use crate::link::kept_client::{KeptClient, KeptClients};
use crate::link::plan::KeepClient;
use crate::link::problem::{Mend, Problem};
use crate::provider::ClientRef;
use std::collections::BTreeMap;

impl Carry<'_> {
    /// What the provider said once is stored before it is called again. While that doesn't go
    /// through it is tried again: an identifier that is lost leaves a client that nobody knows of.
    pub(super) async fn keep_client(
        &self,
        work: &mut Work,
        identity: &str,
        keep: &KeepClient,
    ) -> Result<(), Problem> {
        let kept = match (&work.registered, keep.from_reply) {
            (Some(reply), true) => keep.with(reply),
            (None, true) => return Err(Problem::conflict("the client")),
            // Nothing was answered: the next pass knows as much.
            (_, false) => {
                return self
                    .write_clients(work, |record| {
                        record.at.insert(identity.to_owned(), keep.known.clone());
                    })
                    .await;
            }
        };
        let mut patience = Patience::new(&self.ctx.tenure);
        let at = |work: &Work| work.kept.as_ref().and_then(|(record, _)| record.at.get(identity).cloned());
        let before = at(work);
        loop {
            let change = |record: &mut KeptClients| drop(record.at.insert(identity.to_owned(), kept.clone()));
            match self.write_clients(work, change).await {
                Ok(()) => return Ok(()),
                Err(problem) => {
                    let stored = at(work);
                    if stored != before
                        && let Some(stored) = stored.filter(|stored| *stored != kept)
                    {
                        // Another instance stored a client of this link: that one is the link's.
                        self.unregister_surplus(work, &stored, &kept).await;
                        return Err(problem);
                    }
                    patience.after(problem).await?;
                }
            }
        }
    }

    /// Unregisters the client that this pass made, where another instance made one beside it: nobody else
    /// knows of it.
    async fn unregister_surplus(&self, work: &Work, stored: &KeptClient, made: &KeptClient) {
        let handle = work.made_at.as_deref().and_then(|uid| self.handles.get(uid));
        let (Some(connected), Some(id)) = (handle.filter(|_| stored.id != made.id), made.client_id()) else {
            return;
        };
        let at = ClientRef { id, handle: made.handle.as_ref().map(|Kept(handle)| handle.clone()) };
        if let Err(e) = connected.provider.delete(&at, None).await {
            tracing::warn!(
                namespace = %self.seen.namespace, link = %self.seen.name, client = %made.id, reason = e.reason(),
                "another instance registered a client for this link at the same time, and this one couldn't be unregistered"
            );
        }
    }

    pub(super) async fn forget_client(&self, work: &mut Work, identity: &str) -> Result<(), Problem> {
        let Some((record, _)) = &work.kept else { return Ok(()) };
        if record.at.keys().all(|k| k == identity) {
            work.kept = None;
            self.ctx.remember(&self.seen.uid, |memo| memo.keeps_clients = false);
            self.ctx.taken.forget(&self.seen.uid).await;
            return self.ctx.store.forget_clients(&self.seen.uid).await;
        }
        self.write_clients(work, |record| drop(record.at.remove(identity))).await
    }

    /// One attempt; after a conflict the record is known as it is now, for another one.
    async fn write_clients(&self, work: &mut Work, change: impl Fn(&mut KeptClients)) -> Result<(), Problem> {
        let (mut record, version) = match work.kept.clone() {
            Some((record, version)) => (record, Some(version)),
            None => {
                let link = LinkRef {
                    namespace: self.seen.namespace.clone(),
                    name: self.seen.name.clone(),
                    uid: self.seen.uid.clone(),
                };
                (KeptClients { link, at: BTreeMap::new() }, None)
            }
        };
        change(&mut record);
        self.ctx.remember(&self.seen.uid, |memo| memo.keeps_clients = true);
        match self.ctx.store.keep_clients(&record, version.as_deref()).await {
            Ok(version) => {
                self.ctx.taken.note(&record).await;
                work.kept = Some((record, version));
                Ok(())
            }
            Err(problem) => {
                // Our own write may have gone through unanswered.
                if problem.mend == Mend::Conflict
                    && let Ok(stored) = self.ctx.store.clients(&self.seen.uid).await
                {
                    work.kept = stored;
                }
                Err(problem)
            }
        }
    }
}
