//! Registration by applications: initial access tokens, and the registration access token of each client.

use super::clients::{insert, update};
use super::rows::time;
use super::{Client, Store, StoreError};
use crate::domain::ClientId;
use crate::server::random::TokenHash;
use jiff::Timestamp;
use sqlx::SqliteConnection;

/// Live initial access tokens, at most; so their list needs no pages.
const MOST_TOKENS: i64 = 1_000;

/// An initial access token, but for the token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InitialToken {
    /// What it is called.
    pub id: String,
    /// Clients that may be registered with it, from its beginning.
    pub uses: u32,
    /// Clients that still may be.
    pub uses_left: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What is known of a client's registration access token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Registration {
    /// The newest token's hash.
    pub hash: Vec<u8>,
    /// While the newest one wasn't used: the hash of the one before, and the newest one, sealed under it.
    pub before: Option<(Vec<u8>, Vec<u8>)>,
}

/// A new registration access token that takes the place of another.
pub struct Turn<'a> {
    /// The one that it takes the place of; it must be the newest.
    pub from: &'a TokenHash,
    /// The new one.
    pub to: &'a TokenHash,
    /// The new one, sealed under the other.
    pub sealed: &'a [u8],
}

type TokenRow = (String, u32, u32, i64, i64);

impl Store {
    /// Keeps an initial access token; `false` when there are too many.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_initial_token(
        &self,
        token: &InitialToken,
        hash: &TokenHash,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let done = sqlx::query(
            "INSERT INTO registration_tokens (id, hash, uses, uses_left, created_at, expires_at) \
             SELECT ?1, ?2, ?3, ?4, ?5, ?6 \
             WHERE (SELECT count(*) FROM registration_tokens WHERE expires_at > ?5) < ?7",
        )
        .bind(&token.id)
        .bind(hash.as_bytes())
        .bind(token.uses)
        .bind(token.uses_left)
        .bind(token.created_at.as_millisecond())
        .bind(token.expires_at.as_millisecond())
        .bind(MOST_TOKENS)
        .execute(&mut *write.tx)
        .await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// The live initial access tokens, the oldest first.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn initial_tokens(&self, now: Timestamp) -> Result<Vec<InitialToken>, StoreError> {
        let sql = "SELECT id, uses, uses_left, created_at, expires_at FROM registration_tokens \
                   WHERE expires_at > ?1 ORDER BY created_at, id";
        let rows: Vec<TokenRow> =
            sqlx::query_as(sql).bind(now.as_millisecond()).fetch_all(&self.readers).await?;
        let token = |(id, uses, uses_left, created_at, expires_at): TokenRow| {
            let (created_at, expires_at) = (time(created_at)?, time(expires_at)?);
            Ok(InitialToken { id, uses, uses_left, created_at, expires_at })
        };
        rows.into_iter().map(token).collect()
    }

    /// Deletes an initial access token; `false` when there is none.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete_initial_token(&self, id: &str) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let query = sqlx::query("DELETE FROM registration_tokens WHERE id = ?1").bind(id);
        let done = query.execute(&mut *write.tx).await?;
        write.commit().await?;
        Ok(done.rows_affected() == 1)
    }

    /// Whether a client may be registered with this initial access token.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn may_register(&self, hash: &TokenHash, now: Timestamp) -> Result<bool, StoreError> {
        let sql = "SELECT 1 FROM registration_tokens WHERE hash = ?1 AND uses_left > 0 AND expires_at > ?2";
        let found: Option<i64> = sqlx::query_scalar(sql)
            .bind(hash.as_bytes())
            .bind(now.as_millisecond())
            .fetch_optional(&self.readers)
            .await?;
        Ok(found.is_some())
    }

    /// Uses an initial access token once, and adds a client with its registration access token. Returns the name of
    /// the token that was used; `None` when it isn't good (any more), and nothing was written.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn register(
        &self,
        initial: &TokenHash,
        client: &Client,
        token: &TokenHash,
    ) -> Result<Option<String>, StoreError> {
        let mut write = self.write().await?;
        let used: Option<String> = sqlx::query_scalar(
            "UPDATE registration_tokens SET uses_left = uses_left - 1 \
             WHERE hash = ?1 AND uses_left > 0 AND expires_at > ?2 RETURNING id",
        )
        .bind(initial.as_bytes())
        .bind(client.created_at.as_millisecond())
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(used) = used else { return Ok(None) };
        if !insert(&mut write.tx, client).await? {
            // Its identifier has 96 random bits.
            return Err(StoreError::Corrupt("client with a new random ID"));
        }
        sqlx::query("INSERT INTO registrations (client_id, hash) VALUES (?1, ?2)")
            .bind(client.id.as_str())
            .bind(token.as_bytes())
            .execute(&mut *write.tx)
            .await?;
        write.commit_and_tell(self.changes.clone(), client.change(None)).await?;
        Ok(Some(used))
    }

    /// What is known of the registration access token of a client.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn registration(&self, id: &ClientId) -> Result<Option<Registration>, StoreError> {
        let sql = "SELECT hash, previous, successor FROM registrations WHERE client_id = ?1";
        let row: Option<(Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>)> =
            sqlx::query_as(sql).bind(id.as_str()).fetch_optional(&self.readers).await?;
        Ok(row.map(|(hash, previous, successor)| Registration { hash, before: previous.zip(successor) }))
    }

    /// The newest registration access token was used: the one before is no longer good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_before(&self, id: &ClientId, newest: &TokenHash) -> Result<(), StoreError> {
        let mut write = self.write().await?;
        let sql =
            "UPDATE registrations SET previous = NULL, successor = NULL WHERE client_id = ?1 AND hash = ?2";
        sqlx::query(sql).bind(id.as_str()).bind(newest.as_bytes()).execute(&mut *write.tx).await?;
        write.commit().await
    }

    /// Writes a client over the one that has `etag`, or nothing where `client` is left out, and turns its registration
    /// access token, all or nothing; `false` when the client or the token is another one by now.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn reregister(
        &self,
        id: &ClientId,
        client: Option<(&Client, &str)>,
        turn: Option<Turn<'_>>,
    ) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        if let Some(turn) = turn
            && !turned(&mut write.tx, id, turn).await?
        {
            return Ok(false);
        }
        let Some((client, etag)) = client else {
            write.commit().await?;
            return Ok(true);
        };
        if !update(&mut write.tx, client, etag).await? {
            return Ok(false);
        }
        write.commit_and_tell(self.changes.clone(), client.change(None)).await?;
        Ok(true)
    }
}

async fn turned(on: &mut SqliteConnection, id: &ClientId, turn: Turn<'_>) -> Result<bool, StoreError> {
    let sql = "UPDATE registrations SET hash = ?3, previous = ?2, successor = ?4 WHERE client_id = ?1 AND hash = ?2";
    let done = sqlx::query(sql)
        .bind(id.as_str())
        .bind(turn.from.as_bytes())
        .bind(turn.to.as_bytes())
        .bind(turn.sealed)
        .execute(on)
        .await?;
    Ok(done.rows_affected() == 1)
}
