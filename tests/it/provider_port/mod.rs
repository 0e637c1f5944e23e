//! The port to a provider service, with the real services behind it: one conformance suite and one
//! fault suite for every adapter.
//!
//! A new adapter plugs in with a [`subject::Subject`] and `conformance!(Its)`, `faults!(Its)`.

mod bitbucket;
mod bundled;
mod conformance;
mod docs;
mod faults;
mod hydra;
mod keycloak;
mod registration;
mod subject;
