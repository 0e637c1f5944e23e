//! A provider service as it looks from here.

use super::cluster::SKEW;
use super::{Check, Outcome};
use crate::cli::links::ProviderRow;
use crate::cli::output::span;
use crate::http::{CaBundle, Guard, HttpClient, NotSent, Request, SendError, Trust};
use crate::outgoing::{DiscoveryError, Issuer, ServerEndpoints, discover};
use jiff::Timestamp;

/// Says what a `Date` header says of the clocks.
pub fn skew(check: &'static str, subject: &str, fine: &str, date: Option<&str>) -> Check {
    let parsed = date.and_then(|d| jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(d.trim()).ok());
    let Some(theirs) = parsed else {
        return Check::new(
            check,
            subject,
            Outcome::Ok,
            format!("{fine}; it tells no time, so the clocks aren't compared"),
        );
    };
    let off = theirs.duration_since(Timestamp::now()).as_secs();
    // The header is cut to the second.
    if off.unsigned_abs() <= SKEW.as_secs() {
        return Check::new(check, subject, Outcome::Ok, format!("{fine}, and its clock is this machine's"));
    }
    let way = if off > 0 { "ahead of" } else { "behind" };
    let message = format!("{fine}, but its clock is {} {way} this machine's", span(off.unsigned_abs()));
    Check::new(check, subject, Outcome::Warn, message)
        .way_out("set the wrong clock: tokens and certificates are judged by the time")
}

/// An HTTP client that trusts what a provider's object says.
///
/// # Errors
/// What is wrong with its certificates.
pub fn client(guard: &Guard, provider: Option<&ProviderRow>) -> Result<HttpClient, String> {
    let ca =
        provider.and_then(|p| p.ca_bundle.as_deref()).map(|pem| CaBundle::parse(pem.as_bytes())).transpose();
    Ok(guard.client(Trust::Trusted, ca.map_err(|e| format!("the provider's caBundle {e}"))?))
}

/// Whether trouble is that the address is one of the cluster's inside.
pub fn may_be_inside(e: &SendError) -> bool {
    matches!(e, SendError::NotSent(NotSent::Dns | NotSent::Connect | NotSent::ConnectTimeout))
}

/// A server's endpoints, or what is wrong in words.
pub enum Endpoints {
    /// They are known.
    Known(Box<ServerEndpoints>),
    /// It can't be reached from here, which may be as it should.
    NotFromHere(String),
    /// It is broken.
    Broken(String),
}

/// Asks an issuer for its endpoints.
pub async fn endpoints(http: &HttpClient, issuer: &str) -> Endpoints {
    let issuer = match Issuer::parse(issuer) {
        Ok(issuer) => issuer,
        Err(e) => return Endpoints::Broken(format!("its issuer {e}")),
    };
    match discover(http, &issuer).await {
        Ok(found) => Endpoints::Known(Box::new(found)),
        Err(DiscoveryError::Send(e)) if may_be_inside(&e) => Endpoints::NotFromHere(e.to_string()),
        Err(e) => Endpoints::Broken(e.to_string()),
    }
}

/// Checks a provider.
pub async fn check(guard: &Guard, provider: &ProviderRow) -> Vec<Check> {
    let place = provider.namespace.as_ref().map(|n| format!("{n}/")).unwrap_or_default();
    let subject = format!("{} {place}{}", provider.kind, provider.name);
    let readiness = &provider.readiness;
    let mut checks = Vec::new();
    checks.push(if readiness.is_ready() {
        Check::new("provider", subject.clone(), Outcome::Ok, format!("Ready ({})", readiness.reason))
    } else {
        let said = format!("isn't ready ({})", readiness.reason);
        Check::new("provider", subject.clone(), Outcome::Fail, said).way_out(readiness.message.clone())
    });
    let Some(issuer) = &provider.issuer else { return checks };
    let http = match client(guard, Some(provider)) {
        Ok(http) => http,
        Err(why) => {
            checks.push(
                Check::new("metadata", subject, Outcome::Fail, why).way_out("put certificates in PEM there"),
            );
            return checks;
        }
    };
    match endpoints(&http, issuer).await {
        Endpoints::Known(found) => {
            let tls = if issuer.starts_with("https:") { ", and its certificate is trusted" } else { "" };
            let fine = format!("its metadata are reachable from here{tls}");
            // Any answer has the time.
            let date = match http.send(Request::get(found.token_endpoint.clone())).await {
                Ok(answer) => answer.header("date").map(str::to_owned),
                Err(_) => None,
            };
            checks.push(skew("metadata", &subject, &fine, date.as_deref()));
        }
        Endpoints::NotFromHere(why) => checks.push(
            Check::new("metadata", subject, Outcome::Warn, format!("{issuer} can't be reached from here: {why}"))
                .way_out("nothing, if it is meant to be reached from inside the cluster alone; its conditions say whether the operator reaches it"),
        ),
        Endpoints::Broken(why) => checks.push(
            Check::new("metadata", subject, Outcome::Fail, format!("{issuer}: {why}"))
                .way_out("applications discover the provider at this address; put right what stands there"),
        ),
    }
    checks
}
