//! Clearing out what has expired, a bounded batch at a time, so that a sweep never holds the
//! writer for long.

use super::{Purpose, Store, StoreError};
use jiff::{SignedDuration, Timestamp};
use std::time::Duration;

/// Rows of a kind that go in one transaction.
pub(super) const BATCH: u32 = 500;

impl Store {
    /// Clears out all that expired before `now`, and sealed replies whose grace is over. Returns
    /// the number of tokens, grants and previous secrets that went.
    ///
    /// # Errors
    /// [`StoreError`]; what was cleared out until then stays so.
    pub async fn sweep(&self, now: Timestamp, grace: Duration) -> Result<u64, StoreError> {
        self.writing.keep_reserve().await;
        let grace = SignedDuration::try_from(grace).unwrap_or(SignedDuration::ZERO);
        let graceless = now.checked_sub(grace).unwrap_or(now).as_millisecond();
        let now = now.as_millisecond();
        let mut gone = 0;
        for (sql, before) in [
            (
                "DELETE FROM access_tokens WHERE hash IN \
                 (SELECT hash FROM access_tokens WHERE expires_at <= ?1 LIMIT ?2)",
                now,
            ),
            (
                "DELETE FROM refresh_tokens WHERE hash IN \
                 (SELECT hash FROM refresh_tokens WHERE expires_at <= ?1 LIMIT ?2)",
                now,
            ),
            ("DELETE FROM grants WHERE id IN (SELECT id FROM grants WHERE expires_at <= ?1 LIMIT ?2)", now),
            (
                "DELETE FROM registration_tokens WHERE id IN \
                 (SELECT id FROM registration_tokens WHERE expires_at <= ?1 LIMIT ?2)",
                now,
            ),
            // Nobody could see it any more, so the client is the same without: its ETag stays.
            (
                "UPDATE clients SET previous_secret = NULL, previous_expires_at = NULL WHERE id IN \
                 (SELECT id FROM clients WHERE previous_expires_at <= ?1 LIMIT ?2)",
                now,
            ),
        ] {
            gone += self.in_batches(sql, before).await?;
        }
        self.in_batches(
            "UPDATE refresh_tokens SET successor = NULL WHERE hash IN \
             (SELECT hash FROM refresh_tokens WHERE successor IS NOT NULL AND used_at <= ?1 LIMIT ?2)",
            graceless,
        )
        .await?;
        Ok(gone)
    }

    async fn batch(&self, sql: &'static str, before: i64) -> Result<u64, StoreError> {
        // What a power cut brings back is swept again.
        let mut write = self.quick.begin(Purpose::TakesAway).await?;
        let query = sqlx::query(sql).bind(before).bind(BATCH);
        let done = query.execute(&mut *write.tx).await?.rows_affected();
        write.commit_if(done > 0).await?;
        Ok(done)
    }

    async fn in_batches(&self, sql: &'static str, before: i64) -> Result<u64, StoreError> {
        let mut all = 0;
        loop {
            let mut done = self.batch(sql, before).await;
            if self.writing.made_room_after(&done) {
                done = self.batch(sql, before).await;
            }
            let done = done?;
            all += done;
            if done < u64::from(BATCH) {
                return Ok(all);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{at, client, store};
    use super::super::{AccessToken, Client, NewGrant, PreviousSecret, Refreshed, Rotation, Successor};
    use super::*;
    use crate::domain::{GrantType, ScopeSet};
    use crate::server::random::TokenHash;
    use secrecy::SecretString;

    fn hash(text: &str) -> TokenHash {
        TokenHash::of(&SecretString::from(text.to_owned()))
    }

    fn access(name: &str, end: i64) -> AccessToken {
        AccessToken {
            hash: hash(name),
            grant_type: GrantType::ClientCredentials,
            scopes: ScopeSet::default(),
            issued_at: at(0),
            expires_at: at(end),
        }
    }

    #[tokio::test]
    async fn what_has_expired_goes_and_the_rest_stays() {
        let (_dir, store) = store().await;
        let c = client("c");
        store.insert(&c, None).await.expect("stored");
        for i in 0..(BATCH + 3) {
            store.add_access(&c, &access(&i.to_string(), 10)).await.expect("stored");
        }
        store.add_access(&c, &access("later", 11)).await.expect("stored");
        assert_eq!(store.sweep(at(10), Duration::ZERO).await.expect("swept"), u64::from(BATCH) + 3);
        assert_eq!(store.sweep(at(10), Duration::ZERO).await.expect("swept"), 0);
        assert!(store.token(&hash("later")).await.expect("read").is_some());
    }

    #[tokio::test]
    async fn a_previous_secret_goes_when_its_time_is_over() {
        use crate::server::secret::StoredSecret;
        let (_dir, store) = store().await;
        let mut c = client("c");
        let secret = StoredSecret::from_stored("sha256:x".into());
        c.previous = Some(PreviousSecret { secret, expires_at: at(10) });
        store.insert(&c, None).await.expect("stored");
        assert_eq!(store.sweep(at(9), Duration::ZERO).await.expect("swept"), 0);
        assert_eq!(store.client(&c.id).await.expect("read"), Some(c.clone()));
        assert!(c.live_previous(at(9)).is_some() && c.live_previous(at(10)).is_none());
        assert_eq!(store.sweep(at(10), Duration::ZERO).await.expect("swept"), 1);
        assert_eq!(store.client(&c.id).await.expect("read"), Some(Client { previous: None, ..c }));
    }

    #[tokio::test]
    async fn a_sealed_reply_stays_for_the_grace_only() {
        let (_dir, store) = store().await;
        let c = client("c");
        store.insert(&c, None).await.expect("stored");
        let scopes = ScopeSet::default();
        let first = hash("r0");
        let grant = NewGrant {
            client: &c.id,
            subject: "ada",
            scopes: &scopes,
            refresh: first,
            now: at(0),
            expires_at: at(100),
        };
        assert!(store.add_grant(grant).await.expect("stored"));
        let grace = Duration::from_secs(10);
        let rotation = |now| Rotation { presented: &first, client: &c.id, now, grace };
        let next = Successor {
            access: access("a1", 60),
            refresh: hash("r1"),
            refresh_expires_at: at(200),
            sealed: Some(b"reply".to_vec()),
        };
        let done = store.rotate::<StoreError>(rotation(at(1)), |_| Ok(next)).await.expect("spent");
        assert_eq!(done, Refreshed::Rotated);

        store.sweep(at(10), grace).await.expect("swept");
        let again = store.rotate::<StoreError>(rotation(at(10)), |_| Err(StoreError::Corrupt("no"))).await;
        assert!(matches!(again, Ok(Refreshed::Replayed { .. })), "{again:?}");
        store.sweep(at(11), grace).await.expect("swept");
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM refresh_tokens WHERE successor IS NOT NULL")
            .fetch_one(&store.readers)
            .await
            .expect("read");
        assert_eq!(left, 0);
        assert_eq!(
            store.sweep(at(200), grace).await.expect("swept"),
            4,
            "an access token, two refresh tokens, a grant"
        );
    }
}
