//! The tool people use on their own machine.

fn main() {}
