//! The scheduler, run by the simulator: what each word means, and what holds for every graph.

// `cfg(test)` is always true here; it tells clippy that `unwrap` is a test's way to fail.
#[cfg(test)]
mod asked;
#[cfg(test)]
mod failing;
#[cfg(test)]
mod linear;
#[cfg(test)]
mod properties;
#[cfg(test)]
mod rehearsal;
#[cfg(test)]
mod semantics;
#[cfg(test)]
mod support;
