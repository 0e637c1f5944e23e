//! Where a listing of clients goes on. Pure.
//!
//! Keycloak pages by number: a client that is deleted meanwhile moves all behind it one up, and the
//! next page would pass over one. So a page begins some clients before the end of the one before,
//! and is good only if one of those stands in it; else it is read from further up. A client that is
//! deleted while Keycloak reads a page is missing in it, so a short page isn't the last one: the last
//! one has nothing new.

use crate::provider::ProviderError;
use std::fmt;

/// How many clients of a page are looked for in the next.
const OVERLAP: usize = 10;

/// Where to go on, and which clients stood there.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Bookmark {
    /// Number of the first client that is asked for.
    pub first: usize,
    last: Vec<String>,
}

impl Bookmark {
    /// Reads what [`Self::to_string`] wrote; `None` is the beginning.
    ///
    /// # Errors
    /// [`ProviderError::Unsupported`] for any other text.
    pub fn parse(text: Option<&str>) -> Result<Self, ProviderError> {
        let Some(text) = text else { return Ok(Self::default()) };
        let mut parts = text.split(' ');
        let first = parts
            .next()
            .and_then(|n| n.parse().ok())
            .ok_or(ProviderError::Unsupported { what: "a page that this listing didn't name" })?;
        Ok(Self { first, last: parts.map(str::to_owned).collect() })
    }

    /// The place behind a page that began at `first` and holds clients of these keys, of which `read` were in the page
    /// before; `None` where it was the last page.
    pub fn after<'a>(first: usize, keys: impl Iterator<Item = Option<&'a str>>, read: usize) -> Option<Self> {
        let keys: Vec<_> = keys.collect();
        if keys.len() <= read {
            return None;
        }
        let kept = keys.len().min(OVERLAP);
        let last = keys[keys.len() - kept..]
            .iter()
            .flatten()
            .filter(|k| !k.contains(' '))
            .map(|k| (*k).to_owned())
            .collect();
        Some(Self { first: first + keys.len() - kept, last })
    }

    /// How many clients of a page were in the one before; `None` where some may lie between the two.
    pub fn read_up_to<'a>(
        &self,
        keys: impl DoubleEndedIterator<Item = Option<&'a str>> + ExactSizeIterator,
    ) -> Option<usize> {
        let read = keys.enumerate().rev().find(|(_, k)| k.is_some_and(|k| self.last.iter().any(|l| l == k)));
        match read {
            Some((at, _)) => Some(at + 1),
            None => (self.first == 0 || self.last.is_empty()).then_some(0),
        }
    }

    /// A page further up.
    pub fn step_back(&mut self, by: usize) {
        self.first = self.first.saturating_sub(by);
    }
}

impl fmt::Display for Bookmark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.first)?;
        self.last.iter().try_for_each(|key| write!(f, " {key}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads all the pages of twenty, deleting between them, and while each is read (`missing`: the places of those in the
    /// page); what stays is seen.
    fn listing(missing: &[usize], delete: impl Fn(usize, &mut Vec<String>)) -> (Vec<String>, Vec<String>) {
        const PAGE: usize = 20;
        let mut there: Vec<String> = (0..200).map(|i| format!("k{i:03}")).collect();
        let (mut seen, mut next, mut round) = (vec![], None::<String>, 0);
        loop {
            let mut mark = Bookmark::parse(next.as_deref()).expect("our own");
            let (page, read) = loop {
                let mut page: Vec<String> = there.iter().skip(mark.first).take(PAGE).cloned().collect();
                for place in missing.iter().filter(|_| page.len() == PAGE) {
                    let gone = page[*place].clone();
                    there.retain(|k| *k != gone);
                }
                page.retain(|k| there.contains(k));
                match mark.read_up_to(page.iter().map(|k| Some(k.as_str()))) {
                    Some(read) => break (page, read),
                    None => mark.step_back(PAGE),
                }
            };
            seen.extend_from_slice(&page[read..]);
            match Bookmark::after(mark.first, page.iter().map(|k| Some(k.as_str())), read) {
                Some(mark) => next = Some(mark.to_string()),
                None => return (there, seen),
            }
            delete(round, &mut there);
            round += 1;
            assert!(round < 200, "it doesn't end");
        }
    }

    #[test]
    fn nothing_is_passed_over_whatever_is_deleted_meanwhile() {
        let (there, seen) = listing(&[], |_, _| {});
        assert_eq!(there, seen, "each once where nothing changes");
        for few in [1, 3, 12, 45] {
            let (there, seen) = listing(&[], |round, all| {
                if round < 3 {
                    all.drain(..few);
                }
            });
            assert!(there.iter().all(|k| seen.contains(k)), "{few} deleted at a time");
        }
        // All that was remembered is gone.
        let (there, seen) = listing(&[], |round, all| {
            if round == 1 {
                all.drain(20..40);
            }
        });
        assert!(there.iter().all(|k| seen.contains(k)));
        // Some go while a page is read.
        for missing in [&[0][..], &[19], &[3, 7], &[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]] {
            let (there, seen) = listing(missing, |_, _| {});
            assert!(there.iter().all(|k| seen.contains(k)), "{missing:?}");
        }
    }

    #[test]
    fn a_text_of_another_kind_is_refused() {
        assert!(Bookmark::parse(Some("x y")).is_err());
        assert_eq!(Bookmark::parse(None).expect("the beginning"), Bookmark::default());
    }
}
