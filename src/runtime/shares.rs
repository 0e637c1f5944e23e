//! So many at a time for each of many: one who takes all of theirs takes nobody else's.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Counts what is held, by key.
#[derive(Debug)]
pub struct Shares<K: Eq + Hash> {
    most: usize,
    held: Arc<Held<K>>,
}

#[derive(Debug)]
struct Held<K>(Mutex<HashMap<K, usize>>);

impl<K> Held<K> {
    fn all(&self) -> MutexGuard<'_, HashMap<K, usize>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One of what a key may hold; it is free again when this is dropped.
#[derive(Debug)]
pub struct Share<K: Eq + Hash> {
    key: K,
    held: Arc<Held<K>>,
}

impl<K: Eq + Hash + Clone> Shares<K> {
    /// At most so many for each key.
    pub fn of(most: usize) -> Self {
        Self { most, held: Arc::new(Held(Mutex::default())) }
    }

    /// One more for this key; `None` when it holds all that it may.
    pub fn take(&self, key: K) -> Option<Share<K>> {
        let mut all = self.held.all();
        let number = all.entry(key.clone()).or_default();
        if *number >= self.most {
            return None;
        }
        *number += 1;
        Some(Share { key, held: self.held.clone() })
    }
}

impl<K: Eq + Hash> Drop for Share<K> {
    fn drop(&mut self) {
        let mut all = self.held.all();
        if let Some(number) = all.get_mut(&self.key) {
            *number -= 1;
            if *number == 0 {
                all.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_has_its_own_and_what_is_given_back_is_free() {
        let shares = Shares::of(2);
        let (first, second) = (shares.take("a"), shares.take("a"));
        assert!(first.is_some() && second.is_some());
        assert!(shares.take("a").is_none());
        assert!(shares.take("b").is_some());
        drop(first);
        assert!(shares.take("a").is_some());
        drop(second);
        assert!(shares.held.all().is_empty());
    }
}
