//! What every layer stands on: typed ids, time, secrets, errors, transactions.
//! Uses nothing else of ours.

pub mod clock;
pub mod disk;
pub mod error;
pub mod health;
pub mod id;
pub mod keyring;
pub mod name;
pub mod network;
pub mod page;
pub mod panics;
pub mod places;
pub mod scram;
pub mod secret;
pub mod store;
pub mod tasks;
#[cfg(test)]
pub(crate) mod testing;
