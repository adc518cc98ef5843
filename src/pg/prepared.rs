//! Prepared transactions: what is kept of them in shared memory.
//!
//! ```text
//! head      how many are being prepared without a record     a word
//!           how many have a record and no name               a word
//! records   what each has changed                            one for each that there may be
//! ```
//!
//! Everything here is under one lock of our own, which is held for a walk over the records at most; nothing of the server is called
//! meanwhile, and no shard's lock is taken. The memory is empty when a server's life begins: what was prepared in an earlier one has
//! no record.

#![allow(unsafe_code)]

use pg_cache_core::{FenceId, KeyMark, Stamp};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

const NAME: &CStr = c"pg_cache_prepared";
/// The server's own limit, with the zero behind the name.
const GID_BYTES: usize = pg_sys::GIDSIZE as usize;
/// What a record has room for. Whoever changes more is kept as something larger that includes it.
pub const FENCES_MAX: usize = 128;
pub const MARKS_MAX: usize = 144;

unsafe extern "C" {
    static max_prepared_xacts: c_int;
    /// As it is: what is asked at each end of a transaction need not go through the guard for errors.
    fn IsLogicalWorker() -> bool;
}

/// What a record is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum State {
    /// Nothing.
    Free = 0,
    /// A transaction that is being prepared. Nobody else can end it yet.
    Preparing,
    /// One that is prepared, as far as we know.
    Prepared,
    /// One that has ended, while others are still trying to end it.
    Gone,
    /// One of which we do not know the name, and shall not be told of its end. Its fences are raised.
    Unnamed,
}

/// What is kept of one prepared transaction.
#[derive(Debug)]
#[repr(C)]
pub struct Record {
    pub state: State,
    /// Sessions that are trying to end it. While there are any, the record is not given to another transaction.
    pub enders: u32,
    gid_len: u32,
    fences_len: u32,
    marks_len: u32,
    /// The transaction's number.
    pub number: pg_sys::TransactionId,
    /// As of when it is known what is above the relations that it has written to: late, if nothing can come above them.
    pub trees: Stamp,
    gid: [u8; GID_BYTES],
    fences: [FenceId; FENCES_MAX],
    marks: [KeyMark; MARKS_MAX],
}

impl Record {
    /// Makes it a transaction's, which is being prepared. What does not fit is cut off: it is for the caller to see that it does.
    pub fn write(
        &mut self,
        number: pg_sys::TransactionId,
        gid: &[u8],
        fences: &[FenceId],
        marks: &[KeyMark],
    ) {
        (self.state, self.enders, self.number) = (State::Preparing, 0, number);
        self.trees = Stamp::LATEST;
        self.gid_len = fill(&mut self.gid, gid);
        self.fences_len = fill(&mut self.fences, fences);
        self.marks_len = fill(&mut self.marks, marks);
    }

    /// Whether it is about a transaction of this name.
    pub fn is_of(&self, gid: &[u8]) -> bool {
        ![State::Free, State::Unnamed].contains(&self.state) && self.gid[..self.gid_len as usize] == *gid
    }

    /// What the transaction has invalidated.
    pub fn fences(&self) -> &[FenceId] {
        &self.fences[..self.fences_len as usize]
    }

    /// The keys that it has changed.
    pub fn marks(&self) -> &[KeyMark] {
        &self.marks[..self.marks_len as usize]
    }
}

fn fill<T: Copy>(into: &mut [T], from: &[T]) -> u32 {
    let length = from.len().min(into.len());
    into[..length].copy_from_slice(&from[..length]);
    length as u32
}

/// All records, while the lock is held.
#[derive(Debug)]
pub struct Table<'t> {
    /// How many transactions are being prepared that have found no record.
    pub unrecorded: &'t mut u64,
    pub unnamed: &'t AtomicU64,
    pub records: &'t mut [Record],
}

/// Words before the records.
const HEAD: usize = 2;

static MEMORY: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());

/// How many transactions may be prepared at once.
pub fn count() -> usize {
    // SAFETY: a setting of the server's start, read by it before it asks for shared memory.
    usize::try_from(unsafe { max_prepared_xacts }).unwrap_or(0)
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

/// Makes the memory, anew after a crash. Called from the hook for that, in the postmaster, before anybody else exists.
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
    // SAFETY: formatted in `start_up`, and ours alone while the lock is held; only what is valid is ever written to it. Shared memory
    // begins on a line, so that all is aligned.
    let table = unsafe {
        let records = std::slice::from_raw_parts_mut(memory.add(HEAD).cast::<Record>(), count());
        Table { unrecorded: &mut *memory, unnamed: AtomicU64::from_ptr(memory.add(1)), records }
    };
    Some(with(table))
}

/// Whether there are records without a name.
#[inline]
pub fn has_unnamed() -> bool {
    let memory = MEMORY.load(Ordering::Relaxed);
    // SAFETY: the second word, which is only accessed as an atomic.
    !memory.is_null() && unsafe { AtomicU64::from_ptr(memory.add(1)) }.load(Ordering::Relaxed) > 0
}

/// The number of this session's transaction, if it has one.
pub fn own_number() -> pg_sys::TransactionId {
    // SAFETY: a plain question.
    unsafe { pg_sys::GetTopTransactionIdIfAny() }
}

/// Whether a transaction is still going on, or prepared. May raise errors.
pub fn is_in_progress(number: pg_sys::TransactionId) -> bool {
    // SAFETY: a plain question, with no lock held.
    unsafe { pg_sys::TransactionIdIsInProgress(number) }
}

/// Whether this process applies what another server sends: it ends prepared transactions without a command.
#[inline]
pub fn is_applier() -> bool {
    // SAFETY: reads a variable, and raises no error.
    unsafe { IsLogicalWorker() }
}

/// Whose a prepared transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whose {
    /// There is none of this name, in whatever database and of whichever life.
    Nobodys,
    /// The current role may end it, or it cannot be known.
    Ours,
    /// The current role may not.
    Others,
}

/// Whose the prepared transaction of this name is.
pub fn whose(gid: &[u8]) -> Whose {
    let query =
        "SELECT p.ownerid FROM pg_catalog.pg_prepared_xact() AS p WHERE p.gid OPERATOR(pg_catalog.=) $1";
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
    let owner = Spi::connect(|client| {
        // SAFETY: a text made of that many bytes.
        let name = unsafe {
            let text = pg_sys::cstring_to_text_with_len(gid.as_ptr().cast(), gid.len() as i32);
            pgrx::datum::DatumWithOid::new(pg_sys::Datum::from(text), pg_sys::TEXTOID)
        };
        let found = client.select(query, Some(1), &[name])?;
        if found.is_empty() { Ok(None) } else { found.first().get_one::<pg_sys::Oid>() }
    });
    // SAFETY: as it was above.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::SetUserIdAndSecContext(role, context);
    }
    match owner {
        Ok(None) => Whose::Nobodys,
        Ok(Some(owner)) if owner != role && !is_superuser => Whose::Others,
        // What cannot be asked for may be there.
        _ => Whose::Ours,
    }
}
