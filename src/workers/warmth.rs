//! Starts the workers that run warmers (`warming.rs`), for the launcher.
//!
//! The list of owners in shared memory (`pg/warm_list.rs`) says which roles may have warmers in which databases. The list is empty
//! when the server has started, so one worker must look into each database once and add the owners to the list. The launcher
//! searches the list of databases again and again, because a database may be new, a copy of another one, or accept connections
//! later.
//!
//! At most `pg_cache.max_workers` of these workers run. If there are more owners than workers, the owner whose last worker was
//! started first gets the next one. Each worker then leaves when nothing is due, and at the latest about a second after its start
//! or when its run ends.

use crate::pg::background::{self, Started};
use crate::pg::role::Role;
use crate::pg::session;
use crate::pg::snapshot::EarlierTransactions;
use crate::pg::warm_list::{Owner, WarmList};
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{memory, settings, shared};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// The least time between the starts of two workers of an owner. The time doubles, up to [`PAUSE_MAX`], with each worker that could
/// not begin a session, for instance because the role may not connect to the database.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The limit to which [`PAUSE_MIN`] doubles.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// While there are more owners than workers, the least time on average between the starts of two workers. The start of a worker
/// costs some milliseconds of processor time, so with very many owners each of them waits longer.
const START_EVERY: Duration = Duration::from_millis(50);

/// How often the launcher searches for databases into which no worker has looked.
const SEARCH: Duration = Duration::from_secs(10);

/// The longest time in milliseconds that a worker may take for one step while another owner waits for its turn. A worker that takes
/// longer counts as one that runs a query without an end.
const RUN_MAX_MS: u64 = 30_000;

/// Ends the workers whose step has taken longer than [`RUN_MAX_MS`]. Must be called only while another owner waits for its turn.
fn end_endless() {
    for slot in shared::warmer_slots() {
        let (pid, database) = (slot.pid.load(Relaxed), slot.database.load(Relaxed));
        if shared::ms_since(slot.worked.load(Relaxed)) >= RUN_MAX_MS && session::is_worker_of(pid, database) {
            session::terminate(pid);
        }
    }
}

/// Returns whether an owner has a worker. Also finds a worker that a previous launcher has started.
fn has_worker(owner: Owner) -> bool {
    shared::warmer_slots().any(|slot| {
        slot.role.load(Relaxed) == owner.role
            && slot.database.load(Relaxed) == owner.database
            && session::is_worker_of(slot.pid.load(Relaxed), owner.database)
    })
}

/// Returns the least time between the starts of two workers of an owner.
fn pause_min() -> Duration {
    let owners = shared::warm_list().map_or(0, WarmList::waiting);
    match owners > settings::max_workers() {
        true => PAUSE_MIN.max(START_EVERY.saturating_mul(owners as u32)),
        false => PAUSE_MIN,
    }
}

/// Returns the OIDs of all databases, and whether warmers may run in each. Warmers must not run in a template database: a worker
/// that is connected to it would hinder each CREATE DATABASE that copies it.
fn databases() -> Vec<(u32, bool)> {
    let databases = background::all_databases().into_iter();
    memory::collect(
        databases.map(|database| (database.oid, database.accepts_connections && !database.is_template)),
    )
}

/// The last worker of an owner.
#[derive(Clone, Copy, Debug)]
struct Last {
    /// When the worker was started.
    started: Instant,
    /// The number of workers that had begun a session of the owner before this one started.
    begun: u64,
    /// The least time from the start of this worker to the start of the next one.
    pause: Duration,
}

/// The workers that run warmers.
#[derive(Debug)]
pub struct Warmth {
    /// The databases into which a worker has looked since the launcher started.
    seen: BTreeSet<u32>,
    /// The databases into which a worker must look.
    unseen: BTreeSet<u32>,
    /// When the launcher last searched for unseen databases.
    searched: Option<Instant>,
    /// The workers that were started and have not ended, with their owners.
    running: Vec<(Owner, Started)>,
    /// The last worker of each owner.
    last: BTreeMap<Owner, Last>,
    /// The owners whose roles do not exist, with the transactions that had begun when the launcher first noticed that.
    missing: BTreeMap<Owner, EarlierTransactions>,
}

impl Warmth {
    /// Makes the state of a launcher that has started no worker.
    pub fn new() -> Self {
        let (seen, unseen) = (BTreeSet::new(), BTreeSet::new());
        Self {
            seen,
            unseen,
            searched: None,
            running: Vec::new(),
            last: BTreeMap::new(),
            missing: BTreeMap::new(),
        }
    }

    /// Starts the workers that are missing. Returns false if the server has no free place for a worker.
    pub fn manage(&mut self) -> bool {
        let Some(list) = shared::warm_list() else { return true };
        self.forget_ended();
        if shared::ms_until(list.paused_until()) > 0 {
            return true;
        }
        let mut owners: Vec<Owner> = memory::collect(list.owners());
        owners.sort_unstable();
        owners.dedup();
        self.search();
        self.missing.retain(|owner, _| owners.binary_search(owner).is_ok());
        self.last.retain(|owner, _| match owner.role {
            0 => self.unseen.contains(&owner.database),
            _ => owners.binary_search(owner).is_ok(),
        });
        let may_start = |owner: &Owner| {
            !self.running.iter().any(|(running, _)| running == owner)
                && !has_worker(*owner)
                && self.last.get(owner).is_none_or(|last| last.started.elapsed() >= last.pause)
                && !background::is_closed(owner.database)
        };
        // At most one worker may look into databases for owners at a time.
        let may_look = !self.running.iter().any(|(running, _)| running.role == 0);
        let unseen = self.unseen.iter().map(|database| Owner { database: *database, role: 0 });
        let look = unseen.filter(may_start).take(usize::from(may_look));
        let mut wanted: Vec<Owner> = memory::collect(look.chain(owners.iter().copied().filter(may_start)));
        if wanted.is_empty() {
            return true;
        }
        wanted.sort_by_key(|owner| (owner.role != 0, self.last.get(owner).map(|last| last.started)));
        self.start(list, wanted)
    }

    /// Finds the databases into which a worker must look, if the last search is long enough ago.
    fn search(&mut self) {
        if self.searched.is_some_and(|at| at.elapsed() < SEARCH) {
            return;
        }
        self.searched = Some(Instant::now());
        let databases = background::in_transaction(databases);
        self.seen.retain(|seen| databases.iter().any(|(oid, _)| oid == seen));
        let unseen = databases.into_iter().filter(|(oid, connects)| *connects && !self.seen.contains(oid));
        self.unseen = unseen.map(|(oid, _)| oid).collect();
    }

    /// Removes the workers that have ended from the list of running workers.
    fn forget_ended(&mut self) {
        let pause_min = pause_min();
        let (last, unseen, seen) = (&mut self.last, &mut self.unseen, &mut self.seen);
        self.running.retain(|(owner, worker)| {
            let is_over = worker.is_over();
            // If a worker has ended before it has added all owners of its database, another worker must look into the database.
            let has_seen = || shared::warm_list().is_some_and(|list| list.take_searched(owner.database));
            if is_over && owner.role == 0 && has_seen() {
                unseen.remove(&owner.database);
                seen.insert(owner.database);
                last.remove(owner);
            }
            if is_over && let Some(last) = last.get_mut(owner) {
                last.pause = match shared::warm_list().is_some_and(|list| list.begun(*owner) > last.begun) {
                    true => pause_min,
                    false => {
                        shared::warm_list().into_iter().for_each(|list| list.refuse(*owner));
                        PAUSE_MAX.min(last.pause * 2)
                    }
                };
            }
            !is_over
        });
    }

    /// Returns whether the role of an owner was dropped. A role that does not exist for the launcher may be created by a
    /// transaction that still runs and has already added a warmer. Must be called within a transaction.
    fn is_dropped(&mut self, owner: Owner) -> bool {
        // The transactions must be checked before the role, because a transaction that creates the role may end in between.
        let have_ended = self.missing.get(&owner).is_some_and(|earlier| earlier.have_ended());
        if owner.role == 0 || Role::from_oid(owner.role).exists() {
            self.missing.remove(&owner);
            return false;
        }
        self.missing.entry(owner).or_insert_with(EarlierTransactions::new);
        memory::check();
        have_ended
    }

    /// Starts workers until `pg_cache.max_workers` of them run. Returns false if the server has no free place for a worker.
    fn start(&mut self, list: &WarmList, wanted: Vec<Owner>) -> bool {
        // `added` must be read before the roles: if the owner was added again since, the list keeps it (`list.remove`). Shared
        // catalogs have the facts about roles and databases, so the launcher needs no connection to a database.
        let added: Vec<u64> = memory::collect(wanted.iter().map(|owner| list.added(*owner)));
        let (databases, roles) = background::in_transaction(|| {
            let roles = wanted.iter().map(|owner| {
                let role = Role::from_oid(owner.role);
                (self.is_dropped(*owner), owner.role == 0 || role.may_log_in())
            });
            (databases(), memory::collect(roles))
        });
        for ((owner, added), (is_dropped, may_log_in)) in wanted.into_iter().zip(added).zip(roles) {
            match databases.iter().find(|(oid, _)| *oid == owner.database) {
                None => {
                    self.unseen.remove(&owner.database);
                    list.remove(owner, list.added(owner));
                }
                // A dropped role must not take a place in the list, nor the turn of another role.
                Some(_) if is_dropped => list.remove(owner, added),
                Some((_, false)) if owner.role == 0 => {
                    self.unseen.remove(&owner.database);
                }
                // The view `cache_warmers` says why the warmers do not run. The role may get the right to log in later.
                Some((_, connects)) if !connects || !may_log_in => {
                    list.refuse(owner);
                    let begun = list.begun(owner);
                    self.last.insert(owner, Last { started: Instant::now(), begun, pause: PAUSE_MIN });
                }
                Some(_) if self.alive() >= settings::max_workers() => {
                    // The role may be able to connect now, so the owner must count as one that waits for its turn.
                    list.accept(owner);
                    end_endless();
                    break;
                }
                Some(_) => {
                    let begun = list.begun(owner);
                    let Some(worker) = background::start_warmer(owner) else { return false };
                    let pause = self.last.get(&owner).map_or(PAUSE_MIN, |last| last.pause);
                    self.last.insert(owner, Last { started: Instant::now(), begun, pause });
                    self.running.push((owner, worker));
                }
            }
        }
        true
    }

    /// Returns how many of these workers run or are about to start. `running` lacks the workers of a previous launcher, and the
    /// slots lack the workers that are about to start.
    fn alive(&self) -> usize {
        let is_alive = |slot: &&WorkerSlot| session::is_alive(slot.pid.load(Relaxed));
        self.running.len().max(shared::warmer_slots().filter(is_alive).count())
    }
}
