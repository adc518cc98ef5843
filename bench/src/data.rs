//! The keys and values that every side holds.

/// The number of keys.
pub const KEYS: u64 = 100_000;
/// The first key. With 13 digits, all keys have the same length, and redis-benchmark can make the same keys: it replaces
/// `__rand_int__` in [`REDIS_RANDOM_KEY`] with a random number of 12 digits.
pub const FIRST_KEY: u64 = 1_000_000_000_000;
/// The first key of the values that pg_cache holds as text. The kind of a value belongs to its key, so text values need keys of
/// their own.
pub const FIRST_TEXT_KEY: u64 = 2 * FIRST_KEY;
/// The first key of the values that the write measurements of pg_cache overwrite.
pub const FIRST_WRITTEN_KEY: u64 = 3 * FIRST_KEY;
/// The smallest of the keys that no session has set before. There are so many of them that a random one is new.
pub const FIRST_NEW_KEY: u64 = 4 * FIRST_KEY;
/// The form of a random key for redis-benchmark.
pub const REDIS_RANDOM_KEY: &str = "1__rand_int__";
/// The length of a value, in bytes.
pub const VALUE_BYTES: usize = 100;
/// The length of a value that is saved in a table, in bytes.
pub const SAVED_BYTES: usize = 200;

/// Returns the value of every key that holds text.
pub fn value() -> String {
    "x".repeat(VALUE_BYTES)
}

/// Returns the value as JSON, with the same length including its quotes.
pub fn json() -> String {
    format!("\"{}\"", "x".repeat(VALUE_BYTES - 2))
}
