//! The pending changes of this session's transaction, and how they are committed or rolled back. Operations whose changes wait for
//! the commit record them here.
//!
//! The session collects its changes in its own memory, in order, and marks where the changes of each savepoint begin. The session
//! sees its own changes at once. Other sessions see them when the transaction commits:
//! - *before commit* does everything that can fail. It copies values to memory that no other session can see yet, and raises
//!   fences. If the transaction has also changed the database or invalidated anything, it announces the changed keys, because other
//!   sessions can see the commit before the server calls our callback;
//! - *settled* runs when the changed rows are visible and the catalog invalidations are sent. It lowers the fences and publishes
//!   the values, which is a bounded walk over plain memory. If the fences were lowered earlier, a session could compute a result
//!   with old catalogs and store it with a new stamp;
//! - *aborted* undoes everything after an abort of any kind.
//!
//! `prepared/` handles transactions that are prepared for a two-phase commit.
//!
//! While `PENDING` is borrowed, code must never report to the client or wait for a lock: the server may terminate the session at
//! such a point.
//!
//! A *fence* is a word in shared memory that says when something that values depend on last changed; while it is *raised*, no value
//! that depends on it is valid. A *stamp* is a number on the clock of changes. A relation that values depend on has a *record* with
//! fences of its own, which it *claims* when the first value depends on it (`core/fence/mod.rs`). A key is *announced* while its
//! value is hidden from all readers. The *ledger* is the list of the changes.
//!
//! A *lease* is the right to compute the value of a key; a session that runs a query has a *fill* instead. A *claim* on a key is
//! the right of a transaction to set a key that has no value. The *tier* is the cache in shared memory, and a *keyspace* the part
//! of it that holds the keys of one *space*, a named cache (`keyspace.rs`). The *journal* tells caches outside of the database what
//! has changed (`journal.rs`).

use super::change::{Action, JournalName, OwnKey, Value};
use super::commit::{self, Commit};
use super::held_leases::{self, HeldLeases};
use super::ledger::{Ledger, NotRecorded, OwnState};
use super::table_writes::{LOOKS_MAX, Look};
use super::{prepared, reported_rows, safe_stamp, table_writes};
use crate::pg::error::OrRaise;
use crate::pg::local::local;
use crate::pg::memory::{self, OutOfMemory};
use crate::pg::row_changes::Counters;
use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
use crate::pg::transaction_events::{self, Listener};
use crate::pg::{client_statement, locks, observer, queue, transaction};
use crate::store::keyspace::Keyspace;
use crate::store::status::{self, Status};
use pg_cache_core::{FenceId, Glob, Kind, Reserved};
use std::cell::RefCell;

/// The state that the session keeps for its transaction.
#[derive(Debug)]
struct Pending {
    /// The changes of the transaction.
    ledger: Ledger,
    /// The relations that were invalidated by name, each with its fence in the ledger. The commit looks up their fences again,
    /// because a relation may have been given a record (and so another fence) since.
    invalidated: Vec<(u32, FenceId)>,
    /// The leases and claims that the transaction holds.
    held_leases: HeldLeases,
    /// The steps of the commit that is under way.
    commit: Commit,
    /// Whether the transaction has flushed a space or the database, perhaps in a savepoint that was rolled back.
    has_flushed: bool,
}

local! {
    static PENDING: RefCell<Pending> = RefCell::new(Pending::NOTHING);
}

/// Receives the transaction events of this session. [`Listener`] says when each method is called.
enum TransactionEvents {}

/// Registers for the server's transaction events. Must be called while the server loads the library.
pub fn listen() {
    transaction_events::listen::<TransactionEvents>();
}

impl Listener for TransactionEvents {
    #[inline]
    fn has_nothing() -> bool {
        // A session that has not attached the tier (the cache) must do so before its first commit. Another library may write after
        // this callback, and then it is too late to attach.
        !shared::is_tier_to_be_found()
            && PENDING.try_borrow().is_ok_and(|pending| pending.has_nothing())
            && prepared::has_nothing()
    }

    fn over() {
        table_writes::end();
        reported_rows::end();
        observer::over();
        client_statement::over();
        safe_stamp::end();
    }

    fn before_commit(counters: Option<Counters>) {
        let Some(tier) = shared::tier() else { return };
        // Calls that can raise an error come first, while no RefCell is borrowed: the error unwinds past this frame.
        let keeps_nothing = PENDING.with_borrow(Pending::has_nothing);
        let command_id = if keeps_nothing { 0 } else { transaction::next_command_id() };
        prepared::before_commit(locks::has_written());
        table_writes::before_commit(tier, counters, |written| {
            PENDING.with_borrow_mut(|Pending { ledger, commit, .. }| {
                commit.begin(ledger, written, command_id);
                ledger.begin();
            });
        });
        // A relation may have claimed a record after its fence was looked up. An entry may then depend on that record's fence
        // alone. So the commit looks again until no relation has claimed one meanwhile. The number of looks is limited: the last
        // look claims a record for each relation.
        let mut looks = 0;
        while let Some(fences) = table_writes::fences_claimed_meanwhile(tier) {
            looks += 1;
            let is_enough = looks == LOOKS_MAX;
            let fences = if is_enough { table_writes::claim_all(tier) } else { fences };
            PENDING.with_borrow_mut(|pending| pending.commit.raise_more(tier, &fences));
            if is_enough {
                break;
            }
        }
        PENDING.with_borrow_mut(|pending| pending.raise_invalidated(tier));
    }

    fn before_prepare() {
        let Some(tier) = shared::tier() else { return };
        let unchanged = table_writes::before_prepare(tier);
        let summary = PENDING.with_borrow(|pending| pending.ledger.summary());
        let (mut fences, marks) = summary.or_raise();
        let invalidated = PENDING.with_borrow(Pending::invalidated_relations);
        memory::reserve(&mut fences, 2 * invalidated.len());
        fences.extend(invalidated.into_iter().flat_map(|oid| Look::Final.fences(tier, oid)));
        prepared::record(fences, marks, &unchanged).or_raise();
    }

    fn prepared() {
        prepared::mark_prepared();
        PENDING.with_borrow_mut(|pending| {
            pending.held_leases.hand_over_leases();
            pending.aborted();
        });
    }

    fn committed() {
        PENDING.with_borrow_mut(|pending| {
            if transaction::has_xid() {
                pending.raise_late();
            }
            // The rule is that fences are lowered in `settled` only. Some tests break it on purpose.
            if settings::broken() == Broken::Early {
                pending.settled();
            }
        });
    }

    fn settled() {
        PENDING.with_borrow_mut(Pending::settled);
        prepared::clean_up();
    }

    fn aborted() {
        prepared::clean_up();
        PENDING.with_borrow_mut(Pending::aborted);
    }

    fn undone() {
        status::forget();
        client_statement::undone();
    }

    fn released(depth: i32) {
        PENDING.with_borrow_mut(|pending| {
            pending.ledger.released(depth);
            pending.held_leases.released(depth);
        });
        reported_rows::released(depth);
    }

    fn rolled_back(depth: i32) {
        PENDING.with_borrow_mut(|pending| {
            pending.ledger.rolled_back(depth);
            pending.held_leases.rolled_back(depth);
        });
        reported_rows::rolled_back(depth);
    }
}

/// Does what a commit does for the tables that the transaction has written, and undoes it: raises the fences and withdraws them.
/// Entries that depend on these tables stay valid. The transaction's changes in the cache are left out. If `afresh` is set, the
/// session first forgets which relations it found at earlier looks. May raise errors, before any fence is raised.
#[cfg(feature = "measure")]
pub fn rehearse(afresh: bool) {
    let Some(tier) = shared::tier() else { return };
    if afresh {
        table_writes::forget();
    }
    let mut tables_alone = Pending::NOTHING;
    let counters = table_writes::find_counters();
    table_writes::before_commit(tier, counters, |written| {
        tables_alone.commit.begin(&Ledger::EMPTY, written, 0);
    });
    tables_alone.raise_late();
    tables_alone.aborted();
}

/// Returns whether the transaction has changed nothing so far.
#[inline]
pub fn is_empty() -> bool {
    !locks::has_written() && PENDING.with_borrow(|pending| pending.ledger.is_empty())
}

/// Calls `read` with the transaction's own state of a key and with the fences of everything that the transaction has changed,
/// sorted. May raise errors before the call. `PENDING` is borrowed during the call, so `read` must keep the rule at the head of
/// this file.
pub fn with_own<R>(
    keyspace: &Keyspace,
    key: &[u8],
    hash: u64,
    read: impl FnOnce(OwnState<'_>, &[FenceId]) -> R,
) -> R {
    if locks::has_written() {
        return with_own_written(keyspace, key, hash, read);
    }
    PENDING.with_borrow(|pending| {
        let own = if pending.ledger.is_empty() {
            OwnState::Nothing
        } else {
            pending.ledger.own(keyspace, key, hash, &[])
        };
        read(own, pending.ledger.fences())
    })
}

/// Does the same as [`with_own`] in a transaction that has written to tables.
#[cold]
fn with_own_written<R>(
    keyspace: &Keyspace,
    key: &[u8],
    hash: u64,
    read: impl FnOnce(OwnState<'_>, &[FenceId]) -> R,
) -> R {
    // Must come before the borrow below: it may wait for a lock, and the session may be terminated there.
    let mut changed = table_writes::with_fences(keyspace.tier, memory::copy::<FenceId>);
    memory::reserve(&mut changed, PENDING.with_borrow(|pending| pending.ledger.fences().len()));
    PENDING.with_borrow(|pending| {
        let own = pending.ledger.own(keyspace, key, hash, &changed);
        changed.extend(pending.ledger.fences());
        changed.sort_unstable();
        read(own, &changed)
    })
}

/// Records that the transaction has set a key. If that fails and the value would have replaced another one, the caller must remove
/// the previous value: it is outdated.
pub fn set(key: OwnKey, value: Value) -> Result<(), NotRecorded> {
    // The commit will look up the key's bucket and its saved value. These words are probably out of the CPU's caches, so they are
    // prefetched here.
    key.key().into_iter().for_each(|name| key.keyspace.tier.prefetch_for_change(name.mark()));
    PENDING.with_borrow_mut(|pending| pending.ledger.add_if_it_fits(Action::Set(key, value)))
}

/// Records that the transaction has removed a key. If that fails and the key may have a value, the caller must invalidate its
/// space.
pub fn remove(keyspace: &Keyspace, key: &[u8]) -> Result<(), NotRecorded> {
    let key = OwnKey::new(*keyspace, key)?;
    PENDING.with_borrow_mut(|pending| pending.ledger.add_if_it_fits(Action::Remove(key)))
}

/// Records that the transaction has given a key another time to live, which ends at the tick `expires`. If that fails, the old one
/// stays.
pub fn touch(key: OwnKey, expires: u32) -> Result<(), NotRecorded> {
    PENDING.with_borrow_mut(|pending| {
        let touched = match pending.ledger.latest_set(&key) {
            Some(value) => Action::Set(key, Value { expires, ..value.try_copy()? }),
            None => Action::Touch(key, expires),
        };
        pending.ledger.add_if_it_fits(touched)
    })
}

/// Replaces a value that the transaction has set by a counter with this number. The time to live and the dependencies stay. Does
/// nothing if the latest change of the key did not set it.
pub fn replace_by_counter(key: OwnKey, number: i64) -> Result<(), NotRecorded> {
    PENDING.with_borrow_mut(|pending| {
        let Some(value) = pending.ledger.latest_set(&key) else { return Ok(()) };
        let bytes = memory::try_copy(&number.to_ne_bytes())?.into_boxed_slice();
        let counter = Value { bytes, kind: Kind::COUNTER, ..value.try_copy()? };
        pending.ledger.add_if_it_fits(Action::Set(key, counter))
    })
}

/// Reserves memory for one lease or claim. The error says why that failed: the transaction holds too many leases, or there is no
/// memory.
pub fn make_room_for_lease() -> Result<(), Status> {
    PENDING.with_borrow_mut(|pending| pending.held_leases.make_room())
}

/// Records a lease or a claim. The caller must have made room for it.
pub fn hold(key: OwnKey, number: u64, kind: held_leases::Kind) {
    PENDING.with_borrow_mut(|pending| pending.held_leases.add(key, number, kind, transaction::depth()));
}

/// Returns whether this transaction has acquired the lease or the fill, or made the claim, with this number.
pub fn holds(number: u64) -> bool {
    let kinds = [held_leases::Kind::Lease, held_leases::Kind::Fill, held_leases::Kind::Claim];
    PENDING.with_borrow(|pending| kinds.into_iter().any(|kind| pending.held_leases.has(number, kind)))
}

/// Returns whether this transaction computes a value for others.
pub fn has_fill() -> bool {
    PENDING.with_borrow(|pending| pending.held_leases.has_fill())
}

/// Forgets a lease or a fill that has ended.
pub fn forget(number: u64, kind: held_leases::Kind) {
    PENDING.with_borrow_mut(|pending| pending.held_leases.forget(number, kind));
}

/// Records that the transaction has invalidated everything that depends on a fence. Raises an error if there is no memory,
/// because leaving out an invalidation would leave wrong values in the cache.
pub fn invalidate(keyspace: &Keyspace, fence: FenceId, named: JournalName) {
    let invalidated = PENDING.with_borrow_mut(|pending| {
        pending.has_flushed |= keyspace.fences.contains(&fence);
        pending.ledger.invalidate(keyspace, fence, named)
    });
    invalidated.unwrap_or_else(|_| OutOfMemory.raise());
}

/// Records that the transaction has invalidated everything in the space of a keyspace. May raise errors.
pub fn invalidate_space(keyspace: &Keyspace) {
    invalidate(keyspace, keyspace.own_fence(), JournalName::Space(keyspace.scope.space()));
}

/// Records that the transaction has invalidated the keys of a keyspace that a pattern matches. May raise errors.
pub fn invalidate_pattern(keyspace: &Keyspace, pattern: Glob<'_>) {
    let bytes = memory::try_copy(pattern.bytes()).or_raise().into_boxed_slice();
    let invalidated = PENDING.with_borrow_mut(|pending| pending.ledger.invalidate_pattern(keyspace, bytes));
    invalidated.unwrap_or_else(|_| OutOfMemory.raise());
}

/// Records that the journal must say that everything in the space of a keyspace has changed, although no entry is invalidated. May
/// raise errors.
pub fn note_space_in_journal(keyspace: &Keyspace) {
    let fence = keyspace.tier.fences().reserved(Reserved::Grants(shared::database()));
    invalidate_exactly(fence, JournalName::Space(keyspace.scope.space()));
}

/// Records that the transaction has invalidated everything in the database. May raise errors.
pub fn invalidate_database(keyspace: &Keyspace) {
    invalidate(keyspace, keyspace.fences[0], JournalName::Database(shared::database()));
}

/// Records that the transaction has invalidated everything that depends on a relation, or on a table above it in an inheritance
/// tree. May raise errors.
pub fn invalidate_relation(keyspace: &Keyspace, relation: u32) {
    let fences = table_writes::fences_of_relation(keyspace.tier, relation);
    PENDING.with_borrow_mut(|pending| {
        for (oid, fence) in fences {
            let invalidated = pending.ledger.invalidate(keyspace, fence, JournalName::Relation);
            invalidated.unwrap_or_else(|_| OutOfMemory.raise());
            if !pending.invalidated.contains(&(oid, fence)) {
                memory::push(&mut pending.invalidated, (oid, fence));
            }
        }
    });
}

/// Records the invalidation of a fence that the ledger must never replace by the fence of the database, as [`invalidate`] does if
/// the transaction has invalidated too many fences. The fence of roles is one, because results in all databases depend on it. May
/// raise errors.
pub fn invalidate_exactly(fence: FenceId, named: JournalName) {
    let action = Action::Invalidate(fence, named);
    let invalidated = PENDING.with_borrow_mut(|pending| pending.ledger.add(action));
    invalidated.unwrap_or_else(|_| OutOfMemory.raise());
}

/// Records the invalidation of a fence, unless the transaction has invalidated too many already. Returns whether it has recorded
/// it: if not, the caller must record another one that stands for it. May raise errors.
pub fn invalidate_if_few(fence: FenceId, named: JournalName) -> bool {
    let has_room = PENDING.with_borrow(|pending| pending.ledger.has_room_for(fence));
    if has_room {
        invalidate_exactly(fence, named);
    }
    has_room
}

/// Records that the transaction changes the privileges of roles in the spaces of a database, or of all databases if `database` is
/// 0. The journal does not tell a role of changes that the role may not see. So when a role gets a privilege again, a cache that
/// follows the journal as this role must have forgotten everything. May raise errors.
pub fn privileges_changed(database: u32) {
    if let Some(tier) = shared::tier() {
        let fence = tier.fences().reserved(Reserved::Grants(shared::database()));
        invalidate_exactly(fence, JournalName::Privileges(database));
    }
}

/// Returns whether the transaction has changed any of these fences. May raise errors.
pub fn has_changed(tier: &HotTier, fences: &[FenceId]) -> bool {
    let any_of = |changed: &[FenceId]| fences.iter().any(|fence| changed.binary_search(fence).is_ok());
    table_writes::with_fences(tier, any_of) || PENDING.with_borrow(|pending| any_of(pending.ledger.fences()))
}

/// Returns the keys of a keyspace that the transaction has changed. A key may occur more than once. May raise errors.
pub fn own_keys(keyspace: &Keyspace) -> Vec<Vec<u8>> {
    let copied = PENDING.with_borrow(|pending| -> Result<_, OutOfMemory> {
        let keys = pending.ledger.changes().iter().filter_map(|change| change.action.key());
        let mut found = Vec::new();
        for key in keys.filter(|key| key.keyspace.scope.is(&keyspace.scope)) {
            found.try_reserve(1)?;
            found.push(memory::try_copy(&key.bytes)?);
        }
        Ok(found)
    });
    copied.or_raise()
}

impl Pending {
    const NOTHING: Self = Self {
        ledger: Ledger::EMPTY,
        invalidated: Vec::new(),
        held_leases: HeldLeases::NONE,
        commit: Commit::NONE,
        has_flushed: false,
    };

    /// Returns whether the transaction has never changed anything in the cache, and its commit has not begun.
    #[inline]
    fn has_nothing(&self) -> bool {
        self.ledger.is_untouched() && self.held_leases.is_empty() && self.commit.is_none()
    }

    /// Returns the relations that were invalidated by name, without those of savepoints that were rolled back. May raise errors.
    fn invalidated_relations(&self) -> Vec<u32> {
        let stands = |(_, fence): &&(u32, FenceId)| self.ledger.fences().binary_search(fence).is_ok();
        memory::collect(self.invalidated.iter().filter(stands).map(|(oid, _)| *oid))
    }

    /// Raises the current fences of the relations that were invalidated by name. Looks them up again while relations claim records,
    /// as `before_commit` does. May raise errors.
    fn raise_invalidated(&mut self, tier: &HotTier) {
        if self.invalidated.is_empty() {
            return;
        }
        let relations = self.invalidated_relations();
        for look in 1..=LOOKS_MAX {
            let claims = tier.fences().claim_count();
            let look = Look::of_number(look);
            let fences = memory::collect(relations.iter().flat_map(|oid| look.fences(tier, *oid)));
            self.commit.raise_more(tier, &fences);
            if tier.fences().claim_count() == claims {
                return;
            }
        }
    }

    /// Raises the fences of tables that other libraries wrote after the walk over the transaction's locks, and the fence of
    /// inheritance trees if a tree has grown since.
    fn raise_late(&mut self) {
        let Some(tier) = shared::tier() else { return };
        let trees = table_writes::trees::fence(tier);
        let known = table_writes::each_late_fence(tier, |fence| self.commit.raise_late(tier, fence));
        let grows = || self.commit.has_raised(trees);
        if known.is_some_and(|since| table_writes::trees::have_grown(tier, since, grows())) {
            self.commit.raise_late(tier, trees);
        }
    }

    /// Lowers the fences and publishes the changes. Every session can already see what the transaction has changed, in tables and
    /// in catalogs.
    fn settled(&mut self) {
        self.commit.finish(&self.ledger);
        if !self.has_nothing() {
            // Changes in the cache that other callbacks of this commit have made after `before_commit`. (`raise_late` is about late
            // writes to tables.)
            let (late, patterns) = (self.ledger.late(), self.ledger.patterns().late());
            if !late.is_empty() || !patterns.is_empty() {
                commit::catch_up(late, patterns);
            }
            self.ledger.clear();
            self.invalidated = Vec::new();
            std::mem::replace(&mut self.held_leases, HeldLeases::NONE).committed();
            if std::mem::take(&mut self.has_flushed) {
                // The flush has ended leases, and their keys are unknown here, so all waiting sessions are woken.
                queue::wake_all();
            }
        }
    }

    /// Undoes the commit as far as it has begun, and forgets all changes.
    fn aborted(&mut self) {
        self.commit.take_back(self.ledger.changes());
        self.has_flushed = false;
        self.ledger.clear();
        self.invalidated = Vec::new();
        std::mem::replace(&mut self.held_leases, HeldLeases::NONE).aborted();
    }
}
