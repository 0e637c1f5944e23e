//! What every long-running command stands on: logs, shutdown, leader election, and what the connections
//! of a listener may cost.
//!
//! `cli` calls this module, and `server` and `web` its [`listen`]; services take a future for shutdown and know
//! nothing of signals.

pub mod leader;
pub mod listen;
pub mod shutdown;
pub mod telemetry;
