//! The provider service, as it is run: the real binary, raw requests, other people's clients.

mod admin;
mod admin_errors;
mod changes;
mod chosen;
mod client_auth;
mod clients;
mod disk;
mod http;
mod introspect_revoke;
mod lifecycle;
mod limits;
mod metadata;
mod overlap;
mod refresh;
mod registration;
mod registration_access;
pub mod service;
mod token;
