//! The admin API, on a listener of its own: clients and grants, for who holds the bearer token.
//! Every error of it is a problem of RFC 9457. Only the router calls it.

pub mod auth;
mod body;
pub mod changes;
mod client_spec;
pub mod clients;
mod extract;
pub mod grants;
pub mod info;
mod preconditions;
mod problem;
pub mod registration_tokens;
mod secrets;

pub use auth::{AdminTokenError, check_token_file};
pub use problem::Problem;
