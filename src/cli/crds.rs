//! `applink crds`: prints the CRDs.

use crate::api::crds;
use clap::Args;

/// Flags of `applink crds`.
#[derive(Debug, Args)]
pub struct CrdsArgs {}

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

/// Prints the CRDs as a YAML stream.
///
/// # Errors
/// [`CrdsError`].
pub fn run(_: &CrdsArgs) -> Result<(), CrdsError> {
    use std::io::Write as _;
    let mut out = std::io::stdout().lock();
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
