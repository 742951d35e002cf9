//! The address that the receiver listens on: all addresses of the machine by default.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpListener;

use super::Error;

/// Port of the default address.
const PORT: u16 = 8443;
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 1024;
/// Size of the kernel's buffer for one connection, so that it is bounded too. The kernel doubles it.
const RECEIVE_BUFFER_BYTES: usize = 64 << 10;

/// Listens on `address`. Without one: on all IPv6 and IPv4 addresses, or on all IPv4 addresses if the kernel has no
/// IPv6.
pub(super) fn listen(address: Option<SocketAddr>) -> Result<TcpListener, Error> {
    match address {
        Some(address) => first(&[address], bind),
        None => first(&[(Ipv6Addr::UNSPECIFIED, PORT).into(), (Ipv4Addr::UNSPECIFIED, PORT).into()], bind),
    }
}

/// The first of `addresses` whose family the kernel has.
fn first<T>(addresses: &[SocketAddr], bind: impl Fn(SocketAddr) -> io::Result<T>) -> Result<T, Error> {
    let mut addresses = addresses.iter().peekable();
    loop {
        let address = *addresses.next().expect("the last address ends the loop");
        match bind(address) {
            Err(error) if is_unsupported(&error) && addresses.peek().is_some() => {}
            bound => return bound.map_err(|error| Error::Listen(address, error)),
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    error.raw_os_error() == Some(Errno::AFNOSUPPORT.raw_os_error())
}

fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    if address.is_ipv6() {
        // Overrides net.ipv6.bindv6only.
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_address(true)?;
    // Accepted connections inherit it.
    socket.set_recv_buffer_size(RECEIVE_BUFFER_BYTES)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    TcpListener::from_std(socket.into())
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpStream;

    use super::*;

    #[test]
    fn a_kernel_without_ipv6_is_served_by_ipv4() {
        let addresses: [SocketAddr; 2] = [([0; 16], 1).into(), ([0; 4], 1).into()];
        let only_v4 = |address: SocketAddr| match address {
            SocketAddr::V4(_) => Ok(address),
            SocketAddr::V6(_) => Err(Errno::AFNOSUPPORT.into()),
        };
        assert_eq!(first(&addresses, only_v4).expect("IPv4 is there"), addresses[1]);
        assert!(matches!(first(&addresses[..1], only_v4), Err(Error::Listen(address, _)) if address == addresses[0]));
        let is_taken = |_| Err::<(), _>(Errno::ADDRINUSE.into());
        assert!(matches!(first(&addresses, is_taken), Err(Error::Listen(address, _)) if address == addresses[0]));
    }

    #[tokio::test]
    async fn the_address_of_all_addresses_answers_ipv4_and_ipv6() {
        let Ok(listener) = bind((Ipv6Addr::UNSPECIFIED, 0).into()) else {
            eprintln!("SKIPPED: this machine has no IPv6");
            return;
        };
        let port = listener.local_addr().unwrap().port();
        TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await.unwrap();
        if let Err(error) = TcpStream::connect((Ipv6Addr::LOCALHOST, port)).await {
            eprintln!("SKIPPED: ::1 of this machine: {error}");
        }
    }
}
