//! The bearer token of the admin API. Its file is read for every request, so a token that was
//! rotated works at once, and the old one no longer does.

use super::Problem;
use crate::server::state::App;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use secrecy::{ExposeSecret as _, SecretString};
use sha2::{Digest as _, Sha256};
use std::io;
use std::path::Path;
use std::sync::Arc;
use subtle::ConstantTimeEq as _;

const SHORTEST: usize = 16;

/// Why the file gives no token; the text follows its path.
#[derive(Debug, thiserror::Error)]
pub enum AdminTokenError {
    /// It can't be read.
    #[error("can't be read ({0})")]
    Unreadable(#[from] io::Error),
    /// Its content can't be a bearer token.
    #[error("must have one line of at least {SHORTEST} visible ASCII characters")]
    NoToken,
}

/// Checks that there is a token in the file, as it is now.
///
/// # Errors
/// [`AdminTokenError`].
pub fn check_token_file(path: &Path) -> Result<(), AdminTokenError> {
    token(std::fs::read_to_string(path)?).map(|_| ())
}

fn token(text: String) -> Result<SecretString, AdminTokenError> {
    let text = SecretString::from(text);
    let token = text.expose_secret().trim();
    let good = token.len() >= SHORTEST && token.bytes().all(|b| b.is_ascii_graphic());
    if good { Ok(token.to_owned().into()) } else { Err(AdminTokenError::NoToken) }
}

/// Lets a request pass that has the token.
pub async fn require(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let file = &app.admin_token_file;
    let wanted = tokio::fs::read_to_string(file).await.map_err(AdminTokenError::from).and_then(token);
    let wanted = match wanted {
        Ok(wanted) => wanted,
        Err(error) => {
            tracing::error!(file = %file.display(), %error, "the admin token file is no good; nobody is let in");
            let text = "the server's admin token file is no good; its log says why";
            return Problem::new(StatusCode::SERVICE_UNAVAILABLE, "no-admin-token", text).into_response();
        }
    };
    if !bearer(request.headers()).is_some_and(|given| same(given, wanted.expose_secret())) {
        let text = "give the admin token as: Authorization: Bearer TOKEN";
        return Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", text).into_response();
    }
    next.run(request).await
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let mut all = headers.get_all(header::AUTHORIZATION).iter();
    let (Some(value), None) = (all.next(), all.next()) else { return None };
    let (scheme, token) = value.to_str().ok()?.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Constant time, whatever the lengths.
fn same(a: &str, b: &str) -> bool {
    Sha256::digest(a.as_bytes()).as_slice().ct_eq(Sha256::digest(b.as_bytes()).as_slice()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_a_token() {
        assert_eq!(
            token("  0123456789abcdef\n".into()).expect("a token").expose_secret(),
            "0123456789abcdef"
        );
        for bad in ["", "\n", "0123456789abcde", "0123456789 abcdef", "0123456789\nabcdef"] {
            assert!(token(bad.into()).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn one_bearer_only() {
        let of = |values: &[&str]| {
            let mut headers = HeaderMap::new();
            for v in values {
                headers.append(header::AUTHORIZATION, v.parse().expect("a header"));
            }
            bearer(&headers).map(str::to_owned)
        };
        assert_eq!(of(&["Bearer x"]).as_deref(), Some("x"));
        assert_eq!(of(&["bearer x"]).as_deref(), Some("x"));
        assert_eq!(of(&["Basic x"]), None);
        assert_eq!(of(&["Bearer x", "Bearer y"]), None);
        assert_eq!(of(&[]), None);
        assert!(same("a", "a") && !same("a", "b") && !same("a", "aa"));
    }
}
