//! Whether what is read for an outgoing link may be sent to its server. Pure.

use crate::api::names;
use crate::domain::Reason;
use crate::link::lend::{self, Lent};
use crate::link::problem::Problem;
use crate::link::validate::{ClientIdGoal, GrantGoal, OutgoingGoal};
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

/// Checks that a client's identifier may stand in the address that a browser is sent to, where it is a value of a
/// Secret: whoever connects the link reads it there, and who wrote the link chose the key.
///
/// # Errors
/// [`Problem`] that names Secret, key or endpoint, and the way out.
pub fn check_shown(
    goal: &OutgoingGoal,
    inputs: &[Lent],
    required: bool,
    endpoints: &ServerEndpoints,
) -> Result<(), Problem> {
    let Some(ClientIdGoal::Secret(at)) = goal.client.as_ref().map(|c| &c.id) else { return Ok(()) };
    if !matches!(goal.grant, GrantGoal::AuthorizationCode { .. }) {
        return Ok(());
    }
    let required = required && goal.server.named;
    let lent: Vec<_> = inputs.iter().filter(|l| l.secret == at.secret).collect();
    let held = |l: &&&Lent| (required || l.allowed.is_some()) && l.id_key.as_ref() != Some(&at.key);
    if let Some(Lent { secret, .. }) = lent.iter().find(held) {
        let (key, annotation) = (&at.key, names::CLIENT_ID_KEY);
        return Err(Problem::edit(
            Reason::ClientIdKeyNotAllowed,
            format!(
                "Secret {secret} doesn't say that its key {key} holds a client's identifier, and the identifier stands in the \
                 address that a browser is sent to; write it in spec.outgoing.oauth2.client.clientId, or annotate the \
                 Secret with {annotation}={key}"
            ),
        ));
    }
    let at = endpoints.authorization_endpoint.as_ref().map(|url| ("authorization endpoint", url));
    lend::check(lent, required, &Vec::from_iter(at))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::link::validate::validate;
    use serde_json::json;
    use url::Url;

    #[test]
    fn an_identifier_out_of_a_secret_is_shown_where_the_secret_says_so() {
        const AS: &str = "as.example";
        let both = Some("as.example, login.example");
        let annotated = |allowed: Option<&str>, id_key: Option<&str>| Lent {
            secret: "bank".into(),
            allowed: allowed.map(str::to_owned),
            id_key: id_key.map(str::to_owned),
        };
        let in_secret = json!({"secretRef": {"name": "bank", "idKey": "password"}});
        let in_spec = json!({"clientId": "us", "secretRef": {"name": "bank"}});
        let (code, device) = (json!({"authorizationCode": {}}), json!({"deviceCode": {}}));
        // The grant, the client, what the Secret says, whether that is demanded, and what comes of it.
        for (grant, client, lent, required, wanted) in [
            (&code, &in_secret, annotated(None, None), false, None),
            (&code, &in_secret, annotated(None, None), true, Some("ClientIdKeyNotAllowed")),
            (&code, &in_secret, annotated(Some(AS), None), false, Some("ClientIdKeyNotAllowed")),
            (&code, &in_secret, annotated(both, Some("client-id")), false, Some("ClientIdKeyNotAllowed")),
            (&code, &in_secret, annotated(Some(AS), Some("password")), false, Some("HostNotAllowed")),
            (&code, &in_secret, annotated(None, Some("password")), true, Some("AllowedHostsMissing")),
            (&code, &in_secret, annotated(both, Some("password")), true, None),
            (&code, &in_spec, annotated(Some(AS), None), true, None),
            (&device, &in_secret, annotated(Some(AS), None), true, None),
        ] {
            let link = json!({
                "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink", "metadata": {"name": "ci"},
                "spec": {"application": {"name": "CI"}, "outgoing": {"oauth2": {
                    "server": {"custom": {
                        "tokenEndpoint": "https://as.example/token",
                        "authorizationEndpoint": "https://login.example/authorize",
                        "deviceAuthorizationEndpoint": "https://as.example/device",
                    }},
                    "grant": grant, "client": client,
                }}},
            });
            let link = serde_json::from_value(link).expect("a link");
            let goal = validate(&link).expect("valid").outgoing.expect("an outgoing part");
            let url = |text: &str| Url::parse(text).expect("an address");
            let mut endpoints = ServerEndpoints::new(url("https://as.example/token"));
            endpoints.authorization_endpoint = Some(url("https://login.example/authorize"));
            let got = check_shown(&goal, std::slice::from_ref(&lent), required, &endpoints);
            assert_eq!(got.err().map(|p| p.reason), wanted, "{grant} {client} {lent:?} {required}");
        }
    }
}
