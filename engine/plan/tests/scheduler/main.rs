//! The scheduler, run by the simulator: what each word means, and what holds for every graph.

mod notation;
mod semantics;
