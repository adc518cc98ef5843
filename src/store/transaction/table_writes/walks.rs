//! Walks over the locks of the transaction, which show which relations it has read and written (`pg/locks.rs`). `mod.rs` finds the
//! written relations by such a walk, and stored queries ask for foreign tables.
//!
//! During a walk, nothing may fail or allocate memory, because the walk holds a lock of the server. So a walk fills a list only as
//! far as it has room, and is repeated with more room.

use crate::pg::{locks, memory, relation};

/// Returns whether the transaction has read or written a foreign table. May raise errors.
pub fn has_seen_foreign() -> bool {
    let mut seen = Vec::new();
    find_passed(&mut seen, |passed| locks::each_seen(|oid| passed.add(oid)));
    seen.into_iter().any(relation::is_foreign)
}

/// Returns whether the transaction holds a write lock on a foreign table. A write to a foreign table does not change this
/// database. May raise errors.
pub fn has_written_foreign() -> bool {
    let mut written = Vec::new();
    find_passed(&mut written, |passed| locks::each_written(|lock| passed.add(lock.relation())));
    written.into_iter().any(relation::is_foreign)
}

/// The relations or locks that a walk over the locks passes. The list does not grow during the walk.
pub(super) struct Passed<'f, T> {
    /// As many of them as there was room for.
    found: &'f mut Vec<T>,
    /// The number of all that were passed.
    count: usize,
}

impl<T> Passed<'_, T> {
    /// Adds a relation or a lock if there is room for it. Allocates nothing.
    #[inline]
    pub(super) fn add(&mut self, item: T) {
        self.count += 1;
        if self.found.len() < self.found.capacity() {
            self.found.push(item);
        }
    }
}

/// Lists the relations or locks that a walk over the locks passes. Allocates only between two walks, because nothing may fail
/// during a walk. May raise errors.
pub(super) fn find_passed<T>(found: &mut Vec<T>, walk: impl Fn(&mut Passed<'_, T>)) {
    loop {
        found.clear();
        let mut passed = Passed { found, count: 0 };
        walk(&mut passed);
        let count = passed.count;
        if count == found.len() {
            return;
        }
        memory::reserve(found, count);
    }
}
