//! Events that are counted for the whole server, and not for each space of keys. Each backend counts in a *slot*, a part of its own
//! in the region, which is the shared memory of the tier (`statistics.rs`). So backends do not write to the same words. When a
//! backend ends, its counts stay in the slot.
//!
//! A *tier* is the cache. A *fence* is a word in shared memory that says when something that values depend on last changed
//! (`fence/mod.rs`). A hit is *verified* if its query is run again and the results are compared (`query/verify.rs` of the
//! extension).

use crate::layout::EVENT_WORDS;

/// The events that are counted for the whole server. The tier counts invalidations by relations, spaces, databases, definitions,
/// roles and patterns itself; all others must be [counted](crate::Tier::count_event) by the caller. The numbers are places in
/// shared memory, so a change of the order needs a new version of the layout (`layout.rs`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Event {
    /// A transaction changed a relation that has a record (`fence/mod.rs`): values depend on it, or have depended on it.
    ByRelation,
    /// A tag was invalidated. The tier cannot count this itself, because the fences of tags also stand for definitions.
    ByTag,
    /// A pattern was invalidated.
    ByPattern,
    /// A whole space was invalidated.
    BySpace,
    /// A whole database was invalidated.
    ByDatabase,
    /// The definitions of a database, or the meaning of names in it, have changed.
    ByDefinitions,
    /// The roles of the server have changed.
    ByRoles,
    /// A notification (`NOTIFY`) that names changes was sent to clients.
    Notified,
    /// A worker paused the sending of notifications because the server's queue of them was more than half full.
    Paused,
    /// A value was saved outside of the region (`tier/saving.rs`).
    Saved,
    /// A value was copied to be saved, but its entry had changed meanwhile.
    SavedTooLate,
    /// A segment, a place for many saved values (`segments.rs`), was emptied to be used again.
    Recycled,
    /// A step of a background worker ended with an error.
    WorkerFailed,
    /// The Redis worker began to compare all keys.
    Resync,
    /// The query of a hit was run again, and returned the stored result.
    VerifiedSame,
    /// The query of a hit was run again, and returned another result.
    VerifiedDifferent,
    /// A hit that was to be verified was not, because the caller accepts outdated results (those that only changes of rows have
    /// made invalid) and the stored result was outdated.
    UnverifiedStale,
    /// The same, because a dependency of the result changed meanwhile.
    UnverifiedChanged,
    /// The same, because the caller had declared what the result depends on.
    UnverifiedDeclared,
    /// The same, because the query may return different results for the same data.
    UnverifiedUnclear,
    /// The same, because the query means something else in this session or transaction, or cannot run again there.
    UnverifiedSession,
    /// The same, because another session had locked a relation.
    UnverifiedLocked,
    /// The same, because the query failed for a reason that is not in the data.
    UnverifiedFailed,
    /// Microseconds that the repeated queries took.
    VerifyTime,
}

impl Event {
    /// The number of events. It must name the last one.
    const COUNT: usize = Self::VerifyTime as usize + 1;
}

// There must be a word for each event.
const _: () = assert!(Event::COUNT <= EVENT_WORDS);

/// The counts of all events.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Events([u64; Event::COUNT]);

impl Events {
    /// Returns how often an event has happened.
    pub fn counted(&self, what: Event) -> u64 {
        self.0[what as usize]
    }

    /// Adds the counts of a backend. `read` returns a word of its slot.
    pub(super) fn add(&mut self, read: impl Fn(usize) -> u64) {
        for (word, sum) in self.0.iter_mut().enumerate() {
            *sum = sum.wrapping_add(read(word));
        }
    }
}
