//! The grant: which one it is, whether the server knows it, and what is asked for with it. Pure.

use super::{AT, GrantGoal, Invalid, JwtBearerGoal, OFFLINE_ACCESS, PROMPT, SecretKey, ServerGoal, invalid};
use crate::api::link::Grant;
use crate::domain::text::Shown;
use crate::domain::{Scope, ScopeSet};
use crate::outgoing::ServerEndpoints;
use crate::outgoing::presets::{self, Preset};
use std::collections::BTreeMap;

/// The scopes that are asked for: with those that keep a grant alive, and those by which the server
/// says whose it is.
pub(super) fn asked(preset: &Preset, grant: &GrantGoal, scopes: ScopeSet) -> ScopeSet {
    let account = if grant.expected().is_some() { preset.account_scopes } else { &[] };
    let needed = match grant {
        GrantGoal::AuthorizationCode { .. } | GrantGoal::DeviceCode { .. } => preset.consent_scopes,
        GrantGoal::RefreshToken(_) if !scopes.is_empty() => preset.consent_scopes,
        _ => &[],
    };
    let needed = needed.iter().chain(account).filter_map(|s| Scope::parse(s).ok());
    scopes.iter().cloned().chain(needed).collect()
}

/// The grant with what the scope `offline_access` needs beside it: servers that keep to OpenID Connect Core
/// section 11 ignore the scope unless `prompt` has `consent` in it. A `prompt` of the link's own stays, and
/// presets know what theirs need. A server that knows no `prompt` ignores it (RFC 6749 section 3.1).
pub(super) fn prompted(preset: &Preset, mut grant: GrantGoal, scopes: &ScopeSet) -> GrantGoal {
    if let GrantGoal::AuthorizationCode { parameters, .. } = &mut grant
        && preset == &presets::CUSTOM
        && scopes.iter().any(|s| s.as_str() == OFFLINE_ACCESS)
    {
        parameters.entry(PROMPT.to_owned()).or_insert_with(|| "consent".to_owned());
    }
    grant
}

/// Whether the endpoint is known at which a person's consent begins; of an issuer discovery tells it.
pub(super) fn can_begin(server: &ServerGoal, grant: &GrantGoal) -> Result<(), Invalid> {
    let Some(known) = server.endpoints() else { return Ok(()) };
    let (grant, endpoint, there) = match grant {
        GrantGoal::AuthorizationCode { .. } => {
            ("authorizationCode", "authorizationEndpoint", &known.authorization_endpoint)
        }
        GrantGoal::DeviceCode { .. } => {
            ("deviceCode", "deviceAuthorizationEndpoint", &known.device_authorization_endpoint)
        }
        GrantGoal::ClientCredentials | GrantGoal::RefreshToken(_) | GrantGoal::JwtBearer(_) => return Ok(()),
    };
    let name = server.preset.name;
    if there.is_some() {
        Ok(())
    } else if server.preset == &presets::CUSTOM {
        Err(invalid(
            format!("{AT}.server.custom.{endpoint}"),
            format!("must be set for the grant {grant}; or name the issuer in place of endpoints"),
        ))
    } else {
        Err(invalid(
            format!("{AT}.server.{name}.endpoints.{endpoint}"),
            format!(
                "must be set for the grant {grant}, since none of {name} is known; or use {}",
                others(server.preset, Some(known))
            ),
        ))
    }
}

pub(super) fn grant(spec: &Grant, server: &ServerGoal) -> Result<GrantGoal, Invalid> {
    let Grant { authorization_code, device_code, client_credentials, refresh_token, jwt_bearer } = spec;
    let unknown = |grant: &str| {
        let way = others(server.preset, server.endpoints());
        invalid(
            format!("{AT}.grant.{grant}"),
            format!("{} doesn't know this grant; use {way}", server.preset.name),
        )
    };
    let preset = server.preset;
    match (authorization_code, device_code, client_credentials, refresh_token, jwt_bearer) {
        (Some(a), None, None, None, None) => Ok(GrantGoal::AuthorizationCode {
            parameters: parameters(&a.parameters)?,
            expected: a.expected_account.clone(),
        }),
        (None, Some(d), None, None, None) => {
            Ok(GrantGoal::DeviceCode { expected: d.expected_account.clone() })
        }
        (None, None, Some(_), None, None) if !preset.client_credentials => Err(unknown("clientCredentials")),
        (None, None, Some(_), None, None) => Ok(GrantGoal::ClientCredentials),
        (None, None, None, Some(r), None) => Ok(GrantGoal::RefreshToken(SecretKey {
            secret: r.secret_ref.name.clone(),
            key: r.secret_ref.key.clone(),
        })),
        (None, None, None, None, Some(_)) if !preset.jwt_bearer => Err(unknown("jwtBearer")),
        (None, None, None, None, Some(j)) => Ok(GrantGoal::JwtBearer(Box::new(JwtBearerGoal {
            at: SecretKey { secret: j.secret_ref.name.clone(), key: j.secret_ref.key.clone() },
            issuer: j.issuer.clone(),
            subject: j.subject.clone(),
            audience: j.audience.clone(),
        }))),
        _ => Err(invalid(
            format!("{AT}.grant"),
            "exactly one of authorizationCode, deviceCode, clientCredentials, refreshToken and jwtBearer must be set",
        )),
    }
}

/// The grants that work at a server, so that no advice leads to another refusal.
fn others(preset: &Preset, known: Option<&ServerEndpoints>) -> String {
    let (person, device) = known.map_or((true, true), |e| {
        (e.authorization_endpoint.is_some(), e.device_authorization_endpoint.is_some())
    });
    let all = [
        (preset.client_credentials, "clientCredentials"),
        (preset.jwt_bearer, "jwtBearer with the key of a service account"),
        (person, "authorizationCode or a refreshToken, where a person consents once"),
        (device, "deviceCode, where a person enters a code"),
    ];
    let works: Vec<&str> = all.into_iter().filter(|(works, _)| *works).map(|(_, grant)| grant).collect();
    works.join("; or ")
}

/// What an authorization request has by the protocol; nobody sets it by hand.
const PROTOCOL: &[&str] = &[
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code",
    "code_challenge",
    "code_challenge_method",
    "request",
    "request_uri",
];

/// Whether an authorization request has a parameter of this name by the protocol. Some servers don't tell
/// upper from lower case.
pub fn is_protocol(name: &str) -> bool {
    PROTOCOL.iter().any(|p| p.eq_ignore_ascii_case(name))
}

fn parameters(given: &BTreeMap<String, String>) -> Result<BTreeMap<String, String>, Invalid> {
    match given.keys().find(|k| is_protocol(k)) {
        None => Ok(given.clone()),
        Some(name) => Err(invalid(
            format!("{AT}.grant.authorizationCode.parameters"),
            format!("{} is the protocol's own parameter; remove it", Shown(name)),
        )),
    }
}
