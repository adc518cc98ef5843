//! The tiers with which the models are compared, and their one key. Each path gets a new tier. A *tier* is a cache in memory that
//! several processes share.

use std::sync::atomic::AtomicU64;

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{Key, NewValue, Region, Reservation, Sizes, Tier};

pub type TestTier<'t> = Tier<'t, &'t TestHost>;

/// The size of the region: enough for the few entries that exist at the same time, and quick to format.
pub const REGION_BYTES: usize = 16 * 1024;

/// Runs a test on a new tier.
pub fn with_tier(test: impl FnOnce(TestTier<'_>)) {
    let memory = memory(REGION_BYTES);
    let host = TestHost::default();
    test(format(&memory, &host, 0));
}

/// Formats a tier with one shard. `locations` is that of [`Sizes`]: 0 makes a tier without a directory.
pub fn format<'t>(memory: &'t [AtomicU64], host: &'t TestHost, locations: u32) -> TestTier<'t> {
    let sizes = Sizes { relation_fences: 0, shards: 1, locations, ..SIZES };
    Tier::format(Region::of_words(memory), sizes, host, 0).expect("it is large enough")
}

/// Calls `act` with the key.
pub fn with_key<T>(tier: &TestTier<'_>, act: impl FnOnce(&Key<'_>) -> T) -> T {
    act(&Key::new(tier.scope(1, 2, 0), b"the key", 7).expect("it is a key"))
}

/// Reserves a value of the key, as of now.
pub fn reserve(tier: &TestTier<'_>, bytes: &[u8], expires: u32) -> Reservation {
    let value = NewValue { stamp: tier.fences().now(), expires, ..value(bytes, &[]) };
    with_key(tier, |key| tier.reserve(key, &value, Default::default())).expect("there is room")
}
