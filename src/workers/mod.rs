//! The background workers: a launcher for the server, and one worker for each database that has values to save in tables.
//!
//! The cache works without them: nothing is then saved, and entries of no use stay in memory until their blocks are needed.

mod launcher;
mod saving;

use crate::pg::background::{self, Mains};
use crate::pg::settings;

/// Registers the launcher, unless the cache is switched off. Must be called while the server loads the library.
pub fn register() {
    if settings::hot_bytes() > 0 {
        background::register(Mains { launcher: launcher::run, worker: saving::run });
    }
}
