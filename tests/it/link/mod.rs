//! Links, end to end: a real API server, the chart's operator and provider.

mod deletion;
mod fixtures;
mod incoming;
mod incoming_client;
mod incoming_life;
mod input;
mod provider_faults;
mod status;

/// The binary under test.
pub fn binary() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_applink"))
}
