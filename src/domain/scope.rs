//! Scopes (RFC 6749 section 3.3).

use super::text::{TextError, check, is_nqchar};
use std::collections::BTreeSet;
use std::fmt;

/// The longest scope name that is taken, in bytes.
pub const MAX_SCOPE: usize = 256;

/// One scope-token of RFC 6749 section 3.3.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Scope(String);

impl Scope {
    /// Checks a scope-token: visible ASCII without space, `"` and `\`, at most 256 bytes.
    ///
    /// # Errors
    /// [`TextError`] when it is none.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        check(text, MAX_SCOPE, is_nqchar)?;
        Ok(Self(text.to_owned()))
    }

    /// The scope as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A set of scopes; its text is the space-separated list of RFC 6749 section 3.3, sorted.
#[derive(Debug, Clone, PartialEq, Eq, Default, Hash)]
pub struct ScopeSet(BTreeSet<Scope>);

impl ScopeSet {
    /// Parses a space-separated list. Empty text is the empty set; a scope named twice is one.
    ///
    /// # Errors
    /// [`TextError`] when a name isn't a scope-token.
    pub fn parse(text: &str) -> Result<Self, TextError> {
        text.split(' ').filter(|s| !s.is_empty()).map(Scope::parse).collect()
    }

    /// The scopes, sorted.
    pub fn iter(&self) -> impl Iterator<Item = &Scope> {
        self.0.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether every scope of this set is in `other`.
    pub fn is_subset(&self, other: &Self) -> bool {
        self.0.is_subset(&other.0)
    }

    /// Whether `scope` is in the set.
    pub fn contains(&self, scope: &Scope) -> bool {
        self.0.contains(scope)
    }
}

impl FromIterator<Scope> for ScopeSet {
    fn from_iter<T: IntoIterator<Item = Scope>>(iter: T) -> Self {
        Self(iter.into_iter().collect())
    }
}

impl fmt::Display for ScopeSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, scope) in self.0.iter().enumerate() {
            if i > 0 {
                f.write_str(" ")?;
            }
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_set_is_sorted_and_has_no_duplicates() {
        let set = ScopeSet::parse("b a b").expect("valid");
        assert_eq!(set.to_string(), "a b");
        assert!(ScopeSet::parse("").expect("valid").is_empty());
    }

    #[test]
    fn what_is_no_scope_token_is_refused() {
        for bad in ["", "a b", "a\"b", "a\\b", "ü", "a\n"] {
            assert!(Scope::parse(bad).is_err(), "{bad:?}");
        }
    }
}
