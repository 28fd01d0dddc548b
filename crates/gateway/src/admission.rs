//! How many may come in, and which open sessions belong to a credential.

use std::collections::HashMap;
use std::hash::Hash;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::broadcast::error::RecvError;
use tokio_util::sync::CancellationToken;

use super::Limits;
use super::lookup::Lookup;
use super::refusal::Refusal;
use base::id::{ConnectionId, DatabaseId};
use base::store::{Announcement, Channel};

/// Counts under one lock that is never held across an await.
#[derive(Clone, Default)]
pub(crate) struct Admission(Arc<Mutex<Counts>>);

#[derive(Default)]
struct Counts {
    sessions: usize,
    sessions_of: HashMap<DatabaseId, usize>,
    /// Open sessions by credential, each with what ends it.
    of_connection: HashMap<ConnectionId, HashMap<u64, Open>>,
    next: u64,
    /// Grows whenever credentials ended: a lookup from before may be out of date.
    generation: u64,
}

/// An open session.
struct Open {
    /// The user name that it logged in with: a connection that was rotated has another one.
    user: String,
    kick: CancellationToken,
}

/// A place among the sessions.
pub(crate) struct Place(Admission, DatabaseId);
/// A session's entry under its credential.
pub(crate) struct Entry(Admission, ConnectionId, u64);

fn less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

impl Admission {
    fn counts(&self) -> MutexGuard<'_, Counts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets a session on a database begin.
    pub(crate) fn admit(&self, database: DatabaseId, limits: &Limits) -> Result<Place, Refusal> {
        let mut counts = self.counts();
        if counts.sessions >= limits.sessions {
            return Err(Refusal::Sessions { limit: limits.sessions });
        }
        let of_database = counts.sessions_of.entry(database).or_default();
        if *of_database >= limits.sessions_per_database {
            return Err(Refusal::DatabaseSessions { limit: limits.sessions_per_database });
        }
        *of_database += 1;
        counts.sessions += 1;
        Ok(Place(self.clone(), database))
    }

    /// To be read before a credential is looked up.
    pub(crate) fn generation(&self) -> u64 {
        self.counts().generation
    }

    /// Enters a session under its credential, so that `kick` is cancelled when that ends. `None`
    /// when credentials ended since `generation`: look it up again.
    pub(crate) fn enter(
        &self,
        connection: ConnectionId,
        user: &str,
        kick: CancellationToken,
        generation: u64,
    ) -> Option<Entry> {
        let mut counts = self.counts();
        if counts.generation != generation {
            return None;
        }
        counts.next += 1;
        let id = counts.next;
        counts.of_connection.entry(connection).or_default().insert(id, Open { user: user.to_owned(), kick });
        Some(Entry(self.clone(), connection, id))
    }

    fn end(&self, connection: ConnectionId) {
        let sessions = {
            let mut counts = self.counts();
            counts.generation += 1;
            counts.of_connection.remove(&connection)
        };
        for session in sessions.into_iter().flat_map(HashMap::into_values) {
            session.kick.cancel();
        }
    }

    /// Ends sessions when their credential ends, for as long as it is polled.
    pub(crate) async fn follow(self, lookup: Lookup) {
        let mut announcements = lookup.announcements();
        loop {
            match announcements.recv().await {
                Ok(Announcement::Of(Channel::ConnectionEnded, id)) => {
                    if let Some(connection) = ConnectionId::parse(&id) {
                        self.end(connection);
                    }
                }
                Ok(Announcement::Of(_, _)) => {}
                Ok(Announcement::Missed) | Err(RecvError::Lagged(_)) => self.check_all(&lookup).await,
                Err(RecvError::Closed) => return,
            }
        }
    }

    /// After announcements were missed: asks about every credential in use, until there is an answer.
    async fn check_all(&self, lookup: &Lookup) {
        let in_use: Vec<String> = {
            let mut counts = self.counts();
            counts.generation += 1;
            counts.sessions().map(|session| session.user.clone()).collect()
        };
        if in_use.is_empty() {
            return;
        }
        let valid = loop {
            match lookup.still_valid(&in_use).await {
                Ok(valid) => break valid,
                Err(cause) => {
                    tracing::warn!(error = %base::error::describe(&cause), "could not check the credentials of open sessions; retrying");
                    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
                }
            }
        };
        let counts = self.counts();
        for session in counts.sessions() {
            // One that began since then was looked up since then.
            if in_use.contains(&session.user) && !valid.contains(&session.user) {
                session.kick.cancel();
            }
        }
    }
}

impl Counts {
    fn sessions(&self) -> impl Iterator<Item = &Open> {
        self.of_connection.values().flat_map(HashMap::values)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        counts.sessions -= 1;
        less(&mut counts.sessions_of, &self.1);
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut counts = self.0.counts();
        if let Some(sessions) = counts.of_connection.get_mut(&self.1) {
            sessions.remove(&self.2);
            if sessions.is_empty() {
                counts.of_connection.remove(&self.1);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base::clock::Clock;

    #[test]
    fn places_are_counted_and_given_back() {
        let admission = Admission::default();
        let limits = Limits { sessions: 3, sessions_per_database: 2, ..Limits::default() };
        let now = Clock::system().now();
        let (one, two) = (DatabaseId::generate(now), DatabaseId::generate(now));
        let first = admission.admit(one, &limits).unwrap();
        let _second = admission.admit(one, &limits).unwrap();
        assert!(matches!(admission.admit(one, &limits), Err(Refusal::DatabaseSessions { limit: 2 })));
        let _third = admission.admit(two, &limits).unwrap();
        assert!(matches!(admission.admit(two, &limits), Err(Refusal::Sessions { limit: 3 })));
        drop(first);
        assert!(admission.admit(one, &limits).is_ok());
    }

    #[test]
    fn revoked_credential_is_looked_up_again_before_admission() {
        let admission = Admission::default();
        let connection = ConnectionId::generate(Clock::system().now());
        let before = admission.generation();
        let kick = CancellationToken::new();
        let entry = admission.enter(connection, "u", kick.clone(), before).unwrap();
        admission.end(connection);
        assert!(kick.is_cancelled());
        assert!(admission.enter(connection, "u", CancellationToken::new(), before).is_none());
        drop(entry);
        assert!(admission.counts().of_connection.is_empty());
    }
}
