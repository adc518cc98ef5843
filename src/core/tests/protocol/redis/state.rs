//! The state between two steps, the steps, and the changes that sessions make.
//!
//! In the model, a worker follows the *journal*, the records of changes, and gives Redis the present values of the keys by *jobs*
//! of a few commands. The *set* has the keys that depend on the tag; its *proof* is a member that only the addition which creates
//! the set adds. *Zombies* are commands of a connection that was given up. `mod.rs` has the details.
//!
//! A new field of [`State`] needs its first value in `scenarios.rs` (`Redis::first`). A new step must be offered by
//! `State::worker_steps` or `State::server_steps`, and called in `properties.rs` (`next_state`).

use super::scenarios::{Redis, Variant};

/// The number of keys.
pub const KEYS: usize = 2;

/// A value of a key. 0 is the value from before all changes, and `n + 1` is the value that the change `n` has set.
pub type Value = u8;

/// A change that a session makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets a key, without a tag.
    Set(usize),
    /// Sets a key, with the tag.
    SetTagged(usize),
    Delete(usize),
    /// Invalidates all values with the tag.
    Invalidate,
    /// Removes all values. The record names the space.
    Flush,
    /// Sets one key without a tag and deletes the other one. The transaction is so large that its record names only the space.
    Large(usize),
}

/// A command for Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Adds the proof to the set, which creates the set.
    Prove,
    /// Adds a key to the set.
    Add(u8),
    /// Asks whether the set has the proof.
    Ask,
    /// Sets the value of a key.
    Set(u8, Value),
    /// Removes a key.
    Unlink(u8),
    /// Reads a part of the set: the proof is in the part 0, and each key is in the part with its number.
    ReadSet(u8),
    /// Removes the set.
    UnlinkSet,
    /// A step of a scan, which returns the key with this number, if Redis has it.
    Scan(u8),
    /// Asks for the identity.
    Info,
}

/// The purpose of a job, as in `copier.rs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    /// Asks for the identity of Redis.
    Check,
    /// Gives Redis the present values of keys that the journal names. After this job, Redis has confirmed all changes up to this
    /// number. None if later jobs of these changes follow.
    Changes(Option<u8>),
    /// Removes the keys in the set of the invalidated tag, and the set. After this job, Redis has confirmed all changes up to this
    /// number.
    Sets(u8),
    /// Asks for the keys that Redis has.
    Scan,
    /// Gives Redis the present values of keys that a scan has found.
    Compare,
    /// Gives Redis the values of keys in the cache.
    Refill,
    /// Only a variant has this task: the key is added to the set by a job of its own.
    Member,
}

/// The answer to a job, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Answer {
    /// Whether the job has ended.
    pub is_done: bool,
    /// Whether the job failed.
    pub is_failed: bool,
    /// A set that must exist was gone, or lacked the proof.
    pub has_lost_set: bool,
    /// Whether the removal has found the proof.
    pub is_proved: bool,
    /// Redis has refused a command, so the thread has removed the value.
    pub is_refused: bool,
    /// Whether a scan has found the key.
    pub has_key: bool,
    /// The identity that Redis has told.
    pub identity: u8,
}

/// A job that the worker has sent and whose answer it has not handled.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Job {
    /// The task of the job.
    pub task: Task,
    /// Whether the job creates the set.
    pub creates_set: bool,
    /// The commands that are not executed yet.
    pub commands: Vec<Command>,
    /// The answer of Redis so far.
    pub answer: Answer,
}

/// A change of which the journal does not name the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wide {
    /// All keys in the set of the tag have changed.
    Sets,
    /// All keys may have changed.
    Keys,
}

/// The progress of the worker that copies values, and what it knows of Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Worker {
    /// Whether the worker has a connection to Redis, as far as it knows.
    pub is_up: bool,
    /// The position in the journal from which the worker reads on.
    pub position: u8,
    /// The number up to which Redis has confirmed all changes.
    pub acked: u8,
    /// The keys to look at, as bits.
    pub keys: u8,
    /// The change that was read, if any, of which the journal does not name the keys.
    pub wide: Option<Wide>,
    /// The jobs whose answers the worker has not handled, in the order in which they were sent.
    pub jobs: Vec<Job>,
    /// Whether the worker has written the set of the tag.
    pub is_known: bool,
    /// The position of the running scan.
    pub scan: Option<u8>,
    /// Whether a scan is to begin after the running one.
    pub is_scan_wanted: bool,
    /// Whether all keys must be compared because a set is not complete.
    pub owes_scan: bool,
    /// The keys that a scan has found, as bits.
    pub found: u8,
    /// The next key of the refill.
    pub refill: Option<u8>,
    /// The identity of Redis that the worker knows. None if it knows none.
    pub identity: Option<u8>,
    /// The values that the records of the keys were written with. Only a variant uses them.
    pub recorded: [Option<Value>; KEYS],
}

/// The set of the tag.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Set {
    /// Whether the set has its proof, the member that only the addition which creates the set adds.
    pub is_proved: bool,
    /// The keys in the set, as bits.
    pub members: u8,
}

/// The data of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Server {
    /// The value of each key.
    pub values: [Option<Value>; KEYS],
    /// The set of the tag. None if Redis has no such set.
    pub set: Option<Set>,
    /// The identity of the data: another number after a failover.
    pub identity: u8,
}

/// The accidents that may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Accidents {
    /// The number of lost connections.
    pub losses: u8,
    /// The number of times that Redis gets its first data back.
    pub failovers: u8,
    /// The number of times that Redis evicts the set.
    pub evictions: u8,
    /// The number of commands that Redis refuses because it is full.
    pub refusals: u8,
}

/// The state of the model between two steps: the cache, the journal, the worker, and Redis.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The valid values in the cache.
    pub values: [Option<Value>; KEYS],
    /// The visible changes, as bits.
    pub visible: u8,
    /// The changes with a record, in the order of their records.
    pub journal: Vec<u8>,
    /// The worker.
    pub worker: Worker,
    /// The data of Redis.
    pub server: Server,
    /// Whether the connection exists.
    pub is_linked: bool,
    /// The commands that Redis has received on the connection that was given up, and has not executed.
    pub zombies: Vec<Command>,
    /// The accidents that may still happen.
    pub left: Accidents,
}

/// One step of one actor, or an accident.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// A change becomes visible.
    Show(u8),
    /// A visible change gets its record.
    Append(u8),
    // The worker.
    Connect,
    Check,
    /// Begins the comparison that the worker owes, which waits for some seconds.
    Compare,
    ReadJournal,
    SendKey,
    SendWide,
    SendFound,
    SendScan,
    SendRefill,
    /// Handles the answer to the oldest job.
    Handle,
    // Redis.
    Execute,
    /// Another server of a cluster executes its next command.
    ExecuteOther,
    /// Redis is full, and refuses the next command.
    Refuse,
    ExecuteZombie,
    Evict,
    /// The connection is lost.
    Lose,
    /// Redis has the data of the first state again, with a new identity.
    FailOver,
}

impl State {
    /// Returns the number of the last record.
    pub fn tail(&self) -> u8 {
        self.journal.len() as u8
    }

    /// Makes a change visible.
    pub fn show(&mut self, model: &Redis, change: u8) {
        self.visible |= 1 << change;
        let is_tagged = |value: &Value| model.is_tagged(*value);
        match model.changes[usize::from(change)] {
            Change::Set(key) | Change::SetTagged(key) => self.values[key] = Some(change + 1),
            Change::Delete(key) => self.values[key] = None,
            Change::Invalidate => {
                self.values = self.values.map(|value| value.filter(|value| !is_tagged(value)));
            }
            Change::Flush => self.values = [None; KEYS],
            Change::Large(key) => {
                self.values = [None; KEYS];
                self.values[key] = Some(change + 1);
            }
        }
    }

    /// Returns whether Redis has everything: each visible change has a record, the worker has read all records and sent what
    /// follows from them, all answers are handled, all keys are compared, and the worker knows this Redis.
    pub fn is_quiet(&self) -> bool {
        let worker = &self.worker;
        self.visible.count_ones() == u32::from(self.tail())
            && worker.is_up
            && worker.position == self.tail()
            && (worker.keys, worker.wide) == (0, None)
            && worker.jobs.is_empty()
            && (worker.scan, worker.is_scan_wanted, worker.owes_scan) == (None, false, false)
            && worker.found == 0
            && worker.identity == Some(self.server.identity)
    }

    /// Returns whether Redis has everything, and for this key a value that a session has set.
    pub fn has_new_value(&self, key: usize) -> bool {
        let value = self.server.values[key];
        self.is_quiet() && value == self.values[key] && value.is_some_and(|value| value > 0)
    }

    /// Returns whether no key in Redis has another value than its present one.
    pub fn is_equal(&self) -> bool {
        (0..KEYS).all(|key| self.server.values[key].is_none() || self.server.values[key] == self.values[key])
    }
}

impl Redis {
    /// Returns whether a value has the tag.
    pub fn is_tagged(&self, value: Value) -> bool {
        match value.checked_sub(1) {
            None => self.is_tagged,
            Some(change) => matches!(self.changes[usize::from(change)], Change::SetTagged(_)),
        }
    }

    /// Returns whether this is the variant that is checked.
    pub fn is(&self, variant: Variant) -> bool {
        self.variant == variant
    }
}
