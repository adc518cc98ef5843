//! The settings, as `pg_settings` shows them. `define` registers them; the other functions return their values in the units that
//! the library uses.

#![allow(unsafe_code)]

use super::memory;
use pg_cache_redis::{Target, mask};
use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;
use std::ffi::{CStr, CString, OsString, c_char, c_void};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

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
/// Empty: no Redis.
static REDIS_URL: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static REDIS_PREFIX: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c"pg_cache:"));
static REDIS_MAX_TTL: GucSetting<i32> = GucSetting::<i32>::new(60 * 60 * 1000);
static REDIS_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(500);
/// Empty: the certificate authorities that the system trusts.
static REDIS_CA_FILE: GucSetting<Option<CString>> = GucSetting::<Option<CString>>::new(Some(c""));
static SAVE_ON_SHUTDOWN: GucSetting<bool> = GucSetting::<bool>::new(true);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);
static OBSERVE: GucSetting<bool> = GucSetting::<bool>::new(false);
static DEFAULT_TTL: GucSetting<i32> = GucSetting::<i32>::new(5 * 60 * 1000);
static WAIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(3000);
/// One of 64: the clock is read so rarely that a hit takes no measurable time longer.
static TRACK_LATENCY: GucSetting<i32> = GucSetting::<i32>::new(64);
static VERIFY_RATE: GucSetting<f64> = GucSetting::<f64>::new(0.0);
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static MAX_TRANSACTION_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static MIN_COST: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_RESULT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static COMPRESS_ABOVE: GucSetting<i32> = GucSetting::<i32>::new(100);

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
    /// A table counts as unchanged if its lock is the weakest one of a writer, although the server has counted changed rows.
    #[name = c"uncounted"]
    Uncounted,
    /// All changed rows of a table with tags that have placeholders count as reported.
    #[name = c"unreported"]
    Unreported,
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
        c"pg_cache.wait_timeout",
        c"How long a call waits for another session that runs the same query.",
        c"After that, one of the waiting calls runs the query itself. 0: no call waits.",
        &WAIT_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    int(
        c"pg_cache.track_latency",
        c"Number of reads, of hits of queries and of sets, of which one is timed for cache_latency.",
        c"1 times all of them. Runs of queries and waits are always timed. 0 times nothing.",
        &TRACK_LATENCY,
        0,
        1_000_000,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_float_guc(
        c"pg_cache.verify_rate",
        c"The share of the hits of queries that are verified: the query runs again, and its result is compared with the stored one.",
        c"1 verifies all of them. 0 verifies none.",
        &VERIFY_RATE,
        0.0,
        1.0,
        GucContext::Suset,
        GucFlags::default(),
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
    int(
        c"pg_cache.min_cost",
        c"The least time that a query takes whose result is stored.",
        c"The option min_cost of a space overrides it.",
        &MIN_COST,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pg_cache.max_result_size",
        c"The largest result of a query that is stored, before compression.",
        c"The option max_result_size of a space overrides it.",
        &MAX_RESULT_SIZE,
        1,
        1023 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    int(
        c"pg_cache.compress_above",
        c"Larger results of queries are compressed if that makes them at least an eighth smaller.",
        c"The option compress_above of a space overrides it.",
        &COMPRESS_ABOVE,
        0,
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
    // SAFETY: the hooks raise no errors and do not panic.
    unsafe {
        GucRegistry::define_string_guc_with_hooks(
            c"pg_cache.redis_url",
            c"The Redis that gets copies of the values of spaces with redis => true.",
            c"Empty: none. SHOW hides user and password.",
            &REDIS_URL,
            GucContext::Sighup,
            // pg_settings would show the password as the value after a reset.
            GucFlags::SUPERUSER_ONLY | GucFlags::NO_SHOW_ALL,
            Some(check_redis_url),
            None,
            Some(show_redis_url),
        );
    }
    GucRegistry::define_string_guc(
        c"pg_cache.redis_prefix",
        c"The beginning of all keys and channels in Redis.",
        c"The Redis worker removes all keys with this prefix that it does not know.",
        &REDIS_PREFIX,
        GucContext::Sighup,
        GucFlags::default(),
    );
    int(
        c"pg_cache.redis_max_ttl",
        c"The longest time to live of a value in Redis.",
        c"It bounds how long a reader gets an old value from a Redis that this server cannot reach.",
        &REDIS_MAX_TTL,
        1000,
        24 * 60 * 60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    int(
        c"pg_cache.redis_timeout",
        c"How long the Redis worker waits for an answer before it connects anew.",
        c"",
        &REDIS_TIMEOUT,
        10,
        60 * 1000,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_string_guc(
        c"pg_cache.redis_ca_file",
        c"A file in PEM format with the certificate authority of a Redis with TLS.",
        c"Empty: the certificate authorities that the system trusts.",
        &REDIS_CA_FILE,
        GucContext::Sighup,
        GucFlags::SUPERUSER_ONLY,
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
    // SAFETY: the hook raises no errors and does not panic.
    unsafe {
        GucRegistry::define_bool_guc_with_hooks(
            c"pg_cache.observe",
            c"Whether to count which statements of the client would have been hits of the cache.",
            c"Observing changes no statement. The view cache_observed has the counts.",
            &OBSERVE,
            GucContext::Suset,
            GucFlags::default(),
            None,
            Some(assign_observe),
            None,
        );
    }
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

/// Called when `pg_cache.observe` is switched on.
static WHEN_OBSERVING: OnceLock<fn()> = OnceLock::new();

/// Calls `call` whenever the server sets `pg_cache.observe` to on, and now if it is on already. `call` must not fail. Must be called
/// while the server loads the library.
pub fn when_observing(call: fn()) {
    if WHEN_OBSERVING.set(call).is_ok() && observes() {
        call();
    }
}

/// The server calls this when `pg_cache.observe` is set: observing needs the identifiers of queries.
unsafe extern "C-unwind" fn assign_observe(value: bool, _extra: *mut c_void) {
    if value {
        enable_query_id();
        WHEN_OBSERVING.get().into_iter().for_each(|call| call());
    }
}

/// Asks the server to compute the identifiers of queries in this session, unless the setting `compute_query_id` forbids it.
pub fn enable_query_id() {
    unsafe extern "C" {
        /// Called without pgrx's guard: it only sets a variable.
        fn EnableQueryId();
    }
    // SAFETY: the server's own function, for libraries that need the identifiers. It raises no error.
    unsafe { EnableQueryId() };
}

/// Returns whether statements of the client are observed (`client_statement.rs`).
#[inline]
pub fn observes() -> bool {
    OBSERVE.get()
}

/// Refuses a URL that leads to no Redis. The message does not repeat the URL, because it may have a password.
unsafe extern "C-unwind" fn check_redis_url(
    value: *mut *mut c_char,
    _extra: *mut *mut c_void,
    _source: pg_sys::GucSource::Type,
) -> bool {
    // SAFETY: the server passes a text that ends with a zero, or a null pointer.
    let url = unsafe { (*value).as_ref() }.map_or(&[][..], |url| unsafe { CStr::from_ptr(url) }.to_bytes());
    let checked = match std::str::from_utf8(url) {
        Ok("") => return true,
        Ok(url) => Target::parse(url, Duration::from_secs(1), None).map(|_| ()),
        Err(_) => Err("The URL is not in UTF-8.".to_owned()),
    };
    let Err(why) = checked else { return true };
    // Zeroed, so that the copy ends with a zero. Null if there is no memory: then the error has no detail.
    let detail = memory::try_cleared(why.len() + 1).cast::<c_char>();
    // SAFETY: the allocation has room for the text. The server reads these variables after this function, and writes to none.
    unsafe {
        if !detail.is_null() {
            detail.cast::<u8>().copy_from_nonoverlapping(why.as_ptr(), why.len());
        }
        pg_sys::GUC_check_errmsg_string =
            c"invalid value for parameter \"pg_cache.redis_url\"".as_ptr().cast_mut();
        pg_sys::GUC_check_errdetail_string = detail;
        pg_sys::GUC_check_errhint_string = c"Use a URL such as redis://localhost:6379.".as_ptr().cast_mut();
    }
    false
}

/// Shows the URL without user and password.
unsafe extern "C-unwind" fn show_redis_url() -> *const c_char {
    let url = redis_url()
        .map_or_else(CString::default, |url| CString::new(mask(&url).as_ref()).unwrap_or_default());
    // SAFETY: copies the text to the current context. The server copies it from there at once.
    unsafe { pg_sys::pstrdup(url.as_ptr()) }
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

/// Returns the channel of the notifications about changes, if they are to be sent. A name that the server would refuse switches
/// them off.
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

/// Returns the URL of Redis, with its password. None if there is none.
pub fn redis_url() -> Option<String> {
    REDIS_URL.get()?.into_string().ok().filter(|url| !url.is_empty())
}

/// Returns the beginning of all keys in Redis. Bytes that are not UTF-8 are replaced.
pub fn redis_prefix() -> String {
    REDIS_PREFIX.get().map(|prefix| prefix.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Returns the longest time to live of a value in Redis, in milliseconds.
pub fn redis_max_ttl_ms() -> u64 {
    REDIS_MAX_TTL.get() as u64
}

/// Returns how long the Redis worker waits for an answer.
pub fn redis_timeout() -> Duration {
    Duration::from_millis(REDIS_TIMEOUT.get() as u64)
}

/// Returns the file with the certificate authority of Redis. None if the system's are to be used.
pub fn redis_ca_file() -> Option<PathBuf> {
    let file = REDIS_CA_FILE.get().filter(|file| !file.is_empty())?;
    Some(PathBuf::from(OsString::from_vec(file.into_bytes())))
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

/// Returns how many milliseconds a call waits for another session that runs the same query.
pub fn wait_timeout_ms() -> u64 {
    WAIT_TIMEOUT.get() as u64
}

/// Returns how many operations of a session come with one that is timed; 0 if none is timed.
#[inline]
pub fn track_latency() -> u32 {
    TRACK_LATENCY.get() as u32
}

/// Returns the share of the hits of queries that are verified, from 0 to 1.
#[inline]
pub fn verify_rate() -> f64 {
    VERIFY_RATE.get()
}

/// Returns the largest size of a value in bytes.
pub fn max_value_bytes() -> usize {
    MAX_VALUE_SIZE.get() as usize * 1024
}

/// Returns how many bytes one transaction may hold back until it commits.
pub fn max_transaction_bytes() -> usize {
    MAX_TRANSACTION_SIZE.get() as usize * 1024
}

/// Returns the least cost in milliseconds of a query whose result is stored.
pub fn min_cost_ms() -> u64 {
    MIN_COST.get() as u64
}

/// Returns the most bytes of a result that is stored, before compression.
pub fn max_result_bytes() -> u64 {
    MAX_RESULT_SIZE.get() as u64 * 1024
}

/// Returns the bytes of a result above which it is compressed.
pub fn compress_above_bytes() -> u64 {
    COMPRESS_ABOVE.get() as u64 * 1024
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
