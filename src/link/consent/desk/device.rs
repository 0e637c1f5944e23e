//! The device grant (RFC 8628): begun and asked after by the tool.

use super::{Consents, Given, Polled, Trouble, consent, later};
use crate::domain::SecretString;
use crate::http::Trust;
use crate::link::consent::record::{Consent, Stage};
use crate::link::grant::Kept;
use crate::link::validate::GrantGoal;
use crate::outgoing::device::Polled as Answer;
use crate::outgoing::{DeviceAuthorization, poll_device_code, request_device_code};
use jiff::Timestamp;
use std::sync::Arc;
use std::time::Duration;

impl Consents {
    /// Uses the ticket, and asks for a code that the person enters at the server.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn begin_device(
        &self,
        namespace: &str,
        name: &str,
        ticket: &SecretString,
    ) -> Result<DeviceAuthorization, Trouble> {
        let ready = self.ready(namespace, name, ticket).await?;
        if !matches!(ready.goal.grant, GrantGoal::DeviceCode { .. }) {
            return Err(Trouble::OtherGrant);
        }
        self.unused(&ready).await?;
        let known = self.known(&ready).await?;
        let endpoint = known.endpoints.device_authorization_endpoint.clone().ok_or(Trouble::OtherGrant)?;
        let mut begun = consent(&ready, &known.endpoints, &known.client, Stage::Begun);
        let version = self.open(&ready, &begun).await?;
        let http = self.ctx.guard.client(Trust::Guarded, None);
        let shown = request_device_code(
            &http,
            &endpoint,
            &known.client,
            &ready.goal.scopes,
            ready.goal.server.preset.dialect,
        )
        .await
        .map_err(Trouble::Token)?;
        let interval = i64::try_from(shown.interval.as_secs()).unwrap_or(5);
        begun.stage = Stage::Shown {
            device_code: Kept(shown.device_code.clone()),
            interval,
            next: later(Timestamp::now(), interval),
        };
        self.save(&begun, Some(&version)).await?;
        Ok(shown)
    }

    /// Asks whether the person entered the code.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn poll_device(
        self: &Arc<Self>,
        namespace: String,
        name: String,
        ticket: SecretString,
    ) -> Result<Polled, Trouble> {
        // A device code is redeemed once, too.
        let desk = self.clone();
        let polled = self.ctx.tenure.hold(async move { desk.poll(&namespace, &name, &ticket).await });
        polled.await.unwrap_or(Err(Trouble::Busy))
    }

    async fn poll(&self, namespace: &str, name: &str, ticket: &SecretString) -> Result<Polled, Trouble> {
        let ready = self.ready(namespace, name, ticket).await?;
        let Some((mut consent, version)) = self.consent(&ready.of.uid).await? else {
            return Err(Trouble::Unasked);
        };
        let Stage::Shown { device_code, interval, next } = consent.stage.clone() else {
            return Err(Trouble::Unasked);
        };
        let now = Timestamp::now();
        if consent.ticket != ready.ticket.ticket || !consent.is_open(now) {
            return Err(Trouble::Unasked);
        }
        if let Ok(left) = Duration::try_from(next.duration_since(now))
            && !left.is_zero()
        {
            return Ok(Polled::Pending(left));
        }
        // Whoever saves this asks; a second one waits its turn.
        let shown = |interval, from| Stage::Shown {
            device_code: device_code.clone(),
            interval,
            next: later(from, interval),
        };
        consent.stage = shown(interval, now);
        let version = self.save(&consent, Some(&version)).await?;
        let (ready, known) = self.still(&consent).await?;
        let issued_at = Timestamp::now();
        let polled = poll_device_code(
            &self.ctx.guard.client(Trust::Guarded, None),
            &known.endpoints.token_endpoint,
            &known.client,
            &device_code.0,
            ready.goal.server.preset.dialect,
        )
        .await;
        let (trouble, interval) = match polled {
            Answer::Given(reply) => {
                let given = Given { reply: &reply, issued_at, nonce: None };
                let granted = self.granted(&ready, &known, &mut consent, &version, &given).await;
                if granted.is_err() {
                    // Its device code is used up; nobody asks for it again.
                    let spent = Consent { stage: Stage::Spent, ..consent.clone() };
                    let _ = self.save(&spent, Some(&version)).await;
                    self.end(&consent).await;
                }
                return granted.map(|done| Polled::Done(Box::new(done)));
            }
            Answer::Pending => return Ok(pending(interval)),
            // RFC 8628 section 3.5: five seconds more, from now on; twice as long after a timeout.
            Answer::SlowDown => (None, interval.saturating_add(5)),
            Answer::NoAnswer(e) => {
                tracing::debug!(reason = e.reason(), "no answer to a device code");
                (None, interval.saturating_mul(2))
            }
            Answer::Declined(code) => (Some(Trouble::Denied(code)), interval),
            Answer::Failed(e) => (Some(Trouble::Token(e)), interval),
        };
        let interval = interval.clamp(1, LONGEST);
        consent.stage = if trouble.is_some() { Stage::Spent } else { shown(interval, Timestamp::now()) };
        self.save(&consent, Some(&version)).await?;
        let Some(trouble) = trouble else { return Ok(pending(interval)) };
        self.end(&consent).await;
        Err(trouble)
    }
}

/// The longest pause between two questions, in seconds.
const LONGEST: i64 = 60;

fn pending(secs: i64) -> Polled {
    Polled::Pending(Duration::from_secs(u64::try_from(secs).unwrap_or(5)))
}
