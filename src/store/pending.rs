//! What the transaction of this session has changed and not committed yet.
//!
//! Changes are collected in the session's own memory, in order, each with the depth of the savepoint it was made in. The
//! session sees its own; others see them when it commits:
//! - *before commit* everything is done that can fail: values are copied to where nobody can see them, fences are raised, and,
//!   if the transaction has changed the database too, keys are announced, because its commit is seen before we are told;
//! - *settled*: when the changed rows are visible and the catalog invalidations are sent, the fences are lowered and the values are
//!   shown, which is a bounded walk over plain memory. Fences that were lowered earlier would let a session store a result that it
//!   computes with old catalogs under a new stamp;
//! - *after an abort*, however it came about, everything is taken back.
//!
//! What becomes of a transaction that is prepared instead stands in `prepared.rs`.
//!
//! Nothing that is called while the changes are borrowed may report to the client or wait for a lock: the session could be ended there
//! and then.

use crate::pg::local::local;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
use crate::pg::transaction::{self, Listener};
use crate::pg::{locks, observer, queue};
use crate::store::change::{OwnKey, Value, What};
use crate::store::commit::{self, Commit};
use crate::store::ledger::{Ledger, Own, Unheld};
use crate::store::right::{self, Rights};
use crate::store::space::Place;
use crate::store::status::Status;
use crate::store::written::LOOKS_MAX;
use crate::store::{horizon, prepared, written};
use pg_cache_core::FenceId;
use std::cell::RefCell;

/// All that is kept for the transaction.
#[derive(Debug)]
struct Pending {
    ledger: Ledger,
    /// Relations that were invalidated by their names, each with the fence that the ledger has for it. They are looked up again at the
    /// commit, because they may have been given a record by then.
    invalidated: Vec<(u32, FenceId)>,
    rights: Rights,
    commit: Commit,
    /// Whether it has flushed a space or the database, perhaps in a savepoint that was rolled back.
    has_flushed: bool,
}

local! {
    static PENDING: RefCell<Pending> = RefCell::new(Pending::NOTHING);
}

/// Of this session's transactions.
enum Collector {}

/// Has the server tell of transactions. To be called while it loads us.
pub fn listen() {
    transaction::listen::<Collector>();
}

impl Listener for Collector {
    #[inline]
    fn has_nothing() -> bool {
        // Who has not been to the tier goes there before the first commit: one may write after it is told, and then it is too late.
        !shared::is_tier_to_be_found()
            && PENDING.try_borrow().is_ok_and(|pending| pending.has_nothing())
            && prepared::has_nothing()
    }

    fn over() {
        written::over();
        observer::over();
        horizon::end();
    }

    fn before_commit() {
        let Some(tier) = shared::tier() else { return };
        // What may raise errors comes first, with nothing borrowed.
        let keeps_nothing = PENDING.with_borrow(Pending::has_nothing);
        let command = if keeps_nothing { 0 } else { transaction::command_after_all() };
        prepared::before_commit(locks::has_written());
        written::before_commit(tier, |written| {
            PENDING.with_borrow_mut(|Pending { ledger, commit, .. }| {
                commit.begin(ledger, written, command);
                ledger.begin();
            });
        });
        // A relation may have been given a record since its fence was looked up: then an entry may depend on that alone.
        let mut looks = 0;
        while let Some(fences) = written::claimed_meanwhile(tier) {
            looks += 1;
            let is_enough = looks == LOOKS_MAX;
            let fences = if is_enough { written::claim_all(tier) } else { fences };
            PENDING.with_borrow_mut(|pending| pending.commit.raise_more(tier, &fences));
            if is_enough {
                break;
            }
        }
        PENDING.with_borrow_mut(|pending| pending.raise_invalidated(tier));
    }

    fn before_prepare() {
        let Some(tier) = shared::tier() else { return };
        written::check_before_prepare(tier);
        let in_short = PENDING.with_borrow(|pending| pending.ledger.in_short());
        let (mut fences, marks) = in_short.unwrap_or_else(|short| short.raise());
        let invalidated = PENDING.with_borrow(Pending::invalidated_relations);
        memory::reserve(&mut fences, invalidated.len());
        fences.extend(invalidated.into_iter().map(|number| written::claimed_fence_of(tier, number)));
        prepared::record(fences, marks).unwrap_or_else(|refused| refused.raise());
    }

    fn prepared() {
        prepared::stands();
        PENDING.with_borrow_mut(|pending| {
            pending.rights.hand_over_leases();
            pending.aborted();
        });
    }

    fn committed() {
        PENDING.with_borrow_mut(|pending| {
            if transaction::has_number() {
                pending.raise_late();
            }
            if settings::broken() == Broken::Early {
                pending.settled();
            }
        });
    }

    fn settled() {
        PENDING.with_borrow_mut(Pending::settled);
        prepared::over();
    }

    fn aborted() {
        prepared::over();
        PENDING.with_borrow_mut(Pending::aborted);
    }

    fn released(depth: i32) {
        PENDING.with_borrow_mut(|pending| {
            pending.ledger.released(depth);
            pending.rights.released(depth);
        });
    }

    fn rolled_back(depth: i32) {
        PENDING.with_borrow_mut(|pending| {
            pending.ledger.rolled_back(depth);
            pending.rights.rolled_back(depth);
        });
    }
}

/// Goes through a commit as far as tables are concerned, and takes it back: fences are raised and withdrawn, and what depends on them
/// is as right as before. What the transaction has changed in the cache stays out of it. `afresh` if what was written is not to be known
/// from before. May raise errors, before any fence is raised.
pub fn rehearse(afresh: bool) {
    let Some(tier) = shared::tier() else { return };
    if afresh {
        written::forget();
    }
    let mut tables_alone = Pending::NOTHING;
    written::before_commit(tier, |written| tables_alone.commit.begin(&Ledger::EMPTY, written, 0));
    tables_alone.raise_late();
    tables_alone.aborted();
}

/// Whether the transaction has changed nothing.
#[inline]
pub fn is_empty() -> bool {
    !locks::has_written() && PENDING.with_borrow(|pending| pending.ledger.changes().is_empty())
}

/// Calls with what the transaction says of a key, and with the fences of what it has changed.
pub fn with_own<R>(place: &Place, key: &[u8], hash: u64, read: impl FnOnce(Own<'_>, &[FenceId]) -> R) -> R {
    if locks::has_written() {
        return with_own_written(place, key, hash, read);
    }
    PENDING.with_borrow(|pending| {
        let own = if pending.ledger.changes().is_empty() {
            Own::Nothing
        } else {
            pending.ledger.own(place, key, hash, &[])
        };
        read(own, pending.ledger.fences())
    })
}

/// The same in a transaction that has written to tables.
#[cold]
fn with_own_written<R>(
    place: &Place,
    key: &[u8],
    hash: u64,
    read: impl FnOnce(Own<'_>, &[FenceId]) -> R,
) -> R {
    // Before anything is borrowed: it may wait for a lock, and the session be ended there.
    let mut changed = written::with_fences(place.tier, memory::copy::<FenceId>);
    memory::reserve(&mut changed, PENDING.with_borrow(|pending| pending.ledger.fences().len()));
    PENDING.with_borrow(|pending| {
        let own = pending.ledger.own(place, key, hash, &changed);
        changed.extend(pending.ledger.fences());
        changed.sort_unstable();
        read(own, &changed)
    })
}

/// Remembers that a key was set.
pub fn set(key: OwnKey, value: Value) -> Result<(), Unheld> {
    // The commit will look for what the key has: it is far away until then.
    key.key().into_iter().for_each(|name| key.place.tier.fetch_bucket(name.mark()));
    PENDING.with_borrow_mut(|pending| pending.ledger.add_if_it_fits(What::Set(key, value)))
}

/// Remembers that a key was removed: the key, or where it cannot be held back the space that it is in. May raise errors.
pub fn remove(place: &Place, key: &[u8]) {
    let removed = OwnKey::new(*place, key)
        .map_err(Unheld::from)
        .and_then(|key| PENDING.with_borrow_mut(|pending| pending.ledger.add_if_it_fits(What::Remove(key))));
    if removed.is_err() {
        invalidate(place, place.own_fence());
    }
}

/// Remembers that a key was given another time to live.
pub fn touch(key: OwnKey, expires: u32) -> Result<(), Unheld> {
    PENDING.with_borrow_mut(|pending| {
        if let Some(place) = pending.ledger.latest(&key.place, &key.bytes, key.hash)
            && let What::Set(_, value) = &pending.ledger.changes()[place].what
        {
            let bytes = memory::try_copy(&value.bytes)?.into_boxed_slice();
            let dependencies = memory::try_copy(&value.dependencies)?.into_boxed_slice();
            let value = Value { bytes, expires, dependencies, ..*value };
            return pending.ledger.add_if_it_fits(What::Set(key, value));
        }
        pending.ledger.add_if_it_fits(What::Touch(key, expires))
    })
}

/// Makes room for a lease or a claim. The error says why there is none: the transaction has too many, or there is no memory.
pub fn make_room_for_right() -> Result<(), Status> {
    PENDING.with_borrow_mut(|pending| pending.rights.make_room())
}

/// Remembers a lease or a claim, for which there is room.
pub fn entitle(key: OwnKey, number: u64, kind: right::Kind) {
    PENDING.with_borrow_mut(|pending| pending.rights.add(key, number, kind, transaction::depth()));
}

/// Whether a lease was given to this transaction, or a claim is its own.
pub fn holds(number: u64) -> bool {
    let kinds = [right::Kind::Lease, right::Kind::Claim];
    PENDING.with_borrow(|pending| kinds.into_iter().any(|kind| pending.rights.has(number, kind)))
}

/// A lease has ended.
pub fn forget_lease(number: u64) {
    PENDING.with_borrow_mut(|pending| pending.rights.forget_lease(number));
}

/// Remembers that everything under a fence was invalidated. May raise errors: what cannot be invalidated would be wrong.
pub fn invalidate(place: &Place, fence: FenceId) {
    let invalidated = PENDING.with_borrow_mut(|pending| {
        pending.has_flushed |= place.fences.contains(&fence);
        pending.ledger.invalidate(place, fence)
    });
    invalidated.unwrap_or_else(|_| OutOfMemory.raise());
}

/// Remembers that everything that depends on a relation was invalidated, or on a table that it is a part of. May raise errors.
pub fn invalidate_relation(place: &Place, relation: u32) {
    let fences = written::of_relation(place.tier, relation);
    PENDING.with_borrow_mut(|pending| {
        for (number, fence) in fences {
            pending.ledger.invalidate(place, fence).unwrap_or_else(|_| OutOfMemory.raise());
            if !pending.invalidated.contains(&(number, fence)) {
                memory::push(&mut pending.invalidated, (number, fence));
            }
        }
    });
}

/// The same for a fence that nothing larger may stand in for.
pub fn invalidate_exactly(fence: FenceId) {
    let invalidated = PENDING.with_borrow_mut(|pending| pending.ledger.add(What::Invalidate(fence)));
    invalidated.unwrap_or_else(|_| OutOfMemory.raise());
}

/// Whether the transaction has changed any of these.
pub fn has_changed(tier: &HotTier, fences: &[FenceId]) -> bool {
    let any_of = |changed: &[FenceId]| fences.iter().any(|fence| changed.binary_search(fence).is_ok());
    written::with_fences(tier, any_of) || PENDING.with_borrow(|pending| any_of(pending.ledger.fences()))
}

/// The keys of a place that the transaction has changed, some of them more than once. May raise errors.
pub fn own_keys(place: &Place) -> Vec<Vec<u8>> {
    let keys = PENDING.with_borrow(|pending| {
        let keys = pending.ledger.changes().iter().filter_map(|change| change.what.key());
        let mut found = Vec::new();
        for key in keys.filter(|key| key.place.scope.is(&place.scope)) {
            found.try_reserve(1)?;
            found.push(memory::try_copy(&key.bytes)?);
        }
        Ok(found)
    });
    keys.unwrap_or_else(|short: OutOfMemory| short.raise())
}

impl Pending {
    const NOTHING: Self = Self {
        ledger: Ledger::EMPTY,
        invalidated: Vec::new(),
        rights: Rights::NONE,
        commit: Commit::NONE,
        has_flushed: false,
    };

    /// Whether the transaction has never changed anything here, and its commit has not begun.
    #[inline]
    fn has_nothing(&self) -> bool {
        self.ledger.is_untouched() && self.rights.is_empty() && self.commit.is_none()
    }

    /// The relations that were invalidated by their names, without those of savepoints that were rolled back. May raise errors.
    fn invalidated_relations(&self) -> Vec<u32> {
        let stands = |(_, fence): &&(u32, FenceId)| self.ledger.fences().binary_search(fence).is_ok();
        memory::collect(self.invalidated.iter().filter(stands).map(|(number, _)| *number))
    }

    /// Raises their fences as they are by now. May raise errors.
    fn raise_invalidated(&mut self, tier: &HotTier) {
        if self.invalidated.is_empty() {
            return;
        }
        let relations = self.invalidated_relations();
        for look in 1..=LOOKS_MAX {
            let claims = tier.fences().claims();
            let fence = |number: &u32| match look {
                LOOKS_MAX => written::claimed_fence_of(tier, *number),
                _ => written::fence_of(tier, *number),
            };
            let fences = memory::collect(relations.iter().map(fence));
            self.commit.raise_more(tier, &fences);
            if tier.fences().claims() == claims {
                return;
            }
        }
    }

    /// Raises the fences of tables that other libraries wrote after the walk over our locks, and of trees that have grown since.
    fn raise_late(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let grows = self.commit.has_raised(written::trees(tier));
        written::late(tier, grows, |fence| self.commit.raise_late(tier, fence));
    }

    /// Every session can see what the transaction has changed, in tables and in catalogs.
    fn settled(&mut self) {
        self.commit.finish(self.ledger.changes());
        if !self.has_nothing() {
            let late = self.ledger.late();
            if !late.is_empty() {
                commit::catch_up(late);
            }
            self.ledger = Ledger::EMPTY;
            self.invalidated = Vec::new();
            std::mem::replace(&mut self.rights, Rights::NONE).committed();
            if std::mem::take(&mut self.has_flushed) {
                // Leases have ended, and of which keys is not known.
                queue::wake_all();
            }
        }
    }

    fn aborted(&mut self) {
        self.commit.take_back(self.ledger.changes());
        self.has_flushed = false;
        self.ledger = Ledger::EMPTY;
        self.invalidated = Vec::new();
        std::mem::replace(&mut self.rights, Rights::NONE).aborted();
    }
}
