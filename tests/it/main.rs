//! The integration tests: the built binary on real PostgreSQL.

mod api;
mod architecture;
mod authorization;
mod crash;
mod gateway;
mod harness;
mod main_job;
mod openapi;
mod sdk;
mod start;
mod workflows;
