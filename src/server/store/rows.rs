//! Values to columns and back.

use super::StoreError;
use crate::domain::{AuthMethod, GrantType, ScopeSet};
use jiff::Timestamp;

pub(super) fn time(ms: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(ms).map_err(|_| StoreError::Corrupt("time"))
}

pub(super) fn scopes(text: &str) -> Result<ScopeSet, StoreError> {
    ScopeSet::parse(text).map_err(|_| StoreError::Corrupt("scope"))
}

pub(super) fn grant_type(word: &str) -> Result<GrantType, StoreError> {
    [GrantType::AuthorizationCode, GrantType::ClientCredentials, GrantType::RefreshToken]
        .into_iter()
        .find(|g| g.as_str() == word)
        .ok_or(StoreError::Corrupt("grant type"))
}

pub(super) fn auth_method(word: &str) -> Result<AuthMethod, StoreError> {
    [AuthMethod::ClientSecretBasic, AuthMethod::ClientSecretPost, AuthMethod::None]
        .into_iter()
        .find(|m| m.as_str() == word)
        .ok_or(StoreError::Corrupt("authentication method"))
}

/// Words, divided by spaces.
pub(super) fn words<T: ToString>(items: impl IntoIterator<Item = T>) -> String {
    items.into_iter().map(|i| i.to_string()).collect::<Vec<_>>().join(" ")
}
