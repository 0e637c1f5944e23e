//! Whether what is read for an outgoing link may be sent to its server. Pure.

use crate::link::lend::{self, Lent};
use crate::link::problem::Problem;
use crate::link::validate::{GrantGoal, OutgoingGoal};
use crate::outgoing::ServerEndpoints;

/// Checks that everything that is read for a link may be sent to every endpoint that gets some of it.
///
/// # Errors
/// [`Problem`] that names Secret, endpoint and host.
pub fn check(
    goal: &OutgoingGoal,
    inputs: &[Lent],
    required: bool,
    endpoints: &ServerEndpoints,
) -> Result<(), Problem> {
    // Nothing is sent there for another grant.
    let by_device = matches!(goal.grant, GrantGoal::DeviceCode { .. });
    let pushed =
        matches!(goal.grant, GrantGoal::AuthorizationCode { .. }) && endpoints.declared.requires_push;
    let mut targets = vec![("token endpoint", &endpoints.token_endpoint)];
    targets.extend(endpoints.revocation_endpoint.as_ref().map(|url| ("revocation endpoint", url)));
    let device = endpoints.device_authorization_endpoint.as_ref().filter(|_| by_device);
    targets.extend(device.map(|url| ("device authorization endpoint", url)));
    let push = endpoints.declared.push_endpoint.as_ref().filter(|_| pushed);
    targets.extend(push.map(|url| ("pushed authorization request endpoint", url)));
    lend::check(inputs, required && goal.server.named, &targets)
}
