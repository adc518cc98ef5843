//! The settings that decide which values and results are stored: their sizes, and the time that a result takes to compute.
//! The number beside a setting is its default, in the unit that its registration names (`UNIT_KB` or `UNIT_MS`).

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};

static MAX_VALUE_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static MAX_TRANSACTION_SIZE: GucSetting<i32> = GucSetting::<i32>::new(64 * 1024);
static MIN_COST: GucSetting<i32> = GucSetting::<i32>::new(1);
static MAX_RESULT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(8 * 1024);
static COMPRESS_ABOVE: GucSetting<i32> = GucSetting::<i32>::new(100);

/// Registers these settings.
pub(super) fn define() {
    GucRegistry::define_int_guc(
        c"pg_cache.max_value_size",
        c"The largest value that is stored.",
        c"An entry takes at most an eighth of pg_cache.hot_size, too.",
        &MAX_VALUE_SIZE,
        1,
        1024 * 1024 - 1,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.max_transaction_size",
        c"How much a transaction may hold back in memory until it commits.",
        c"Values set beyond that are not stored, and cache_set says so by returning false.",
        &MAX_TRANSACTION_SIZE,
        64,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.min_cost",
        c"The least time that a query takes whose result is stored.",
        c"The option min_cost of a space overrides it.",
        &MIN_COST,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_MS,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.max_result_size",
        c"The largest result of a query that is stored, before compression.",
        c"The option max_result_size of a space overrides it.",
        &MAX_RESULT_SIZE,
        1,
        1023 * 1024,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
    GucRegistry::define_int_guc(
        c"pg_cache.compress_above",
        c"Larger results of queries are compressed if that makes them at least an eighth smaller.",
        c"The option compress_above of a space overrides it.",
        &COMPRESS_ABOVE,
        0,
        i32::MAX,
        GucContext::Sighup,
        GucFlags::UNIT_KB,
    );
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
