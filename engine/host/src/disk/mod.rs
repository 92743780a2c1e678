//! Disks: found, told apart, partitioned and given a filesystem, and never written on a guess.
//!
//! `inventory` and `signature` observe; `plan` and the planning half of `filesystem` decide and are pure, and so is
//! [`keel_unit::select`], which says what disk a selector means;
//! `gpt`, `intent`, `provision` and `kernel` do as told. Two entry points matter to others: [`partition::activate`] and
//! [`filesystem::activate`].
//!
//! What holds throughout: a disk is opened for writing only after it was decided that it may be written, and then
//! exclusively; a disk with any signature on it is written only if the config says `wipe = "always"`, and not even then
//! if the partition that is sought exists; no failure is a reason to format. A disk that holds an image of Keel is written
//! behind that image alone (`addition`).

mod addition;
pub mod block;
pub mod error;
pub mod ext4;
pub mod filesystem;
pub mod gpt;
mod intent;
pub mod inventory;
mod kernel;
#[cfg(test)]
mod memory;
pub mod partition;
pub mod plan;
mod provision;
pub mod signature;
pub mod source;
pub mod wipe;

use std::sync::Arc;

/// Where lines for the log go. Anything that reads a disk may hang, so it runs off the calling thread, and so does this.
pub type Say = Arc<dyn Fn(String) + Send + Sync>;

/// Runs what may hang on a bad disk off the thread that decides; `None` when the runtime ends first.
async fn off_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(work).await.ok()
}
