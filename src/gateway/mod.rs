//! The PostgreSQL front door.
