//! What Howdah's nouns are and the rules that they keep: one folder a noun, each with its types,
//! rules and use cases in `mod.rs` and its SQL in a private `store.rs`.
//!
//! Functions take the transaction first; they never begin or commit one. They never call the engine.

pub mod accounts;
pub mod app;
pub mod applications;
pub mod audit;
pub mod backups;
pub mod branches;
pub mod connections;
pub mod databases;
pub mod idempotency;
pub mod integrations;
pub mod limits;
pub mod mail;
pub mod members;
pub mod metrics;
pub mod operations;
pub mod projects;
pub mod recoveries;
pub mod regions;
pub mod restores;
pub mod service_tokens;
pub mod usage;
pub mod workspaces;
