//! The effects of the outgoing part: the grant, the request, the reply, the Secret with the token.

use super::sender::{assertion_refused, revoker, sender};
use super::{Carry, Patience, Work};
use crate::domain::{KeyRing, Reason};
use crate::http::{Heard, NotSent, Trust};
use crate::link::context::{Context, UnknownClient, state_of};
use crate::link::decide::{self, token_secret};
use crate::link::facts::{Refused, SecretFact};
use crate::link::grant::{Access, Grant, Intent, Kept};
use crate::link::metrics::ByAnswer;
use crate::link::plan::{AskBy, Publication, SecretWrite, TokenPlan};
use crate::link::problem::{Mend, Problem};
use crate::link::turns::Who;
use crate::link::unread::{Unread, UnreadReply};
use crate::outgoing::{
    self, Grace, Grant as Ask, Revoked, TokenError, TokenRequest, Tokens, UNKNOWN_CLIENT_PASSES, give_back,
    unknown_client_delay,
};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// How often the Secret is looked at again, where it changes whenever a token is to be written.
const LOOKS: usize = 3;

impl Carry<'_> {
    pub(super) async fn save(
        &self,
        work: &mut Work,
        grant: Grant,
        version: Option<&str>,
    ) -> Result<(), Problem> {
        let version = self.ctx.store.save_grant(&grant, version).await?;
        work.grant = Some((grant, Some(version)));
        Ok(())
    }

    pub(super) async fn begin(&self, work: &mut Work, holder: &str) -> Result<(), Problem> {
        let Some((mut grant, version)) = work.grant.clone() else { return Err(no_grant()) };
        grant.intent = Some(Intent { holder: holder.to_owned(), at: Timestamp::now() });
        self.save(work, grant, version.as_deref()).await
    }

    pub(super) async fn request(&self, work: &mut Work, plan: &TokenPlan) -> Result<(), Problem> {
        let Some((grant, _)) = &work.grant else { return Err(no_grant()) };
        let sent = grant.refresh_token.clone();
        let client_id = grant.binding.client_id.clone();
        let issuer = grant.binding.issuer.clone();
        let ask = match (&plan.by, &sent) {
            (AskBy::RefreshToken, Some(token)) => Ask::RefreshToken(token.0.clone()),
            (AskBy::RefreshToken, None) => return Err(no_grant()),
            (AskBy::ClientCredentials, _) => Ask::ClientCredentials,
            (AskBy::JwtBearer(assertion), _) => Ask::JwtBearer(assertion.clone()),
        };
        let sender = sender(self.ctx, plan.client.clone()).await?;
        let request = TokenRequest {
            endpoint: plan.endpoint.clone(),
            client: sender.client.clone(),
            grant: ask,
            scopes: plan.scopes.clone(),
            dialect: plan.dialect,
        };
        // Before it is sent: a token lives from when it was made, not from when it arrived.
        let issued_at = Timestamp::now();
        let http = self.ctx.guard.client(Trust::Guarded, None);
        let mut heard = Heard::default();
        match outgoing::request_token_heard(&http, &request, &mut heard).await {
            Ok(reply) => {
                self.answered("success");
                let access = Access::of(&reply, issued_at, &plan.scopes, plan.fingerprint.clone());
                work.reply = Some((reply, access));
                Ok(())
            }
            Err(e @ TokenError::DeadGrant { code }) => {
                self.answered(e.reason());
                // Somebody else may have spent this token and stored its successor.
                let stored = self.ctx.store.grant(&self.seen.uid).await?;
                let Some((mut stored, stored_version)) = stored else { return Err(no_grant()) };
                if stored.refresh_token != sent {
                    return Err(Problem::conflict("the grant"));
                }
                stored.dead = Some(code.to_owned());
                stored.intent = None;
                self.save(work, stored, Some(&stored_version)).await?;
                Err(Problem::dead_grant(code, &plan.way_out))
            }
            Err(e) => {
                self.answered(e.reason());
                let account = assertion_refused(self.ctx, &sender, &e).await;
                // Whoever knows our client there may come after the link.
                let speaks_for_itself = !matches!(plan.by, AskBy::RefreshToken);
                let unknown = matches!(e, TokenError::BadClient { .. });
                if account.is_some() || (unknown && (speaks_for_itself || sender.signs())) {
                    let problem = account.unwrap_or_else(|| Problem::from(&e));
                    let (problem, refused) = self.unknown_client(plan, problem);
                    work.refused = Some(refused);
                    return Err(problem);
                }
                let problem = Problem::from(&e);
                let mut problem = unknown_outcome(&e, sent.as_ref().map(|_| plan.grace), problem);
                if let Some(sent) = &sent
                    && e.outcome_unknown()
                    && self.keep_unread(work, (sent, issued_at), &heard).await
                {
                    problem.message += &format!(
                        "; what it answered is kept for 30 days: {}",
                        decide::how_to_read(self.seen)
                    );
                }
                self.look_anew_if_gone(&e, issuer.as_deref());
                // Only where the server itself said so: a 404 or a 302 of a proxy on the way passes.
                let for_good = matches!(
                    e,
                    TokenError::BadClient { code: Some(_), .. } | TokenError::Rejected { code: Some(_), .. }
                );
                // The host isn't asked for other links of that client either.
                if let Some(asked) = leave_alone(&e) {
                    let host = decide::host_and_port(&plan.endpoint);
                    let who = Who { owner: &self.seen.namespace, client: &client_id };
                    self.ctx.turns.hold(&host, who, Instant::now(), asked);
                }
                // Watches wake a link whenever something near it changes; the server asked for time.
                let until = e.retry_after().and_then(|t| Timestamp::now().checked_add(t).ok());
                if for_good || until.is_some() {
                    let fingerprint = plan.fingerprint.clone();
                    work.refused =
                        Some(Refused { fingerprint, problem: problem.clone(), until, stalls: None });
                }
                Err(problem)
            }
        }
    }

    /// When a server that doesn't know our client is asked again, and until when that may pass by itself.
    fn unknown_client(&self, plan: &TokenPlan, problem: Problem) -> (Problem, Refused) {
        let (of, now) = (format!("{} {}", plan.fingerprint, state_of(self.link)), Instant::now());
        let (since, times) = self.ctx.remember(&self.seen.uid, |memo| {
            let known = memo.unknown_client.take().filter(|known| known.of == of);
            let mut known = known.unwrap_or(UnknownClient { of, since: now, times: 0 });
            known.times += 1;
            let told = (known.since, known.times - 1);
            memo.unknown_client = Some(known);
            told
        });
        let wait = unknown_client_delay(times);
        let left = (since + UNKNOWN_CLIENT_PASSES).checked_duration_since(now).filter(|_| wait.is_some());
        let at = |wait: Duration| Timestamp::now().checked_add(wait).ok();
        let mend = if left.is_some() { Mend::Wait } else { Mend::Edit };
        let problem = Problem { mend, retry_after: wait, ..problem };
        // The time from which on a person must mend it may be past; that it was set says which wait this is.
        let stalls = wait.and_then(|_| at(left.unwrap_or_default()));
        let refused = Refused {
            fingerprint: plan.fingerprint.clone(),
            problem: problem.clone(),
            until: wait.and_then(at),
            stalls,
        };
        (problem, refused)
    }

    /// Has the next try ask for the issuer's document, where the endpoint isn't there that it named.
    fn look_anew_if_gone(&self, e: &TokenError, issuer: Option<&str>) {
        let gone = matches!(e, TokenError::Rejected { code: None, status: 404 | 410 })
            || matches!(e, TokenError::Redirected { status: 301 | 308 })
            || matches!(e, TokenError::NotSent(NotSent::Dns | NotSent::Connect));
        if let Some(issuer) = issuer.filter(|_| gone)
            && self.ctx.discoveries.drop_known(issuer, Instant::now())
        {
            tracing::debug!(namespace = %self.seen.namespace, link = %self.seen.name, "discovery is asked anew");
        }
    }

    fn answered(&self, result: &'static str) {
        self.ctx.metrics.token_requests.get_or_create(&ByAnswer { result }).inc();
    }

    /// The reply is stored before anything uses it. While that doesn't go through it is tried
    /// again: a refresh token that was spent and not stored is lost.
    pub(super) async fn keep(&self, work: &mut Work) -> Result<(), Problem> {
        let Some((reply, access)) = work.reply.clone() else { return Err(no_grant()) };
        let Some((mut grant, mut version)) = work.grant.clone() else { return Err(no_grant()) };
        let spent = grant.refresh_token.clone();
        let known = grant.rotates.filter(|_| grant.unread.is_none());
        let begun = grant.intent.as_ref().map(|intent| intent.at);
        grant.take(&reply, access);
        // Nothing new to remember: this server keeps its refresh tokens, and that is known.
        if known == Some(false) && grant.rotates == Some(false) {
            return Ok(());
        }
        let patience = Patience::new(&self.ctx.tenure);
        let mut patience = match begun {
            Some(at) => patience.of_refresh(at),
            None => patience,
        };
        loop {
            let problem = match self.save(work, grant.clone(), version.as_deref()).await {
                Ok(()) => return Ok(()),
                Err(problem) => problem,
            };
            if problem.mend == Mend::Conflict
                && let Ok(Some((stored, stored_version))) = self.ctx.store.grant(&self.seen.uid).await
            {
                if stored.refresh_token != spent {
                    return Err(problem);
                }
                // Our own write may have gone through unanswered, or only the intent changed.
                version = Some(stored_version);
            }
            patience.after(problem).await?;
        }
    }

    /// Keeps a reply that can't be read: a successor of the refresh token that was sent may stand in it, and
    /// the server won't give it again. Says whether it is kept.
    async fn keep_unread(&self, work: &mut Work, (sent, begun): (&Kept, Timestamp), heard: &Heard) -> bool {
        let Some(reply) = UnreadReply::of(heard) else { return false };
        let mut nonce = [0; 24];
        let (Ok(keys), Ok(())) = (&self.seen.keys, getrandom::fill(&mut nonce)) else { return false };
        let unread = Unread::seal(keys, &self.seen.uid, &reply, nonce, Timestamp::now());
        let mut patience = Patience::new(&self.ctx.tenure).of_refresh(begun);
        loop {
            let Some((mut grant, version)) = work.grant.clone() else { return false };
            // Somebody else had more luck with it.
            if grant.refresh_token.as_ref() != Some(sent) {
                return false;
            }
            // A server that says the same each time costs one write.
            if grant.unread.as_ref().and_then(|u| u.open(keys, &self.seen.uid)).as_ref() == Some(&reply) {
                return true;
            }
            grant.unread = Some(unread.clone());
            let Err(problem) = self.save(work, grant, version.as_deref()).await else { return true };
            if problem.mend == Mend::Conflict
                && let Ok(Some((stored, version))) = self.ctx.store.grant(&self.seen.uid).await
            {
                work.grant = Some((stored, Some(version)));
            }
            if let Err(problem) = patience.after(problem).await {
                tracing::warn!(
                    namespace = %self.seen.namespace, link = %self.seen.name, reason = problem.reason,
                    "a reply that can't be read couldn't be kept"
                );
                return false;
            }
        }
    }

    pub(super) async fn publish(&self, work: &mut Work, publication: &Publication) -> Result<(), Problem> {
        let token = publication.token.clone().or_else(|| work.reply.as_ref().map(|(_, a)| a.clone()));
        let Some(token) = token else { return Err(no_grant()) };
        let keys = self.seen.keys.clone()?;
        let mut written = self.write_token(publication, &token, &keys).await;
        let mut publication = publication.clone();
        for _ in 0..LOOKS {
            if !written.as_ref().is_err_and(|p| p.mend == Mend::Conflict) {
                break;
            }
            // Somebody changed or deleted the Secret while the server was asked: the token is in hand.
            let name = &publication.goal.name;
            publication.over = match self.ctx.look_at(&self.secrets, name, self.link).await {
                SecretFact::Absent => None,
                SecretFact::Own(own) if own.type_ == publication.goal.type_ => {
                    Some(decide::over_of(&publication.goal, &publication.labels, &own))
                }
                // The next pass says what stands in the way.
                _ => break,
            };
            written = self.write_token(&publication, &token, &keys).await;
        }
        written?;
        work.published = Some(token);
        Ok(())
    }

    async fn write_token(
        &self,
        publication: &Publication,
        token: &Access,
        keys: &KeyRing,
    ) -> Result<(), Problem> {
        let (data, annotations) = token_secret(&publication.goal, publication.provider, token, keys)?;
        let write = SecretWrite {
            name: publication.goal.name.clone(),
            type_: publication.goal.type_.clone(),
            labels: publication.labels.clone(),
            annotations,
            data,
            over: publication.over.clone(),
        };
        self.write_secret(&write).await
    }
}

/// Revokes a grant at its server, where that is possible.
///
/// # Errors
/// [`Problem`] where it may be possible later.
pub async fn revoke_grant(ctx: &Context, grant: &Grant) -> Result<(), Problem> {
    let Some((endpoint, client)) = grant.revocation() else { return Ok(()) };
    let Some(client) = revoker(ctx, client, grant).await? else { return Ok(()) };
    let tokens = Tokens {
        refresh: grant.refresh_token.as_ref().map(|Kept(token)| token),
        access: grant.access.as_ref().map(|access| &access.token.0),
    };
    let http = ctx.guard.client(Trust::Guarded, None);
    let what = "the authorization server can't be told to revoke the grant";
    match give_back(&http, grant.preset().revocation, &endpoint, &client, &tokens).await {
        // With wrong credentials, or an endpoint that says no, asking again changes nothing.
        Ok(Revoked::Authenticated | Revoked::WrongCredentials) => Ok(()),
        Ok(Revoked::Unproved(answer)) if answer.status < 500 && answer.status != 429 => Ok(()),
        Ok(Revoked::Unproved(answer)) => Err(Problem {
            retry_after: answer.retry_after,
            ..Problem::wait(Reason::RevocationFailed, format!("{what}: {answer}"))
        }),
        Err(crate::http::SendError::Refused(_)) => Ok(()),
        Err(e) => Err(Problem::wait(Reason::RevocationFailed, format!("{what}: {e}"))),
    }
}

/// The same of a grant that isn't ours to keep: what a server that is away keeps of it ends by itself.
/// Says whether it could be revoked at all.
pub async fn give_back_grant(ctx: &Context, grant: &Grant) -> bool {
    match revoke_grant(ctx, grant).await {
        Ok(()) => grant.revocation().is_some(),
        Err(p) => {
            tracing::warn!(
                namespace = %grant.link.namespace, link = %grant.link.name, reason = p.reason,
                "a grant that isn't kept couldn't be revoked"
            );
            false
        }
    }
}

/// How long a host wants to be left alone, where it said so. One that limits and doesn't say how long
/// means a while.
fn leave_alone(e: &TokenError) -> Option<Duration> {
    const A_WHILE: Duration = Duration::from_secs(2);
    match e {
        TokenError::RateLimited { retry_after } => Some(retry_after.unwrap_or(A_WHILE)),
        e => e.retry_after(),
    }
}

fn no_grant() -> Problem {
    Problem::conflict("the grant")
}

/// A refresh whose outcome isn't known is tried again soon, with the same token: within its grace
/// the server gives the same successor. Where there is none, the token may still be unspent.
fn unknown_outcome(e: &TokenError, refreshing: Option<Grace>, problem: Problem) -> Problem {
    let Some(grace) = refreshing.filter(|_| e.outcome_unknown() && problem.mend != Mend::Edit) else {
        return problem;
    };
    let hope = match grace {
        Grace::Lasting => "the same one is sent again, which servers of this kind take",
        Grace::For(_) => "the same one is sent again, which servers of this kind take for a while",
        Grace::None => {
            "the same one is sent again; servers of this kind take it once, so if it was, a person must connect the link anew"
        }
        Grace::Unknown => "the same one is sent again",
    };
    Problem {
        mend: Mend::Unanswered,
        message: format!("{}; whether the refresh token was spent isn't known, so {hope}", problem.message),
        ..problem
    }
}
