//! Kernel modules without modprobe: what depmod(8) wrote is read, ordered and handed to the kernel.
//!
//! | file | what it knows |
//! |---|---|
//! | `tree.rs`, `alias.rs`, `name.rs`, `options.rs` | the files of depmod, and the kernel command line, as data |
//! | `plan.rs` | pure: a name to a list of files in load order |
//! | `apply.rs` | one file into the kernel, unpacked if it must be |
//! | `loader.rs` | names in, loaded modules out; each once, from any number of threads |
//! | `coldplug.rs`, `hotplug.rs` | what the hardware asks for, now and later |

mod alias;
mod apply;
mod coldplug;
mod hotplug;
mod loader;
mod name;
mod options;
mod plan;
mod tree;

#[cfg(test)]
mod tests;

pub use apply::InsertError;
pub use coldplug::ColdplugReport;
pub use hotplug::hotplug;
pub use loader::{Loaded, ModuleError, ModuleErrorKind, Modules};
pub use name::ModuleName;
pub use options::Options;
pub use tree::TreeError;
