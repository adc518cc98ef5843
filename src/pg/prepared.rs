//! Prepared transactions: the records that this library keeps of them in shared memory, and what the server says of them.
//!
//! ```text
//! head      how many records have no name                    a word
//! records   what each transaction has changed in the cache   twice as many as may be prepared
//! ```
//!
//! Access rules: the records are read and written under one lock of our own, which is held for a walk over them at most; no function
//! of the server is called and no shard's lock is taken meanwhile. The head is only accessed as an atomic.
//!
//! The memory is empty when a server starts: a transaction that was prepared before that has no record.

#![allow(unsafe_code)]

use pg_cache_core::{FenceId, KeyMark, Stamp};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const NAME: &CStr = c"pg_cache_prepared";
/// The server's own limit, with the zero behind the name.
const GID_BYTES: usize = pg_sys::GIDSIZE as usize;
/// A record's capacity. A transaction that changes more keys is recorded by the fences of their spaces, one with more fences by
/// that of its database.
pub const FENCES_MAX: usize = 1024;
pub const MARKS_MAX: usize = 144;

unsafe extern "C" {
    static max_prepared_xacts: c_int;
    /// Without the guard against errors, because it is asked at each end of a transaction and raises none.
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
    /// The transaction has ended, while other sessions are still trying to end it.
    Gone,
    /// The name of the transaction is unknown, and nothing will announce its end. Its fences are raised.
    Unnamed,
}

/// What is kept of one prepared transaction. Words only: every bit pattern is a valid record.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    state: u32,
    /// Sessions that are trying to end it. While there are any, the record is not given to another transaction.
    pub enders: u32,
    gid_len: u32,
    fences_len: u32,
    marks_len: u32,
    pub xid: pg_sys::TransactionId,
    /// Since when inheritance trees may have grown above the relations that it has written. Of an unnamed one only.
    pub trees: Stamp,
    gid: [u8; GID_BYTES],
    fences: [FenceId; FENCES_MAX],
    marks: [KeyMark; MARKS_MAX],
}

impl Record {
    /// Gives the record to a transaction that is being prepared. Cuts off what does not fit: the caller sees to it that all fits.
    pub fn write(&mut self, xid: pg_sys::TransactionId, gid: &[u8], fences: &[FenceId], marks: &[KeyMark]) {
        self.set_state(State::Preparing);
        (self.enders, self.xid, self.trees) = (0, xid, Stamp::LATEST);
        self.gid_len = fill(&mut self.gid, gid);
        self.fences_len = fill(&mut self.fences, fences);
        self.marks_len = fill(&mut self.marks, marks);
    }

    /// A word that is no state counts as `Gone`: nobody uses the record until its transaction is found to be over.
    pub fn state(&self) -> State {
        match self.state {
            0 => State::Free,
            1 => State::Preparing,
            2 => State::Prepared,
            4 => State::Unnamed,
            _ => State::Gone,
        }
    }

    pub fn set_state(&mut self, state: State) {
        self.state = match state {
            State::Free => 0,
            State::Preparing => 1,
            State::Prepared => 2,
            State::Gone => 3,
            State::Unnamed => 4,
        };
    }

    /// Whether its transaction has this name.
    pub fn is_of(&self, gid: &[u8]) -> bool {
        ![State::Free, State::Unnamed].contains(&self.state()) && *used(&self.gid, self.gid_len) == *gid
    }

    /// The fences that the transaction has invalidated.
    pub fn fences(&self) -> &[FenceId] {
        used(&self.fences, self.fences_len)
    }

    /// The keys that it has changed.
    pub fn marks(&self) -> &[KeyMark] {
        used(&self.marks, self.marks_len)
    }
}

fn used<T>(all: &[T], length: u32) -> &[T] {
    &all[..all.len().min(length as usize)]
}

fn fill<T: Copy>(into: &mut [T], from: &[T]) -> u32 {
    let length = from.len().min(into.len());
    into[..length].copy_from_slice(&from[..length]);
    length as u32
}

/// All records, while the lock is held.
#[derive(Debug)]
pub struct Table<'t> {
    pub unnamed: &'t AtomicU64,
    pub records: &'t mut [Record],
}

/// Words before the records, whose alignment is a word's.
const HEAD: usize = 1;

static MEMORY: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());

/// How many transactions may be prepared at once.
pub fn limit() -> usize {
    // SAFETY: a setting of the server's start, read by it before it asks for shared memory.
    usize::try_from(unsafe { max_prepared_xacts }).unwrap_or(0)
}

/// How many records there are: a transaction has one from before the server counts it until after.
fn count() -> usize {
    limit() * 2
}

fn bytes() -> usize {
    HEAD * size_of::<u64>() + count() * size_of::<Record>()
}

/// Asks for the memory. Called from the hook in which one may.
pub fn request() {
    if count() > 0 {
        // SAFETY: see above.
        unsafe {
            pg_sys::RequestAddinShmemSpace(bytes());
            pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), 1);
        }
    }
}

/// Makes the memory, anew after a crash. Called from the hook for that, in the postmaster, before any other process exists.
pub fn start_up() {
    if count() == 0 {
        return;
    }
    let mut found = false;
    // SAFETY: the size that was asked for. All zeroes are a table of free records.
    let memory = unsafe {
        let memory = pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(), &raw mut found);
        memory.cast::<u8>().write_bytes(0, bytes());
        memory
    };
    MEMORY.store(memory.cast(), Ordering::Relaxed);
}

/// Whether there is a table: none without a cache, or where nothing can be prepared.
pub fn is_there() -> bool {
    !MEMORY.load(Ordering::Relaxed).is_null()
}

/// The lock, released at the end of the block however that comes about.
struct Held(*mut pg_sys::LWLock);

impl Drop for Held {
    fn drop(&mut self) {
        // SAFETY: taken by whoever made this.
        unsafe { pg_sys::LWLockRelease(self.0) };
    }
}

/// Calls with the table, under its lock. Nothing of the server may be called inside.
pub fn with_table<R>(with: impl FnOnce(Table<'_>) -> R) -> Option<R> {
    let memory = MEMORY.load(Ordering::Relaxed);
    if memory.is_null() {
        return None;
    }
    // SAFETY: the tranche was asked for in `request`, with one lock.
    let _held = unsafe {
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr())).lock;
        pg_sys::LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        Held(lock)
    };
    // SAFETY: made in `start_up`, aligned because shared memory begins on a cache line, and accessed by this process alone while the
    // lock is held. Any words are valid records.
    let table = unsafe {
        let records = std::slice::from_raw_parts_mut(memory.add(HEAD).cast::<Record>(), count());
        Table { unnamed: AtomicU64::from_ptr(memory), records }
    };
    Some(with(table))
}

/// Whether there are records without a name.
#[inline]
pub fn has_unnamed() -> bool {
    let memory = MEMORY.load(Ordering::Relaxed);
    // SAFETY: the head, which is only accessed as an atomic.
    !memory.is_null() && unsafe { AtomicU64::from_ptr(memory) }.load(Ordering::Relaxed) > 0
}

/// The id of this session's transaction, if it has one.
pub fn own_xid() -> pg_sys::TransactionId {
    // SAFETY: a plain question.
    unsafe { pg_sys::GetTopTransactionIdIfAny() }
}

/// Whether a transaction is still going on, or prepared. May raise errors.
pub fn is_in_progress(xid: pg_sys::TransactionId) -> bool {
    // SAFETY: a plain question, with no lock held.
    unsafe { pg_sys::TransactionIdIsInProgress(xid) }
}

/// Whether a transaction of another session has ended and has released the lock on its own id. The server sends the transaction's
/// catalog invalidations between the two. May raise errors.
pub fn is_over(xid: pg_sys::TransactionId) -> bool {
    if is_in_progress(xid) {
        return false;
    }
    // SAFETY: within a transaction; asks for the lock without waiting, and gives it back.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        let is_over = pg_sys::ConditionalXactLockTableWait(xid);
        #[cfg(feature = "pg18")]
        let is_over = pg_sys::ConditionalXactLockTableWait(xid, false);
        is_over
    }
}

/// Whether this process applies what another server sends: it ends prepared transactions without a command.
#[inline]
pub fn is_applier() -> bool {
    // SAFETY: reads a variable, and raises no error.
    unsafe { IsLogicalWorker() }
}

/// A prepared transaction as the server shows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    pub xid: pg_sys::TransactionId,
    /// Whether the current role may end it.
    pub may_end: bool,
    /// Whether it belongs to this session's database.
    pub is_here: bool,
}

/// The prepared transaction of a name, in whatever database and prepared in whichever life of the server. May raise errors.
pub fn find(gid: &[u8]) -> Option<Found> {
    let query =
        "SELECT p.transaction::pg_catalog.text, p.ownerid, p.dbid FROM pg_catalog.pg_prepared_xact() AS p
                  WHERE p.gid OPERATOR(pg_catalog.=) $1";
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: within a transaction, outside of blocks, as the statement that we are called for begins. As the owner of the catalogs,
    // because the view's function may have been revoked. An error puts everything back by ending the transaction.
    let is_superuser = unsafe {
        let is_superuser = pg_sys::superuser();
        pg_sys::GetUserIdAndSecContext(&raw mut role, &raw mut context);
        let local = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), local);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        is_superuser
    };
    let found = Spi::connect(|client| {
        // SAFETY: a text made of that many bytes.
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
    // SAFETY: as it was above.
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
