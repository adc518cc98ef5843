//! A reader: what it may see, where its values go, and why it gets none.

use crate::fence::{FenceId, Stamp};
use crate::value::Meta;

/// A reader: which changes of others it may see, and what it has changed itself.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'r> {
    /// The reader may not see a value if a dependency has changed after this moment.
    pub safe_stamp: Stamp,
    /// The fences of what the reader has changed and not committed yet. They must be sorted.
    pub changed: &'r [FenceId],
    /// Whether the server must know every relation that the reader reads. Such a reader gets no entry that depends on a relation.
    pub tracked: bool,
}

impl From<Stamp> for Reader<'_> {
    /// Makes a reader that has changed nothing.
    fn from(safe_stamp: Stamp) -> Self {
        Self { safe_stamp, changed: &[], tracked: false }
    }
}

/// The reason why a read returns no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The key has no entry.
    Absent,
    /// The entry has expired.
    Expired,
    /// The entry, or one of its dependencies, has changed or is about to change.
    Fenced,
    /// The reader itself has changed a dependency of the entry, or it is [tracked](Reader::tracked) and the entry depends on a
    /// relation.
    Own,
    /// The shard is switched off, or the entry is damaged.
    Off,
}

/// The reason why an entry is wrong for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// Another transaction is about to commit a change of the key itself.
    Key,
    /// This dependency has changed, or is about to change.
    Changed(FenceId),
    /// This dependency has changed after the reader's safe stamp. The entry is right for later readers.
    Newer(FenceId),
    /// The reader itself has changed this dependency.
    Own(FenceId),
    /// The entry depends on this relation, and the reader is [tracked](Reader::tracked).
    Tracked(FenceId),
}

/// Whether a served value is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The value is right.
    Right,
    /// The value was right before, and may be served until a tick.
    Stale {
        /// The tick until which the value may be served.
        until: u32,
    },
}

/// The destination that a value is copied to.
pub trait Buffer {
    /// Returns as many bytes as the value has, or none if there is no memory for them. The tier may call it more than once for one
    /// value, because a writer may disturb the first copy.
    fn allocate(&mut self, meta: &Meta) -> &mut [u8];

    /// Whether the last call of `allocate` returned as many bytes as were asked for. If not, the tier has copied nothing.
    fn was_allocated(&self) -> bool {
        true
    }

    /// Whether the value that was just copied is one that the caller wants. If not, the read is a miss, as if the key had no entry.
    #[inline(always)]
    fn accepts(&mut self, _meta: &Meta) -> bool {
        true
    }
}

impl Buffer for Vec<u8> {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.resize(meta.value_len, 0);
        self
    }
}

/// A buffer for callers that want only the [`Meta`]. It receives no bytes.
impl Buffer for () {
    fn allocate(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}
