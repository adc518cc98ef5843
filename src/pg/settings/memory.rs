//! The settings that size the cache: shared memory, whose size is fixed while the server runs, the tables in which values are
//! saved, and the background workers that save them. A clean shutdown also saves the cache in shared memory, unless a setting
//! forbids that. The number beside a setting is its default, in the unit that its registration names, if it names one.
//!
//! A *fence* is the word in shared memory that says when a dependency of values last changed. The *region* is the shared memory of
//! the cache. A *location* says where in the tables a value is saved. The *journal* is a ring of records that name what has
//! changed.

#![allow(unsafe_code)]

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

/// 128 MB: small enough for a small server.
static HOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128 * 1024);
/// 8 MB of fences. The chance that two given tags share a fence is one in a million, and sharing costs only needless misses.
static FENCE_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);
/// A million locations of saved values, 8 bytes each.
static TABLE_ENTRIES: GucSetting<i32> = GucSetting::<i32>::new(1_000_000);
/// 8 MB: 131072 records with names of up to 40 bytes.
static JOURNAL_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
/// Off: no values are saved in tables.
static TABLE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(0);
static SAVE_RATE: GucSetting<i32> = GucSetting::<i32>::new(20_000);
static SWEEP_INTERVAL: GucSetting<i32> = GucSetting::<i32>::new(5_000);
static MAX_WORKERS: GucSetting<i32> = GucSetting::<i32>::new(2);
static SAVE_ON_SHUTDOWN: GucSetting<bool> = GucSetting::<bool>::new(true);

/// The least size that is used, in kB. A smaller region could not hold even a few entries beside its own structures.
const HOT_SIZE_LEAST: i32 = 1024;

/// Registers these settings.
pub(super) fn define() {
    GucRegistry::define_int_guc(
        c"pg_cache.hot_size",
        c"Shared memory for cached values.",
        c"0 switches the cache off: reads miss, and nothing is stored. Less than 1 MB counts as 1 MB.",
        &HOT_SIZE,
        0,
        i32::MAX / 1024 * 16,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.fence_slots",
        c"How many tags can be told apart when they are invalidated.",
        c"Tags share these slots, 8 bytes each, by their hash. Two tags on one cost needless misses, never a stale value.",
        &FENCE_SLOTS,
        1024,
        1 << 28,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_cache.table_entries",
        c"How many values that are saved in tables can be found, over all databases.",
        c"Each takes 8 bytes of shared memory. 0 switches saving off.",
        &TABLE_ENTRIES,
        0,
        1 << 28,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_cache.journal_size",
        c"Shared memory for the journal of changes.",
        c"Caches outside of the database follow the journal. 0 switches it off.",
        &JOURNAL_SIZE,
        0,
        i32::MAX / 1024,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.table_size",
        c"Disk space for values that are saved in tables, over all databases.",
        c"0 switches saving off.",
        &TABLE_SIZE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.save_rate",
        c"How many values per second a worker saves that will not be evicted soon.",
        c"",
        &SAVE_RATE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_int_guc(
        c"pg_cache.sweep_interval",
        c"How often entries that are of no use any more are removed.",
        c"They are never returned, whether they are removed or not.",
        &SWEEP_INTERVAL,
        100,
        60 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.max_workers",
        c"The most background workers that save values, each for one database at a time.",
        c"They count towards max_worker_processes.",
        &MAX_WORKERS,
        0,
        32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_cache.save_on_shutdown",
        c"Whether a clean shutdown saves the cache for the next start.",
        c"If off when the server starts, it starts with an empty cache.",
        &SAVE_ON_SHUTDOWN,
        GucContext::Sighup,
        GucFlags::default(),
    );
}

/// Returns the bytes of shared memory for entries; 0 if the cache is switched off.
pub fn hot_bytes() -> usize {
    match HOT_SIZE.get() {
        0 => 0,
        kilobytes => kilobytes.max(HOT_SIZE_LEAST) as usize * 1024,
    }
}

/// Returns the number of fences that tags hash into.
pub fn fence_slots() -> u32 {
    FENCE_SLOTS.get() as u32
}

/// Returns how many locations of saved values the directory has.
pub fn table_entries() -> u32 {
    TABLE_ENTRIES.get() as u32
}

/// Returns how many lines of 64 bytes the journal has.
pub fn journal_lines() -> u32 {
    JOURNAL_SIZE.get() as u32 * (1024 / 64)
}

/// Returns the most bytes of all tables for saved values; 0 if nothing is saved.
pub fn table_bytes() -> u64 {
    TABLE_SIZE.get() as u64 * 1024
}

/// Returns how many values a worker may save per second that will not be evicted soon.
pub fn save_rate() -> u64 {
    SAVE_RATE.get() as u64
}

/// Returns the milliseconds between two sweeps.
pub fn sweep_interval_ms() -> u64 {
    SWEEP_INTERVAL.get() as u64
}

/// Returns the most workers that run at the same time.
pub fn max_workers() -> usize {
    MAX_WORKERS.get() as usize
}

/// Returns how many background workers the server allows, of all extensions together.
pub fn worker_processes() -> usize {
    // SAFETY: a plain global of the server, constant while it runs.
    unsafe { pg_sys::max_worker_processes as usize }
}

/// Returns whether a clean shutdown saves the cache for the next start.
pub fn saves_on_shutdown() -> bool {
    SAVE_ON_SHUTDOWN.get()
}
