//! What every long-running command stands on: logs, shutdown, leader election, what the connections
//! of a listener may cost, and where their requests come from.
//!
//! `cli` calls this module, and `server` and `web` its [`listen`] and [`peer`]; services take a future for shutdown
//! and know nothing of signals.

pub mod files;
mod idle;
pub mod leader;
pub mod listen;
pub mod peer;
pub mod shutdown;
pub mod telemetry;
