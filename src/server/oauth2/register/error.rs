//! Errors of the registration endpoints: RFC 7591 section 3.2.2 for what is registered, RFC 6750 section 3.1 for who
//! registers it.

use crate::server::client_rules::{Broken, Rule};
use crate::server::oauth2::OAuthError;
use crate::server::random::NoRandomness;
use crate::server::secret::HashingFailed;
use crate::server::store::StoreError;
use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};

/// An error reply of a registration endpoint.
#[derive(Debug)]
pub enum RegistrationError {
    /// What is to be registered can't be.
    Refused {
        /// `invalid_redirect_uri` or `invalid_client_metadata`.
        code: &'static str,
        /// What is wrong with it.
        description: String,
    },
    /// There is no token, or it isn't good for this.
    Token,
    /// Anything else.
    Other(OAuthError),
}

impl RegistrationError {
    /// Something of the metadata is wrong.
    pub fn metadata(description: impl Into<String>) -> Self {
        Self::Refused { code: "invalid_client_metadata", description: description.into() }
    }

    /// Something of the redirect URIs is wrong.
    pub fn redirect_uri(description: impl Into<String>) -> Self {
        Self::Refused { code: "invalid_redirect_uri", description: description.into() }
    }

    /// There is no token, or it isn't good for this. One text for every cause, so that it says nothing of which clients
    /// there are.
    pub const fn token() -> Self {
        Self::Token
    }

    /// Something is wrong here.
    pub const fn server_error() -> Self {
        Self::Other(OAuthError::server_error())
    }

    /// Others write all the time.
    pub const fn busy() -> Self {
        Self::Other(OAuthError::timed_out())
    }
}

impl From<Broken> for RegistrationError {
    fn from(broken: Broken) -> Self {
        match broken.rule {
            Rule::RedirectUri => Self::redirect_uri(broken.text),
            Rule::GrantTypes | Rule::Scope | Rule::Other => Self::metadata(broken.text),
        }
    }
}

impl From<StoreError> for RegistrationError {
    fn from(error: StoreError) -> Self {
        Self::Other(error.into())
    }
}

impl From<HashingFailed> for RegistrationError {
    fn from(error: HashingFailed) -> Self {
        Self::Other(error.into())
    }
}

impl From<NoRandomness> for RegistrationError {
    fn from(error: NoRandomness) -> Self {
        Self::Other(error.into())
    }
}

impl IntoResponse for RegistrationError {
    fn into_response(self) -> Response {
        let (status, code, description) = match self {
            Self::Other(error) => return error.into_response(),
            Self::Refused { code, description } => (StatusCode::BAD_REQUEST, code, description),
            Self::Token => {
                let text = "the access token is missing, unknown, expired or used up, or isn't this client's";
                (StatusCode::UNAUTHORIZED, "invalid_token", text.to_owned())
            }
        };
        // Section 3.2.2 wants ASCII, and callers' own values are in it.
        let plain = |c: char| if c == ' ' || c.is_ascii_graphic() { c } else { '?' };
        let description: String = description.chars().map(plain).collect();
        let body = serde_json::json!({ "error": code, "error_description": description });
        let mut response = (status, Json(body)).into_response();
        if status == StatusCode::UNAUTHORIZED {
            let bearer = HeaderValue::from_static("Bearer realm=\"applink\", error=\"invalid_token\"");
            response.headers_mut().insert(header::WWW_AUTHENTICATE, bearer);
        }
        response
    }
}
