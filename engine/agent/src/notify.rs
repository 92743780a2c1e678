//! Tells init when the agent is ready: sd_notify(3), without the library.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};

/// The states that init waits for.
#[derive(Debug, Clone, Copy)]
pub(crate) enum State {
    Ready,
    Stopping,
}

/// Sends a state to whoever started us, if they asked for it by `NOTIFY_SOCKET`.
pub(crate) fn notify(state: State) -> io::Result<()> {
    match env::var_os("NOTIFY_SOCKET") {
        Some(name) => send(&name, state),
        None => Ok(()),
    }
}

fn send(name: &OsStr, state: State) -> io::Result<()> {
    // sd_notify(3): a path, or `@` and a name in the abstract namespace.
    let address = match name.as_bytes() {
        [b'@', rest @ ..] => SocketAddr::from_abstract_name(rest)?,
        _ => SocketAddr::from_pathname(name)?,
    };
    let message: &[u8] = match state {
        State::Ready => b"READY=1\n",
        State::Stopping => b"STOPPING=1\n",
    };
    UnixDatagram::unbound()?.send_to_addr(message, &address)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process;

    /// Sends to a socket at that address and expects exactly this datagram.
    fn check(name: &str, address: &SocketAddr, state: State, expect: &[u8]) {
        let receiver = UnixDatagram::bind_addr(address).unwrap();
        send(OsStr::new(name), state).unwrap();
        let mut buffer = [0; 64];
        let len = receiver.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..len], expect);
    }

    #[test]
    fn both_kinds_of_address() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        check(
            path.to_str().unwrap(),
            &SocketAddr::from_pathname(&path).unwrap(),
            State::Ready,
            b"READY=1\n",
        );
        let name = format!("keel-agent-test-{}", process::id());
        let address = SocketAddr::from_abstract_name(&name).unwrap();
        check(&format!("@{name}"), &address, State::Stopping, b"STOPPING=1\n");
    }

    #[test]
    fn nobody_there_is_an_error() {
        assert!(send(OsStr::new("/nonexistent/notify"), State::Ready).is_err());
    }
}
