//! Our client at the server. Pure.

use super::{AT, ClientAuthGoal, ClientGoal, ClientIdGoal, Invalid, SecretKey, invalid};
use crate::api::link::{Client, ClientSecretRef, OutgoingAuthMethod, SigningAlgorithm as Wanted};
use crate::domain::text::Shown;
use crate::domain::{AuthMethod, ClientId};
use crate::outgoing::SigningAlgorithm;
use crate::outgoing::presets::Preset;

pub(super) fn client(spec: &Client, preset: &Preset) -> Result<ClientGoal, Invalid> {
    let Client { client_id, secret_ref, auth_method, assertion, service_account } = spec;
    let field = |f: &str| format!("{AT}.client.{f}");
    let key = |r: &ClientSecretRef, key: &str| SecretKey { secret: r.name.clone(), key: key.to_owned() };
    let id = match (client_id, secret_ref) {
        (Some(id), _) => ClientIdGoal::Given(
            ClientId::parse(id).map_err(|e| invalid(field("clientId"), format!("{} {e}", Shown(id))))?,
        ),
        (None, Some(r)) if r.id_key == r.secret_key => {
            return Err(invalid(
                field("secretRef.idKey"),
                "is the key of the secret too, and the identifier is for all to read; name another key, or give clientId",
            ));
        }
        (None, Some(r)) => ClientIdGoal::Secret(key(r, &r.id_key)),
        (None, None) if service_account.is_some() => ClientIdGoal::Subject,
        (None, None) => {
            return Err(invalid(
                field("clientId"),
                "clientId or secretRef must be set, but for a serviceAccount",
            ));
        }
    };
    if assertion.is_some()
        && (*auth_method != Some(OutgoingAuthMethod::PrivateKeyJwt) || service_account.is_some())
    {
        return Err(invalid(
            field("assertion"),
            "goes with authMethod private_key_jwt and a key of your own; remove it, or set authMethod",
        ));
    }
    if let Some(account) = service_account {
        if !matches!(auth_method, None | Some(OutgoingAuthMethod::PrivateKeyJwt)) {
            return Err(invalid(
                field("authMethod"),
                "isn't how a serviceAccount authenticates; leave it out",
            ));
        }
        let auth =
            ClientAuthGoal::ServiceAccount { name: account.name.clone(), audience: account.audience.clone() };
        return Ok(ClientGoal { id, auth });
    }
    if *auth_method == Some(OutgoingAuthMethod::None) {
        return Ok(ClientGoal { id, auth: ClientAuthGoal::None });
    }
    let Some(secret) = secret_ref else {
        return Err(invalid(field("secretRef"), "must be set, but for a serviceAccount and authMethod none"));
    };
    let at = key(secret, &secret.secret_key);
    let method = match auth_method {
        None => preset.auth_method,
        Some(OutgoingAuthMethod::ClientSecretPost) => AuthMethod::ClientSecretPost,
        Some(OutgoingAuthMethod::PrivateKeyJwt) => {
            let assertion = assertion.clone().unwrap_or_default();
            let algorithm = assertion.algorithm.map(|a| match a {
                Wanted::RS256 => SigningAlgorithm::RS256,
                Wanted::PS256 => SigningAlgorithm::PS256,
                Wanted::ES256 => SigningAlgorithm::ES256,
                Wanted::ES384 => SigningAlgorithm::ES384,
                Wanted::EdDSA => SigningAlgorithm::EdDSA,
            });
            let auth = ClientAuthGoal::PrivateKey {
                at,
                key_id: assertion.key_id,
                algorithm,
                audience: assertion.audience,
            };
            return Ok(ClientGoal { id, auth });
        }
        Some(OutgoingAuthMethod::ClientSecretBasic | OutgoingAuthMethod::None) => {
            AuthMethod::ClientSecretBasic
        }
    };
    Ok(ClientGoal { id, auth: ClientAuthGoal::Secret { method, named: auth_method.is_some(), at } })
}
