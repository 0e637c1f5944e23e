//! What discovery said of each issuer, kept for a while. What one namespace names has room of its own:
//! however many issuers it names, what is known of another namespace's stays.

use super::problem::Problem;
use crate::http::HttpClient;
use crate::outgoing::{Issuer, ServerEndpoints, discover};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

type Discovered = Result<ServerEndpoints, Problem>;

/// What is known of one issuer; held while it is asked.
type Slot = Arc<tokio::sync::Mutex<Option<(Instant, Discovered)>>>;

/// What discovery said of each issuer, and when.
#[derive(Default)]
pub struct Discoveries(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// By issuer: what is known, and the namespaces that named it lately.
    issuers: HashMap<String, (Slot, HashSet<String>)>,
    /// By namespace: when it last asked, and the issuers that it named lately, the latest last.
    namespaces: HashMap<String, (Instant, VecDeque<String>)>,
    /// When what was known of an issuer was last dropped, for the last minute.
    dropped: HashMap<String, Instant>,
}

impl Known {
    /// So many issuers of one namespace are kept.
    const MOST: usize = 64;
    /// With more namespaces than this, those that asked longest ago are forgotten first.
    const NAMESPACES: usize = 1024;

    fn slot(&mut self, namespace: &str, issuer: &str, now: Instant) -> Slot {
        if self.namespaces.len() >= Self::NAMESPACES && !self.namespaces.contains_key(namespace) {
            let oldest = self.namespaces.iter().min_by_key(|(_, (at, _))| *at).map(|(n, _)| n.clone());
            for name in oldest.iter().collect::<Vec<_>>() {
                let (_, named) = self.namespaces.remove(name).unwrap_or((now, VecDeque::new()));
                named.iter().for_each(|issuer| self.release(name, issuer));
            }
        }
        let (at, named) = self.namespaces.entry(namespace.to_owned()).or_insert((now, VecDeque::new()));
        *at = now;
        named.retain(|known| known != issuer);
        named.push_back(issuer.to_owned());
        let over = (named.len() > Self::MOST).then(|| named.pop_front()).flatten();
        let (slot, users) = self.issuers.entry(issuer.to_owned()).or_default();
        users.insert(namespace.to_owned());
        let slot = slot.clone();
        if let Some(over) = over {
            self.release(namespace, &over);
        }
        slot
    }

    fn release(&mut self, namespace: &str, issuer: &str) {
        if let Some((_, users)) = self.issuers.get_mut(issuer) {
            users.remove(namespace);
            if users.is_empty() {
                self.issuers.remove(issuer);
            }
        }
    }
}

impl Known {
    /// Whether what is known of an issuer may be dropped now.
    fn may_drop(&mut self, issuer: &str, now: Instant) -> bool {
        self.dropped.retain(|_, at| now.saturating_duration_since(*at) < Discoveries::DROPPED);
        let may = self.issuers.contains_key(issuer) && !self.dropped.contains_key(issuer);
        if may {
            self.dropped.insert(issuer.to_owned(), now);
        }
        may
    }
}

impl Discoveries {
    const FRESH: Duration = Duration::from_secs(600);
    const FAILED: Duration = Duration::from_secs(5);
    /// What is known of an issuer is dropped no more often, whoever finds its endpoints gone.
    const DROPPED: Duration = Duration::from_secs(60);

    /// Drops what is known of an issuer, since an endpoint of it isn't there any more: the next look asks
    /// anew. Says whether it was dropped: not when that was done within the last minute, and not
    /// while it is being asked.
    pub fn drop_known(&self, issuer: &str, now: Instant) -> bool {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let slot = known.issuers.get(issuer).map(|(slot, _)| slot.clone());
        let Some(mut slot) = slot.and_then(|slot| slot.try_lock_owned().ok()) else { return false };
        let drops = slot.is_some() && known.may_drop(issuer, now);
        if drops {
            *slot = None;
        }
        drops
    }

    /// The endpoints of an issuer that a link of `namespace` names; asked once for all links that wait
    /// for it.
    ///
    /// # Errors
    /// [`Problem`] as discovery gave it, now or a moment ago.
    pub async fn get(&self, http: &HttpClient, namespace: &str, issuer: &Issuer) -> Discovered {
        let slot = {
            let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            known.slot(namespace, issuer.as_str(), Instant::now())
        };
        let mut slot = slot.lock().await;
        if let Some((at, known)) = slot.as_ref() {
            let keep = if known.is_ok() { Self::FRESH } else { Self::FAILED };
            if at.elapsed() < keep {
                return known.clone();
            }
        }
        let found = discover(http, issuer).await.map_err(|e| Problem {
            message: format!("spec.outgoing.oauth2.server.custom.issuer: {e}"),
            ..Problem::from(&e)
        });
        *slot = Some((Instant::now(), found.clone()));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_known_of_an_issuer_is_dropped_once_a_minute() {
        let (all, now) = (Discoveries::default(), Instant::now());
        assert!(!all.drop_known("https://a", now), "nothing is known");
        let slot = |issuer| all.0.lock().expect("a lock").slot("team", issuer, now);
        let fill = |issuer| {
            let found = Err(Problem::wait("NoAnswer", "x"));
            *slot(issuer).try_lock().expect("nobody asks") = Some((now, found));
        };
        fill("https://a");
        fill("https://b");
        let asked = slot("https://a");
        let asking = asked.try_lock().expect("nobody asks");
        assert!(!all.drop_known("https://a", now), "it is being asked");
        drop(asking);
        assert!(all.drop_known("https://a", now));
        assert!(slot("https://a").try_lock().expect("nobody asks").is_none());
        fill("https://a");
        let later = |secs| now + Duration::from_secs(secs);
        assert!(!all.drop_known("https://a", later(59)) && all.drop_known("https://b", later(59)));
        assert!(slot("https://a").try_lock().expect("nobody asks").is_some());
        assert!(all.drop_known("https://a", later(60)));
        assert_eq!(all.0.lock().expect("a lock").dropped.len(), 2);
    }

    #[test]
    fn a_namespace_that_names_many_issuers_pushes_out_its_own_alone() {
        let mut known = Known::default();
        let now = Instant::now();
        known.slot("quiet", "https://quiet", now);
        known.slot("quiet", "https://shared", now);
        for n in 0..5000 {
            known.slot("loud", &format!("https://loud/{n}"), now);
            if n == 10 {
                known.slot("loud", "https://shared", now);
            }
        }
        assert_eq!(known.issuers.len(), Known::MOST + 2);
        assert!(known.issuers.contains_key("https://quiet") && known.issuers.contains_key("https://shared"));
        assert_eq!(known.issuers["https://shared"].1, HashSet::from(["quiet".to_owned()]));
        // Namespaces that are gone don't stay for good.
        for n in 0..Known::NAMESPACES + 5 {
            known.slot(&format!("n{n}"), "https://shared", now + Duration::from_secs(n as u64));
        }
        assert_eq!(known.namespaces.len(), Known::NAMESPACES);
        assert!(known.issuers["https://shared"].1.len() <= Known::NAMESPACES);
    }
}
