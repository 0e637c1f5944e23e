//! Where people consent, and the authorization request (RFC 6749 section 4.1.1). Pure.

use crate::domain::keyring::digest_hex;
use crate::domain::{AuthMethod, ClientId, Reason, ScopeSet};
use crate::link::facts::Desk;
use crate::link::problem::Problem;
use crate::link::validate::{ClientAuthGoal, GrantGoal, OutgoingGoal, is_protocol};
use crate::outgoing::{Declared, ServerEndpoints};
use oauth2::{AuthUrl, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use std::collections::BTreeMap;
use url::Url;

/// The pages of a link, below the operator's public address.
///
/// # Errors
/// [`Problem`] where this server can't be consented to.
pub fn desk(
    base: &Url,
    namespace: &str,
    name: &str,
    goal: &OutgoingGoal,
    endpoints: &ServerEndpoints,
) -> Result<Desk, Problem> {
    let consent_uri = below(base, &["authorize", namespace, name]);
    let missing = |endpoint: &str| {
        Problem::edit(
            Reason::EndpointMissing,
            format!(
                "the server's {endpoint} isn't known, which the link's grant needs; give it in spec.outgoing.oauth2.server, or choose another grant"
            ),
        )
    };
    offered(goal, &endpoints.declared)?;
    if let GrantGoal::DeviceCode { .. } = goal.grant {
        return match &endpoints.device_authorization_endpoint {
            Some(_) => Ok(Desk { consent_uri, redirect_uri: None }),
            None => Err(missing("device authorization endpoint")),
        };
    }
    let at = endpoints.authorization_endpoint.as_ref().ok_or_else(|| missing("authorization endpoint"))?;
    if endpoints.declared.requires_push && endpoints.declared.push_endpoint.is_none() {
        return Err(missing("pushed authorization request endpoint"));
    }
    let redirect_uri = below(base, &["callback", &suffix(at, endpoints)]);
    goal.server.preset.redirect.check(redirect_uri.as_str()).map_err(|fault| {
        Problem::edit(
            Reason::RedirectUriRefused,
            format!("the redirect URI {redirect_uri} {fault}; it follows from the chart's value consent.url"),
        )
    })?;
    Ok(Desk { consent_uri, redirect_uri: Some(redirect_uri) })
}

/// Whether the server's metadata say that it takes what the link asks with: a person who signed in first would
/// have done so for nothing. Where they say nothing, nothing is known; where they are wrong, the endpoints can
/// be given in place of the issuer.
fn offered(goal: &OutgoingGoal, declared: &Declared) -> Result<(), Problem> {
    const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
    let (grant, by_code) = match goal.grant {
        GrantGoal::DeviceCode { .. } => (DEVICE_CODE, false),
        _ => ("authorization_code", true),
    };
    let instead = "where they are wrong, give the server's endpoints in place of the issuer";
    if declared.lacks_grant_type(grant) {
        return Err(Problem::edit(
            Reason::GrantTypeNotOffered,
            format!(
                "the server's metadata don't name the grant type {grant}; choose another grant, or {instead}"
            ),
        ));
    }
    if by_code && declared.requires_signed_request {
        return Err(Problem::edit(
            Reason::SignedRequestRequired,
            format!(
                "the server's metadata say that it takes signed authorization requests alone (RFC 9101), which the operator \
                 doesn't make; have the server take others from this client; {instead}"
            ),
        ));
    }
    let by_secret =
        matches!(goal.client.as_ref().map(|c| &c.auth), Some(ClientAuthGoal::Secret { named: false, .. }));
    let takes = |method| declared.auth_methods.as_ref().is_none_or(|all| all.contains(&method));
    if by_secret && !takes(AuthMethod::ClientSecretBasic) && !takes(AuthMethod::ClientSecretPost) {
        return Err(Problem::edit(
            Reason::AuthMethodNotOffered,
            "the server's metadata say that it takes no client secret (token_endpoint_auth_methods_supported); set \
             spec.outgoing.oauth2.client.authMethod to what it takes, or to client_secret_basic where they are wrong",
        ));
    }
    Ok(())
}

/// Whether a challenge is the verifier itself (RFC 7636 section 4.2): where the server names methods, `plain`
/// among them and not S256, which it would refuse. A server that names none of both knows no PKCE, and ignores
/// it.
pub fn challenges_plainly(declared: &Declared) -> bool {
    let methods = declared.challenge_methods.as_ref();
    methods.is_some_and(|all| all.contains("plain") && !all.contains("S256"))
}

/// The last part of a redirect URI. Each authorization endpoint has one of its own for each place that its
/// codes are sent to, so that neither the answer of one server can be taken for another's nor a server's
/// code be sent to another one (RFC 9700 section 4.4): the URI that a client is registered with says where
/// its codes go.
fn suffix(at: &Url, endpoints: &ServerEndpoints) -> String {
    let issuer = endpoints.issuer.as_deref().unwrap_or_default();
    let to = &endpoints.token_endpoint;
    digest_hex(&format!("{at}\n{issuer}\n{to}")).chars().take(16).collect()
}

fn below(base: &Url, parts: &[&str]) -> Url {
    let mut url = base.clone();
    // An https address always has a path.
    if let Ok(mut path) = url.path_segments_mut() {
        path.pop_if_empty().extend(parts);
    }
    url
}

/// What an authorization request is made of.
#[derive(Debug)]
pub struct AuthorizationRequest<'a> {
    /// The authorization endpoint.
    pub endpoint: &'a Url,
    /// Our client.
    pub client_id: &'a ClientId,
    /// Where the answer goes.
    pub redirect_uri: &'a Url,
    /// What is asked for.
    pub scopes: &'a ScopeSet,
    /// The server's own parameters.
    pub server: &'a [(&'a str, &'a str)],
    /// More parameters; one of the same name takes the server's place.
    pub parameters: &'a BTreeMap<String, String>,
    /// The `state`.
    pub state: &'a str,
    /// The `nonce` that the ID token must have in it, where one is asked for.
    pub nonce: Option<&'a str>,
    /// What proves us when the code is redeemed (RFC 7636).
    pub verifier: &'a PkceCodeVerifier,
    /// Whether it is sent as it is, rather than its digest.
    pub plain: bool,
}

impl AuthorizationRequest<'_> {
    /// The endpoint without what its own query says of the protocol's parameters: no parameter may be there
    /// twice (RFC 6749 section 3.1), and a server may take the first.
    fn bare_endpoint(&self) -> Url {
        let mut endpoint = self.endpoint.clone();
        let kept: Vec<_> = endpoint.query_pairs().into_owned().filter(|(n, _)| !is_protocol(n)).collect();
        endpoint.set_query(None);
        if !kept.is_empty() {
            endpoint.query_pairs_mut().extend_pairs(kept);
        }
        endpoint
    }

    /// Its parameters.
    pub fn parameters(&self) -> Vec<(String, String)> {
        let mut endpoint = self.endpoint.clone();
        endpoint.set_query(None);
        let client = oauth2::basic::BasicClient::new(oauth2::ClientId::new(self.client_id.to_string()))
            .set_auth_uri(AuthUrl::from_url(endpoint))
            .set_redirect_uri(RedirectUrl::from_url(self.redirect_uri.clone()));
        let state = self.state.to_owned();
        let mut request = client
            .authorize_url(move || CsrfToken::new(state))
            .add_scopes(self.scopes.iter().map(|s| Scope::new(s.as_str().to_owned())));
        request = if self.plain {
            request
                .add_extra_param("code_challenge", self.verifier.secret().clone())
                .add_extra_param("code_challenge_method", "plain")
        } else {
            request.set_pkce_challenge(PkceCodeChallenge::from_code_verifier_sha256(self.verifier))
        };
        if let Some(nonce) = self.nonce {
            request = request.add_extra_param("nonce", nonce.to_owned());
        }
        let own = self.server.iter().filter(|(name, _)| !self.parameters.contains_key(*name));
        let given = self.parameters.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in own.copied().chain(given) {
            request = request.add_extra_param(name.to_owned(), value.to_owned());
        }
        request.url().0.query_pairs().into_owned().collect()
    }

    /// Where the person is sent.
    pub fn url(&self) -> Url {
        let mut url = self.bare_endpoint();
        url.query_pairs_mut().extend_pairs(self.parameters());
        url
    }

    /// Where the person is sent with a request that was pushed (RFC 9126 section 4).
    pub fn pushed_url(&self, request_uri: &str) -> Url {
        let mut url = self.bare_endpoint();
        url.query_pairs_mut()
            .append_pair("client_id", self.client_id.as_str())
            .append_pair("request_uri", request_uri);
        url
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoints(authorization: &str, token: &str) -> ServerEndpoints {
        let url = |text: &str| Url::parse(text).expect("an address");
        let mut all = ServerEndpoints::new(url(token));
        all.authorization_endpoint = Some(url(authorization));
        all
    }

    #[test]
    fn a_redirect_uri_says_where_codes_come_from_and_where_they_go() {
        let of = |authorization: &str, token: &str, issuer: Option<&str>| {
            let mut all = endpoints(authorization, token);
            all.issuer = issuer.map(str::to_owned);
            suffix(all.authorization_endpoint.as_ref().expect("one"), &all)
        };
        let good = of("https://a.example/authorize", "https://a.example/token", None);
        assert_eq!(good, of("https://a.example/authorize", "https://a.example/token", None));
        assert_ne!(good, of("https://a.example/authorize", "https://thief.example/token", None));
        assert_ne!(good, of("https://b.example/authorize", "https://a.example/token", None));
        assert_ne!(
            good,
            of("https://a.example/authorize", "https://a.example/token", Some("https://a.example"))
        );
    }

    #[test]
    fn nothing_of_the_protocol_is_said_twice() {
        let endpoint =
            "https://a.example/authorize?client_id=other&STATE=evil&tenant=t&redirect_uri=http://evil";
        let endpoint = Url::parse(endpoint).expect("an address");
        let redirect_uri = Url::parse("https://links.example/callback/x").expect("an address");
        let request = AuthorizationRequest {
            endpoint: &endpoint,
            client_id: &ClientId::parse("us").expect("an ID"),
            redirect_uri: &redirect_uri,
            scopes: &ScopeSet::default(),
            server: &[("prompt", "consent")],
            parameters: &BTreeMap::from([("prompt".to_owned(), "login".to_owned())]),
            state: "ours",
            nonce: Some("once"),
            verifier: &PkceCodeChallenge::new_random_sha256().1,
            plain: false,
        };
        let url = request.url();
        let all = |name: &str| -> Vec<String> {
            let pairs = url.query_pairs().filter(|(n, _)| n.eq_ignore_ascii_case(name));
            pairs.map(|(_, v)| v.into_owned()).collect()
        };
        assert_eq!((all("client_id"), all("state")), (vec!["us".to_owned()], vec!["ours".to_owned()]));
        assert_eq!(all("redirect_uri"), [redirect_uri.as_str()]);
        assert_eq!(all("nonce"), ["once"]);
        assert_eq!((all("tenant"), all("prompt")), (vec!["t".to_owned()], vec!["login".to_owned()]));
        assert_eq!(all("code_challenge_method"), ["S256"]);
        // With a pushed request the person takes no parameter along.
        let pushed = request.pushed_url("urn:x");
        assert_eq!(pushed.query(), Some("tenant=t&client_id=us&request_uri=urn%3Ax"));
        let plain = AuthorizationRequest { plain: true, ..request };
        let sent: BTreeMap<_, _> = plain.parameters().into_iter().collect();
        assert_eq!(
            (sent["code_challenge_method"].as_str(), &sent["code_challenge"]),
            ("plain", plain.verifier.secret())
        );
    }
}
