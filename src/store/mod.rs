//! The logic of the cache: entries, transactions, leases and spaces. This layer lies between the SQL functions and the memory
//! tier.

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
