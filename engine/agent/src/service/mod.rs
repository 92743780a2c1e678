//! What the API does: one file per service.

mod node;
mod watch;

pub(crate) use node::Node;
