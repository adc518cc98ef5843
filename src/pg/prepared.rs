//! Prepared transactions: this library's records of them in shared memory, and the server's own data about them. Another session
//! may commit a prepared transaction, so the record holds what COMMIT PREPARED must invalidate: *fences*, the words that tell when
//! a dependency of values last changed (`docs/architecture.md`), and keys. It also holds relations that the transaction has locked
//! as a writer, but in which it has changed no rows. `store/transaction/prepared/` uses it.
//!
//! ```text
//! head      number of records without a name                   a word
//! records   what each transaction has changed in the cache     twice as many as may be prepared
//! ```
//!
//! Access rules: the records must only be read and written under one lock of our own. The lock is held for one walk over the
//! records at most. Meanwhile no function of the server is called that takes a lock or may raise an error, and no shard's lock is
//! taken. (A walk that writes to the journal may set the latches of background workers.) The head must only be accessed as an
//! atomic.
//!
//! A *shard* is a part of the cache with a lock of its own, and the *journal* is the ring of records that name what has changed.
//!
//! A saved cache comes with these records (`restart.rs`). When the server starts without a saved cache, the table is empty: a
//! transaction that was prepared before has no record.

#![allow(unsafe_code)]

use pg_cache_core::{FenceId, KeyMark, Stamp};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const NAME: &CStr = c"pg_cache_prepared";
/// The server's own limit, including the zero behind the name.
const GID_BYTES: usize = pg_sys::GIDSIZE as usize;
/// The most fences of a record. If a transaction has more, its record must hold the fence of the database instead. With these three
/// limits a record takes less than 8 kB.
pub const FENCES_MAX: usize = 1024;
/// The most keys of a record. If a transaction changes more, its record must hold the fences of their spaces instead.
pub const MARKS_MAX: usize = 144;
/// The most unchanged relations of a record. COMMIT PREPARED invalidates further ones as if they had changed.
pub const UNCHANGED_MAX: usize = 64;

unsafe extern "C" {
    static max_prepared_xacts: c_int;
    /// Called without pgrx's guard, because it runs at each end of a transaction and raises no error.
    fn IsLogicalWorker() -> bool;
}

/// The state of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    Free,
    /// The transaction is being prepared. No other session can end it yet.
    Preparing,
    /// The transaction is prepared, as far as this library knows.
    Prepared,
    /// The transaction has ended, and other sessions are still trying to end it.
    Gone,
    /// The name of the transaction is unknown, so no command announces its end. Its fences are raised.
    Unnamed,
}

/// The record of one prepared transaction. It consists of plain numbers, so every bit pattern is a valid record.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    state: u32,
    /// The number of sessions that are trying to end the transaction. Until it is 0, no other transaction gets the record.
    pub enders: u32,
    /// The lengths of the four lists at the end, in elements.
    gid_len: u32,
    fences_len: u32,
    marks_len: u32,
    unchanged_len: u32,
    /// The id of the transaction.
    pub xid: pg_sys::TransactionId,
    /// The moment since when inheritance trees may have grown above the relations that the transaction has written. Used for
    /// unnamed transactions only.
    pub trees: Stamp,
    gid: [u8; GID_BYTES],
    fences: [FenceId; FENCES_MAX],
    marks: [KeyMark; MARKS_MAX],
    unchanged: [u32; UNCHANGED_MAX],
}

impl Record {
    /// Assigns the record to a transaction that is being prepared. Lists beyond the capacity are cut off: the caller must ensure
    /// that all fits. It has no unchanged relations.
    pub fn write(&mut self, xid: pg_sys::TransactionId, gid: &[u8], fences: &[FenceId], marks: &[KeyMark]) {
        self.set_state(State::Preparing);
        (self.enders, self.xid, self.trees) = (0, xid, Stamp::LATEST);
        self.gid_len = fill(&mut self.gid, gid);
        self.fences_len = fill(&mut self.fences, fences);
        self.marks_len = fill(&mut self.marks, marks);
        self.unchanged_len = 0;
    }

    /// Sets the relations that the transaction has locked as a writer and of which it has changed no rows. If there are too many,
    /// the record gets some of them.
    pub fn set_unchanged(&mut self, relations: &[u32]) {
        self.unchanged_len = fill(&mut self.unchanged, relations);
    }

    /// Removes the unchanged relations for which `has_changed` is true.
    pub fn retain_unchanged(&mut self, has_changed: impl Fn(u32) -> bool) {
        let mut kept = 0;
        for at in 0..self.unchanged().len() {
            if !has_changed(self.unchanged[at]) {
                self.unchanged[kept] = self.unchanged[at];
                kept += 1;
            }
        }
        self.unchanged_len = kept as u32;
    }

    /// Returns the state. An invalid word counts as `Gone`: the record is then not used until its transaction is found to have
    /// ended.
    pub fn state(&self) -> State {
        match self.state {
            0 => State::Free,
            1 => State::Preparing,
            2 => State::Prepared,
            4 => State::Unnamed,
            _ => State::Gone,
        }
    }

    /// Writes the word of the state.
    pub fn set_state(&mut self, state: State) {
        self.state = match state {
            State::Free => 0,
            State::Preparing => 1,
            State::Prepared => 2,
            State::Gone => 3,
            State::Unnamed => 4,
        };
    }

    /// Returns whether the record's transaction has this name.
    pub fn is_of(&self, gid: &[u8]) -> bool {
        ![State::Free, State::Unnamed].contains(&self.state()) && *used(&self.gid, self.gid_len) == *gid
    }

    /// Returns the fences that the transaction has invalidated.
    pub fn fences(&self) -> &[FenceId] {
        used(&self.fences, self.fences_len)
    }

    /// Returns the relations that the transaction has locked as a writer and of which it has changed no rows; perhaps not all.
    pub fn unchanged(&self) -> &[u32] {
        used(&self.unchanged, self.unchanged_len)
    }

    /// Returns the keys that the transaction has changed.
    pub fn marks(&self) -> &[KeyMark] {
        used(&self.marks, self.marks_len)
    }
}

/// Returns the first `length` elements, or all if the length is damaged.
fn used<T>(all: &[T], length: u32) -> &[T] {
    &all[..all.len().min(length as usize)]
}

/// Copies as many elements as fit, and returns their number.
fn fill<T: Copy>(into: &mut [T], from: &[T]) -> u32 {
    let length = from.len().min(into.len());
    into[..length].copy_from_slice(&from[..length]);
    length as u32
}

/// All records, while the lock is held.
#[derive(Debug)]
pub struct Table<'t> {
    /// The number of records in the state [`State::Unnamed`]. Code that changes the state of a record must keep it right.
    pub unnamed: &'t AtomicU64,
    pub records: &'t mut [Record],
}

/// The number of words before the records. The records are aligned like words.
const HEAD: usize = 1;

/// The start of the memory; null if there is no table. Only the postmaster writes it, and each backend inherits it.
static MEMORY: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());

/// Returns how many transactions may be prepared at once.
pub fn limit() -> usize {
    // SAFETY: a setting that is fixed when the server starts, before it asks for shared memory.
    usize::try_from(unsafe { max_prepared_xacts }).unwrap_or(0)
}

/// Returns the number of records. It is twice the limit, because a transaction has its record a little longer than the server
/// counts it: from before its preparation until after its end.
fn count() -> usize {
    limit() * 2
}

/// Returns the bytes of the memory.
fn bytes() -> usize {
    HEAD * size_of::<u64>() + count() * size_of::<Record>()
}

/// Requests the memory. Must be called from the hook in which the server allows it.
pub fn request() {
    if count() > 0 {
        // SAFETY: called from that hook.
        unsafe {
            pg_sys::RequestAddinShmemSpace(bytes());
            pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
        }
    }
}

/// Formats the memory, again after a crash. Must be called from the server's start-up hook, in the postmaster, before any other
/// process exists.
pub fn start_up() {
    if count() == 0 {
        return;
    }
    let mut found = false;
    // SAFETY: the size that was requested. All zeroes are a table of free records.
    let memory = unsafe {
        let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(), &raw mut found);
        memory.cast::<u8>().write_bytes(0, bytes());
        memory
    };
    MEMORY.store(memory.cast(), Ordering::Relaxed);
}

/// Empties the table, because the cache starts empty.
pub fn clear() {
    with_table(|Table { unnamed, records }| {
        unnamed.store(0, Ordering::Relaxed);
        records.iter_mut().for_each(|record| record.set_state(State::Free));
    });
}

/// Returns the memory as bytes: the records of a saved cache are written to a file and read from it.
///
/// # Safety
/// No other process may exist, and the result must not be used any more when another function of this file is called.
pub unsafe fn bytes_mut<'m>() -> &'m mut [u8] {
    let memory = MEMORY.load(Ordering::Relaxed);
    if memory.is_null() {
        return &mut [];
    }
    // SAFETY: `start_up` made the memory and filled it, and as the caller promises.
    unsafe { std::slice::from_raw_parts_mut(memory.cast(), bytes()) }
}

/// Makes records usable that were read from a file, and calls `raise` for each fence that they keep raised. `raise` must not fail.
pub fn revive(raise: impl Fn(FenceId)) {
    with_table(|Table { unnamed, records }| {
        unnamed.store(0, Ordering::Relaxed);
        for record in records {
            record.enders = 0;
            match record.state() {
                State::Free | State::Prepared => {}
                // The session has ended. If the transaction is not prepared, the record counts as that of an ended transaction.
                State::Preparing => record.set_state(State::Prepared),
                State::Gone => record.set_state(State::Free),
                State::Unnamed => {
                    record.fences().iter().for_each(|fence| raise(*fence));
                    unnamed.fetch_add(1, Ordering::Relaxed);
                }
            }
        }
    });
}

/// Calls `call` with each fence of the records that are not free. The rules for [`with_table`] hold for `call`.
pub fn each_fence(mut call: impl FnMut(FenceId)) {
    with_table(|Table { records, .. }| {
        let used = records.iter().filter(|record| record.state() != State::Free);
        used.flat_map(Record::fences).for_each(|fence| call(*fence));
    });
}

/// Returns whether there is a table. There is none without a cache, or if `max_prepared_transactions` is 0.
pub fn is_there() -> bool {
    !MEMORY.load(Ordering::Relaxed).is_null()
}

/// Releases the lock when dropped.
struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: the code that made this value has acquired the lock.
        unsafe { pg_sys::LWLockRelease(self.0) };
    }
}

/// Calls `with` with the table, under its lock. `with` must not call a function of the server that takes a lock or may raise an
/// error, must not take a shard's lock, and must not call this function again. Returns None if there is no table.
pub fn with_table<R>(with: impl FnOnce(Table<'_>) -> R) -> Option<R> {
    let memory = MEMORY.load(Ordering::Relaxed);
    if memory.is_null() {
        return None;
    }
    // SAFETY: `request` has asked for the tranche, with one lock.
    let _held = unsafe {
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        Held(lock)
    };
    // SAFETY: `start_up` made the memory. It is aligned because shared memory begins on a cache line, and only this process
    // accesses the records while it holds the lock. Every bit pattern is a valid record.
    let table = unsafe {
        let records = std::slice::from_raw_parts_mut(memory.add(HEAD).cast::<Record>(), count());
        Table { unnamed: AtomicU64::from_ptr(memory), records }
    };
    Some(with(table))
}

/// Returns whether there are records without a name.
#[inline]
pub fn has_unnamed() -> bool {
    let memory = MEMORY.load(Ordering::Relaxed);
    // SAFETY: the head is only accessed as an atomic.
    !memory.is_null() && unsafe { AtomicU64::from_ptr(memory) }.load(Ordering::Relaxed) > 0
}

/// Returns the id of this session's transaction, if it has one.
pub fn own_xid() -> pg_sys::TransactionId {
    // SAFETY: only reads a variable.
    unsafe { pg_sys::GetTopTransactionIdIfAny() }
}

/// Returns whether a transaction is running or prepared. May raise errors.
pub fn is_in_progress(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: called while no lock is held.
    unsafe { pg_sys::TransactionIdIsInProgress(xid) }
}

/// Returns whether another session's transaction has ended and released the lock on its own id. Between the end and the release,
/// the server sends the transaction's catalog invalidations. Must be called within a transaction, while no lock is held. May raise
/// errors.
pub fn is_over(xid: pg_sys::TransactionId) -> bool {
    if is_in_progress(xid) {
        return false;
    }
    // SAFETY: called within a transaction. It asks for the lock without waiting, and releases it again.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let is_over = pg_sys::ConditionalXactLockTableWait(xid);
        #[cfg(feature = "pg18")]
        let is_over = pg_sys::ConditionalXactLockTableWait(xid, false);
        is_over
    }
}

/// Returns whether this process is a logical replication worker. Such a worker ends prepared transactions without a command.
#[inline]
pub fn is_applier() -> bool {
    // SAFETY: reads a variable, and raises no error.
    unsafe { IsLogicalWorker() }
}

/// A prepared transaction as the server knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub xid: pg_sys::TransactionId,
    /// Whether the current role may end the transaction.
    pub may_end: bool,
    /// Whether the transaction belongs to this session's database.
    pub is_here: bool,
}

/// Finds the prepared transaction with this name, in any database, also if it was prepared before the server was restarted. Must be
/// called before COMMIT PREPARED or ROLLBACK PREPARED, outside of a transaction block. May raise errors.
pub fn find(gid: &[u8]) -> Option<Found> {
    let query =
        "SELECT p.transaction::pg_catalog.text, p.ownerid, p.dbid FROM pg_catalog.pg_prepared_xact() AS p
                  WHERE p.gid OPERATOR(pg_catalog.=) $1";
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: called within a transaction and outside of transaction blocks, like COMMIT PREPARED and ROLLBACK PREPARED. The query
    // runs as the bootstrap superuser, because the privilege to call the view's function may have been revoked. If an error is
    // raised, the end of the transaction restores the role and the snapshot.
    let is_superuser = unsafe {
        let is_superuser = pg_sys::superuser();
        pg_sys::GetUserIdAndSecContext(&raw mut role, &raw mut context);
        let local = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), local);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        is_superuser
    };
    let found = Spi::connect(|client| {
        // SAFETY: the server makes a text of that many bytes.
        let name = unsafe {
            let text = pg_sys::cstring_to_text_with_len(gid.as_ptr().cast(), gid.len() as i32);
            pgrx::datum::DatumWithOid::new(pg_sys::Datum::from(text), pg_sys::TEXTOID)
        };
        let found = client.select(query, Some(1), &[name])?;
        if found.is_empty() {
            Ok((None, None, None))
        } else {
            found.first().get_three::<String, pg_sys::Oid, pg_sys::Oid>()
        }
    });
    // SAFETY: restores the state from above.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::SetUserIdAndSecContext(role, context);
    }
    let (xid, owner, database) = found.unwrap_or_else(|error| pgrx::error!("{error}"));
    let xid = xid.and_then(|xid| xid.parse::<u32>().ok())?;
    // SAFETY: a plain global, constant in a session.
    let is_here = database == Some(unsafe { pg_sys::MyDatabaseId });
    Some(Found { xid: xid.into(), may_end: is_superuser || owner == Some(role), is_here })
}
