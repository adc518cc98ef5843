//! The worker that runs the warmers of one role in one database (`store/warmer.rs`), in a session of that role.
//!
//! About once a second, the worker looks whether the results of the warmers are stored, without running a query. It runs the
//! warmers that are due one after the other, each in a transaction of its own. A warmer rests after its run, so that the other
//! warmers get their turn.
//!
//! The worker leaves after some time, so that a new worker takes over with the present settings of the role and the database. It
//! also leaves if a query has changed the settings of its session: sessions of clients would not find the results that it then
//! stores.
//!
//! With role 0, the worker only removes the warmers of dropped roles, and tells the launcher which roles have warmers in the
//! database.

use crate::pg::catalog;
use crate::pg::encoding::shown;
use crate::pg::environment;
use crate::pg::error::OrRaise;
use crate::pg::role::Role;
use crate::pg::warm_list::Owner;
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{background, memory, session, settings, shared};
use crate::query::warmer::{self as runner, Due};
use crate::store::warmer::{self, Outcome, Warmer};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::CString;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How often the worker looks at its warmers.
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
        let announced = background::attempt(|| background::in_transaction(warmer::announce_all));
        if announced.is_ok() {
            shared::warm_list().into_iter().for_each(|list| list.note_searched(owner.database));
        }
        let forgot = background::attempt(|| background::in_transaction(warmer::forget_dropped_roles));
        if let Err(error) = announced.and(forgot) {
            slot.note_error(error, shared::tick());
        }
    } else {
        shared::warm_list().into_iter().for_each(|list| list.begin(owner));
        Warming::new(owner, slot).work();
    }
    slot.give_back(pid);
}

/// The next step of the worker, after a look at the warmers.
enum Next {
    /// Run the warmer with this index. The second field says whether to compute a valid result again.
    Run(usize, bool),
    Wait,
    Leave,
}

/// Returns whether there are more owners than workers, so that they take turns.
fn others_wait() -> bool {
    shared::warm_list().is_some_and(|list| list.owners().count() > settings::max_workers())
}

struct Warming {
    owner: Owner,
    /// The owner and the database, for the log.
    owner_in_words: String,
    slot: &'static WorkerSlot,
    began: Instant,
    /// The environment of the session before its first query.
    environment: Option<[u8; 32]>,
    /// The warmers, and the generation of the catalog tables. The generation must be read before the warmers.
    warmers: Vec<Warmer>,
    generation: u64,
    /// By the number of a warmer: the tick at which its result was stored, if the worker has already compared the tags of that
    /// result.
    verified: BTreeMap<u32, u32>,
    /// The indexes of the warmers that were due at the last look at all warmers, in the order in which they run.
    due: VecDeque<usize>,
}

impl Warming {
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
        }
    }

    /// Works until it is time to leave.
    fn work(&mut self) {
        loop {
            let next = background::attempt_statement(|| background::as_statement(None, || self.look()));
            self.slot.worked.store(shared::tick(), Relaxed);
            match next {
                Ok(Next::Run(index, refresh)) => self.run(index, refresh),
                Ok(Next::Leave) => return,
                Ok(Next::Wait) if self.has_stayed() || others_wait() => return,
                Ok(Next::Wait) => background::wait(LOOK),
                Err(failure) => {
                    self.slot.note_error(failure.code, shared::tick());
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
        if self.generation != catalog::generation() {
            self.generation = catalog::generation();
            let added = shared::warm_list().map_or(0, |list| list.added(self.owner));
            self.warmers = warmer::to_run(role);
            let database = background::database_name(self.owner.database);
            self.owner_in_words = format!("role {} in database {database}", role.quoted());
            self.verified.clear();
            self.due.clear();
            if self.warmers.is_empty() {
                // The next look reads the table again.
                self.generation = 0;
                if warmer::may_be_added(role) {
                    return Next::Wait;
                }
                shared::warm_list().into_iter().for_each(|list| list.remove(self.owner, added));
                return Next::Leave;
            }
        }
        if self.due.is_empty() {
            self.find_due();
        }
        while let Some(index) = self.due.pop_front() {
            if let Some(refresh) = self.is_due(index) {
                return Next::Run(index, refresh);
            }
        }
        Next::Wait
    }

    /// Finds the warmers that are due. The warmer whose latest run began first comes first, also if another worker ran it.
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

    /// Notes that the warmers of the owner cannot run, because ALTER ROLE … SET role gives its sessions another current role.
    fn refuse_other_role(&self) {
        let why = Outcome::NotStored("a session of the owner begins with another current role".to_owned());
        for warmer in warmer::all(|owner| owner.oid() == self.owner.role) {
            warmer.begin().end(Duration::ZERO, &why);
        }
    }

    /// Returns None if a warmer is not due, or rests. Otherwise returns whether its stored result is still valid and must be
    /// computed again.
    fn is_due(&mut self, index: usize) -> Option<bool> {
        let warmer = self.warmers.get(index)?;
        let verified = self.verified.get(&warmer.number).copied().unwrap_or(0);
        let due = runner::due(warmer, verified);
        warmer.note_look(!matches!(due, Due::No(_)));
        let is_valid = match due {
            Due::No(created) => {
                memory::check();
                self.verified.insert(warmer.number, created);
                return None;
            }
            Due::Missing => false,
            Due::Old => true,
        };
        let rests = warmer.run().is_some_and(|run| shared::ms_until(run.rests_until) > 0);
        (!rests).then_some(is_valid)
    }

    /// Runs a warmer in a transaction of its own.
    fn run(&self, index: usize, refresh: bool) {
        let Some(warmer) = self.warmers.get(index) else { return };
        let text = CString::new(warmer.query.as_slice()).unwrap_or_default();
        let began = Instant::now();
        let before = warmer.run();
        let running = warmer.begin();
        let ran = background::attempt_statement(|| {
            background::as_statement(Some(&text), || runner::run(warmer, refresh).or_raise())
        });
        let outcome = match ran {
            Ok(None) => Outcome::Stored,
            Ok(Some(why)) => Outcome::NotStored(why),
            Err(failure) => Outcome::Failed(failure),
        };
        match &outcome {
            Outcome::Failed(failure) => {
                self.slot.note_error(failure.code, shared::tick());
                let is_known = before.is_some_and(|run| run.failures > 0 && run.code == failure.code.0);
                background::log(is_known, || {
                    let (name, of) = (shown(&warmer.name), &self.owner_in_words);
                    format!("warmer \"{name}\" of {of} failed: {}: {}", failure.code, failure.message)
                });
            }
            _ => self.slot.note_success(),
        }
        self.slot.useful.store(shared::tick(), Relaxed);
        if matches!(outcome, Outcome::Stored) {
            warmer.note_look(false);
        }
        running.end(began.elapsed(), &outcome);
    }
}
