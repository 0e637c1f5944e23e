//! The authorization server: one of the presets, or one of one's own. Pure.

use super::{AT, Invalid, ServerGoal, ServerPlace, invalid};
use crate::api::link::{Endpoints, Server};
use crate::domain::text::Shown;
use crate::outgoing::presets;
use crate::outgoing::{Issuer, ServerEndpoints};
use url::Url;

pub(super) fn server(spec: &Server) -> Result<ServerGoal, Invalid> {
    let Server { google, microsoft, github, gitlab, slack, atlassian, custom } = spec;
    let set = [
        google.is_some(),
        microsoft.is_some(),
        github.is_some(),
        gitlab.is_some(),
        slack.is_some(),
        atlassian.is_some(),
        custom.is_some(),
    ];
    let none = None;
    let (preset, base, tenant, endpoints) = match spec {
        _ if set.into_iter().filter(|is| *is).count() != 1 => {
            return Err(invalid(
                format!("{AT}.server"),
                "exactly one of google, microsoft, github, gitlab, slack, atlassian and custom must be set",
            ));
        }
        Server { google: Some(s), .. } => (&presets::GOOGLE, &none, "", &s.endpoints),
        Server { slack: Some(s), .. } => (&presets::SLACK, &none, "", &s.endpoints),
        Server { atlassian: Some(s), .. } => (&presets::ATLASSIAN, &none, "", &s.endpoints),
        Server { microsoft: Some(s), .. } => (&presets::MICROSOFT, &none, s.tenant.as_str(), &s.endpoints),
        Server { github: Some(s), .. } => (&presets::GITHUB, &s.url, "", &s.endpoints),
        Server { gitlab: Some(s), .. } => (&presets::GITLAB, &s.url, "", &s.endpoints),
        Server { custom, .. } => return custom_server(custom.as_ref()),
    };
    let at = format!("{AT}.server.{}", preset.name);
    let tenant_fits =
        |t: &str| t.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.".contains(&b)) && !t.starts_with('.');
    if !tenant_fits(tenant) || (preset == &presets::MICROSOFT && tenant.is_empty()) {
        return Err(invalid(
            format!("{at}.tenant"),
            format!(
                "{} isn't a tenant; give its ID or domain, or common, organizations or consumers",
                Shown(tenant)
            ),
        ));
    }
    let base = base.as_deref().map(|b| base_url(format!("{at}.url"), b)).transpose()?;
    let Some(mut filled) = preset.endpoints(base.as_ref(), tenant) else {
        return Err(invalid(format!("{at}.url"), "isn't an address that this server can have"));
    };
    let named = base.is_some() || endpoints.is_some();
    if let Some(given) = endpoints {
        override_with(&mut filled, given, &at)?;
    }
    Ok(ServerGoal { preset, place: ServerPlace::Endpoints(Box::new(filled)), named })
}

fn override_with(filled: &mut ServerEndpoints, given: &Endpoints, at: &str) -> Result<(), Invalid> {
    let Endpoints {
        authorization_endpoint,
        token_endpoint,
        revocation_endpoint,
        device_authorization_endpoint,
        user_endpoint,
    } = given;
    let parse = |field: &str, text: &Option<String>| {
        text.as_deref().map(|t| url(format!("{at}.endpoints.{field}"), t)).transpose()
    };
    if let Some(token) = parse("tokenEndpoint", token_endpoint)? {
        filled.token_endpoint = token;
    }
    for (field, text, into) in [
        ("authorizationEndpoint", authorization_endpoint, &mut filled.authorization_endpoint),
        ("revocationEndpoint", revocation_endpoint, &mut filled.revocation_endpoint),
        (
            "deviceAuthorizationEndpoint",
            device_authorization_endpoint,
            &mut filled.device_authorization_endpoint,
        ),
        ("userEndpoint", user_endpoint, &mut filled.user_endpoint),
    ] {
        if let Some(given) = parse(field, text)? {
            *into = Some(given);
        }
    }
    Ok(())
}

fn custom_server(custom: Option<&crate::api::link::CustomServer>) -> Result<ServerGoal, Invalid> {
    let custom = custom.ok_or_else(|| invalid(format!("{AT}.server"), "exactly one server must be set"))?;
    let field = |f: &str| format!("{AT}.server.custom.{f}");
    let optional = |f: &str, text: &Option<String>| text.as_deref().map(|t| url(field(f), t)).transpose();
    let place = match (&custom.issuer, &custom.token_endpoint) {
        (Some(issuer), None) => {
            let parsed = Issuer::parse(issuer)
                .map_err(|e| invalid(field("issuer"), format!("{} {e}", Shown(issuer))))?;
            ServerPlace::Issuer(parsed)
        }
        (None, Some(token)) => ServerPlace::Endpoints(Box::new(ServerEndpoints {
            revocation_endpoint: optional("revocationEndpoint", &custom.revocation_endpoint)?,
            authorization_endpoint: optional("authorizationEndpoint", &custom.authorization_endpoint)?,
            device_authorization_endpoint: optional(
                "deviceAuthorizationEndpoint",
                &custom.device_authorization_endpoint,
            )?,
            ..ServerEndpoints::new(url(field("tokenEndpoint"), token)?)
        })),
        _ => return Err(invalid(field("issuer"), "exactly one of issuer and tokenEndpoint must be set")),
    };
    Ok(ServerGoal { preset: &presets::CUSTOM, place, named: true })
}

/// The address of a server of one's own, to which paths are added.
fn base_url(field: String, text: &str) -> Result<Url, Invalid> {
    let parsed = url(field.clone(), text)?;
    if parsed.query().is_some() {
        return Err(invalid(field, format!("{} has a query (?…); remove it", Shown(text))));
    }
    Ok(parsed)
}

fn url(field: String, text: &str) -> Result<Url, Invalid> {
    let bad = |why: &str| invalid(field.clone(), format!("{} {why}", Shown(text)));
    let url = Url::parse(text)
        .map_err(|_| bad("isn't an absolute URL; write it like https://login.example.com"))?;
    if !matches!(url.scheme(), "https" | "http") || !url.has_host() {
        return Err(bad("must be an https URL"));
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err(bad("has user information before the host; remove it"));
    }
    if url.fragment().is_some() {
        return Err(bad("has a fragment (#…); remove it"));
    }
    Ok(url)
}
