//! What an application asks to be registered with (RFC 7591 section 2). What isn't understood is ignored and isn't
//! kept; what is left out, null or empty is what the RFC gives it, also in a PUT (RFC 7592 section 2.2).

use super::{Body, RegistrationError};
use crate::domain::{AuthMethod, ClientId, ClientMetadata, GrantType, ScopeSet};
use crate::server::client_rules::{Wanted, Words};
use crate::server::oauth2::OAuthError;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse as _;
use secrecy::SecretString;
use serde_json::{Map, Value};

const WORDS: Words = Words {
    name: "client_name",
    uri: "client_uri",
    redirect_uris: "redirect_uris",
    grant_types: "grant_types",
    scopes: "scope",
    auth_method: "token_endpoint_auth_method",
};

/// What only the service may say of a client (RFC 7592 section 2.2).
const OURS: [&str; 4] = [
    "registration_access_token",
    "registration_client_uri",
    "client_secret_expires_at",
    "client_id_issued_at",
];

/// The body of a request. It has no `Debug`: a secret may be in it.
pub(super) struct Request {
    members: Map<String, Value>,
    secret: Option<SecretString>,
}

impl Request {
    /// Reads the body.
    ///
    /// # Errors
    /// 400, 413.
    pub(super) fn read(headers: &HeaderMap, body: Body) -> Result<Self, RegistrationError> {
        let body = body.map_err(|rejection| {
            if rejection.into_response().status() == StatusCode::PAYLOAD_TOO_LARGE {
                RegistrationError::Other(OAuthError::too_large())
            } else {
                RegistrationError::metadata("the body could not be read")
            }
        })?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or("");
        if !kind.split(';').next().unwrap_or("").trim().eq_ignore_ascii_case("application/json") {
            return Err(RegistrationError::metadata("the body must be application/json"));
        }
        let parsed = serde_json::from_slice(&body).ok();
        let mut members: Map<String, Value> =
            parsed.ok_or_else(|| RegistrationError::metadata("the body must be a JSON object"))?;
        let secret = match members.remove("client_secret") {
            None | Some(Value::Null) => None,
            Some(Value::String(secret)) => Some(secret.into()),
            Some(_) => return Err(RegistrationError::metadata("client_secret must be a string")),
        };
        Ok(Self { members, secret })
    }

    /// Checks that a PUT is of this client, and says nothing that only the service may say.
    ///
    /// # Errors
    /// `invalid_client_metadata`.
    pub(super) fn names(&self, id: &ClientId) -> Result<(), RegistrationError> {
        if self.members.get("client_id").and_then(Value::as_str) != Some(id.as_str()) {
            return Err(RegistrationError::metadata("client_id must be there, and be the client's own"));
        }
        if let Some(ours) = OURS.into_iter().find(|name| self.members.contains_key(*name)) {
            return Err(RegistrationError::metadata(format!("{ours} can't be set; leave it out")));
        }
        Ok(())
    }

    /// The secret that a PUT says the client has.
    pub(super) fn secret(&self) -> Option<&SecretString> {
        self.secret.as_ref()
    }

    /// What to register the client with.
    ///
    /// # Errors
    /// `invalid_redirect_uri`, `invalid_client_metadata`.
    pub(super) fn metadata(
        &self,
        id: &ClientId,
        scopes: &ScopeSet,
    ) -> Result<ClientMetadata, RegistrationError> {
        let grant_types = self
            .list("grant_types")?
            .unwrap_or_else(|| vec![GrantType::AuthorizationCode.as_str().to_owned()]);
        let scope = self.text("scope")?.unwrap_or_default();
        let wanted = Wanted {
            name: self.text("client_name")?.unwrap_or(id.as_str()).to_owned(),
            uri: self.text("client_uri")?.map(str::to_owned),
            redirect_uris: self.list("redirect_uris")?.unwrap_or_default(),
            grant_types,
            scopes: scope.split(' ').filter(|s| !s.is_empty()).map(str::to_owned).collect(),
            auth_method: self
                .text("token_endpoint_auth_method")?
                .unwrap_or(AuthMethod::ClientSecretBasic.as_str())
                .to_owned(),
        };
        let metadata = wanted.check(&WORDS, scopes)?;
        self.response_types(&metadata)?;
        Ok(metadata)
    }

    /// Response types follow from the grant types (section 2.1): others are refused, none are completed.
    fn response_types(&self, metadata: &ClientMetadata) -> Result<(), RegistrationError> {
        let Some(given) = self.list("response_types")? else { return Ok(()) };
        let code = metadata.grant_types.contains(&GrantType::AuthorizationCode);
        if code && given.iter().all(|t| t == "code") {
            return Ok(());
        }
        let text = "response_types can only be code, with grant type authorization_code; leave it out, or change \
                    grant_types";
        Err(RegistrationError::metadata(text))
    }

    fn text(&self, name: &str) -> Result<Option<&str>, RegistrationError> {
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) => Ok(Some(text.as_str()).filter(|t| !t.is_empty())),
            Some(_) => Err(RegistrationError::metadata(format!("{name} must be a string"))),
        }
    }

    fn list(&self, name: &str) -> Result<Option<Vec<String>>, RegistrationError> {
        let bad = || {
            let text = format!("{name} must be a list of strings");
            if name == "redirect_uris" {
                RegistrationError::redirect_uri(text)
            } else {
                RegistrationError::metadata(text)
            }
        };
        match self.members.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::Array(all)) => {
                let all: Option<Vec<_>> = all.iter().map(|v| v.as_str().map(str::to_owned)).collect();
                Ok(Some(all.ok_or_else(bad)?).filter(|all| !all.is_empty()))
            }
            Some(_) => Err(bad()),
        }
    }
}
