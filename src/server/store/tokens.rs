//! Access tokens and grants: made, looked up, revoked.

use super::rows::{grant_type, scopes, time};
use super::{Client, Purpose, Store, StoreError};
use crate::domain::{ClientId, GrantType, ScopeSet};
use crate::server::random::TokenHash;
use jiff::Timestamp;
use sqlx::SqliteConnection;

/// An access token to be kept.
#[derive(Debug, Clone)]
pub struct AccessToken {
    /// Its hash.
    pub hash: TokenHash,
    /// What it was asked with.
    pub grant_type: GrantType,
    /// What it is good for.
    pub scopes: ScopeSet,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// A grant to be kept, with its first refresh token.
#[derive(Debug, Clone)]
pub struct NewGrant<'a> {
    /// Who may use it.
    pub client: &'a ClientId,
    /// Who gave it.
    pub subject: &'a str,
    /// What was allowed.
    pub scopes: &'a ScopeSet,
    /// The refresh token's hash.
    pub refresh: TokenHash,
    /// When it was given.
    pub now: Timestamp,
    /// When the refresh token ends.
    pub expires_at: Timestamp,
}

/// A token as it was found, live or not.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// An access token's grant type; `None` for a refresh token.
    pub access: Option<GrantType>,
    /// Who it was issued to.
    pub client: String,
    /// Who gave the grant, if it came of one.
    pub subject: Option<String>,
    /// What it was issued for.
    pub scopes: ScopeSet,
    /// When it was made.
    pub issued_at: Timestamp,
    /// When it ends.
    pub expires_at: Timestamp,
}

/// What a revocation found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Revoked {
    /// An access token; it alone is gone.
    Access,
    /// A refresh token; its whole family is gone.
    Grant,
    /// Nothing that is this client's.
    Nothing,
}

type SeenRow = (Option<String>, String, Option<String>, String, i64, i64);

pub(super) async fn insert_access(
    on: &mut SqliteConnection,
    client: &ClientId,
    epoch: Option<i64>,
    grant: Option<i64>,
    token: &AccessToken,
) -> Result<bool, StoreError> {
    // By way of the client's row: if that is gone, or all its tokens were ended since, so be the token.
    let done = sqlx::query(
        "INSERT INTO access_tokens (hash, client_id, grant_id, grant_type, scopes, issued_at, expires_at) \
         SELECT ?1, id, ?3, ?4, ?5, ?6, ?7 FROM clients WHERE id = ?2 AND token_epoch = coalesce(?8, token_epoch)",
    )
    .bind(token.hash.as_bytes())
    .bind(client.as_str())
    .bind(grant)
    .bind(token.grant_type.as_str())
    .bind(token.scopes.to_string())
    .bind(token.issued_at.as_millisecond())
    .bind(token.expires_at.as_millisecond())
    .bind(epoch)
    .execute(on)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(super) async fn insert_refresh(
    on: &mut SqliteConnection,
    hash: &TokenHash,
    grant: i64,
    now: Timestamp,
    expires_at: Timestamp,
) -> Result<(), StoreError> {
    sqlx::query("INSERT INTO refresh_tokens (hash, grant_id, issued_at, expires_at) VALUES (?1, ?2, ?3, ?4)")
        .bind(hash.as_bytes())
        .bind(grant)
        .bind(now.as_millisecond())
        .bind(expires_at.as_millisecond())
        .execute(on)
        .await?;
    Ok(())
}

impl Store {
    /// Keeps an access token of a client that acts for itself; `false` when the client is gone, or all
    /// its tokens were ended since it was read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_access(&self, client: &Client, token: &AccessToken) -> Result<bool, StoreError> {
        let mut write = self.quick.begin(Purpose::Adds).await?;
        let done = insert_access(&mut write.tx, &client.id, Some(client.token_epoch), None, token).await?;
        write.commit_if(done).await?;
        Ok(done)
    }

    /// How many access tokens of a client are kept, up to `most`.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn live_tokens(&self, client: &ClientId, most: u32) -> Result<u32, StoreError> {
        let sql = "SELECT count(*) FROM (SELECT 1 FROM access_tokens WHERE client_id = ?1 LIMIT ?2)";
        let found: i64 =
            sqlx::query_scalar(sql).bind(client.as_str()).bind(most).fetch_one(&self.readers).await?;
        Ok(u32::try_from(found).unwrap_or(u32::MAX))
    }

    /// Keeps a grant; `false` when the client is gone.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn add_grant(&self, new: NewGrant<'_>) -> Result<bool, StoreError> {
        let mut write = self.write().await?;
        let id: Option<i64> = sqlx::query_scalar(
            "INSERT INTO grants (client_id, subject, scopes, created_at, expires_at) \
             SELECT id, ?2, ?3, ?4, ?5 FROM clients WHERE id = ?1 RETURNING id",
        )
        .bind(new.client.as_str())
        .bind(new.subject)
        .bind(new.scopes.to_string())
        .bind(new.now.as_millisecond())
        .bind(new.expires_at.as_millisecond())
        .fetch_optional(&mut *write.tx)
        .await?;
        let Some(id) = id else {
            write.undo().await?;
            return Ok(false);
        };
        insert_refresh(&mut write.tx, &new.refresh, id, new.now, new.expires_at).await?;
        write.commit().await?;
        Ok(true)
    }

    /// Looks a token up, of either kind. A refresh token that was spent isn't found.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn token(&self, hash: &TokenHash) -> Result<Option<Seen>, StoreError> {
        let row: Option<SeenRow> = sqlx::query_as(
            "SELECT t.grant_type, t.client_id, g.subject, t.scopes, t.issued_at, t.expires_at \
             FROM access_tokens t LEFT JOIN grants g ON g.id = t.grant_id WHERE t.hash = ?1 \
             UNION ALL \
             SELECT NULL, g.client_id, g.subject, g.scopes, r.issued_at, r.expires_at \
             FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id WHERE r.hash = ?1 AND r.used_at IS NULL",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        let Some((access, client, subject, scope_words, issued_at, expires_at)) = row else {
            return Ok(None);
        };
        Ok(Some(Seen {
            access: access.as_deref().map(grant_type).transpose()?,
            client,
            subject,
            scopes: scopes(&scope_words)?,
            issued_at: time(issued_at)?,
            expires_at: time(expires_at)?,
        }))
    }

    /// Revokes a token of a client: an access token alone, a refresh token (spent or not) with its
    /// whole family.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn revoke(&self, client: &ClientId, hash: &TokenHash) -> Result<Revoked, StoreError> {
        // Most revocations of nothing are the operator's proof of credentials; they shouldn't queue
        // for the writer. What is revoked is still decided by the statements below alone.
        let known: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM access_tokens WHERE hash = ?1 UNION ALL SELECT 1 FROM refresh_tokens WHERE hash = ?1",
        )
        .bind(hash.as_bytes())
        .fetch_optional(&self.readers)
        .await?;
        if known.is_none() {
            return Ok(Revoked::Nothing);
        }
        let done = self.try_to_revoke(client, hash).await;
        if self.writing.made_room_after(&done) { self.try_to_revoke(client, hash).await } else { done }
    }

    async fn try_to_revoke(&self, client: &ClientId, hash: &TokenHash) -> Result<Revoked, StoreError> {
        let mut write = self.write_away().await?;
        let grant = sqlx::query(
            "DELETE FROM grants WHERE client_id = ?2 AND id = (SELECT grant_id FROM refresh_tokens WHERE hash = ?1)",
        );
        let access = sqlx::query("DELETE FROM access_tokens WHERE hash = ?1 AND client_id = ?2");
        let mut found = Revoked::Nothing;
        for (what, query) in [(Revoked::Grant, grant), (Revoked::Access, access)] {
            let done = query.bind(hash.as_bytes()).bind(client.as_str()).execute(&mut *write.tx).await?;
            if done.rows_affected() > 0 {
                found = what;
                break;
            }
        }
        write.commit_if(found != Revoked::Nothing).await?;
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, client, store};
    use super::*;
    use secrecy::SecretString;

    fn hash(text: &str) -> TokenHash {
        TokenHash::of(&SecretString::from(text.to_owned()))
    }

    fn access(text: &str) -> AccessToken {
        AccessToken {
            hash: hash(text),
            grant_type: GrantType::ClientCredentials,
            scopes: ScopeSet::parse("a").expect("scope"),
            issued_at: at(0),
            expires_at: at(60),
        }
    }

    #[tokio::test]
    async fn a_token_goes_with_its_client() {
        let (_dir, store) = store().await;
        let c = client("c");
        assert!(!store.add_access(&c, &access("t")).await.expect("no client, no token"));
        store.insert(&c, None).await.expect("stored");
        assert!(store.add_access(&c, &access("t")).await.expect("stored"));
        let seen = store.token(&hash("t")).await.expect("read").expect("there");
        assert_eq!((seen.client.as_str(), seen.access), ("c", Some(GrantType::ClientCredentials)));
        store.delete(&c.id, None, None).await.expect("deleted");
        assert_eq!(store.token(&hash("t")).await.expect("read"), None);
    }

    #[tokio::test]
    async fn ending_all_tokens_takes_those_along_whose_request_is_under_way() {
        let (_dir, store) = store().await;
        let (c, d) = (client("c"), client("d"));
        for client in [&c, &d] {
            store.insert(client, None).await.expect("stored");
            let token = AccessToken { hash: hash(client.id.as_str()), ..access("") };
            assert!(store.add_access(client, &token).await.expect("stored"));
        }
        let authenticated = store.client(&c.id).await.expect("read").expect("a client");
        assert!(!store.end_tokens(&c.id, "another").await.expect("asked"), "it isn't that client any more");
        assert!(store.token(&hash("c")).await.expect("read").is_some());
        assert!(store.end_tokens(&c.id, "e1").await.expect("ended"));
        assert!(store.token(&hash("c")).await.expect("read").is_none());
        assert!(store.token(&hash("d")).await.expect("read").is_some(), "another client's");
        assert!(!store.add_access(&authenticated, &access("t")).await.expect("refused"));
        let again = store.client(&c.id).await.expect("read").expect("a client");
        assert_eq!(again.etag, authenticated.etag);
        assert!(store.add_access(&again, &access("t")).await.expect("stored"));
    }

    #[tokio::test]
    async fn only_its_own_client_revokes_a_token() {
        let (_dir, store) = store().await;
        let (c, d) = (client("c"), client("d"));
        store.insert(&c, None).await.expect("stored");
        store.insert(&d, None).await.expect("stored");
        store.add_access(&c, &access("t")).await.expect("stored");
        let scopes = ScopeSet::parse("a").expect("scope");
        let new = NewGrant {
            client: &c.id,
            subject: "ada",
            scopes: &scopes,
            refresh: hash("r"),
            now: at(0),
            expires_at: at(60),
        };
        assert!(store.add_grant(new).await.expect("stored"));
        for token in ["t", "r"] {
            assert_eq!(store.revoke(&d.id, &hash(token)).await.expect("asked"), Revoked::Nothing);
            assert!(store.token(&hash(token)).await.expect("read").is_some());
        }
        assert_eq!(store.revoke(&c.id, &hash("t")).await.expect("asked"), Revoked::Access);
        assert_eq!(store.revoke(&c.id, &hash("r")).await.expect("asked"), Revoked::Grant);
        assert_eq!(store.revoke(&c.id, &hash("r")).await.expect("asked"), Revoked::Nothing);
        assert_eq!(store.token(&hash("r")).await.expect("read"), None);
    }
}
