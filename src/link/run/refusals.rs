//! Links whose writes the API server refuses, by a policy, a quota or a missing right. Nothing tells when
//! that is over, so in each namespace one link tries now and then; when it gets through, the others follow.
//!
//! Pure: it says who is to be looked at.

use crate::link::cache::Key;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

/// So many namespaces try at a time: what is refused for good must not be written without end.
const AT_ONCE: usize = 32;

/// What came of a pass, as far as the API server's refusals go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It was refused what it would write.
    Refused,
    /// It got through.
    Through,
    /// There is no such link any more, or it goes: that says nothing of others.
    Gone,
}

/// The links of a namespace that are refused, by name, and who tried last.
#[derive(Default)]
struct Waiting {
    links: BTreeSet<String>,
    last: String,
}

/// Who is refused, by namespace, and which namespace tried last.
#[derive(Default)]
pub(super) struct Refusals {
    by_namespace: BTreeMap<String, Waiting>,
    last: String,
}

/// The one after `last`, in a circle.
fn after<'a, T>(all: &'a BTreeMap<String, T>, last: &str) -> Option<&'a String> {
    let beyond = all.range::<str, _>((Bound::Excluded(last), Bound::Unbounded)).next();
    beyond.or_else(|| all.iter().next()).map(|(name, _)| name)
}

impl Refusals {
    /// A pass is over. Gives back who may go on because it got through: all others, who say so if they still are
    /// refused.
    pub(super) fn note(&mut self, key: &Key, outcome: Outcome) -> Vec<Key> {
        if outcome == Outcome::Refused {
            let waiting = self.by_namespace.entry(key.namespace.clone()).or_default();
            waiting.links.insert(key.name.clone());
            return Vec::new();
        }
        let Some(waiting) = self.by_namespace.get_mut(&key.namespace) else { return Vec::new() };
        if !waiting.links.remove(&key.name) {
            return Vec::new();
        }
        let follow = match outcome {
            Outcome::Through => std::mem::take(&mut waiting.links),
            Outcome::Refused | Outcome::Gone => BTreeSet::new(),
        };
        if waiting.links.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
        follow.into_iter().map(|name| Key::new(key.namespace.as_str(), name)).collect()
    }

    /// Who tries now: of each namespace another one each time; of many namespaces the next ones.
    pub(super) fn next(&mut self) -> Vec<Key> {
        let mut keys = Vec::new();
        for _ in 0..self.by_namespace.len().min(AT_ONCE) {
            let Some(namespace) = after(&self.by_namespace, &self.last).cloned() else { break };
            if let Some(waiting) = self.by_namespace.get_mut(&namespace) {
                let beyond = (Bound::Excluded(waiting.last.as_str()), Bound::Unbounded);
                let next = waiting.links.range::<str, _>(beyond).next().or_else(|| waiting.links.first());
                if let Some(name) = next.cloned() {
                    keys.push(Key::new(namespace.as_str(), name.as_str()));
                    waiting.last = name;
                }
            }
            self.last = namespace;
        }
        keys
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(namespace: &str, name: &str) -> Key {
        Key::new(namespace, name)
    }

    #[test]
    fn one_of_a_namespace_tries_and_the_others_follow() {
        let mut refusals = Refusals::default();
        for name in ["x", "y", "z", "x"] {
            assert!(refusals.note(&key("a", name), Outcome::Refused).is_empty());
        }
        refusals.note(&key("b", "x"), Outcome::Refused);
        let mut tried: Vec<Vec<Key>> = (0..4).map(|_| refusals.next()).collect();
        tried.iter_mut().for_each(|keys| keys.sort());
        let of_a: Vec<_> = tried.iter().map(|keys| keys[0].name.as_str()).collect();
        assert_eq!(of_a, ["x", "y", "z", "x"]);
        assert!(tried.iter().all(|keys| keys.len() == 2 && keys[1] == key("b", "x")));
        assert!(
            refusals.note(&key("a", "z"), Outcome::Gone).is_empty(),
            "one that goes says nothing of others"
        );
        assert_eq!(refusals.note(&key("a", "y"), Outcome::Through), [key("a", "x")]);
        assert!(refusals.note(&key("a", "x"), Outcome::Through).is_empty(), "it was told to go on already");
        assert!(refusals.note(&key("a", "q"), Outcome::Through).is_empty(), "it was never refused");
        refusals.note(&key("b", "x"), Outcome::Through);
        assert!(refusals.next().is_empty() && refusals.by_namespace.is_empty());
    }

    #[test]
    fn many_namespaces_take_turns() {
        let mut refusals = Refusals::default();
        for n in 0..AT_ONCE + 3 {
            refusals.note(&key(&format!("n{n:03}"), "x"), Outcome::Refused);
        }
        let first = refusals.next();
        let second = refusals.next();
        assert_eq!((first.len(), second.len()), (AT_ONCE, AT_ONCE));
        let all: BTreeSet<_> = first.iter().chain(&second[..3]).collect();
        assert_eq!(all.len(), AT_ONCE + 3, "those that didn't have a turn come first");
    }
}
