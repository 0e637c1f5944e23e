//! Who may manage a client: the holder of its registration access token (RFC 7592 section 2).
//!
//! Each PUT changes the token. An answer may be lost, so the one before stays good until the new one was used once, and
//! whoever uses it is shown the new one again. The new one is kept only as a hash, and sealed under the one before,
//! which isn't kept either: who steals the file can use neither.

use super::{Id, RegistrationError};
use crate::domain::ClientId;
use crate::server::random::{self, TokenHash};
use crate::server::seal;
use crate::server::state::App;
use crate::server::store::{Client, Turn};
use axum::extract::Path;
use axum::http::{HeaderMap, header};
use secrecy::{ExposeSecret as _, SecretString};
use subtle::ConstantTimeEq as _;

/// The token that was presented, and was good.
pub(super) enum Access {
    /// The newest.
    Newest(SecretString),
    /// The one before, and the newest, which wasn't used yet.
    Before(SecretString),
}

impl Access {
    /// The newest token.
    pub(super) fn newest(&self) -> &SecretString {
        match self {
            Self::Newest(token) | Self::Before(token) => token,
        }
    }

    /// A new token in the place of the newest. `None` when the one before was presented: its holder doesn't have the
    /// newest yet, and gets that.
    pub(super) fn turn(&self, id: &ClientId) -> Result<Option<Turning>, RegistrationError> {
        let Self::Newest(presented) = self else { return Ok(None) };
        let token = random::token()?;
        let sealed = seal::seal(presented, id.as_str(), token.expose_secret().as_bytes())?;
        Ok(Some(Turning { from: TokenHash::of(presented), to: TokenHash::of(&token), sealed, token }))
    }
}

/// A token that takes the place of another.
pub(super) struct Turning {
    from: TokenHash,
    to: TokenHash,
    sealed: Vec<u8>,
    /// The new one.
    pub(super) token: SecretString,
}

impl Turning {
    /// For the store.
    pub(super) fn as_turn(&self) -> Turn<'_> {
        Turn { from: &self.from, to: &self.to, sealed: &self.sealed }
    }
}

/// The bearer token of a request (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<SecretString, RegistrationError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return Err(RegistrationError::token()) };
    let found = value.to_str().ok().and_then(|v| v.split_once(' '));
    let found = found.filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    found.map(|(_, token)| token.trim().to_owned().into()).ok_or_else(RegistrationError::token)
}

/// The client of a request, whose registration access token is with it.
///
/// # Errors
/// 401 when there is no such client, the token isn't its, or the client has an owner.
pub(super) async fn of(
    app: &App,
    headers: &HeaderMap,
    id: &Id,
) -> Result<(Client, Access), RegistrationError> {
    let presented = bearer(headers)?;
    let Path(id) = id.as_ref().map_err(|_| RegistrationError::token())?;
    let id = ClientId::parse(id).map_err(|_| RegistrationError::token())?;
    let client = app.store.client(&id).await?.filter(|c| c.owner.is_none());
    let (Some(client), Some(known)) = (client, app.store.registration(&id).await?) else {
        return Err(RegistrationError::token());
    };
    let hash = TokenHash::of(&presented);
    let is = |kept: &[u8]| bool::from(kept.ct_eq(hash.as_bytes()));
    if is(&known.hash) {
        if known.before.is_some() {
            app.store.forget_before(&id, &hash).await?;
        }
        return Ok((client, Access::Newest(presented)));
    }
    let Some((_, sealed)) = known.before.filter(|(before, _)| is(before)) else {
        return Err(RegistrationError::token());
    };
    let newest = seal::open(&presented, id.as_str(), &sealed).and_then(|t| String::from_utf8(t).ok());
    let newest = newest.ok_or_else(|| {
        tracing::error!(client = id.as_str(), "a registration access token can't be unsealed");
        RegistrationError::server_error()
    })?;
    Ok((client, Access::Before(newest.into())))
}
