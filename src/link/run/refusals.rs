//! Links whose writes the API server refuses, by a policy, a quota or a missing right. Nothing tells when
//! that is over, so in each namespace one link tries now and then; when it gets through, the others follow.
//!
//! Pure: it says who is to be looked at.

use crate::link::cache::Key;
use std::collections::{HashMap, VecDeque};

/// Who is refused, by namespace.
#[derive(Default)]
pub(super) struct Refusals {
    by_namespace: HashMap<String, VecDeque<Key>>,
}

impl Refusals {
    /// A pass is over. Gives back who may go on because it got through.
    pub(super) fn note(&mut self, key: &Key, refused: bool) -> Vec<Key> {
        let waiting = self.by_namespace.entry(key.namespace.clone()).or_default();
        let known = waiting.iter().position(|k| k == key);
        let follow = match (refused, known) {
            (true, None) => {
                waiting.push_back(key.clone());
                Vec::new()
            }
            (false, Some(at)) => {
                waiting.remove(at);
                waiting.iter().cloned().collect()
            }
            _ => Vec::new(),
        };
        if waiting.is_empty() {
            self.by_namespace.remove(&key.namespace);
        }
        follow
    }

    /// Who tries now: of each namespace another one each time.
    pub(super) fn next(&mut self) -> Vec<Key> {
        let first = |waiting: &mut VecDeque<Key>| {
            waiting.rotate_left(1);
            waiting.back().cloned()
        };
        self.by_namespace.values_mut().filter_map(first).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_of_a_namespace_tries_and_the_others_follow() {
        let key = |namespace: &str, name: &str| Key::new(namespace, name);
        let mut refusals = Refusals::default();
        for name in ["x", "y", "z", "x"] {
            assert!(refusals.note(&key("a", name), true).is_empty());
        }
        refusals.note(&key("b", "x"), true);
        let mut tried: Vec<Vec<Key>> = (0..4).map(|_| refusals.next()).collect();
        tried.iter_mut().for_each(|keys| keys.sort());
        let of_a: Vec<_> = tried.iter().map(|keys| keys[0].name.as_str()).collect();
        assert_eq!(of_a, ["x", "y", "z", "x"]);
        assert!(tried.iter().all(|keys| keys.len() == 2 && keys[1] == key("b", "x")));
        let mut follow = refusals.note(&key("a", "y"), false);
        follow.sort();
        assert_eq!(follow, [key("a", "x"), key("a", "z")]);
        assert!(refusals.note(&key("a", "q"), false).is_empty(), "it was never refused");
        refusals.note(&key("b", "x"), false);
        assert_eq!(refusals.next().len(), 1);
    }
}
