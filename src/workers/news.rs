//! The databases with changes that were not sent yet. The launcher follows the journal, and starts a worker for each such database.

use crate::pg::shared::{self, HotTier};
use crate::pg::{session, settings};
use crate::store::journal;
use pg_cache_core::KEY_BYTES_MAX;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Acquire, Relaxed};

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
}

impl News {
    /// Reads the new changes in the journal, and forgets the changes that were sent.
    pub fn follow(&mut self, tier: &HotTier) {
        if settings::notify_channel().is_none() || !tier.journal().exists() {
            *self = Self::default();
            return;
        }
        if self.read == 0 {
            journal::begin(tier);
            self.read = tier.journal().last().unwrap_or(0);
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
                // The launcher has lost changes. A worker that runs reads the journal itself and notices the loss. A database
                // without a worker gets one with its next change.
                Err(_) => {
                    self.read = tier.journal().last().unwrap_or(0);
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
