//! The types of a read of one key: the reader with the changes that it may see, the buffer for the value, and the reasons for a
//! miss. `tier/reading.rs` reads.
//!
//! An entry, a cached value, is *valid* while it has not expired and none of its dependencies has changed. A *fence* is the word in
//! shared memory that says when a dependency last changed, and a *stamp* is a number of the clock of changes, which each committed
//! change increments. A *tick* is the unit of time of the tier, the cache; the process that the tier runs in chooses it. A *note*
//! is bytes that are stored beside a value.

use crate::fence::{FenceId, Stamp};
use crate::location::Location;
use crate::value::Meta;

/// A reader: which changes of other transactions it may see, and which dependencies it has changed itself.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'r> {
    /// The reader must not get a value as valid if a dependency has changed after this moment, because the reader's snapshot might
    /// not see that change. `Stamp::LATEST` is no limit.
    pub safe_stamp: Stamp,
    /// The fences of the dependencies that the reader has changed and not committed yet. They must be sorted.
    pub changed_fences: &'r [FenceId],
    /// Whether the server must know every relation that the reader reads, as in a SERIALIZABLE transaction. A tracked reader never
    /// gets an entry that depends on a relation, because a hit would hide the relation from the server.
    pub tracked: bool,
    /// The moment at which the reader began to wait for a value: a number that it has [drawn](crate::Fences::draw). A value whose
    /// stamp is not before that number was computed on a snapshot from after the beginning of the reader's call. The reader gets
    /// such a value even if a dependency has changed since.
    pub arrived: Option<Stamp>,
    /// The reader also accepts an *outdated* value. Such a value was known to be valid at this tick or later, and only the rows of
    /// relations have changed since. Changes of other dependencies, of the space and of the database are never forgiven.
    pub outdated_since: Option<u32>,
    /// Whether the reader repeats a look that was counted. The repeated look counts neither a hit nor a miss.
    pub repeats: bool,
}

impl From<Stamp> for Reader<'_> {
    /// Makes a reader that has changed nothing.
    fn from(safe_stamp: Stamp) -> Self {
        Self {
            safe_stamp,
            changed_fences: &[],
            tracked: false,
            arrived: None,
            outdated_since: None,
            repeats: false,
        }
    }
}

/// The reason why a read returns no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The key has no entry.
    Absent,
    /// The key has no entry in memory, but a value of it may be saved at this location. The read was not counted: the caller must
    /// count what it ends with, with [`count_saved_hit`](crate::Tier::count_saved_hit) or [`count_miss`](crate::Tier::count_miss).
    Saved(Location),
    /// The entry has expired.
    Expired,
    /// The key or a dependency of its entry has changed or is about to change, a pattern matches the key, or a dependency has
    /// changed after the reader's safe stamp.
    Fenced,
    /// The reader itself has changed a dependency of the entry, or it is [tracked](Reader::tracked) and the entry depends on a
    /// relation.
    Own,
    /// The shard, the part of the tier that the key belongs to, is switched off (`tier/shard.rs`), or the entry is damaged.
    Off,
}

/// The reason why an entry is not valid for a reader. It explains [`Miss::Fenced`] and [`Miss::Own`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InvalidBecause {
    /// Another transaction is about to commit a change of the key itself.
    Key,
    /// This dependency has changed, or is about to change.
    Changed(FenceId),
    /// This dependency has changed after the reader's safe stamp. The entry is valid for readers whose safe stamp is not before
    /// that change.
    Newer(FenceId),
    /// The reader itself has changed this dependency.
    Own(FenceId),
    /// The entry depends on this relation, and the reader is [tracked](Reader::tracked).
    Tracked(FenceId),
    /// A pattern that matches the key was invalidated, or is about to be.
    Pattern,
}

/// Whether a served value is valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The value is valid.
    Valid,
    /// The value is no longer valid, but the entry allows serving it for some time.
    Stale {
        /// The first tick at which the value may not be served any more.
        until: u32,
    },
}

/// The destination of a value: the tier asks it for memory and copies the value there.
pub trait Buffer {
    /// Whether the caller wants the note of the value, too ([`note_target`](Self::note_target)).
    const WANTS_NOTE: bool = false;

    /// Returns memory for the note of the value. It is called if the caller wants the note, after `allocate`, perhaps more than
    /// once, and perhaps under the lock of a shard: it must not allocate. The note has 0 to
    /// [`NOTE_BYTES_MAX`](crate::NOTE_BYTES_MAX) bytes. If the result has another length than `bytes`, nothing is copied.
    fn note_target(&mut self, _bytes: usize) -> &mut [u8] {
        &mut []
    }

    /// Returns memory for the value, [`Meta::value_len`] bytes. Returns an empty slice if there is no memory, or if the caller
    /// wants no bytes. The tier never calls this under a lock. It may call this more than once in one read, because a writer may
    /// disturb the first copy.
    fn allocate(&mut self, meta: &Meta) -> &mut [u8];

    /// Returns false if the last call of `allocate` found no memory. The tier has then copied nothing, but the read is still a
    /// hit: the caller must ask after each hit, and must not use the value.
    fn was_allocated(&self) -> bool {
        true
    }

    /// Returns whether the caller accepts the value. The buffer holds its bytes, unless `allocate` returned an empty slice. If the
    /// caller does not accept the value, the read is a miss, as if the key had no entry. A read that accepts stale values may
    /// return one without asking, so a buffer that refuses values must not be used for it.
    #[inline(always)]
    fn accepts(&mut self, _meta: &Meta) -> bool {
        true
    }

    /// Returns whether a read that returns this value counts as a hit. False for a marker, which only tells the caller where to
    /// look or why there is no result.
    #[inline(always)]
    fn is_hit(&self, _meta: &Meta) -> bool {
        true
    }
}

/// The value replaces the content of the vector. If there is no memory, the vector has no capacity afterwards. Otherwise it has
/// room for at least one byte, also for an empty value.
impl Buffer for Vec<u8> {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        if self.try_reserve(meta.value_len.max(1).saturating_sub(self.len())).is_err() {
            *self = Self::new();
            return self;
        }
        self.resize(meta.value_len, 0);
        self
    }

    fn was_allocated(&self) -> bool {
        self.capacity() > 0
    }
}

/// A buffer for callers that want only the [`Meta`]. It receives no bytes.
impl Buffer for () {
    fn allocate(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}
