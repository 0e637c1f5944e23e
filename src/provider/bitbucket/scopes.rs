//! Bitbucket's scopes. A client has exactly one, which implies those below it.

use crate::domain::{Scope, ScopeSet};

/// Every scope, and which it implies directly.
const IMPLIES: [(&str, &[&str]); 8] = [
    ("PUBLIC_REPOS", &[]),
    ("ACCOUNT_WRITE", &["PUBLIC_REPOS"]),
    ("REPO_READ", &["PUBLIC_REPOS"]),
    ("REPO_WRITE", &["REPO_READ"]),
    ("REPO_ADMIN", &["REPO_WRITE"]),
    ("PROJECT_ADMIN", &["REPO_ADMIN"]),
    ("ADMIN_WRITE", &["PROJECT_ADMIN", "ACCOUNT_WRITE"]),
    ("SYSTEM_ADMIN", &["ADMIN_WRITE"]),
];

/// What a client has for which nothing is ticked.
const NOTHING: &str = "PUBLIC_REPOS";

/// All scopes.
pub(super) fn offered() -> ScopeSet {
    IMPLIES.iter().filter_map(|(name, _)| Scope::parse(name).ok()).collect()
}

fn implies(scope: &str, other: &str) -> bool {
    scope == other
        || IMPLIES
            .iter()
            .find(|(name, _)| *name == scope)
            .is_some_and(|(_, below)| below.iter().any(|b| implies(b, other)))
}

/// The one scope of a set that implies all the others; `None` where there is no such one, or a
/// scope that isn't Bitbucket's. An empty set is that of a client for which nothing is ticked.
pub(super) fn top<'a>(scopes: impl IntoIterator<Item = &'a str>) -> Option<&'static str> {
    let scopes: Vec<_> = scopes.into_iter().collect();
    if scopes.is_empty() {
        return Some(NOTHING);
    }
    let known = IMPLIES.iter().map(|(name, _)| *name);
    known.into_iter().find(|k| scopes.contains(k) && scopes.iter().all(|s| implies(k, s)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_scope_stands_for_those_that_it_implies() {
        for (set, one) in [
            (&[][..], Some("PUBLIC_REPOS")),
            (&["PUBLIC_REPOS"], Some("PUBLIC_REPOS")),
            (&["REPO_READ", "PUBLIC_REPOS"], Some("REPO_READ")),
            (&["REPO_READ", "REPO_ADMIN", "REPO_WRITE"], Some("REPO_ADMIN")),
            (&["ACCOUNT_WRITE", "PUBLIC_REPOS"], Some("ACCOUNT_WRITE")),
            (&["ACCOUNT_WRITE", "REPO_READ"], None),
            (&["ACCOUNT_WRITE", "PROJECT_ADMIN"], None),
            (&["ACCOUNT_WRITE", "PROJECT_ADMIN", "ADMIN_WRITE"], Some("ADMIN_WRITE")),
            (&["SYSTEM_ADMIN", "ACCOUNT_WRITE", "REPO_READ"], Some("SYSTEM_ADMIN")),
            (&["repo_read"], None),
            (&["REPO_READ", "openid"], None),
        ] {
            assert_eq!(top(set.iter().copied()), one, "{set:?}");
        }
        assert_eq!(offered().iter().count(), 8);
    }
}
