//! The gRPC API, generated from `keel/v1/*.proto`; no logic.
//!
//! `cargo xtask codegen` writes `src/gen`; the proto files are what to read and to change.

/// Package `keel.v1`: what a node can be asked.
#[rustfmt::skip]
#[expect(clippy::allow_attributes, clippy::allow_attributes_without_reason, reason = "generated code")]
#[path = "gen/keel.v1.rs"]
pub mod v1;
