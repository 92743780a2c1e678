//! What the tests of several crates share: graphs as text, random graphs, a fake host, the scenario runner, and programs of other packages.

pub mod fake;
pub mod notation;
pub mod program;
pub mod random;
pub mod run;
pub mod scenario;
