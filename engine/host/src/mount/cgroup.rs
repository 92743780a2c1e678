//! Handing controllers of cgroup v2 down to child groups (cgroups(7), "Cgroups v2 subtree control").

use std::fs;
use std::path::Path;

use keel_unit::kinds::Controller;

use super::error::MountErrorKind;

/// Hands down those of the controllers that the kernel has; gives their names.
pub(super) fn delegate(
    hierarchy: &Path,
    controllers: &[Controller],
) -> Result<Vec<&'static str>, MountErrorKind> {
    let file = hierarchy.join("cgroup.controllers");
    let available = fs::read_to_string(&file)
        .map_err(|source| MountErrorKind::Observe { path: file, source })?;
    let wanted = controllers.iter().map(|controller| controller.as_str());
    let handed: Vec<_> = wanted
        .filter(|wanted| available.split_whitespace().any(|there| there == *wanted))
        .collect();
    for controller in &handed {
        // One at a time: of several in one write the first that fails takes all others with it.
        fs::write(hierarchy.join("cgroup.subtree_control"), format!("+{controller}")).map_err(
            |source| MountErrorKind::Delegate { controller: (*controller).to_owned(), source },
        )?;
    }
    Ok(handed)
}
