//! Findings of the function `cache_health`: each says why the cache does not work as it is configured, and how to repair it. Each
//! function here looks for one kind of fault, and [`findings`] must call each of them.
//!
//! The *launcher* is the background worker that starts the others. A worker of a database saves values in tables, and the worker of
//! Redis copies values to Redis. A *warmer* is a query whose result a worker keeps stored (`warmer.rs`).

use super::results;
use super::table::holdings::Holdings;
use super::table::record;
use crate::pg::background;
use crate::pg::error::OrRaise;
use crate::pg::redis_state::{RedisState, UNKNOWN};
use crate::pg::role::literal;
use crate::pg::shared::HotTier;
use crate::pg::size::Size;
use crate::pg::warm_list::OWNERS_MAX;
use crate::pg::{session, settings, shared};
use pg_cache_core::{Event, SEGMENTS_MAX};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::sync::atomic::Ordering;

/// The least useful `pg_cache.table_size`, 8 MB: each of the eight tables of a database has a megabyte then. Below that, a table is
/// emptied after a few values.
const TABLE_BYTES_MIN: u64 = 8 << 20;
/// A table that could not be emptied for so many milliseconds is reported. A shorter lock is no reason to act.
const RETIRED_MS: u64 = 10_000;
/// How many more background workers the repair of a missing launcher allows.
const MORE_WORKERS: usize = 8;

/// Something that an operator should repair.
#[derive(Debug)]
pub struct Finding {
    /// `error`: a part of the cache does not work. `warning`: it works, but not as it is configured.
    pub severity: &'static str,
    /// A sentence without names and numbers.
    pub finding: &'static str,
    /// The names and numbers, and where to look.
    pub detail: String,
    /// The command that repairs it, or that tells more.
    pub command: String,
}

/// Returns what an operator should repair. A standby caches nothing, so it has nothing to repair. Must be called within a
/// transaction. If the cache is switched off, that is the only finding.
pub fn findings() -> Vec<Finding> {
    if shared::is_in_recovery() {
        return Vec::new();
    }
    match cache_off() {
        Some(off) => vec![off],
        None => {
            let tier = [
                shards_off(),
                launcher_missing(),
                workers_missing(),
                directory_missing(),
                tables_missing(),
                table_size_small(),
            ];
            let outside = [
                bad_channel(),
                redis_missing(),
                redis_down(),
                redis_refuses(),
                redis_limit(),
                redis_policy(),
                owners_full(),
            ];
            let found = tier.into_iter().chain(outside).flatten();
            found.chain(wrong_results()).chain(failing()).chain(paused()).chain(retired()).collect()
        }
    }
}

/// Returns a finding for each space of the database that has queries whose stored result was wrong. Looks at no entry if the
/// verification has found no difference in this server.
fn wrong_results() -> impl Iterator<Item = Finding> {
    let mut queries: BTreeMap<Rc<str>, u64> = BTreeMap::new();
    let has_found = |tier: &HotTier| tier.figures().or_raise().events.counted(Event::VerifiedDifferent) > 0;
    if shared::tier().is_some_and(has_found) {
        for result in results::differed() {
            *queries.entry(result.entry.space).or_default() += 1;
        }
    }
    queries.into_iter().map(|(space, count)| Finding {
        severity: "error",
        finding: "a stored result was wrong",
        detail: format!(
            "The verification of hits has found wrong stored results of {count} {} in the space \"{space}\". Results are not stored any \
             more; the server's log has the differences. To store results again: SELECT cache_flush({});",
            if count == 1 { "query" } else { "queries" },
            literal(&space)
        ),
        command: "SELECT space, role, query, state FROM cache_queries WHERE state LIKE 'verification failed%';"
            .to_owned(),
    })
}

/// Returns the finding that there is no cache, because of a setting or of a failure.
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

/// Returns the finding that some shards, parts of the memory with entries of their own, were found to be damaged.
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

/// Returns the finding that the launcher does not run although values are to be saved.
fn launcher_missing() -> Option<Finding> {
    let is_alive = || {
        let launcher = shared::launcher_slot();
        launcher.is_some_and(|slot| session::is_alive(slot.pid.load(Ordering::Relaxed)))
    };
    (settings::table_bytes() > 0 && !is_alive()).then(|| Finding {
        severity: "error",
        finding: "values are not saved in tables because the launcher is not running",
        detail:
            "Either max_worker_processes is exhausted, or the launcher has failed: the server's log says so. \
                 A change of max_worker_processes takes a restart of the server."
                .to_owned(),
        command: more_workers(),
    })
}

/// Returns the finding that the launcher cannot start a worker of a database or the Redis worker. The launcher notes an error for
/// no other reason.
fn workers_missing() -> Option<Finding> {
    let launcher = shared::launcher_slot()?;
    let has_failed = session::is_alive(launcher.pid.load(Ordering::Relaxed)) && launcher.error().is_some();
    (has_failed && settings::table_bytes() > 0).then(|| Finding {
        severity: "error",
        finding: "values are not saved in tables because no worker can be started",
        detail: "max_worker_processes is exhausted. A change takes a restart of the server.".to_owned(),
        command: more_workers(),
    })
}

/// Returns the finding that no value can be saved because shared memory has no room for the locations of values.
fn directory_missing() -> Option<Finding> {
    let tier = shared::tier().filter(|_| settings::table_bytes() > 0)?;
    (!tier.has_directory()).then(|| Finding {
        severity: "warning",
        finding: "values are not saved in tables because pg_cache.table_entries is 0",
        detail: "It is the number of saved values that can be found. A change takes a restart of the server."
            .to_owned(),
        command: "ALTER SYSTEM RESET pg_cache.table_entries;".to_owned(),
    })
}

/// Returns the finding that values of some databases cannot be saved, because other databases have all tables that the server can
/// use.
fn tables_missing() -> Option<Finding> {
    let tier = shared::tier().filter(|tier| settings::table_bytes() > 0 && tier.has_directory())?;
    let holdings = Holdings::read(tier);
    let databases =
        tier.all_stats().filter(|stats| stats.bytes() > 0).filter_map(|stats| Some(stats.space?.0));
    let without = databases.filter(|database| *database != 0 && !holdings.can_save(*database));
    let without: BTreeSet<u32> = without.collect();
    let first = background::database_name(*without.first()?);
    Some(Finding {
        severity: "warning",
        finding: "too many databases save values in tables",
        detail: format!(
            "Other databases use all {SEGMENTS_MAX} tables that shared memory has records for. Databases whose values are in memory \
             only: {}, for instance \"{first}\".",
            without.len()
        ),
        command: "SELECT database, used FROM cache_usage WHERE resource = 'saved bytes' ORDER BY used;"
            .to_owned(),
    })
}

/// Returns the command that allows more background workers.
fn more_workers() -> String {
    format!("ALTER SYSTEM SET max_worker_processes = {};", settings::worker_processes() + MORE_WORKERS)
}

/// Returns a finding for each worker whose last step has failed.
fn failing() -> impl Iterator<Item = Finding> {
    let alive = shared::database_slots().filter(|slot| session::is_alive(slot.pid.load(Ordering::Relaxed)));
    alive.filter_map(|slot| {
        let (error, _) = slot.error()?;
        let database = background::database_name(slot.database.load(Ordering::Relaxed));
        Some(Finding {
            severity: "error",
            finding: "the background worker of a database has failed",
            detail: format!(
                "The worker of the database \"{database}\" has ended its last step with the error {error}, and tries again. Until \
                 then, it neither saves values nor sends notifications. The server's log has the message."
            ),
            command: "SELECT * FROM cache_workers WHERE error IS NOT NULL;".to_owned(),
        })
    })
}

/// Returns a finding for each worker that waits until the server's queue of notifications has room.
fn paused() -> impl Iterator<Item = Finding> {
    let slots = shared::database_slots().filter(|slot| {
        slot.is_paused.load(Ordering::Relaxed) != 0 && session::is_alive(slot.pid.load(Ordering::Relaxed))
    });
    slots.map(|slot| Finding {
        severity: "warning",
        finding: "notifications wait because the server's queue of notifications is half full",
        detail: format!(
            "The worker of the database \"{}\" goes on when the queue has room. A session that listens does not read: as a rule, it \
             is idle in a transaction.",
            background::database_name(slot.database.load(Ordering::Relaxed))
        ),
        command: "SELECT pid, state, xact_start FROM pg_stat_activity ORDER BY xact_start;".to_owned(),
    })
}

/// Returns the finding that further roles get no workers, because the list of roles with warmers or kept results is full.
fn owners_full() -> Option<Finding> {
    shared::warm_list().filter(|list| list.is_full()).map(|_| Finding {
        severity: "warning",
        finding: "too many roles have warmers or kept results",
        detail: format!(
            "At most {OWNERS_MAX} roles of all databases get workers. No worker runs the warmers of further roles, or keeps their results."
        ),
        command: "SELECT owner, count(*) FROM cache_warmers GROUP BY owner;".to_owned(),
    })
}

/// Returns the finding that no notifications are sent because the name of their channel is not valid.
fn bad_channel() -> Option<Finding> {
    settings::has_bad_channel().then(|| Finding {
        severity: "warning",
        finding: "pg_cache.notify_channel is not the name of a channel",
        detail: "The name must have 1 to 63 bytes. No notifications are sent.".to_owned(),
        command: "ALTER SYSTEM SET pg_cache.notify_channel = 'pg_cache';".to_owned(),
    })
}

/// How many milliseconds Redis may be away before this is reported.
const REDIS_AWAY_MS: u64 = 3_000;
/// For how many milliseconds after Redis has refused a value this is reported.
const REFUSED_MS: u64 = 60_000;

/// Returns the state of the Redis worker, if `pg_cache.redis_url` is set and the worker runs.
fn redis() -> Option<&'static RedisState> {
    let slot = shared::redis_slot().filter(|_| settings::redis_url().is_some())?;
    shared::redis_state().filter(|_| session::is_alive(slot.pid.load(Ordering::Relaxed)))
}

/// Returns the finding that the Redis worker does not run although `pg_cache.redis_url` is set.
fn redis_missing() -> Option<Finding> {
    let launcher = shared::launcher_slot()?;
    let has_failed = !session::is_alive(launcher.pid.load(Ordering::Relaxed)) || launcher.error().is_some();
    (settings::redis_url().is_some() && redis().is_none() && has_failed).then(|| Finding {
        severity: "error",
        finding: "values are not copied to Redis because the worker is not running",
        detail: "Either max_worker_processes is exhausted, or the launcher has failed: the server's log says so. A change of \
                 max_worker_processes takes a restart of the server.".to_owned(),
        command: more_workers(),
    })
}

/// Returns the finding that Redis does not answer.
fn redis_down() -> Option<Finding> {
    let state = redis()?;
    let since = state.since.load(Ordering::Relaxed) as u32;
    let is_away = state.is_connected.load(Ordering::Relaxed) == 0 && shared::ms_since(since) >= REDIS_AWAY_MS;
    is_away.then(|| Finding {
        severity: "error",
        finding: "values are not copied to Redis because it does not answer",
        detail: format!(
            "{}. Values in Redis are not removed when they change, until they expire there.",
            state.error().unwrap_or_else(|| "There was no answer yet".to_owned())
        ),
        command: "SELECT error, lag, lag_time FROM cache_workers WHERE kind = 'redis';".to_owned(),
    })
}

/// Returns the finding that Redis has refused values lately.
fn redis_refuses() -> Option<Finding> {
    let refused = redis()?.refused.load(Ordering::Relaxed) as u32;
    (refused > 0 && shared::ms_since(refused) < REFUSED_MS).then(|| Finding {
        severity: "warning",
        finding: "Redis refuses values",
        detail: "The refused values are not in Redis. As a rule, its memory is full. Then run in redis-cli: \
                 CONFIG SET maxmemory-policy allkeys-lru"
            .to_owned(),
        command: "SELECT error FROM cache_workers WHERE kind = 'redis';".to_owned(),
    })
}

/// Returns the finding that the memory of Redis has no limit.
fn redis_limit() -> Option<Finding> {
    (redis()?.maxmemory.load(Ordering::Relaxed) == 0).then(|| Finding {
        severity: "warning",
        finding: "the memory of Redis has no limit",
        detail: "Values can fill the memory of its machine. In redis-cli, run: CONFIG SET maxmemory 1gb"
            .to_owned(),
        command: "SELECT connected FROM cache_workers WHERE kind = 'redis';".to_owned(),
    })
}

/// Returns the finding that Redis will refuse values when its memory is full.
fn redis_policy() -> Option<Finding> {
    let state = redis()?;
    let has_limit = ![0, UNKNOWN].contains(&state.maxmemory.load(Ordering::Relaxed));
    (has_limit && state.is_noeviction.load(Ordering::Relaxed) != 0).then(|| Finding {
        severity: "warning",
        finding: "Redis will refuse values when its memory is full",
        detail: "Its policy is noeviction. In redis-cli, run: CONFIG SET maxmemory-policy allkeys-lru"
            .to_owned(),
        command: "SELECT connected FROM cache_workers WHERE kind = 'redis';".to_owned(),
    })
}

/// Returns a finding for each database with tables that could not be emptied for [`RETIRED_MS`].
fn retired() -> impl Iterator<Item = Finding> {
    let mut bytes: BTreeMap<u32, u64> = BTreeMap::new();
    if let Some(tier) = shared::tier() {
        record::each(tier, |_, record| {
            if record.is_retired() && shared::ms_since(record.began) >= RETIRED_MS {
                *bytes.entry(record.database).or_default() += record.bytes;
            }
        });
    }
    bytes.into_iter().map(|(database, bytes)| Finding {
        severity: "warning",
        finding: "tables of saved values cannot be emptied",
        detail: format!(
            "In the database \"{}\", {} are out of use. A session has locked the tables, or the database accepts no connections.",
            background::database_name(database),
            Size(bytes as i64)
        ),
        command: "SELECT pid, database, relation, mode FROM pg_locks;".to_owned(),
    })
}

/// Returns the finding that `pg_cache.table_size` is less than [`TABLE_BYTES_MIN`], but not 0.
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
