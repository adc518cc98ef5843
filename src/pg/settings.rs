//! The settings, as `pg_settings` shows them.

#![allow(unsafe_code)]

use pgrx::guc::{GucContext, GucFlags, GucRegistry, GucSetting};
use pgrx::pg_sys;

/// 128 MB: what a small server can spare without thinking about it.
static HOT_SIZE: GucSetting<i32> = GucSetting::<i32>::new(128 * 1024);
/// 8 MB of fences. Two tags share one as rarely as one in a million, for what that costs: a needless miss.
static FENCE_SLOTS: GucSetting<i32> = GucSetting::<i32>::new(1 << 20);

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
