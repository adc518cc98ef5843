//! Shared memory: asked for before the server starts, formatted when it stands, and found by every backend.
//!
//! ```text
//! control   when the clock of ticks began | seed of the hashes | epoch    a line
//! queues    who waits for a key                                  queue.rs
//! region    the hot tier with its fences                          pg_cache_core
//! ```
//!
//! A piece of its own holds what is known of prepared transactions (`prepared.rs`).
//!
//! The control line is written by the postmaster alone, before any backend exists, and never changes until the memory is
//! made anew. Locks are the server's own, one for each shard of the tier.
//!
//! After a crash the postmaster makes shared memory anew and calls the start-up hook again, which formats again: the cache is
//! empty.

#![allow(unsafe_code)]

use super::local::check_thread;
use super::queue::Queue;
use super::{clock, prepared, settings};
use pg_cache_core::{Host, Region, Sizes, Tier};
use pgrx::prelude::*;
use std::ffi::CStr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};
use std::time::Duration;

unsafe extern "C" {
    /// As they are: a change of a key takes and releases two locks, as does a commit that has written, and going through the guard
    /// for errors costs more than the lock. They raise an error only if two hundred are held, or one is not held that is released.
    pub(super) fn LWLockAcquire(lock: *mut pg_sys::LWLock, mode: pg_sys::LWLockMode::Type) -> bool;
    pub(super) fn LWLockRelease(lock: *mut pg_sys::LWLock);
    /// As it is, too: on a standby it is asked at each end of a transaction.
    fn RecoveryInProgress() -> bool;
}

const NAME: &CStr = c"pg_cache";
const LINE: usize = 64;

/// Databases and spaces that have a fence and statistics of their own, 512 bytes each; further ones share.
const RESERVED_FENCES: u32 = 1024;
/// Relations that have fences and figures of their own, 64 bytes each, likewise.
const RELATION_FENCES: u32 = 8192;

/// What the postmaster wrote down before anybody else existed.
#[repr(C, align(64))]
struct Control {
    began_ms: AtomicU64,
    hash_seed: AtomicU64,
    epoch: AtomicU64,
}

/// As many as sessions may wait for without often being woken by each other's keys.
pub const QUEUES: usize = 128;

const EPOCH_MASK: u64 = (1 << 31) - 1;

static CONTROL: AtomicPtr<Control> = AtomicPtr::new(std::ptr::null_mut());
/// This backend's tier. Never set in the postmaster, so that nobody inherits it.
static TIER: AtomicPtr<Tier<'static, Backend>> = AtomicPtr::new(std::ptr::null_mut());

/// The tier as all of the library uses it.
pub type HotTier = Tier<'static, Backend>;

/// The server, as far as the core has to know it.
#[derive(Debug)]
pub struct Backend {
    locks: *mut pg_sys::LWLockPadded,
    /// How many there are.
    shards: u32,
    began_ms: u64,
}

// SAFETY: the locks are shared memory, made to be used by many, and only the session's thread takes and releases them (`lock_of`).
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
        // SAFETY: a lock of the tranche. The core, which alone has a Backend, holds one at a time and calls nothing of the server
        // meanwhile, so nobody can be waiting for us in turn, and no error can leave it held.
        unsafe { LWLockAcquire(self.lock_of(shard), pg_sys::LWLockMode::LW_EXCLUSIVE) };
    }

    fn unlock(&self, shard: u32) {
        // SAFETY: as above; the core releases what it has acquired.
        unsafe { LWLockRelease(self.lock_of(shard)) };
    }

    fn pause(&self) {
        check_for_interrupts();
        std::thread::sleep(PAUSE);
    }
}

/// How long a check waits before it looks again: longer than a commit takes, or a session that has lost the processor waits for it.
const PAUSE: Duration = Duration::from_millis(50);

impl Backend {
    /// The tier of this process, as shared memory has it.
    ///
    /// # Safety
    /// Shared memory is there, with a lock for each of so many shards: as [`request`] has asked for.
    unsafe fn new(shards: u32, began_ms: u64) -> Self {
        // SAFETY: as the caller promises.
        Self { locks: unsafe { pg_sys::GetNamedLWLockTranche(NAME.as_ptr()) }, shards, began_ms }
    }

    /// The lock of a shard. The core reads in shared memory how many there are, which may be damaged: then shards share the last lock.
    fn lock_of(&self, shard: u32) -> *mut pg_sys::LWLock {
        check_thread();
        let place = shard.min(self.shards.saturating_sub(1)) as usize;
        // SAFETY: within the tranche, which has a lock for each shard, and at least one. A padded lock begins with the lock.
        unsafe { &raw mut (*self.locks.add(place)).lock }
    }
}

/// Has the server call us when it sizes and when it makes its shared memory. To be called while it loads us.
pub fn hook() {
    // SAFETY: the postmaster runs this alone, before it has children. Whoever was hooked before is called first.
    unsafe {
        PREVIOUS_REQUEST = pg_sys::shmem_request_hook;
        pg_sys::shmem_request_hook = Some(request);
        PREVIOUS_STARTUP = pg_sys::shmem_startup_hook;
        pg_sys::shmem_startup_hook = Some(start_up);
    }
}

static mut PREVIOUS_REQUEST: pg_sys::shmem_request_hook_type = None;
static mut PREVIOUS_STARTUP: pg_sys::shmem_startup_hook_type = None;

fn sizes() -> Sizes {
    let fences = Sizes {
        bytes: 0,
        reserved_fences: RESERVED_FENCES,
        relation_fences: RELATION_FENCES,
        tag_fences: settings::fence_slots(),
        // SAFETY: the server's own count of who may exist at once; it stands before sizes are asked for.
        counters: unsafe { pg_sys::MaxBackends } as u32 + 1,
        shards: 0,
    };
    // What is asked for is for entries; what belongs to them comes on top.
    Sizes { bytes: settings::hot_bytes() + Tier::<Backend>::bytes_beside_entries(fences), ..fences }
}

/// Bytes to ask for: the tier, its control line, the queues, and as much as it takes to begin on a line.
fn bytes(sizes: Sizes) -> usize {
    sizes.bytes + size_of::<Control>() + QUEUES * size_of::<Queue>() + LINE
}

/// Calls who was hooked before us.
///
/// # Safety
/// It is a hook, and this is the moment at which the server would call it.
#[allow(ffi_unwind_calls)] // Through the guard, with nothing to drop in between.
unsafe fn call(previous: Option<unsafe extern "C-unwind" fn()>) {
    if let Some(previous) = previous {
        // SAFETY: as the caller promises.
        unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| previous()) };
    }
}

#[pg_guard]
unsafe extern "C-unwind" fn request() {
    // SAFETY: as the server calls it: alone, in the postmaster. The previous hook was read in `hook`.
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
    // SAFETY: this is the hook in which one may ask.
    unsafe {
        pg_sys::RequestAddinShmemSpace(bytes(sizes));
        pg_sys::RequestNamedLWLockTranche(NAME.as_ptr(), shards as i32);
    }
    prepared::request();
}

#[pg_guard]
unsafe extern "C-unwind" fn start_up() {
    // SAFETY: as the server calls it: alone, in the postmaster. The previous hook was read in `hook`.
    unsafe { call(PREVIOUS_STARTUP) };
    CONTROL.store(std::ptr::null_mut(), Ordering::Relaxed);
    if settings::hot_bytes() == 0 {
        return;
    }
    let sizes = sizes();
    let mut found = false;
    // SAFETY: the size that was asked for. Nobody else exists yet, so no lock is needed to make it.
    let start = unsafe { pg_sys::ShmemInitStruct(NAME.as_ptr(), bytes(sizes), &raw mut found) }.cast::<u8>();
    // SAFETY: the line to align to was asked for on top.
    let control = unsafe { start.add(start.align_offset(LINE)) }.cast::<Control>();
    // SAFETY: aligned, large enough, and nobody else's. Any bytes are a Control.
    let words = unsafe { &*control };
    words.began_ms.store(clock::now_ms(), Ordering::Relaxed);
    words.hash_seed.store(random(), Ordering::Relaxed);
    words.epoch.store((random() & EPOCH_MASK).max(1), Ordering::Relaxed);
    for number in 0..QUEUES {
        // SAFETY: the queues were asked for; nobody else exists yet.
        unsafe { (*queues(control).add(number)).format() };
    }
    let began_ms = words.began_ms.load(Ordering::Relaxed);
    let formatted = Tier::<Backend>::shards_of(sizes).and_then(|shards| {
        // SAFETY: this is the memory that `request` has asked for, by the same settings.
        let host = unsafe { Backend::new(shards, began_ms) };
        Tier::format(region(control, sizes)?, sizes, host, 0).map(|_| ())
    });
    match formatted {
        Ok(()) => CONTROL.store(control, Ordering::Relaxed),
        Err(error) => pgrx::warning!("pg_cache is switched off: {error}"),
    }
    prepared::start_up();
}

fn random() -> u64 {
    let mut bytes = [0_u8; 8];
    // SAFETY: fills the eight bytes it is given. Without a source of randomness the time will do.
    let drawn = unsafe { pg_sys::pg_strong_random(bytes.as_mut_ptr().cast(), bytes.len()) };
    if drawn { u64::from_ne_bytes(bytes) } else { clock::now_ms() }
}

fn region(control: *mut Control, sizes: Sizes) -> Result<Region<'static>, pg_cache_core::RegionError> {
    // SAFETY: behind the control line and the queues there are as many bytes as were asked for; shared memory stands for as
    // long as the process does, or is detached from a process that will not come back here. Only regions access it.
    unsafe { Region::from_raw(queues(control).add(QUEUES).cast(), sizes.bytes) }
}

fn queues(control: *mut Control) -> *mut Queue {
    control.wrapping_add(1).cast()
}

/// The queue of those who wait for a key with this hash.
pub fn queue(hash: u64) -> Option<&'static Queue> {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: formatted by `start_up`, there for as long as shared memory is.
    (!control.is_null()).then(|| unsafe { &*queues(control).add((hash % QUEUES as u64) as usize) })
}

/// This backend's way into the tier. None while there is none: switched off, or the server is in recovery, when what is cached
/// could not be told to be right.
#[inline]
pub fn tier() -> Option<&'static HotTier> {
    known_tier().or_else(attach)
}

/// The same, if this backend has been there before. Asks the server nothing.
#[inline]
pub fn known_tier() -> Option<&'static HotTier> {
    // SAFETY: null, or set by `attach` to what is complete and never freed.
    unsafe { TIER.load(Ordering::Acquire).as_ref() }
}

/// Whether there is a tier, and this backend has not been there. Cannot fail.
#[inline]
pub fn is_tier_to_be_found() -> bool {
    known_tier().is_none() && is_there_one()
}

#[cold]
fn is_there_one() -> bool {
    check_thread();
    // SAFETY: reads what says whether recovery is over, and raises no error; a plain global.
    !CONTROL.load(Ordering::Relaxed).is_null()
        && unsafe { !RecoveryInProgress() && !pg_sys::MyProc.is_null() }
}

#[cold]
fn attach() -> Option<&'static HotTier> {
    if !is_there_one() {
        return None;
    }
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: set by `start_up` to what stands as long as shared memory does.
    let began_ms = unsafe { &*control }.began_ms.load(Ordering::Relaxed);
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

/// Whether the server is in recovery, a standby for instance.
pub fn is_in_recovery() -> bool {
    check_thread();
    // SAFETY: reads what says whether recovery is over, and raises no error.
    unsafe { RecoveryInProgress() }
}

/// A number from 0 on and below 1, by chance.
pub fn chance() -> f64 {
    check_thread();
    // SAFETY: this backend's own source of such numbers, seeded when it began.
    unsafe { pg_sys::pg_prng_double(&raw mut pg_sys::pg_global_prng_state) }
}

/// Lets the session be cancelled or ended here, by an error. Not while anything is held.
pub fn check_for_interrupts() {
    pgrx::check_for_interrupts!();
}

/// What is the same for as long as shared memory is not made anew, and hardly ever the same after that. Not 0, of 31 bits.
pub fn epoch() -> u64 {
    with_control(|control| control.epoch.load(Ordering::Relaxed))
}

/// This backend's own number among all that may exist.
fn slot() -> u32 {
    // SAFETY: `attach` has seen that we have an entry in the array of processes; its number does not change.
    #[cfg(any(feature = "pg15", feature = "pg16"))]
    let number = unsafe { (*pg_sys::MyProc).pgprocno };
    #[cfg(any(feature = "pg17", feature = "pg18"))]
    // SAFETY: a plain global.
    let number = unsafe { pg_sys::MyProcNumber };
    number as u32
}

/// The present tick.
pub fn tick() -> u32 {
    clock::tick(began_ms())
}

/// The tick at which a time to live is over that begins now.
pub fn tick_in(ms: u64) -> u32 {
    clock::tick_in(began_ms(), ms)
}

/// Ticks of a span of time.
pub fn ticks(ms: u64) -> u32 {
    clock::ticks(ms)
}

/// Milliseconds since a tick.
pub fn ms_since(tick: u32) -> u64 {
    clock::ms_since(began_ms(), tick)
}

/// Milliseconds from now until a tick.
pub fn ms_until(tick: u32) -> u64 {
    clock::ms_until(began_ms(), tick)
}

/// When a tick began, on the system's clock as it is now.
pub fn time_of(tick: u32) -> pg_sys::TimestampTz {
    // SAFETY: asks the system for the time, and nothing else.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    now - ms_since(tick) as i64 * 1000
}

/// The number of this session's database.
pub fn database() -> u32 {
    // SAFETY: a plain global, constant once a session has begun.
    unsafe { pg_sys::MyDatabaseId }.to_u32()
}

/// The seed of the hashes that all backends share.
#[inline]
pub fn hash_seed() -> u64 {
    with_control(|control| control.hash_seed.load(Ordering::Relaxed))
}

fn began_ms() -> u64 {
    with_control(|control| control.began_ms.load(Ordering::Relaxed))
}

#[inline]
fn with_control(read: impl Fn(&Control) -> u64) -> u64 {
    let control = CONTROL.load(Ordering::Relaxed);
    // SAFETY: as in `attach`.
    if control.is_null() { 0 } else { read(unsafe { &*control }) }
}
