//! Reading and changing entries: the operations behind the SQL functions. The layer `api` calls them for the values that users set,
//! and `query` for stored results.
//!
//! Each operation first asks whether the cache may be used for it at all. Then it looks at what the own transaction has changed,
//! and then at the *tier*, the cache in shared memory. Changes go into the *ledger*, the list of the transaction's changes, and
//! take effect for other sessions when the transaction commits. Each operation sets the status of the session (`store/status.rs`).
//! Counters are in `store/counter.rs`.
//!
//! ```text
//! access.rs         whether the session and the space may use the cache for an operation
//! reading.rs        finds and copies the value of a key
//! writing.rs        sets a value, if its condition holds and no limit forbids it
//! lifetime.rs       when a value expires, and how it gets another time to live
//! removing.rs       removes a key, also because its new value is refused
//! invalidating.rs   invalidates what depends on a tag, a relation, a space or the database, or matches a pattern
//! listing.rs        lists the keys of a space
//! ```

mod access;
mod invalidating;
mod lifetime;
mod listing;
mod reading;
mod removing;
mod writing;

pub use access::{keyspace_for_reading, keyspace_to_compute, keyspace_to_count};
pub use invalidating::{flush, invalidate_pattern, invalidate_relation, invalidate_tag};
pub use lifetime::{NO_LIFE, expires, touch};
pub use listing::{RETURNED_BYTES_MAX, keys};
pub use reading::{Accepts, count_time, hit_of_own, peek, read, read_accepting};
pub use removing::{remove, remove_previous};
pub use writing::{Mode, NO_VALUE, NewEntry, set};
