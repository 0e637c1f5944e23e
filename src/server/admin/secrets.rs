//! Which secrets a client has after a PUT: the one that it is to have, and for an overlap the one that it had.
//!
//! | the secret | `previousSecretExpiresAt` | the previous secret afterwards |
//! |---|---|---|
//! | changes | given | the one until now, until that time; a still older one is dropped |
//! | changes | left out | none |
//! | stays | given | the live one, if there is one, until that time |
//! | stays | left out | none |

use super::Problem;
use super::client_spec::ClientSpec;
use crate::domain::ClientId;
use crate::server::random;
use crate::server::secret::{SecretKind, StoredSecret};
use crate::server::state::App;
use crate::server::store::{Client, PreviousSecret};
use jiff::Timestamp;
use secrecy::SecretString;

/// The secrets of a client.
#[derive(Default)]
pub struct Secrets {
    /// The one it has; a public client has none.
    pub current: Option<StoredSecret>,
    /// The one before, while it still works.
    pub previous: Option<PreviousSecret>,
    /// The current one as text, when it was made up here.
    pub made_up: Option<SecretString>,
}

/// The secrets that the client with this ID shall have; `client` is what it is now.
///
/// # Errors
/// When one can't be made or hashed.
pub async fn after(
    app: &App,
    id: &ClientId,
    spec: &ClientSpec,
    client: Option<&Client>,
    now: Timestamp,
) -> Result<Secrets, Problem> {
    if spec.metadata.auth_method.is_public() {
        return Ok(Secrets::default());
    }
    let stored = client.and_then(|c| c.secret.as_ref());
    let until = spec.previous_until.filter(|until| *until > now);
    let before =
        |secret: &StoredSecret| until.map(|expires_at| PreviousSecret { secret: secret.clone(), expires_at });
    let kept = || before(&client?.live_previous(now)?.secret);
    match (&spec.secret, stored) {
        (None, Some(stored)) => {
            Ok(Secrets { current: Some(stored.clone()), previous: kept(), made_up: None })
        }
        (None, None) => {
            let made_up = random::token()?;
            let current = app.secrets.store(SecretKind::Derived, id, &made_up).await?;
            Ok(Secrets { current: Some(current), previous: None, made_up: Some(made_up) })
        }
        (Some((kind, given)), stored) => {
            let same = match stored {
                Some(stored) => app.secrets.is_of(id, stored, given).await?,
                None => false,
            };
            // The same text kept in another way is no other secret.
            let previous = if same { kept() } else { stored.and_then(before) };
            let current = match stored.filter(|s| same && s.kind() == *kind) {
                Some(stored) => stored.clone(),
                None => app.secrets.store(*kind, id, given).await?,
            };
            Ok(Secrets { current: Some(current), previous, made_up: None })
        }
    }
}
