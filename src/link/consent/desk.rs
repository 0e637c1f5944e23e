//! The person's side of a consent: what a request to the operator's pages reads, checks and writes.
//!
//! Any replica answers; all that must last stands in the consent's record, and each step takes the
//! version that it read, so that none is done twice. Who may begin and end one is the API server's to
//! say: both take an edit of the link.

mod device;
mod outcome;
mod ticket;

use super::form::{is_name, uid_of};
use super::places::{LinkPlace, LinkPlaces};
use super::record::{Consent, Purpose, Stage, Ticket, digest};
use super::request::{self, AuthorizationRequest, challenges_plainly};
use super::trouble::Trouble;
use crate::api::{ApplicationLink, names};
use crate::domain::text::known_error_code;
use crate::domain::{ExposeSecret as _, ScopeSet, SecretString, TokenReply};
use crate::http::Trust;
use crate::link::context::Context;
use crate::link::decide::consented_grant;
use crate::link::execute::sender::sender;
use crate::link::grant::{Binding, Kept, LinkRef};
use crate::link::observe::outgoing::server_and_client;
use crate::link::problem::Problem;
use crate::link::secrets::Secrets;
use crate::link::validate::{GrantGoal, OutgoingGoal, validate};
use crate::outgoing::{
    ClientCredentials, Grant as Ask, Owner, ServerEndpoints, TokenError, TokenRequest, push_request,
    request_token,
};
use jiff::{SignedDuration, Timestamp};
use kube::{Api, ResourceExt as _};
use oauth2::PkceCodeChallenge;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;
use url::Url;

/// Serves consents.
pub struct Consents {
    ctx: Arc<Context>,
    /// The namespaces that are looked after; empty for all.
    namespaces: Vec<String>,
    /// Places for the requests that showed a ticket or a state of their link.
    places: LinkPlaces,
}

/// What the first page shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Invitation {
    /// The link's namespace.
    pub namespace: String,
    /// The link's name.
    pub name: String,
    /// The application.
    pub application: String,
    /// What it will be asked for.
    pub scopes: Vec<String>,
    /// Where the person is sent.
    pub server: String,
    /// Where what they agree to is sent, if that is another place.
    pub taker: Option<String>,
    /// Who else is sent something of it: the request before they agree, or later the token.
    pub others: Vec<String>,
}

/// Where the person goes next.
pub struct Departure {
    /// The authorization request.
    pub to: Url,
    /// What the browser keeps.
    pub browser: SecretString,
}

/// What came back to the redirect URI (RFC 6749 section 4.1.2, RFC 9207).
#[derive(Default, serde::Deserialize)]
#[serde(default)]
pub struct Answer {
    /// The code.
    pub code: Option<SecretString>,
    /// The `state`.
    pub state: Option<SecretString>,
    /// The error's code.
    pub error: Option<String>,
    /// Who answers.
    pub iss: Option<String>,
}

/// A grant that was given and waits for its code.
pub struct Done {
    /// The link's namespace.
    pub namespace: String,
    /// The link's name.
    pub name: String,
    /// The application.
    pub application: String,
    /// Whose grant it is, where the server said it.
    pub owner: Option<Owner>,
    /// What was granted.
    pub scopes: Vec<String>,
    /// What was asked for and not granted.
    pub missing: Vec<String>,
    /// When it ends though nobody ends it, why, and what to do against that.
    pub ends: Option<(Timestamp, String)>,
    /// The code that makes it active.
    pub code: SecretString,
    /// The loopback port that it may be handed to.
    pub port: Option<u16>,
}

/// A device authorization that waits.
pub enum Polled {
    /// The person hasn't answered; ask again after this long.
    Pending(Duration),
    /// Given.
    Done(Box<Done>),
}

/// A link that may be connected, and what connecting it needs.
struct Ready {
    link: ApplicationLink,
    of: LinkRef,
    goal: OutgoingGoal,
    ticket: Ticket,
    /// Held for as long as it is worked on.
    _place: Option<LinkPlace>,
}

/// What a link's server and client are.
struct Known {
    endpoints: ServerEndpoints,
    client: ClientCredentials,
}

/// What the authorization request had in it that its answer is held against.
struct Sent<'a> {
    redirect_uri: &'a Url,
    verifier: &'a Kept,
    nonce: Option<&'a str>,
}

/// What a consent gave.
struct Given<'a> {
    reply: &'a TokenReply,
    /// When it was asked for.
    issued_at: Timestamp,
    /// What its ID token must have in it.
    nonce: Option<&'a str>,
}

impl Consents {
    /// Serves the consents of the links in these namespaces; empty for all.
    pub fn new(ctx: Arc<Context>, namespaces: Vec<String>) -> Self {
        Self { ctx, namespaces, places: LinkPlaces::new() }
    }

    /// The first page: nothing is changed by it.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn invitation(
        &self,
        namespace: &str,
        name: &str,
        ticket: &SecretString,
    ) -> Result<Invitation, Trouble> {
        let ready = self.ready(namespace, name, ticket).await?;
        self.unused(&ready).await?;
        let Known { endpoints, .. } = self.known(&ready).await?;
        let at = endpoints.authorization_endpoint.as_ref().unwrap_or(&endpoints.token_endpoint);
        Ok(Invitation {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            application: ready.link.spec.application.name.clone(),
            scopes: ready.goal.scopes.iter().map(|s| s.as_str().to_owned()).collect(),
            server: place(at),
            taker: Some(place(&endpoints.token_endpoint)).filter(|taker| *taker != place(at)),
            others: others(&ready.goal, &endpoints, at),
        })
    }

    /// Uses the ticket, and sends the person to the server.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn begin(
        &self,
        namespace: &str,
        name: &str,
        ticket: &SecretString,
    ) -> Result<Departure, Trouble> {
        let ready = self.ready(namespace, name, ticket).await?;
        let GrantGoal::AuthorizationCode { parameters, .. } = &ready.goal.grant else {
            return Err(Trouble::OtherGrant);
        };
        self.unused(&ready).await?;
        let Known { endpoints, client } = self.known(&ready).await?;
        let redirect_uri = self.redirect_uri(&ready, &endpoints)?;
        let endpoint = endpoints.authorization_endpoint.clone().ok_or(Trouble::OtherGrant)?;
        let (_, verifier) = PkceCodeChallenge::new_random_sha256();
        let state = format!("{}.{}", ready.of.uid, random_text()?);
        let browser = random_text()?;
        // A server that knows no ID tokens may not know the parameter either.
        let openid = ready.goal.scopes.iter().any(|s| s.as_str() == "openid");
        let nonce = if openid { Some(random_text()?) } else { None };
        let stage = Stage::Asked {
            state: digest(Purpose::State, &state),
            browser: digest(Purpose::Browser, &browser),
            verifier: Kept(verifier.secret().clone().into()),
            redirect_uri: redirect_uri.to_string(),
            nonce: nonce.clone(),
        };
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: &client.id,
            redirect_uri: &redirect_uri,
            scopes: &ready.goal.scopes,
            server: ready.goal.server.preset.authorization_parameters,
            parameters,
            state: &state,
            nonce: nonce.as_deref(),
            verifier: &verifier,
            plain: challenges_plainly(&endpoints.declared),
        };
        let push = endpoints.declared.push_endpoint.as_ref().filter(|_| endpoints.declared.requires_push);
        let to = match push {
            // Before the ticket is used: a server that doesn't take the request is asked again.
            Some(at) => {
                let http = self.ctx.guard.client(Trust::Guarded, None);
                let dialect = ready.goal.server.preset.dialect;
                let pushed = push_request(&http, at, &client, &request.parameters(), dialect).await;
                request.pushed_url(&pushed.map_err(Trouble::NotPushed)?)
            }
            None => request.url(),
        };
        self.open(&ready, &consent(&ready, &endpoints, &client, stage)).await?;
        Ok(Departure { to, browser: browser.into() })
    }

    /// Takes the server's answer.
    ///
    /// # Errors
    /// [`Trouble`].
    pub async fn answer(
        self: &Arc<Self>,
        redirect: String,
        answer: Answer,
        browser: Option<String>,
    ) -> Result<Done, Trouble> {
        // A code is redeemed once: what comes of it is kept though the browser goes away.
        let desk = self.clone();
        let taken =
            self.ctx.tenure.hold(async move { desk.take(&redirect, &answer, browser.as_deref()).await });
        taken.await.unwrap_or(Err(Trouble::Busy))
    }

    async fn take(&self, redirect: &str, answer: &Answer, browser: Option<&str>) -> Result<Done, Trouble> {
        let state = answer.state.as_ref().ok_or(Trouble::Unasked)?.expose_secret();
        let uid = uid_of(state).ok_or(Trouble::Unasked)?;
        let (consent, version) = self.consent(uid).await?.ok_or(Trouble::Unasked)?;
        let Stage::Asked { state: asked, browser: began, verifier, redirect_uri, nonce } = &consent.stage
        else {
            return Err(Trouble::Unasked);
        };
        let redirect_uri = Url::parse(redirect_uri).map_err(|_| Trouble::Unasked)?;
        let same_place = redirect_uri.path_segments().and_then(Iterator::last) == Some(redirect);
        if *asked != digest(Purpose::State, state) || !same_place || !consent.is_open(Timestamp::now()) {
            return Err(Trouble::Unasked);
        }
        if browser.is_none_or(|b| *began != digest(Purpose::Browser, b)) {
            return Err(Trouble::OtherBrowser);
        }
        let _place = self.places.take(&consent.link)?;
        // From here on the state is used, whatever comes of it.
        let spent = Consent { stage: Stage::Spent, ..consent.clone() };
        let version = self.save(&spent, Some(&version)).await.map_err(|t| match t {
            Trouble::Busy => Trouble::Unasked,
            t => t,
        })?;
        let sent = Sent { redirect_uri: &redirect_uri, verifier, nonce: nonce.as_deref() };
        let redeemed = self.redeem(answer, spent, &version, sent).await;
        if redeemed.is_err() {
            self.end(&consent).await;
        }
        redeemed
    }

    /// The rest of taking the server's answer, once its state is used.
    async fn redeem(
        &self,
        answer: &Answer,
        mut spent: Consent,
        version: &str,
        sent: Sent<'_>,
    ) -> Result<Done, Trouble> {
        let (ready, known) = self.still(&spent).await?;
        let names_server = match (&answer.iss, &known.endpoints.issuer) {
            (Some(iss), Some(issuer)) => iss == issuer,
            (None, _) => !known.endpoints.declared.sends_iss,
            (Some(_), None) => true,
        };
        if !names_server {
            return Err(Trouble::WrongIssuer);
        }
        if let Some(error) = &answer.error {
            return Err(Trouble::Denied(known_error_code(error)));
        }
        let code = answer.code.clone().filter(|c| !c.expose_secret().is_empty()).ok_or(Trouble::NoCode)?;
        let ask = Ask::AuthorizationCode {
            code,
            verifier: sent.verifier.0.clone(),
            redirect_uri: sent.redirect_uri.to_string(),
        };
        let issued_at = Timestamp::now();
        let reply = self.ask(&ready, &known, ask).await.map_err(Trouble::Token)?;
        let given = Given { reply: &reply, issued_at, nonce: sent.nonce };
        self.granted(&ready, &known, &mut spent, version, &given).await
    }

    /// The link, if this is its open ticket.
    async fn ready(&self, namespace: &str, name: &str, ticket: &SecretString) -> Result<Ready, Trouble> {
        ticket::check(&self.links(namespace, name)?, name, ticket).await?;
        let ready = self.look(namespace, name).await?;
        if ready.ticket.ticket != digest(Purpose::Ticket, ticket.expose_secret()) {
            return Err(Trouble::NoTicket);
        }
        let place = self.places.take(&ready.of)?;
        Ok(Ready { _place: Some(place), ..ready })
    }

    /// The links of a namespace that is looked after.
    fn links(&self, namespace: &str, name: &str) -> Result<Api<ApplicationLink>, Trouble> {
        let ours = self.namespaces.is_empty() || self.namespaces.iter().any(|n| n == namespace);
        if !ours || !is_name(namespace) || !is_name(name) {
            return Err(Trouble::NoTicket);
        }
        Ok(Api::namespaced(self.ctx.client.clone(), namespace))
    }

    async fn look(&self, namespace: &str, name: &str) -> Result<Ready, Trouble> {
        let api = self.links(namespace, name)?;
        let link = api.get_opt(name).await.map_err(|e| Trouble::of(&Problem::kube("the link", &e)))?;
        let link = link.filter(|l| l.metadata.deletion_timestamp.is_none()).ok_or(Trouble::NoTicket)?;
        let now = Timestamp::now();
        let ticket = link.annotations().get(names::AUTHORIZE).and_then(|t| Ticket::read(t, now));
        let ticket = ticket.filter(|t| t.is_open(now)).ok_or(Trouble::NoTicket)?;
        let valid = validate(&link).map_err(|e| Trouble::Link(e.to_string()))?;
        if valid.suspend {
            return Err(Trouble::Link("the link is suspended; set spec.suspend to false first".into()));
        }
        let goal = valid.outgoing.filter(|o| o.grant.asks_a_person()).ok_or(Trouble::OtherGrant)?;
        let of = LinkRef {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: link.uid().unwrap_or_default(),
        };
        Ok(Ready { link, of, goal, ticket, _place: None })
    }

    /// Whether the ticket wasn't used; gives back the version of the record that may be replaced.
    async fn unused(&self, ready: &Ready) -> Result<Option<String>, Trouble> {
        match self.consent(&ready.of.uid).await? {
            None => Ok(None),
            Some((consent, _)) if consent.ticket == ready.ticket.ticket => Err(Trouble::Used),
            // What somebody granted and nobody completed is revoked first, by the link's own pass.
            Some((consent, _)) if consent.granted().is_some() => Err(Trouble::Busy),
            Some((_, version)) => Ok(Some(version)),
        }
    }

    /// Uses the ticket: the record of this consent takes the place of one that is over. The link's own
    /// pass may be clearing that away in this moment.
    async fn open(&self, ready: &Ready, consent: &Consent) -> Result<String, Trouble> {
        for _ in 0..3 {
            let version = self.unused(ready).await?;
            match self.save(consent, version.as_deref()).await {
                Err(Trouble::Busy) => {}
                done => return done,
            }
        }
        Err(Trouble::Busy)
    }

    async fn known(&self, ready: &Ready) -> Result<Known, Trouble> {
        let secrets = Secrets::new(self.ctx.client.clone(), &ready.of.namespace);
        let known = server_and_client(&self.ctx, &ready.of.namespace, &ready.goal, &secrets).await;
        let (endpoints, client) = known.map_err(|p| Trouble::of(&p))?;
        let sender = sender(&self.ctx, client).await.map_err(|p| Trouble::of(&p))?;
        Ok(Known { endpoints, client: sender.client.ok_or(Trouble::OtherGrant)? })
    }

    fn redirect_uri(&self, ready: &Ready, endpoints: &ServerEndpoints) -> Result<Url, Trouble> {
        let base = self.ctx.consent_url.as_ref().ok_or(Trouble::OtherGrant)?;
        let desk = request::desk(base, &ready.of.namespace, &ready.of.name, &ready.goal, endpoints);
        desk.map_err(|p| Trouble::of(&p))?.redirect_uri.ok_or(Trouble::OtherGrant)
    }

    /// The link of a consent, if it still is what the person was asked for.
    async fn still(&self, consent: &Consent) -> Result<(Ready, Known), Trouble> {
        let ready = self.look(&consent.link.namespace, &consent.link.name).await.map_err(|t| match t {
            Trouble::NoTicket | Trouble::OtherGrant | Trouble::Link(_) => Trouble::Changed,
            t => t,
        })?;
        if ready.of != consent.link || ready.ticket.ticket != consent.ticket {
            return Err(Trouble::Changed);
        }
        let known = self.known(&ready).await?;
        let same = consent.grant.binding == Binding::new(&known.endpoints, known.client.id.as_str())
            && consent.grant.requested.as_deref() == Some(ready.goal.scopes.to_string().as_str());
        if same { Ok((ready, known)) } else { Err(Trouble::Changed) }
    }

    async fn ask(&self, ready: &Ready, known: &Known, grant: Ask) -> Result<TokenReply, TokenError> {
        let request = TokenRequest {
            endpoint: known.endpoints.token_endpoint.clone(),
            client: Some(known.client.clone()),
            grant,
            scopes: ScopeSet::default(),
            dialect: ready.goal.server.preset.dialect,
        };
        request_token(&self.ctx.guard.client(Trust::Guarded, None), &request).await
    }

    async fn consent(&self, uid: &str) -> Result<Option<(Consent, String)>, Trouble> {
        self.ctx.store.consent(uid).await.map_err(|p| Trouble::of(&p))
    }

    async fn save(&self, consent: &Consent, version: Option<&str>) -> Result<String, Trouble> {
        self.ctx.store.save_consent(consent, version).await.map_err(|p| Trouble::of(&p))
    }
}

fn consent(ready: &Ready, endpoints: &ServerEndpoints, client: &ClientCredentials, stage: Stage) -> Consent {
    Consent {
        version: 1,
        link: ready.of.clone(),
        ticket: ready.ticket.ticket.clone(),
        expires_at: ready.ticket.expires_at,
        grant: consented_grant(&ready.goal, ready.of.clone(), endpoints, client),
        stage,
    }
}

/// A server as people read it: its host, and its port where that isn't the usual one.
pub fn place(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Where something goes, beside the authorization endpoint and the token endpoint.
fn others(goal: &OutgoingGoal, endpoints: &ServerEndpoints, at: &Url) -> Vec<String> {
    let ServerEndpoints { token_endpoint, revocation_endpoint, user_endpoint, declared, .. } = endpoints;
    let asked = |url: &&Url| goal.server.preset.is_home(token_endpoint, url);
    let push = declared.push_endpoint.as_ref().filter(|_| declared.requires_push);
    let all = push.into_iter().chain(user_endpoint.as_ref().filter(asked)).chain(revocation_endpoint);
    let all: BTreeSet<String> = all.map(place).collect();
    all.into_iter().filter(|to| *to != place(at) && *to != place(token_endpoint)).collect()
}

fn later(now: Timestamp, secs: i64) -> Timestamp {
    now.saturating_add(SignedDuration::from_secs(secs)).unwrap_or(Timestamp::MAX)
}

fn random<const N: usize>() -> Result<[u8; N], Trouble> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|_| Trouble::Later("the system gives no random numbers".into()))?;
    Ok(bytes)
}

fn random_text() -> Result<String, Trouble> {
    use base64::Engine as _;
    Ok(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(random::<32>()?))
}
