//! applink-operator: keeps the OAuth links between applications, declared in YAML.
//!
//! The map of the house (who may import whom is held by `tests/it/import_law.rs`):
//!
//! | module | what lives there | may import |
//! |---|---|---|
//! | [`domain`] | values: identifiers, scopes, redirect URIs, credentials, tokens, keys | value crates |
//! | [`api`] | the custom resources: types, schema rules, printer columns | `domain` |
//! | [`link`] | the one way through: validate, observe, decide, execute, status | all but `server`, `cli` |
//! | [`provider`] | the port to a provider service, and an adapter a file | `domain`, `http`, `outgoing` |
//! | [`outgoing`] | discovery, token requests and revocation, as other people's client | `domain`, `http` |
//! | [`http`] | the guarded HTTP client: every call that leaves the process | `domain` |
//! | [`server`] | the bundled provider service | `domain` |
//! | [`web`] | the operator's own HTTP: health, metrics; the frame of all pages | value crates |
//! | [`runtime`] | logs, shutdown, leader election | value crates, kube |
//! | [`cli`] | one file a command; flags become a checked configuration | everything |

pub mod api;
pub mod cli;
pub mod domain;
pub mod http;
pub mod link;
pub mod outgoing;
pub mod provider;
pub mod runtime;
pub mod server;
pub mod web;
