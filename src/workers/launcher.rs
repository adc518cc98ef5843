//! The launcher *sweeps* the memory tier, which is the cache in shared memory: it removes the entries that can never be served
//! again. And it starts the other workers: a worker for each database that has work, workers that run warmers (`warmth.rs`), and
//! the Redis worker if `pg_cache.redis_url` is set. A *segment* is one of the tables in which values are saved.
//!
//! The launcher is connected to no database, so it never blocks a command on a database. A database *has work* if values were
//! stored in it since its last worker was started, if one of its segments must be emptied, if it has changes to send notifications
//! about (`news.rs`), or if it existed when the launcher started and has had no worker since. At most `pg_cache.max_workers`
//! workers of databases run. If more databases have work, the launcher ends a worker that is idle or has run for some time, so that
//! the other databases get their turn.
//!
//! A segment that must be freed cannot always wait for the worker of its database: the database may accept no connections, or the
//! server may have no place for a worker. After some time, the launcher *retires* such a segment: it drops the locations of its
//! values (`store/table/record.rs`).

use super::errors;
use super::known::Known;
use super::news::News;
use super::warmth::Warmth;
use crate::pg::background::{self, Started};
use crate::pg::error::SqlState;
use crate::pg::shared::{self, HotTier};
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{memory, session, settings};
use crate::store::table::holdings::Holdings;
use crate::store::table::record;
use pg_cache_core::Counter;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often the launcher looks for databases that have work.
const LOOK: Duration = Duration::from_millis(500);
/// How long a worker may run while another database waits for its turn.
const TURN: Duration = Duration::from_secs(30);
/// How many milliseconds a worker may be idle while another database waits for its turn.
const IDLE_MS: u64 = 2_000;
/// The least time between the starts of two workers of a database.
const BACKOFF: Duration = Duration::from_secs(5);
/// The least time between two starts of the Redis worker.
const REDIS_BACKOFF: Duration = Duration::from_secs(1);
/// How long a segment that must be freed waits for a worker of its database before the launcher retires it.
const PATIENCE: Duration = Duration::from_secs(10);
/// The number of buckets that are swept before the launcher handles signals again.
const SWEPT_AT_ONCE: u32 = 4096;

/// The main function of the launcher.
pub fn run() {
    let Some(tier) = shared::tier() else { return };
    let Some(slot) = shared::launcher_slot() else { return };
    // The previous launcher may have ended with an error. Only one launcher runs at a time.
    let previous = slot.pid.load(Relaxed);
    slot.give_back(previous);
    slot.take(session::pid(), 0, shared::tick());
    let databases = background::in_transaction(background::databases);
    let unseen: BTreeSet<u32> =
        databases.iter().filter(|(_, connects)| *connects).map(|(oid, _)| *oid).collect();
    let warmth = Warmth::new();
    let news = if previous == 0 { News::default() } else { News::of_successor() };
    let mut launcher = Launcher {
        tier,
        slot,
        unseen,
        running: Vec::new(),
        known: Known::default(),
        deserted: BTreeMap::new(),
        news,
        warmth,
        redis: None,
    };
    let mut swept = Instant::now();
    loop {
        background::wait(LOOK);
        if swept.elapsed() >= Duration::from_millis(settings::sweep_interval_ms()) {
            swept = Instant::now();
            slot.swept.fetch_add(launcher.sweep(), Relaxed);
            launcher.forget_dropped();
        }
        launcher.manage();
        slot.worked.store(shared::tick(), Relaxed);
    }
}

struct Launcher {
    /// The cache in shared memory.
    tier: &'static HotTier,
    /// The place in shared memory where the launcher shows its state.
    slot: &'static WorkerSlot,
    /// The databases that have not had a worker since the launcher started. Their tables may have rows from before the server was
    /// started last.
    unseen: BTreeSet<u32>,
    /// The workers that were started and have not ended.
    running: Vec<Started>,
    /// The databases that have had a worker.
    known: Known,
    /// The databases without a worker that have a segment to free, and since when.
    deserted: BTreeMap<u32, Instant>,
    /// The databases with changes that were not sent yet.
    news: News,
    /// The workers that run warmers.
    warmth: Warmth,
    /// When the Redis worker was started last.
    redis: Option<Instant>,
}

impl Launcher {
    /// Removes the entries that are of no use any more. Returns their number.
    fn sweep(&self) -> u64 {
        let mut removed = 0;
        let mut left = self.tier.buckets_total();
        while left > 0 {
            removed += self.tier.sweep(SWEPT_AT_ONCE.min(u32::try_from(left).unwrap_or(u32::MAX)));
            left = left.saturating_sub(SWEPT_AT_ONCE.into());
            background::attend();
        }
        removed
    }

    /// Starts and ends workers.
    fn manage(&mut self) {
        self.retire_deserted();
        self.news.follow(self.tier);
        self.running.retain(|worker| !worker.is_over());
        self.release_unused();
        let stored = self.stored();
        let wanted = self.wanted(&stored);
        let has_redis = self.start_redis();
        let has_warmers = self.warmth.manage();
        match (wanted.is_empty() || self.start(wanted, &stored)) && has_redis && has_warmers {
            true => self.slot.note_success(),
            false => errors::note(self.slot, SqlState::INSUFFICIENT_RESOURCES),
        }
    }

    /// Returns the databases that have work and may get a worker now.
    fn wanted(&self, stored: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
        let mut wanted = if self.tier.has_directory() { self.savers(stored) } else { BTreeSet::new() };
        wanted.extend(self.news.databases());
        wanted.retain(|database| self.may_start(*database));
        wanted
    }

    /// Returns the databases that have something to save or to free, and that have or can get enough segments to work with.
    fn savers(&self, stored: &BTreeMap<u32, u64>) -> BTreeSet<u32> {
        let mut savers = self.unseen.clone();
        let is_off = settings::table_bytes() == 0;
        if !is_off {
            let has_new = stored.iter().filter(|(database, stored)| self.known.has_new(**database, **stored));
            savers.extend(has_new.map(|(database, _)| *database));
        }
        let holdings = Holdings::read(self.tier);
        savers.extend(holdings.to_empty(is_off));
        savers.retain(|database| holdings.can_save(*database));
        savers
    }

    /// Frees the segments of databases that have neither saved values nor a worker, so that other databases can have these
    /// segments. The next worker of such a database takes segments again.
    fn release_unused(&self) {
        Holdings::read(self.tier).each_unused(|database, segments| {
            if !self.has_worker(database) {
                segments.iter().for_each(|(number, _)| record::release(self.tier, *number));
            }
        });
    }

    /// Returns whether a database may get a worker now. A database must never have two workers at a time.
    fn may_start(&self, database: u32) -> bool {
        let is_recent = self.known.started(database).is_some_and(|at| at.elapsed() < BACKOFF);
        !self.has_worker(database) && !is_recent && !background::is_closed(database)
    }

    /// Returns whether a database has a worker, or one is about to start. `running` lacks the workers of a previous launcher.
    fn has_worker(&self, database: u32) -> bool {
        self.running.iter().any(|worker| worker.database == database) || background::has_worker(database, 0)
    }

    /// Starts workers, or ends one worker if too many run. Returns false if the server has no free place for a worker.
    fn start(&mut self, wanted: BTreeSet<u32>, stored: &BTreeMap<u32, u64>) -> bool {
        let databases = background::in_transaction(background::databases);
        // The database whose last worker was started first comes first, so that every database gets its turn.
        let mut wanted: Vec<u32> = memory::collect(wanted.into_iter());
        wanted.sort_by_key(|database| self.known.started(*database));
        for database in wanted {
            match databases.iter().find(|(oid, _)| *oid == database) {
                None => {
                    self.note(database, stored);
                    self.news.forget(database);
                    self.forget(database);
                }
                Some((_, false)) => {
                    self.news.forget(database);
                    self.note(database, stored);
                }
                Some((_, true)) if self.alive() < settings::max_workers() => {
                    let number = self.news.number(database);
                    let Some(worker) = background::start(database, number) else { return false };
                    self.note(database, stored);
                    self.running.push(worker);
                }
                Some((_, true)) => {
                    self.end_one();
                    break;
                }
            }
        }
        true
    }

    /// Starts the Redis worker if `pg_cache.redis_url` is set and the worker does not run. Returns false if the server has no free
    /// place for it.
    fn start_redis(&mut self) -> bool {
        let is_alive = || {
            let slot = shared::redis_slot();
            slot.is_some_and(|slot| session::is_alive(slot.pid.load(Relaxed)))
        };
        let recently = self.redis.is_some_and(|at| at.elapsed() < REDIS_BACKOFF);
        if settings::redis_url().is_none() || recently || is_alive() {
            return true;
        }
        self.redis = Some(Instant::now());
        background::start_redis().is_some()
    }

    /// Retires the segments that must be freed and whose databases have had no worker for some time.
    fn retire_deserted(&mut self) {
        let before = std::mem::take(&mut self.deserted);
        record::each(self.tier, |segment, record| {
            if !record.is_to_be_freed || background::has_worker(record.database, 0) {
                return;
            }
            let known = before.get(&record.database).copied();
            let since =
                *self.deserted.entry(record.database).or_insert_with(|| known.unwrap_or_else(Instant::now));
            if since.elapsed() >= PATIENCE {
                record::retire(self.tier, segment);
            }
        });
    }

    /// Returns how many workers of databases run or are about to start. `running` lacks the workers of a previous launcher.
    fn alive(&self) -> usize {
        self.running.len().max(background::workers())
    }

    /// Returns how many values were stored in each database.
    fn stored(&self) -> BTreeMap<u32, u64> {
        let mut stored = BTreeMap::new();
        for stats in self.tier.all_stats() {
            if let Some((database, _)) = stats.space.filter(|(database, _)| *database != 0) {
                *stored.entry(database).or_insert(0) += stats.counted(Counter::Stored);
            }
        }
        stored
    }

    /// Notes that the launcher has started a worker for a database, or could start none. The database does not count as one with
    /// new values before more values are stored in it.
    fn note(&mut self, database: u32, stored: &BTreeMap<u32, u64>) {
        let stored = stored.get(&database).copied().unwrap_or(0);
        self.known.note(database, stored);
        self.unseen.remove(&database);
    }

    /// Ends a worker that has had nothing to do lately. If there is none, ends the worker that has run for the longest time, if it
    /// has run for at least [`TURN`].
    fn end_one(&self) {
        let is_idle = |worker: &&Started| {
            shared::database_slots().any(|slot| {
                slot.database.load(Relaxed) == worker.database
                    && shared::ms_since(slot.useful.load(Relaxed)) >= IDLE_MS
            })
        };
        if let Some(idle) = self.running.iter().find(is_idle) {
            return idle.end();
        }
        let age = |worker: &&Started| self.known.started(worker.database).map(|at| at.elapsed());
        if let Some(oldest) = self.running.iter().max_by_key(age)
            && age(&oldest) >= Some(TURN)
        {
            oldest.end();
        }
    }

    /// Frees the segments of dropped databases, and forgets what is known of these databases. The segments must be read before the
    /// list of databases: otherwise a database that was created in between would count as dropped.
    fn forget_dropped(&mut self) {
        let holdings = Holdings::read(self.tier);
        if holdings.databases().next().is_none() && self.known.is_empty() {
            return;
        }
        let databases = background::in_transaction(background::databases);
        let is_there = |database: u32| databases.iter().any(|(oid, _)| *oid == database);
        holdings
            .databases()
            .filter(|database| !is_there(*database))
            .for_each(|database| self.forget(database));
        // Shared memory still counts the values that were stored in a dropped database. Without the facts, the launcher would take
        // them for new values again and again. The number of such databases has a limit.
        let stored = self.stored();
        self.known.retain(|database| is_there(database) || stored.contains_key(&database));
    }

    /// Frees the segments of a database that was dropped.
    fn forget(&self, database: u32) {
        record::each(self.tier, |segment, record| {
            if record.database == database {
                self.tier.forget_segment(segment);
                record::release(self.tier, segment);
            }
        });
    }
}
