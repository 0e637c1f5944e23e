//! The hosts that the values of a Secret may be sent to. Pure.
//!
//! Who may write links and providers isn't always who may say where a credential goes: the Secret itself
//! says it, by an annotation, and an operator can demand that.

use super::problem::Problem;
use crate::api::names;
use crate::domain::Reason;
use crate::domain::text::Shown;
use url::Url;

/// A Secret that something is sent of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Lent {
    /// Its name.
    pub secret: String,
    /// The hosts that its annotation lists; `None` where it has none.
    pub allowed: Option<String>,
    /// The key that its annotation names as a client's identifier.
    pub id_key: Option<String>,
}

/// Types of Secrets that hold what opens the cluster, and never a credential for another service.
pub const NEVER: &[&str] =
    &["kubernetes.io/service-account-token", "bootstrap.kubernetes.io/token", "helm.sh/release.v1"];

/// Checks that what is sent of these Secrets may go to all of these addresses. `demanded`: each Secret
/// must say where it may go.
///
/// # Errors
/// [`Problem`] that names Secret, address and host.
pub fn check<'l>(
    lent: impl IntoIterator<Item = &'l Lent>,
    demanded: bool,
    targets: &[(&str, &Url)],
) -> Result<(), Problem> {
    let mut hosts: Vec<String> = targets.iter().map(|(_, url)| host(url)).collect();
    hosts.sort();
    hosts.dedup();
    if hosts.is_empty() {
        return Ok(());
    }
    for Lent { secret, allowed, .. } in lent {
        let Some(allowed) = allowed else {
            if demanded {
                return Err(Problem::edit(
                    Reason::AllowedHostsMissing,
                    format!(
                        "Secret {secret} doesn't say where it may be sent, and this operator demands it for servers that \
                         a link or a LinkProvider names; annotate the Secret with {}={}",
                        names::ALLOWED_HOSTS,
                        hosts.join(","),
                    ),
                ));
            }
            continue;
        };
        for (what, url) in targets {
            if !allowed.split(',').any(|entry| matches(entry.trim(), url)) {
                return Err(Problem::edit(
                    Reason::HostNotAllowed,
                    format!(
                        "Secret {secret} may not be sent to {}, where the {what} is: its annotation {} doesn't list it \
                         ({}); nothing is sent. Correct the server's address, or the annotation",
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

/// Whether a problem is that a Secret may not be sent somewhere.
pub fn forbids(problem: &Problem) -> bool {
    matches!(
        problem.why,
        Reason::AllowedHostsMissing
            | Reason::HostNotAllowed
            | Reason::SecretTypeRefused
            | Reason::ClientIdKeyNotAllowed
    )
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

    #[test]
    fn every_secret_may_go_to_every_address_or_nothing_is_sent() {
        let lent = |allowed: Option<&str>| Lent {
            secret: "s".into(),
            allowed: allowed.map(str::to_owned),
            id_key: None,
        };
        let [a, b] =
            ["https://a.example/t", "https://b.example:8443/r"].map(|u| Url::parse(u).expect("a URL"));
        let targets = [("token endpoint", &a), ("admin API", &b)];
        let reason = |lent: &[Lent], demanded| check(lent, demanded, &targets).map_err(|p| p.reason);
        assert_eq!(reason(&[lent(None)], false), Ok(()));
        assert_eq!(reason(&[lent(Some("b.example:8443, a.example"))], true), Ok(()));
        assert_eq!(reason(&[lent(Some("a.example"))], false), Err("HostNotAllowed"));
        assert_eq!(reason(&[lent(Some(""))], false), Err("HostNotAllowed"));
        assert_eq!(
            reason(&[lent(Some("b.example:8443,a.example")), lent(None)], true),
            Err("AllowedHostsMissing")
        );
        let said = check(&[lent(None)], true, &targets).expect_err("refused").message;
        assert!(said.ends_with("allowed-hosts=a.example,b.example:8443"), "{said}");
        // What isn't sent anywhere needs nobody's leave.
        assert_eq!(check(&[lent(None)], true, &[]), Ok(()));
    }
}
