//! What the tests of several crates share: graphs as text, random graphs, a fake host and the scenario runner.

pub mod fake;
pub mod notation;
pub mod random;
pub mod run;
pub mod scenario;
