//! What every long-running command stands on: logs, shutdown, leader election, what the connections
//! of a listener may cost, and where their requests come from.
//!
//! `cli` calls this module, `server` and `web` its [`listen`] and [`peer`], `web` and `link` its [`shares`]; services take
//! a future for shutdown and know nothing of signals.

pub mod files;
mod idle;
pub mod leader;
pub mod listen;
pub mod peer;
pub mod shares;
pub mod shutdown;
pub mod telemetry;
