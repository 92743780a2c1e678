//! Demo, test, bench, codegen and tidy.

fn main() {}
