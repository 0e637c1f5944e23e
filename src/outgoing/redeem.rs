//! A code that can't exist, redeemed: the proof of a credential where there is no revocation
//! endpoint (RFC 6749 section 4.1.3). Most servers authenticate the client first, so wrong
//! credentials and a wrong code are told apart; which answer means which is the caller's to say,
//! and a control with a wrong secret must come out differently.

use super::ClientCredentials;
use super::error::error_code;
use crate::http::{HttpClient, NotSent, Request, SendError};
use url::Url;

/// What the token endpoint answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redeemed {
    /// The status.
    pub status: u16,
    /// The error code, if it is a known one.
    pub code: Option<&'static str>,
}

/// Redeems a code that can't exist.
///
/// # Errors
/// [`SendError`] where there is no answer.
pub async fn redeem_nothing(
    http: &HttpClient,
    endpoint: &Url,
    client: &ClientCredentials,
) -> Result<Redeemed, SendError> {
    let pairs = [
        ("grant_type", "authorization_code"),
        ("code", "applink-proof-of-credentials"),
        // No client has it: the top-level domain is reserved (RFC 2606).
        ("redirect_uri", "https://applink.invalid/"),
    ];
    let request = client
        .form(Request::post(endpoint.clone()), &pairs)
        .map_err(|_| SendError::NotSent(NotSent::Unbuildable))?;
    let response = http.send(request).await?;
    Ok(Redeemed { status: response.status, code: error_code(&response.body).flatten() })
}
