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
type RegistrationRow = (Vec<u8>, Option<Vec<u8>>, Option<Vec<u8>>);

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
        .await?
        .rows_affected()
            == 1;
        write.commit_if(done).await?;
        Ok(done)
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
        let done = self.try_to_delete_initial_token(id).await;
        if self.writing.made_room_after(&done) { self.try_to_delete_initial_token(id).await } else { done }
    }

    async fn try_to_delete_initial_token(&self, id: &str) -> Result<bool, StoreError> {
        let mut write = self.write_away().await?;
        let query = sqlx::query("DELETE FROM registration_tokens WHERE id = ?1").bind(id);
        let done = query.execute(&mut *write.tx).await?.rows_affected() == 1;
        write.commit_if(done).await?;
        Ok(done)
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
        let Some(used) = used else {
            write.undo().await?;
            return Ok(None);
        };
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
        let row: Option<RegistrationRow> =
            sqlx::query_as(sql).bind(id.as_str()).fetch_optional(&self.readers).await?;
        Ok(row.map(|(hash, previous, successor)| Registration { hash, before: previous.zip(successor) }))
    }

    /// The newest registration access token was used: the one before is no longer good.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn forget_before(&self, id: &ClientId, newest: &TokenHash) -> Result<(), StoreError> {
        let done = self.try_to_forget_before(id, newest).await;
        if self.writing.made_room_after(&done) { self.try_to_forget_before(id, newest).await } else { done }
    }

    async fn try_to_forget_before(&self, id: &ClientId, newest: &TokenHash) -> Result<(), StoreError> {
        let mut write = self.write_away().await?;
        let sql =
            "UPDATE registrations SET previous = NULL, successor = NULL WHERE client_id = ?1 AND hash = ?2";
        let query = sqlx::query(sql).bind(id.as_str()).bind(newest.as_bytes());
        let done = query.execute(&mut *write.tx).await?.rows_affected() > 0;
        write.commit_if(done).await
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
            write.undo().await?;
            return Ok(false);
        }
        let Some((client, etag)) = client else {
            write.commit().await?;
            return Ok(true);
        };
        if !update(&mut write.tx, client, etag).await? {
            write.undo().await?;
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

#[cfg(test)]
mod tests {
    use super::super::testing::{at, client, store};
    use super::*;
    use secrecy::SecretString;
    use std::time::Duration;

    fn hash(text: &str) -> TokenHash {
        TokenHash::of(&SecretString::from(text.to_owned()))
    }

    fn token(id: &str, uses: u32) -> InitialToken {
        InitialToken { id: id.to_owned(), uses, uses_left: uses, created_at: at(0), expires_at: at(10) }
    }

    #[tokio::test]
    async fn an_initial_token_ends_with_its_uses_or_its_time() {
        let (_dir, store) = store().await;
        for (id, uses) in [("a", 1), ("b", 2)] {
            assert!(store.add_initial_token(&token(id, uses), &hash(id)).await.expect("stored"));
        }
        let register = async |initial: &str, id: &str| {
            store.register(&hash(initial), &client(id), &hash("t")).await.expect("asked")
        };
        assert_eq!(register("a", "c").await.as_deref(), Some("a"));
        assert_eq!(register("a", "d").await, None);
        assert_eq!(store.client(&client("d").id).await.expect("read"), None, "nothing of it was written");
        assert!(!store.may_register(&hash("a"), at(1)).await.expect("read"));
        assert!(store.may_register(&hash("b"), at(9)).await.expect("read"));
        assert!(!store.may_register(&hash("b"), at(10)).await.expect("read"));
        let left: Vec<_> = store
            .initial_tokens(at(9))
            .await
            .expect("read")
            .into_iter()
            .map(|t| (t.id, t.uses_left))
            .collect();
        assert_eq!(left, [("a".to_owned(), 0), ("b".to_owned(), 2)]);
        // A client that can't be made costs no use.
        assert!(store.register(&hash("b"), &client("c"), &hash("t")).await.is_err());
        assert_eq!(store.initial_tokens(at(9)).await.expect("read")[1].uses_left, 2);
        assert!(store.initial_tokens(at(10)).await.expect("read").is_empty());
        assert_eq!(store.sweep(at(10), Duration::ZERO).await.expect("swept"), 2);
    }

    #[tokio::test]
    async fn a_token_turns_only_from_the_newest_and_with_the_client_or_not_at_all() {
        let (_dir, store) = store().await;
        store.add_initial_token(&token("a", 1), &hash("a")).await.expect("stored");
        let c = client("c");
        store.register(&hash("a"), &c, &hash("t1")).await.expect("registered");
        let (t1, t2) = (hash("t1"), hash("t2"));
        let turn = |from| Some(Turn { from, to: &t2, sealed: b"sealed" });
        let newer = Client { etag: "e2".into(), ..c.clone() };
        assert!(!store.reregister(&c.id, Some((&newer, "other")), turn(&t1)).await.expect("asked"));
        assert!(!store.reregister(&c.id, Some((&newer, "e1")), turn(&t2)).await.expect("asked"));
        let known = store.registration(&c.id).await.expect("read").expect("there");
        assert_eq!(known, Registration { hash: t1.as_bytes().to_vec(), before: None });
        assert_eq!(store.client(&c.id).await.expect("read"), Some(c.clone()));

        assert!(store.reregister(&c.id, Some((&newer, "e1")), turn(&t1)).await.expect("asked"));
        let known = store.registration(&c.id).await.expect("read").expect("there");
        assert_eq!(known.before, Some((t1.as_bytes().to_vec(), b"sealed".to_vec())));
        store.forget_before(&c.id, &t1).await.expect("asked");
        assert_eq!(store.registration(&c.id).await.expect("read"), Some(known), "it isn't the newest");
        store.forget_before(&c.id, &t2).await.expect("asked");
        let known = store.registration(&c.id).await.expect("read").expect("there");
        assert_eq!(known, Registration { hash: t2.as_bytes().to_vec(), before: None });
        store.delete(&c.id, None, None).await.expect("deleted");
        assert_eq!(store.registration(&c.id).await.expect("read"), None);
    }
}
