//! The picture of the shipped boot in the book and the README, drawn from the units themselves.

use std::collections::BTreeMap;
use std::path::Path;

use keel_plan::export::Export;
use keel_plan::{BOOT, PlanError, compile, render};
use keel_unit::load::load;

/// Every picture: file name -> text. A tree without units has none.
pub(crate) fn pictures(root: &Path) -> Result<BTreeMap<String, String>, PlanError> {
    let units = root.join("units");
    if !units.is_dir() {
        return Ok(BTreeMap::new());
    }
    let (graph, transaction) =
        compile(load(&units, Some(&root.join("machine-configs/qemu.toml"))), BOOT)?;
    // Files are named from the top of the tree, wherever that lies.
    let top = format!("{}/", root.display());
    let svg = render::svg(&Export::new(&graph, &transaction)).replace(&top, "");
    Ok(BTreeMap::from([("boot.svg".to_owned(), svg)]))
}
