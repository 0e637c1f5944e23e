//! The proof of credentials where it isn't known what the endpoints do.
//!
//! An endpoint proves something only if it answers right and wrong credentials differently. Since
//! nobody has seen Bitbucket's, each is tried with a random wrong secret after the first answer
//! that would mean success, and is used only where it refused that one. First the revocation
//! endpoint, then the token endpoint with a code that can't exist. A server that looks at the code
//! before the client proves nothing there.

use crate::domain::{AuthMethod, ClientId, SecretString};
use crate::http::HttpClient;
use crate::outgoing::{ClientCredentials, Redeemed, Revoked, redeem_nothing, revoke_token};
use crate::provider::{Proof, ProviderInfo};
use base64::Engine as _;
use std::sync::atomic::{AtomicBool, Ordering};
use url::Url;

/// Which endpoints were seen to refuse a wrong secret.
#[derive(Debug, Default)]
pub(super) struct Controls {
    revocation: AtomicBool,
    token: AtomicBool,
}

/// What one endpoint says of credentials.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Answer {
    Taken,
    Refused,
    /// It says nothing of them, ever: another way may.
    Nothing,
    /// No answer now, or trouble.
    Trouble,
}

impl Controls {
    /// Proves credentials by whichever endpoint tells right ones from wrong ones.
    pub(super) async fn prove(
        &self,
        http: &HttpClient,
        info: &ProviderInfo,
        id: &ClientId,
        secret: &SecretString,
        auth_method: AuthMethod,
    ) -> Proof {
        let client = |secret| ClientCredentials::by_secret(id.clone(), auth_method, secret);
        let (client, Some(wrong)) = (client(secret.clone()), random().map(client)) else {
            return Proof::Unproved;
        };
        if let Some(endpoint) = info.revocation_endpoint.as_deref().and_then(|u| Url::parse(u).ok()) {
            let (first, controlled) =
                tell(&self.revocation, &client, &wrong, |c| revoke(http, &endpoint, c)).await;
            match first {
                Answer::Taken if controlled => return Proof::Authenticated,
                // An endpoint that refuses everything looks so too, until it was seen to take some.
                Answer::Refused if controlled => return Proof::Refused,
                Answer::Trouble => return Proof::Unproved,
                _ => {}
            }
        }
        let Ok(endpoint) = Url::parse(&info.token_endpoint) else { return Proof::Unproved };
        let (first, controlled) = tell(&self.token, &client, &wrong, |c| redeem(http, &endpoint, c)).await;
        match first {
            Answer::Taken if controlled => Proof::Authenticated,
            // Here it is said by a code, so it needs no control.
            Answer::Refused => Proof::Refused,
            _ => Proof::Unproved,
        }
    }
}

/// What an endpoint answers to credentials, and whether it was seen to refuse wrong ones beside
/// right ones.
async fn tell<'a, F: Future<Output = Answer>>(
    controlled: &AtomicBool,
    client: &'a ClientCredentials,
    wrong: &'a ClientCredentials,
    ask: impl Fn(&'a ClientCredentials) -> F,
) -> (Answer, bool) {
    let first = ask(client).await;
    if first == Answer::Taken && !controlled.load(Ordering::Relaxed) {
        match ask(wrong).await {
            Answer::Refused => controlled.store(true, Ordering::Relaxed),
            Answer::Trouble => return (Answer::Trouble, false),
            Answer::Taken | Answer::Nothing => {}
        }
    }
    (first, controlled.load(Ordering::Relaxed))
}

async fn revoke(http: &HttpClient, endpoint: &Url, client: &ClientCredentials) -> Answer {
    let token = SecretString::from("applink-proof-of-credentials");
    match revoke_token(http, endpoint, client, &token, None).await {
        Ok(Revoked::Authenticated) => Answer::Taken,
        Ok(Revoked::WrongCredentials) => Answer::Refused,
        Ok(Revoked::Unproved(u)) if u.status < 500 && u.status != 429 => Answer::Nothing,
        Ok(Revoked::Unproved(_)) | Err(_) => Answer::Trouble,
    }
}

async fn redeem(http: &HttpClient, endpoint: &Url, client: &ClientCredentials) -> Answer {
    let Ok(Redeemed { status, code }) = redeem_nothing(http, endpoint, client).await else {
        return Answer::Trouble;
    };
    match (status, code) {
        (
            400 | 401 | 403,
            Some("invalid_client" | "unauthorized_client" | "incorrect_client_credentials"),
        ) => Answer::Refused,
        (400..=499, Some("invalid_grant" | "invalid_request")) => Answer::Taken,
        (429 | 500.., _) => Answer::Trouble,
        _ => Answer::Nothing,
    }
}

fn random() -> Option<SecretString> {
    let mut bytes = [0u8; 32];
    getrandom::fill(&mut bytes).ok()?;
    Some(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes).into())
}
