//! `cargo xtask tidy`: proves what docs/ARCHITECTURE.md says is absent on purpose, and a few habits that no lint knows.
//!
//! Who links what comes from `cargo metadata`, who says what from the sources. The rules are data, in `crates.rs` and
//! `sources.rs`; this file finds the workspace and tells the findings.

mod crates;
mod sources;
mod tokens;

use std::fmt;
use std::path::{Path, PathBuf};

use cargo_metadata::{Metadata, MetadataCommand};

use crate::progress::say;

/// A tree that is not as it should be, or could not be looked at.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TidyError {
    /// cargo does not understand the workspace.
    #[error("cargo cannot describe the workspace")]
    Metadata(#[source] cargo_metadata::Error),
    /// A file could not be read.
    #[error("cannot read {}", .path.display())]
    Read { path: PathBuf, source: std::io::Error },
    /// Rules are broken; each was told.
    #[error("{0} findings")]
    Findings(usize),
}

/// A rule that is broken, and where.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Finding {
    /// A crate's name, or a file's path from the root with a line number.
    place: String,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.what)
    }
}

/// Looks at the workspace at `root`, and says every finding.
pub(crate) fn run(root: &Path) -> Result<(), TidyError> {
    let findings = findings(root)?;
    for finding in &findings {
        say(&finding.to_string());
    }
    if findings.is_empty() { Ok(()) } else { Err(TidyError::Findings(findings.len())) }
}

fn findings(root: &Path) -> Result<Vec<Finding>, TidyError> {
    let metadata = MetadataCommand::new()
        .manifest_path(root.join("Cargo.toml"))
        .exec()
        .map_err(TidyError::Metadata)?;
    let mut findings = crates::findings(&metadata)?;
    for (name, folder) in folders(&metadata) {
        findings.extend(sources::findings(root, &name, &folder)?);
    }
    findings.sort();
    Ok(findings)
}

/// Every crate of the workspace and its folder.
fn folders(metadata: &Metadata) -> Vec<(String, PathBuf)> {
    let folder = |manifest: &Path| manifest.parent().unwrap_or(manifest).to_owned();
    let crates = metadata.workspace_packages();
    crates
        .iter()
        .map(|one| (one.name.to_string(), folder(one.manifest_path.as_std_path())))
        .collect()
}

#[cfg(test)]
mod tests;
