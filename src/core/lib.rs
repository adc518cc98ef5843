//! The data structures of pg_cache: bytes and atomics, without a line of PostgreSQL.
//!
//! A [`Tier`] keeps entries in a block of memory that many processes share. Reading takes no lock.
//!
//! # Memory map
//!
//! ```text
//! Region ─┬─ header        magic, layout version, sizes, the clock of changes          layout.rs
//!         ├─ fences        when did what an entry depends on change last?              fence.rs
//!         ├─ statistics    a slot for each backend, and a cell for each space          statistics.rs
//!         ├─ zones         versions by which a reader learns that an entry died        shard.rs
//!         ├─ visited       one bit for each entry that was asked for                   eviction.rs
//!         ├─ shards ─┬─ control    version, queue ends, counts                         shard.rs
//!         │          ├─ flights    who is computing or claiming what                   flight.rs
//!         │          ├─ buckets    where each chain of entries begins                  shard.rs
//!         │          ├─ ghosts     what was evicted lately                             eviction.rs
//!         │          └─ bitmap     which blocks are in use                             blocks.rs
//!         └─ blocks        entries: header, dependencies, key, value                   entry.rs
//! ```
//!
//! What a tier does stands in `tier.rs`, reading in `reading.rs`, finding blocks in `room.rs`, keeping a space to its quota in
//! `quota.rs`, what a hold of a lock does to the spaces' figures in `tally.rs`, what relations have cost in `toll.rs`, and the words it is
//! spoken to in `terms.rs`.
//!
//! # Access rules
//!
//! 1. Memory is words, and every shared access is atomic ([`Region`]). So nothing is undefined, whatever happens.
//! 2. Links, queues and the bitmap are written under the lock of their shard; one lock is held at a time, for a
//!    bounded number of steps, and nothing of the host is called while it is held but its clock of statements, and a question that
//!    only tests answer.
//! 3. Readers hold nothing and prove afterwards that what they copied was alive (see `shard.rs`).
//! 4. The bytes of a living entry never change, but for its time to live, a counter's one word, and the word that says when an
//!    entry was last known to be right which may be served a while longer.
//! 5. Fences are single words, moved by single atomic operations, and belong to no lock. Nor do statistics: a slot is written
//!    by its backend alone, a cell and the figures of a relation by atomic additions.
//! 6. No position and no length that is read from the memory is believed: loops are bounded, what leads outside of the
//!    region ends in a sink, and what follows a damaged link writes to blocks only. So damage costs what is cached, at worst a
//!    value that somebody has written over, and never the process.
//!
//! # Cost
//!
//! An entry takes 56 bytes of header, 4 for each dependency (an odd one takes 8), its key and its value, rounded up to 16; one
//! that may be served when it is stale takes a word more. One
//! that is in several pieces takes 8 more for each. Beside it, for each
//! 256 bytes of blocks there are 4 bytes of bucket, 2 of ghost, 2 of bitmap and half a byte of visited bits. So an entry with a
//! key of 20 and a value of 100 bytes takes 176 + 6 bytes: 62 more than what is in it. `make bench` prints what it comes to in a
//! full tier, and what fences, flights and statistics take beside.
//!
//! Statistics take 1 600 bytes for each backend, which counts for eight spaces at a time in its own slot, and 448 for each
//! reserved fence, which may be a space's: with 120 backends and 256 fences 307 kB. A relation's fences and figures take 64 bytes.
//!
//! A hit costs some three hundred instructions, no lock, and a store to the backend's own count of its space. A value that is stored
//! adds to the one word of its space that says how much it has, and so does what goes: once for each hold of a lock, however
//! many go.

mod blocks;
mod check;
mod cost;
#[cfg(counting)]
mod counting;
mod entry;
mod eviction;
mod fence;
mod flight;
mod glob;
mod layout;
#[cfg(all(test, not(any(loom, counting))))]
mod lines;
mod quota;
mod reading;
mod region;
mod room;
mod shard;
mod statistics;
mod sync;
mod tally;
mod terms;
mod tier;
mod toll;

pub use cost::Cost;
#[cfg(counting)]
pub use counting::AtomicU64;
pub use entry::{DEPENDENCIES_MAX, KEY_BYTES_MAX, Kind, Meta};
pub use fence::{FenceId, Fences, Lowered, Relation, Reserved, Stamp};
pub use glob::Glob;
pub use layout::{BLOCK_BYTES, Sizes};
#[cfg(all(feature = "testing", not(any(loom, counting))))]
pub use region::{FailingAllocator, Mapping};
pub use region::{Region, RegionError};
pub use statistics::Counter;
pub use terms::{
    Acquired, Buffer, Freshness, Host, InFlight, IncrError, Inspected, Key, KeyMark, Lease, Limit, Lingering,
    Miss, NewValue, Owner, Purpose, Reader, Refusal, RelationStats, Reservation, Scope, SpaceStats, Stored,
    Unclaimed, Usage,
};
pub use tier::Tier;
