//! The data structures of pg_cache: bytes and atomics, without any PostgreSQL code.
//!
//! A [`Tier`] stores entries in a block of memory that many processes share, the *region*. Its *host* is the process that uses it.
//! An *entry* holds the value of a key. Each key belongs to a *space*, a set of keys in one database. A *dependency* of an entry is
//! a relation, or something else, whose change makes the value invalid; a *fence* is the word that says when the dependency last
//! changed. The *clock of changes* is a counter that each committing change increments (`fence/mod.rs`). A *shard* is a part of the
//! tier with a lock of its own. Most reads take no lock (`tier/reading.rs` has the exceptions).
//!
//! # Memory map
//!
//! ```text
//! Region ─┬─ header        magic, layout version, sizes, the clock of changes          layout.rs
//!         ├─ fences        when each dependency of an entry last changed               fence/
//!         ├─ statistics    a slot for each backend, and a cell for each space          figures/statistics.rs
//!         ├─ segments      what the saver notes of the places that it writes to        segments.rs
//!         ├─ journal       what has changed, by name                                   journal/
//!         ├─ patterns      which keys were invalidated by a pattern                    patterns/
//!         ├─ zones         versions by which a reader learns that an entry died        tier/shard.rs
//!         ├─ visited       one bit for each entry: has a reader asked for it?          tier/shard.rs
//!         ├─ shards ─┬─ control    version, queue ends, counts                         tier/shard.rs
//!         │          ├─ flights    the keys that sessions compute or claim             tier/flight.rs
//!         │          ├─ buckets    the head of each chain of entries                   tier/guard.rs
//!         │          ├─ ghosts     hashes of recently evicted entries                  tier/queues.rs
//!         │          ├─ bitmap     the blocks that are in use                          blocks.rs
//!         │          └─ directory  where values are saved outside of the region        tier/directory.rs
//!         └─ blocks        entries: header, dependencies, key, value                   tier/entry.rs
//! ```
//!
//! # Files
//!
//! - `region.rs`, `layout.rs` and `blocks.rs` are the lowest layer: words, positions, free blocks. Apart from their tests, they
//!   import only each other, `sync.rs` and `location.rs`.
//! - `sync.rs` chooses the atomics, and `counting.rs` has those that count writes. `hash.rs` spreads numbers.
//! - `fence/` has the fences and the proof of their protocol.
//! - `figures/` has the statistics: the counts of each backend and space, and of each relation.
//! - `journal/` has the ring of records that name changes.
//! - `patterns/` has the table of the patterns that have invalidated keys. `glob.rs` matches keys with patterns.
//! - `tier/` has the entries and every operation on them. `tier/mod.rs` lists its files.
//! - `host.rs`, `key.rs`, `value.rs`, `location.rs` and `reader.rs` have the types that callers pass in. `segments.rs` has the
//!   words in which the saver, the worker that copies values to tables, notes what its tables are. `lines.rs` tests the layout, and
//!   `testing.rs` has the parts that all tests share.
//!
//! No two files import each other, directly or through other files.
//!
//! # Access rules
//!
//! 1. Memory consists of 64-bit words, and every shared access is atomic ([`Region`]). So no access is ever undefined behaviour.
//! 2. Links, queues and the bitmap are written only under the lock of their shard. A backend holds at most one shard lock at a
//!    time, for a bounded number of steps. While it holds one, it calls only three other methods of the host: [`Host::now`],
//!    [`Host::moment`], and [`Host::refuses_blocks`], with which tests make allocations fail.
//! 3. Readers hold no lock while they look for an entry and copy it, until writers have disturbed them several times. After a
//!    reader has copied an entry, it must check that the entry lived all the time (see `tier/shard.rs`).
//! 4. Apart from the links, flags and eviction rounds in its header, the bytes of a living entry never change, with four
//!    exceptions: its time to live; its stamp, which becomes later when a newer pattern does not match the key
//!    (`patterns/mod.rs`); the one word of a counter; and, in an entry that may be served stale, the word that says when the entry
//!    was last known to be valid.
//! 5. Fences are single words, changed by single atomic operations, and no lock protects them. No lock protects statistics either:
//!    each slot is written only by the backend that owns it, and the counts of cells and relations change by single atomic
//!    operations.
//! 6. Positions and lengths read from the memory are never trusted. Loops are bounded, an access outside the region goes to a sink,
//!    and code that follows a damaged link writes to blocks only. So damage can lose cached values or overwrite a cached value, but
//!    never crashes the process.
//!
//! # Cost
//!
//! An entry takes 56 bytes of header, 4 bytes for each dependency (an odd number of them takes 4 more), its key and its value,
//! rounded up to 16 bytes. An entry that may be served stale takes one more word. In such an entry, and in a counter, the key is
//! also padded to whole words. An entry in several pieces takes 8 more bytes for each piece. In addition, each 256 bytes of blocks
//! come with 4 bytes of buckets, 2 of ghosts, 2 of bitmap and half a byte of visited bits. So an entry with a key of 20 bytes and a
//! value of 100 bytes takes 176 + 6 bytes: 62 more than its content. `make bench` prints the overhead in a full tier, and the size
//! of fences, flights and statistics.
//!
//! Statistics take 5 440 bytes for each backend, whose slot has counts for eight spaces at a time, and 640 bytes for each reserved
//! fence, which may belong to a space. With 120 backends and 1024 reserved fences that is 1.3 MB. The fences and figures of a
//! relation take 64 bytes.
//!
//! A hit costs about three hundred instructions, no lock, and one store to the backend's own count for the space. It also sets the
//! entry's visited bit if the bit is clear. It takes a lock at most once a second for an entry that may be served stale, and once
//! for an entry that was compared with a newer pattern (`tier/reading.rs`). Storing and removing entries also updates the word that
//! holds the space's size: as a rule once for each *hold* of a lock, the time from acquiring to releasing it, for any number of
//! entries (`figures/deltas.rs`).

mod blocks;
#[cfg(counting)]
mod counting;
mod fence;
mod figures;
mod glob;
mod hash;
mod host;
mod journal;
mod key;
mod layout;
#[cfg(all(test, not(any(loom, counting))))]
mod lines;
mod location;
mod patterns;
mod reader;
mod region;
mod segments;
mod sync;
#[cfg(feature = "testing")]
pub mod testing;
mod tier;
mod value;

#[cfg(counting)]
pub use counting::AtomicU64;
pub use fence::{FenceId, Fences, Lowered, RelationFence, Reserved, Stamp};
pub use figures::{
    BUCKETS, Cost, Counter, Event, Events, Figures, Histogram, Histograms, Operation, RelationStats,
    SPACE_NAME_BYTES_MAX, SpaceStats, bucket_limit_nanos,
};
pub use glob::Glob;
pub use host::Host;
pub use journal::{BATCH_MAX, Journal, Lost, NextRecord, Record, What};
pub use key::{KEY_BYTES_MAX, Key, KeyMark, Scope};
pub use layout::{BLOCK_BYTES, Sizes};
pub use location::{Location, SEGMENTS_MAX};
pub use patterns::AnnouncedPattern;
pub use reader::{Buffer, Freshness, InvalidBecause, Miss, Reader};
#[cfg(all(feature = "testing", not(any(loom, counting))))]
pub use region::{FailingAllocator, Mapping};
pub use region::{Region, RegionError};
pub use segments::SegmentRecord;
pub use tier::Tier;
pub use tier::acquiring::{Acquired, FlightRequest, Unclaimed};
pub use tier::census::{Census, Fullness};
pub use tier::exporting::{Exported, ExportedKey, ExportedPage};
pub use tier::flight::{FAILURES_MAX, InFlight, Lease, Limit, Owner, Purpose};
pub use tier::inspecting::{EntryPage, Inspected, KeyPage, Usage};
pub use tier::promoting::SavedValue;
pub use tier::reviving::ReviveError;
pub use tier::saving::{Batch, Marked};
pub use tier::statistics::SampledHits;
pub use value::{
    DEPENDENCIES_MAX, IncrError, Kind, Meta, NOTE_BYTES_MAX, NewValue, Quota, Refusal, Reservation,
    ReserveOptions, StaleOk, Stored,
};
