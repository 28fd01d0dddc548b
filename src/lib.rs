//! Howdah: a Postgres platform in one binary. `ARCHITECTURE.md` is the map.

pub mod app;
pub mod auth;
pub mod base;
pub mod cli;
pub mod client;
pub mod config;
pub mod domain;
pub mod engine;
pub mod gateway;
pub mod http;
pub mod jobs;
pub mod mail;
pub mod metadata;
pub mod queue;
pub mod serve;
