//! Spending a refresh token: once, with a grace, and with a family that falls on reuse.

use super::rows::scopes;
use super::tokens::{AccessToken, insert_access, insert_refresh};
use super::{Store, StoreError, Write};
use crate::domain::{ClientId, ScopeSet};
use crate::server::random::TokenHash;
use jiff::{SignedDuration, Timestamp};
use sqlx::SqliteConnection;
use std::time::Duration;

/// Who spends what, when.
#[derive(Debug, Clone, Copy)]
pub struct Rotation<'a> {
    /// The presented token's hash.
    pub presented: &'a TokenHash,
    /// The client that presents it, which has authenticated.
    pub client: &'a ClientId,
    /// The time.
    pub now: Timestamp,
    /// For how long a spent token still gives its successor.
    pub grace: Duration,
}

/// What a grant allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grant {
    /// What was allowed.
    pub scopes: ScopeSet,
}

/// What takes the place of a spent token.
#[derive(Debug, Clone)]
pub struct Successor {
    /// The new access token.
    pub access: AccessToken,
    /// The new refresh token's hash.
    pub refresh: TokenHash,
    /// When the new refresh token ends.
    pub refresh_expires_at: Timestamp,
    /// The reply, sealed; `None` where there is no grace.
    pub sealed: Option<Vec<u8>>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refreshed {
    /// It was spent now, and its successor is kept.
    Rotated,
    /// It was spent a moment ago: the sealed reply of then.
    Replayed {
        /// What the grant allows.
        grant: Grant,
        /// The reply.
        sealed: Vec<u8>,
    },
    /// Nothing.
    Refused(Refusal),
}

/// Why a refresh token isn't good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// Never seen, revoked, swept, or of another client.
    Unknown,
    /// Too old.
    Expired,
    /// Spent before; its family is revoked now.
    Reused,
}

type SpentRow = (i64, Option<i64>, Option<Vec<u8>>, String);

impl Store {
    /// Spends a refresh token. `successor` is asked what takes its place; when it refuses, nothing
    /// is spent. Of many callers with one token, one spends it and the others replay.
    ///
    /// # Errors
    /// [`StoreError`], or the refusal of `successor`.
    pub async fn rotate<E: From<StoreError>>(
        &self,
        rotation: Rotation<'_>,
        successor: impl FnOnce(&Grant) -> Result<Successor, E>,
    ) -> Result<Refreshed, E> {
        let Rotation { presented, client, now, .. } = rotation;
        let mut write = self.write().await?;
        let spent: Option<i64> = sqlx::query_scalar(
            "UPDATE refresh_tokens SET used_at = ?1 \
             WHERE hash = ?2 AND used_at IS NULL AND expires_at > ?1 \
             AND grant_id IN (SELECT id FROM grants WHERE client_id = ?3) RETURNING grant_id",
        )
        .bind(now.as_millisecond())
        .bind(presented.as_bytes())
        .bind(client.as_str())
        .fetch_optional(&mut *write.tx)
        .await
        .map_err(StoreError::from)?;
        let Some(id) = spent else { return Ok(self.not_spent(write, rotation).await?) };
        let grant = Self::grant(&mut write.tx, id).await?;
        let next = match successor(&grant) {
            Ok(next) => next,
            // With the transaction the spending goes.
            Err(refusal) => {
                write.undo().await?;
                return Err(refusal);
            }
        };
        Self::keep(&mut write.tx, id, rotation, &next).await?;
        write.commit().await?;
        Ok(Refreshed::Rotated)
    }

    async fn grant(on: &mut SqliteConnection, id: i64) -> Result<Grant, StoreError> {
        let words: String =
            sqlx::query_scalar("SELECT scopes FROM grants WHERE id = ?1").bind(id).fetch_one(on).await?;
        Ok(Grant { scopes: scopes(&words)? })
    }

    async fn keep(
        tx: &mut SqliteConnection,
        id: i64,
        rotation: Rotation<'_>,
        next: &Successor,
    ) -> Result<(), StoreError> {
        insert_access(tx, rotation.client, None, Some(id), &next.access).await?;
        insert_refresh(tx, &next.refresh, id, rotation.now, next.refresh_expires_at).await?;
        if let Some(sealed) = &next.sealed {
            sqlx::query("UPDATE refresh_tokens SET successor = ?1 WHERE hash = ?2")
                .bind(sealed)
                .bind(rotation.presented.as_bytes())
                .execute(&mut *tx)
                .await?;
        }
        let last = next.access.expires_at.max(next.refresh_expires_at);
        sqlx::query("UPDATE grants SET expires_at = max(expires_at, ?1) WHERE id = ?2")
            .bind(last.as_millisecond())
            .bind(id)
            .execute(&mut *tx)
            .await?;
        Ok(())
    }

    /// Why it was not spent, as the same transaction sees it. A family whose token came twice ends, also on a full disk.
    async fn not_spent(&self, mut write: Write, rotation: Rotation<'_>) -> Result<Refreshed, StoreError> {
        let row: Option<SpentRow> = sqlx::query_as(
            "SELECT g.id, r.used_at, r.successor, g.scopes FROM refresh_tokens r JOIN grants g ON g.id = r.grant_id \
             WHERE r.hash = ?1 AND g.client_id = ?2",
        )
        .bind(rotation.presented.as_bytes())
        .bind(rotation.client.as_str())
        .fetch_optional(&mut *write.tx)
        .await?;
        write.undo().await?;
        let Some((id, used_at, sealed, words)) = row else {
            return Ok(Refreshed::Refused(Refusal::Unknown));
        };
        let Some(used_at) = used_at else {
            return Ok(Refreshed::Refused(Refusal::Expired));
        };
        let age = rotation.now.duration_since(super::rows::time(used_at)?);
        let within = SignedDuration::try_from(rotation.grace).is_ok_and(|grace| age < grace);
        if let (true, Some(sealed)) = (within, sealed) {
            return Ok(Refreshed::Replayed { grant: Grant { scopes: scopes(&words)? }, sealed });
        }
        let mut ended = self.end_grant(id).await;
        if self.writing.made_room_after(&ended) {
            ended = self.end_grant(id).await;
        }
        ended?;
        Ok(Refreshed::Refused(Refusal::Reused))
    }

    async fn end_grant(&self, id: i64) -> Result<(), StoreError> {
        let mut write = self.write_away().await?;
        let query = sqlx::query("DELETE FROM grants WHERE id = ?1").bind(id);
        let done = query.execute(&mut *write.tx).await?.rows_affected() > 0;
        write.commit_if(done).await
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, client, store};
    use super::super::{NewGrant, Seen};
    use super::*;
    use crate::domain::GrantType;
    use secrecy::SecretString;
    use tokio::time::timeout;

    fn hash(text: &str) -> TokenHash {
        TokenHash::of(&SecretString::from(text.to_owned()))
    }

    fn next(name: &str, now: Timestamp) -> Successor {
        Successor {
            access: AccessToken {
                hash: hash(&format!("access-{name}")),
                grant_type: GrantType::RefreshToken,
                scopes: ScopeSet::parse("a").expect("scope"),
                issued_at: now,
                expires_at: now + SignedDuration::from_secs(60),
            },
            refresh: hash(name),
            refresh_expires_at: now + SignedDuration::from_secs(1000),
            sealed: Some(name.as_bytes().to_vec()),
        }
    }

    struct Case {
        _dir: tempfile::TempDir,
        store: Store,
        client: ClientId,
    }

    impl Case {
        async fn new() -> Self {
            let (_dir, store) = store().await;
            let c = client("c");
            store.insert(&c, None).await.expect("stored");
            let scopes = ScopeSet::parse("a b").expect("scopes");
            let new = NewGrant {
                client: &c.id,
                subject: "ada",
                scopes: &scopes,
                refresh: hash("r0"),
                now: at(0),
                expires_at: at(1000),
            };
            assert!(store.add_grant(new).await.expect("stored"));
            Self { _dir, store, client: c.id }
        }

        async fn spend(&self, token: &str, to: &str, second: i64) -> Refreshed {
            let presented = hash(token);
            let rotation = Rotation {
                presented: &presented,
                client: &self.client,
                now: at(second),
                grace: Duration::from_secs(10),
            };
            let done = self.store.rotate::<StoreError>(rotation, |_| Ok(next(to, at(second)))).await;
            done.expect("an answer")
        }

        async fn sees(&self, token: &str) -> Option<Seen> {
            self.store.token(&hash(token)).await.expect("read")
        }
    }

    #[tokio::test]
    async fn within_the_grace_the_successor_is_the_same() {
        let case = Case::new().await;
        assert_eq!(case.spend("r0", "r1", 1).await, Refreshed::Rotated);
        let Refreshed::Replayed { sealed, .. } = case.spend("r0", "other", 10).await else {
            panic!("no replay")
        };
        assert_eq!(sealed, b"r1");
        assert!(case.sees("other").await.is_none());
        assert!(case.sees("r0").await.is_none(), "a spent token is no live one");
        assert!(case.sees("r1").await.is_some());
    }

    #[tokio::test]
    async fn reuse_after_the_grace_revokes_the_family() {
        let case = Case::new().await;
        assert_eq!(case.spend("r0", "r1", 1).await, Refreshed::Rotated);
        assert_eq!(case.spend("r0", "other", 11).await, Refreshed::Refused(Refusal::Reused));
        for token in ["r1", "access-r1"] {
            assert!(case.sees(token).await.is_none(), "{token}");
        }
        assert_eq!(case.spend("r1", "r2", 11).await, Refreshed::Refused(Refusal::Unknown));
    }

    #[tokio::test]
    async fn a_refused_successor_spends_nothing() {
        let case = Case::new().await;
        let presented = hash("r0");
        let rotation =
            Rotation { presented: &presented, client: &case.client, now: at(1), grace: Duration::ZERO };
        let no = case.store.rotate(rotation, |_| Err::<Successor, _>(StoreError::Corrupt("test"))).await;
        assert!(no.is_err());
        assert_eq!(case.spend("r0", "r1", 2).await, Refreshed::Rotated);
    }

    #[tokio::test]
    async fn an_expired_or_foreign_token_is_refused_and_harms_nobody() {
        let case = Case::new().await;
        assert_eq!(case.spend("r0", "r1", 1000).await, Refreshed::Refused(Refusal::Expired));
        let other = Case { client: ClientId::parse("d").expect("id"), ..Case::new().await };
        assert_eq!(other.spend("r0", "r1", 1).await, Refreshed::Refused(Refusal::Unknown));
        assert!(other.sees("r0").await.is_some());
    }

    #[tokio::test]
    async fn of_many_at_once_one_spends_it() {
        let case = Case::new().await;
        let tries = (0..20).map(|i| {
            let case = &case;
            async move { case.spend("r0", &format!("n{i}"), 1).await }
        });
        let all = futures::future::join_all(tries).await;
        assert_eq!(all.iter().filter(|r| **r == Refreshed::Rotated).count(), 1);
        let mut replies: Vec<_> = all
            .into_iter()
            .filter_map(|r| if let Refreshed::Replayed { sealed, .. } = r { Some(sealed) } else { None })
            .collect();
        assert_eq!(replies.len(), 19);
        replies.dedup();
        assert_eq!(replies.len(), 1);
    }

    /// A client that hangs up, or a time limit, drops the work wherever it stands.
    #[tokio::test]
    async fn work_that_is_given_up_leaves_no_open_transaction() {
        let case = Case::new().await;
        for tenths in 0..60 {
            // Another moment each time; which one it hits doesn't matter.
            let _ = timeout(Duration::from_micros(tenths * 100), case.spend("r0", "r1", 1)).await;
            // The writer is free again, and the token is spent wholly or not at all.
            case.store.sweep(at(0), Duration::ZERO).await.expect("the writer is free");
            let (old, new) = (case.sees("r0").await, case.sees("r1").await);
            assert!(old.is_some() != new.is_some(), "{old:?} {new:?}");
        }
        let last = case.spend("r0", "r2", 2).await;
        assert!(matches!(last, Refreshed::Rotated | Refreshed::Replayed { .. }), "{last:?}");
    }
}
