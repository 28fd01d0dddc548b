//! Connections: the credentials of a database.

pub mod credential;
