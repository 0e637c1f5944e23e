//! Logs: to standard error, for people or as JSON.

use std::io::IsTerminal as _;
use std::panic;
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, clap::ValueEnum)]
pub enum LogFormat {
    /// A line for people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// Why logs could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The level isn't one.
    #[error(
        "--log-level {level:?} is no level or filter; write error, warn, info, debug, trace, or target=level pairs divided by commas"
    )]
    Level {
        /// What was given.
        level: String,
    },
    /// Somebody else set a global subscriber before.
    #[error("logs were set up twice; set them up once, at the start of a command")]
    Twice,
}

/// Sets up logs for the whole process; a panic is logged like anything else.
///
/// # Errors
/// [`TelemetryError`], one sentence each.
pub fn init(format: LogFormat, level: &str) -> Result<(), TelemetryError> {
    let bad = || TelemetryError::Level { level: level.to_owned() };
    // A filter takes any word for the name of a target; a lone word that is no level is a typing error.
    let lone_word = !level.contains(['=', ',', '[']);
    if lone_word && !LEVELS.contains(&level.to_ascii_lowercase().as_str()) {
        return Err(bad());
    }
    let filter = EnvFilter::try_new(level).map_err(|_| bad())?;
    // It logs the whole body of an answer that it can't read, and that may be a Secret.
    let quiet = "kube_client::client=off".parse().map_err(|_| bad())?;
    let filter = filter.add_directive(quiet);
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let done = match format {
        LogFormat::Human => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    done.map_err(|_| TelemetryError::Twice)?;
    panic::set_hook(Box::new(|info| {
        let place = info.location().map(ToString::to_string).unwrap_or_default();
        // Its text is ours: values that are secret redact themselves.
        let text = info.payload_as_str().unwrap_or("no message");
        tracing::error!(place, "panic: {text}");
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_level_is_said() {
        for bad in ["loud", "a=b=c", ""] {
            let said = init(LogFormat::Human, bad).map_err(|e| e.to_string());
            assert!(said.as_ref().is_err_and(|s| s.contains("--log-level")), "{bad:?}: {said:?}");
        }
    }
}
