//! A real Kubernetes control plane on this machine: etcd, API server, controller-manager and scheduler, with a CA of its own, and what
//! a cluster needs so that nodes can join it. For tests and `cargo xtask demo --cluster`; `cargo xtask kubernetes` builds the programs.

mod archive;
mod node;
mod pki;
mod plane;
mod process;

pub use archive::{ArchiveFile, archive};
pub use node::node_payload;
pub use pki::another_ca;
pub use plane::{ControlPlane, Expiry, Joins, PlaneError};
