//! A link: its conditions, its Secrets, and whether what stands in them opens the provider.

use super::provider::{Endpoints, client, endpoints};
use super::{Check, Outcome};
use crate::api::ApplicationLink;
use crate::cli::cluster::Cluster;
use crate::cli::credentials::{Found, Missing, find};
use crate::cli::links::{ProviderRow, Readiness, client_id};
use crate::cli::output::relative;
use crate::domain::{AuthMethod, ClientId, SecretString};
use crate::http::Guard;
use crate::link::connections::random_secret;
use crate::link::content::Slot;
use crate::outgoing::{ClientCredentials, Revoked, revoke_token};
use jiff::Timestamp;
use kube::ResourceExt as _;

/// Checks a link.
pub async fn check(
    at: &Cluster,
    guard: &Guard,
    link: &ApplicationLink,
    provider: Option<&ProviderRow>,
) -> Vec<Check> {
    let subject = format!("{}/{}", link.namespace().unwrap_or_default(), link.name_any());
    let readiness = Readiness::of_link(link);
    let mut checks = vec![if readiness.is_ready() {
        Check::new("link", subject.clone(), Outcome::Ok, format!("Ready ({})", readiness.reason))
    } else {
        let said = format!("isn't ready ({})", readiness.reason);
        Check::new("link", subject.clone(), Outcome::Fail, said).way_out(readiness.message.clone())
    }];
    for (outgoing, there) in [(false, link.spec.incoming.is_some()), (true, link.spec.outgoing.is_some())] {
        if !there {
            continue;
        }
        match find(at, link, outgoing).await {
            Ok(found) => {
                let check = if outgoing { token(link, &found) } else { secret(link, &found) };
                let fine = check.result == Outcome::Ok;
                checks.push(Check { subject: subject.clone(), ..check });
                if !outgoing && fine {
                    checks.push(Check { subject: subject.clone(), ..prove(guard, &found, provider).await });
                }
            }
            Err(Missing::Forbidden(why)) => {
                checks.push(Check::new("secret", subject.clone(), Outcome::Skipped, why));
            }
            // Why it isn't there is what the link itself said above.
            Err(Missing::Absent(_)) if !readiness.is_ready() => {}
            Err(Missing::Absent(why)) => {
                checks.push(Check::new("secret", subject.clone(), Outcome::Fail, why).way_out(
                    "the operator writes it; see the link's conditions, and whether the operator runs",
                ))
            }
            Err(Missing::Foreign(why) | Missing::NoPart(why)) => {
                checks.push(Check::new("secret", subject.clone(), Outcome::Fail, why));
            }
            Err(Missing::Failed(e)) => {
                checks.push(Check::new("secret", subject.clone(), Outcome::Skipped, e.to_string()));
            }
        }
    }
    checks
}

/// A Secret that nobody can write: the next secret or token isn't got at all, or nobody gets it.
fn immutable(what: &'static str, found: &Found) -> Option<Check> {
    let name = &found.goal.name;
    (found.secret.immutable == Some(true)).then(|| {
        let text = format!("Secret {name} is immutable, so no new secret or token can be written into it");
        Check::new(what, "", Outcome::Fail, text)
            .way_out("delete the Secret; the operator writes it anew, without that")
    })
}

/// Whether the incoming Secret is in sync with the link's status.
fn secret(link: &ApplicationLink, found: &Found) -> Check {
    let name = &found.goal.name;
    if let Some(check) = immutable("secret", found) {
        return check;
    }
    let bad = |why: String| {
        Check::new("secret", "", Outcome::Fail, why).way_out(
            "the operator puts it right when it looks at it; if it doesn't, see whether the operator runs",
        )
    };
    let public = found.value(Slot::TokenEndpointAuthMethod).as_deref() == Some("none");
    let filled = |slot| found.value(slot).is_some_and(|v| !v.is_empty());
    let wanted = [Slot::ClientId, Slot::TokenEndpoint, Slot::TokenEndpointAuthMethod];
    let wanted = wanted.into_iter().chain((!public).then_some(Slot::ClientSecret));
    let missing: Vec<&str> = wanted.filter(|s| !filled(*s)).map(Slot::default_key).collect();
    if !missing.is_empty() {
        return bad(format!("Secret {name} has no {}", missing.join(", no ")));
    }
    match client_id(link) {
        Some(id) if found.value(Slot::ClientId).as_deref() != Some(id) => {
            bad(format!("Secret {name} is of another client than the link's status"))
        }
        _ => {
            Check::new("secret", "", Outcome::Ok, format!("Secret {name} is there and of the link's client"))
        }
    }
}

/// Whether the outgoing Secret has a token that hasn't ended.
fn token(link: &ApplicationLink, found: &Found) -> Check {
    let name = &found.goal.name;
    if let Some(check) = immutable("token", found) {
        return check;
    }
    let bad = |why: String| {
        Check::new("token", "", Outcome::Fail, why)
            .way_out("see the link's conditions, and whether the operator runs")
    };
    if found.value(Slot::AccessToken).is_none_or(|t| t.is_empty()) {
        return bad(format!("Secret {name} has no access token"));
    }
    let ends = found.value(Slot::ExpiresAt);
    let told = link.status.as_ref().and_then(|s| s.outgoing.as_ref()).and_then(|o| o.expires_at.clone());
    let Some(ends) = ends.or(told) else {
        return Check::new(
            "token",
            "",
            Outcome::Ok,
            format!("Secret {name} has a token whose end isn't known"),
        );
    };
    let now = Timestamp::now();
    let when = relative(&ends, now).unwrap_or_else(|| ends.clone());
    if ends.parse::<Timestamp>().is_ok_and(|t| t <= now) {
        return bad(format!("the token in Secret {name} ended {when}"));
    }
    Check::new("token", "", Outcome::Ok, format!("Secret {name} has a token that ends {when}"))
}

/// Whether the credentials authenticate: a revocation of a token that can't exist (RFC 7009), and
/// the same with a wrong secret, which must come out otherwise.
async fn prove(guard: &Guard, found: &Found, provider: Option<&ProviderRow>) -> Check {
    let skipped = |why: String| Check::new("credentials", "", Outcome::Skipped, why);
    let method = match found.value(Slot::TokenEndpointAuthMethod).as_deref() {
        Some("client_secret_basic") => AuthMethod::ClientSecretBasic,
        Some("client_secret_post") => AuthMethod::ClientSecretPost,
        Some("none") => return skipped("a public client has no secret to prove".into()),
        _ => return skipped("how the client authenticates isn't known here".into()),
    };
    let (Some(id), Some(secret), Some(issuer)) =
        (found.value(Slot::ClientId), found.value(Slot::ClientSecret), found.value(Slot::IssuerUri))
    else {
        return skipped("the Secret names no issuer to ask".into());
    };
    let Ok(id) = ClientId::parse(&id) else { return skipped("the client identifier isn't one".into()) };
    let http = match client(guard, provider) {
        Ok(http) => http,
        Err(why) => return skipped(why),
    };
    let endpoint = match endpoints(&http, &issuer).await {
        Endpoints::Known(e) => e.revocation_endpoint,
        Endpoints::NotFromHere(why) => {
            return skipped(format!("{issuer} can't be reached from here: {why}"))
                .way_out("run applink where the provider can be reached, such as in a Pod of the cluster");
        }
        Endpoints::Broken(why) => return skipped(format!("{issuer}: {why}")),
    };
    let Some(endpoint) = endpoint else {
        return skipped("the provider has no revocation endpoint to prove them at".into());
    };
    let token = SecretString::from("applink-proof-of-credentials");
    let credentials = |secret| ClientCredentials::by_secret(id.clone(), method, secret);
    let right = revoke_token(&http, &endpoint, &credentials(secret.into()), &token, None).await;
    match right {
        Ok(Revoked::Authenticated) => {}
        Ok(Revoked::WrongCredentials) => {
            return Check::new("credentials", "", Outcome::Fail, "the provider refuses them").way_out(
                "the operator finds this at its next look and puts it right; if it doesn't, see the link's conditions",
            );
        }
        Ok(Revoked::Unproved(why)) => return Check::new("credentials", "", Outcome::Warn, why.to_string()),
        Err(e) => return skipped(e.to_string()),
    }
    let Some(wrong) = random_secret() else { return skipped("this machine gives no randomness".into()) };
    match revoke_token(&http, &endpoint, &credentials(wrong), &token, None).await {
        Ok(Revoked::WrongCredentials) => {
            Check::new("credentials", "", Outcome::Ok, "the provider takes them, and refuses a wrong secret")
        }
        _ => Check::new(
            "credentials",
            "",
            Outcome::Warn,
            "the provider takes a wrong secret too, so this proves nothing",
        ),
    }
}
