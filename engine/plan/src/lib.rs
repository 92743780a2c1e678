//! The graph and everything that can be decided without touching a machine.
