//! Who calls: client authentication at every endpoint (RFC 6749 section 2.3), before anything else
//! of a request is looked at.

use super::{Form, OAuthError};
use crate::domain::{AuthMethod, ClientId};
use crate::server::secret::{NotChecked, StoredSecret, Who};
use crate::server::state::App;
use crate::server::store::Client;
use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

/// What a request says of its sender.
struct Presented {
    id: String,
    method: AuthMethod,
    secret: Option<SecretString>,
}

/// Authenticates the client of a request. Only the method that it is registered with is taken.
///
/// # Errors
/// `invalid_client`; `invalid_request` when the request uses two methods at once.
pub async fn authenticate(app: &App, form: &Form) -> Result<Client, OAuthError> {
    let done = try_authenticate(app, form).await;
    if done.as_ref().is_err_and(|e| *e == OAuthError::invalid_client()) {
        app.metrics.failed_authentications.inc();
    }
    done
}

/// The same, for what a public client may not do: it can't prove who it is.
///
/// # Errors
/// As [`authenticate`]; `invalid_client` for a public client.
pub async fn authenticate_confidential(app: &App, form: &Form) -> Result<Client, OAuthError> {
    let client = authenticate(app, form).await?;
    if client.metadata.auth_method.is_public() {
        return Err(OAuthError::invalid_client());
    }
    Ok(client)
}

async fn try_authenticate(app: &App, form: &Form) -> Result<Client, OAuthError> {
    let presented = presented(form)?;
    let refused = |client: &str, why| {
        tracing::debug!(client, why, "client authentication failed");
        OAuthError::invalid_client()
    };
    let Ok(id) = ClientId::parse(&presented.id) else { return Err(refused("", "no client ID")) };
    let Some(client) = app.store.client(&id).await? else {
        return Err(refused(id.as_str(), "unknown client"));
    };
    if client.metadata.auth_method != presented.method {
        return Err(refused(id.as_str(), "another authentication method than the registered one"));
    }
    let good = match (&client.secret, &presented.secret) {
        _ if client.metadata.auth_method.is_public() => true,
        (Some(stored), Some(given)) => {
            let previous = client.live_previous(app.now()).map(|previous| &previous.secret);
            let forms: Vec<&StoredSecret> = std::iter::once(stored).chain(previous).collect();
            let who = Who { client: id.clone(), address: form.origin().nearest() };
            match app.secrets.verify(&who, &forms, given).await {
                Ok(good) => good,
                Err(NotChecked::TooMany(wait)) => {
                    app.metrics.secrets_not_checked.inc();
                    tracing::debug!(client = id.as_str(), ?wait, "too many secrets of a client were tried");
                    return Err(OAuthError::too_many_tries(wait));
                }
                Err(NotChecked::Failed(error)) => return Err(error.into()),
            }
        }
        _ => false,
    };
    if good { Ok(client) } else { Err(refused(id.as_str(), "wrong secret")) }
}

fn presented(form: &Form) -> Result<Presented, OAuthError> {
    let two = || OAuthError::invalid_request("the client must authenticate in one way only");
    let body_secret = form.secret("client_secret");
    let assertion = form.get("client_assertion").or(form.get("client_assertion_type")).is_some();
    let header = authorization(form.headers())?;
    if !matches!(header, Header::Absent) && (body_secret.is_some() || assertion) {
        return Err(two());
    }
    if let Header::Basic(id, secret) = header {
        // Naming itself in the body too is no second method, as long as it is the same name.
        if form.get("client_id").is_some_and(|other| other != id) {
            return Err(OAuthError::invalid_request(
                "client_id differs from the one in the Authorization header",
            ));
        }
        return Ok(Presented { id, method: AuthMethod::ClientSecretBasic, secret: Some(secret) });
    }
    if matches!(header, Header::Unusable) {
        return Err(OAuthError::invalid_client());
    }
    if assertion {
        return Err(if body_secret.is_some() { two() } else { OAuthError::invalid_client() });
    }
    let id = form.get("client_id").ok_or_else(OAuthError::invalid_client)?.to_owned();
    let method = if body_secret.is_some() { AuthMethod::ClientSecretPost } else { AuthMethod::None };
    Ok(Presented { id, method, secret: body_secret.cloned() })
}

/// What the Authorization header says.
enum Header {
    Absent,
    /// Another scheme, or Basic that can't be read.
    Unusable,
    Basic(String, SecretString),
}

fn authorization(headers: &HeaderMap) -> Result<Header, OAuthError> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = all.next() else { return Ok(Header::Absent) };
    if all.next().is_some() {
        return Err(OAuthError::invalid_request("there is more than one Authorization header"));
    }
    let found = value.to_str().ok().and_then(basic);
    Ok(found.map_or(Header::Unusable, |(id, secret)| Header::Basic(id, secret)))
}

fn basic(value: &str) -> Option<(String, SecretString)> {
    let (scheme, credentials) = value.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    let plain: SecretString = String::from_utf8(STANDARD.decode(credentials.trim()).ok()?).ok()?.into();
    let (id, secret) = plain.expose_secret().split_once(':')?;
    Some((form_decode(id)?, form_decode(secret)?.into()))
}

/// Undoes application/x-www-form-urlencoded (RFC 6749 appendix B) of one value.
fn form_decode(text: &str) -> Option<String> {
    // `&` and `=` stand for themselves here: a client that encoded nothing may have one.
    let text = text.replace('&', "%26").replace('=', "%3D");
    let (decoded, _) = url::form_urlencoded::parse(text.as_bytes()).next().unwrap_or_default();
    (!decoded.contains('\u{fffd}')).then(|| decoded.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_authorization(values: &[&str], body: &str) -> Result<Presented, OAuthError> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        presented(&Form::of(headers, body)?)
    }

    fn encoded(plain: &str) -> String {
        format!("Basic {}", STANDARD.encode(plain))
    }

    #[test]
    fn basic_is_form_decoded() {
        for (plain, id, secret) in [
            ("c:s", "c", "s"),
            ("team+a%2Fci%3A1:p%25+q%2B", "team a/ci:1", "p% q+"),
            ("c:a=b&c", "c", "a=b&c"),
            ("c:a:b", "c", "a:b"),
            ("c:", "c", ""),
        ] {
            let found =
                with_authorization(&[&encoded(plain)], "").unwrap_or_else(|e| panic!("{plain}: {e:?}"));
            assert_eq!(found.id, id);
            assert_eq!(found.secret.expect("a secret").expose_secret(), secret);
            assert_eq!(found.method, AuthMethod::ClientSecretBasic);
        }
    }

    #[test]
    fn what_is_no_good_basic_is_invalid_client() {
        for bad in ["Basic", "Basic !", "Bearer abc", &encoded("no colon"), &encoded("c:%ff")] {
            assert_eq!(
                with_authorization(&[bad], "client_id=c").err(),
                Some(OAuthError::invalid_client()),
                "{bad}"
            );
        }
    }

    #[test]
    fn two_ways_at_once_are_an_invalid_request() {
        let good = encoded("c:s");
        for (headers, body) in [
            (vec![good.as_str()], "client_id=c&client_secret=s"),
            (vec![good.as_str()], "client_secret=s"),
            (vec![good.as_str()], "client_assertion=x"),
            (vec![good.as_str()], "client_id=d"),
            (vec![good.as_str(), good.as_str()], ""),
            (vec![], "client_id=c&client_secret=s&client_assertion=x"),
        ] {
            let error = with_authorization(&headers, body).err().expect("an error");
            assert!(format!("{error:?}").contains("invalid_request"), "{body}: {error:?}");
        }
    }

    #[test]
    fn the_body_says_post_or_none() {
        let of = |body| with_authorization(&[], body);
        assert_eq!(
            of("client_id=c&client_secret=s").map(|p| p.method).ok(),
            Some(AuthMethod::ClientSecretPost)
        );
        assert_eq!(of("client_id=c").map(|p| p.method).ok(), Some(AuthMethod::None));
        assert_eq!(of("client_id=c&client_secret=").map(|p| p.method).ok(), Some(AuthMethod::None));
        for bad in ["", "client_secret=s", "client_id=c&client_assertion=x"] {
            assert_eq!(of(bad).err(), Some(OAuthError::invalid_client()), "{bad}");
        }
        assert!(with_authorization(&[&encoded("c:s")], "client_id=c").is_ok());
    }
}
