//! The safe stamp: a moment on the clock of changes that is certainly older than the snapshot of a transaction which keeps one snapshot.
//!
//! A cached value is of the present. A REPEATABLE READ or SERIALIZABLE transaction may be given it only if nothing that the value depends
//! on has changed since its snapshot was taken. When exactly that was is unknown, so a moment before it is kept: the beginning of the
//! transaction block, or the moment at which the isolation level is set, if there is no snapshot yet; or the end of the session's last
//! transaction, if the next one was to have such an isolation level then.
//!
//! The safe stamp is *unknown* in a transaction that has imported a snapshot, and in one that began while the server was in recovery.
//! Such a transaction is served nothing and its values are not stored.

use crate::pg::local::local;
use crate::pg::{query, shared};
use pg_cache_core::{FenceId, Reader, Stamp};
use std::cell::Cell;

local! {
    /// VOID while it is unknown.
    static SAFE: Cell<Stamp> = Cell::new(Stamp::VOID);
}

/// The transaction has no snapshot yet: the next one will be younger than this moment.
pub fn begin() {
    SAFE.set(shared::tier().map_or(Stamp::VOID, |tier| tier.fences().now()));
}

/// A transaction is over: the same. Sessions that never keep a snapshot do not read the clock, whose cache line other sessions keep
/// changing. Cannot fail.
#[inline]
pub fn end() {
    if query::looks_at_moments()
        && let Some(tier) = shared::known_tier()
    {
        SAFE.set(tier.fences().now());
    }
}

/// The transaction takes over the snapshot of another.
pub fn forget() {
    SAFE.set(Stamp::VOID);
}

/// Whether the transaction keeps a snapshot of which no safe stamp is known.
#[inline]
pub fn is_unknown() -> bool {
    query::looks_at_one_moment() && SAFE.get() == Stamp::VOID
}

/// As of when a value is right that this transaction computes, at the latest.
#[inline]
pub fn current() -> Stamp {
    if query::looks_at_one_moment() { SAFE.get() } else { Stamp::LATEST }
}

/// This transaction as a reader, with the fences that it has changed itself.
#[inline]
pub fn reader(changed: &[FenceId]) -> Reader<'_> {
    match query::looks_at_one_moment() {
        false => Reader { changed, ..Stamp::LATEST.into() },
        // The server must know every table that a serializable transaction reads. A hit would hide them.
        true => Reader { horizon: SAFE.get(), changed, tracked: query::is_serializable() },
    }
}
