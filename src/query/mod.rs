//! Query results as cached values: the cache computes a result when it is missing, and it stays valid until a dependency changes.

pub mod fetch;
