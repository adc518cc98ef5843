//! The settings that each session may have for itself: whether and how it uses the cache, and whether its statements are observed
//! (`client_statement.rs`). Some of them need a superuser. The number beside a setting is its default: a time is in milliseconds.

#![allow(unsafe_code)]

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use std::ffi::c_void;
use std::sync::OnceLock;

static ENABLED: GucSetting<bool> = GucSetting::<bool>::new(true);
static BYPASS: GucSetting<bool> = GucSetting::<bool>::new(false);
static OBSERVE: GucSetting<bool> = GucSetting::<bool>::new(false);
static DEFAULT_TTL: GucSetting<i32> = GucSetting::<i32>::new(5 * 60 * 1000);
static WAIT_TIMEOUT: GucSetting<i32> = GucSetting::<i32>::new(3000);
/// One of 64: the clock is read so rarely that a hit takes no measurable time longer.
static TRACK_LATENCY: GucSetting<i32> = GucSetting::<i32>::new(64);
static VERIFY_RATE: GucSetting<f64> = GucSetting::<f64>::new(0.0);

/// Registers these settings.
pub(super) fn define() {
    GucRegistry::define_int_guc(
        c"pg_cache.default_ttl",
        c"The time to live of values for which neither the call nor the space sets one.",
        c"",
        &DEFAULT_TTL,
        100,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.wait_timeout",
        c"How long a call waits for another session that runs the same query.",
        c"After that, one of the waiting calls runs the query itself. 0: no call waits.",
        &WAIT_TIMEOUT,
        0,
        i32::MAX,
        GucContext::Userset,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
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
}

/// Called when `pg_cache.observe` is switched on.
static WHEN_OBSERVING: OnceLock<fn()> = OnceLock::new();

/// Calls `call` whenever the server sets `pg_cache.observe` to on, and now if it is on already. `call` must not fail. Must be
/// called while the server loads the library.
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

/// Returns whether this session uses the cache.
pub fn is_enabled() -> bool {
    ENABLED.get()
}

/// Returns whether this session's reads miss on purpose.
pub fn bypasses() -> bool {
    BYPASS.get()
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
