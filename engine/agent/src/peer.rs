//! Who is at the other end of a connection.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::trust::{Client, State};

/// Who is at the other end of a connection.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) address: SocketAddr,
    /// The address of this machine that it has reached.
    pub(crate) local: Option<IpAddr>,
    /// Nobody was asked for a certificate where there is none.
    pub(crate) client: Option<Arc<Client>>,
    /// The trust under which it was verified last.
    generation: AtomicU64,
}

impl Peer {
    /// A peer that was let in under that trust.
    pub(crate) fn new(address: SocketAddr, client: Option<Arc<Client>>, state: &State) -> Self {
        Self { address, local: None, client, generation: AtomicU64::new(state.generation) }
    }

    /// The same peer, which has reached that address of this machine.
    pub(crate) fn through(mut self, local: Option<IpAddr>) -> Self {
        self.local = local;
        self
    }

    pub(crate) fn verified_under(&self, state: &State) -> bool {
        self.generation.load(Ordering::Relaxed) == state.generation
    }

    pub(crate) fn now_verified_under(&self, state: &State) {
        self.generation.store(state.generation, Ordering::Relaxed);
    }

    /// The subject of its certificate; empty without one.
    pub(crate) fn subject(&self) -> &str {
        self.client.as_ref().map_or("", |client| client.subject.as_str())
    }
}
