//! The gRPC API of a node.

fn main() {}
