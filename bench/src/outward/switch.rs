//! Switches the *broadcast* on and off between the turns of a contest (`contest.rs`), on one server, so that both contenders have
//! the same memory layout and the same sessions. With the broadcast (`pg_cache.notify`), a background worker sends the changes in
//! the cache with NOTIFY.

use super::CLIENTS;
use super::contest::Turn;
use super::side::Side;
use crate::drive::Load;
use crate::drive::wire::{Task, Until};
use crate::plan::Given;
use std::time::Duration;

/// The time between a change and the look at the count of sent notifications: a worker that is awake sends after at most 20 ms.
const PAUSE: Duration = Duration::from_millis(25);
/// The broadcast counts as off after this many changes in a row without a notification: one notification may only be late.
const SILENT: u32 = 3;
/// Requests of each client before a turn: the sessions read the changed settings, and prepare the statement.
const WARM_UP: u64 = 20;
/// How often a turn is tried. A worker that gets no processor time looks as if the broadcast was off.
const TRIES: u32 = 5;

/// The clients of a turn, all of which send one request at a time.
const LOAD: Load = Load { clients: CLIENTS, pipeline: 1, keys: 1 };

/// A statement that is measured with the broadcast and without it.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The server, with its sessions.
    pub side: &'a Side,
    /// The text of the statement.
    pub statement: &'a str,
    /// The parameters of the statement.
    pub given: Given,
    /// Whether each run of the statement changes something that is broadcast.
    pub changes: bool,
    /// The duration of a turn.
    pub span: Duration,
}

impl Subject<'_> {
    /// Runs a turn with the broadcast on or off.
    pub fn turn(&self, on: bool, seed: u64) -> Turn {
        let task = Task { statement: self.statement, given: self.given, load: LOAD, seed };
        for _ in 0..TRIES {
            switch(self.side, on);
            self.side.run(task, Until::Done(WARM_UP * u64::from(CLIENTS)));
            let before = notifications(self.side);
            let turn = self.side.run(task, Until::Over(self.span));
            if !self.changes || (notifications(self.side) > before) == on {
                return turn;
            }
        }
        panic!("the broadcast is not {}", if on { "on" } else { "off" });
    }
}

/// Changes the setting, also if it has this value already, so that all turns begin alike. Returns when the worker has the setting
/// and has sent everything from before.
fn switch(side: &Side, on: bool) {
    // ALTER SYSTEM must be the only statement of its message.
    side.execute(&format!("ALTER SYSTEM SET pg_cache.notify = {on}"));
    side.execute("SELECT pg_reload_conf()");
    let is_told = || {
        let before = notifications(side);
        side.execute("SELECT cache_invalidate_tag('switch')");
        std::thread::sleep(PAUSE);
        notifications(side) > before
    };
    let mut silent = 0;
    side.wait_until("the worker to read its settings", Duration::ZERO, || {
        silent = if is_told() { 0 } else { silent + 1 };
        if on { silent == 0 } else { silent == SILENT }
    });
}

/// Returns how many notifications the workers have sent.
pub fn notifications(side: &Side) -> u64 {
    side.number("SELECT coalesce(sum(notifications), 0)::bigint FROM cache_workers WHERE kind = 'worker'")
}
