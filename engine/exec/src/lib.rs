//! Drives the pure scheduler with tokio and defines the boundary to the host.
