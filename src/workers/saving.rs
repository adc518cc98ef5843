//! The worker of a database: saves values in its segments.

use crate::pg::background;
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{session, settings, shared};
use crate::store::table::saver::Saver;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

/// How long the worker waits between two passes. Entries that are about to be evicted must be saved within that time.
const PASS: Duration = Duration::from_millis(100);
/// A worker that has saved nothing for so long ends.
const IDLE: Duration = Duration::from_secs(60);

/// The main function of the worker of a database.
pub fn run(database: u32) {
    let Some(slot) = take_slot(database) else { return };
    if let Some(saver) = background::in_transaction(Saver::new) {
        work(saver, slot, database);
    }
    slot.give_back(session::pid());
}

/// Takes a free slot, or that of a worker that is gone. The first slot is the launcher's. Returns None if there is no slot, or if another
/// worker has one for this database: a database must have only one saver. Of two workers that start at the same time, both may give up;
/// the launcher then starts another one.
fn take_slot(database: u32) -> Option<&'static WorkerSlot> {
    let pid = session::pid();
    let slot = shared::worker_slots().skip(1).find(|slot| {
        let other = slot.pid.load(Relaxed);
        if other != 0 && !session::is_alive(other) {
            slot.give_back(other);
        }
        slot.take(pid, database, shared::tick())
    })?;
    // With this fence, at least one of two workers sees the slot of the other.
    fence(SeqCst);
    if background::has_worker(database, pid) {
        slot.give_back(pid);
        return None;
    }
    Some(slot)
}

/// Saves values until there is nothing to do for some time.
fn work(mut saver: Saver, slot: &WorkerSlot, database: u32) {
    let (mut useful, mut maintained, mut walked) = (Instant::now(), Instant::now(), Instant::now());
    while useful.elapsed() < IDLE && !background::is_closed(database) {
        let mut is_busy = false;
        if settings::table_bytes() > 0 {
            is_busy |= background::in_transaction(|| saver.save_due());
            let budget = (walked.elapsed().as_secs_f64() * settings::save_rate() as f64) as u64;
            walked = Instant::now();
            is_busy |= background::in_transaction(|| saver.save_rest(budget));
        }
        let interval = Duration::from_millis(settings::sweep_interval_ms());
        if saver.needs_segment() || maintained.elapsed() >= interval {
            maintained = Instant::now();
            match background::in_transaction(|| saver.maintain()) {
                None => return,
                Some(freed) => {
                    is_busy |= freed;
                    slot.freed.fetch_add(freed.into(), Relaxed);
                }
            }
        }
        slot.saved.store(saver.saved, Relaxed);
        slot.outdated.store(saver.outdated, Relaxed);
        slot.worked.store(shared::tick(), Relaxed);
        if is_busy {
            useful = Instant::now();
        }
        background::wait(PASS);
    }
}
