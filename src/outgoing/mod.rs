//! The operator as an OAuth client: discovery, token requests, revocation, and when to refresh.
//!
//! | file | what lives there |
//! |---|---|
//! | [`endpoints`] | a server's issuer and endpoints |
//! | [`discovery`] | RFC 8414 and OpenID Connect discovery |
//! | [`presets`], [`redirect`] | what is particular to each kind of server, as data; what it demands of redirect URIs |
//! | [`client_auth`] | a client's credentials and how they go into a request |
//! | [`signing_key`], [`assertion`] | private keys, and the assertions of RFC 7523 |
//! | [`device`] | the device grant: the request, and one question after what came of it |
//! | [`push`] | pushed authorization requests |
//! | [`account`] | whose grant it is |
//! | [`id_token`], `jwks` | what an ID token must be, and its signature |
//! | [`token`] | token requests |
//! | [`reply`] | what a token endpoint's success may look like |
//! | [`error`] | what its failures mean, and what to do |
//! | [`redeem`] | a code that can't exist, redeemed: the other proof of a credential |
//! | [`revoke`] | RFC 7009, which is also the proof of a credential, and other ways to give a grant back |
//! | [`schedule`] | when to refresh, and when to try again (pure) |
//!
//! Everything goes through [`crate::http`]. No text of a server gets into an error: only error
//! codes that are known, status codes and our own words do.

pub mod account;
pub mod assertion;
pub mod client_auth;
pub mod device;
pub mod discovery;
pub mod endpoints;
pub mod error;
pub mod id_token;
mod jwks;
pub mod presets;
pub mod push;
pub mod redeem;
pub mod redirect;
pub mod reply;
pub mod revoke;
pub mod schedule;
pub mod signing_key;
pub mod token;

pub use account::{Owner, owner_of};
pub use assertion::{BearerAssertion, BearerKey, BearerKeyError};
pub use client_auth::{ClientAuth, ClientCredentials, ServiceAccount};
pub use device::{DeviceAuthorization, poll_device_code, request_device_code};
pub use discovery::{DiscoveryError, ServerMetadata, discover, discover_metadata};
pub use endpoints::{Declared, Issuer, IssuerError, ServerEndpoints};
pub use error::{ErrorClass, TokenError};
pub use id_token::IdTokenFault;
pub use presets::{Dialect, Grace, Meaning, Preset, Revocation};
pub use push::push_request;
pub use redeem::{Redeemed, redeem_nothing};
pub use redirect::{RedirectFault, RedirectRule};
pub use reply::Malformed;
pub use revoke::{Revoked, TokenHint, Tokens, give_back, revoke_token};
pub use schedule::{
    RefreshPolicy, UNKNOWN_CLIENT_PASSES, backoff, next_refresh, unanswered_delay, unknown_client_delay,
};
pub use signing_key::{KeyError, SigningAlgorithm, SigningKey};
pub use token::{Grant, TokenRequest, request_token, request_token_heard};

#[cfg(test)]
mod discovery_tests;
#[cfg(test)]
mod presets_tests;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod signing_key_tests;
#[cfg(test)]
mod token_tests;
