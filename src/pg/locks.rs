//! Reads the locks that this session's transaction holds. Its write locks show which relations it may have written: at the commit,
//! `store/transaction/table_writes/` invalidates the values that depend on these.
//!
//! Every write locks its relation in a mode that no mere reader takes. The transaction holds the lock until it ends, except on most
//! system catalogs (`relation.rs`). Rolling back a savepoint releases the savepoint's locks. So the lock manager knows what a
//! transaction has written, however it wrote. The server keeps the locks of a backend in two places in shared memory:
//! - *fast-path slots* in the backend's entry of the process array (PGPROC), for weak locks. Only the backend itself sets its
//!   slots. Other processes may move a lock from a slot to the main table.
//! - *the main lock table*. The backend's PGPROC has a list of its locks for each partition of the table. Only the backend itself
//!   adds and removes locks there, with two exceptions: locks that other processes move there from a slot, and the lock on the
//!   backend's own virtual transaction id, which a process that waits for the transaction's end puts there.
//!
//! A process that moves a lock of another backend, or adds one for it, must hold that backend's `fpInfoLock` exclusively. A reader
//! that holds `fpInfoLock` in shared mode therefore sees a consistent state, with each lock in exactly one place.
//!
//! Other processes write to PGPROC entries, lists and locks while this code reads parts of them. So this code must never make a
//! reference to any of them: it reads words through pointers, and reads words that another process may write at that moment as
//! volatile.
//!
//! A prepared transaction keeps its locks in an entry of the same array that belongs to no process, and all of them in the main
//! table. The same holds for a transaction that was prepared before the server was last restarted.

#![allow(unsafe_code)]

use super::local::check_thread;
use super::memory;
use super::prepared;
use super::shared::{LWLockAcquire, LWLockRelease};
use pgrx::pg_sys;

/// Lock modes that a change of rows takes, as bits of the server's mask: ROW EXCLUSIVE, EXCLUSIVE and ACCESS EXCLUSIVE.
const WRITERS: i32 =
    1 << pg_sys::RowExclusiveLock | 1 << pg_sys::ExclusiveLock | 1 << pg_sys::AccessExclusiveLock;
/// The same modes, and the mode in which a table is locked when it gets a child (SHARE UPDATE EXCLUSIVE). Other sessions do not see
/// a child that a prepared transaction has created, so only the lock on the parent tells them that rows below it may have changed.
const WRITERS_AND_PARENTS: i32 = WRITERS | 1 << pg_sys::ShareUpdateExclusiveLock;
/// The modes of a writer that are stronger than ROW EXCLUSIVE. A command that takes them may change a relation in ways that are not
/// counted as changes of rows (`row_changes.rs`).
const STRONG_WRITERS: i32 = 1 << pg_sys::ExclusiveLock | 1 << pg_sys::AccessExclusiveLock;
/// The modes of [`WRITERS_AND_PARENTS`] except ROW EXCLUSIVE.
const STRONG_OR_PARENTS: i32 = WRITERS_AND_PARENTS & !(1 << pg_sys::RowExclusiveLock);
/// Bits of a fast-path slot: one for each of the lock modes 1 to 3 (ACCESS SHARE, ROW SHARE, ROW EXCLUSIVE).
const BITS_PER_SLOT: u32 = 3;
/// The slots whose bits the server keeps in one word of 64 bits.
const SLOTS_PER_WORD: usize = 16;
/// `pg_largeobject`, the catalog of large objects.
const LARGE_OBJECTS: u32 = 2613;
/// The bit for ROW EXCLUSIVE, in each slot of a word. It is the only writer mode that slots can hold.
const WRITERS_IN_SLOTS: u64 = in_each_slot(1 << (pg_sys::RowExclusiveLock - 1));

/// Returns a word that has these bits in each slot.
const fn in_each_slot(bits: u64) -> u64 {
    let (mut all, mut slot) = (0, 0);
    while slot < SLOTS_PER_WORD {
        all |= bits << (BITS_PER_SLOT as usize * slot);
        slot += 1;
    }
    all
}

/// A write lock of the transaction on a relation. Locks are sorted by the relation's OID, and the stronger lock on a relation comes
/// first. One word holds both, so that comparing is cheap.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct WriteLock(u64);

impl WriteLock {
    #[inline]
    fn new(relation: u32, is_weak: bool) -> Self {
        Self(u64::from(relation) << 1 | u64::from(is_weak))
    }

    /// Returns the OID of the relation.
    #[inline]
    pub fn relation(self) -> u32 {
        (self.0 >> 1) as u32
    }

    /// Returns whether the mode is ROW EXCLUSIVE, the weakest mode of a writer.
    #[inline]
    pub fn is_weak(self) -> bool {
        self.0 & 1 == 1
    }
}

/// Returns whether the transaction has a transaction id, which the server assigns with its first change of the database. Only
/// meaningful until the transaction has committed: afterwards the answer is no.
#[inline]
pub fn has_written() -> bool {
    check_thread();
    // SAFETY: reads our own PGPROC, if there is one. We write the transaction id into it with the first change. At the end of the
    // transaction another process may clear it for us while we wait for that.
    unsafe {
        let process = pg_sys::MyProc;
        !process.is_null() && (&raw const (*process).xid).read_volatile() != pg_sys::InvalidTransactionId
    }
}

/// Calls `with` for each write lock of the transaction on a relation of this database or on a shared relation. A relation may come
/// twice. `with` must not take any lock of the lock manager.
#[inline]
pub fn each_written(mut with: impl FnMut(WriteLock)) {
    each_held(WRITERS, WRITERS_IN_SLOTS, |oid, modes| with(WriteLock::new(oid, modes & STRONG_WRITERS == 0)));
}

/// Returns whether [`each_written`] would pass exactly these locks, in this order. Cannot fail.
#[inline]
pub fn are_written(locks: &[WriteLock]) -> bool {
    let (mut are_same, mut rest) = (true, locks.iter());
    each_written(|lock| are_same &= rest.next() == Some(&lock));
    are_same && rest.len() == 0
}

/// Like [`each_written`], for locks in any mode: calls `with` for each relation that the transaction has accessed and still holds a
/// lock on. A relation may come several times.
pub fn each_seen(mut with: impl FnMut(u32)) {
    each_held(i32::MAX, in_each_slot((1 << BITS_PER_SLOT) - 1), |oid, _| with(oid));
}

/// Calls `with` for each relation that the transaction holds a lock on in one of the modes, with the modes that it holds. `modes`
/// is a mask of the main lock table, and `in_slots` the same mask for a word of fast-path slots. For a relation in a slot, `with`
/// gets 0 as the modes: slots never hold a mode that is stronger than ROW EXCLUSIVE.
#[inline]
fn each_held(modes: i32, in_slots: u64, mut with: impl FnMut(u32, i32)) {
    check_thread();
    // SAFETY: plain globals, constant in a session.
    let (process, database) = unsafe { (pg_sys::MyProc, pg_sys::MyDatabaseId.to_u32()) };
    if process.is_null() {
        return;
    }
    // SAFETY: our own PGPROC exists as long as the session does. `fpInfoLock` is held while we read what it guards; if `with`
    // panics, the abort of the transaction releases it. The transaction is not waiting for a lock, so no other process grants it
    // one meanwhile.
    unsafe {
        let lock = &raw mut (*process).fpInfoLock;
        LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        each_slot(process, in_slots, &mut |oid| with(oid, 0));
        each_list(process, |_, list| each_in_list(list, database, modes, &mut with));
        LWLockRelease(lock);
    }
}

/// Returns whether the transaction has accessed large objects. Every access to them takes the lock of a writer.
pub fn has_seen_large_objects() -> bool {
    let mut found = false;
    each_written(|lock| found |= lock.relation() == LARGE_OBJECTS);
    found
}

/// Returns the prepared transactions of this database, with their transaction ids and the relations that each has locked as a
/// writer or as the parent of a new child. Here, a lock is weak if ROW EXCLUSIVE is its only mode of these. The list may include
/// transactions that have just ended or are just being prepared.
pub fn of_prepared() -> Vec<(pg_sys::TransactionId, Vec<WriteLock>)> {
    let mut found = Vec::new();
    check_thread();
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    for slot in 0..prepared::limit() {
        // SAFETY: behind the entries of processes, which `allProcCount` counts, the array has one entry for each transaction that
        // may be prepared. Array and count never change while the server runs. The words of an entry are read as they are at this
        // moment. A process that changes one of the entry's lists must hold the lock of that partition.
        unsafe {
            let all = pg_sys::ProcGlobal;
            let entry = (*all).allProcs.add((*all).allProcCount as usize + slot);
            let xid = (&raw const (*entry).xid).read_volatile();
            let of_database = (&raw const (*entry).databaseId).read_volatile();
            if xid == pg_sys::InvalidTransactionId || of_database != database {
                continue;
            }
            let mut relations = Vec::new();
            each_list(entry, |partition, list| {
                let index = pg_sys::LOCK_MANAGER_LWLOCK_OFFSET as usize + partition;
                let lock = &raw mut (*pg_sys::MainLWLockArray.add(index)).lock;
                LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
                let modes = WRITERS_AND_PARENTS;
                each_in_list(list, database.to_u32(), modes, &mut |oid, held| {
                    memory::push(&mut relations, WriteLock::new(oid, held & STRONG_OR_PARENTS == 0));
                });
                LWLockRelease(lock);
            });
            memory::push(&mut found, (xid, relations));
        }
    }
    found
}

/// Calls `with` for each relation in the fast-path slots of an entry that is locked in one of the modes.
///
/// # Safety
/// The entry's `fpInfoLock` must be held, and the entry must be our own: only we set its slots.
#[cfg(not(feature = "pg18"))]
#[inline]
unsafe fn each_slot(process: *const pg_sys::PGPROC, modes: u64, with: &mut impl FnMut(u32)) {
    // SAFETY: as the caller promises. A word has bits for `SLOTS_PER_WORD` slots, and `fpRelId` has an element for each slot.
    unsafe {
        let relations = (&raw const (*process).fpRelId).cast::<pg_sys::Oid>();
        each_in_slots((*process).fpLockBits & modes, |slot| with(relations.add(slot).read().to_u32()));
    }
}

/// Calls `with` for each relation in the fast-path slots of an entry that is locked in one of the modes.
///
/// # Safety
/// The entry's `fpInfoLock` must be held, and the entry must be our own: only we set its slots.
#[cfg(feature = "pg18")]
#[inline]
unsafe fn each_slot(process: *const pg_sys::PGPROC, modes: u64, with: &mut impl FnMut(u32)) {
    // SAFETY: as the caller promises. The number of groups never changes while the server runs; both arrays have an element for
    // each group or slot.
    unsafe {
        for group in 0..pg_sys::FastPathLockGroupsPerBackend as usize {
            let relations = (*process).fpRelId.add(group * SLOTS_PER_WORD);
            let bits = (*process).fpLockBits.add(group).read();
            each_in_slots(bits & modes, |slot| with(relations.add(slot).read().to_u32()));
        }
    }
}

/// Calls `with` for each slot of a word that has a bit set; more than once for a slot with several bits.
#[inline]
fn each_in_slots(mut held: u64, mut with: impl FnMut(usize)) {
    while held != 0 {
        with((held.trailing_zeros() / BITS_PER_SLOT) as usize);
        held &= held - 1;
    }
}

/// A link in a list of locks.
#[cfg(feature = "pg15")]
type Link = pg_sys::SHM_QUEUE;
/// A link in a list of locks.
#[cfg(not(feature = "pg15"))]
type Link = pg_sys::dlist_node;

/// Calls `with` for each partition of the lock table: with its index, and the head of the entry's list of locks in it.
///
/// # Safety
/// The entry must be one of the server's process array.
#[inline]
unsafe fn each_list(process: *mut pg_sys::PGPROC, mut with: impl FnMut(usize, *const Link)) {
    for partition in 0..pg_sys::NUM_LOCK_PARTITIONS as usize {
        // SAFETY: an entry has a list for each partition. A list's head is a link, or begins with one.
        let head = unsafe { (&raw const (*process).myProcLocks).cast::<Link>().add(partition) };
        with(partition, head);
    }
}

/// Calls `with` for each relation of a database, and each shared relation, that a list holds a lock on in one of the modes, with
/// the modes that it holds.
///
/// # Safety
/// The list must be one of an entry of the process array, and no process may change it during the call.
#[inline]
unsafe fn each_in_list(head: *const Link, database: u32, modes: i32, with: &mut impl FnMut(u32, i32)) {
    // SAFETY: a list always has a head. A list without locks refers to its head only.
    unsafe {
        if (*head).next.cast_const() != head {
            each_in_used_list(head, database, modes, with);
        }
    }
}

/// Does the same for a list that is not empty, or was never used. A separate function, because most lists are empty, and each walk
/// looks at all of them.
///
/// # Safety
/// As for [`each_in_list`].
#[inline(never)]
unsafe fn each_in_used_list(head: *const Link, database: u32, modes: i32, with: &mut impl FnMut(u32, i32)) {
    // SAFETY: a circular list of links inside of PROCLOCKs; a list that was never used has a null pointer. A LOCK exists as long as
    // a PROCLOCK refers to it, and its tag is never changed meanwhile.
    unsafe {
        let mut link: *const Link = (*head).next;
        while link != head && !link.is_null() {
            let held =
                link.byte_sub(std::mem::offset_of!(pg_sys::PROCLOCK, procLink)).cast::<pg_sys::PROCLOCK>();
            let mask = (&raw const (*held).holdMask).read_volatile();
            if mask & modes != 0 {
                let tag = (&raw const (*(*held).tag.myLock).tag).read();
                let is_ours = tag.locktag_field1 == database || tag.locktag_field1 == 0;
                if is_ours && tag.locktag_type == pg_sys::LockTagType::LOCKTAG_RELATION as u8 {
                    with(tag.locktag_field2, mask);
                }
            }
            link = (*link).next;
        }
    }
}
