//! The gRPC API, generated from `keel/v1/*.proto`; no logic.
//!
//! `cargo xtask codegen` writes `src/gen`; the proto files are what to read and to change.

#[rustfmt::skip]
#[path = "gen/descriptor.rs"]
mod descriptor;

pub use descriptor::FILE_DESCRIPTOR_SET;

/// Package `keel.v1`: what a node can be asked.
#[rustfmt::skip]
#[expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
#[path = "gen/keel.v1.rs"]
pub mod v1;
