//! What every long-running command stands on: logs, shutdown, leader election.
//!
//! Only `cli` calls this module; services take a future for shutdown and know nothing of signals.

pub mod leader;
pub mod shutdown;
pub mod telemetry;
