//! Records of boots on the data partition: a folder for each boot, the oldest of them dropped first.
//!
//! | module | what it answers |
//! |---|---|
//! | `plan` | which number a boot's record has, and which records make room for it; pure |
//! | `apply` | does so, below an open directory: no link in the way is followed, and a record is there whole or as it was |
//!
//! What is in a record is the caller's matter. The folder may hold anything: what is no record is left alone.

mod apply;
mod plan;

pub use apply::{RecordError, RecordErrorKind, Records};
