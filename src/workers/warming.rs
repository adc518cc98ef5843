//! The worker that runs the warmers of one role in one database (`store/warmer.rs`), in a session of that role. It also renews the
//! results of the role that are kept stored without a warmer (`keeping.rs`).
//!
//! About once a second, the worker checks whether the results of the warmers are stored, without running a query. It runs the
//! warmers that are due one after the other, each in a transaction of its own. A warmer rests after its run, so that the other
//! warmers get their turn.
//!
//! The *owner* of warmers and kept results is a role in a database (`pg/warm_list.rs`). The worker leaves after some time, so that
//! a new worker takes over with the present settings of the role and the database. It also leaves if a query has changed the
//! settings of its session: sessions of clients would not find results that are stored with these settings.
//!
//! A worker that was started with role 0 only removes the warmers of dropped roles, and tells the launcher which roles have warmers
//! or kept results in the database.
//!
//! A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::errors;
use super::keeping::Keeping;
use crate::pg::catalog;
use crate::pg::encoding::shown;
use crate::pg::environment;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::role::Role;
use crate::pg::warm_list::Owner;
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{background, memory, session, settings, shared};
use crate::query::keep::Renewal;
use crate::query::warmer::{self as runner, Due};
use crate::store::kept;
use crate::store::warmer::{self, Outcome, Warmer};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{CStr, CString};
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often the worker checks its warmers.
const LOOK: Duration = Duration::from_secs(1);
/// The time after which a worker leaves.
const STAY: Duration = Duration::from_secs(60);
/// The time after which a worker leaves while there are more owners than workers. If a warmer is due, the worker runs at least one
/// before it leaves. If none is due, the worker leaves at once.
const TURN: Duration = Duration::from_secs(1);

/// The main function of the worker.
pub fn run(owner: Owner) {
    let (pid, tick) = (session::pid(), shared::tick());
    let Some(slot) = shared::warmer_slots().find(|slot| {
        let other = slot.pid.load(Relaxed);
        if other != 0 && !session::is_alive(other) {
            slot.give_back(other);
        }
        slot.take(pid, owner.database, tick)
    }) else {
        return;
    };
    slot.role.store(owner.role, Relaxed);
    if owner.role == 0 {
        let announce = || (warmer::announce_all(), kept::announce_all());
        let announced = background::attempt(|| background::in_transaction(announce));
        if announced.is_ok() {
            shared::warm_list().into_iter().for_each(|list| list.note_searched(owner.database));
        }
        let forgot = background::attempt(|| background::in_transaction(warmer::forget_dropped_roles));
        if let Err(error) = announced.map(|_| ()).and(forgot.map(|_| ())) {
            errors::note(slot, error);
        }
    } else {
        shared::warm_list().into_iter().for_each(|list| list.begin(owner));
        Warming::new(owner, slot).work();
    }
    slot.give_back(pid);
}

/// The next step of the worker.
enum Next {
    /// Run the warmer with this index. The second field says whether its result is still valid and must be computed again.
    Run(usize, bool),
    /// Run the query of the kept result with this index.
    Renew(usize, Renewal),
    Wait,
    Leave,
}

/// Returns whether there are more owners than workers, so that workers must take turns.
fn others_wait() -> bool {
    shared::warm_list().is_some_and(|list| list.waiting() > settings::max_workers())
}

struct Warming {
    /// The role and the database of the worker.
    owner: Owner,
    /// The owner and the database, for the log.
    owner_in_words: String,
    /// The place in shared memory where the worker shows its state.
    slot: &'static WorkerSlot,
    /// When the worker began.
    began: Instant,
    /// The environment of the session before its first query.
    environment: Option<[u8; 32]>,
    /// The warmers of the owner.
    warmers: Vec<Warmer>,
    /// The generation of the catalog tables from before the warmers were read.
    generation: u64,
    /// The results whose tags the worker has already compared: the tick at which the result was stored, by the number of its
    /// warmer.
    verified: BTreeMap<u32, u32>,
    /// The indexes of the warmers that were due at the last look at all warmers, in the order in which they run.
    due: VecDeque<usize>,
    /// The results that are kept stored without a warmer.
    keeping: Keeping,
    /// Whether the last run was that of a warmer. Then the kept results have the next turn.
    has_warmed: bool,
}

impl Warming {
    /// Makes the state of a worker that has not begun.
    fn new(owner: Owner, slot: &'static WorkerSlot) -> Self {
        Self {
            owner,
            owner_in_words: String::new(),
            slot,
            began: Instant::now(),
            environment: None,
            warmers: Vec::new(),
            generation: 0,
            verified: BTreeMap::new(),
            due: VecDeque::new(),
            keeping: Keeping::new(Role::from_oid(owner.role)),
            has_warmed: false,
        }
    }

    /// Works until it is time to leave.
    fn work(&mut self) {
        loop {
            let next = background::attempt_statement(|| background::as_statement(None, || self.look()));
            self.slot.worked.store(shared::tick(), Relaxed);
            match next {
                Ok(Next::Run(index, refresh)) => self.run(index, refresh),
                Ok(Next::Renew(index, renewal)) => self.renew(index, &renewal),
                Ok(Next::Leave) => return,
                Ok(Next::Wait) if self.has_stayed() || others_wait() => return,
                Ok(Next::Wait) => background::wait(LOOK),
                Err(failure) => {
                    errors::note(self.slot, failure.code);
                    background::wait(LOOK);
                    return;
                }
            }
            background::attend();
            if self.has_stayed() || background::is_closed(self.owner.database) {
                return;
            }
        }
    }

    /// Returns whether it is time for the worker to leave.
    fn has_stayed(&self) -> bool {
        let stay = if others_wait() { TURN } else { STAY };
        self.began.elapsed() >= stay
    }

    /// Finds the next step of the worker. Must run in a transaction.
    fn look(&mut self) -> Next {
        let role = Role::from_oid(self.owner.role);
        let environment = environment::full();
        if self.environment.is_none() && Role::current() != role {
            self.refuse_other_role();
        }
        let is_own = *self.environment.get_or_insert(environment) == environment
            && Role::current() == role
            && !environment::has_temporary_schema();
        if !is_own || !role.exists() {
            return Next::Leave;
        }
        // Must be read before the tables: if a role has added a warmer or a result since, the list keeps the owner (`list.remove`).
        let added = shared::warm_list().map_or(0, |list| list.added(self.owner));
        if self.generation != catalog::generation() {
            self.generation = catalog::generation();
            self.warmers = warmer::to_run(role);
            let database = background::database_name(self.owner.database);
            self.owner_in_words = format!("role {} in database {database}", role.quoted());
            self.verified.clear();
            self.due.clear();
            self.keeping.read_spaces();
        }
        self.keeping.walk(false);
        if self.warmers.is_empty() && self.keeping.is_empty() {
            // The next look reads the tables again.
            self.generation = 0;
            // Otherwise a role that stores results all the time would get a new worker each second, although none of the results
            // are among the most valuable ones.
            let may_wait = self.keeping.has_spaces() && !self.has_stayed();
            if may_wait || warmer::may_be_added(role) {
                return Next::Wait;
            }
            self.keeping.walk(true);
            if self.keeping.is_empty() {
                shared::warm_list().into_iter().for_each(|list| list.remove(self.owner, added));
                return Next::Leave;
            }
        }
        // The warmers and the kept results take turns.
        let is_turn_of_warmers = !self.has_warmed;
        if is_turn_of_warmers && let Some(next) = self.next_warmer() {
            return next;
        }
        if let Some((index, renewal)) = self.keeping.next() {
            return Next::Renew(index, renewal);
        }
        if is_turn_of_warmers { Next::Wait } else { self.next_warmer().unwrap_or(Next::Wait) }
    }

    /// Returns the warmer to run now, if one is due.
    fn next_warmer(&mut self) -> Option<Next> {
        if self.due.is_empty() {
            self.find_due();
        }
        while let Some(index) = self.due.pop_front() {
            if let Some(refresh) = self.is_due(index) {
                return Some(Next::Run(index, refresh));
            }
        }
        None
    }

    /// Finds the warmers that are due. The warmer whose latest run began first comes first, whichever worker ran it.
    fn find_due(&mut self) {
        let mut due = Vec::new();
        for index in 0..self.warmers.len() {
            if self.is_due(index).is_some() {
                let began = self.warmers.get(index).and_then(Warmer::run).map_or(0, |run| run.began);
                memory::push(&mut due, (began, index));
            }
        }
        due.sort_unstable();
        memory::check();
        self.due.extend(due.into_iter().map(|(_, index)| index));
    }

    /// Notes that the warmers of the owner cannot run, because ALTER ROLE … SET role gives the owner's sessions another current
    /// role.
    fn refuse_other_role(&self) {
        let why = Outcome::NotStored("a session of the owner begins with another current role".to_owned());
        for warmer in warmer::all(|owner| owner.oid() == self.owner.role) {
            warmer.runs.begin().end(Duration::ZERO, &why);
        }
    }

    /// Returns None if a warmer is not due, or if it rests. Otherwise returns whether its stored result is still valid, so that the
    /// run must compute it again.
    fn is_due(&mut self, index: usize) -> Option<bool> {
        let warmer = self.warmers.get(index)?;
        let verified = self.verified.get(&warmer.number).copied().unwrap_or(0);
        let due = runner::due(warmer, verified);
        warmer.runs.note_look(!matches!(due, Due::No(_)));
        let is_valid = match due {
            Due::No(created) => {
                // `verified` identifies a result by its tick. A result that is stored later in the same tick would have the same
                // identity, so the worker must look again.
                if created != shared::tick() {
                    memory::check();
                    self.verified.insert(warmer.number, created);
                }
                return None;
            }
            Due::Missing => false,
            Due::Old => true,
        };
        (!warmer.runs.rest()).then_some(is_valid)
    }

    /// Runs a warmer in a transaction of its own.
    fn run(&mut self, index: usize, refresh: bool) {
        self.has_warmed = true;
        let Some(warmer) = self.warmers.get(index) else { return };
        let text = CString::new(warmer.query.as_slice()).unwrap_or_default();
        let before = warmer.run();
        let running = warmer.runs.begin();
        let (took, outcome) = self.attempt(&text, || runner::run(warmer, refresh));
        match &outcome {
            Outcome::Stored => warmer.runs.note_look(false),
            Outcome::NotStored(_) => {}
            Outcome::Failed(failure) => {
                let is_known = before.is_some_and(|run| run.failures > 0 && run.code == failure.code.0);
                background::log(is_known, || {
                    let (name, of) = (shown(&warmer.name), &self.owner_in_words);
                    format!("warmer \"{name}\" of {of} failed: {}: {}", failure.code, failure.message)
                });
            }
        }
        running.end(took, &outcome);
    }

    /// Runs the query of a kept result in a transaction of its own.
    fn renew(&mut self, index: usize, renewal: &Renewal) {
        self.has_warmed = false;
        let Some(kept) = self.keeping.get(index) else { return };
        let running = kept.runs.begin();
        let (took, outcome) = self.attempt(&renewal.text(), || renewal.run(kept));
        running.end_kept(took, &outcome);
    }

    /// Runs a query in a transaction of its own. Returns the duration and the outcome.
    fn attempt(
        &self,
        text: &CStr,
        run: impl FnOnce() -> Result<Option<String>, Refused>,
    ) -> (Duration, Outcome) {
        let began = Instant::now();
        let ran = background::attempt_statement(|| background::as_statement(Some(text), || run().or_raise()));
        background::release_advisory_locks();
        let outcome = match ran {
            Ok(None) => Outcome::Stored,
            Ok(Some(why)) => Outcome::NotStored(why),
            Err(failure) => Outcome::Failed(failure),
        };
        match &outcome {
            Outcome::Failed(failure) => errors::note(self.slot, failure.code),
            _ => self.slot.note_success(),
        }
        self.slot.useful.store(shared::tick(), Relaxed);
        (began.elapsed(), outcome)
    }
}
