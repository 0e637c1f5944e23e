//! Links, end to end: a real API server, the chart's operator and provider.

mod bench;
mod crash;
mod incoming;
mod leader;
mod rbac;
mod writes;

/// The binary under test.
pub fn binary() -> &'static std::path::Path {
    std::path::Path::new(env!("CARGO_BIN_EXE_applink"))
}
