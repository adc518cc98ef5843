//! A slot in shared memory that tells of a background worker of pg_cache (`workers/`): for which database it works, and what it has
//! done.
//!
//! The worker writes its slot; every session reads it for the view `cache_workers`. Each number is one word, so a reader may see
//! some numbers from before and others from after a step of the worker. A new number must also be set to 0 in
//! [`WorkerSlot::format`] or `clear`: a slot that another worker takes over keeps what is not set there.
//!
//! A *tick* is 50 ms on the clock of `clock.rs`. The *journal* is a ring in shared memory whose records name what has changed.

use super::error::SqlState;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

/// The number of slots of workers of databases, and also of workers that run warmers: the most that `pg_cache.max_workers` allows.
pub const DATABASE_SLOTS: usize = 32;
/// The number of slots: one for the launcher, one for the Redis worker, and one for each worker of the other two kinds.
pub const WORKER_SLOTS: usize = 2 + 2 * DATABASE_SLOTS;

/// A background worker.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct WorkerSlot {
    /// The process id; 0 if the slot is free.
    pub pid: AtomicU32,
    /// The OID of the database; 0 for the launcher and the Redis worker.
    pub database: AtomicU32,
    /// The OID of the role whose warmers it runs; 0 for all other workers.
    pub role: AtomicU32,
    /// The tick at which the worker started.
    pub started: AtomicU32,
    /// The tick of its last step.
    pub worked: AtomicU32,
    /// The tick of its last step that saved or sent something, or of its start.
    pub useful: AtomicU32,
    /// How many values it has saved.
    pub saved: AtomicU64,
    /// How many copies came too late, because the entry had changed meanwhile.
    pub outdated: AtomicU64,
    /// How many tables it has emptied.
    pub freed: AtomicU64,
    /// How many dead entries it has removed from memory (the launcher).
    pub swept: AtomicU64,
    /// How many notifications it has sent.
    pub notified: AtomicU64,
    /// The number of the journal up to which it has sent notifications.
    pub sent: AtomicU64,
    /// 1 while it cannot send notifications because the server's queue of them is too full.
    pub is_paused: AtomicU64,
    /// How many of its steps have ended with an error.
    pub errors: AtomicU64,
    /// The error of its last step: `SQLSTATE : 32 | tick : 32`. 0 if there was none.
    error: AtomicU64,
    /// A database that is closed to workers, and the tick until which it is: `database : 32 | tick : 32`.
    pub closed: AtomicU64,
}

impl WorkerSlot {
    /// Makes this a free slot. Must be called before any other process can access the slot.
    pub fn format(&self) {
        for word in [&self.pid, &self.database, &self.role, &self.started, &self.worked, &self.useful] {
            word.store(0, Ordering::Relaxed);
        }
        self.clear();
        self.closed.store(0, Ordering::Relaxed);
    }

    /// Sets what a worker has done to nothing.
    fn clear(&self) {
        let counts = [&self.saved, &self.outdated, &self.freed, &self.swept, &self.notified, &self.sent];
        for word in counts.into_iter().chain([&self.is_paused, &self.errors, &self.error]) {
            word.store(0, Ordering::Relaxed);
        }
    }

    /// Takes the slot if it is free. Returns whether this process has it now.
    pub fn take(&self, pid: u32, database: u32, tick: u32) -> bool {
        let taken = self.pid.compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if taken {
            self.clear();
            self.started.store(tick, Ordering::Relaxed);
            self.worked.store(tick, Ordering::Relaxed);
            self.useful.store(tick, Ordering::Relaxed);
            self.role.store(0, Ordering::Relaxed);
            self.database.store(database, Ordering::Release);
        }
        taken
    }

    /// Notes that a step has ended with an error.
    pub fn note_error(&self, error: SqlState, tick: u32) {
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.error.store(u64::from(error.0) << 32 | u64::from(tick), Ordering::Relaxed);
    }

    /// Notes that a step was successful.
    pub fn note_success(&self) {
        self.error.store(0, Ordering::Relaxed);
    }

    /// Returns the error of the last step, and its tick. None if the step was successful.
    pub fn error(&self) -> Option<(SqlState, u32)> {
        let error = self.error.load(Ordering::Relaxed);
        (error != 0).then_some((SqlState((error >> 32) as u32), error as u32))
    }

    /// Gives the slot back if the process with this ID has it. Nothing else is reset: another process may take the slot at once.
    pub fn give_back(&self, pid: u32) {
        let _ = self.pid.compare_exchange(pid, 0, Ordering::Release, Ordering::Relaxed);
    }
}
