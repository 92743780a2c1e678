//! A slow link between osctl and a node: each byte takes its time there and back, and no more than so many pass in a second.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

/// How long a byte is under way.
const DELAY: Duration = Duration::from_millis(300);

/// How many bytes pass in a second.
const RATE: u32 = 4096;

/// The most that a piece holds, and the most pieces that the link holds: what more is sent waits with its sender.
const PIECE: usize = 256;
const PIECES: usize = 64;

/// What both directions of all connections share.
#[derive(Default)]
struct Shared {
    held: Mutex<bool>,
    let_go: Condvar,
    from_client: AtomicUsize,
    over: AtomicBool,
}

impl Shared {
    fn wait_while_held(&self) {
        let held = self.held.lock().unwrap();
        drop(self.let_go.wait_while(held, |held| *held).unwrap());
    }
}

/// A link to a node; gone with the value.
pub(crate) struct Link {
    pub(crate) address: SocketAddr,
    shared: Arc<Shared>,
}

impl Link {
    pub(crate) fn to(node: &str) -> Self {
        let node: SocketAddr = node.parse().unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let all = shared.clone();
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                if all.over.load(Ordering::Relaxed) {
                    return;
                }
                let node = TcpStream::connect(node).unwrap();
                let ends = [&client, &node].map(|stream| stream.try_clone().unwrap());
                carry(client, node, all.clone(), true);
                let [client, node] = ends;
                carry(node, client, all.clone(), false);
            }
        });
        Self { address, shared }
    }

    /// Lets nothing pass until it is let go. What is sent meanwhile is not lost.
    pub(crate) fn hold(&self, held: bool) {
        *self.shared.held.lock().unwrap() = held;
        self.shared.let_go.notify_all();
    }

    /// How many bytes osctl has sent.
    pub(crate) fn sent(&self) -> usize {
        self.shared.from_client.load(Ordering::Relaxed)
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::Relaxed);
        self.hold(false);
        let _ = TcpStream::connect(self.address);
    }
}

/// Carries what one end says to the other.
fn carry(from: TcpStream, to: TcpStream, shared: Arc<Shared>, counts: bool) {
    let (enter, leave) = sync_channel(PIECES);
    let counter = counts.then(|| shared.clone());
    std::thread::spawn(move || take(from, &enter, counter.as_deref()));
    std::thread::spawn(move || give(to, &leave, &shared));
}

fn take(mut from: TcpStream, enter: &SyncSender<(Instant, Vec<u8>)>, counter: Option<&Shared>) {
    let mut piece = [0; PIECE];
    while let Ok(count @ 1..) = from.read(&mut piece) {
        if let Some(shared) = counter {
            shared.from_client.fetch_add(count, Ordering::Relaxed);
        }
        if enter.send((Instant::now() + DELAY, piece[..count].to_vec())).is_err() {
            return;
        }
    }
}

fn give(mut to: TcpStream, leave: &Receiver<(Instant, Vec<u8>)>, shared: &Shared) {
    let mut free = Instant::now();
    for (due, piece) in leave {
        // The link is what is slow: this is its time, and nobody waits here for anything to happen.
        let at = due.max(free);
        std::thread::sleep(at.saturating_duration_since(Instant::now()));
        free = at + Duration::from_secs(1) * u32::try_from(piece.len()).unwrap() / RATE;
        shared.wait_while_held();
        if to.write_all(&piece).is_err() {
            return;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
