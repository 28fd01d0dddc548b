//! Howdah: a self-hosted Postgres platform in one binary. `ARCHITECTURE.md` is the map.

pub mod commands;
pub mod config;
pub mod http;
pub mod metadata;
pub mod metrics;
pub mod serve;
