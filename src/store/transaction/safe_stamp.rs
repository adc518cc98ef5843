//! The safe stamp: a stamp that was certainly taken before the snapshot of a transaction that keeps one snapshot (REPEATABLE READ
//! or SERIALIZABLE). A *stamp* is a number on the clock of changes (`docs/architecture.md`). Reads of the cache ask this file
//! for it.
//!
//! Cached values are current. A REPEATABLE READ or SERIALIZABLE transaction may be given a value only if no dependency of the value
//! has changed since the transaction's snapshot was taken. The exact moment of the snapshot is unknown, so the session keeps a
//! stamp from before it. That is the beginning of the transaction block, or the moment at which the isolation level was set if
//! there was no snapshot yet. In a transaction without a block, which has the session's default isolation level, it is the end of
//! the session's last transaction.
//!
//! `store/command.rs` calls [`begin`] after BEGIN and SET TRANSACTION, and [`forget`] when a snapshot is imported. `pending.rs` calls
//! [`end`] at the end of each transaction.
//!
//! The safe stamp is *unknown* in a transaction that has imported a snapshot, and in a transaction that began while the server was
//! in recovery. Such a transaction gets no cached values, and the values that it computes are not stored.

use crate::pg::local::local;
use crate::pg::{shared, transaction};
use pg_cache_core::{FenceId, Reader, Stamp};
use std::cell::Cell;

local! {
    /// The safe stamp; VOID while it is unknown.
    static SAFE_STAMP: Cell<Stamp> = Cell::new(Stamp::VOID);
}

/// Sets the safe stamp to the present. The transaction must not have a snapshot yet: its snapshot will then be younger.
pub fn begin() {
    SAFE_STAMP.set(shared::tier().map_or(Stamp::VOID, |tier| tier.fences().now()));
}

/// Sets the safe stamp to the present at the end of a transaction. A session that never keeps a snapshot does not read the clock,
/// because other sessions keep changing the clock's cache line. Cannot fail.
#[inline]
pub fn end() {
    if transaction::may_keep_one_snapshot()
        && let Some(tier) = shared::known_tier()
    {
        SAFE_STAMP.set(tier.fences().now());
    }
}

/// Makes the safe stamp unknown, because the transaction takes over the snapshot of another one.
pub fn forget() {
    SAFE_STAMP.set(Stamp::VOID);
}

/// Returns whether the transaction keeps a snapshot and its safe stamp is unknown.
#[inline]
pub fn is_unknown() -> bool {
    transaction::keeps_one_snapshot() && SAFE_STAMP.get() == Stamp::VOID
}

/// Returns the latest stamp that a value computed by this transaction can have.
#[inline]
pub fn current() -> Stamp {
    if transaction::keeps_one_snapshot() { SAFE_STAMP.get() } else { Stamp::LATEST }
}

/// Returns this transaction as a reader, with the fences that it has changed itself, sorted. If the safe stamp is unknown, the
/// caller must not read ([`is_unknown`]).
#[inline]
pub fn reader(changed_fences: &[FenceId]) -> Reader<'_> {
    match transaction::keeps_one_snapshot() {
        false => Reader { changed_fences, ..Stamp::LATEST.into() },
        // The server must know every table that a serializable transaction reads. A hit would hide them.
        true => Reader { changed_fences, tracked: transaction::is_serializable(), ..SAFE_STAMP.get().into() },
    }
}
