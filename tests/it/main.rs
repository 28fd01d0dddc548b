//! The integration tests: the built binary on real PostgreSQL.

mod api;
mod authorization;
mod crash;
mod gateway;
mod harness;
mod main_job;
mod openapi;
mod sdk;
mod start;
mod workflows;
