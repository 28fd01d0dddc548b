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
mod browser;
mod certificate;
mod cli;
mod connections;

mod console;
mod console_resources;
mod crash;
mod damaged_backups;
mod databases;
mod docs;
mod document;
mod forms;
mod full_disk;
mod gateway;
mod harness;
mod hostile_files;
mod idempotency;
mod integrations;
mod limits;
mod locks;
mod mail;
mod main_job;
mod members;
mod metadata;
mod metrics;
mod migrations;
mod oauth;
mod openapi;
mod operations;
mod process;
mod projects;
mod provider;
mod recover;
mod schemathesis;
mod sdk;
mod service_tokens;
mod sign_in;
mod snippets;
mod start;
mod storage;
mod torture;
mod usage;
mod workflows;
mod workspaces;
