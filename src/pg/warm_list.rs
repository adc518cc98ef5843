//! The part of shared memory for warmers (`store/warmer.rs`) and for results that workers keep stored (`store/kept.rs`). A *warmer*
//! is a named query whose result a background worker keeps stored. The *owners* are the roles that may have warmers or kept results
//! in a database. The *runs* are the outcomes of the latest run of each warmer, and of runs of kept results that have failed.
//!
//! The launcher is connected to no database, so it cannot read the tables of warmers. A session that adds a warmer adds its owner
//! here before the commit, and a worker of the database adds all owners when the server has started. A session that stores a result
//! in a space with the option `keep_warm` adds its role afterwards. A worker that finds neither warmers nor kept results of an
//! owner removes the owner, and the launcher removes dropped roles and the owners of a dropped database. An owner without work
//! costs only the start of a worker.
//!
//! Access: every field is an atomic word. Each run has a version, which is odd while a process writes the run. A reader must read
//! the run again if the version was odd, or has changed during the read.
//!
//! A *tick* is 50 ms on the clock of `clock.rs`.

use std::sync::atomic::Ordering::{Acquire, Relaxed, Release, SeqCst};
use std::sync::atomic::{AtomicU32, AtomicU64, fence};

/// The most owners, in all databases together. Further owners get no worker.
pub const OWNERS_MAX: usize = 512;
/// The most warmers and kept results whose latest run is known, in all databases together. If there are more, the list forgets the
/// run that was used least recently.
pub const RUNS_MAX: usize = 1024;
/// The words of a message. Longer messages are cut off.
const MESSAGE_WORDS: usize = 24;
/// The most bytes of a message.
pub const MESSAGE_BYTES_MAX: usize = MESSAGE_WORDS * 8;
/// The most attempts to read a run, and to add an owner.
const TRIES: usize = 1000;

/// A role of a database that may have warmers or kept results there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Owner {
    pub database: u32,
    pub role: u32,
}

impl Owner {
    fn word(self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.role)
    }

    fn of_word(word: u64) -> Option<Self> {
        (word != 0).then_some(Self { database: (word >> 32) as u32, role: word as u32 })
    }
}

/// Identifies a warmer or a kept result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunId(u64);

impl RunId {
    /// The bit that tells kept results from warmers. No database has an OID with this bit, unless the cluster has used up half of
    /// all OIDs. Then a result and a warmer may have the same identity, so each may rest because the other one has failed.
    const RESULT: u64 = 1 << 63;

    pub fn of_warmer(database: u32, number: u32) -> Self {
        Self(u64::from(database) << 32 | u64::from(number))
    }

    /// `hash` is a hash of everything that identifies the result.
    pub fn of_result(hash: u64) -> Self {
        Self(hash | Self::RESULT)
    }

    /// Makes an identity of a number that [`WarmList::running`] has returned.
    pub fn from_number(number: u64) -> Self {
        Self(number)
    }

    /// Returns a description of the warmer or the kept result, for the log.
    pub fn in_words(self) -> String {
        match self.0 & Self::RESULT {
            0 => format!("warmer {} of database {}", self.0 as u32, self.0 >> 32),
            _ => "the query of a kept result".to_owned(),
        }
    }
}

/// A place for an owner.
#[repr(C)]
#[derive(Debug)]
struct OwnerSlot {
    /// `database : 32 | role : 32`; 0 if the place is free. Role 0 stands for a worker that has added all owners of the database.
    owner: AtomicU64,
    /// Grows with each warmer or kept result that may have been added.
    added: AtomicU64,
    /// The number of workers that have begun a session of the role.
    begun: AtomicU64,
    /// 1 if the last worker could not begin a session of the role.
    is_refused: AtomicU64,
}

/// The outcome of the latest run of a warmer or of a kept result.
#[derive(Clone, Copy, Debug)]
pub struct Run {
    /// The tick at which the run began; 0 if the warmer has not run.
    pub began: u32,
    /// The tick until which the warmer rests: it does not run, because its last runs have failed or the server has crashed.
    pub rests_until: u32,
    pub duration_us: u64,
    /// The process ID of the session that runs the warmer now; 0 if the run has ended. If that process is gone, it has ended in the
    /// middle of the run.
    pub process: u32,
    /// The number of runs, including one that goes on.
    pub runs: u64,
    /// The number of runs in a row, including one that goes on, that have failed or whose result was not stored.
    pub failures: u32,
    /// The SQLSTATE of the error as the server encodes it; 0 if there was no error.
    pub code: u32,
    message: [u64; MESSAGE_WORDS],
    length: u32,
}

impl Default for Run {
    fn default() -> Self {
        let message = [0; MESSAGE_WORDS];
        Self {
            began: 0,
            rests_until: 0,
            duration_us: 0,
            process: 0,
            runs: 0,
            failures: 0,
            code: 0,
            message,
            length: 0,
        }
    }
}

impl Run {
    /// Sets the message. A long message is cut off. An empty one stands for no message.
    pub fn set_message(&mut self, text: &str) {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        let length = text.floor_char_boundary(bytes.len());
        bytes[..length].copy_from_slice(&text.as_bytes()[..length]);
        for (word, bytes) in self.message.iter_mut().zip(bytes.as_chunks::<8>().0) {
            *word = u64::from_ne_bytes(*bytes);
        }
        self.length = length as u32;
    }

    /// Returns the message: why the run has failed, or why its result was not stored.
    pub fn message(&self) -> String {
        let mut bytes = [0; MESSAGE_BYTES_MAX];
        for (chunk, word) in bytes.as_chunks_mut::<8>().0.iter_mut().zip(self.message) {
            *chunk = word.to_ne_bytes();
        }
        let length = (self.length as usize).min(bytes.len());
        String::from_utf8_lossy(&bytes[..length]).into_owned()
    }
}

/// The result of a look of a worker at a warmer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// The tick of the look; 0 if no worker has looked at the warmer.
    pub tick: u32,
    /// Whether the warmer had to run: its result was missing or outdated.
    pub is_due: bool,
}

impl Look {
    fn word(self) -> u64 {
        u64::from(self.tick) << 32 | u64::from(self.is_due)
    }

    fn of_word(word: u64) -> Self {
        Self { tick: (word >> 32) as u32, is_due: word & 1 != 0 }
    }
}

/// A place for the latest run of a warmer or of a kept result.
#[repr(C, align(64))]
#[derive(Debug)]
struct RunSlot {
    /// The [`RunId`]; 0 if the place is free.
    id: AtomicU64,
    version: AtomicU32,
    began: AtomicU32,
    rests_until: AtomicU32,
    process: AtomicU32,
    failures: AtomicU32,
    code: AtomicU32,
    length: AtomicU32,
    duration_us: AtomicU64,
    runs: AtomicU64,
    /// The last look of a worker at the warmer, see [`Look`]. The version does not cover this word.
    look: AtomicU64,
    message: [AtomicU64; MESSAGE_WORDS],
}

/// The owners and the runs.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct WarmList {
    /// The tick until which no warmer runs, because a process has crashed (`crashes.rs`).
    paused_until: AtomicU32,
    owners: [OwnerSlot; OWNERS_MAX],
    runs: [RunSlot; RUNS_MAX],
}

impl WarmList {
    /// Empties the list. Must be called before any other process can access it.
    pub fn format(&self) {
        self.paused_until.store(0, Relaxed);
        for slot in &self.owners {
            slot.owner.store(0, Relaxed);
            slot.added.store(0, Relaxed);
            slot.begun.store(0, Relaxed);
            slot.is_refused.store(0, Relaxed);
        }
        for slot in &self.runs {
            slot.id.store(0, Relaxed);
            slot.version.store(0, Relaxed);
            slot.look.store(0, Relaxed);
            slot.store(&Run::default());
        }
    }

    /// Sets the tick until which no warmer runs.
    pub fn pause_until(&self, tick: u32) {
        self.paused_until.store(tick, Relaxed);
    }

    /// Returns the tick until which no warmer runs.
    pub fn paused_until(&self) -> u32 {
        self.paused_until.load(Relaxed)
    }

    /// Returns the warmers and kept results that run, each as the number of its [`RunId`].
    pub fn running(&self) -> impl Iterator<Item = u64> {
        let running = self.runs.iter().filter(|slot| slot.process.load(Relaxed) != 0);
        running.map(|slot| slot.id.load(Relaxed)).filter(|id| *id != 0)
    }

    /// Adds an owner, or notes that the owner may have one more warmer or kept result. Returns false if there is no free place.
    pub fn add(&self, owner: Owner) -> bool {
        let word = owner.word();
        for _ in 0..TRIES {
            let known = self.owners.iter().find(|slot| slot.owner.load(SeqCst) == word);
            let slot = known.or_else(|| {
                let take = |slot: &&OwnerSlot| slot.owner.compare_exchange(0, word, SeqCst, SeqCst).is_ok();
                self.owners.iter().find(take).inspect(|slot| slot.is_refused.store(0, Relaxed))
            });
            let Some(slot) = slot else { return false };
            // A process that removes the owner reads `added` afterwards, and adds the owner again if `added` has grown.
            slot.added.fetch_add(1, SeqCst);
            if slot.owner.load(SeqCst) == word {
                return true;
            }
        }
        false
    }

    /// Returns how often [`add`](Self::add) was called for an owner. Sums up all places of the owner: two sessions that add an
    /// owner at the same time may give it two places.
    pub fn added(&self, owner: Owner) -> u64 {
        let places = self.owners.iter().filter(|slot| slot.owner.load(SeqCst) == owner.word());
        places.map(|slot| slot.added.load(SeqCst)).sum()
    }

    /// Removes an owner, unless [`add`](Self::add) was called since [`added`](Self::added) returned `added`.
    pub fn remove(&self, owner: Owner, added: u64) {
        let word = owner.word();
        if self.added(owner) != added {
            return;
        }
        let mut after = 0;
        for slot in &self.owners {
            if slot.owner.compare_exchange(word, 0, SeqCst, SeqCst).is_ok() {
                after += slot.added.load(SeqCst);
            }
        }
        if after != added {
            self.add(owner);
        }
    }

    /// Notes that a worker has begun a session of an owner.
    pub fn begin(&self, owner: Owner) {
        if let Some(slot) = self.place(owner) {
            slot.begun.fetch_add(1, Relaxed);
            slot.is_refused.store(0, Relaxed);
        }
    }

    /// Notes that a worker could not begin a session of an owner.
    pub fn refuse(&self, owner: Owner) {
        self.place(owner).into_iter().for_each(|slot| slot.is_refused.store(1, Relaxed));
    }

    /// Forgets that a worker could not begin a session of an owner, because the owner may be able to connect by now.
    pub fn accept(&self, owner: Owner) {
        self.place(owner).into_iter().for_each(|slot| slot.is_refused.store(0, Relaxed));
    }

    /// Returns whether the last worker could not begin a session of an owner.
    pub fn is_refused(&self, owner: Owner) -> bool {
        self.place(owner).is_some_and(|slot| slot.is_refused.load(Relaxed) != 0)
    }

    fn place(&self, owner: Owner) -> Option<&OwnerSlot> {
        self.owners.iter().find(|slot| slot.owner.load(Relaxed) == owner.word())
    }

    /// Returns how many workers have begun a session of an owner.
    pub fn begun(&self, owner: Owner) -> u64 {
        self.place(owner).map_or(0, |slot| slot.begun.load(Relaxed))
    }

    /// Returns all owners, in any order.
    pub fn owners(&self) -> impl Iterator<Item = Owner> {
        let owners = self.owners.iter().filter_map(|slot| Owner::of_word(slot.owner.load(Acquire)));
        owners.filter(|owner| owner.role != 0)
    }

    /// Returns how many owners need workers. An owner of whom no session can begin does not count, so that the other owners need
    /// not take turns with it.
    pub fn waiting(&self) -> usize {
        let needs = |slot: &&OwnerSlot| slot.is_refused.load(Relaxed) == 0;
        let owners =
            self.owners.iter().filter(needs).filter_map(|slot| Owner::of_word(slot.owner.load(Acquire)));
        owners.filter(|owner| owner.role != 0).count()
    }

    /// Returns whether there is no free place for another owner.
    pub fn is_full(&self) -> bool {
        self.owners.iter().all(|slot| slot.owner.load(Relaxed) != 0)
    }

    /// Notes that a worker has added all owners of a database.
    pub fn note_searched(&self, database: u32) {
        self.add(Owner { database, role: 0 });
    }

    /// Returns whether a worker has added all owners of a database since the last call.
    pub fn take_searched(&self, database: u32) -> bool {
        let mark = Owner { database, role: 0 };
        let added = self.added(mark);
        self.remove(mark, added);
        added > 0
    }

    /// Returns the latest run. None if there was none, or if it was forgotten. `at` is the index at which the run was found before;
    /// the call updates it.
    pub fn run(&self, id: RunId, at: &mut usize) -> Option<Run> {
        let slot = self.slot(id, at)?;
        for _ in 0..TRIES {
            let version = slot.version.load(Acquire);
            let run = slot.load();
            fence(Acquire);
            if version % 2 == 0 && slot.version.load(Relaxed) == version {
                return slot.is_of(id).then_some(run);
            }
            std::hint::spin_loop();
        }
        None
    }

    /// Changes the latest run. `change` gets the previous run. Does nothing if another process is writing the run.
    pub fn note(&self, id: RunId, at: &mut usize, change: impl FnOnce(&mut Run)) {
        let slot = self.slot(id, at);
        let is_known = slot.is_some();
        let slot = slot.or_else(|| self.runs.iter().min_by_key(|slot| slot.last_used()));
        let change = |slot: &RunSlot| {
            let mut run = if is_known && slot.is_of(id) {
                slot.load()
            } else {
                slot.look.store(0, Relaxed);
                Run::default()
            };
            change(&mut run);
            Some((id, run))
        };
        if let Some(slot) = slot {
            slot.write(change);
        }
    }

    /// Notes a look at a warmer. A warmer without a place takes a place that is free or was last used before the tick
    /// `unused_since`. If there is no such place, the call does nothing.
    pub fn note_look(&self, id: RunId, at: &mut usize, look: Look, unused_since: u32) {
        if self.slot(id, at).is_none() {
            if !self.runs.iter().any(|slot| slot.last_used() < unused_since.max(1)) {
                return;
            }
            self.note(id, at, |_| ());
        }
        if let Some(slot) = self.slot(id, at) {
            slot.look.store(look.word(), Relaxed);
        }
    }

    /// Returns the last look at a warmer. None if no worker has looked at it, or if its place was given to another warmer.
    pub fn look(&self, id: RunId, at: &mut usize) -> Option<Look> {
        let look = Look::of_word(self.slot(id, at)?.look.load(Relaxed));
        (look.tick != 0).then_some(look)
    }

    /// Forgets the latest run. Does nothing if another process is writing the run.
    pub fn forget(&self, id: RunId, at: &mut usize) {
        if let Some(slot) = self.slot(id, at) {
            slot.write(|slot| slot.is_of(id).then(|| (RunId(0), Run::default())));
        }
    }

    /// Finds the place of a run. Looks first at the index where the run was found before.
    fn slot(&self, id: RunId, at: &mut usize) -> Option<&RunSlot> {
        if let Some(slot) = self.runs.get(*at).filter(|slot| slot.is_of(id)) {
            return Some(slot);
        }
        *at = self.runs.iter().position(|slot| slot.is_of(id))?;
        self.runs.get(*at)
    }
}

impl RunSlot {
    /// Writes what `content` returns, unless another process is writing.
    fn write(&self, content: impl FnOnce(&Self) -> Option<(RunId, Run)>) {
        let version = self.version.load(Relaxed);
        let taken = version.is_multiple_of(2)
            && self.version.compare_exchange(version, version + 1, Acquire, Relaxed).is_ok();
        if !taken {
            return;
        }
        fence(Release);
        if let Some((id, run)) = content(self) {
            self.id.store(id.0, Relaxed);
            self.store(&run);
        }
        self.version.store(version.wrapping_add(2), Release);
    }

    fn is_of(&self, id: RunId) -> bool {
        self.id.load(Relaxed) == id.0
    }

    /// Returns the later one of two ticks: that of the last look, and that at which the last run began. 0 if the place is free.
    fn last_used(&self) -> u32 {
        match self.id.load(Relaxed) {
            0 => 0,
            _ => Look::of_word(self.look.load(Relaxed)).tick.max(self.began.load(Relaxed)).max(1),
        }
    }

    fn load(&self) -> Run {
        let mut message = [0; MESSAGE_WORDS];
        message.iter_mut().zip(&self.message).for_each(|(to, from)| *to = from.load(Relaxed));
        Run {
            began: self.began.load(Relaxed),
            rests_until: self.rests_until.load(Relaxed),
            duration_us: self.duration_us.load(Relaxed),
            process: self.process.load(Relaxed),
            runs: self.runs.load(Relaxed),
            failures: self.failures.load(Relaxed),
            code: self.code.load(Relaxed),
            message,
            length: self.length.load(Relaxed),
        }
    }

    fn store(&self, run: &Run) {
        self.began.store(run.began, Relaxed);
        self.rests_until.store(run.rests_until, Relaxed);
        self.duration_us.store(run.duration_us, Relaxed);
        self.process.store(run.process, Relaxed);
        self.runs.store(run.runs, Relaxed);
        self.failures.store(run.failures, Relaxed);
        self.code.store(run.code, Relaxed);
        self.message.iter().zip(run.message).for_each(|(to, from)| to.store(from, Relaxed));
        self.length.store(run.length, Relaxed);
    }
}
