//! The keys and values of the measurements over servers. The hand-written table, pg_cache and Redis hold the same keys; pg_cache
//! holds further ranges of the same number of keys.
//!
//! Each key must have 13 digits, also the last one of a range: `drive/wire.rs` replaces the digits in place (`DIGITS`). The scripts
//! that fill and read Redis (`test_servers.rs`, `outward/redis.rs`) make the keys from [`FIRST_KEY`] on as the digit 1 and 12
//! digits.

/// The number of keys of each range.
pub const KEYS: u64 = 100_000;
/// The first key of the range that all contenders hold. A key is a number of 13 digits as text, so all keys have the same length,
/// and redis-benchmark can make the same keys: it replaces `__rand_int__` in [`REDIS_RANDOM_KEY`] with a random number of 12
/// digits.
pub const FIRST_KEY: u64 = 1_000_000_000_000;
/// The first key of the values that pg_cache holds as text. A key has one value, of one kind. The keys from [`FIRST_KEY`] on have a
/// jsonb, so the text values need keys of their own.
pub const FIRST_TEXT_KEY: u64 = 2 * FIRST_KEY;
/// The first key of the values that the measurements of writes overwrite in pg_cache.
pub const FIRST_WRITTEN_KEY: u64 = 3 * FIRST_KEY;
/// The smallest of the keys for new entries. The range ends below `5 * FIRST_KEY`. No filling uses it, and 10^12 keys are so many
/// that a random one is almost always new.
pub const FIRST_NEW_KEY: u64 = 4 * FIRST_KEY;
/// How many rows the primary-key reads beside writes ask for (`queries/writes.rs`).
pub const FEW_KEYS: u64 = 1000;
/// A random key from [`FIRST_KEY`] on, in the notation of redis-benchmark.
pub const REDIS_RANDOM_KEY: &str = "1__rand_int__";
/// The length of a value, in bytes.
pub const VALUE_BYTES: usize = 100;
/// The length of a value, in bytes, in the parts about the table tier (`tables/`), which saves values in tables before they leave
/// the memory, and in some parts about Redis and frameworks (`outward/redis.rs`, `frameworks/`).
pub const SAVED_BYTES: usize = 200;

/// Returns the value of a key as text.
pub fn value() -> String {
    "x".repeat(VALUE_BYTES)
}

/// Returns the value of a key as JSON: a string that has the same length, including its quotes.
pub fn json() -> String {
    format!("\"{}\"", "x".repeat(VALUE_BYTES - 2))
}
