//! The integration tests: one binary, one control plane.

#[path = "../support/mod.rs"]
mod support;

mod argocd;
mod browser;
mod chart;
mod cli;
mod import_law;
mod link;
mod provider;
mod provider_port;
mod provider_services;
mod rig;
