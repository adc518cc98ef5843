//! The logic of the cache: entries, transactions, leases and spaces. This layer lies between the SQL functions and the memory
//! tier.

pub mod cause;
pub mod command;
pub mod counter;
pub mod entry;
pub mod flights;
pub mod lease;
pub mod prefetch;
pub mod space;
pub mod status;
pub mod table;
pub mod transaction;
pub mod usage;
pub mod watch;
