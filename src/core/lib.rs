//! The data structures of pg_cache: bytes and atomics, without a line of PostgreSQL.
