//! applink-operator: keeps the OAuth links between applications, declared in YAML.
//!
//! The map of the house (who may import whom is held by `tests/it/import_law.rs`):
//!
//! | module | what lives there |
//! |---|---|
//! | [`domain`] | values: identifiers, scopes, redirect URIs, credentials, tokens, keys |
//! | [`server`] | the bundled provider service |
//! | [`outgoing`] | the guarded HTTP client, discovery and token requests to other people's servers |

pub mod api;
pub mod domain;
