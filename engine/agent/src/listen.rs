//! The listening socket.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel holds until we accept them.
const BACKLOG: i32 = 1024;

/// Listens on an address. `[::]` takes IPv4 too, whatever net.ipv6.bindv6only says; on a kernel without IPv6 it is
/// 0.0.0.0.
pub(crate) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    match open(address) {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_no_ipv6(&error) => {
            open(SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port())))
        }
        listener => listener,
    }
}

fn open(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(!address.ip().is_unspecified())?;
    }
    // A restart must not wait for the old connections' TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn is_no_ipv6(error: &io::Error) -> bool {
    // socket(2): the kernel has no IPv6 (EAFNOSUPPORT); bind(2): it is switched off by ipv6.disable=1 or disable_ipv6
    // (EADDRNOTAVAIL).
    const EAFNOSUPPORT: i32 = 97;
    const EADDRNOTAVAIL: i32 = 99;
    matches!(error.raw_os_error(), Some(EAFNOSUPPORT | EADDRNOTAVAIL))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::TcpStream;

    /// Whether a listener on `listen` can be reached at `connect`.
    fn check(listen: &str, connect: &str, expect: bool) {
        let listener = bind(format!("{listen}:0").parse().unwrap()).unwrap();
        let port = listener.local_addr().unwrap().port();
        let reached = TcpStream::connect(format!("{connect}:{port}")).is_ok();
        assert_eq!(reached, expect, "{listen} from {connect}");
    }

    #[test]
    fn addresses() {
        check("[::]", "[::1]", true);
        check("[::]", "127.0.0.1", true);
        check("[::1]", "127.0.0.1", false);
        check("127.0.0.1", "127.0.0.1", true);
    }
}
