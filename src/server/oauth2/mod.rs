//! The OAuth 2.0 endpoints: token (RFC 6749), introspection (RFC 7662), revocation (RFC 7009),
//! metadata (RFC 8414), registration (RFC 7591, RFC 7592). A file each; a grant is a file too. Only the router calls them.

pub mod client_auth;
mod client_credentials;
mod error;
mod form;
pub mod introspect;
pub mod metadata;
mod refresh_token;
pub mod register;
mod reply;
pub mod revoke;
pub mod token;

use crate::domain::GrantType;

pub use error::OAuthError;
pub use form::Form;

/// The grant types that the token endpoint serves.
pub const GRANT_TYPES: [GrantType; 2] = [GrantType::ClientCredentials, GrantType::RefreshToken];
/// The token endpoint, under the issuer.
pub const TOKEN: &str = "/oauth2/token";
/// The introspection endpoint, under the issuer.
pub const INTROSPECT: &str = "/oauth2/introspect";
/// The revocation endpoint, under the issuer.
pub const REVOKE: &str = "/oauth2/revoke";
/// The registration endpoint, under the issuer; each client's is under it.
pub const REGISTER: &str = "/oauth2/register";
