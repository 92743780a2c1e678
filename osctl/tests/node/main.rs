//! The real osctl against the real keel-agent, over TLS on loopback; behind it the real control server, with a machine that
//! the test makes up.

#![cfg(test)]

mod asking;
mod auditing;
mod book;
mod bootstrapping;
mod dashboard;
mod following;
mod link;
mod looking;
mod machine;
mod steered;
mod steering;
mod support;
mod terminal;
mod trusting;
