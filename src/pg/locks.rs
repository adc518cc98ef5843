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
//! A prepared transaction keeps its locks, in an entry of the same array that is no process's, and all in the main table; also one
//! that was prepared in an earlier life of the server.

#![allow(unsafe_code)]

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
const WRITERS_IN_SLOTS: u64 = {
    let (mut all, mut slot) = (0, 0);
    while slot < SLOTS_PER_WORD {
        all |= 1 << (pg_sys::RowExclusiveLock - 1) << (BITS_PER_SLOT as usize * slot);
        slot += 1;
    }
    all
};

/// Whether the transaction has changed anything in the database: whether others will see a difference when it commits. Until it
/// has committed; afterwards the answer is no.
#[inline]
pub fn has_written() -> bool {
    // SAFETY: our own entry, if there is one, in which only we change this word: it gets the transaction's number with the first
    // change, and loses it when others can see it.
    unsafe { !pg_sys::MyProc.is_null() && (*pg_sys::MyProc).xid != pg_sys::InvalidTransactionId }
}

/// Calls with each relation of this database, or of all, that the transaction holds a write lock on: some of them twice. What is
/// called may look at nothing that takes a lock of the lock manager.
#[inline]
pub fn each_written(mut with: impl FnMut(u32)) {
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    // SAFETY: our own entry, which stands as long as the session does. Its lock is held for a walk over what it guards, and nothing
    // that could fail happens meanwhile.
    unsafe {
        let process = &mut *pg_sys::MyProc;
        LWLockAcquire(&raw mut process.fpInfoLock, pg_sys::LWLockMode::LW_SHARED);
        each_slot(process, &mut with);
        for list in &mut process.myProcLocks {
            each_in_list(head(list), database, WRITERS, &mut with);
        }
        LWLockRelease(&raw mut process.fpInfoLock);
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
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    for place in 0..prepared::limit() {
        // SAFETY: behind the entries of processes the array has one for each transaction that may be prepared. They stand as long as
        // the server does; the words are read as they are in this moment. Whoever changes one of its lists holds the partition's lock.
        unsafe {
            let all = &*pg_sys::ProcGlobal;
            let entry = all.allProcs.add(all.allProcCount as usize + place);
            let number = std::ptr::read_volatile(&raw const (*entry).xid);
            if number == pg_sys::InvalidTransactionId || (*entry).databaseId != database {
                continue;
            }
            let mut relations = Vec::new();
            for (partition, list) in (*entry).myProcLocks.iter_mut().enumerate() {
                let place = pg_sys::LOCK_MANAGER_LWLOCK_OFFSET as usize + partition;
                let lock = &raw mut (*pg_sys::MainLWLockArray.add(place)).lock;
                LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
                let modes = WRITERS_AND_PARENTS;
                each_in_list(head(list), database.to_u32(), modes, &mut |relation| {
                    memory::push(&mut relations, relation);
                });
                LWLockRelease(lock);
            }
            memory::push(&mut found, (number, relations));
        }
    }
    found
}

#[cfg(not(feature = "pg18"))]
#[inline]
fn each_slot(process: &pg_sys::PGPROC, with: &mut impl FnMut(u32)) {
    each_in_slots(process.fpLockBits, |slot| with(process.fpRelId[slot].to_u32()));
}

#[cfg(feature = "pg18")]
#[inline]
fn each_slot(process: &pg_sys::PGPROC, with: &mut impl FnMut(u32)) {
    // SAFETY: a plain global, constant since the server started; both arrays have so many groups of slots.
    unsafe {
        for group in 0..pg_sys::FastPathLockGroupsPerBackend as usize {
            let relations = process.fpRelId.add(group * SLOTS_PER_WORD);
            each_in_slots(*process.fpLockBits.add(group), |slot| with((*relations.add(slot)).to_u32()));
        }
    }
}

/// Calls with the slots of a word that are held in a writer's mode.
#[inline]
fn each_in_slots(bits: u64, mut with: impl FnMut(usize)) {
    let mut held = bits & WRITERS_IN_SLOTS;
    while held != 0 {
        with((held.trailing_zeros() / BITS_PER_SLOT) as usize);
        held &= held - 1;
    }
}

#[cfg(feature = "pg15")]
type Link = pg_sys::SHM_QUEUE;
#[cfg(not(feature = "pg15"))]
type Link = pg_sys::dlist_node;

#[cfg(feature = "pg15")]
fn head(list: &mut pg_sys::SHM_QUEUE) -> *mut Link {
    list
}

#[cfg(not(feature = "pg15"))]
fn head(list: &mut pg_sys::dlist_head) -> *mut Link {
    &raw mut list.head
}

/// Calls with the relations of a database, or of all, whose locks in a list are held in one of some modes. Nobody may change the list
/// meanwhile.
#[inline]
unsafe fn each_in_list(head: *mut Link, database: u32, modes: i32, with: &mut impl FnMut(u32)) {
    // SAFETY: a circular list of links inside of PROCLOCKs; one that was never used is a null pointer.
    unsafe {
        let mut link = (*head).next;
        while link != head && !link.is_null() {
            let held =
                link.byte_sub(std::mem::offset_of!(pg_sys::PROCLOCK, procLink)).cast::<pg_sys::PROCLOCK>();
            if (*held).holdMask & modes != 0 {
                let tag = &(*(*held).tag.myLock).tag;
                let is_ours = tag.locktag_field1 == database || tag.locktag_field1 == 0;
                if is_ours && tag.locktag_type == pg_sys::LockTagType::LOCKTAG_RELATION as u8 {
                    with(tag.locktag_field2);
                }
            }
            link = (*link).next;
        }
    }
}
