//! Links, end to end: a real API server, the chart's operator and provider.

mod change;
mod client_auth;
mod consent;
mod crash;
mod deletion;
mod drift;
mod federated;
mod fixtures;
mod handover;
mod honest;
mod incoming;
mod incoming_client;
mod incoming_life;
mod input;
mod kills;
mod leader;
mod lending;
mod loud;
mod memory;
mod neighbours;
mod orphans;
mod outbound;
mod outgoing;
mod pace;
mod presets;
mod provider_faults;
mod rbac;
mod refresh_rule;
mod registered_twice;
mod replies;
mod restore;
mod rotate;
mod rotation;
mod secret_files;
mod servers;
mod services;
mod status;
mod tenancy;
mod told;
mod turns;
mod unwritable;
mod upgrade;
mod watcher;
mod writes;

/// The binary under test.
pub fn binary() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_applink"))
}
