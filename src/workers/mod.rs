//! The background workers: a launcher for the server, one worker for each database that has values to save in tables or changes to
//! notify of, one for each role of a database that has warmers, and one that copies values to Redis.
//!
//! The cache works without them: nothing is then saved or copied, no notification is sent, and entries of no use stay in memory
//! until their blocks are needed.

mod database;
mod errors;
mod keeping;
mod launcher;
mod news;
mod redis;
mod saving;
mod sending;
mod warming;
mod warmth;

use crate::pg::background::{self, Mains};
use crate::pg::settings;

/// Registers the launcher, unless the cache is switched off. Must be called while the server loads the library.
pub fn register() {
    if settings::hot_bytes() > 0 {
        background::register(Mains {
            launcher: launcher::run,
            worker: database::run,
            redis: redis::run,
            warmer: warming::run,
        });
    }
}
