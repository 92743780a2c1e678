//! What the API does: one file per service.

mod journal;
mod node;
mod operation;
mod watch;

pub(crate) use journal::Journal;
pub(crate) use node::Node;
pub(crate) use operation::Operation;
