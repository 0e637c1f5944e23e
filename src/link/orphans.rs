//! Clients that this installation made and whose link is gone without unregistering them, as when
//! somebody takes the finalizer off: since when each is known, and which may be unregistered without a
//! person. Pure.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Within this time at most so many are unregistered, in seconds.
const WINDOW: i64 = 24 * 3600;
/// So many may always be.
const LEAST: usize = 10;
/// So many are remembered at one provider. Others are counted and said, and stay.
const MOST: usize = 1000;

/// What is remembered of orphans from one look to the next; kept, so that a restart begins no time anew.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// By the provider's UID and the client's identifier.
    pub seen: BTreeMap<String, BTreeMap<String, Seen>>,
    /// When each was unregistered in the last [`WINDOW`], in seconds since 1970.
    pub removed: Vec<i64>,
    /// By the provider's UID: when it was last looked at, in seconds since 1970.
    #[serde(default)]
    pub looked: BTreeMap<String, i64>,
}

/// One orphan.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Seen {
    /// UID of the link that it was made for.
    pub uid: String,
    /// When it was first seen, in seconds since 1970.
    pub since: i64,
}

/// An orphan, as a look found it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Orphan {
    /// The client.
    pub id: String,
    /// The link that it was made for.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
    /// Whether the owner record says that the client goes with its link: versions before said nothing,
    /// and their clients are a person's to unregister.
    pub goes: bool,
}

impl Ledger {
    /// Takes in all that a look at a provider found. Says which are new. Where nobody looked for longer
    /// than `gap` seconds, or the clock was set back, each orphan's time begins anew: what may have come
    /// and gone meanwhile isn't known.
    pub fn found<'o>(
        &mut self,
        provider: &str,
        orphans: &'o [Orphan],
        gap: i64,
        now: i64,
    ) -> Vec<&'o Orphan> {
        let mut before = self.seen.remove(provider).unwrap_or_default();
        let last = self.looked.remove(provider);
        if last.is_none_or(|last| now < last || now - last > gap) {
            before.values_mut().for_each(|seen| seen.since = now);
        }
        let known = |o: &Orphan| before.get(&o.id).filter(|s| s.uid == o.uid).cloned();
        let seen = |o: &Orphan| known(o).unwrap_or_else(|| Seen { uid: o.uid.clone(), since: now });
        // Those that may go come first, then those that are known already: what somebody leaves there for
        // good takes no other one's place.
        let mut all: Vec<(bool, String, Seen)> =
            orphans.iter().map(|o| (!o.goes, o.id.clone(), seen(o))).collect();
        all.sort_by(|a, b| (a.0, a.2.since, &a.1).cmp(&(b.0, b.2.since, &b.1)));
        all.truncate(MOST);
        let kept: BTreeMap<String, Seen> = all.into_iter().map(|(_, id, seen)| (id, seen)).collect();
        // What isn't remembered isn't said again and again either.
        let fresh = orphans.iter().filter(|o| known(o).is_none() && kept.contains_key(&o.id)).collect();
        if !kept.is_empty() {
            self.seen.insert(provider.to_owned(), kept);
            self.looked.insert(provider.to_owned(), now);
        }
        self.removed.retain(|at| *at > now - WINDOW);
        fresh
    }

    /// Which orphans of a provider are due to be unregistered: those known for `after` seconds, the oldest
    /// first.
    pub fn due<'o>(&self, provider: &str, orphans: &'o [Orphan], after: i64, now: i64) -> Vec<&'o Orphan> {
        let known = self.seen.get(provider);
        let since = |o: &Orphan| known.and_then(|k| k.get(&o.id)).filter(|s| s.uid == o.uid).map(|s| s.since);
        let mut due: Vec<(i64, &Orphan)> =
            orphans.iter().filter(|o| o.goes).filter_map(|o| Some((since(o)?, o))).collect();
        due.retain(|(since, _)| since.saturating_add(after) <= now);
        due.sort_by_key(|(since, o)| (*since, &o.id));
        due.into_iter().map(|(_, o)| o).collect()
    }

    /// Forgets the providers that aren't among these.
    pub fn retain(&mut self, there: impl Fn(&str) -> bool) {
        self.seen.retain(|uid, _| there(uid));
        self.looked.retain(|uid, _| there(uid));
    }

    /// How many may be unregistered now, of all providers together. `clients` are all of this
    /// installation.
    pub fn room(&self, clients: usize, now: i64) -> usize {
        let recent = self.removed.iter().filter(|at| **at > now - WINDOW).count();
        (clients / 10).max(LEAST).saturating_sub(recent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphan(n: usize) -> Orphan {
        let text = |what: &str| format!("{what}{n}");
        Orphan { id: text("c"), namespace: "a".into(), name: text("l"), uid: text("u"), goes: true }
    }

    #[test]
    fn one_is_due_when_it_was_known_for_long_enough() {
        let mut ledger = Ledger::default();
        let all = [orphan(1)];
        assert_eq!(ledger.found("p", &all, 1_000_000, 100).len(), 1);
        assert!(ledger.found("p", &all, 1_000_000, 150).is_empty());
        assert!(ledger.due("p", &all, 60, 159).is_empty());
        assert_eq!(ledger.due("p", &all, 60, 160), [&all[0]]);
        assert!(ledger.due("q", &all, 60, 160).is_empty());
        // Another link's client under the same identifier begins anew.
        let other = [Orphan { uid: "other".into(), ..orphan(1) }];
        assert_eq!(ledger.found("p", &other, 1_000_000, 160).len(), 1);
        assert!(ledger.due("p", &other, 60, 160).is_empty());
        // One that a version before made is a person's to remove.
        let before = [Orphan { goes: false, ..orphan(1) }];
        ledger.found("p", &before, 1_000_000, 200);
        assert!(ledger.due("p", &before, 60, 1000).is_empty());
        // After a time in which nobody looked it begins anew.
        ledger.found("p", &all, 1_000_000, 200);
        ledger.found("p", &all, 60, 230);
        assert_eq!(ledger.due("p", &all, 60, 260), [&all[0]]);
        ledger.found("p", &all, 60, 300);
        assert!(ledger.due("p", &all, 60, 300).is_empty());
        // One that is no orphan any more is forgotten.
        ledger.found("p", &[], 1_000_000, 300);
        assert_eq!(ledger, Ledger::default());
    }

    #[test]
    fn so_many_go_in_a_day_and_no_more() {
        let mut ledger = Ledger::default();
        let all: Vec<Orphan> = (0..300).map(orphan).collect();
        ledger.found("p", &all, 1_000_000, 0);
        assert_eq!(ledger.due("p", &all, 0, 10).len(), 300);
        for (clients, room) in [(0, 10), (99, 10), (250, 25)] {
            assert_eq!(ledger.room(clients, 10), room);
        }
        ledger.removed = vec![10; 8];
        assert_eq!((ledger.room(0, 20), ledger.room(200, 20)), (2, 12));
        ledger.removed = vec![10; 30];
        assert_eq!(ledger.room(0, 20), 0);
        let tomorrow = 11 + WINDOW;
        assert_eq!(ledger.room(0, tomorrow), 10);
        ledger.found("p", &all, 1_000_000, tomorrow);
        assert!(ledger.removed.is_empty());
    }

    #[test]
    fn the_ledger_has_a_bound() {
        let mut ledger = Ledger::default();
        let all: Vec<Orphan> = (0..2 * MOST).map(orphan).collect();
        ledger.found("p", &all[..10], 1_000_000, 0);
        ledger.found("p", &all, 1_000_000, 5);
        assert_eq!(ledger.seen["p"].len(), MOST);
        assert!((0..10).all(|n| ledger.seen["p"][&format!("c{n}")].since == 0));
        // Those that nobody but a person removes take no place of one that goes.
        let stay: Vec<Orphan> = (0..2 * MOST).map(|n| Orphan { goes: false, ..orphan(n) }).collect();
        let mut ledger = Ledger::default();
        assert_eq!(ledger.found("p", &stay, 1_000_000, 0).len(), MOST);
        let goes = Orphan { id: "late".into(), ..orphan(9999) };
        let both: Vec<Orphan> = stay.into_iter().chain([goes]).collect();
        let fresh = ledger.found("p", &both, 1_000_000, 5);
        assert_eq!(fresh.iter().map(|o| o.id.as_str()).collect::<Vec<_>>(), ["late"]);
    }
}
