//! The settings, as `pg_settings` shows them.

#![allow(unsafe_code)]

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

/// 128 MB: what a small server can spare without thinking about it.
static HOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128 * 1024);
/// 8 MB of fences. Two tags share one as rarely as one in a million, for what that costs: a needless miss.
static FENCE_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);
static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);
static DEFAULT_TTL: GucSetting<i32> = GucSetting::<i32>::new(5 * 60 * 1000);
static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static MAX_TRANSACTION_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);

/// How the fences of tables are broken on purpose. In builds for tests only.
#[derive(Clone, Copy, Debug, PartialEq, Eq, pgrx::PostgresGucEnum)]
pub enum Broken {
    /// They are not.
    #[name = c"off"]
    Off,
    /// They are raised only when the change is visible.
    #[name = c"late"]
    Late,
    /// They are lowered before the catalog invalidations are sent.
    #[name = c"early"]
    Early,
    /// They are never raised.
    #[name = c"never"]
    Never,
    /// The same, and it is an error of the commit.
    #[name = c"unseen"]
    Unseen,
}

#[cfg(debug_assertions)]
static BREAK_FENCING: GucSetting<Broken> = GucSetting::<Broken>::new(Broken::Off);

/// A region of less cannot hold even a few entries beside its own structures.
const HOT_SIZE_LEAST: i32 = 1024;

/// Makes the settings known. Before the sizes of shared memory are asked for, which follow from them.
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
        c"pg_cache.default_ttl",
        c"How long a value lives if its caller does not say.",
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
        c"A value takes at most a twentieth of pg_cache.hot_size, too.",
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
        c"pg_cache.enabled",
        c"Whether this session uses the cache.",
        c"If off, reads miss and values are not stored. Invalidation goes on all the same.",
        &ENABLED,
        GucContext::Userset,
        GucFlags::default(),
    );
    GucRegistry::define_bool_guc(
        c"pg_cache.bypass",
        c"Whether this session's reads miss on purpose.",
        c"Values are stored as ever, so that a session with this setting refreshes what it computes.",
        &BYPASS,
        GucContext::Userset,
        GucFlags::default(),
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
    // SAFETY: the name is copied. Whoever misspells one of our settings is told so.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_cache".as_ptr()) };
}

/// Bytes of shared memory for entries, or none.
pub fn hot_bytes() -> usize {
    match HOT_SIZE.get() {
        0 => 0,
        kilobytes => kilobytes.max(HOT_SIZE_LEAST) as usize * 1024,
    }
}

/// Fences that tags hash into.
pub fn fence_slots() -> u32 {
    FENCE_SLOTS.get() as u32
}

/// Whether this session uses the cache at all.
pub fn is_enabled() -> bool {
    ENABLED.get()
}

/// Whether this session's reads are to miss.
pub fn bypasses() -> bool {
    BYPASS.get()
}

/// How the fences of tables are broken on purpose: in a release, never.
#[inline]
pub fn broken() -> Broken {
    #[cfg(debug_assertions)]
    return BREAK_FENCING.get();
    #[cfg(not(debug_assertions))]
    Broken::Off
}

/// Milliseconds that a value lives unless somebody says otherwise.
pub fn default_ttl_ms() -> u64 {
    DEFAULT_TTL.get() as u64
}

/// Bytes of the largest value.
pub fn max_value_bytes() -> usize {
    MAX_VALUE_SIZE.get() as usize * 1024
}

/// Bytes that one transaction may hold back.
pub fn max_transaction_bytes() -> usize {
    MAX_TRANSACTION_SIZE.get() as usize * 1024
}
