//! What the cache does for its callers, on one floor between SQL and the tier.

pub mod entry;
pub mod pending;
pub mod prepared;
pub mod space;
pub mod status;
