//! The gRPC API, generated from `keel/v1/*.proto`; no logic.
