//! What the API does: one file per service.

mod audit;
mod boots;
mod config;
mod journal;
mod kernel_log;
mod logs;
mod node;
mod operation;
mod watch;

pub(crate) use config::Config;
pub(crate) use journal::Journal;
pub(crate) use node::Node;
pub(crate) use operation::Operation;
