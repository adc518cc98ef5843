//! The worker of a database: saves values in the *segments* of the database, which are tables of the extension (`saving.rs`), and
//! sends notifications about the changes of its values (`sending.rs`).
//!
//! An error does not end the worker. The worker begins again after a pause, with a new saver. The first pass of that saver frees
//! segments without copying rows: a full disk may need that.
//!
//! The *saver* is the part of the worker that saves values. A *fence* is the word in shared memory that says when a dependency of
//! values last changed. The *journal* is a ring in shared memory whose records name what has changed.

use super::errors;
use super::saving::Saving;
use super::sending::Sender;
use crate::pg::background;
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{session, shared};
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::fence;
use std::time::{Duration, Instant};

/// How often a worker without a saver checks whether it can save values.
const LOOK: Duration = Duration::from_secs(1);
/// The time after which a worker ends if it has neither saved nor sent anything.
const IDLE: Duration = Duration::from_secs(60);
/// How long the worker waits after an error. Each further error without a success in between doubles the time.
const PAUSE_MIN: Duration = Duration::from_secs(1);
/// The limit to which [`PAUSE_MIN`] doubles.
const PAUSE_MAX: Duration = Duration::from_secs(10);

/// How often a worker that waits after an error checks whether it must leave its database.
const STEP: Duration = Duration::from_millis(100);

/// The main function of the worker of a database.
pub fn run(database: u32) {
    let Some(slot) = take_slot(database) else { return };
    let mut pause = None;
    let mut sender = Sender::behind(background::number());
    while let Err(error) = background::attempt(|| work(slot, database, &mut pause, &mut sender)) {
        errors::note(slot, error);
        let rest = pause.map_or(PAUSE_MIN, |last: Duration| PAUSE_MAX.min(last * 2));
        pause = Some(rest);
        let began = Instant::now();
        while began.elapsed() < rest && !background::is_closed(database) {
            // A cancelled wait is no reason to stop.
            let _ = background::attempt(|| background::wait(STEP));
        }
        if background::is_closed(database) {
            break;
        }
    }
    slot.give_back(session::pid());
}

/// Takes a free slot, or the slot of a worker that is gone. Returns None if there is no slot, or if another worker has a slot for
/// this database: a database must have only one saver. If two workers start at the same time, both may give up; the launcher then
/// starts another one.
fn take_slot(database: u32) -> Option<&'static WorkerSlot> {
    let pid = session::pid();
    let slot = shared::database_slots().find(|slot| {
        let other = slot.pid.load(Relaxed);
        if other != 0 && !session::is_alive(other) {
            slot.give_back(other);
        }
        slot.take(pid, database, shared::tick())
    })?;
    // With this memory barrier, at least one of two workers that start at the same time sees the slot of the other.
    fence(SeqCst);
    if background::has_worker(database, pid) {
        slot.give_back(pid);
        return None;
    }
    Some(slot)
}

/// Works until there has been nothing to do for some time. `pause` is the time that the worker has waited after the last error;
/// None after a success.
fn work(slot: &WorkerSlot, database: u32, pause: &mut Option<Duration>, sender: &mut Option<Sender>) {
    let (mut saving, mut useful, mut looked) = (None, Instant::now(), None::<Instant>);
    let mut has_ever_sent = false;
    let has_unsent =
        |sender: &Option<Sender>| sender.as_ref().is_some_and(|sender| sender.due_in().is_some());
    while (useful.elapsed() < IDLE || has_unsent(sender)) && !background::is_closed(database) {
        if saving.is_none() && looked.is_none_or(|looked| looked.elapsed() >= LOOK) {
            saving = Saving::begin(slot, pause.is_none());
            looked = Some(Instant::now());
        }
        let saved = saving.as_mut().and_then(|saving| saving.pass(slot));
        if saved.is_none() {
            saving = None;
        }
        let has_sent = sender.as_mut().is_some_and(|sender| sender.send(slot));
        *pause = None;
        slot.note_success();
        slot.worked.store(shared::tick(), Relaxed);
        has_ever_sent |= has_sent;
        // A worker that has sent something waits for more changes. Any other worker was started to save or to free, and ends when
        // that is done.
        if saving.is_none() && !has_ever_sent && !has_unsent(sender) {
            return;
        }
        if has_sent || saved == Some(true) {
            useful = Instant::now();
            slot.useful.store(shared::tick(), Relaxed);
        }
        rest(saving.as_ref(), sender.as_ref());
    }
}

/// Waits until there is something to do.
fn rest(saving: Option<&Saving>, sender: Option<&Sender>) {
    let due_in = || sender.and_then(Sender::due_in);
    let pass = saving.map_or(LOOK, Saving::due_in);
    let mut send = due_in();
    if sender.is_some() && send.is_none() {
        shared::wake_on_change();
        // A change that came before that call does not wake this process, so the journal must be checked again.
        send = due_in();
    }
    let time = send.map_or(pass, |send| send.min(pass));
    // The server waits for whole milliseconds, so the time is rounded up.
    background::wait(if time.is_zero() { time } else { time + Duration::from_millis(1) });
}
