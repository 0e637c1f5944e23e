//! The hosts that a Secret's values may be sent to. Pure.
//!
//! Who may write links isn't always who may say where a credential goes: the Secret itself says it,
//! by an annotation, and an operator can demand that.

use crate::api::names;
use crate::domain::text::Shown;
use crate::link::problem::Problem;
use crate::link::validate::{GrantGoal, OutgoingGoal};
use crate::outgoing::ServerEndpoints;
use url::Url;

/// Checks that everything that is read for a link may be sent to every endpoint that gets some of it.
///
/// # Errors
/// [`Problem`] that names Secret, endpoint and host.
pub fn check(
    goal: &OutgoingGoal,
    inputs: &[(String, Option<String>)],
    required: bool,
    endpoints: &ServerEndpoints,
) -> Result<(), Problem> {
    // Nothing is sent there for another grant.
    let by_device = matches!(goal.grant, GrantGoal::DeviceCode { .. });
    let targets = [
        ("token endpoint", Some(&endpoints.token_endpoint)),
        ("revocation endpoint", endpoints.revocation_endpoint.as_ref()),
        (
            "device authorization endpoint",
            endpoints.device_authorization_endpoint.as_ref().filter(|_| by_device),
        ),
    ];
    for (secret, allowed) in inputs {
        let Some(allowed) = allowed else {
            if required && goal.server.named {
                return Err(Problem::edit(
                    "AllowedHostsMissing",
                    format!(
                        "Secret {secret} doesn't say where it may be sent, and this operator demands it for servers that \
                         a link names; annotate the Secret with {}={}",
                        names::ALLOWED_HOSTS,
                        host(&endpoints.token_endpoint),
                    ),
                ));
            }
            continue;
        };
        for (what, url) in targets {
            let Some(url) = url else { continue };
            if !allowed.split(',').any(|entry| matches(entry.trim(), url)) {
                return Err(Problem::edit(
                    "HostNotAllowed",
                    format!(
                        "Secret {secret} may not be sent to {}, where the {what} is: its annotation {} doesn't list it \
                         ({}); nothing is sent. Correct the link's server, or the annotation",
                        host(url),
                        names::ALLOWED_HOSTS,
                        Shown(allowed),
                    ),
                ));
            }
        }
    }
    Ok(())
}

/// A host as it stands in the annotation: with its port, where that isn't the scheme's.
fn host(url: &Url) -> String {
    let name = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| name.to_owned(), |port| format!("{name}:{port}"))
}

/// An entry is a host, or a host and a port; without a port, the scheme's own.
fn matches(entry: &str, url: &Url) -> bool {
    let default = format!(":{}", url.port_or_known_default().unwrap_or_default());
    let entry = entry.trim_end_matches(if url.port().is_none() { default.as_str() } else { "" });
    !entry.is_empty() && entry.eq_ignore_ascii_case(&host(url))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_a_host_and_its_port() {
        let allowed = |entry: &str, url: &str| matches(entry, &Url::parse(url).expect("a URL"));
        for (entry, url) in [
            ("as.example", "https://as.example/token"),
            ("AS.example", "https://as.example/token"),
            ("as.example:443", "https://as.example/token"),
            ("as.example:8443", "https://as.example:8443/token"),
            ("[2001:db8::1]", "https://[2001:db8::1]/token"),
            ("127.0.0.1:80", "http://127.0.0.1/token"),
        ] {
            assert!(allowed(entry, url), "{entry} {url}");
        }
        for (entry, url) in [
            ("", "https://as.example/token"),
            ("example", "https://as.example/token"),
            ("*.example", "https://as.example/token"),
            ("as.example", "https://as.example:8443/token"),
            ("as.example:8443", "https://as.example/token"),
            ("as.example", "https://as.example.evil.com/token"),
            ("evil.com", "https://as.example@evil.com.example/token"),
            ("https://as.example", "https://as.example/token"),
        ] {
            assert!(!allowed(entry, url), "{entry} {url}");
        }
    }
}
