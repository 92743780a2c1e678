//! One module per command: its arguments, what it does, how its result looks.

pub(crate) mod ask;
pub(crate) mod audit;
pub(crate) mod boot;
pub(crate) mod completion;
pub(crate) mod config;
pub(crate) mod context;
pub(crate) mod dashboard;
pub(crate) mod dmesg;
pub(crate) mod events;
pub(crate) mod explain;
pub(crate) mod graph;
pub(crate) mod image;
pub(crate) mod inputs;
pub(crate) mod inventory;
pub(crate) mod known_nodes;
pub(crate) mod logs;
pub(crate) mod man;
pub(crate) mod power;
pub(crate) mod processes;
pub(crate) mod reset;
pub(crate) mod status;
pub(crate) mod units;
pub(crate) mod validate;
pub(crate) mod verify;
pub(crate) mod watch;
