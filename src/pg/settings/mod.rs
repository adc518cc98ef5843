//! The settings, as `pg_settings` shows them. [`define`] registers them; the other functions return their values in the units that
//! the library uses.
//!
//! ```text
//! memory.rs          sizes of shared memory and of the tables for saved values
//! session.rs         whether and how a session uses the cache
//! limits.rs          which values and results are stored
//! notifications.rs   the channel of notifications
//! redis.rs           the copies in Redis
//! broken.rs          broken fences, for tests
//! ```

#![allow(unsafe_code)]

use pgrx::pg_sys;

mod broken;
mod limits;
mod memory;
mod notifications;
mod redis;
mod session;

pub use broken::{Broken, broken};
pub use limits::{
    compress_above_bytes, max_result_bytes, max_transaction_bytes, max_value_bytes, min_cost_ms,
};
pub use memory::{
    fence_slots, hot_bytes, journal_lines, max_workers, save_rate, saves_on_shutdown, sweep_interval_ms,
    table_bytes, table_entries, worker_processes,
};
pub use notifications::{has_bad_channel, notify_channel, notify_queue_max};
pub use redis::{redis_ca_file, redis_max_ttl_ms, redis_prefix, redis_timeout, redis_url};
pub use session::{
    bypasses, default_ttl_ms, enable_query_id, is_enabled, observes, track_latency, verify_rate,
    wait_timeout_ms, when_observing,
};

/// Registers all settings. Must be called before the sizes of shared memory are computed, because these depend on the settings.
pub fn define() {
    memory::define();
    session::define();
    limits::define();
    notifications::define();
    redis::define();
    #[cfg(debug_assertions)]
    broken::define();
    // SAFETY: the server copies the name. From now on, it reports a setting with our prefix and an unknown name.
    unsafe { pg_sys::MarkGUCPrefixReserved(c"pg_cache".as_ptr()) };
}
