//! The proof that credentials authenticate, which most providers share: revoke a token that can't
//! exist (RFC 7009 section 2.2). Right credentials get 200 for it, wrong ones 401, whatever the
//! grants of the client.

use super::{Proof, ProviderInfo};
use crate::domain::{AuthMethod, ClientId, SecretString};
use crate::http::HttpClient;
use crate::outgoing::{ClientCredentials, Revoked, revoke_token};
use url::Url;

/// Proves credentials at the provider's revocation endpoint; unproved where it has none.
pub(super) async fn prove_by_revocation(
    http: &HttpClient,
    info: &ProviderInfo,
    id: &ClientId,
    secret: &SecretString,
    method: AuthMethod,
) -> Proof {
    let Some(endpoint) = info.revocation_endpoint.as_deref().and_then(|u| Url::parse(u).ok()) else {
        return Proof::Unproved;
    };
    let client = ClientCredentials::by_secret(id.clone(), method, secret.clone());
    let token = SecretString::from("applink-proof-of-credentials");
    match revoke_token(http, &endpoint, &client, &token, None).await {
        Ok(Revoked::Authenticated) => Proof::Authenticated,
        Ok(Revoked::WrongCredentials) => Proof::Refused,
        Ok(Revoked::Unproved(_)) | Err(_) => Proof::Unproved,
    }
}
