//! Pauses of warmers after a crash. A *warmer* is a query that a background worker runs again and again to keep its result stored
//! (`workers/warming.rs`). Without a pause, a warmer whose query crashes the server would crash it again after each recovery, and
//! no administrator could drop the warmer.
//!
//! When a process has crashed, the postmaster ends all other processes and creates shared memory anew. The postmaster's own memory
//! stays, so it has the number of crashes, and the warmers that ran at the last crash. A new postmaster starts with no crashes.
//!
//! After a crash, no warmer runs during a pause. The warmers that ran at the crash rest for a longer time. Both times double with
//! each crash, up to a limit, until the server has run for some time without a crash.

use super::clock;
use super::error::SqlState;
use super::warm_list::{Run, RunId, WarmList};
use super::worker_slot::DATABASE_SLOTS;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64};

/// The pause of all warmers after the first crash, in milliseconds.
const PAUSE_MS: u64 = 10_000;
/// The longest pause, in milliseconds.
const PAUSE_MS_MAX: u64 = 600_000;
/// A warmer that ran at the crash rests for this many pauses.
const SUSPECT_PAUSES: u64 = 6;
/// After this many milliseconds without a crash, the next crash counts as the first one. Must be longer than the longest rest.
const QUIET_MS: u64 = 2 * 60 * 60 * 1000;

/// When shared memory was created last, on the clock of [`clock::now_ms`]; 0 if it was not created yet.
static CREATED_MS: AtomicU64 = AtomicU64::new(0);
/// The number of crashes without a quiet time in between.
static CRASHES: AtomicU32 = AtomicU32::new(0);
/// Whether there were warmers at the last crash.
static HAD_WARMERS: AtomicBool = AtomicBool::new(false);
/// The runs that had not ended at the last crash, each as the number of its [`RunId`]. 0 if a place is free.
static SUSPECTS: [AtomicU64; DATABASE_SLOTS] = [const { AtomicU64::new(0) }; DATABASE_SLOTS];

/// Remembers which warmers run. Must be called in the postmaster after a crash, while the old shared memory still exists.
pub fn remember(list: &WarmList) {
    HAD_WARMERS.store(list.owners().next().is_some(), Relaxed);
    let mut running = list.running();
    for suspect in &SUSPECTS {
        suspect.store(running.next().unwrap_or(0), Relaxed);
    }
}

/// Lets the warmers pause if a process has crashed. Must be called in the postmaster each time shared memory was created, before
/// any other process exists. `tick_in` returns the tick that is a number of milliseconds in the future.
pub fn start_up(list: &WarmList, tick_in: impl Fn(u64) -> u32) {
    let now_ms = clock::now_ms().max(1);
    let created_ms = CREATED_MS.swap(now_ms, Relaxed);
    if created_ms == 0 {
        return;
    }
    let crashes = match now_ms.saturating_sub(created_ms) < QUIET_MS {
        true => CRASHES.load(Relaxed).saturating_add(1),
        false => 1,
    };
    CRASHES.store(crashes, Relaxed);
    let pause_ms = PAUSE_MS_MAX.min(PAUSE_MS << (crashes - 1).min(16));
    list.pause_until(tick_in(pause_ms));
    let mut suspects = String::new();
    for suspect in SUSPECTS.iter().map(|suspect| suspect.swap(0, Relaxed)).filter(|suspect| *suspect != 0) {
        let id = RunId::from_number(suspect);
        // The new list has no runs yet, so the index at which to look first is any number. A run counts as one that has taken place
        // if `began` is not 0.
        list.note(id, &mut 0, |run: &mut Run| {
            (run.began, run.runs, run.failures) = (1, 1, crashes);
            run.code = SqlState::CRASH_SHUTDOWN.0;
            run.set_message("the server has crashed during this run");
            run.rests_until = tick_in(pause_ms * SUSPECT_PAUSES);
        });
        suspects.push_str(&format!(
            "; {} ran, and rests for {} s",
            id.in_words(),
            pause_ms * SUSPECT_PAUSES / 1000
        ));
    }
    if HAD_WARMERS.swap(false, Relaxed) {
        pgrx::log!(
            "pg_cache runs no warmers for {} s, because a process has crashed{suspects}",
            pause_ms / 1000
        );
    }
}
