//! The refresh token grant (RFC 6749 section 6), with rotation (RFC 9700 section 4.14.2).
//!
//! Each use spends the token and gives a successor with a lifetime of its own. For the grace after
//! that, the same token from the same client gives the same reply again, so a lost answer loses
//! nothing; after the grace it revokes the whole family. A narrower scope narrows the access token
//! alone: the refresh token keeps what was granted.

use super::reply::{self, Reply};
use super::token::scopes_of;
use super::{Form, OAuthError};
use crate::domain::{GrantType, ScopeSet};
use crate::server::random::{self, TokenHash};
use crate::server::seal;
use crate::server::state::App;
use crate::server::store::{AccessToken, Client, Grant, Refreshed, Refusal, Rotation, Successor};
use axum::response::Response;
use jiff::SignedDuration;

/// Spends a refresh token.
///
/// # Errors
/// [`OAuthError`].
pub async fn grant(app: &App, client: &Client, form: &Form) -> Result<Response, OAuthError> {
    let presented =
        form.secret("refresh_token").ok_or(OAuthError::invalid_request("refresh_token is missing"))?;
    let hash = TokenHash::of(presented);
    let (now, grace) = (app.now(), app.tokens.refresh_grace);
    let lifetime = app.tokens.access_lifetime;
    let (access, refresh) = (random::token()?, random::token()?);
    let rotation = Rotation { presented: &hash, client: &client.id, now, grace };
    let mut body = Vec::new();
    let done = app.store.rotate(rotation, |grant| {
        let scopes = granted(app, client, form, grant)?;
        let reply = Reply { access_token: &access, lifetime, refresh_token: Some(&refresh), scopes: &scopes };
        body = reply.to_body();
        let sealed = (!grace.is_zero()).then(|| seal::seal(presented, client.id.as_str(), &body));
        Ok::<_, OAuthError>(Successor {
            access: AccessToken {
                hash: TokenHash::of(&access),
                grant_type: GrantType::RefreshToken,
                scopes,
                issued_at: now,
                expires_at: now + SignedDuration::from_secs(lifetime.as_secs()),
            },
            refresh: TokenHash::of(&refresh),
            refresh_expires_at: now + SignedDuration::from_secs(app.tokens.refresh_lifetime.as_secs()),
            sealed: sealed.transpose()?,
        })
    });
    let body = match done.await? {
        Refreshed::Rotated => {
            app.metrics.issued(GrantType::RefreshToken);
            tracing::info!(client = client.id.as_str(), grant = "refresh_token", "token issued");
            body
        }
        Refreshed::Replayed { grant, sealed } => {
            // What it may not ask for it may not get by repeating either.
            granted(app, client, form, &grant)?;
            app.metrics.refresh_replays.inc();
            tracing::info!(
                client = client.id.as_str(),
                "refresh repeated within the grace: the same reply again"
            );
            seal::open(presented, client.id.as_str(), &sealed).ok_or_else(|| {
                tracing::error!("a sealed reply in the database can't be opened; the file is damaged");
                OAuthError::server_error()
            })?
        }
        Refreshed::Refused(refusal) => return Err(refused(app, client, refusal)),
    };
    Ok(reply::of_body(body))
}

fn granted(app: &App, client: &Client, form: &Form, grant: &Grant) -> Result<ScopeSet, OAuthError> {
    let most = app.within(client, &grant.scopes);
    if most.is_empty() && !grant.scopes.is_empty() {
        return Err(OAuthError::invalid_scope("the client lost all scopes of this grant"));
    }
    scopes_of(form, most)
}

fn refused(app: &App, client: &Client, refusal: Refusal) -> OAuthError {
    if refusal == Refusal::Reused {
        app.metrics.refresh_reuses.inc();
        tracing::warn!(
            client = client.id.as_str(),
            "a spent refresh token came again after the grace; its grant is revoked"
        );
    }
    // One text: who found a token somewhere learns nothing of it.
    OAuthError::invalid_grant(
        "the refresh token is unknown, expired, spent or revoked, or is another client's",
    )
}
