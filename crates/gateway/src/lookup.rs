//! What the gateway asks the metadata store.

use tokio::sync::broadcast;

use base::error::Result;
use base::store::{Announcement, Store};
use credential::Credential;

/// Where credentials are looked up.
#[derive(Clone)]
pub(crate) enum Lookup {
    /// The metadata store.
    Store(Store),
    /// A table in memory.
    #[cfg(test)]
    Table(table::Table),
}

impl Lookup {
    /// Finds a credential by its user name.
    pub(crate) async fn find(&self, user: &str) -> Result<Option<Credential>> {
        match self {
            Self::Store(store) => credential::find_credential(store, user).await,
            #[cfg(test)]
            Self::Table(table) => Ok(table.find(user)),
        }
    }

    /// Which of these user names still open a connection.
    pub(crate) async fn still_valid(&self, users: &[String]) -> Result<Vec<String>> {
        match self {
            Self::Store(store) => credential::still_valid(store, users).await,
            #[cfg(test)]
            Self::Table(table) => Ok(table.still_valid(users)),
        }
    }

    /// What is announced from now on.
    pub(crate) fn announcements(&self) -> broadcast::Receiver<Announcement> {
        match self {
            Self::Store(store) => store.announcements(),
            #[cfg(test)]
            Self::Table(table) => table.announcements.subscribe(),
        }
    }
}

#[cfg(test)]
pub(crate) mod table {
    use super::*;
    use std::collections::HashMap;
    use std::sync::{Arc, Mutex};

    /// Credentials by user name, for tests.
    #[derive(Clone)]
    pub(crate) struct Table {
        pub(crate) rows: Arc<Mutex<HashMap<String, Credential>>>,
        pub(crate) announcements: broadcast::Sender<Announcement>,
    }

    impl Table {
        pub(crate) fn new() -> Self {
            Self { rows: Arc::default(), announcements: broadcast::channel(16).0 }
        }

        pub(super) fn find(&self, user: &str) -> Option<Credential> {
            self.rows.lock().unwrap().get(user).cloned()
        }

        pub(super) fn still_valid(&self, users: &[String]) -> Vec<String> {
            let rows = self.rows.lock().unwrap();
            users.iter().filter(|user| rows.contains_key(*user)).cloned().collect()
        }
    }
}
