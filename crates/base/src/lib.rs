//! What every layer stands on: typed ids, time, secrets, errors, transactions.
//! Uses nothing else of ours.

pub mod clock;
pub mod disk;
pub mod error;
pub mod health;
pub mod id;
#[cfg(feature = "schema")]
pub mod id_schema;
pub mod keyring;
pub mod name;
pub mod network;
pub mod options;
pub mod page;
pub mod panics;
pub mod places;
pub mod scram;
pub mod secret;
pub mod store;
pub mod tasks;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
