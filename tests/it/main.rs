//! The integration tests: the built binary on real PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stderr,
    reason = "a test stops at what it did not expect, and says so"
)]

mod api;
mod architecture;
mod audit;
mod authorization;
mod backups;
mod branches;
mod cli;
mod connections;
mod crash;
mod databases;
mod docs;
mod document;
mod gateway;
mod harness;
mod idempotency;
mod integrations;
mod limits;
mod main_job;
mod members;
mod migrations;
mod openapi;
mod operations;
mod projects;
mod schemathesis;
mod sdk;
mod service_tokens;
mod start;
mod usage;
mod workflows;
