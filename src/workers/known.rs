//! The launcher's knowledge of the databases: when each had a worker last, and how many values had been stored then.

use std::collections::BTreeMap;
use std::time::Instant;

/// The facts about a database.
#[derive(Debug)]
struct Facts {
    /// How many values had been stored when its last worker was started, or when the launcher found that it could start none.
    stored: u64,
    /// The time of that moment.
    started: Instant,
}

/// The facts about each database that has had a worker, or could get none, by its OID.
#[derive(Debug, Default)]
pub struct Known(BTreeMap<u32, Facts>);

impl Known {
    /// Notes that a worker is started now, or that none can be started.
    pub fn note(&mut self, database: u32, stored: u64) {
        self.0.insert(database, Facts { stored, started: Instant::now() });
    }

    /// Returns whether values may have been stored since the last worker was started. `stored` is how many were stored so far.
    pub fn has_new(&self, database: u32, stored: u64) -> bool {
        self.0.get(&database).is_none_or(|known| known.stored != stored)
    }

    /// Returns when the last worker was started, or when the launcher last found that it could start none.
    pub fn started(&self, database: u32) -> Option<Instant> {
        self.0.get(&database).map(|known| known.started)
    }

    /// Returns whether nothing is known of any database.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Forgets the databases for which `is_of_use` is false.
    pub fn retain(&mut self, is_of_use: impl Fn(u32) -> bool) {
        self.0.retain(|database, _| is_of_use(*database));
    }
}
