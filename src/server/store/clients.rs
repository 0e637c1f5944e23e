//! The clients.

use super::rows::{auth_method, grant_type, scopes, time, words};
use super::sweep::BATCH;
use super::{Store, StoreError, Write};
use crate::domain::{ClientId, ClientMetadata, Owner, RedirectUri};
use crate::server::changes::Change;
use crate::server::secret::StoredSecret;
use jiff::Timestamp;
use sqlx::SqliteConnection;

/// A registered client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Client {
    /// Its identifier.
    pub id: ClientId,
    /// What it is registered with.
    pub metadata: ClientMetadata,
    /// Its secret as it is kept; a public client has none.
    pub secret: Option<StoredSecret>,
    /// The secret that it had before, live or not.
    pub previous: Option<PreviousSecret>,
    /// Who made it.
    pub owner: Option<Owner>,
    /// New at each write.
    pub etag: String,
    /// Goes up when all its tokens are ended. Only the store writes it.
    pub token_epoch: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last written.
    pub updated_at: Timestamp,
}

/// A secret that another has taken the place of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PreviousSecret {
    /// As it is kept.
    pub secret: StoredSecret,
    /// It authenticates until then.
    pub expires_at: Timestamp,
}

impl Client {
    /// The secret before, if it still authenticates.
    pub fn live_previous(&self, now: Timestamp) -> Option<&PreviousSecret> {
        self.previous.as_ref().filter(|p| now < p.expires_at)
    }

    pub(super) fn change(&self, actor: Option<&str>) -> Change {
        let actor = actor.map(str::to_owned);
        Change { id: self.id.clone(), owner: self.owner.clone(), deleted: false, actor }
    }
}

/// What becomes of a client's tokens and grants with a write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tokens {
    /// They stay.
    Keep,
    /// They all end, in the same transaction.
    End,
}

/// What a deletion found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Deleted {
    /// The client, and it is gone now.
    Gone,
    /// No client.
    Absent,
    /// A client with another ETag; nothing was deleted.
    Changed,
}

#[derive(sqlx::FromRow)]
struct Row {
    id: String,
    name: String,
    uri: Option<String>,
    redirect_uris: String,
    grant_types: String,
    scopes: String,
    auth_method: String,
    secret: Option<String>,
    previous_secret: Option<String>,
    previous_expires_at: Option<i64>,
    owner: Option<String>,
    etag: String,
    token_epoch: i64,
    created_at: i64,
    updated_at: i64,
}

impl TryFrom<Row> for Client {
    type Error = StoreError;

    fn try_from(row: Row) -> Result<Self, StoreError> {
        // Without `..`, so that a new column can't be forgotten here.
        let Row {
            id,
            name,
            uri,
            redirect_uris,
            grant_types,
            scopes: scope_words,
            auth_method: method,
            secret,
            previous_secret,
            previous_expires_at,
            owner,
            etag,
            token_epoch,
            created_at,
            updated_at,
        } = row;
        let redirect = |u: &str| RedirectUri::parse(u).map_err(|_| StoreError::Corrupt("redirect URI"));
        let owner = owner.map(|o| serde_json::from_str(&o)).transpose();
        let previous = previous_secret.zip(previous_expires_at).map(|(secret, end)| {
            let secret = StoredSecret::from_stored(secret);
            Ok::<_, StoreError>(PreviousSecret { secret, expires_at: time(end)? })
        });
        Ok(Self {
            id: ClientId::parse(&id).map_err(|_| StoreError::Corrupt("client ID"))?,
            metadata: ClientMetadata {
                name,
                uri,
                redirect_uris: redirect_uris.split_whitespace().map(redirect).collect::<Result<_, _>>()?,
                grant_types: grant_types.split_whitespace().map(grant_type).collect::<Result<_, _>>()?,
                scopes: scopes(&scope_words)?,
                auth_method: auth_method(&method)?,
            },
            secret: secret.map(StoredSecret::from_stored),
            previous: previous.transpose()?,
            owner: owner.map_err(|_| StoreError::Corrupt("client's owner"))?,
            etag,
            token_epoch,
            created_at: time(created_at)?,
            updated_at: time(updated_at)?,
        })
    }
}

impl Store {
    /// The client with this identifier.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn client(&self, id: &ClientId) -> Result<Option<Client>, StoreError> {
        let row: Option<Row> = sqlx::query_as("SELECT * FROM clients WHERE id = ?1")
            .bind(id.as_str())
            .fetch_optional(&self.readers)
            .await?;
        row.map(Client::try_from).transpose()
    }

    /// Adds a client, on behalf of `actor`; `false` when there is one with its identifier.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn insert(&self, client: &Client, actor: Option<&str>) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        if !insert(&mut write.tx, client).await? {
            write.undo().await?;
            return Ok(false);
        }
        write.commit_and_tell(self.changes.clone(), client.change(actor)).await?;
        Ok(true)
    }

    /// Writes over the client that has `etag`, on behalf of `actor`; `false` when there is none with it any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn replace(
        &self,
        client: &Client,
        etag: &str,
        tokens: Tokens,
        actor: Option<&str>,
    ) -> Result<bool, StoreError> {
        if tokens == Tokens::Keep {
            return self.try_to_replace(self.write().await?, client, etag, tokens, actor).await;
        }
        let done = self.try_to_replace(self.write_away().await?, client, etag, tokens, actor).await;
        if !self.writing.made_room_after(&done) {
            return done;
        }
        self.try_to_replace(self.write_away().await?, client, etag, tokens, actor).await
    }

    async fn try_to_replace(
        &self,
        mut write: Write,
        client: &Client,
        etag: &str,
        tokens: Tokens,
        actor: Option<&str>,
    ) -> Result<bool, StoreError> {
        if !update(&mut write.tx, client, etag).await? {
            write.undo().await?;
            return Ok(false);
        }
        if tokens == Tokens::End {
            end_tokens(&mut write.tx, &client.id).await?;
        }
        write.commit_and_tell(self.changes.clone(), client.change(actor)).await?;
        Ok(true)
    }

    /// Ends all tokens and grants of the client that has `etag`, which stays as it is; `false` when there is none with it
    /// any more.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn end_tokens(&self, id: &ClientId, etag: &str) -> Result<bool, StoreError> {
        let done = self.try_to_end_tokens(id, etag).await;
        if self.writing.made_room_after(&done) { self.try_to_end_tokens(id, etag).await } else { done }
    }

    async fn try_to_end_tokens(&self, id: &ClientId, etag: &str) -> Result<bool, StoreError> {
        let mut write = self.write_away().await?;
        let there: Option<i64> = sqlx::query_scalar("SELECT 1 FROM clients WHERE id = ?1 AND etag = ?2")
            .bind(id.as_str())
            .bind(etag)
            .fetch_optional(&mut *write.tx)
            .await?;
        if there.is_some() {
            end_tokens(&mut write.tx, id).await?;
        }
        write.commit_if(there.is_some()).await?;
        Ok(there.is_some())
    }

    /// Deletes a client with all its grants and tokens, on behalf of `actor`; with `etag`, only while it has that.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn delete(
        &self,
        id: &ClientId,
        etag: Option<&str>,
        actor: Option<&str>,
    ) -> Result<Deleted, StoreError> {
        let done = self.try_to_delete(id, etag, actor).await;
        if !self.writing.made_room_after(&done) {
            return done;
        }
        // All that it has in one transaction may be more than the reserve: its tokens go first, some at a time.
        self.shed(id, etag).await?;
        self.try_to_delete(id, etag, actor).await
    }

    /// Deletes what a client was issued, some at a time, if it has `etag`.
    async fn shed(&self, id: &ClientId, etag: Option<&str>) -> Result<(), StoreError> {
        for sql in [
            "DELETE FROM access_tokens WHERE hash IN (SELECT hash FROM access_tokens WHERE client_id = \
             (SELECT id FROM clients WHERE id = ?1 AND etag = coalesce(?2, etag)) LIMIT ?3)",
            "DELETE FROM refresh_tokens WHERE hash IN (SELECT r.hash FROM refresh_tokens r \
             JOIN grants g ON g.id = r.grant_id WHERE g.client_id = \
             (SELECT id FROM clients WHERE id = ?1 AND etag = coalesce(?2, etag)) LIMIT ?3)",
            "DELETE FROM grants WHERE id IN (SELECT id FROM grants WHERE client_id = \
             (SELECT id FROM clients WHERE id = ?1 AND etag = coalesce(?2, etag)) LIMIT ?3)",
        ] {
            loop {
                let mut write = self.write_away().await?;
                let query = sqlx::query(sql).bind(id.as_str()).bind(etag).bind(BATCH);
                let gone = query.execute(&mut *write.tx).await?.rows_affected();
                write.commit_if(gone > 0).await?;
                if gone < u64::from(BATCH) {
                    break;
                }
            }
        }
        Ok(())
    }

    async fn try_to_delete(
        &self,
        id: &ClientId,
        etag: Option<&str>,
        actor: Option<&str>,
    ) -> Result<Deleted, StoreError> {
        let mut write = self.write_away().await?;
        // The rest goes by ON DELETE CASCADE, in this transaction.
        let sql = "DELETE FROM clients WHERE id = ?1 AND etag = coalesce(?2, etag) RETURNING *";
        let gone: Option<Row> =
            sqlx::query_as(sql).bind(id.as_str()).bind(etag).fetch_optional(&mut *write.tx).await?;
        if let Some(gone) = gone {
            // A row that can't be read can be deleted.
            let owner = Client::try_from(gone).ok().and_then(|c| c.owner);
            let change = Change { id: id.clone(), owner, deleted: true, actor: actor.map(str::to_owned) };
            write.commit_and_tell(self.changes.clone(), change).await?;
            return Ok(Deleted::Gone);
        }
        let there: Option<i64> = sqlx::query_scalar("SELECT 1 FROM clients WHERE id = ?1")
            .bind(id.as_str())
            .fetch_optional(&mut *write.tx)
            .await?;
        write.undo().await?;
        Ok(if there.is_some() { Deleted::Changed } else { Deleted::Absent })
    }

    /// Clients in the order of their identifiers, after `after`, of `installation` or of all.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn clients(
        &self,
        limit: u32,
        after: Option<&str>,
        installation: Option<&str>,
    ) -> Result<Vec<Client>, StoreError> {
        let all = "SELECT * FROM clients WHERE id > ?1 ORDER BY id LIMIT ?2";
        let some = "SELECT * FROM clients WHERE id > ?1 AND owner_installation = ?3 ORDER BY id LIMIT ?2";
        let mut query = sqlx::query_as::<_, Row>(if installation.is_some() { some } else { all })
            .bind(after.unwrap_or(""))
            .bind(limit);
        if let Some(installation) = installation {
            query = query.bind(installation);
        }
        query.fetch_all(&self.readers).await?.into_iter().map(Client::try_from).collect()
    }
}

/// Adds a client; `false` when there is one with its identifier.
pub(super) async fn insert(on: &mut SqliteConnection, client: &Client) -> Result<bool, StoreError> {
    let sql = "INSERT INTO clients (name, uri, redirect_uris, grant_types, scopes, auth_method, secret, \
               previous_secret, previous_expires_at, owner, owner_installation, etag, updated_at, id, created_at) \
               VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13, ?14, ?15) ON CONFLICT (id) DO NOTHING";
    let query = bind(sql, client)?.bind(client.created_at.as_millisecond());
    Ok(query.execute(on).await?.rows_affected() == 1)
}

/// Writes over the client that has `etag`; `false` when there is none with it any more.
pub(super) async fn update(
    on: &mut SqliteConnection,
    client: &Client,
    etag: &str,
) -> Result<bool, StoreError> {
    let sql = "UPDATE clients SET name = ?1, uri = ?2, redirect_uris = ?3, grant_types = ?4, scopes = ?5, \
               auth_method = ?6, secret = ?7, previous_secret = ?8, previous_expires_at = ?9, owner = ?10, \
               owner_installation = ?11, etag = ?12, updated_at = ?13 WHERE id = ?14 AND etag = ?15";
    Ok(bind(sql, client)?.bind(etag).execute(on).await?.rows_affected() == 1)
}

/// Binds what both writes have in common, as ?1 to ?14.
fn bind<'q>(
    sql: &'static str,
    client: &'q Client,
) -> Result<sqlx::query::Query<'q, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>, StoreError> {
    let Client { id, metadata, secret, previous, owner, etag, token_epoch: _, created_at: _, updated_at } =
        client;
    let ClientMetadata { name, uri, redirect_uris, grant_types, scopes, auth_method } = metadata;
    let owner_json = owner.as_ref().map(serde_json::to_string).transpose();
    Ok(sqlx::query(sql)
        .bind(name)
        .bind(uri)
        .bind(words(redirect_uris))
        .bind(words(grant_types))
        .bind(scopes.to_string())
        .bind(auth_method.as_str())
        .bind(secret.as_ref().map(StoredSecret::to_stored))
        .bind(previous.as_ref().map(|p| p.secret.to_stored()))
        .bind(previous.as_ref().map(|p| p.expires_at.as_millisecond()))
        .bind(owner_json.map_err(|_| StoreError::Corrupt("client's owner"))?)
        .bind(owner.as_ref().map(|o| o.installation.as_str()))
        .bind(etag)
        .bind(updated_at.as_millisecond())
        .bind(id.as_str()))
}

/// A request that has authenticated but whose token isn't kept yet finds another epoch.
async fn end_tokens(on: &mut SqliteConnection, id: &ClientId) -> Result<(), StoreError> {
    for sql in [
        "UPDATE clients SET token_epoch = token_epoch + 1 WHERE id = ?1",
        "DELETE FROM access_tokens WHERE client_id = ?1",
        "DELETE FROM grants WHERE client_id = ?1",
    ] {
        sqlx::query(sql).bind(id.as_str()).execute(&mut *on).await?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, client, store};
    use super::*;

    #[tokio::test]
    async fn a_client_comes_back_as_it_was_written() {
        let (_dir, store) = store().await;
        let mut full = client("team a/ci");
        full.metadata.uri = Some("https://ci.example.com".into());
        full.metadata.redirect_uris = ["https://a.example/1", "https://a.example/2"]
            .map(|u| RedirectUri::parse(u).expect("uri"))
            .into();
        full.secret = Some(StoredSecret::from_stored("sha256:x".into()));
        full.previous =
            Some(PreviousSecret { secret: StoredSecret::from_stored("sha256:y".into()), expires_at: at(5) });
        full.owner = Some(Owner {
            installation: "i".into(),
            namespace: "n".into(),
            namespace_uid: "nu".into(),
            name: "l".into(),
            uid: "u".into(),
            serial: 3,
            since: 0,
            previous_until: 0,
            request: String::new(),
            mark: "m".into(),
            deletion: Some("d".into()),
        });
        assert!(store.insert(&full, None).await.expect("stored"));
        assert!(!store.insert(&client("team a/ci"), None).await.expect("refused"));
        assert_eq!(store.client(&full.id).await.expect("read"), Some(full.clone()));

        let newer = Client { etag: "e2".into(), updated_at: at(9), owner: None, ..full.clone() };
        assert!(!store.replace(&newer, "e0", Tokens::Keep, None).await.expect("refused"));
        assert!(store.replace(&newer, "e1", Tokens::Keep, Some("a")).await.expect("replaced"));
        assert_eq!(store.client(&full.id).await.expect("read"), Some(newer));
    }

    #[tokio::test]
    async fn deletion_honours_the_etag() {
        let (_dir, store) = store().await;
        let c = client("c");
        assert_eq!(store.delete(&c.id, None, None).await.expect("asked"), Deleted::Absent);
        store.insert(&c, Some("a")).await.expect("stored");
        assert_eq!(store.delete(&c.id, Some("other"), None).await.expect("asked"), Deleted::Changed);
        assert_eq!(store.delete(&c.id, Some("e1"), Some("b")).await.expect("asked"), Deleted::Gone);
        assert_eq!(store.client(&c.id).await.expect("read"), None);
    }

    #[tokio::test]
    async fn lists_are_ordered_and_go_on_after() {
        let (_dir, store) = store().await;
        for id in ["b", "c", "a"] {
            store.insert(&client(id), None).await.expect("stored");
        }
        let ids = async |limit, after| {
            let found = store.clients(limit, after, None).await.expect("read");
            found.iter().map(|c| c.id.to_string()).collect::<String>()
        };
        assert_eq!(ids(2, None).await, "ab");
        assert_eq!(ids(2, Some("b")).await, "c");
        assert!(store.clients(9, None, Some("i")).await.expect("read").is_empty());
    }
}
