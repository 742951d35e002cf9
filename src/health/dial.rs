//! Connects to one of the addresses of a name as the dialer of kube-apiserver does, and reports how the others failed.
//!
//! Go tries one address after the other and gives each an equal share of the remaining time, so that an address that
//! never answers does not hide the next (golang@go1.26.8 src/net/dial.go#L268-L290 and L729-L769). After a moment it
//! also tries the other address family (L655-L725).

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

/// A shorter try is pointless: the last addresses get less instead (golang@go1.26.8 src/net/dial.go#L281).
const LEAST_SHARE: Duration = Duration::from_secs(2);
/// How far the family of the first address is ahead of the other (golang@go1.26.8 src/net/dial.go#L292-L298).
const HEAD_START: Duration = Duration::from_millis(300);

/// A connection, and the addresses that failed before it.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) stream: TcpStream,
    pub(super) failed: Vec<Failure>,
}

/// An address that accepted no connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Failure {
    pub(super) address: SocketAddr,
    pub(super) why: Why,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Why {
    NothingListens,
    NoAnswer,
    /// The addresses before it took all the time.
    NotTried,
    Other(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::NothingListens => f.write_str("nothing listens there (connection refused)"),
            Why::NoAnswer => f.write_str("no answer"),
            Why::NotTried => f.write_str("not tried: the time was up"),
            Why::Other(error) => f.write_str(error),
        }
    }
}

/// Connects to the first address that accepts before `deadline`.
pub(super) async fn dial(addresses: &[SocketAddr], deadline: Instant) -> Result<Connection, Vec<Failure>> {
    let Some(first) = addresses.first() else { return Err(Vec::new()) };
    let (ahead, behind): (Vec<_>, Vec<_>) =
        addresses.iter().copied().partition(|address| address.is_ipv4() == first.is_ipv4());
    let mut ahead = pin!(one_by_one(&ahead, deadline));
    if behind.is_empty() {
        return ahead.await;
    }
    let mut behind = pin!(one_by_one(&behind, deadline));
    let is_ahead_done = tokio::select! {
        done = &mut ahead => Some(done),
        () = sleep(HEAD_START) => None,
    };
    let (one, other) = match is_ahead_done {
        Some(done) => (done, behind),
        None => tokio::select! {
            done = &mut ahead => (done, behind),
            done = &mut behind => (done, ahead),
        },
    };
    let Err(mut failed) = one else { return one };
    match other.await {
        Ok(mut connection) => {
            failed.append(&mut connection.failed);
            Ok(Connection { failed, ..connection })
        }
        Err(mut more) => {
            failed.append(&mut more);
            Err(failed)
        }
    }
}

async fn one_by_one(addresses: &[SocketAddr], deadline: Instant) -> Result<Connection, Vec<Failure>> {
    let mut failed = Vec::new();
    for (at, &address) in addresses.iter().enumerate() {
        let share = share(deadline.saturating_duration_since(Instant::now()), addresses.len() - at);
        let why = if share.is_zero() {
            Why::NotTried
        } else {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(Connection { stream, failed }),
                Ok(Err(error)) if error.kind() == io::ErrorKind::ConnectionRefused => Why::NothingListens,
                Ok(Err(error)) => Why::Other(error.to_string()),
                Err(_) => Why::NoAnswer,
            }
        };
        failed.push(Failure { address, why });
    }
    Err(failed)
}

/// How long the next of `addresses` may take.
fn share(left: Duration, addresses: usize) -> Duration {
    let addresses = u32::try_from(addresses).unwrap_or(u32::MAX).max(1);
    (left / addresses).max(LEAST_SHARE).min(left)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    #[test]
    fn each_address_has_an_equal_share_and_no_share_is_too_short() {
        for (left_ms, addresses, want_ms) in [
            (30_000, 3, 10_000),
            (30_000, 1, 30_000),
            (5_000, 2, 2_500),
            (5_000, 3, 2_000),
            (3_000, 2, 2_000),
            (1_000, 2, 1_000),
            (0, 2, 0),
        ] {
            let share = share(Duration::from_millis(left_ms), addresses);
            assert_eq!(share, Duration::from_millis(want_ms), "{left_ms} ms for {addresses}");
        }
    }

    /// A listener that no longer answers: its queue is full, so the kernel drops further connections.
    pub(in crate::health) async fn black_hole(address: &str) -> (SocketAddr, impl Sized) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        let listener = socket.listen(1).unwrap();
        let address = listener.local_addr().unwrap();
        let mut waiting = Vec::new();
        while let Ok(Ok(stream)) = timeout(Duration::from_millis(200), TcpStream::connect(address)).await {
            waiting.push(stream);
        }
        (address, (listener, waiting))
    }

    /// An address that nothing listens at, and stays so: it is bound and does not listen.
    pub(in crate::health) fn closed(address: &str) -> (SocketAddr, impl Sized) {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(address.parse().unwrap()).unwrap();
        (socket.local_addr().unwrap(), socket)
    }

    async fn listening(address: &str) -> (SocketAddr, impl Sized) {
        let listener = tokio::net::TcpListener::bind(address).await.unwrap();
        (listener.local_addr().unwrap(), listener)
    }

    #[tokio::test]
    async fn an_address_that_swallows_everything_does_not_hide_the_next() {
        let (hole, _hole) = black_hole("127.0.0.2:0").await;
        let (alive, _alive) = listening("127.0.0.1:0").await;
        let dialed = dial(&[hole, alive], Instant::now() + Duration::from_millis(2_500)).await.unwrap();
        assert_eq!(dialed.stream.peer_addr().unwrap(), alive);
        assert_eq!(dialed.failed, [Failure { address: hole, why: Why::NoAnswer }]);
    }

    #[tokio::test]
    async fn every_address_that_failed_is_told_with_its_reason() {
        let (closed, _closed) = closed("127.0.0.2:0");
        let (hole, _hole) = black_hole("127.0.0.3:0").await;
        let (alive, _alive) = listening("127.0.0.1:0").await;
        let failed = dial(&[closed, hole, alive], Instant::now() + Duration::from_millis(500)).await.unwrap_err();
        let why: Vec<_> = failed.into_iter().map(|failure| (failure.address, failure.why)).collect();
        assert_eq!(why, [(closed, Why::NothingListens), (hole, Why::NoAnswer), (alive, Why::NotTried)]);
        assert_eq!(dial(&[], Instant::now()).await.unwrap_err(), []);
    }

    #[tokio::test]
    async fn the_other_family_is_tried_beside_a_first_one_that_hangs() {
        let Ok(listener) = tokio::net::TcpListener::bind("[::1]:0").await else {
            eprintln!("NOT CHECKED: this machine has no ::1");
            return;
        };
        let (hole, _hole) = black_hole("127.0.0.2:0").await;
        let began = Instant::now();
        let dialed = dial(&[hole, listener.local_addr().unwrap()], began + Duration::from_secs(10)).await.unwrap();
        assert_eq!(dialed.stream.peer_addr().unwrap(), listener.local_addr().unwrap());
        assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
        let (closed, _closed) = closed("127.0.0.2:0");
        let both = dial(&[closed, listener.local_addr().unwrap()], began + Duration::from_secs(10)).await.unwrap();
        assert_eq!(both.failed, [Failure { address: closed, why: Why::NothingListens }]);
    }
}
