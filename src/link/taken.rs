//! Which link has which client, where the service keeps no owners and our own records say it. The records
//! are read once, in pages, and kept up with what this operator writes: it is the only writer.

use super::identity::Identity;
use super::kept_client::KeptClients;
use super::problem::Problem;
use super::store::Store;
use std::collections::HashMap;
use tokio::sync::Mutex;

/// The clients that our records name, with the UID of the link that each belongs to. The key is what the
/// record is kept under, and the client's identifier.
#[derive(Default)]
pub struct Taken(Mutex<Option<HashMap<(String, String), String>>>);

impl Taken {
    /// Whether a client is another link's already.
    ///
    /// # Errors
    /// [`Problem`] when the records can't be read.
    pub async fn by_another(
        &self,
        store: &Store,
        identity: &Identity,
        id: &str,
        link_uid: &str,
    ) -> Result<bool, Problem> {
        let mut known = self.0.lock().await;
        if known.is_none() {
            let mut all = HashMap::new();
            store.each_client_record(|kept| insert(&mut all, kept)).await?;
            *known = Some(all);
        }
        let by = |key: &str| known.as_ref()?.get(&(key.to_owned(), id.to_owned()));
        // A version before kept it by type and address.
        Ok([&identity.own, &identity.service].into_iter().filter_map(|k| by(k)).any(|uid| uid != link_uid))
    }

    /// A record was written.
    pub async fn note(&self, kept: &KeptClients) {
        if let Some(all) = self.0.lock().await.as_mut() {
            all.retain(|_, uid| *uid != kept.link.uid);
            insert(all, kept);
        }
    }

    /// A link's record is gone.
    pub async fn forget(&self, link_uid: &str) {
        if let Some(all) = self.0.lock().await.as_mut() {
            all.retain(|_, uid| uid != link_uid);
        }
    }

    /// What somebody else may have changed is read anew when it is next needed.
    pub async fn clear(&self) {
        *self.0.lock().await = None;
    }
}

fn insert(all: &mut HashMap<(String, String), String>, kept: &KeptClients) {
    for (key, client) in &kept.at {
        all.insert((key.clone(), client.id.clone()), kept.link.uid.clone());
    }
}
