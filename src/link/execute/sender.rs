//! Who sends a request, made ready to be sent: a client whose assertion is a ServiceAccount's token
//! gets one just before. So a token is made when one is due, and by no pass that does nothing.

use crate::domain::Reason;
use crate::link::context::Context;
use crate::link::grant::Grant;
use crate::link::problem::Problem;
use crate::link::service_account::{Assertion, out_of_reach};
use crate::outgoing::{ClientAuth, ClientCredentials, ServiceAccount, TokenError};
use std::time::Instant;

/// A client that can be sent.
pub struct Sender {
    /// The client.
    pub client: Option<ClientCredentials>,
    /// Whose token is in it.
    account: Option<(ServiceAccount, Assertion)>,
}

impl Sender {
    /// Whether the client authenticates with an assertion.
    pub(super) fn signs(&self) -> bool {
        let auth = self.client.as_ref().map(|client| &client.auth);
        matches!(auth, Some(ClientAuth::PrivateKey { .. } | ClientAuth::Assertion { .. }))
    }
}

/// Makes a client ready to be sent.
///
/// # Errors
/// [`Problem`] where there is no token for it.
pub async fn sender(ctx: &Context, client: Option<ClientCredentials>) -> Result<Sender, Problem> {
    let Some(ClientCredentials { id, auth: ClientAuth::ServiceAccount(account) }) = client else {
        return Ok(Sender { client, account: None });
    };
    let assertion = ctx.accounts.get(&account, Instant::now()).await?;
    let names_us = id.as_str() == account.subject();
    let auth = ClientAuth::Assertion { made: assertion.token.clone(), names_us };
    Ok(Sender { client: Some(ClientCredentials { id, auth }), account: Some((account, assertion)) })
}

/// Who gives a grant back. `None` where nobody can show any more who we are: what was granted ends
/// by itself.
pub(super) async fn revoker(
    ctx: &Context,
    client: ClientCredentials,
    grant: &Grant,
) -> Result<Option<ClientCredentials>, Problem> {
    match sender(ctx, Some(client)).await {
        Ok(sender) => Ok(sender.client),
        Err(problem) if out_of_reach(&problem) => {
            tracing::warn!(
                namespace = %grant.link.namespace, link = %grant.link.name, reason = problem.reason,
                "the grant isn't revoked, since its client has no token"
            );
            Ok(None)
        }
        Err(problem) => Err(Problem {
            message: format!(
                "the authorization server can't be told to revoke the grant: {}",
                problem.message
            ),
            ..problem.called(Reason::RevocationFailed)
        }),
    }
}

/// What a refusal means where a ServiceAccount's token was sent. It is mended at the server, so
/// nothing here changes when it is, and the request is tried again, with another token: the
/// server may also have refused one of a ServiceAccount that was made anew.
pub(super) async fn assertion_refused(ctx: &Context, sender: &Sender, e: &TokenError) -> Option<Problem> {
    let (account, assertion) = sender.account.as_ref()?;
    // Also where no such trust is known yet: some servers call that a bad request.
    const ABOUT_US: [&str; 3] = ["invalid_client", "unauthorized_client", "invalid_request"];
    let code = match e {
        TokenError::BadClient { code, .. } => *code,
        TokenError::Rejected { code: Some(code), .. } if ABOUT_US.contains(code) => Some(*code),
        _ => return None,
    };
    ctx.accounts.forget(account).await;
    Some(Problem::wait(
        Reason::AssertionRefused,
        format!(
            "the server doesn't accept the token of ServiceAccount {} as our client's assertion ({}); there, trust issuer \
                 {}, subject {} and audience {:?} for this client, and check that it knows the cluster's keys and that the clocks \
                 agree; it is tried again",
            account.name,
            code.unwrap_or("no known error code"),
            assertion.issuer,
            account.subject(),
            account.audience
        ),
    ))
}
