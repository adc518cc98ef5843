//! What the transaction of this session holds write locks on, and so may have written.
//!
//! Every write takes a lock on its relation in a mode that only writers take, and holds it to the end of the transaction; a
//! savepoint that is rolled back gives its locks back. So the lock manager knows what a transaction has written, whatever way the
//! write took. Read here is what the server keeps of our own locks in shared memory:
//! - *fast-path slots* in our entry of the array of processes, for weak locks. We alone set them. Others may move one to the main
//!   table, where it appears before its slot is cleared; both happen under our `fpInfoLock`.
//! - *the main table*, a list for each of its partitions in our entry. We alone put locks there, but for those that are moved, and it
//!   is read under the partition's lock.
//!
//! Slots first, then the lists: a lock that is moved meanwhile is seen in its slot, or in its list, or in both. A list that is
//! empty when we look needs no lock: what is moved there later has been seen in its slot.
//!
//! A prepared transaction keeps its locks, in an entry of the same array that is no process's, and all in the main table; also one
//! that was prepared in an earlier life of the server.

#![allow(unsafe_code)]

use super::prepared;
use super::shared::{LWLockAcquire, LWLockRelease};
use pgrx::pg_sys;

/// Modes that a change of rows takes, as bits of the server's mask: ROW EXCLUSIVE, EXCLUSIVE and ACCESS EXCLUSIVE.
const WRITERS: i32 =
    1 << pg_sys::RowExclusiveLock | 1 << pg_sys::ExclusiveLock | 1 << pg_sys::AccessExclusiveLock;
/// Bits of a fast-path slot, for modes from 1 on.
const BITS_PER_SLOT: u32 = 3;
const SLOTS_PER_WORD: usize = 16;
/// The table of large objects.
const LARGE_OBJECTS: u32 = 2613;
const ROW_EXCLUSIVE_IN_SLOT: u64 = 1 << (pg_sys::RowExclusiveLock - 1);

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
pub fn each_written(mut with: impl FnMut(u32)) {
    // SAFETY: our own entry, which stands as long as the session does.
    let process = unsafe { &mut *pg_sys::MyProc };
    // SAFETY: the lock that guards our slots; nothing that could fail happens while it is held.
    unsafe { LWLockAcquire(&raw mut process.fpInfoLock, pg_sys::LWLockMode::LW_SHARED) };
    each_slot(process, &mut with);
    // SAFETY: as above.
    unsafe { LWLockRelease(&raw mut process.fpInfoLock) };
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    each_in_table(process, database, &mut with);
}

/// Whether the transaction has looked at large objects: that takes the lock of a writer.
pub fn has_seen_large_objects() -> bool {
    let mut found = false;
    each_written(|number| found |= number == LARGE_OBJECTS);
    found
}

/// The prepared transactions of this database, and those that have ended or begin to be prepared: their numbers, and the relations
/// that each holds a write lock on.
pub fn of_prepared() -> Vec<(pg_sys::TransactionId, Vec<u32>)> {
    let mut found = Vec::new();
    // SAFETY: a plain global, constant in a session.
    let database = unsafe { pg_sys::MyDatabaseId };
    for place in 0..prepared::count() {
        // SAFETY: behind the entries of processes the array has one for each transaction that may be prepared. They stand as long as
        // the server does; the words are read as they are in this moment, and the locks as others read them.
        unsafe {
            let all = &*pg_sys::ProcGlobal;
            let entry = all.allProcs.add(all.allProcCount as usize + place);
            let number = std::ptr::read_volatile(&raw const (*entry).xid);
            if number == pg_sys::InvalidTransactionId || (*entry).databaseId != database {
                continue;
            }
            let mut relations = Vec::new();
            each_in_table(&mut *entry, database, &mut |relation| relations.push(relation));
            found.push((number, relations));
        }
    }
    found
}

fn each_in_table(process: &mut pg_sys::PGPROC, database: pg_sys::Oid, with: &mut impl FnMut(u32)) {
    for partition in 0..pg_sys::NUM_LOCK_PARTITIONS as usize {
        each_in_partition(process, partition, |tag| {
            let ours = tag.locktag_field1 == database.to_u32() || tag.locktag_field1 == 0;
            if ours && tag.locktag_type == pg_sys::LockTagType::LOCKTAG_RELATION as u8 {
                with(tag.locktag_field2);
            }
        });
    }
}

#[cfg(not(feature = "pg18"))]
fn each_slot(process: &pg_sys::PGPROC, with: &mut impl FnMut(u32)) {
    for (slot, relation) in process.fpRelId.iter().enumerate().take(SLOTS_PER_WORD) {
        if process.fpLockBits >> (BITS_PER_SLOT as usize * slot) & ROW_EXCLUSIVE_IN_SLOT != 0 {
            with(relation.to_u32());
        }
    }
}

#[cfg(feature = "pg18")]
fn each_slot(process: &pg_sys::PGPROC, with: &mut impl FnMut(u32)) {
    // SAFETY: a plain global, constant since the server started; both arrays have so many groups of slots.
    unsafe {
        for group in 0..pg_sys::FastPathLockGroupsPerBackend as usize {
            let bits = *process.fpLockBits.add(group);
            for slot in 0..SLOTS_PER_WORD {
                if bits >> (BITS_PER_SLOT as usize * slot) & ROW_EXCLUSIVE_IN_SLOT != 0 {
                    with((*process.fpRelId.add(group * SLOTS_PER_WORD + slot)).to_u32());
                }
            }
        }
    }
}

#[cfg(feature = "pg15")]
type Link = pg_sys::SHM_QUEUE;
#[cfg(not(feature = "pg15"))]
type Link = pg_sys::dlist_node;

#[cfg(feature = "pg15")]
fn head(process: &mut pg_sys::PGPROC, partition: usize) -> *mut Link {
    &raw mut process.myProcLocks[partition]
}

#[cfg(not(feature = "pg15"))]
fn head(process: &mut pg_sys::PGPROC, partition: usize) -> *mut Link {
    &raw mut process.myProcLocks[partition].head
}

/// Calls with the tags of the locks of one partition that are held in a writer's mode.
fn each_in_partition(process: &mut pg_sys::PGPROC, partition: usize, mut with: impl FnMut(&pg_sys::LOCKTAG)) {
    let head = head(process, partition);
    // SAFETY: a list in an entry of the array, circular, and of links inside of PROCLOCKs, walked under the partition's lock. To our own,
    // only we put locks and take them away, but for those that others move there from our slots, under the same lock. Nothing that
    // could fail happens while it is held.
    unsafe {
        let first = std::ptr::read_volatile(&raw const (*head).next);
        if first == head || first.is_null() {
            return;
        }
        let lock = &raw mut (*pg_sys::MainLWLockArray
            .add(pg_sys::LOCK_MANAGER_LWLOCK_OFFSET as usize + partition))
        .lock;
        LWLockAcquire(lock, pg_sys::LWLockMode::LW_SHARED);
        let mut link = (*head).next;
        while link != head {
            let held =
                link.byte_sub(std::mem::offset_of!(pg_sys::PROCLOCK, procLink)).cast::<pg_sys::PROCLOCK>();
            if (*held).holdMask & WRITERS != 0 {
                with(&(*(*held).tag.myLock).tag);
            }
            link = (*link).next;
        }
        LWLockRelease(lock);
    }
}
