//! Talking to nodes: where they are, whether they are the right ones, who we are to them, and what they answer.
//!
//! A command that asks one node uses [`reach`] (or [`connect`]) inside [`ask`]. One that makes sense for several at once hands its
//! call to [`each`] and its answers to [`Answers::show`].

mod comeback;
mod connect;
pub(crate) mod contexts;
mod credentials;
mod each;
mod endpoint;
mod fingerprint;
mod home;
pub(crate) mod known;
mod kubeconfig;
mod refusal;
pub(crate) mod target;
mod verifier;
mod words;

pub(crate) use comeback::{Broken, Comeback, Reader, read_on};
pub(crate) use connect::{Connection, ask, connect, one, open, reach, refused};
pub(crate) use each::{Cell, each};
pub(crate) use words::{age, goal_state, micros, millis, short, timestamp, unit_state};
