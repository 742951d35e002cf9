//! The limits of connections. Two groups, so that a client without the token cannot take a place from a client with it.
//!
//! A stranger has not shown the token yet. Strangers are few, and a new one always gets a place: it replaces the oldest
//! one of the address with the most connections. So an address with more than its share crowds out only itself. A known
//! connection has shown the token; a new one replaces the one that has been idle longest.

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

/// Connections that have not shown the token. A client needs this place for its handshake and one header: milliseconds.
pub(crate) const STRANGERS: usize = 128;
/// Strangers that an address may have before it is the first to lose one. With a smaller share, many addresses could
/// take a place from a client that opens two connections at once.
const SHARE: usize = 8;
/// Connections that have shown the token. Each kube-apiserver keeps one or two, and opens more if it has much to send.
pub(crate) const KNOWN: usize = 256;

#[derive(Default)]
pub(crate) struct Places {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Ids count up: the smallest is the oldest.
    next: u64,
    strangers: BTreeMap<u64, Stranger>,
    known: BTreeMap<u64, Known>,
}

struct Stranger {
    network: IpAddr,
    leave: CancellationToken,
}

struct Known {
    /// `None` in the middle of a request.
    rests_since: Option<Instant>,
    leave: CancellationToken,
}

/// Numbers of connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) strangers: usize,
    pub(crate) known: usize,
}

/// The place of one connection. Dropping it frees the place.
pub(crate) struct Place {
    places: Arc<Places>,
    id: u64,
    leave: CancellationToken,
    has_asked: AtomicBool,
    is_known: AtomicBool,
}

/// Every known connection is in the middle of a request.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

impl Places {
    /// A place for a stranger from `address`, and whether it evicts another one.
    pub(crate) fn enter(self: &Arc<Self>, address: IpAddr) -> (Place, bool) {
        let mut state = self.lock();
        let leaving = (state.strangers.len() >= STRANGERS)
            .then(|| most_crowded(state.strangers.iter().map(|(id, stranger)| (*id, stranger.network)), SHARE))
            .flatten();
        if let Some(stranger) = leaving.and_then(|id| state.strangers.remove(&id)) {
            stranger.leave.cancel();
        }
        let id = state.next;
        state.next += 1;
        let leave = CancellationToken::new();
        state.strangers.insert(id, Stranger { network: network(address), leave: leave.clone() });
        let place = Place {
            places: self.clone(),
            id,
            leave,
            has_asked: AtomicBool::new(false),
            is_known: AtomicBool::new(false),
        };
        (place, leaving.is_some())
    }

    pub(crate) fn counts(&self) -> Counts {
        let state = self.lock();
        Counts { strangers: state.strangers.len(), known: state.known.len() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    /// The first request has arrived.
    pub(crate) fn ask(&self) {
        self.has_asked.store(true, Ordering::Relaxed);
    }

    pub(crate) fn has_asked(&self) -> bool {
        self.has_asked.load(Ordering::Relaxed)
    }

    /// The connection is known now, and has an open request. Returns whether it evicts another one.
    pub(crate) fn admit(&self) -> Result<bool, Full> {
        let mut state = self.places.lock();
        if let Some(known) = state.known.get_mut(&self.id) {
            known.rests_since = None;
            return Ok(false);
        }
        let is_full = state.known.len() >= KNOWN;
        if is_full {
            let rests = |(id, known): (&u64, &Known)| known.rests_since.map(|since| (since, *id));
            let (_, id) = state.known.iter().filter_map(rests).min().ok_or(Full)?;
            if let Some(known) = state.known.remove(&id) {
                known.leave.cancel();
            }
        }
        state.strangers.remove(&self.id);
        self.is_known.store(true, Ordering::Relaxed);
        state.known.insert(self.id, Known { rests_since: None, leave: self.leave.clone() });
        Ok(is_full)
    }

    /// The request is answered.
    pub(crate) fn rest(&self, now: Instant) {
        if let Some(known) = self.places.lock().known.get_mut(&self.id) {
            known.rests_since = Some(now);
        }
    }

    /// Stays so, also when it is asked to leave.
    pub(crate) fn is_known(&self) -> bool {
        self.is_known.load(Ordering::Relaxed)
    }

    /// Returns when the place is needed for another connection.
    pub(crate) async fn leave(&self) {
        self.leave.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.places.lock();
        state.strangers.remove(&self.id);
        state.known.remove(&self.id);
    }
}

/// The oldest connection of the network that has the most, or of all networks that have no more than `share`.
fn most_crowded(strangers: impl Iterator<Item = (u64, IpAddr)>, share: usize) -> Option<u64> {
    let mut networks: BTreeMap<IpAddr, (usize, Reverse<u64>)> = BTreeMap::new();
    for (id, network) in strangers {
        let (count, oldest) = networks.entry(network).or_insert((0, Reverse(id)));
        *count += 1;
        *oldest = (*oldest).max(Reverse(id));
    }
    let most = networks.into_values().max_by_key(|(count, oldest)| (*count.max(&share), *oldest));
    most.map(|(_, Reverse(oldest))| oldest)
}

/// The network that counts as one address. The owner of an IPv6 address usually has the whole /64.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn is_leaving(place: &Place) -> bool {
        place.leave.is_cancelled()
    }

    #[test]
    fn an_address_crowds_out_only_itself() {
        let places = Arc::new(Places::default());
        let (lone, _) = places.enter(address("10.0.0.1"));
        let many: Vec<_> = (0..3 * STRANGERS).map(|_| places.enter(address("::ffff:10.0.0.2"))).collect();
        assert!(!is_leaving(&lone));
        assert_eq!(many.iter().filter(|(_, evicts)| *evicts).count(), 2 * STRANGERS + 1);
        let (gone, left) = many.split_at(2 * STRANGERS + 1);
        assert!(gone.iter().all(|(place, _)| is_leaving(place)) && !left.iter().any(|(place, _)| is_leaving(place)));
        assert_eq!(places.counts(), Counts { strangers: STRANGERS, known: 0 });
    }

    #[test]
    fn of_many_addresses_the_oldest_connection_leaves_and_a_network_of_ipv6_is_one() {
        for (share, strangers, want) in [
            (1, vec![], None),
            (1, vec![(1, "10.0.0.1"), (2, "10.0.0.2")], Some(1)),
            (1, vec![(1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")], Some(2)),
            (2, vec![(1, "10.0.0.1"), (2, "10.0.0.2"), (3, "10.0.0.2")], Some(1)),
            (1, vec![(1, "10.0.0.1"), (2, "fd00::1"), (3, "fd00::2")], Some(2)),
            (1, vec![(1, "10.0.0.1"), (2, "fd00::1"), (3, "fd00:0:0:1::1")], Some(1)),
            (1, vec![(1, "10.0.0.1"), (2, "::ffff:10.0.0.2"), (3, "10.0.0.2")], Some(2)),
        ] {
            let found = most_crowded(strangers.iter().map(|(id, text)| (*id, network(address(text)))), share);
            assert_eq!(found, want, "{share} {strangers:?}");
        }
    }

    #[test]
    fn strangers_take_no_place_of_the_known() {
        let places = Arc::new(Places::default());
        let (place, _) = places.enter(address("10.0.0.1"));
        assert_eq!(place.admit(), Ok(false));
        let strangers: Vec<_> = (0..2 * STRANGERS).map(|_| places.enter(address("10.0.0.1")).0).collect();
        assert!(place.is_known() && !is_leaving(&place));
        assert_eq!(places.counts(), Counts { strangers: STRANGERS, known: 1 });
        drop((place, strangers));
        assert_eq!(places.counts(), Counts { strangers: 0, known: 0 });
    }

    #[tokio::test(start_paused = true)]
    async fn of_the_known_the_one_that_rests_longest_leaves_and_none_within_a_request() {
        let places = Arc::new(Places::default());
        let enter = || places.enter(address("10.0.0.1")).0;
        let known: Vec<_> = (0..KNOWN).map(|_| enter()).inspect(|place| assert_eq!(place.admit(), Ok(false))).collect();
        let another = enter();
        assert_eq!(another.admit(), Err(Full));
        assert!(!another.is_known());
        let now = Instant::now();
        known[7].rest(now);
        known[5].rest(now + Duration::from_secs(1));
        assert_eq!(another.admit(), Ok(true));
        assert!(another.is_known() && is_leaving(&known[7]) && !is_leaving(&known[5]));
        assert_eq!(known[5].admit(), Ok(false), "it is in a request again");
        assert_eq!(enter().admit(), Err(Full));
    }
}
