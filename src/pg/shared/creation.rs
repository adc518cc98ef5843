//! Creates shared memory: requests it before the server creates it, and formats it in the postmaster.
//!
//! After a clean shutdown, the postmaster saves the *region*, which is the memory of the cache itself, and the records of prepared
//! transactions to a file. At the next start it reads them from there (`restart.rs`). The *epoch*, a number that is a part of each
//! lease (the right to set the value of a key), is drawn anew at each start: so leases end with the server.
//!
//! After a crash the postmaster creates shared memory anew and calls the start-up hook again. The hook formats the memory again, so
//! the cache is empty.

#![allow(unsafe_code)]

use super::control::{CONTROL, Control, EPOCH_MASK, began_ms, hash_seed};
use super::host::{Backend, NAME};
use super::layout::{
    LINE, QUEUES, bytes, names, observed_at, queues, redis_state_at, region, region_start, sizes, sleepers,
    waits_at, warm_list_at, workers,
};
use crate::pg::name_slot::NAME_SLOTS;
use crate::pg::worker_slot::WORKER_SLOTS;
use crate::pg::{clock, crashes, prepared, restart, settings};
use pg_cache_core::{FenceId, Host, Sizes, Tier};
use pgrx::prelude::*;
use std::ffi::c_int;
use std::sync::atomic::Ordering;
use std::time::Instant;

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
/// again after a crash. Each part that `layout.rs` lists must be formatted here. `CONTROL` is set last: it tells all processes that
/// there is a cache.
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
