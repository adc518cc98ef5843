//! What the cache does for its callers, on one floor between SQL and the tier.

pub mod change;
pub mod command;
pub mod commit;
pub mod entry;
pub mod foresight;
pub mod horizon;
pub mod lease;
pub mod ledger;
pub mod pending;
pub mod prepared;
pub mod right;
pub mod savepoint;
pub mod space;
pub mod status;
pub mod watch;
pub mod written;
