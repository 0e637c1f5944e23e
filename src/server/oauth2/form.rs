//! A form body, read strictly: RFC 6749 section 3.2 and appendix B.

use super::OAuthError;
use crate::runtime::peer::Origin;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{FromRequest, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use secrecy::SecretString;
use std::collections::BTreeMap;
use url::form_urlencoded;

/// The parameters of a request and its header. It has no `Debug`: secrets are in it.
pub struct Form {
    headers: HeaderMap,
    origin: Origin,
    parameters: BTreeMap<String, SecretString>,
}

impl Form {
    /// A parameter. One without a value counts as left out (RFC 6749 section 3.2).
    pub fn get(&self, name: &str) -> Option<&str> {
        use secrecy::ExposeSecret as _;
        self.parameters.get(name).map(|v| v.expose_secret())
    }

    /// A parameter that is a secret.
    pub fn secret(&self, name: &str) -> Option<&SecretString> {
        self.parameters.get(name)
    }

    /// The header.
    pub fn headers(&self) -> &HeaderMap {
        &self.headers
    }

    /// Where the request comes from.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    #[cfg(test)]
    pub(super) fn of(headers: HeaderMap, body: &str) -> Result<Self, OAuthError> {
        Ok(Self { headers, origin: Origin::default(), parameters: parse(body.as_bytes())? })
    }
}

fn parse(body: &[u8]) -> Result<BTreeMap<String, SecretString>, OAuthError> {
    let mut seen: BTreeMap<String, SecretString> = BTreeMap::new();
    for (name, value) in form_urlencoded::parse(body) {
        // What isn't UTF-8 was replaced; nobody could have meant that.
        if name.contains('\u{fffd}') || value.contains('\u{fffd}') {
            return Err(OAuthError::invalid_request("the body is not UTF-8 after decoding"));
        }
        if seen.insert(name.into_owned(), value.into_owned().into()).is_some() {
            return Err(OAuthError::invalid_request("a parameter is there more than once"));
        }
    }
    seen.retain(|_, value| !secrecy::ExposeSecret::expose_secret(value).is_empty());
    Ok(seen)
}

fn is_form(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
    let kind = kind.split(';').next().unwrap_or("").trim();
    kind.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn unreadable(rejection: BytesRejection) -> OAuthError {
    if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
        OAuthError::too_large()
    } else {
        OAuthError::invalid_request("the body could not be read")
    }
}

impl<S: Send + Sync> FromRequest<S> for Form {
    type Rejection = OAuthError;

    async fn from_request(request: Request, state: &S) -> Result<Self, OAuthError> {
        if !is_form(request.headers()) {
            let text = "the body must be application/x-www-form-urlencoded";
            return Err(OAuthError::invalid_request(text));
        }
        let headers = request.headers().clone();
        let origin = request.extensions().get().copied().unwrap_or_default();
        let body = Bytes::from_request(request, state).await.map_err(unreadable)?;
        Ok(Self { headers, origin, parameters: parse(&body)? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn form(body: &str) -> Result<Form, OAuthError> {
        Form::of(HeaderMap::new(), body)
    }

    #[test]
    fn parameters_are_decoded_once_and_empty_ones_are_left_out() {
        let form = form("a=1+2%2B3&b=&c=%25&d").unwrap_or_else(|_| panic!("a form"));
        assert_eq!(
            (form.get("a"), form.get("b"), form.get("c"), form.get("d")),
            (Some("1 2+3"), None, Some("%"), None)
        );
    }

    #[test]
    fn repetitions_and_broken_text_are_refused() {
        for bad in ["a=1&a=1", "a=1&%61=2", "a=&a=1", "a=%ff", "%ff=1"] {
            assert!(form(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn only_a_form_is_a_form() {
        let of = |kind: &'static str| {
            is_form(&HeaderMap::from_iter([(header::CONTENT_TYPE, kind.parse().expect("kind"))]))
        };
        assert!(of("application/x-www-form-urlencoded"));
        assert!(of("Application/X-WWW-Form-Urlencoded; charset=UTF-8"));
        assert!(!of("application/json"));
        assert!(!of("multipart/form-data"));
        assert!(!is_form(&HeaderMap::new()));
    }
}
