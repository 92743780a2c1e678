//! Talking to a node: where it is, whether it is the right one, and what it answers.

mod connect;
mod endpoint;
mod fingerprint;
mod verifier;
mod words;

pub(crate) use connect::{Connection, ask, connect, reach, refused};
pub(crate) use words::{age, goal_state, millis, short, unit_state};
