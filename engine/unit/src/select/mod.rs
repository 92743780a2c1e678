//! Which hardware the config means: pure matching, for the node that decides and for the laptop that foresees it.
//!
//! PID 1 asks with what sysfs and netlink show; `osctl verify` asks with a recorded inventory. Both ask here, so what the laptop
//! says is what the node does.

pub mod alias;
mod disk;
mod link;
mod partition;

pub use disk::{DiskFacts, Mismatch, matching_disks, mismatches};
pub use link::{LinkFacts, LinkSelector, matching_links};
pub use partition::{
    ALIGNMENT, Choice, EntryFacts, Permit, Refusal, TableFacts, TooSmall, choose, permit, room_on,
    size_within,
};
