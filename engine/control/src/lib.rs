//! The local protocol between init and agent: framed, bounded, over a Unix socket.
