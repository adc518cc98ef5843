//! The fence of a database's inheritance trees: partitioned tables with their partitions, and parents with their children. A
//! *fence* is a word in shared memory that says when something that values depend on last changed (`docs/architecture.md`).
//!
//! A write to a table also invalidates the entries that depend on a table above it. A tree may grow while a commit is under way
//! that writes below it: the commit then does not know the new parent. So each entry that depends on a parent also depends on this
//! fence, and a transaction raises it if it attaches a table to a parent.

use crate::pg::local::local;
use crate::pg::shared::{self, HotTier};
use crate::store::journal;
use pg_cache_core::{FenceId, Reserved, Stamp};
use std::cell::Cell;

/// Returns the fence of this database's inheritance trees.
#[inline]
pub fn fence(tier: &HotTier) -> FenceId {
    local! {
        /// The fence of a database's trees never changes, so the session looks it up once.
        static KNOWN: Cell<Option<FenceId>> = Cell::new(None);
    }
    KNOWN.get().unwrap_or_else(|| {
        let fence = tier.fences().reserved(Reserved::Trees(shared::database()));
        KNOWN.set(Some(fence));
        fence
    })
}

/// Returns whether an inheritance tree of the database has grown since, or is about to grow. `own` tells whether this transaction
/// has raised the fence of trees itself.
pub fn have_grown(tier: &HotTier, since: Stamp, own: bool) -> bool {
    let (fences, trees) = (tier.fences(), fence(tier));
    // `pending` must be read first: a change that is not pending any more has lowered the fence, so the second look finds it.
    fences.pending(trees) > u64::from(own) || fences.has_changed_since(trees, since)
}

/// Immediately invalidates every entry that depends on an inheritance parent. Cannot fail.
pub fn invalidate(tier: &HotTier) {
    let trees = fence(tier);
    tier.fences().raise(trees);
    let _ = tier.lower_as(trees, tier.fences().draw());
    // A watched table may be an inheritance parent.
    journal::everything_changed(tier);
}
