//! What every adapter must make of a service that fails it: each call of the port, each of its requests, each fault. The
//! error is of the right class and shows nothing that the server wrote; and once the fault is over, the same pass ends with
//! exactly one client.

use std::time::Duration;

use applink_operator::domain::ClientMetadata;
use applink_operator::http::HttpClient;
use applink_operator::provider::{Proof, ProviderError};
use futures::StreamExt as _;
use url::Url;

use super::subject::{Give, Known, Port, Subject, http_client, new_secret, uris};
use crate::support::fault_proxy::{self, Fault, Plans};

/// The fault suite with one subject.
macro_rules! faults {
    ($subject:ty) => {
        mod faults {
            use super::*;

            #[tokio::test(flavor = "multi_thread")]
            async fn each_fault_is_told_and_passes() {
                let subject = <$subject as $crate::provider_port::subject::Subject>::start().await;
                $crate::provider_port::faults::each_fault_is_told_and_passes(&subject).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn silence_comes_to_an_end() {
                let subject = <$subject as $crate::provider_port::subject::Subject>::start().await;
                $crate::provider_port::faults::silence_comes_to_an_end(&subject).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn a_certificate_that_nobody_vouches_for_is_refused() {
                let subject = <$subject as $crate::provider_port::subject::Subject>::start().await;
                $crate::provider_port::faults::a_certificate_that_nobody_vouches_for_is_refused(&subject)
                    .await;
            }
        }
    };
}
pub(crate) use faults;

/// A call of the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    Info,
    GetAbsent,
    Get,
    Create,
    Change,
    Delete,
    List,
    Prove,
}

const CALLS: [Call; 8] = [
    Call::Info,
    Call::GetAbsent,
    Call::Get,
    Call::Create,
    Call::Change,
    Call::Delete,
    Call::List,
    Call::Prove,
];

/// All but silence, which takes its time.
const FAULTS: [Fault; 18] = [
    Fault::Status(401),
    Fault::Status(403),
    Fault::Status(404),
    Fault::Html(404),
    Fault::Status(409),
    Fault::Status(413),
    Fault::Status(429),
    Fault::Later(429, 7),
    Fault::Status(500),
    Fault::Html(502),
    Fault::Later(503, 7),
    Fault::Page,
    Fault::ResetBefore,
    Fault::ResetAfter,
    Fault::Cut,
    Fault::Half,
    Fault::Large,
    Fault::Redirect,
];

/// The status of an answer that comes whole.
fn status(fault: Fault) -> Option<u16> {
    match fault {
        Fault::Status(status) | Fault::Html(status) => Some(status),
        Fault::Half => Some(200),
        _ => None,
    }
}

/// Whether an error is what a fault is to be told as.
fn is_told(fault: Fault, error: &ProviderError) -> bool {
    use ProviderError as E;
    let wait = error.retry_after();
    match fault {
        Fault::Status(status @ (401 | 403)) => {
            matches!(error, E::Unauthorized { status: s, .. } if *s == status)
        }
        // Another server's: not that the client is absent.
        Fault::Status(404) | Fault::Html(404) => matches!(error, E::Unexpected { status: 404, .. }),
        Fault::Status(409) => matches!(error, E::Conflict | E::Unexpected { status: 409, .. }),
        Fault::Status(413) => matches!(error, E::Rejected { .. } | E::Unexpected { status: 413, .. }),
        Fault::Status(429) => matches!(error, E::Busy { status: 429, .. }) && wait.is_none(),
        Fault::Later(status, s) => {
            matches!(error, E::Busy { status: told, .. } if *told == status)
                && wait == Some(Duration::from_secs(s.into()))
        }
        Fault::Status(status) | Fault::Html(status) => {
            matches!(error, E::Unexpected { status: s, .. } if *s == status)
        }
        Fault::Page | Fault::Half => matches!(error, E::Unexpected { status: 200, .. }),
        Fault::Large => matches!(error, E::Unexpected { .. }),
        Fault::Redirect => matches!(error, E::Unexpected { status: 307, .. }),
        Fault::ResetBefore | Fault::ResetAfter | Fault::Cut | Fault::Silence => {
            matches!(error, E::Unreachable { .. })
        }
    }
}

/// What a proof may come to with a fault; `None`: nothing can be said.
fn is_proved(fault: Fault) -> Option<Proof> {
    match fault {
        Fault::Status(401) => Some(Proof::Refused),
        // RFC 7009: 200 says it all, and the body nothing. That is why there is a control with a wrong secret.
        Fault::Page | Fault::Half => None,
        _ => Some(Proof::Unproved),
    }
}

/// A service behind proxies.
struct Front<'s, S> {
    port: Port<'s, S>,
    plans: Plans,
}

impl<'s, S: Subject> Front<'s, S> {
    async fn of(subject: &'s S, http: HttpClient) -> Self {
        let plans = Plans::default();
        let mut bases = Vec::new();
        for base in subject.bases() {
            bases.push(fault_proxy::before(&base, &plans).await);
        }
        let mut port = Port::at(subject, http, &bases).await;
        // Its revocation endpoint too, where that has an address of its own.
        if let Some(endpoint) = &port.info.revocation_endpoint {
            let url = Url::parse(endpoint).expect("a URL");
            let origin = url.origin().ascii_serialization();
            if !bases.contains(&origin) {
                let front = fault_proxy::before(&origin, &plans).await;
                port.info.revocation_endpoint = Some(format!("{front}{}", url.path()));
            }
        }
        Self { port, plans }
    }

    /// What a call begins with.
    async fn set_up(&self, call: Call) -> (Known, ClientMetadata) {
        if matches!(call, Call::Create | Call::GetAbsent) {
            let mut client = self.port.unknown("fault");
            client.secret = Some(new_secret());
            let metadata = self.port.metadata(client.at.id.as_str());
            (client, metadata)
        } else {
            self.port.register("fault").await
        }
    }

    fn give(&self, client: &Known) -> Give {
        if self.port.can.chooses_secret || client.exists { Give::Same } else { Give::New }
    }

    /// Makes a call; `Ok(None)` where it gives no proof.
    async fn call(
        &self,
        call: Call,
        client: &mut Known,
        metadata: &mut ClientMetadata,
    ) -> Result<Option<Proof>, ProviderError> {
        let Port { provider, info, .. } = &self.port;
        match call {
            Call::Info => provider.info().await.map(drop)?,
            Call::Get | Call::GetAbsent => self.port.try_look(client).await.map(drop)?,
            Call::Create => self.port.try_put(client, metadata, self.give(client)).await.map(drop)?,
            Call::Change => {
                metadata.redirect_uris = uris(&["https://ci.example.com/changed"]);
                self.port.try_put(client, metadata, Give::Same).await.map(drop)?;
            }
            Call::Delete => provider.delete(&client.at, client.version.as_deref()).await?,
            Call::List => provider.list(None).await.map(drop)?,
            Call::Prove => {
                let secret = client.secret.as_ref().expect("a secret");
                return Ok(Some(provider.prove(info, &client.id, secret, metadata.auth_method).await));
            }
        }
        Ok(None)
    }

    /// Whether a call is one that this service has.
    fn has(&self, call: Call) -> bool {
        match call {
            Call::List => self.port.can.lists,
            Call::Prove => self.port.can.proves,
            _ => true,
        }
    }

    /// That the same pass, made again, ends as if nothing had been.
    async fn converges(&self, call: Call, mut client: Known, metadata: &ClientMetadata, what: &str) {
        if call == Call::Delete {
            self.port.provider.delete(&client.at, None).await.unwrap_or_else(|e| panic!("{what}: {e}"));
            assert!(self.port.look(&mut client).await.is_none(), "{what}: it is still there");
            return;
        }
        let seen = self.port.look(&mut client).await;
        if seen.is_none_or(|c| c.metadata.as_ref() != Some(metadata)) {
            let give = self.give(&client);
            self.port.put(&mut client, metadata, give).await;
        }
        // A secret that the service picked, and whose answer was lost: the caller has it pick another.
        let lost = match &client.secret {
            Some(secret) => self.port.prove(&client, secret, metadata.auth_method).await == Proof::Refused,
            None => true,
        };
        if lost && self.port.can.rotates && !self.port.can.chooses_secret {
            self.port.put(&mut client, metadata, Give::New).await;
        }
        let secret = client.secret.clone().expect("a secret");
        self.port.is(&client, &secret, metadata.auth_method, Proof::Authenticated).await;
        if call == Call::Create && self.port.can.lists {
            assert_eq!(self.count(&client).await, 1, "{what}: how many clients there are");
        }
        self.port.provider.delete(&client.at, client.version.as_deref()).await.expect("deleted");
    }

    /// How many clients of this name there are.
    async fn count(&self, client: &Known) -> usize {
        let (mut count, mut after) = (0, None);
        loop {
            let page = self.port.provider.list(after.as_deref()).await.expect("a page");
            let named = |name: &str| name == client.at.id.as_str();
            count +=
                page.clients.iter().filter(|c| c.metadata.as_ref().is_some_and(|m| named(&m.name))).count();
            let Some(next) = page.next else { return count };
            after = Some(next);
        }
    }

    /// Makes a call with a fault at one of its requests. Says whether there was such a request.
    async fn meets(&self, call: Call, fault: Fault, at: usize) -> bool {
        let what = format!("{call:?}, {fault:?} at request {at}");
        let (mut client, mut metadata) = self.set_up(call).await;
        self.plans.set(at, fault);
        let result = self.call(call, &mut client, &mut metadata).await;
        if !self.plans.clear() {
            result.unwrap_or_else(|e| panic!("{what}: there was no fault, and yet: {e}"));
            if call != Call::GetAbsent {
                self.converges(call, client, &metadata, &what).await;
            }
            return false;
        }
        let is_got_over = fault == Fault::Status(401) && self.port.subject.logs_in_anew();
        match result {
            Ok(None | Some(Proof::Authenticated)) if is_got_over => {}
            Ok(Some(proof)) => {
                // Right credentials that another endpoint told to be right are.
                let elsewhere = self.port.subject.proves_in_two_ways() && proof == Proof::Authenticated;
                let as_told = is_proved(fault).is_none_or(|expected| expected == proof);
                assert!(as_told || elsewhere, "{what}: {proof:?}");
            }
            // Another request made up for it; that all is well in the end is checked below.
            Ok(None) if status(fault).is_some_and(|s| self.port.subject.makes_up_for(s)) => {}
            Ok(None) => panic!("{what}: nobody noticed"),
            Err(e) => {
                assert!(is_told(fault, &e), "{what}: {e:?}");
                let shown = format!("{e} {e:?}");
                assert!(!shown.contains("canary") && !shown.contains("Bearer"), "{what}: {shown}");
            }
        }
        self.converges(call, client, &metadata, &what).await;
        true
    }
}

pub async fn each_fault_is_told_and_passes<S: Subject>(subject: &S) {
    let front = Front::of(subject, http_client()).await;
    let mut met = 0;
    for call in CALLS.into_iter().filter(|c| front.has(*c)) {
        for fault in FAULTS {
            let mut at = 1;
            while front.meets(call, fault, at).await {
                at += 1;
                met += 1;
            }
            assert!(at > 1, "{call:?} makes no request");
        }
    }
    assert_eq!(front.plans.redirected(), 0, "a redirect was followed");
    eprintln!("{met} faults met");
}

pub async fn silence_comes_to_an_end<S: Subject>(subject: &S) {
    let silent = async |call| {
        // Shorter than the operator's own, which is 15 s; enough for an answer of a busy machine.
        let front = Front::of(subject, http_client().with_timeout(Duration::from_secs(4))).await;
        if !front.has(call) {
            return;
        }
        // At its last request, when what it does is done. The first call fills what the adapter keeps; the second counts.
        let mut last = 0;
        for what in ["the first time", "without a fault"] {
            let (mut client, mut metadata) = front.set_up(call).await;
            front.plans.set(0, Fault::Silence);
            front.call(call, &mut client, &mut metadata).await.expect(what);
            last = front.plans.requests();
            front.converges(call, client, &metadata, what).await;
        }
        assert!(front.meets(call, Fault::Silence, last).await, "{call:?}: no request {last}");
    };
    // A look at the service may try things out in it, and is by itself. Most of the rest is waiting, half a minute for some.
    silent(Call::Info).await;
    let others = CALLS.into_iter().filter(|call| *call != Call::Info);
    futures::stream::iter(others).for_each_concurrent(subject.at_once(), silent).await;
}

pub async fn a_certificate_that_nobody_vouches_for_is_refused<S: Subject>(subject: &S) {
    let front = Front::of(subject, http_client()).await;
    let bad = fault_proxy::with_a_bad_certificate().await;
    let bases: Vec<_> = subject.bases().iter().map(|_| bad.clone()).collect();
    let adapter = subject.adapter(http_client(), &bases);
    let mut info = front.port.info.clone();
    info.revocation_endpoint = Some(format!("{bad}/revoke"));
    info.token_endpoint = format!("{bad}/token");
    let worse = Front {
        port: Port { subject, provider: adapter, info, can: front.port.can },
        plans: Plans::default(),
    };
    for call in CALLS.into_iter().filter(|c| front.has(*c)) {
        let (mut client, mut metadata) = front.set_up(call).await;
        match worse.call(call, &mut client, &mut metadata).await {
            Ok(proof) => assert_eq!(proof, Some(Proof::Unproved), "{call:?}"),
            Err(e) => {
                assert!(matches!(e, ProviderError::Unreachable { .. }), "{call:?}: {e:?}");
                assert!(e.to_string().contains("certificate"), "{call:?}: {e}");
            }
        }
        front.port.provider.delete(&client.at, None).await.expect("deleted");
    }
}
