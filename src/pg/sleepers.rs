//! The background workers that sleep until something changes in the cache: words in shared memory by which a commit wakes them. A
//! worker that sends notifications follows one database, and the worker of Redis follows all.

use std::sync::atomic::{AtomicU32, Ordering, fence};

/// The number of words for databases. Databases whose OIDs have the same remainder share a word: a collision only delays a worker.
const DATABASES: usize = 32;

/// A word holds the number of the sleeping process in the server's list of processes plus 1; 0 if no process is to be woken.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Sleepers {
    /// The workers that follow the changes of one database.
    databases: [AtomicU32; DATABASES],
    /// The worker that follows the changes of all databases.
    all: AtomicU32,
}

impl Sleepers {
    /// Empties the words. Must be called before any other process can access them.
    pub fn format(&self) {
        self.databases.iter().chain([&self.all]).for_each(|word| word.store(0, Ordering::Relaxed));
    }

    /// Asks that the next change in a database wakes the process with the number `process`; if `database` is 0, the next change in
    /// any database does. The process must look for changes between this call and its sleep. It must also wake up by itself:
    /// another process may take its place in the word.
    pub fn arm(&self, database: u32, process: u32) {
        self.word(database).store(process + 1, Ordering::SeqCst);
    }

    /// Calls `wake` with the number of each process that waits for a change in a database. The change must have been written
    /// before.
    #[inline]
    pub fn take(&self, database: u32, wake: impl Fn(u32)) {
        // A sleeper looks for changes after it has written its word.
        fence(Ordering::SeqCst);
        for word in [self.word(database), &self.all] {
            if word.load(Ordering::Relaxed) != 0
                && let Some(process) = word.swap(0, Ordering::SeqCst).checked_sub(1)
            {
                wake(process);
            }
        }
    }

    #[inline]
    fn word(&self, database: u32) -> &AtomicU32 {
        match database {
            0 => &self.all,
            database => &self.databases[database as usize % DATABASES],
        }
    }
}
