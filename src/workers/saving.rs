//! The worker of a database: saves values in its segments.
//!
//! An error does not end the worker. It begins again after a pause, with a new saver, and first frees segments without copying
//! rows: a full disk may need that.

use crate::pg::background;
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{session, settings, shared};
use crate::store::table::saver::{Due, Saver};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

/// How long the worker waits between two passes. Entries that are about to be evicted must be saved within that time.
const PASS: Duration = Duration::from_millis(100);
/// The same, if so many entries are evicted that a pass later would be too late for some.
const HURRIED_PASS: Duration = Duration::from_millis(5);
/// A worker that has saved nothing for so long ends.
const IDLE: Duration = Duration::from_secs(60);
/// How long the worker waits after an error. Each further error without a success in between doubles the time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// The main function of the worker of a database.
pub fn run(database: u32) {
    let Some(slot) = take_slot(database) else { return };
    let mut pause = None;
    while let Err(error) = background::attempt(|| work(slot, database, &mut pause)) {
        slot.note_error(error, shared::tick());
        let rest = pause.map_or(PAUSE_MIN, |last: Duration| PAUSE_MAX.min(last * 2));
        pause = Some(rest);
        let began = Instant::now();
        while began.elapsed() < rest && !background::is_closed(database) {
            // A cancelled wait is no reason to stop.
            let _ = background::attempt(|| background::wait(PASS));
        }
        if background::is_closed(database) {
            break;
        }
    }
    slot.give_back(session::pid());
}

/// Takes a free slot, or that of a worker that is gone. The first slot is the launcher's. Returns None if there is no slot, or if
/// another worker has one for this database: a database must have only one saver. Of two workers that start at the same time, both
/// may give up; the launcher then starts another one.
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

/// Saves values until there is nothing to do for some time. `pause` is how long the worker has waited after the last error; None
/// after a success.
fn work(slot: &WorkerSlot, database: u32, pause: &mut Option<Duration>) {
    let Some(mut saver) = background::in_transaction(Saver::new) else { return };
    let (saved, outdated) = (slot.saved.load(Relaxed), slot.outdated.load(Relaxed));
    let (mut useful, mut maintained, mut walked) = (Instant::now(), Instant::now(), Instant::now());
    let mut copies = pause.is_none();
    while useful.elapsed() < IDLE && !background::is_closed(database) {
        let (mut is_busy, mut due) = (false, Due::None);
        let interval = Duration::from_millis(settings::sweep_interval_ms());
        if !copies || saver.needs_segment() || maintained.elapsed() >= interval {
            maintained = Instant::now();
            match background::in_transaction(|| saver.maintain(copies)) {
                None => return,
                Some(freed) => {
                    is_busy |= freed;
                    slot.freed.fetch_add(freed.into(), Relaxed);
                }
            }
        }
        let is_on = settings::table_bytes() > 0;
        if is_on {
            due = background::in_transaction(|| saver.save_due());
            is_busy |= due > Due::None;
            let budget = (walked.elapsed().as_secs_f64() * settings::save_rate() as f64) as u64;
            walked = Instant::now();
            is_busy |= background::in_transaction(|| saver.save_rest(budget));
        } else if saver.is_empty() {
            return;
        }
        (copies, *pause) = (true, None);
        slot.note_success();
        slot.saved.store(saved + saver.saved, Relaxed);
        slot.outdated.store(outdated + saver.outdated, Relaxed);
        slot.worked.store(shared::tick(), Relaxed);
        if is_busy {
            useful = Instant::now();
        }
        background::wait(if due == Due::Many { HURRIED_PASS } else { PASS });
    }
}
