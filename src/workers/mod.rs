//! The background workers:
//! - the launcher, one for the server, which starts the others;
//! - a worker for each database that has values to save in tables, or changes to send notifications about;
//! - a worker for each role of a database that has *warmers* (queries whose results stay stored) or other results to keep stored;
//! - a worker that copies values to Redis.
//!
//! The cache works without them. Then no value is saved or copied, no notification is sent, no query runs in the background, and
//! dead entries stay in memory until their blocks are needed.

mod database;
mod errors;
mod keeping;
mod known;
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
