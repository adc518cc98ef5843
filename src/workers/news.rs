//! The databases with changes that were not sent yet. The launcher follows the journal, and starts a worker for each such database.
//! The *journal* is a ring in shared memory whose records name what has changed.
//!
//! If the launcher has missed records, any database may have unsent changes. Then each database to which a session is connected
//! gets a worker, which tells the listeners that everything may have changed. A database without a session has no listener.

use crate::pg::background;
use crate::pg::shared::{self, HotTier};
use crate::pg::{session, settings};
use crate::store::journal;
use pg_cache_core::KEY_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

/// A number that the journal never reaches back to. A worker that reads from here finds that everything may have changed.
const BEFORE_ALL: u64 = 1;

/// The changes of a database that no worker has confirmed as sent.
#[derive(Clone, Copy, Debug)]
struct Unsent {
    /// A number before that of the first change.
    before: u64,
    /// The number of the last change.
    last: u64,
}

/// The databases with unsent changes.
#[derive(Debug, Default)]
pub struct News {
    /// The number up to which the launcher has read the journal.
    read: u64,
    /// The unsent changes, by the OID of the database.
    unsent: BTreeMap<u32, Unsent>,
    /// Whether records may have been missed before the launcher began to read.
    has_missed: bool,
}

impl News {
    /// Returns the state of a launcher that follows one that has ended, perhaps before it had started a worker for each database
    /// with unsent changes.
    pub fn of_successor() -> Self {
        Self { has_missed: true, ..Self::default() }
    }

    /// Reads the new changes in the journal, and forgets the changes that were sent.
    pub fn follow(&mut self, tier: &HotTier) {
        if settings::notify_channel().is_none() || !tier.journal().exists() {
            *self = Self::default();
            return;
        }
        if self.read == 0 {
            journal::begin(tier);
            self.read = tier.journal().last().unwrap_or(0);
            if std::mem::take(&mut self.has_missed) {
                self.add_all(BEFORE_ALL);
            }
        }
        loop {
            let mut name = [0; KEY_BYTES_MAX];
            match tier.journal().read(self.read, &mut name) {
                Ok(None) => break,
                Ok(Some(next)) => {
                    let Unsent { last, .. } = self
                        .unsent
                        .entry(next.record.database)
                        .or_insert(Unsent { before: self.read, last: self.read });
                    *last = next.number;
                    self.read = next.number;
                }
                // The journal no longer has the next record.
                Err(_) => {
                    let before = self.read;
                    self.read = tier.journal().last().unwrap_or(0);
                    self.add_all(before);
                    break;
                }
            }
        }
        // The workers that run send a change of all databases.
        self.unsent.remove(&0);
        for slot in shared::database_slots() {
            let (pid, database) = (slot.pid.load(Acquire), slot.database.load(Acquire));
            if pid == 0 || !session::is_worker_of(pid, database) {
                continue;
            }
            let sent = slot.sent.load(Relaxed);
            if let Some(unsent) = self.unsent.get_mut(&database) {
                unsent.before = unsent.before.max(sent);
                if sent >= unsent.last {
                    self.unsent.remove(&database);
                }
            }
        }
    }

    /// Notes that each database with a session may have unsent changes behind the number `before`, which the journal does not reach
    /// back to.
    fn add_all(&mut self, before: u64) {
        let last = self.read;
        for (database, _) in background::in_transaction(background::databases) {
            if session::has_sessions(database) {
                let unsent = self.unsent.entry(database).or_insert(Unsent { before, last });
                unsent.last = last;
            }
        }
    }

    /// Returns the databases with unsent changes.
    pub fn databases(&self) -> impl Iterator<Item = u32> {
        self.unsent.keys().copied()
    }

    /// Returns the number after which the worker of a database begins to read the journal. 0 if no notifications are sent.
    pub fn number(&self, database: u32) -> u64 {
        self.unsent.get(&database).map_or(self.read, |unsent| unsent.before)
    }

    /// Forgets the changes of a database that was dropped or accepts no connections.
    pub fn forget(&mut self, database: u32) {
        self.unsent.remove(&database);
    }
}
