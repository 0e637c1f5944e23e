//! Tokens of ServiceAccounts (Kubernetes `TokenRequest`), with which a client authenticates that has
//! no secret. Only `execute` asks for one, and only when a request is due.
//!
//! A token is bound to nothing but its ServiceAccount, lives as short as the API server lets it, and
//! is kept in memory alone. Whoever gets one may be anybody, so it must open nothing here: an
//! audience of the API server's own is refused before a token for it is made. Which those are the
//! API server says itself: it fills them in where a request names none. The token of that answer
//! is dropped unread.

use super::problem::Problem;
use crate::domain::text::Shown;
use crate::domain::{ExposeSecret as _, Reason, SecretString};
use crate::outgoing::ServiceAccount;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use k8s_openapi::api::authentication::v1::{SelfSubjectReview, TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount as Object;
use kube::api::PostParams;
use kube::{Api, Client};
use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The shortest life that the API server gives a token.
const LIFE: Duration = Duration::from_secs(600);

/// How long the API server's own audiences are taken to be as they were.
const AUDIENCES_FRESH: Duration = Duration::from_secs(600);

/// More tokens than this aren't held without need.
const MOST: usize = 4096;

const FIELD: &str = "spec.outgoing.oauth2.client.serviceAccount";

/// A token, and what is known of it.
#[derive(Clone)]
pub struct Assertion {
    /// The token.
    pub token: SecretString,
    /// `iss` of the token: what the server has to trust.
    pub issuer: String,
    made: Instant,
    life: Duration,
}

impl fmt::Debug for Assertion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Assertion").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Assertion {
    /// A new one is made when a third of its life is left.
    fn is_fresh(&self, now: Instant) -> bool {
        now.duration_since(self.made) < self.life * 2 / 3
    }
}

/// What the API server answered.
struct Answer {
    token: SecretString,
    audiences: Vec<String>,
    life: Duration,
}

/// What is held of one; held while it is asked for.
type Slot = tokio::sync::Mutex<Option<Assertion>>;

/// The tokens that were made.
pub struct AccountTokens {
    client: Client,
    slots: Mutex<HashMap<ServiceAccount, Arc<Slot>>>,
    /// The API server's own audiences, and when it said so.
    own: Mutex<Option<(Instant, Vec<String>)>>,
    /// Namespace and name of our own ServiceAccount.
    us: tokio::sync::OnceCell<(String, String)>,
}

impl AccountTokens {
    /// Nothing is made yet.
    pub fn new(client: Client) -> Self {
        Self { client, slots: Mutex::default(), own: Mutex::default(), us: tokio::sync::OnceCell::new() }
    }

    /// A token that serves for minutes at least.
    ///
    /// # Errors
    /// [`Problem`] that says what is missing and how it is granted.
    pub async fn get(&self, of: &ServiceAccount, now: Instant) -> Result<Assertion, Problem> {
        let slot = {
            let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
            if slots.len() >= MOST {
                slots.retain(|_, slot| {
                    let fresh = |held: &Option<Assertion>| held.as_ref().is_some_and(|a| a.is_fresh(now));
                    slot.try_lock().map_or(true, |held| fresh(&held))
                });
            }
            slots.entry(of.clone()).or_default().clone()
        };
        let mut held = slot.lock().await;
        if let Some(assertion) = held.as_ref().filter(|a| a.is_fresh(now)) {
            return Ok(assertion.clone());
        }
        *held = None;
        self.permit(of, now).await?;
        let answer = self.request(of, vec![of.audience.clone()]).await?;
        let assertion = Assertion {
            issuer: issuer(&answer.token),
            token: answer.token,
            // Before it was asked for: it lives from when it was made.
            made: now,
            life: answer.life,
        };
        *held = Some(assertion.clone());
        Ok(assertion)
    }

    /// Has the next one made anew: the server refused this one.
    pub async fn forget(&self, of: &ServiceAccount) {
        let slot = self.slots.lock().unwrap_or_else(PoisonError::into_inner).get(of).cloned();
        if let Some(slot) = slot {
            *slot.lock().await = None;
        }
    }

    /// Whether there may be a token for this audience at all.
    async fn permit(&self, of: &ServiceAccount, now: Instant) -> Result<(), Problem> {
        let known = self.own.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let own = match known.filter(|(at, _)| now.duration_since(*at) < AUDIENCES_FRESH) {
            Some((_, own)) => own,
            None => {
                let own = self.request(of, Vec::new()).await?.audiences;
                *self.own.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, own.clone()));
                own
            }
        };
        if own.is_empty() {
            return Err(Problem::wait(
                Reason::AudienceUnknown,
                format!(
                    "{FIELD}.audience: the API server doesn't say which audiences are its own; it is asked again"
                ),
            ));
        }
        if own.contains(&of.audience) {
            return Err(Problem::edit(
                Reason::AudienceForbidden,
                format!(
                    "{FIELD}.audience: {} is the API server's own: who gets such a token is ServiceAccount {} here; name \
                     the audience that the authorization server wants",
                    Shown(&of.audience),
                    of.name
                ),
            ));
        }
        Ok(())
    }

    /// Asks for a token. An empty list of audiences asks for the API server's own.
    async fn request(&self, of: &ServiceAccount, audiences: Vec<String>) -> Result<Answer, Problem> {
        let api: Api<Object> = Api::namespaced(self.client.clone(), &of.namespace);
        let seconds = i64::try_from(LIFE.as_secs()).ok();
        let spec = TokenRequestSpec { audiences, expiration_seconds: seconds, bound_object_ref: None };
        let ask = TokenRequest { spec, ..TokenRequest::default() };
        let answer = match api.create_token_request(&of.name, &PostParams::default(), &ask).await {
            Ok(answer) => answer,
            Err(e) => return Err(self.problem(of, &e).await),
        };
        let Some(status) = answer.status.filter(|s| !s.token.is_empty()) else {
            return Err(Problem::wait(
                Reason::ApiServerError,
                format!(
                    "the API server answers without a token of ServiceAccount {}; it is asked again",
                    of.name
                ),
            ));
        };
        // The API server may have chosen another life.
        let life = answer.spec.expiration_seconds.and_then(|s| u64::try_from(s).ok());
        Ok(Answer {
            token: status.token.into(),
            audiences: answer.spec.audiences,
            life: life.map_or(LIFE, Duration::from_secs),
        })
    }

    async fn problem(&self, of: &ServiceAccount, e: &kube::Error) -> Problem {
        let ServiceAccount { namespace, name, .. } = of;
        match e {
            kube::Error::Api(s) if s.code == 404 => Problem::wait(
                Reason::ServiceAccountMissing,
                format!("{FIELD}: ServiceAccount {name} doesn't exist in namespace {namespace}; create it"),
            ),
            kube::Error::Api(s) if s.code == 403 => {
                let causes = s.details.iter().flat_map(|d| &d.causes);
                if causes.into_iter().any(|c| c.reason == "NamespaceTerminating") {
                    return Problem::wait(
                        Reason::NamespaceTerminating,
                        format!(
                            "namespace {namespace} is being deleted, and its ServiceAccounts get no more tokens"
                        ),
                    );
                }
                let us = self.us().await;
                Problem::wait(Reason::ServiceAccountTokenForbidden, grant(of, us.as_ref()))
            }
            e => Problem::kube(&format!("the token of ServiceAccount {name}"), e),
        }
    }

    /// Who we are to the API server.
    async fn us(&self) -> Option<(String, String)> {
        let ask = || async {
            let api: Api<SelfSubjectReview> = Api::all(self.client.clone());
            let review = api.create(&PostParams::default(), &SelfSubjectReview::default()).await.ok();
            let user = review.and_then(|r| r.status?.user_info?.username).ok_or(())?;
            let (namespace, name) =
                user.strip_prefix("system:serviceaccount:").and_then(|u| u.split_once(':')).ok_or(())?;
            Ok::<_, ()>((namespace.to_owned(), name.to_owned()))
        };
        self.us.get_or_try_init(ask).await.ok().cloned()
    }
}

/// What the user applies so that we may make tokens of this one ServiceAccount.
fn grant(of: &ServiceAccount, us: Option<&(String, String)>) -> String {
    let ServiceAccount { namespace, name, .. } = of;
    let (our_namespace, our_name) = us.map_or(("OPERATOR-NAMESPACE", "OPERATOR"), |(ns, n)| (ns, n));
    format!(
        "{FIELD}: the operator may not make tokens of ServiceAccount {name}; grant it in namespace {namespace} by a Role \
         with rules: [{{apiGroups: [\"\"], resources: [serviceaccounts/token], resourceNames: [{name}], verbs: [create]}}] \
         and a RoleBinding of it with subjects: [{{kind: ServiceAccount, name: {our_name}, namespace: {our_namespace}}}] \
         (docs/federated.md has both whole)"
    )
}

/// Whether no token can be had until somebody changes something here: nothing was sent to a server.
pub fn out_of_reach(problem: &Problem) -> bool {
    matches!(
        problem.why,
        Reason::ServiceAccountMissing
            | Reason::ServiceAccountTokenForbidden
            | Reason::NamespaceTerminating
            | Reason::AudienceForbidden
    )
}

/// `iss` of a token of the API server's, to say what has to be trusted.
fn issuer(token: &SecretString) -> String {
    #[derive(serde::Deserialize)]
    struct Claims {
        iss: String,
    }
    let claims = token.expose_secret().split('.').nth(1).and_then(|c| URL_SAFE_NO_PAD.decode(c).ok());
    let claims = claims.and_then(|c| serde_json::from_slice::<Claims>(&c).ok());
    claims.map_or_else(|| "unknown".to_owned(), |c| Shown(&c.iss).to_string())
}

#[cfg(test)]
#[path = "service_account_tests.rs"]
mod tests;
