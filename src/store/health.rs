//! Findings of the function `cache_health`: each says why the cache does not work as it is configured.

use crate::pg::size::Size;
use crate::pg::{session, settings, shared};
use std::sync::atomic::Ordering;

/// The least useful `pg_cache.table_size`: below that, a table is emptied after a few values.
const TABLE_BYTES_MIN: u64 = 8 << 20;
/// How many more background workers the repair of a missing launcher allows.
const MORE_WORKERS: usize = 8;

/// Something that an operator should repair.
#[derive(Debug)]
pub struct Finding {
    /// `error`: a part of the cache does not work. `warning`: it works, but not as it is configured.
    pub severity: &'static str,
    pub finding: &'static str,
    pub detail: String,
    /// The command that repairs it, or that tells more.
    pub command: String,
}

/// Returns what an operator should repair. A standby caches nothing, so it has nothing to repair.
pub fn findings() -> Vec<Finding> {
    if shared::is_in_recovery() {
        return Vec::new();
    }
    match cache_off() {
        Some(off) => vec![off],
        None => [shards_off(), launcher_missing(), table_size_small()].into_iter().flatten().collect(),
    }
}

fn cache_off() -> Option<Finding> {
    let (severity, detail, command) = match (settings::hot_bytes(), shared::tier()) {
        (0, _) => (
            "warning",
            "pg_cache.hot_size is 0: reads miss, and nothing is stored. A change takes a restart of the server.",
            "ALTER SYSTEM SET pg_cache.hot_size = '128MB';",
        ),
        (_, None) => (
            "error",
            "The server could not set up the memory of the cache when it started. Its log has the reason.",
            "SELECT pg_catalog.pg_current_logfile();",
        ),
        _ => return None,
    };
    let finding = "the cache is switched off";
    Some(Finding { severity, finding, detail: detail.to_owned(), command: command.to_owned() })
}

fn shards_off() -> Option<Finding> {
    let usage = shared::tier()?.usage();
    (usage.shards_off > 0).then(|| Finding {
        severity: "error",
        finding: "part of the cache is switched off because it is damaged",
        detail: format!(
            "{} of {} shards are off: their keys miss, and are not stored, until the server is restarted.",
            usage.shards_off, usage.shards
        ),
        command: "SELECT * FROM cache_check();".to_owned(),
    })
}

fn launcher_missing() -> Option<Finding> {
    let is_alive = || {
        let launcher = shared::worker_slots().next();
        launcher.is_some_and(|slot| session::is_alive(slot.pid.load(Ordering::Relaxed)))
    };
    (settings::table_bytes() > 0 && !is_alive()).then(|| Finding {
        severity: "error",
        finding: "values are not saved in tables because the launcher is not running",
        detail:
            "Either max_worker_processes is exhausted, or the launcher has failed: the server's log says so. \
                 A change of max_worker_processes takes a restart of the server."
                .to_owned(),
        command: format!(
            "ALTER SYSTEM SET max_worker_processes = {};",
            settings::worker_processes() + MORE_WORKERS
        ),
    })
}

fn table_size_small() -> Option<Finding> {
    let bytes = settings::table_bytes();
    let size = |bytes: u64| Size(bytes as i64);
    (bytes > 0 && bytes < TABLE_BYTES_MIN).then(|| Finding {
        severity: "warning",
        finding: "pg_cache.table_size is too small",
        detail: format!(
            "It is {}, and the tables of a database share it: each is emptied after a few values.",
            size(bytes)
        ),
        command: format!(
            "ALTER SYSTEM SET pg_cache.table_size = '{}'; SELECT pg_reload_conf();",
            size(TABLE_BYTES_MIN)
        ),
    })
}
