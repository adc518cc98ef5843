//! What the transaction of this session holds write locks on, and so may have written.
//!
//! Every write takes a lock on its relation in a mode that only writers take, and holds it to the end of the transaction; a
//! savepoint that is rolled back gives its locks back. So the lock manager knows what a transaction has written, whatever way the
//! write took. Read here is what the server keeps of our own locks in shared memory:
//! - *fast-path slots* in our entry of the array of processes, for weak locks. We alone set them. Others may move one to the main
//!   table.
//! - *the main table*, a list for each of its partitions in our entry. We alone put locks there and take them away, but for those that
//!   others move, and for that on our own transaction, which is put there by who waits for its end.
//!
//! Whoever moves a lock of ours, or puts one there for us, does so while holding our `fpInfoLock` alone. So whoever shares it sees
//! both as they are, each lock in one of them.
//!
//! Other processes write to the entries of the array, to the lists and to the locks while we look at parts of them. So nothing here makes
//! a reference to any of them: words are read through pointers, those that another process may write to at that moment as volatile.
//!
//! A prepared transaction keeps its locks, in an entry of the same array that is no process's, and all in the main table; also one
//! that was prepared in an earlier life of the server.

#![allow(unsafe_code)]

use super::local::check_thread;
use super::memory;
use super::prepared;
use super::shared::{LWLockAcquire, LWLockRelease};
use pgrx::pg_sys;

/// Modes that a change of rows takes, as bits of the server's mask: ROW EXCLUSIVE, EXCLUSIVE and ACCESS EXCLUSIVE.
const WRITERS: i32 =
    1 << pg_sys::RowExclusiveLock | 1 << pg_sys::ExclusiveLock | 1 << pg_sys::AccessExclusiveLock;
/// The same, and that of a table which is given a child: another session does not see a child that a prepared transaction has created.
const WRITERS_AND_PARENTS: i32 = WRITERS | 1 << pg_sys::ShareUpdateExclusiveLock;
/// Bits of a fast-path slot, for modes from 1 on.
const BITS_PER_SLOT: u32 = 3;
const SLOTS_PER_WORD: usize = 16;
/// The table of large objects.
const LARGE_OBJECTS: u32 = 2613;
/// ROW EXCLUSIVE, which is the only one of them that slots are for, in each slot of a word.
const WRITERS_IN_SLOTS: u64 = in_each_slot(1 << (pg_sys::RowExclusiveLock - 1));

const fn in_each_slot(bits: u64) -> u64 {
    let (mut all, mut slot) = (0, 0);
    while slot < SLOTS_PER_WORD {
        all |= bits << (BITS_PER_SLOT as usize * slot);
        slot += 1;
    }
    all
}

/// Whether the transaction has changed anything in the database: whether others will see a difference when it commits. Until it
/// has committed; afterwards the answer is no.
#[inline]
pub fn has_written() -> bool {
    check_thread();
    // SAFETY: our own entry, if there is one. We write the transaction's number into it with the first change. At the end another process
    // may take it out for us, while we wait for that.
    unsafe {
        let process = pg_sys::MyProc;
        !process.is_null() && (&raw const (*process).xid).read_volatile() != pg_sys::InvalidTransactionId
    }
}

/// Calls with each relation of this database, or of all, that the transaction holds a write lock on: some of them twice. What is
/// called may look at nothing that takes a lock of the lock manager.
#[inline]
pub fn each_written(with: impl FnMut(u32)) {
    each_held(WRITERS, WRITERS_IN_SLOTS, with);
}

/// The same for locks in any mode: with each relation that the transaction has looked at.
pub fn each_seen(with: impl FnMut(u32)) {
    each_held(i32::MAX, in_each_slot((1 << BITS_PER_SLOT) - 1), with);
}

#[inline]
fn each_held(modes: i32, in_slots: u64, mut with: impl FnMut(u32)) {
    check_thread();
    // SAFETY: plain globals, constant in a session.
    let (process, database) = unsafe { (pg_sys::MyProc, pg_sys::MyDatabaseId.to_u32()) };
    if process.is_null() {
        return;
    }
    // SAFETY: our own entry, which stands as long as the session does. Its lock is held for a walk over what it guards; should `with`
    // panic, the abort of the transaction releases it. The transaction is not waiting for a lock, so that nobody grants it one meanwhile.
    unsafe {
        let lock = &raw mut (*process).fpInfoLock;
        LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        each_slot(process, in_slots, &mut with);
        each_list(process, |_, list| each_in_list(list, database, modes, &mut with));
        LWLockRelease(lock);
    }
}

/// Whether the transaction has looked at large objects: that takes the lock of a writer.
pub fn has_seen_large_objects() -> bool {
    let mut found = false;
    each_written(|number| found |= number == LARGE_OBJECTS);
    found
}

/// The prepared transactions of this database, and those that have ended or begin to be prepared: their ids, and the relations that
/// each has locked as a writer does, or as the parent of a new child.
pub fn of_prepared() -> Vec<(pg_sys::TransactionId, Vec<u32>)> {
    let mut found = Vec::new();
    check_thread();
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    for place in 0..prepared::limit() {
        // SAFETY: behind the entries of processes, which `allProcCount` counts, the array has one for each transaction that may be
        // prepared. Array and count are constant since the server started; the words of an entry are read as they are in this
        // moment. Whoever changes one of its lists holds the partition's lock.
        unsafe {
            let all = pg_sys::ProcGlobal;
            let entry = (*all).allProcs.add((*all).allProcCount as usize + place);
            let number = (&raw const (*entry).xid).read_volatile();
            let of_database = (&raw const (*entry).databaseId).read_volatile();
            if number == pg_sys::InvalidTransactionId || of_database != database {
                continue;
            }
            let mut relations = Vec::new();
            each_list(entry, |partition, list| {
                let place = pg_sys::LOCK_MANAGER_LWLOCK_OFFSET as usize + partition;
                let lock = &raw mut (*pg_sys::MainLWLockArray.add(place)).lock;
                LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
                let modes = WRITERS_AND_PARENTS;
                each_in_list(list, database.to_u32(), modes, &mut |relation| {
                    memory::push(&mut relations, relation);
                });
                LWLockRelease(lock);
            });
            memory::push(&mut found, (number, relations));
        }
    }
    found
}

/// Calls with the relations in the fast-path slots of an entry that are held in some modes.
///
/// # Safety
/// The entry's `fpInfoLock` is held, and the entry is our own: only we set slots.
#[cfg(not(feature = "pg18"))]
#[inline]
unsafe fn each_slot(process: *const pg_sys::PGPROC, modes: u64, with: &mut impl FnMut(u32)) {
    // SAFETY: as the caller promises. A word has a bit for each of so many slots.
    unsafe {
        let relations = (&raw const (*process).fpRelId).cast::<pg_sys::Oid>();
        each_in_slots((*process).fpLockBits & modes, |slot| with(relations.add(slot).read().to_u32()));
    }
}

/// Calls with the relations in the fast-path slots of an entry that are held in some modes.
///
/// # Safety
/// The entry's `fpInfoLock` is held, and the entry is our own: only we set slots.
#[cfg(feature = "pg18")]
#[inline]
unsafe fn each_slot(process: *const pg_sys::PGPROC, modes: u64, with: &mut impl FnMut(u32)) {
    // SAFETY: as the caller promises. The number of groups is constant since the server started; both arrays have so many.
    unsafe {
        for group in 0..pg_sys::FastPathLockGroupsPerBackend as usize {
            let relations = (*process).fpRelId.add(group * SLOTS_PER_WORD);
            let bits = (*process).fpLockBits.add(group).read();
            each_in_slots(bits & modes, |slot| with(relations.add(slot).read().to_u32()));
        }
    }
}

/// Calls with the slots of a word that have bits, with some of them more than once.
#[inline]
fn each_in_slots(mut held: u64, mut with: impl FnMut(usize)) {
    while held != 0 {
        with((held.trailing_zeros() / BITS_PER_SLOT) as usize);
        held &= held - 1;
    }
}

#[cfg(feature = "pg15")]
type Link = pg_sys::SHM_QUEUE;
#[cfg(not(feature = "pg15"))]
type Link = pg_sys::dlist_node;

/// Calls with the number of each partition of the lock table, and with the head of an entry's list of its locks there.
///
/// # Safety
/// The entry is one of the server's array.
#[inline]
unsafe fn each_list(process: *mut pg_sys::PGPROC, mut with: impl FnMut(usize, *const Link)) {
    for partition in 0..pg_sys::NUM_LOCK_PARTITIONS as usize {
        // SAFETY: an entry has a list for each partition. A list's head is a link, or begins with one.
        let head = unsafe { (&raw const (*process).myProcLocks).cast::<Link>().add(partition) };
        with(partition, head);
    }
}

/// Calls with the relations of a database, or of all, whose locks in a list are held in one of some modes.
///
/// # Safety
/// The list is one of an entry, and nobody can change it meanwhile.
#[inline]
unsafe fn each_in_list(head: *const Link, database: u32, modes: i32, with: &mut impl FnMut(u32)) {
    // SAFETY: a circular list of links inside of PROCLOCKs; one that was never used is a null pointer. A lock stands as long as a
    // PROCLOCK refers to it, and its tag is never written to.
    unsafe {
        let mut link: *const Link = (*head).next;
        while link != head && !link.is_null() {
            let held =
                link.byte_sub(std::mem::offset_of!(pg_sys::PROCLOCK, procLink)).cast::<pg_sys::PROCLOCK>();
            if (&raw const (*held).holdMask).read_volatile() & modes != 0 {
                let tag = (&raw const (*(*held).tag.myLock).tag).read();
                let is_ours = tag.locktag_field1 == database || tag.locktag_field1 == 0;
                if is_ours && tag.locktag_type == pg_sys::LockTagType::LOCKTAG_RELATION as u8 {
                    with(tag.locktag_field2);
                }
            }
            link = (*link).next;
        }
    }
}
