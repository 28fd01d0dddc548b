//! The integration tests: the built binary on real PostgreSQL.

mod architecture;
