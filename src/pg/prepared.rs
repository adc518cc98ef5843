//! Prepared transactions: what is kept of them in shared memory, and the commands that begin and end them.
//!
//! ```text
//! head      how many are being prepared without a record     a word
//! records   what each has changed                            one for each that there may be
//! ```
//!
//! Everything here is under one lock of our own, which is held for a walk over the records at most; nothing of the server is called
//! meanwhile, and no shard's lock is taken. The memory is empty when a server's life begins: what was prepared in an earlier one has
//! no record.
//!
//! The server tells nobody what becomes of a prepared transaction, so we look at the commands. Those that come otherwise
//! are not seen: a subscription with `two_phase` prepares and ends its transactions in C.

#![allow(unsafe_code)]

use pg_cache_core::{FenceId, KeyMark};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, Ordering};

const NAME: &CStr = c"pg_cache_prepared";
/// The server's own limit, with the zero behind the name.
const GID_BYTES: usize = pg_sys::GIDSIZE as usize;
/// What a record has room for. Whoever changes more is kept as something larger that includes it.
pub const FENCES_MAX: usize = 128;
pub const MARKS_MAX: usize = 144;

unsafe extern "C" {
    static max_prepared_xacts: c_int;
}

unsafe extern "C-unwind" {
    /// Not by way of pgrx, whose guard would take errors apart and lose where in the statement they are.
    fn standard_ProcessUtility(
        statement: *mut pg_sys::PlannedStmt,
        text: *const std::ffi::c_char,
        read_only: bool,
        context: pg_sys::ProcessUtilityContext::Type,
        parameters: pg_sys::ParamListInfo,
        environment: *mut pg_sys::QueryEnvironment,
        receiver: *mut pg_sys::DestReceiver,
        completion: *mut pg_sys::QueryCompletion,
    );
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
    gid: [u8; GID_BYTES],
    fences: [FenceId; FENCES_MAX],
    marks: [KeyMark; MARKS_MAX],
}

impl Record {
    /// Makes it a transaction's, which is being prepared. What does not fit is cut off: it is for the caller to see that it does.
    pub fn write(&mut self, gid: &[u8], fences: &[FenceId], marks: &[KeyMark]) {
        (self.state, self.enders) = (State::Preparing, 0);
        self.gid_len = fill(&mut self.gid, gid);
        self.fences_len = fill(&mut self.fences, fences);
        self.marks_len = fill(&mut self.marks, marks);
    }

    /// Whether it is about a transaction of this name.
    pub fn is_of(&self, gid: &[u8]) -> bool {
        self.state != State::Free && self.gid[..self.gid_len as usize] == *gid
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
    pub records: &'t mut [Record],
}

static MEMORY: AtomicPtr<u64> = AtomicPtr::new(std::ptr::null_mut());

fn count() -> usize {
    // SAFETY: a setting of the server's start, read by it before it asks for shared memory.
    usize::try_from(unsafe { max_prepared_xacts }).unwrap_or(0)
}

fn bytes() -> usize {
    size_of::<u64>() + count() * size_of::<Record>()
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
        let records = std::slice::from_raw_parts_mut(memory.add(1).cast::<Record>(), count());
        Table { unrecorded: &mut *memory, records }
    };
    Some(with(table))
}

/// Whether there is a prepared transaction of this name, in whatever database and of whichever life.
pub fn exists(gid: &[u8]) -> bool {
    let query = "SELECT FROM pg_catalog.pg_prepared_xact() AS p WHERE p.gid OPERATOR(pg_catalog.=) $1";
    let (mut role, mut context) = (pg_sys::InvalidOid, 0);
    // SAFETY: within a transaction, outside of blocks, as the statement that we are called for begins. As the owner of the catalogs,
    // because the view's function may have been revoked. An error puts everything back by ending the transaction.
    unsafe {
        pg_sys::GetUserIdAndSecContext(&raw mut role, &raw mut context);
        let local = context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as i32;
        pg_sys::SetUserIdAndSecContext(pg_sys::Oid::from(pg_sys::BOOTSTRAP_SUPERUSERID), local);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
    }
    let found = Spi::connect(|client| {
        // SAFETY: a text made of that many bytes.
        let name = unsafe {
            let text = pg_sys::cstring_to_text_with_len(gid.as_ptr().cast(), gid.len() as i32);
            pgrx::datum::DatumWithOid::new(pg_sys::Datum::from(text), pg_sys::TEXTOID)
        };
        client.select(query, Some(1), &[name]).map(|found| !found.is_empty())
    });
    // SAFETY: as it was above.
    unsafe {
        pg_sys::PopActiveSnapshot();
        pg_sys::SetUserIdAndSecContext(role, context);
    }
    // What cannot be asked for may be there.
    found.unwrap_or(true)
}

/// Who wants to know of the commands.
pub trait Watcher: Sync {
    /// The transaction is to be prepared under this name, if nothing goes wrong until its end. May raise errors.
    fn preparing(&self, gid: &[u8]);
    /// A prepared transaction is about to be committed or rolled back by the next command. May raise errors.
    fn ending(&self, gid: &[u8], commits: bool);
    /// That has succeeded. If it does not, the transaction of the command aborts, and nothing is told here.
    fn ended(&self);
}

static WATCHER: OnceLock<&'static dyn Watcher> = OnceLock::new();
static mut PREVIOUS: pg_sys::ProcessUtility_hook_type = None;

/// Tells a watcher from now on. To be called while the server loads us.
pub fn watch(watcher: &'static dyn Watcher) {
    if WATCHER.set(watcher).is_ok() {
        // SAFETY: the postmaster runs this alone, before it has children. Whoever was hooked before is called by us.
        unsafe {
            PREVIOUS = pg_sys::ProcessUtility_hook;
            pg_sys::ProcessUtility_hook = Some(utility);
        }
    }
}

/// Without a guard, so that an error in a command passes as it is: nothing on this stack is to be dropped, and what is ours is
/// guarded by itself.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn utility(
    statement: *mut pg_sys::PlannedStmt,
    text: *const std::ffi::c_char,
    read_only: bool,
    context: pg_sys::ProcessUtilityContext::Type,
    parameters: pg_sys::ParamListInfo,
    environment: *mut pg_sys::QueryEnvironment,
    receiver: *mut pg_sys::DestReceiver,
    completion: *mut pg_sys::QueryCompletion,
) {
    // SAFETY: a planned utility statement has one, and every node begins with its tag. What comes after is as the server would call
    // it, and does not look at the statement again, which the command may have freed.
    unsafe {
        let node = (*statement).utilityStmt;
        let ends = (*node).type_ == pg_sys::NodeTag::T_TransactionStmt && before(node.cast());
        let next = match PREVIOUS {
            Some(previous) => previous,
            None => standard_ProcessUtility,
        };
        next(statement, text, read_only, context, parameters, environment, receiver, completion);
        if ends {
            after();
        }
    }
}

/// Whether it ends a prepared transaction.
#[pg_guard]
unsafe extern "C-unwind" fn before(statement: *const pg_sys::TransactionStmt) -> bool {
    use pg_sys::TransactionStmtKind::*;
    // SAFETY: the caller has looked at the tag.
    let statement = unsafe { &*statement };
    let Some(watcher) = WATCHER.get().filter(|_| is_there() && !statement.gid.is_null()) else {
        return false;
    };
    // SAFETY: checked for NULL; the parser's own string.
    let gid = unsafe { CStr::from_ptr(statement.gid) }.to_bytes();
    let ends = match statement.kind {
        TRANS_STMT_PREPARE => {
            watcher.preparing(gid);
            return false;
        }
        // SAFETY: plain questions. Inside of a block the server refuses these, before it looks for the transaction.
        TRANS_STMT_COMMIT_PREPARED | TRANS_STMT_ROLLBACK_PREPARED => unsafe {
            !pg_sys::IsTransactionBlock() && !pg_sys::IsSubTransaction()
        },
        _ => false,
    };
    if ends {
        watcher.ending(gid, statement.kind == TRANS_STMT_COMMIT_PREPARED);
    }
    ends
}

#[pg_guard]
unsafe extern "C-unwind" fn after() {
    if let Some(watcher) = WATCHER.get() {
        watcher.ended();
    }
}
