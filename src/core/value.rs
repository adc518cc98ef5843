//! The values of entries: what a caller passes in to store a value, and what becomes of it. `tier/publishing.rs` stores values.
//!
//! An *entry* is a cached value with its key. A *dependency* of a value is what makes it wrong when it changes; its *fence* is the
//! word in shared memory that says when it last changed. A *stamp* is the moment, on the clock of changes, as of which a value is
//! right. A *tick* is the unit of time of the tier, the cache; the process that the tier runs in chooses it. A *space* is a set of
//! keys in one database. A *location* says where the copy of a value is saved outside of the memory (`tier/directory.rs`).

use crate::fence::{FenceId, Stamp};
use crate::figures::Cost;
use crate::location::Location;

/// The most dependencies that an entry may name.
pub const DEPENDENCIES_MAX: usize = 255;

/// The most bytes of a note, see [`NewValue::note`].
pub const NOTE_BYTES_MAX: usize = 16 << 10;

/// The kind of value that an entry holds. The caller chooses the numbers; only [`Kind::COUNTER`] has a meaning in this crate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Kind(pub u8);

impl Kind {
    /// A 64-bit integer that can be added to in place. Counters are evicted last, because their values cannot be computed again.
    pub const COUNTER: Self = Self(255);
}

/// The properties of an entry besides its key and value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// The length of the value in bytes.
    pub value_len: usize,
    /// The kind of the value.
    pub kind: Kind,
    /// When the value was read from its source, on the clock of changes.
    pub stamp: Stamp,
    /// When the entry was stored, in ticks.
    pub created: u32,
    /// When the entry expires, in ticks.
    pub expires: u32,
    /// How long the value took to compute.
    pub cost: Cost,
    /// The last tick at which the value was known to be valid, if it is [outdated](crate::Reader::outdated_since). `u32::MAX` for
    /// any other value.
    pub valid_at: u32,
}

/// A value to store.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'v> {
    /// The bytes of the value.
    pub bytes: &'v [u8],
    /// Bytes that are stored beside the value and that readers of the value do not get; at most [`NOTE_BYTES_MAX`]. The caller
    /// chooses their meaning. The bytes of a counter should be a number of 8 bytes. The tier does not check that, but stores a
    /// counter with other bytes without its note.
    pub note: &'v [u8],
    /// The kind of the value.
    pub kind: Kind,
    /// The moment as of which the value is valid, drawn before the snapshot on which it was computed (`fence/mod.rs`).
    pub stamp: Stamp,
    /// The tick at which the value expires.
    pub expires: u32,
    /// The cost of computing the value.
    pub cost: Cost,
    /// The fences of the value's dependencies, apart from its database and its space; at most [`crate::DEPENDENCIES_MAX`].
    pub dependencies: &'v [FenceId],
}

/// How long a value may be served *stale*, that is, after it expired or a dependency changed, to readers that accept stale values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleOk {
    /// The number of ticks for which the value may be served stale.
    pub ticks: u32,
    /// The last tick at which the value was known to be valid.
    pub valid_at: u32,
}

impl StaleOk {
    /// Returns the word that an entry stores: `ticks : 32 | valid_at : 32`.
    pub(crate) fn as_word(self) -> u64 {
        u64::from(self.ticks) << 32 | u64::from(self.valid_at)
    }
}

/// The options of [`crate::Tier::reserve`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReserveOptions {
    /// How long the value may be served stale, or None if it may not be.
    pub stale_ok: Option<StaleOk>,
    /// The quota of the space, or None if it has none.
    pub quota: Option<Quota>,
    /// Whether a store outside of the server gets a copy of the value (`tier/exporting.rs`).
    pub is_exported: bool,
}

impl From<Option<StaleOk>> for ReserveOptions {
    fn from(stale_ok: Option<StaleOk>) -> Self {
        Self { stale_ok, ..Self::default() }
    }
}

impl From<Option<Quota>> for ReserveOptions {
    fn from(quota: Option<Quota>) -> Self {
        Self { quota, ..Self::default() }
    }
}

/// The quota of a space.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// The most bytes of blocks that the space may have.
    pub bytes: u64,
    /// The most buckets that one search looks through to free blocks of the space. A reservation makes up to two searches.
    pub budget: u32,
}

/// Blocks with a value that is already written but not yet visible. It must end in a call that consumes it, such as
/// [`crate::Tier::publish`] or [`crate::Tier::cancel`]. Otherwise its memory is lost until the region is formatted again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "publish or cancel it, or its memory is lost"]
pub struct Reservation {
    /// The first block of the entry.
    pub(crate) block: u32,
}

/// The result of publishing a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The value is stored. The key had no valid value before.
    New,
    /// The value is stored and replaces a valid one.
    Replaced,
    /// The value is dropped: its lease or claim (`tier/flight.rs`) had ended, or a change of the key had voided it, or the shard,
    /// the part of the tier that the key belongs to, is switched off.
    Dropped,
}

/// The reason why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The entry is larger than an entry may be in a tier of this size.
    TooLarge,
    /// There are not enough free blocks, and no entry can be evicted.
    Full,
    /// The value has more dependencies than an entry can hold.
    TooManyDependencies,
    /// The space has reached its quota.
    Quota,
    /// The shard is switched off.
    Off,
}

/// The reason why a counter was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrError {
    /// The key holds a value of another kind.
    OtherKind(Kind),
    /// The result does not fit into 64 bits.
    Overflow,
    /// A new counter could not be stored.
    Refused(Refusal),
    /// The key has no value in memory, but one may be saved at this location. The caller must make the saved value an entry again
    /// ([`promote`](crate::Tier::promote)) or forget the location, and try again.
    Saved(Location),
}
