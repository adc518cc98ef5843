//! How far a transaction may see that looks at the database as it was at one moment.
//!
//! A value of the cache is of the present. To one who looks at the past it may be given only if nothing that it depends on has changed
//! since. So there is kept a moment of which it is certain that it is before the transaction's snapshot, though not by how much: the
//! beginning of its block, or when it is said of what kind it is, if there is no snapshot yet; or the end of an earlier one, if the next
//! was to be of its kind then. After taking over the snapshot of another nothing is certain.

use crate::pg::local::Local;
use crate::pg::{query, shared};
use pg_cache_core::{FenceId, Reader, Stamp};
use std::cell::Cell;

static CERTAIN: Local<Cell<Stamp>> = Local::new(Cell::new(Stamp::VOID));

/// There is no snapshot yet: whatever is taken next is after this moment.
pub fn begin() {
    if let Some(tier) = shared::tier() {
        CERTAIN.set(tier.fences().now());
    }
}

/// A transaction is over: the same. Most sessions never look at the past, and so need not look at the clock, which others keep changing.
/// Cannot fail.
#[inline]
pub fn end() {
    if query::looks_at_moments()
        && let Some(tier) = shared::known_tier()
    {
        CERTAIN.set(tier.fences().now());
    }
}

/// The snapshot may be of any time.
pub fn forget() {
    CERTAIN.set(Stamp::VOID);
}

/// As of when at the latest that is right which this transaction computes.
#[inline]
pub fn current() -> Stamp {
    if query::looks_at_one_moment() { CERTAIN.get() } else { Stamp::LATEST }
}

/// A reader of this transaction, which has changed some things itself.
#[inline]
pub fn reader(changed: &[FenceId]) -> Reader<'_> {
    match query::looks_at_one_moment() {
        false => Reader { changed, ..Stamp::LATEST.into() },
        // What a serializable transaction reads of tables, the server has to know: a hit would hide it.
        true => Reader { horizon: CERTAIN.get(), changed, tracked: query::is_serializable() },
    }
}
