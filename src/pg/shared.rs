//! Shared memory: requested before the server creates it, formatted by the postmaster, and attached by every backend.
//!
//! ```text
//! control   when the clock began | seed | epoch | timeline          one cache line, `Control`
//! queues    sessions that wait for a key                            condition.rs
//! names     tags that were invalidated lately                       name_slot.rs
//! sleepers  background workers that wait for changes                sleepers.rs
//! redis     the state of the Redis worker                            redis_state.rs
//! warmers   the owners of warmers, and the runs of warmers            warm_list.rs
//! observed  the figures of observed statements                         observed.rs
//! workers   the background workers, and the databases closed to them   worker_slot.rs
//! region    the hot tier with its fences                            pg_cache_core
//! waits     for whom each backend waits                             deadlock.rs
//! ```
//!
//! The *tier* is the cache in shared memory: the entries, and the words of *fences* that tell when something has changed on which
//! entries depend (`docs/architecture.md`). A separate piece of shared memory holds the records of prepared transactions
//! (`prepared.rs`).
//!
//! Only the postmaster writes the control line, before any backend exists. It never changes until shared memory is created anew.
//! Each *shard*, a part of the tier with its own entries, has a lightweight lock of the server. The table of observed statements has
//! one, too, the last one of the tranche.
//!
//! After a clean shutdown, the postmaster saves the region and the records of prepared transactions to a file, and at the next
//! start it reads them from there (`restart.rs`). The epoch is drawn anew at each start: leases end with the server.
//!
//! After a crash the postmaster creates shared memory anew and calls the start-up hook again. The hook formats the memory again, so
//! the cache is empty.

#![allow(unsafe_code)]

use super::condition::Condition;
use super::local::check_thread;
use super::name_slot::{NAME_SLOTS, Slot};
use super::observed::Observed;
use super::redis_state::RedisState;
use super::sleepers::Sleepers;
use super::warm_list::WarmList;
use super::worker_slot::{DATABASE_SLOTS, WORKER_SLOTS, WorkerSlot};
use super::{clock, crashes, prepared, restart, settings};
use pg_cache_core::{FenceId, Host, Region, Sizes, Tier};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int};
use std::sync::atomic::{AtomicI64, AtomicPtr, AtomicU64, Ordering};
use std::time::{Duration, Instant};

unsafe extern "C" {
    /// These functions are called without pgrx's guard, which costs more than the lock itself: a change of a key takes and releases
    /// two locks, and so does a commit that has written. They raise an error only if 200 locks are held, or if the lock to release
    /// is not held.
    pub(super) fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    pub(super) fn LWLockRelease(lock: *mut pg_sys::LWLock);
    /// Also called without the guard: on a standby it runs at each end of a transaction.
    fn RecoveryInProgress() -> bool;
}

/// The name of the shared memory and of the tranche of its locks.
const NAME: &CStr = c"pg_cache";
/// The bytes of a cache line.
const LINE: usize = 64;

/// The number of fences for databases (up to five each), spaces (one each) and the roles of the server. Each fence comes with a
/// cell of statistics, and both together take 704 bytes. When all are taken, further databases and spaces share fences.
const RESERVED_FENCES: u32 = 1024;
/// The number of relations that have a fence and counters of their own, 64 bytes each. Further ones share.
const RELATION_FENCES: u32 = 8192;
/// The number of patterns that can be kept. Each takes 1056 bytes.
const PATTERNS: u32 = 1024;

/// The values that the postmaster stores before any backend exists.
#[repr(C, align(64))]
struct Control {
    /// When the clock began, see `clock.rs`.
    began_ms: AtomicU64,
    /// The time of `began_ms`, as the server counts it: microseconds since 2000.
    began_at: AtomicI64,
    /// The seed of the hashes by which keys and tags are found.
    hash_seed: AtomicU64,
    /// See [`epoch`].
    epoch: AtomicU64,
    /// The timeline of the database that a saved cache belongs to; 0 if the cache was empty when the server started.
    timeline: AtomicU64,
}

/// The number of queues: enough that waiting sessions are rarely woken by changes of other keys.
pub const QUEUES: usize = 128;

/// An epoch has 31 bits: it is the upper half of the number of a lease, which is a positive bigint (`store/flights.rs`).
const EPOCH_MASK: u64 = (1 << 31) - 1;

/// The control line; null if there is no cache. The postmaster sets it, and each backend inherits it.
static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());
/// This backend's tier. Never set in the postmaster, so that no backend inherits it.
static TIER: AtomicPtr<Tier<'static, Backend>> = AtomicPtr::new(std::ptr::null_mut());

/// The tier as the whole library uses it.
pub type HotTier = Tier<'static, Backend>;

/// The services of the server that the core uses.
#[derive(Debug)]
pub struct Backend {
    /// An array with a lock for each shard.
    locks: *mut pg_sys::LWLockPadded,
    /// The number of locks.
    shards: u32,
    /// When the clock began, see `clock.rs`.
    began_ms: u64,
}

// SAFETY: the locks are in shared memory and made for concurrent use. Only the session's thread acquires and releases them
// (`lock_of`).
unsafe impl Send for Backend {}
// SAFETY: as above.
unsafe impl Sync for Backend {}

impl Host for Backend {
    #[inline]
    fn now(&self) -> u32 {
        clock::tick(self.began_ms)
    }

    fn moment(&self) -> u64 {
        clock::statement_clock()
    }

    fn lock(&self, shard: u32) {
        // SAFETY: a lock of the tranche. Only the core has a Backend. It holds one lock at a time and calls no function of the
        // server while it holds one. So no other process can wait for us in a cycle, and no error can leave the lock held.
        unsafe { LWLockAcquire(self.lock_of(shard), pg_sys::LWLockMode::LW_EXCLUSIVE) };
    }

    fn unlock(&self, shard: u32) {
        // SAFETY: as in `lock`; the core releases the lock that it has acquired.
        unsafe { LWLockRelease(self.lock_of(shard)) };
    }

    fn pause(&self) {
        check_for_interrupts();
        std::thread::sleep(PAUSE);
    }
}

/// How long a check waits before it looks again. It is longer than a commit takes, and than a descheduled session waits for a
/// processor.
const PAUSE: Duration = Duration::from_millis(50);

impl Backend {
    /// Makes the host of this process's tier.
    ///
    /// # Safety
    /// Shared memory must exist and contain a lock for each of `shards` shards, as [`request`] asks for.
    unsafe fn new(shards: u32, began_ms: u64) -> Self {
        // SAFETY: as the caller promises.
        Self { locks: unsafe { pg_sys::GetNamedLWLockTranche(NAME.as_ptr()) }, shards, began_ms }
    }

    /// Returns the lock of a shard. The core reads the number of shards from shared memory, which may be damaged: shards beyond the
    /// last lock share that lock.
    fn lock_of(&self, shard: u32) -> *mut pg_sys::LWLock {
        check_thread();
        let index = shard.min(self.shards.saturating_sub(1)) as usize;
        // SAFETY: within the tranche, which has a lock for each shard, and at least one. A padded lock begins with the lock.
        unsafe { &raw mut (*self.locks.add(index)).lock }
    }
}

/// Installs the hooks in which the server sizes and creates its shared memory. Must be called while the server loads the library.
pub fn hook() {
    // SAFETY: the postmaster runs this alone, before it has children. Our hooks call the previous hooks first.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(start_up);
    }
}

// The hooks that were installed before ours, if any.
static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

/// Returns the sizes of the tier. They depend only on settings that cannot change while the server runs, so each process computes
/// the same.
fn sizes() -> Sizes {
    let fences = Sizes {
        bytes: 0,
        reserved_fences: RESERVED_FENCES,
        relation_fences: RELATION_FENCES,
        tag_fences: settings::fence_slots(),
        // The numbers of backends begin with 0 (`slot`), so the last slot stays unused.
        // SAFETY: the server's own limit of backends, which it sets before it asks for sizes.
        backends: unsafe { pg_sys::MaxBackends } as u32 + 1,
        shards: 0,
        locations: settings::table_entries(),
        journal_lines: settings::journal_lines(),
        patterns: PATTERNS,
    };
    // The setting is the memory for entries. The structures beside the entries come on top.
    Sizes { bytes: settings::hot_bytes() + Tier::<Backend>::bytes_beside_entries(fences), ..fences }
}

/// Returns the bytes to request: for the tier, its control line, the queues, the names, the workers with their sleepers, the state
/// of Redis, the list of warmers and the observed statements, the waits of backends, and the alignment to a cache line.
fn bytes(sizes: Sizes) -> usize {
    let queues = QUEUES * size_of::<Condition>();
    let workers = WORKER_SLOTS * size_of::<WorkerSlot>() + size_of::<Sleepers>() + size_of::<RedisState>();
    let workers = workers + size_of::<WarmList>() + size_of::<Observed>();
    let waits = (sizes.backends as usize + 1) * size_of::<AtomicU64>();
    sizes.bytes + size_of::<Control>() + queues + NAME_SLOTS * size_of::<Slot>() + workers + waits + LINE
}

/// Calls the previous hook, if there is one.
///
/// # Safety
/// `previous` must be a hook, and the server would call it at this moment.
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe fn call(previous: Option<unsafe extern "C-unwind" fn()>) {
    if let Some(previous) = previous {
        // SAFETY: as the caller promises.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
}

/// Asks the server for memory and locks. If the settings allow no tier, the server does not start.
#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: the server calls this hook alone, in the postmaster. `hook` has stored the previous hook.
    unsafe { call(PREVIOUS_REQUEST) };
    if settings::hot_bytes() == 0 {
        return;
    }
    let sizes = sizes();
    let shards = match Tier::<Backend>::shards_of(sizes) {
        Ok(shards) => shards,
        Err(error) => {
            ereport!(
                PgLogLevel::FATAL,
                PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE,
                format!("pg_cache cannot use shared memory of that size: {error}"),
                "Set pg_cache.hot_size and pg_cache.fence_slots to other values."
            );
            return;
        }
    };
    // SAFETY: the server allows these requests in this hook.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes(sizes));
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), shards as i32 + 1);
    }
    prepared::request();
}

/// Formats the memory, and reads the saved cache into it if there is one and it fits. Runs in the postmaster, at its start and
/// again after a crash.
#[pg_guard]
unsafe extern "C-unwind" fn start_up() {
    // SAFETY: the server calls this hook alone, in the postmaster. `hook` has stored the previous hook.
    unsafe { call(PREVIOUS_STARTUP) };
    CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
    if settings::hot_bytes() == 0 {
        return;
    }
    let sizes = sizes();
    let mut found = false;
    // SAFETY: the size that was requested. No other process exists yet, so this needs no lock.
    let start = unsafe { pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(sizes), &raw mut found) }.cast::<u8>();
    // SAFETY: the requested size includes the bytes for the alignment.
    let control = unsafe { start.add(start.align_offset(LINE)) }.cast::<Control>();
    // SAFETY: aligned, large enough, and not used by any other code. Every bit pattern is a valid Control.
    let words = unsafe { &*control };
    words.began_ms.store(clock::now_ms(), Ordering::Relaxed);
    // SAFETY: only reads the system's clock.
    words.began_at.store(unsafe { pg_sys::GetCurrentTimestamp() }, Ordering::Relaxed);
    words.hash_seed.store(random(), Ordering::Relaxed);
    words.epoch.store((random() & EPOCH_MASK).max(1), Ordering::Relaxed);
    words.timeline.store(0, Ordering::Relaxed);
    for index in 0..QUEUES {
        // SAFETY: the requested size includes the queues, and no other process exists yet.
        unsafe { (*queues(control).add(index)).format() };
    }
    for index in 0..NAME_SLOTS {
        // SAFETY: the same holds for the names.
        unsafe { (*names(control).add(index)).format() };
    }
    // SAFETY: the same holds for the sleepers, the state of Redis, the list of warmers and the observed statements.
    unsafe {
        (*sleepers(control)).format();
        (*redis_state_at(control)).clear(0);
        (*warm_list_at(control)).format();
        (*observed_at(control)).format();
    }
    // SAFETY: as above.
    let list = unsafe { &*warm_list_at(control) };
    crashes::start_up(list, |ms| clock::tick_in(words.began_ms.load(Ordering::Relaxed), ms));
    for index in 0..WORKER_SLOTS {
        // SAFETY: the same holds for the slots of workers.
        unsafe { (*workers(control).add(index)).format() };
    }
    for index in 0..sizes.backends as usize {
        // SAFETY: the same holds for the waits.
        unsafe { (*waits_at(control, sizes).add(index)).store(0, Ordering::Relaxed) };
    }
    prepared::start_up();
    // SAFETY: no other process exists yet, and the postmaster uses the memory in no other way meanwhile.
    unsafe {
        if load(control, sizes) {
            CONTROL.store(control, Ordering::Relaxed);
            pg_sys::on_shmem_exit(Some(save), pg_sys::Datum::null());
            return;
        }
    }
    let began_ms = words.began_ms.load(Ordering::Relaxed);
    let formatted = Tier::<Backend>::shards_of(sizes).and_then(|shards| {
        // SAFETY: the memory and the locks that `request` has asked for, computed from the same settings.
        let host = unsafe { Backend::new(shards, began_ms) };
        Tier::format(region(control, sizes)?, sizes, host, 0).map(|_| ())
    });
    match formatted {
        Ok(()) => {
            CONTROL.store(control, Ordering::Relaxed);
            // SAFETY: the function stays loaded as long as the postmaster runs. The server forgets it after a crash, and calls this
            // hook again.
            unsafe { pg_sys::on_shmem_exit(Some(save), pg_sys::Datum::null()) };
        }
        Err(error) => pgrx::warning!("pg_cache is switched off: {error}"),
    }
}

/// The host while the postmaster has no children: there is no process to exclude.
#[derive(Debug)]
struct Alone {
    began_ms: u64,
}

impl Host for Alone {
    fn now(&self) -> u32 {
        clock::tick(self.began_ms)
    }
    fn lock(&self, _shard: u32) {}
    fn unlock(&self, _shard: u32) {}
}

/// Makes the saved cache usable, if there is one and it fits. Returns false otherwise: the region must then be formatted.
///
/// # Safety
/// No other process may exist, and the caller must not use the region or the records of prepared transactions meanwhile.
unsafe fn load(control: *mut Control, sizes: Sizes) -> bool {
    let began = Instant::now();
    // SAFETY: as the caller promises; the memory was requested and is initialised: the kernel fills it with zeroes.
    let loaded = unsafe {
        let region = std::slice::from_raw_parts_mut(region_start(control), sizes.bytes);
        restart::load(region, prepared::bytes_mut())
    };
    let Some((state, began_ms)) = loaded else {
        prepared::clear();
        return false;
    };
    let mut raised = Vec::new();
    prepared::each_fence(|fence| raised.push(fence));
    let revived = region(control, sizes)
        .map_err(Into::into)
        .and_then(|region| Tier::revive(region, sizes, Alone { began_ms }, raised));
    match revived {
        Ok(tier) => {
            prepared::revive(|fence: FenceId| tier.fences().raise(fence));
            // SAFETY: `start_up` has made the control line, and no other process exists yet.
            let words = unsafe { &*control };
            words.began_at.fetch_sub(clock::ms_since(began_ms, 0) as i64 * 1000, Ordering::Relaxed);
            words.began_ms.store(began_ms, Ordering::Relaxed);
            words.hash_seed.store(state.hash_seed, Ordering::Relaxed);
            words.timeline.store(state.timeline, Ordering::Relaxed);
            restart::start_warm(began);
            true
        }
        Err(why) => {
            restart::start_empty(&why);
            prepared::clear();
            false
        }
    }
}

/// Saves the cache at the end of the postmaster. Also called before the postmaster creates shared memory anew after a crash: then
/// saves nothing, and remembers which warmers ran. Raises no error.
#[pg_guard]
unsafe extern "C-unwind" fn save(code: c_int, _nothing: pg_sys::Datum) {
    let control = CONTROL.load(Ordering::Relaxed);
    if control.is_null() || !restart::is_postmaster() {
        return;
    }
    if code != 0 {
        // A process has crashed, and the postmaster ends or creates shared memory anew.
        // SAFETY: the server releases shared memory after this call. All bit patterns are valid.
        crashes::remember(unsafe { &*warm_list_at(control) });
        return;
    }
    let sizes = sizes();
    let began_ms = began_ms();
    let Ok(tier) = region(control, sizes).and_then(|region| Tier::attach(region, Alone { began_ms }, 0))
    else {
        return;
    };
    // SAFETY: the postmaster ends after its children, so no process writes the memory any more. Shared memory is released after
    // this call.
    let (region, records) =
        unsafe { (std::slice::from_raw_parts(region_start(control), sizes.bytes), prepared::bytes_mut()) };
    restart::save(began_ms, hash_seed(), region, records, |part| tier.is_in_use(part));
}

/// Returns a random number of 64 bits.
fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: writes the eight bytes of the buffer. If there is no source of randomness, the time serves instead.
    let drawn = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if drawn { u64::from_ne_bytes(bytes) } else { clock::now_ms() }
}

/// Returns the region, which has the size in `sizes`.
fn region(control: *mut Control, sizes: Sizes) -> Result<Region<'static>, pg_cache_core::RegionError> {
    // SAFETY: the requested bytes follow the control line, the queues, the names and the workers. Shared memory exists as long as
    // the process does; a process that detaches from it does not call this code any more. Only regions access this memory.
    unsafe { Region::from_raw(region_start(control), sizes.bytes) }
}

/// Returns the start of the region, which follows the workers.
fn region_start(control: *mut Control) -> *mut u8 {
    workers(control).wrapping_add(WORKER_SLOTS).cast()
}

// The parts of shared memory follow each other in the order of the table at the head of this file.

fn queues(control: *mut Control) -> *mut Condition {
    control.wrapping_add(1).cast()
}

fn names(control: *mut Control) -> *mut Slot {
    queues(control).wrapping_add(QUEUES).cast()
}

fn sleepers(control: *mut Control) -> *mut Sleepers {
    names(control).wrapping_add(NAME_SLOTS).cast()
}

fn redis_state_at(control: *mut Control) -> *mut RedisState {
    sleepers(control).wrapping_add(1).cast()
}

fn warm_list_at(control: *mut Control) -> *mut WarmList {
    redis_state_at(control).wrapping_add(1).cast()
}

fn observed_at(control: *mut Control) -> *mut Observed {
    warm_list_at(control).wrapping_add(1).cast()
}

fn workers(control: *mut Control) -> *mut WorkerSlot {
    observed_at(control).wrapping_add(1).cast()
}

fn waits_at(control: *mut Control, sizes: Sizes) -> *mut AtomicU64 {
    // The region is aligned to a cache line, and its size is a number of words.
    region_start(control).wrapping_add(sizes.bytes.next_multiple_of(size_of::<AtomicU64>())).cast()
}

/// Returns a word for each backend, by its slot: the process that it waits for (`deadlock.rs`). Empty if there is no cache.
pub fn waits() -> &'static [AtomicU64] {
    let control = CONTROL.load(Ordering::Relaxed);
    if control.is_null() {
        return &[];
    }
    let sizes = sizes();
    // SAFETY: `start_up` has formatted the words, and they exist as long as shared memory does. The sizes are those of `start_up`.
    unsafe { std::slice::from_raw_parts(waits_at(control, sizes), sizes.backends as usize) }
}

/// Returns the slot of the launcher. None if there is no cache.
pub fn launcher_slot() -> Option<&'static WorkerSlot> {
    worker_slots().next()
}

/// Returns the slot of the Redis worker. None if there is no cache.
pub fn redis_slot() -> Option<&'static WorkerSlot> {
    worker_slots().nth(1)
}

/// Returns the slots of the workers of databases.
pub fn database_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    worker_slots().skip(2).take(DATABASE_SLOTS)
}

/// Returns the slots of the workers that run warmers.
pub fn warmer_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    worker_slots().skip(2 + DATABASE_SLOTS)
}

/// Returns the list of warmers. None if there is no cache.
pub fn warm_list() -> Option<&'static WarmList> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted it, and it exists as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*warm_list_at(control) })
}

/// Calls `with` with the table of observed statements, while this process holds the table's lock. `with` must not call the server
/// and must not panic. Returns None if there is no cache, or if the server is in recovery.
pub fn with_observed<R>(with: impl FnOnce(&Observed) -> R) -> Option<R> {
    let shards = tier()?.shards();
    let control = CONTROL.load(Ordering::Relaxed);
    if control.is_null() {
        return None;
    }
    // SAFETY: the tranche has a lock for each shard and one more (`request`). The table was formatted by `start_up`, and exists as
    // long as shared memory does. This process holds no other lock of the tranche, and `with` raises no error.
    unsafe {
        let lock = &raw mut (*pg_sys::GetNamedLWLockTranche(NAME.as_ptr()).add(shards as usize)).lock;
        LWLockAcquire(lock, pg_sys::LWLockMode::LW_EXCLUSIVE);
        let result = with(&*observed_at(control));
        LWLockRelease(lock);
        Some(result)
    }
}

/// Returns what the Redis worker tells of itself. None if there is no cache.
pub fn redis_state() -> Option<&'static RedisState> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted it, and it exists as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*redis_state_at(control) })
}

/// Returns the slots of all background workers: the launcher's, the Redis worker's, those of the workers of databases, and those of
/// the workers that run warmers. There are none if there is no cache.
pub fn worker_slots() -> impl Iterator<Item = &'static WorkerSlot> {
    let control = CONTROL.load(Ordering::Relaxed);
    let count = if control.is_null() { 0 } else { WORKER_SLOTS };
    // SAFETY: `start_up` has formatted the slots, and they exist as long as shared memory does.
    (0..count).map(move |index| unsafe { &*workers(control).add(index) })
}

/// Asks that the next change in this process's database wakes this process; in a process without a database, the next change in any
/// database does. The process must look for changes between this call and its sleep. It must not rely on being woken: another
/// process may replace it.
pub fn wake_on_change() {
    if let Some(sleepers) = known_sleepers() {
        sleepers.arm(database(), slot());
    }
}

/// Wakes the processes that wait for changes in this database. The change must have been written to the journal before. Bounded,
/// cannot fail and does not allocate.
#[inline]
pub fn wake_sleepers() {
    if let Some(sleepers) = known_sleepers() {
        sleepers.take(database(), set_latch);
    }
}

#[inline]
fn known_sleepers() -> Option<&'static Sleepers> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted them, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*sleepers(control) })
}

#[cold]
fn set_latch(number: u32) {
    // SAFETY: a number of a process that has stored it itself. The list exists as long as shared memory does. The process may have
    // ended: then its place is free or belongs to another one, and a latch that is set for no reason does no harm.
    unsafe { pg_sys::SetLatch(&raw mut (*(*pg_sys::ProcGlobal).allProcs.add(number as usize)).procLatch) };
}

/// Returns the slot for the name of the tag that a fence belongs to. None if there is no cache.
pub fn name_slot(fence_number: u32) -> Option<&'static Slot> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted the slots, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*names(control).add(fence_number as usize % NAME_SLOTS) })
}

/// Returns the queue of the sessions that wait for a key with this hash. None if there is no cache.
pub fn queue(hash: u64) -> Option<&'static Condition> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has formatted the queues, and they exist as long as shared memory does.
    (!control.is_null()).then(|| unsafe { &*queues(control).add((hash % QUEUES as u64) as usize) })
}

/// Returns this backend's tier, and attaches it first if necessary. None if the cache is switched off, or if the server is in
/// recovery: then cached values could not be proved to be current.
#[inline]
pub fn tier() -> Option<&'static HotTier> {
    known_tier().or_else(attach)
}

/// Returns this backend's tier if it is attached already. Calls no function of the server.
#[inline]
pub fn known_tier() -> Option<&'static HotTier> {
    // SAFETY: the pointer is null, or `attach` has set it to a complete tier that is never freed.
    unsafe { TIER.load(Ordering::Acquire).as_ref() }
}

/// Returns whether there is a tier that this backend has not attached yet. Cannot fail, and raises no error.
#[inline]
pub fn is_tier_to_be_found() -> bool {
    known_tier().is_none() && is_there_one()
}

/// Returns whether this process can attach a tier: there is a cache, the server is not in recovery, and the process has an entry in
/// the server's process array.
#[cold]
fn is_there_one() -> bool {
    check_thread();
    // SAFETY: `RecoveryInProgress` raises no error, and `MyProc` is a plain global.
    !CONTROL.load(Ordering::Relaxed).is_null()
        && unsafe { !RecoveryInProgress() && !pg_sys::MyProc.is_null() }
}

/// Attaches this backend's tier. If the region is damaged or belongs to another timeline, warns and switches the cache off in this
/// process.
#[cold]
fn attach() -> Option<&'static HotTier> {
    if !is_there_one() {
        return None;
    }
    let control = CONTROL.load(Ordering::Relaxed);
    if has_left_timeline() {
        pgrx::warning!("pg_cache is switched off: the saved cache is that of another timeline");
        CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
        return None;
    }
    let began_ms = began_ms();
    let sizes = sizes();
    let tier = Tier::<Backend>::shards_of(sizes).and_then(|shards| {
        // SAFETY: as in `start_up`. The settings cannot change while the server runs.
        let host = unsafe { Backend::new(shards, began_ms) };
        Tier::attach(region(control, sizes)?, host, slot())
    });
    match tier {
        Ok(tier) => {
            TIER.store(Box::into_raw(Box::new(tier)), Ordering::Release);
            self::tier()
        }
        Err(error) => {
            pgrx::warning!("pg_cache is switched off: {error}");
            CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
            None
        }
    }
}

/// Returns whether the server has left the timeline that the saved cache belongs to. It cannot, unless a signal file appears just
/// when the server starts. The server must not be in recovery.
fn has_left_timeline() -> bool {
    let timeline = with_control(|control| control.timeline.load(Ordering::Relaxed));
    // SAFETY: the server has left recovery, so its timeline does not change any more.
    timeline != 0 && timeline != u64::from(unsafe { pg_sys::GetWALInsertionTimeLine() })
}

/// Returns whether the server is in recovery, for instance as a standby.
pub fn is_in_recovery() -> bool {
    check_thread();
    // SAFETY: reads whether recovery has ended, and raises no error.
    unsafe { RecoveryInProgress() }
}

/// Returns a random number, at least 0 and less than 1.
pub fn chance() -> f64 {
    check_thread();
    // SAFETY: this backend's own random state, which the server seeded when the backend started.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}

/// Raises an error here if the session was cancelled or terminated. The caller must not hold any lock.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// Returns a number of 31 bits that identifies the content of the memory tier: what belongs to other content is not to be trusted.
/// Unlike the [`epoch`], it stays the same across a clean restart that keeps the tier.
pub fn content_id() -> u32 {
    let seed = hash_seed();
    ((seed ^ seed >> 32) & EPOCH_MASK) as u32
}

/// Returns the epoch: a value that is constant until shared memory is created anew, and almost certainly another one after that. It
/// has 31 bits and is not 0; without a cache it is 0.
pub fn epoch() -> u64 {
    with_control(|control| control.epoch.load(Ordering::Relaxed))
}

/// Returns this backend's slot among all backends that may exist.
pub(super) fn slot() -> u32 {
    // SAFETY: `attach` has checked that we have an entry in the process array; its index never changes.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let slot = unsafe { (*pg_sys::MyProc).pgprocno };
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: a plain global.
    let slot = unsafe { pg_sys::MyProcNumber };
    slot as u32
}

/// Returns the present tick.
pub fn tick() -> u32 {
    clock::tick(began_ms())
}

/// Returns the tick at which a time to live ends that begins now.
pub fn tick_in(ms: u64) -> u32 {
    clock::tick_in(began_ms(), ms)
}

/// Converts milliseconds to ticks.
pub fn ticks(ms: u64) -> u32 {
    clock::ticks(ms)
}

/// Returns the first tick of which every moment is at most so many milliseconds ago. None if there is none.
pub fn tick_before(ms: u64) -> Option<u32> {
    clock::tick_before(began_ms(), ms)
}

/// Converts ticks to milliseconds.
pub fn ms_of(ticks: u32) -> u64 {
    clock::ms_of(ticks)
}

/// Returns the milliseconds since a tick.
pub fn ms_since(tick: u32) -> u64 {
    clock::ms_since(began_ms(), tick)
}

/// Returns the milliseconds from now until a tick.
pub fn ms_until(tick: u32) -> u64 {
    clock::ms_until(began_ms(), tick)
}

/// Returns the time at which a tick began, in microseconds since 2000. Each tick has one time, whenever it is asked for: if the
/// system's clock is set after the server has started, the times are those of the clock as it was set before.
pub fn time_of(tick: u32) -> pg_sys::TimestampTz {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: `start_up` has set the pointer to memory that exists as long as shared memory does.
    let began_at = if control.is_null() { 0 } else { unsafe { &*control }.began_at.load(Ordering::Relaxed) };
    began_at + clock::ms_of(tick) as i64 * 1000
}

/// Returns the present time, in microseconds since 2000.
pub fn time_now() -> pg_sys::TimestampTz {
    // SAFETY: only reads the system's clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Returns the OID of this session's database.
pub fn database() -> u32 {
    // SAFETY: a plain global, constant once a session has begun.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// Returns the seed of the hashes; all backends share it.
#[inline]
pub fn hash_seed() -> u64 {
    with_control(|control| control.hash_seed.load(Ordering::Relaxed))
}

/// Returns when the clock began (`clock.rs`).
fn began_ms() -> u64 {
    with_control(|control| control.began_ms.load(Ordering::Relaxed))
}

/// Returns a value from the control line, or 0 if there is no cache.
#[inline]
fn with_control(read: impl Fn(&Control) -> u64) -> u64 {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: as in `attach`.
    if control.is_null() { 0 } else { read(unsafe { &*control }) }
}
