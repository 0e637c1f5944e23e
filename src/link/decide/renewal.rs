//! A consent that gave neither a refresh token nor a token without end: why that may be, and the way out.
//! Pure.

use crate::link::grant::Grant;
use crate::link::validate::{GrantGoal, OFFLINE_ACCESS, OutgoingGoal, PROMPT};

/// Why nobody but a person renews the token of a grant, and what gives one that is renewed. `None` where it
/// is renewed, or has no end.
pub fn unrenewed(goal: &OutgoingGoal, grant: &Grant) -> Option<String> {
    let ends = grant.access.as_ref().is_some_and(|access| !access.has_no_end());
    let alone = goal.grant.asks_a_person() && grant.refresh_token.is_none() && ends;
    alone.then(|| format!("the server gave no refresh token with it; {}", way_out(goal)))
}

/// What gives a refresh token, as far as the link's own words tell.
pub(super) fn way_out(goal: &OutgoingGoal) -> String {
    let preset = goal.server.preset;
    let asked = |scope: &str| goal.scopes.iter().any(|s| s.as_str() == scope);
    let given = match &goal.grant {
        GrantGoal::AuthorizationCode { parameters, .. } => Some(parameters),
        _ => None,
    };
    let replaced = preset
        .authorization_parameters
        .iter()
        .find(|(name, value)| given.and_then(|p| p.get(*name)).is_some_and(|other| other != value));
    if let Some((name, value)) = replaced {
        return format!(
            "the link's own parameter {name} stands in the place of {name}={value}, by which {} gives one: remove it from \
             spec.outgoing.oauth2.grant.authorizationCode.parameters",
            preset.name
        );
    }
    let custom = preset.name == crate::outgoing::presets::CUSTOM.name;
    if custom && !asked(OFFLINE_ACCESS) {
        return "ask for the scope that gives one (offline_access at many servers) in spec.outgoing.oauth2.scopes, and allow \
                the client refresh tokens at the server"
            .to_owned();
    }
    let prompt = given.and_then(|p| p.get(PROMPT));
    if custom
        && let Some(prompt) = prompt
        && !prompt.split(' ').any(|p| p == "consent")
    {
        return "the link's own parameter prompt lacks consent, without which servers ignore the scope offline_access \
                (OpenID Connect Core section 11): add it in spec.outgoing.oauth2.grant.authorizationCode.parameters, or \
                remove prompt there"
            .to_owned();
    }
    "the link asks for one, so allow the client refresh tokens at the server (its grant type refresh_token)"
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ApplicationLink;
    use crate::link::validate::validate;
    use serde_json::{Value, json};

    fn goal(server: Value, grant: Value, scopes: Value) -> OutgoingGoal {
        let link: ApplicationLink = serde_json::from_value(json!({
            "apiVersion": "applink-operator.io/v1alpha1", "kind": "ApplicationLink",
            "metadata": {"namespace": "team", "name": "l"},
            "spec": {"application": {"name": "App"}, "outgoing": {"oauth2": {
                "server": server, "grant": grant, "scopes": scopes,
                "client": {"secretRef": {"name": "c"}},
            }}},
        }))
        .expect("a link");
        validate(&link).expect("valid").outgoing.expect("outgoing")
    }

    #[test]
    fn the_way_out_is_none_that_was_gone_already() {
        let custom = || json!({"custom": {"issuer": "https://id.example"}});
        let code = |parameters: Value| json!({"authorizationCode": {"parameters": parameters}});
        let cases = [
            (custom(), code(json!({})), json!(["a"]), None, "ask for the scope"),
            (custom(), code(json!({})), json!(["offline_access"]), Some("consent"), "allow the client"),
            (
                custom(),
                code(json!({"prompt": "login"})),
                json!(["offline_access"]),
                Some("login"),
                "lacks consent",
            ),
            (
                custom(),
                code(json!({"prompt": "login consent"})),
                json!(["offline_access"]),
                Some("login consent"),
                "allow the client",
            ),
            (custom(), json!({"deviceCode": {}}), json!(["offline_access"]), None, "allow the client"),
            (custom(), json!({"deviceCode": {}}), json!([]), None, "ask for the scope"),
            (json!({"google": {}}), code(json!({})), json!(["a"]), None, "allow the client"),
            (
                json!({"google": {}}),
                code(json!({"access_type": "online"})),
                json!(["a"]),
                None,
                "the link's own parameter access_type",
            ),
            // Entra needs no prompt for the scope.
            (json!({"microsoft": {"tenant": "t"}}), code(json!({})), json!(["a"]), None, "allow the client"),
        ];
        for (server, grant, scopes, prompt, way) in cases {
            let goal = goal(server.clone(), grant.clone(), scopes.clone());
            let asked = match &goal.grant {
                GrantGoal::AuthorizationCode { parameters, .. } => parameters.get(PROMPT).cloned(),
                _ => None,
            };
            assert_eq!(asked.as_deref(), prompt, "{server} {grant} {scopes}");
            let said = way_out(&goal);
            assert!(said.contains(way), "{server} {grant} {scopes}: {said}");
        }
    }
}
