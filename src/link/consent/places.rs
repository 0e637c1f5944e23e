//! How many requests are worked on at once, for each of many: one who takes all of theirs takes nobody else's. Pure.

use super::Trouble;
use crate::link::grant::LinkRef;
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

/// How many requests of one link are worked on at once. A person has one, and sometimes an impatient second one.
const OF_LINK: usize = 4;
/// The same of one namespace: a part of what `web` works on at once.
const OF_NAMESPACE: usize = 12;

/// Places for requests that have shown a ticket or a state of a link: with a made-up one nobody takes a link's places.
/// What comes then may take as long as the link's server likes.
#[derive(Debug)]
pub(super) struct LinkPlaces {
    /// By UID.
    of_link: Shares<String>,
    of_namespace: Shares<String>,
}

/// A request's place among those of its link and of its namespace.
pub(super) type LinkPlace = (Share<String>, Share<String>);

impl LinkPlaces {
    /// All are free.
    pub(super) fn new() -> Self {
        Self { of_link: Shares::of(OF_LINK), of_namespace: Shares::of(OF_NAMESPACE) }
    }

    /// A place for a request of this link.
    ///
    /// # Errors
    /// [`Trouble::Crowded`].
    pub(super) fn take(&self, of: &LinkRef) -> Result<LinkPlace, Trouble> {
        let link = self.of_link.take(of.uid.clone()).ok_or(Trouble::Crowded)?;
        let namespace = self.of_namespace.take(of.namespace.clone()).ok_or(Trouble::Crowded)?;
        Ok((link, namespace))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neither_a_link_nor_a_namespace_takes_all_places() {
        let places = LinkPlaces::new();
        let link = |namespace: &str, name: &str| LinkRef {
            namespace: namespace.into(),
            name: name.into(),
            uid: format!("{namespace}/{name}"),
        };
        let taken = |of: &LinkRef| -> Vec<_> { std::iter::from_fn(|| places.take(of).ok()).collect() };
        let one = taken(&link("a", "one"));
        assert_eq!(one.len(), OF_LINK);
        let more: Vec<_> = (0..10).flat_map(|n| taken(&link("a", &n.to_string()))).collect();
        assert_eq!(one.len() + more.len(), OF_NAMESPACE);
        assert!(places.take(&link("b", "one")).is_ok());
        drop(one);
        // What its namespace refused took no place of the link.
        assert_eq!(taken(&link("a", "9")).len(), OF_LINK);
    }

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
