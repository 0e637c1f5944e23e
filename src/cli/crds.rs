//! `applink crds`: prints the CRDs, or the reference page that is made from them.

use crate::api::{crds, reference};
use clap::{Args, ValueEnum};

/// Flags of `applink crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {
    /// As YAML to apply, or as a page to read
    #[arg(long, value_enum, default_value_t)]
    format: Format,
}

#[derive(Debug, Clone, Copy, Default, ValueEnum)]
enum Format {
    #[default]
    Yaml,
    Markdown,
}

/// Why the CRDs can't be printed.
#[derive(Debug, thiserror::Error)]
pub enum CrdsError {
    /// A schema that isn't one; a bug.
    #[error("the CRDs can't be made: {0}")]
    Schema(#[from] serde_json::Error),
    /// YAML that can't be written; a bug.
    #[error("the CRDs can't be written as YAML: {0}")]
    Yaml(#[from] serde_yaml::Error),
    /// Nobody reads.
    #[error("the CRDs can't be printed: {0}")]
    Io(#[from] std::io::Error),
}

/// Prints the CRDs.
///
/// # Errors
/// [`CrdsError`].
pub fn run(args: &CrdsArgs) -> Result<(), CrdsError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
    if matches!(args.format, Format::Markdown) {
        return Ok(out.write_all(reference::markdown()?.as_bytes())?);
    }
    for crd in crds::all()? {
        // Through a value, so that fields that are null aren't written.
        let mut value = serde_json::to_value(&crd)?;
        if let Some(o) = value.as_object_mut() {
            o.remove("status");
        }
        write!(out, "---\n{}", serde_yaml::to_string(&value)?)?;
    }
    Ok(())
}
