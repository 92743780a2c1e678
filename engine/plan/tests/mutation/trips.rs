//! Mutations carried out on an imagined node, in every situation that it may be in.
