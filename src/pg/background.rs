//! Background workers: registering, starting and ending them, and waiting in them. `workers/` has the code of the workers: the
//! launcher, a worker for each database, the worker of Redis, and workers that run *warmers*, which are queries whose results are
//! stored before a session asks for them.
//!
//! A worker handles signals like a session: SIGTERM ends it at the next check for interrupts, SIGHUP makes it read the
//! configuration again, and SIGUSR1 makes it absorb barriers, without which DROP DATABASE of any database would hang. All of these
//! set the latch that the worker waits on.

#![allow(unsafe_code)]

use super::encoding::shown;
use super::error::{Failure, SqlState};
use super::warm_list::Owner;
use super::worker_slot::WorkerSlot;
use super::{environment, memory, session, shared, thread};
use pgrx::pg_sys::panic::{CaughtError, ErrorReport, ErrorReportWithLevel};
#[cfg(not(feature = "pg18"))]
use pgrx::pg_sys::pqsignal;
#[cfg(feature = "pg18")]
use pgrx::pg_sys::pqsignal_be as pqsignal;
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::panic::AssertUnwindSafe;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU32, Ordering};
use std::time::{Duration, Instant};

unsafe extern "C-unwind" {
    /// The server's signal handlers. A handler must be the function itself, without pgrx's guard.
    fn die(signal: std::ffi::c_int);
    fn SignalHandlerForConfigReload(signal: std::ffi::c_int);
}

unsafe extern "C" {
    // pgrx does not have these. They raise no errors for a timeout that the server has registered.
    fn enable_timeout_after(id: c_int, ms: c_int);
    fn disable_timeout(id: c_int, keep_indicator: bool);
    fn disable_all_timeouts(keep_indicators: bool);
    fn enable_timeout_every(id: c_int, first: pg_sys::TimestampTz, ms: c_int);
    /// Ends the process with an error if libraries have taken all timeouts that the server has for them.
    fn RegisterTimeout(id: c_int, handler: unsafe extern "C" fn()) -> c_int;
}

/// The server's number of the timeout of statements, on all supported versions.
const STATEMENT_TIMEOUT: c_int = 3;

/// A number that asks [`RegisterTimeout`] for a timeout of a library, on all supported versions.
const ANY_TIMEOUT: c_int = 13;

/// The least time for which a statement of a worker waits for a lock. It waits for at most one and a half times as long.
const LOCK_PATIENCE_MS: c_int = 1000;
/// The least time for which a statement of a worker waits for a lock if the worker's last statement has waited for a lock in vain:
/// other statements probably need the same lock.
const LOCK_PATIENCE_MIN_MS: c_int = 100;

/// The timeout that calls [`look_at_lock`]; 0 if it is not registered.
static LOCK_WATCH: AtomicI32 = AtomicI32::new(0);
/// The lock for which this process waited when [`look_at_lock`] ran last.
static AWAITED: AtomicPtr<pg_sys::LOCK> = AtomicPtr::new(std::ptr::null_mut());
/// How many times in a row [`look_at_lock`] has seen this lock.
static SIGHTINGS: AtomicU32 = AtomicU32::new(0);
/// Whether the present statement was cancelled because it has waited too long for a lock.
static HAS_GIVEN_UP: AtomicBool = AtomicBool::new(false);
/// Whether the last statement was cancelled for this reason.
static HAD_GIVEN_UP: AtomicBool = AtomicBool::new(false);

/// The value of `transaction_read_only` that queries see in a worker that runs warmers: that of a usual session.
static SHOWN_READ_ONLY: AtomicBool = AtomicBool::new(false);

const LIBRARY: &CStr = c"pg_cache";
/// How long the postmaster waits before it starts the launcher again after it has failed.
const RESTART_SECONDS: i32 = 5;

/// Describes a worker.
fn describe(name: &CStr, function: &CStr, restart_seconds: i32, database: u32) -> pg_sys::BackgroundWorker {
    // SAFETY: all zeroes are valid for this plain structure.
    let mut worker: pg_sys::BackgroundWorker = unsafe { std::mem::zeroed() };
    copy(&mut worker.bgw_name, name);
    copy(&mut worker.bgw_type, name);
    copy(&mut worker.bgw_library_name, LIBRARY);
    copy(&mut worker.bgw_function_name, function);
    worker.bgw_flags = (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as i32;
    worker.bgw_start_time = pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished;
    worker.bgw_restart_time = restart_seconds;
    worker.bgw_main_arg = pg_sys::Oid::from(database).into();
    worker
}

/// Copies a string into a field of fixed size, and cuts it off if it is longer. The field ends with a zero.
fn copy(field: &mut [std::ffi::c_char], text: &CStr) {
    let room = field.len().saturating_sub(1);
    for (to, from) in field.iter_mut().take(room).zip(text.to_bytes()) {
        *to = *from as std::ffi::c_char;
    }
}

/// The main functions of the launcher, of the worker of a database, of the Redis worker, and of a worker that runs warmers.
#[derive(Clone, Copy, Debug)]
pub struct Mains {
    pub launcher: fn(),
    /// The argument is the OID of the database.
    pub worker: fn(u32),
    pub redis: fn(),
    /// The argument has the OIDs of the database and of the role whose warmers to run; role 0 stands for finding the owners.
    pub warmer: fn(Owner),
}

static MAINS: OnceLock<Mains> = OnceLock::new();

/// Registers the launcher. Must be called while the server loads the library.
pub fn register(mains: Mains) {
    if MAINS.set(mains).is_ok() {
        let mut worker = describe(c"pg_cache launcher", c"pg_cache_launcher", RESTART_SECONDS, 0);
        // SAFETY: the server copies the description.
        unsafe { pg_sys::RegisterBackgroundWorker(&raw mut worker) };
    }
}

// The server finds these functions by their names.

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_cache_launcher(_nothing: pg_sys::Datum) {
    connect(0);
    if let Some(mains) = MAINS.get() {
        (mains.launcher)();
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_cache_worker(database: pg_sys::Datum) {
    let database = database.value() as u32;
    connect(database);
    if let Some(mains) = MAINS.get() {
        (mains.worker)(database);
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_cache_redis(_nothing: pg_sys::Datum) {
    thread::end_without_destructors();
    connect(0);
    if let Some(mains) = MAINS.get() {
        (mains.redis)();
    }
}

#[pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn pg_cache_warmer(database: pg_sys::Datum) {
    let owner = Owner { database: database.value() as u32, role: number().unwrap_or_default() as u32 };
    connect_as(owner.database, owner.role);
    if owner.role != 0 {
        environment::separate_read_only(&SHOWN_READ_ONLY);
        // A session of a client loads these libraries when it begins. Their settings may be a part of the environment of a query.
        // SAFETY: the server's own function, in a transaction, as in a session.
        unsafe {
            pg_sys::StartTransactionCommand();
            pg_sys::process_session_preload_libraries();
            pg_sys::CommitTransactionCommand();
        }
    }
    if let Some(mains) = MAINS.get() {
        (mains.warmer)(owner);
    }
}

/// A worker that this process has started.
#[derive(Debug)]
pub struct Started {
    handle: *mut pg_sys::BackgroundWorkerHandle,
    /// The OID of its database; 0 for the Redis worker.
    pub database: u32,
}

/// Starts a worker for a database, with a number that [`number`] returns in the worker; 0 stands for none. None if the server has
/// no free slot for a worker.
pub fn start(database: u32, number: u64) -> Option<Started> {
    let worker = describe(c"pg_cache worker", c"pg_cache_worker", pg_sys::BGW_NEVER_RESTART, database);
    register_dynamic(numbered(worker, number), database)
}

/// Starts a worker that runs the warmers of a role in a database, or, with role 0, finds the roles that have warmers there. None if
/// the server has no free slot for a worker.
pub fn start_warmer(owner: Owner) -> Option<Started> {
    let worker = describe(c"pg_cache warmer", c"pg_cache_warmer", pg_sys::BGW_NEVER_RESTART, owner.database);
    register_dynamic(numbered(worker, owner.role.into()), owner.database)
}

/// Gives a worker a number that [`number`] returns in it.
fn numbered(mut worker: pg_sys::BackgroundWorker, number: u64) -> pg_sys::BackgroundWorker {
    for (to, from) in worker.bgw_extra.iter_mut().zip(number.to_ne_bytes()) {
        *to = from as std::ffi::c_char;
    }
    worker
}

/// Starts the Redis worker. None if the server has no free slot for a worker.
pub fn start_redis() -> Option<Started> {
    register_dynamic(describe(c"pg_cache redis", c"pg_cache_redis", pg_sys::BGW_NEVER_RESTART, 0), 0)
}

fn register_dynamic(mut worker: pg_sys::BackgroundWorker, database: u32) -> Option<Started> {
    worker.bgw_notify_pid = session::pid() as i32;
    let mut handle = std::ptr::null_mut();
    // SAFETY: the server copies the description, and allocates the handle in the current memory context.
    let registered = unsafe { pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle) };
    registered.then_some(Started { handle, database })
}

impl Started {
    /// Returns whether the worker has ended.
    pub fn is_over(&self) -> bool {
        let mut pid = 0;
        // SAFETY: the handle that the server has given to this process.
        let status = unsafe { pg_sys::GetBackgroundWorkerPid(self.handle, &raw mut pid) };
        status == pg_sys::BgwHandleStatus::BGWH_STOPPED
            || status == pg_sys::BgwHandleStatus::BGWH_POSTMASTER_DIED
    }

    /// Asks the worker to end.
    pub fn end(&self) {
        // SAFETY: as above.
        unsafe { pg_sys::TerminateBackgroundWorker(self.handle) };
    }
}

/// Connects this worker to a database, or to none if `database` is 0. Ends the process with an error if the database cannot be
/// used.
fn connect(database: u32) {
    connect_as(database, 0);
}

/// Connects this worker to a database as a role, with the settings that a session of the role in the database has. Role 0 is the
/// superuser of the cluster. Database 0 means no database. Ends the process with an error if the role may not log in, or may not
/// use the database.
fn connect_as(database: u32, role: u32) {
    // SAFETY: the first calls of a background worker, in the order that the server's own workers use.
    unsafe {
        pqsignal(pg_sys::SIGHUP as i32, Some(SignalHandlerForConfigReload));
        pqsignal(pg_sys::SIGTERM as i32, Some(die));
        pg_sys::BackgroundWorkerUnblockSignals();
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database.into(), role.into(), 0);
    }
}

/// Returns the number that this worker was started with. None if there is none.
pub fn number() -> Option<u64> {
    let mut bytes = [0; 8];
    // SAFETY: the server sets the pointer in each background worker, before it calls the worker's main function.
    let entry = unsafe { pg_sys::MyBgworkerEntry.as_ref() }?;
    for (to, from) in bytes.iter_mut().zip(&entry.bgw_extra) {
        *to = *from as u8;
    }
    Some(u64::from_ne_bytes(bytes)).filter(|number| *number > 0)
}

/// Waits for some time, or until another process or a signal wakes this one. Raises an error if the worker must end.
pub fn wait(time: Duration) {
    let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
    // SAFETY: this process's own latch. The server's function handles what a signal has asked for.
    unsafe {
        pg_sys::WaitLatch(
            pg_sys::MyLatch,
            events as i32,
            time.as_millis() as std::ffi::c_long,
            pg_sys::PG_WAIT_EXTENSION,
        );
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    attend();
}

/// Does what signals have asked for: ends the worker, absorbs barriers, reads the configuration again.
pub fn attend() {
    pgrx::check_for_interrupts!();
    // SAFETY: a flag of this process, and the server's function for it, outside of a transaction.
    unsafe {
        if pg_sys::ConfigReloadPending != 0 {
            pg_sys::ConfigReloadPending = 0;
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Runs a function in a transaction of its own, which can write. The commit does not wait for the disk. Without [`attempt`] around
/// it, an error of the function ends the worker.
pub fn in_transaction<R>(work: impl FnOnce() -> R) -> R {
    // SAFETY: a worker outside of a transaction. The server's own workers do the same.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::synchronous_commit = pg_sys::SyncCommitLevel::SYNCHRONOUS_COMMIT_OFF as i32;
        // The database may have `default_transaction_read_only = on`.
        pg_sys::XactReadOnly = false;
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        pg_sys::CommitTransactionCommand();
        result
    }
}

/// Begins to watch whether the present statement waits for a lock. Such a wait must not keep the worker from its other work. The
/// setting `lock_timeout` cannot be used instead, for two reasons: a query can read the setting, and a function that catches all
/// errors would catch its error. It cannot catch the cancelling of a statement.
fn watch_locks() {
    HAS_GIVEN_UP.store(false, Ordering::Relaxed);
    SIGHTINGS.store(0, Ordering::Relaxed);
    let patience = match HAD_GIVEN_UP.load(Ordering::Relaxed) {
        true => LOCK_PATIENCE_MIN_MS,
        false => LOCK_PATIENCE_MS,
    };
    let pause = patience / 2;
    // SAFETY: the server's own functions. The handler stays loaded as long as the process lives.
    unsafe {
        if LOCK_WATCH.load(Ordering::Relaxed) == 0 {
            LOCK_WATCH.store(RegisterTimeout(ANY_TIMEOUT, look_at_lock), Ordering::Relaxed);
        }
        let first = pg_sys::GetCurrentTimestamp() + i64::from(pause) * 1000;
        enable_timeout_every(LOCK_WATCH.load(Ordering::Relaxed), first, pause);
    }
}

/// Cancels the present statement if this is the third look in a row that sees it wait for the same lock. The server calls this
/// function in the handler of a signal, and sets the latch of the process.
unsafe extern "C" fn look_at_lock() {
    // SAFETY: this process's own entry, which lives as long as the process. Only this process writes the pointer while it does not
    // wait, and the pointer is not followed. The handler only sets flags.
    unsafe {
        let lock = (*pg_sys::MyProc).waitLock;
        if lock.is_null() || AWAITED.swap(lock, Ordering::Relaxed) != lock {
            SIGHTINGS.store(u32::from(!lock.is_null()), Ordering::Relaxed);
        } else if SIGHTINGS.fetch_add(1, Ordering::Relaxed) >= 2 {
            HAS_GIVEN_UP.store(true, Ordering::Relaxed);
            pg_sys::QueryCancelPending = 1;
            pg_sys::InterruptPending = 1;
        }
    }
}

/// Ends [`watch_locks`]. Returns whether the statement was cancelled.
fn end_lock_watch() -> bool {
    let has_given_up = HAS_GIVEN_UP.swap(false, Ordering::Relaxed);
    HAD_GIVEN_UP.store(has_given_up, Ordering::Relaxed);
    if has_given_up {
        // The statement may have ended before it noticed.
        // SAFETY: a flag of this process.
        unsafe { pg_sys::QueryCancelPending = 0 };
    }
    has_given_up
}

/// Runs a function in a transaction of its own, as a session runs a statement of its client: with READ COMMITTED, READ ONLY, and
/// with the session's `statement_timeout`. No setting is changed. `pg_stat_activity` shows `activity`, or an idle session without
/// it. With an activity, the statement is cancelled if it waits for a lock for more than about a second. Must be called inside
/// [`attempt_statement`], which also ends the timeouts and the watch after an error.
pub fn as_statement<R>(activity: Option<&CStr>, work: impl FnOnce() -> R) -> R {
    use pg_sys::BackendState::{STATE_IDLE, STATE_RUNNING};
    // SAFETY: a worker outside of a transaction. Follows the server's own sessions.
    unsafe {
        pg_sys::SetCurrentStatementStartTimestamp();
        pg_sys::StartTransactionCommand();
        pg_sys::XactIsoLevel = pg_sys::XACT_READ_COMMITTED as c_int;
        SHOWN_READ_ONLY.store(pg_sys::DefaultXactReadOnly, Ordering::Relaxed);
        pg_sys::XactReadOnly = true;
        if let Some(text) = activity {
            pg_sys::pgstat_report_activity(STATE_RUNNING, text.as_ptr());
            if pg_sys::StatementTimeout > 0 {
                enable_timeout_after(STATEMENT_TIMEOUT, pg_sys::StatementTimeout);
            }
            watch_locks();
        }
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let result = work();
        pg_sys::PopActiveSnapshot();
        if activity.is_some() {
            disable_timeout(STATEMENT_TIMEOUT, false);
            disable_timeout(LOCK_WATCH.load(Ordering::Relaxed), false);
            end_lock_watch();
        }
        pg_sys::CommitTransactionCommand();
        if activity.is_some() {
            pg_sys::pgstat_report_stat(false);
            pg_sys::pgstat_report_activity(STATE_IDLE, std::ptr::null());
        }
        result
    }
}

/// Runs a function that calls [`as_statement`]. If it raises an error, aborts the transaction and returns the error. Logs nothing.
pub fn attempt_statement<R>(work: impl FnOnce() -> R) -> Result<R, Failure> {
    // SAFETY: a variable of the server. Frames that an error leaves on the stack of contexts are gone with their functions.
    let contexts = unsafe { pg_sys::error_context_stack };
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|caught| match caught {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => {
                // SAFETY: as in `recover`. The order is that of the server's sessions.
                unsafe {
                    pg_sys::error_context_stack = contexts;
                    disable_all_timeouts(false);
                    pg_sys::AbortOutOfAnyTransaction();
                    pg_sys::pgstat_report_stat(false);
                    pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
                }
                let failure = Failure::of(&report);
                Err(match end_lock_watch() && failure.code == SqlState::QUERY_CANCELED {
                    true => Failure {
                        code: SqlState::LOCK_NOT_AVAILABLE,
                        message: "the run has waited too long for a lock".to_owned(),
                    },
                    false => failure,
                })
            }
            other => other.rethrow(),
        })
        .execute()
}

/// Releases the advisory locks of this session. A transaction does not release them at its end.
pub fn release_advisory_locks() {
    // SAFETY: the server's own function, which needs no transaction.
    unsafe { pg_sys::LockReleaseSession(pg_sys::USER_LOCKMETHOD as _) };
}

/// Runs a function. If it raises an error, aborts the transaction that the function has begun, and logs the error.
pub fn attempt<R>(work: impl FnOnce() -> R) -> Result<R, SqlState> {
    // A panic of Rust code is a bug: it goes on and ends the worker.
    PgTryBuilder::new(AssertUnwindSafe(|| Ok(work())))
        .catch_others(|caught| match caught {
            CaughtError::PostgresError(report) | CaughtError::ErrorReport(report) => Err(recover(&report)),
            other => other.rethrow(),
        })
        .execute()
}

/// Ends the transaction in which an error was raised, and logs the error.
fn recover(report: &ErrorReportWithLevel) -> SqlState {
    // A cancellation was meant for what has just failed. Reporting an error handles interrupts, so another cancellation would raise
    // an error here, where nothing catches it, and end the worker.
    // SAFETY: follows the server's own sessions and workers. The error is no longer on the server's stack of errors. The abort
    // releases all locks, pins and memory, and leaves the worker outside of a transaction. No error can be raised before interrupts
    // are handled again, and an error would reset the count.
    unsafe {
        pg_sys::InterruptHoldoffCount += 1;
        pg_sys::QueryCancelPending = 0;
        pg_sys::AbortOutOfAnyTransaction();
    }
    let mut logged = ErrorReport::new(report.sql_error_code(), report.message().to_owned(), "pg_cache");
    if let Some(detail) = report.detail() {
        logged = logged.set_detail(detail.to_owned());
    }
    logged.report(PgLogLevel::LOG);
    // SAFETY: as above.
    unsafe { pg_sys::InterruptHoldoffCount -= 1 };
    SqlState(report.sql_error_code() as u32)
}

/// Writes a line to the log. A line that repeats an earlier one is written only with `log_min_messages = debug1`.
pub fn log(is_repeated: bool, text: impl FnOnce() -> String) {
    match is_repeated {
        true => pgrx::debug1!("{}", text()),
        false => pgrx::log!("{}", text()),
    }
}

/// Returns the name of a database, or its OID if it is gone. Must run in a transaction.
pub fn database_name(oid: u32) -> String {
    // SAFETY: looks up a catalog. The result is null, or a string in the current memory context.
    let name = unsafe { pg_sys::get_database_name(oid.into()) };
    if name.is_null() {
        return oid.to_string();
    }
    // SAFETY: as above.
    shown(unsafe { CStr::from_ptr(name) }.to_bytes()).into_owned()
}

/// A database, as its row in the catalog says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Database {
    pub oid: u32,
    pub accepts_connections: bool,
    /// Whether any role with CREATEDB may copy the database.
    pub is_template: bool,
    /// The name, in an encoding that is not known.
    pub name: Vec<u8>,
    pub is_utf8: bool,
}

/// Returns the OIDs of all databases, and whether each accepts connections. Must run in a transaction.
pub fn databases() -> Vec<(u32, bool)> {
    memory::collect(all_databases().into_iter().map(|database| (database.oid, database.accepts_connections)))
}

/// Returns whether any role with CREATEDB may copy this process's database. Must run in a transaction.
pub fn is_in_template() -> bool {
    all_databases().iter().any(|database| database.oid == shared::database() && database.is_template)
}

/// Returns all databases. Must run in a transaction.
pub fn all_databases() -> Vec<Database> {
    let mut found = Vec::new();
    // SAFETY: scans a catalog as the server does. A tuple is valid until the next one is fetched.
    unsafe {
        let lock = pg_sys::AccessShareLock as i32;
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, lock);
        let scan = pg_sys::systable_beginscan(
            relation,
            pg_sys::InvalidOid,
            false,
            std::ptr::null_mut(),
            0,
            std::ptr::null_mut(),
        );
        loop {
            let tuple = pg_sys::systable_getnext(scan);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::heap_tuple_get_struct::<pg_sys::FormData_pg_database>(tuple);
            let database = Database {
                oid: form.oid.to_u32(),
                accepts_connections: form.datallowconn,
                is_template: form.datistemplate,
                name: memory::copy(CStr::from_ptr(form.datname.data.as_ptr()).to_bytes()),
                is_utf8: form.encoding == pg_sys::pg_enc::PG_UTF8 as i32,
            };
            memory::push(&mut found, database);
        }
        pg_sys::systable_endscan(scan);
        pg_sys::table_close(relation, lock);
    }
    found
}

/// For how long a database stays closed to workers after a command has asked them to leave. The command holds a lock on the
/// database afterwards, on which a new worker waits.
const CLOSED_MS: u64 = 10_000;
/// How long a command waits for the workers of a database to leave.
const LEAVE_MS: u64 = 5_000;

/// Returns whether a database is closed to workers now. A slot may have a closed database: the word `database : 32 | tick : 32`
/// (`worker_slot.rs`), where the tick ends the closing.
pub fn is_closed(database: u32) -> bool {
    shared::worker_slots().any(|slot| {
        let closed = slot.closed.load(Ordering::Relaxed);
        (closed >> 32) as u32 == database && closed as u32 > shared::tick()
    })
}

/// Returns how many workers of databases are alive.
pub fn workers() -> usize {
    let is_alive = |slot: &&WorkerSlot| {
        let database = slot.database.load(Ordering::Acquire);
        database != 0 && session::is_worker_of(slot.pid.load(Ordering::Acquire), database)
    };
    shared::database_slots().filter(is_alive).count()
}

/// Returns whether a worker of a database is alive, other than the one with this process ID. A worker that runs warmers does not
/// count.
pub fn has_worker(database: u32, except: u32) -> bool {
    shared::database_slots().any(|slot| {
        let pid = slot.pid.load(Ordering::Acquire);
        pid != except
            && slot.database.load(Ordering::Acquire) == database
            && session::is_worker_of(pid, database)
    })
}

/// Closes a database to workers for [`CLOSED_MS`], tells its workers to end, and waits until they have left, but at most for
/// [`LEAVE_MS`]. The workers of all kinds count, also those that run warmers. If every slot has a closed database, this one stays
/// open, but its workers still end. Raises an error if the command is cancelled meanwhile.
pub fn close(database: u32) {
    let closed = u64::from(database) << 32 | u64::from(shared::tick_in(CLOSED_MS));
    let has_closed_it = |word: u64| (word >> 32) as u32 == database;
    let is_free = |word: u64| word as u32 <= shared::tick();
    // Another command may take the slot at the same time, so no slot is written that has changed since it was read.
    let close_in_one = |may_take: &dyn Fn(u64) -> bool| {
        let take = |word| may_take(word).then_some(closed);
        shared::worker_slots()
            .any(|slot| slot.closed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, take).is_ok())
    };
    let _ = close_in_one(&has_closed_it) || close_in_one(&is_free);
    let patience = Instant::now();
    let is_its = |slot: &WorkerSlot| {
        let pid = slot.pid.load(Ordering::Acquire);
        (slot.database.load(Ordering::Acquire) == database && session::is_worker_of(pid, database))
            .then_some(pid)
    };
    while let Some(pid) = shared::worker_slots().find_map(is_its)
        && patience.elapsed().as_millis() < u128::from(LEAVE_MS)
    {
        session::terminate(pid);
        shared::check_for_interrupts();
        std::thread::sleep(Duration::from_millis(10));
    }
}
