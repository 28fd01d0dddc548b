//! Places that are shared out among addresses, so that one address cannot keep all others away.
//!
//! When no place is left, the address that has most loses its oldest one. A client that connects
//! and does nothing therefore delays nobody, however often it connects.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::network::Network;

/// A number of places.
pub struct Places(Arc<Shared>);

struct Shared {
    total: usize,
    per_party: usize,
    taken: Mutex<Taken>,
    /// A place was given back, or may be taken away from now on.
    changed: Notify,
}

#[derive(Default)]
struct Taken {
    count: usize,
    next: u64,
    /// By their number, the oldest first; `None` are those whose address says nothing about who is behind it.
    of: HashMap<Option<Network>, BTreeMap<u64, Holder>>,
}

struct Holder {
    /// Whether it may be taken away.
    waits: bool,
    evicted: CancellationToken,
}

/// One place. It is given back when this is dropped.
pub struct Place {
    shared: Arc<Shared>,
    party: Option<Network>,
    number: u64,
    evicted: CancellationToken,
}

impl Places {
    /// So many places, of which one party gets so many at most. Both are at least one.
    pub fn new(total: usize, per_party: usize) -> Self {
        let taken = Mutex::default();
        Self(Arc::new(Shared { total: total.max(1), per_party: per_party.max(1), taken, changed: Notify::new() }))
    }

    /// A place, if need be that of another holder who waits. `None` when all are busy. A party
    /// that is `None` never loses a place and may have all of them.
    pub fn take(&self, party: Option<Network>) -> Option<Place> {
        let mut taken = self.0.taken();
        if party.is_some() && taken.of.get(&party).is_some_and(|own| own.len() >= self.0.per_party) {
            let oldest = taken.oldest_of(&party)?;
            taken.evict(&party, oldest);
        }
        if taken.count >= self.0.total {
            let (party, oldest) = taken.oldest_of_most()?;
            taken.evict(&party, oldest);
        }
        taken.next += 1;
        taken.count += 1;
        let (number, evicted) = (taken.next, CancellationToken::new());
        taken.of.entry(party).or_default().insert(number, Holder { waits: true, evicted: evicted.clone() });
        Some(Place { shared: self.0.clone(), party, number, evicted })
    }

    /// Waits until a place is free or can be taken away.
    pub async fn room(&self) {
        loop {
            let changed = self.0.changed.notified();
            {
                let taken = self.0.taken();
                if taken.count < self.0.total || taken.oldest_of_most().is_some() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// How many are taken.
    #[cfg(test)]
    pub(crate) fn count(&self) -> usize {
        self.0.taken().count
    }
}

impl Shared {
    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Taken {
    fn oldest_of(&self, party: &Option<Network>) -> Option<u64> {
        let (oldest, _) = self.of.get(party)?.iter().find(|(_, holder)| holder.waits)?;
        Some(*oldest)
    }

    /// The oldest place that waits, of the party that has most among those that have one.
    fn oldest_of_most(&self) -> Option<(Option<Network>, u64)> {
        let parties = self.of.iter().filter(|(party, _)| party.is_some());
        let oldest = parties.filter_map(|(party, own)| Some((own.len(), Reverse(self.oldest_of(party)?), *party)));
        oldest.max_by_key(|(count, oldest, _)| (*count, *oldest)).map(|(_, Reverse(oldest), party)| (party, oldest))
    }

    /// The place is free at once; its holder hears of it.
    fn evict(&mut self, party: &Option<Network>, number: u64) {
        if let Some(holder) = self.remove(party, number) {
            holder.evicted.cancel();
        }
    }

    fn remove(&mut self, party: &Option<Network>, number: u64) -> Option<Holder> {
        let own = self.of.get_mut(party)?;
        let holder = own.remove(&number)?;
        if own.is_empty() {
            self.of.remove(party);
        }
        self.count -= 1;
        Some(holder)
    }
}

impl Place {
    /// Waits until the place is taken away.
    pub async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    /// Whether the place was taken away.
    pub fn is_evicted(&self) -> bool {
        self.evicted.is_cancelled()
    }

    /// Says whether its holder waits for the other end. Only then the place may be taken away.
    pub fn set_waiting(&self, waits: bool) {
        let mut taken = self.shared.taken();
        if let Some(holder) = taken.of.get_mut(&self.party).and_then(|own| own.get_mut(&self.number)) {
            holder.waits = waits;
        }
        drop(taken);
        if waits {
            self.shared.changed.notify_one();
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.shared.taken().remove(&self.party, self.number);
        self.shared.changed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt as _;

    fn party(address: &str) -> Option<Network> {
        Some(Network::of_one_party(address.parse().unwrap()))
    }

    #[test]
    fn party_with_the_most_connections_loses_its_oldest() {
        let places = Places::new(4, 3);
        let greedy: Vec<_> = (1..4).map(|host| places.take(party(&format!("2001:db8::{host}"))).unwrap()).collect();
        let modest = places.take(party("10.0.0.1")).unwrap();
        let newcomer = places.take(party("10.0.0.2")).unwrap();
        assert_eq!(greedy.iter().map(Place::is_evicted).collect::<Vec<_>>(), [true, false, false]);
        drop(greedy);
        assert_eq!(places.count(), 2, "a place that was taken away is not given back a second time");
        assert!(!modest.is_evicted() && !newcomer.is_evicted());
        assert!(places.0.taken().of.len() == 2, "parties without a place are forgotten");
    }

    #[test]
    fn a_party_at_its_limit_makes_room_itself() {
        let places = Places::new(10, 2);
        let (one, two) = (places.take(party("10.0.0.1")).unwrap(), places.take(party("::ffff:10.0.0.1")).unwrap());
        let other = places.take(party("10.0.0.2")).unwrap();
        let three = places.take(party("10.0.0.1")).unwrap();
        assert!(one.is_evicted() && !two.is_evicted() && !other.is_evicted());
        for busy in [&two, &three] {
            busy.set_waiting(false);
        }
        assert!(places.take(party("10.0.0.1")).is_none());
        assert!(places.take(None).is_some() && places.take(party("10.0.0.3")).is_some());
        two.set_waiting(true);
        let four = places.take(party("10.0.0.1")).unwrap();
        assert!(two.is_evicted() && !four.is_evicted());
    }

    #[tokio::test]
    async fn busy_or_exempt_connection_is_not_evicted() {
        let places = Places::new(2, 1);
        let proxy = places.take(None).unwrap();
        let busy = places.take(party("10.0.0.1")).unwrap();
        busy.set_waiting(false);
        assert!(places.take(None).is_none() && places.room().now_or_never().is_none());
        let room = async {
            places.room().await;
            places.take(party("10.0.0.2")).unwrap()
        };
        let (taken, ()) = tokio::join!(room, async { busy.set_waiting(true) });
        assert!(busy.is_evicted() && !taken.is_evicted());
        taken.set_waiting(false);
        tokio::join!(places.room(), async { drop(proxy) });
        assert_eq!(places.count(), 1);
    }
}
