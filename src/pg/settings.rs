//! The settings, as `pg_settings` shows them. `define` registers them; the other functions return their values in the units that
//! the library uses.

#![allow(unsafe_code)]

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::CString;

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
static NOTIFY: GucSetting<bool> = GucSetting::<bool>::new(true);
static NOTIFY_CHANNEL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"pg_cache"));
static SAVE_ON_SHUTDOWN: GucSetting<bool> = GucSetting::<bool>::new(true);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);
static DEFAULT_TTL: GucSetting<i32> = GucSetting::<i32>::new(5 * 60 * 1000);
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static MAX_TRANSACTION_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);

/// Ways to break the fences of tables on purpose. For tests, in debug builds only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, pgrx::PostgresGucEnum)]
pub enum Broken {
    /// Fences work as usual.
    #[name = c"off"]
    Off,
    /// Fences are raised only after the change is visible.
    #[name = c"late"]
    Late,
    /// Fences are lowered before the catalog invalidations are sent.
    #[name = c"early"]
    Early,
    /// Fences are never raised.
    #[name = c"never"]
    Never,
    /// Fences are never raised, and the check at the commit reports that as an error.
    #[name = c"unseen"]
    Unseen,
}

/// How full the server's queue of notifications may be, in millionths, while a worker adds to it.
const NOTIFY_QUEUE_MAX: i32 = 500_000;
#[cfg(debug_assertions)]
static NOTIFY_QUEUE: GucSetting<i32> = GucSetting::<i32>::new(NOTIFY_QUEUE_MAX);

#[cfg(debug_assertions)]
static BREAK_FENCING: GucSetting<Broken> = GucSetting::<Broken>::new(Broken::Off);

/// The least size that is used, in kB. A smaller region could not hold even a few entries beside its own structures.
const HOT_SIZE_LEAST: i32 = 1024;

/// Registers the settings. Must be called before the sizes of shared memory are computed, because these depend on the settings.
pub fn define() {
    let int = |name, short, long, setting, least, most, context, flags| {
        GucRegistry::define_int_guc(name, short, long, setting, least, most, context, flags);
    };
    int(
        c"pg_cache.hot_size",
        c"Shared memory for cached values.",
        c"0 switches the cache off: reads miss, and nothing is stored. Less than 1 MB counts as 1 MB.",
        &HOT_SIZE,
        0,
        i32::MAX / 1024 * 16,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    int(
        c"pg_cache.fence_slots",
        c"How many tags can be told apart when they are invalidated.",
        c"Tags share these slots, 8 bytes each, by their hash. Two tags on one cost needless misses, never a stale value.",
        &FENCE_SLOTS,
        1024,
        1 << 28,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    int(
        c"pg_cache.table_entries",
        c"How many values that are saved in tables can be found, over all databases.",
        c"Each takes 8 bytes of shared memory. 0 switches saving off.",
        &TABLE_ENTRIES,
        0,
        1 << 28,
        GucContext::Postmaster,
        GucFlags::default(),
    );
    int(
        c"pg_cache.journal_size",
        c"Shared memory for the journal of changes.",
        c"Caches outside of the database follow the journal. 0 switches it off.",
        &JOURNAL_SIZE,
        0,
        i32::MAX / 1024,
        GucContext::Postmaster,
        GucFlags::UNIT_KB,
    );
    int(
        c"pg_cache.table_size",
        c"Disk space for values that are saved in tables, over all databases.",
        c"0 switches saving off.",
        &TABLE_SIZE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    int(
        c"pg_cache.save_rate",
        c"How many values per second a worker saves that will not be evicted soon.",
        c"",
        &SAVE_RATE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pg_cache.sweep_interval",
        c"How often entries that are of no use any more are removed.",
        c"They are never returned, whether they are removed or not.",
        &SWEEP_INTERVAL,
        100,
        60 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pg_cache.max_workers",
        c"The most background workers that save values, each for one database at a time.",
        c"They count towards max_worker_processes.",
        &MAX_WORKERS,
        0,
        32,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pg_cache.default_ttl",
        c"The time to live of values for which neither the call nor the space sets one.",
        c"",
        &DEFAULT_TTL,
        100,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    int(
        c"pg_cache.max_value_size",
        c"The largest value that is stored.",
        c"An entry takes at most an eighth of pg_cache.hot_size, too.",
        &MAX_VALUE_SIZE,
        1,
        1024 * 1024 - 1,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    int(
        c"pg_cache.max_transaction_size",
        c"How much a transaction may hold back in memory until it commits.",
        c"Values set beyond that are not stored, and cache_set says so by returning false.",
        &MAX_TRANSACTION_SIZE,
        64,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_bool_guc(
        c"pg_cache.notify",
        c"Whether changes in the cache are announced with NOTIFY.",
        c"A background worker sends the notifications, shortly after the commits.",
        &NOTIFY,
        GucContext::Sighup,
        GucFlags::default(),
    );
    GucRegistry::define_string_guc(
        c"pg_cache.notify_channel",
        c"The channel of the notifications about changes in the cache.",
        c"The name is used as it is written here: LISTEN must put other names than lower-case ones in double quotes.",
        &NOTIFY_CHANNEL,
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
    GucRegistry::define_bool_guc(
        c"pg_cache.enabled",
        c"Whether this session uses the cache.",
        c"If off, reads miss and values are not stored. Invalidation goes on.",
        &ENABLED,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_cache.bypass",
        c"Whether this session's reads miss on purpose.",
        c"Values are stored as usual, so a session with this setting refreshes the values that it computes.",
        &BYPASS,
        GucContext::Userset,
        GucFlags::default(),
    );
    #[cfg(debug_assertions)]
    int(
        c"pg_cache.notify_queue",
        c"How full the queue of notifications may be, in millionths: it has 8 GB, too much for a test.",
        c"",
        &NOTIFY_QUEUE,
        0,
        1_000_000,
        GucContext::Sighup,
        GucFlags::NO_SHOW_ALL,
    );
    #[cfg(debug_assertions)]
    GucRegistry::define_enum_guc(
        c"pg_cache.break_fencing",
        c"How changes of tables are not fenced, for tests that have to find it.",
        c"",
        &BREAK_FENCING,
        GucContext::Suset,
        GucFlags::NO_SHOW_ALL,
    );
    // SAFETY: the server copies the name. From now on, it reports a setting with our prefix and an unknown name.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_cache".as_ptr()) };
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

/// Returns whether a clean shutdown saves the cache for the next start.
pub fn saves_on_shutdown() -> bool {
    SAVE_ON_SHUTDOWN.get()
}

/// The most bytes of the name of a channel, as the server allows.
const CHANNEL_BYTES_MAX: usize = pg_sys::NAMEDATALEN as usize - 1;

/// Returns the channel of the notifications about changes, if they are to be sent. A name that the server would refuse switches them
/// off.
pub fn notify_channel() -> Option<CString> {
    let channel = NOTIFY_CHANNEL.get().filter(|_| NOTIFY.get())?;
    (1..=CHANNEL_BYTES_MAX).contains(&channel.as_bytes().len()).then_some(channel)
}

/// Returns how full the server's queue of notifications may be, from 0 to 1, while a worker adds to it. Always a half in a release
/// build.
pub fn notify_queue_max() -> f64 {
    #[cfg(debug_assertions)]
    let millionths = NOTIFY_QUEUE.get();
    #[cfg(not(debug_assertions))]
    let millionths = NOTIFY_QUEUE_MAX;
    f64::from(millionths) / 1e6
}

/// Returns whether notifications are on, but the name of their channel is one that the server would refuse.
pub fn has_bad_channel() -> bool {
    NOTIFY.get() && notify_channel().is_none()
}

/// Returns whether this session uses the cache.
pub fn is_enabled() -> bool {
    ENABLED.get()
}

/// Returns whether this session's reads miss on purpose.
pub fn bypasses() -> bool {
    BYPASS.get()
}

/// Returns how the fences of tables are broken on purpose. Always `Off` in a release build.
#[inline]
pub fn broken() -> Broken {
    #[cfg(debug_assertions)]
    return BREAK_FENCING.get();
    #[cfg(not(debug_assertions))]
    Broken::Off
}

/// Returns the default time to live in milliseconds.
pub fn default_ttl_ms() -> u64 {
    DEFAULT_TTL.get() as u64
}

/// Returns the largest size of a value in bytes.
pub fn max_value_bytes() -> usize {
    MAX_VALUE_SIZE.get() as usize * 1024
}

/// Returns how many bytes one transaction may hold back until it commits.
pub fn max_transaction_bytes() -> usize {
    MAX_TRANSACTION_SIZE.get() as usize * 1024
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

/// Returns how many background workers the server allows, of all extensions together.
pub fn worker_processes() -> usize {
    // SAFETY: a plain global of the server, constant while it runs.
    unsafe { pg_sys::max_worker_processes as usize }
}

/// Returns the most workers that run at the same time.
pub fn max_workers() -> usize {
    MAX_WORKERS.get() as usize
}
