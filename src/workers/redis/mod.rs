//! The Redis worker: keeps copies of the values of some spaces in Redis.
//!
//! ```text
//! mod.rs         the main function: begins, reacts to changed settings, ends
//! config.rs      the settings
//! copier.rs      the state of the connection and of the copies: sends jobs, and handles the answers
//! journal.rs     reads changes from the journal, and collects the keys to look at
//! batches.rs     looks at keys, and makes the batches that give Redis their present values
//! scans.rs       the keys of Redis that are still to be compared with the cache
//! sets.rs        the sets in Redis by which the keys with a tag are found
//! places.rs      the names of databases and spaces
//! ```
//!
//! The worker reads values in shared memory only. It always copies the present value of a key, never a value that a record of the
//! journal describes. So the order in which sessions write does not matter, and each step may be repeated.
//!
//! - *Changes* are read from the journal. The journal is also the queue: after a failure, the worker reads it again from the number
//!   up to which Redis has confirmed everything.
//! - A *scan* compares all keys in Redis, or those of a database or a space, with the cache. The worker scans after a change whose
//!   keys the journal does not name.
//! - A *refill* looks at the values in memory and writes them to Redis. It removes nothing.
//! - A *resync* is a scan of all keys, followed by a refill. The worker resyncs when it starts, when the journal does not reach
//!   back to what Redis has confirmed, when Redis is another server or has other data than before, and when a database was renamed
//!   or dropped.
//!
//! A thread of the crate `pg_cache_redis` talks to Redis, so the worker never waits for the network.

mod batches;
mod config;
mod copier;
mod journal;
mod places;
mod scans;
mod sets;

use super::errors;
use crate::pg::error::SqlState;
use crate::pg::shared::{self, HotTier};
use crate::pg::worker_slot::WorkerSlot;
use crate::pg::{background, session};
use config::Config;
use copier::Copier;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

/// How long the worker waits after an error of its own before it begins again.
const PAUSE: Duration = Duration::from_secs(1);
/// How long the worker tries to remove its keys from Redis after `pg_cache.redis_url` or `pg_cache.redis_prefix` has changed.
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(10);
/// The same while Redis does not answer.
const REMOVAL_TIMEOUT_DOWN: Duration = Duration::from_secs(2);

/// The main function of the Redis worker. The launcher starts the worker again after it has ended, if `pg_cache.redis_url` is set.
pub fn run() {
    let Some((tier, slot)) = shared::tier().zip(shared::redis_slot()) else { return };
    // A previous worker may have ended with an error.
    let previous = slot.pid.load(Relaxed);
    if previous != 0 && !session::is_alive(previous) {
        slot.give_back(previous);
    }
    if !slot.take(session::pid(), 0, shared::tick()) {
        return;
    }
    if let Some(state) = shared::redis_state() {
        state.clear(shared::tick());
        if let Some(config) = Config::read() {
            while let Err(error) = background::attempt(|| work(tier, slot, &config)) {
                errors::note(slot, error);
                state.set_connected(false, shared::tick());
                let began = Instant::now();
                while began.elapsed() < PAUSE {
                    // A cancelled wait is no reason to stop.
                    let _ = background::attempt(|| background::wait(PAUSE / 10));
                }
            }
        }
        state.set_connected(false, shared::tick());
    }
    slot.give_back(session::pid());
}

/// Copies values until the settings change. If the URL or the prefix has changed, then removes the keys from Redis. May raise
/// errors. An error closes the connection to Redis.
fn work(tier: &'static HotTier, slot: &'static WorkerSlot, config: &Config) {
    let Some(state) = shared::redis_state() else { return };
    let is_unchanged = || Config::read().as_ref() == Some(config);
    let mut copier = match Copier::start(tier, slot, state, config) {
        Ok(copier) => copier,
        Err(why) => {
            pgrx::log!("pg_cache copies nothing to Redis: {why}");
            state.set_error(&why);
            errors::note(slot, SqlState::CONNECTION_FAILURE);
            while is_unchanged() {
                background::wait(PAUSE);
            }
            return;
        }
    };
    while is_unchanged() {
        let rest = copier.step();
        slot.worked.store(shared::tick(), Relaxed);
        background::wait(rest);
    }
    let stays = Config::read().is_some_and(|new| (&new.url, &new.prefix) == (&config.url, &config.prefix));
    let began = Instant::now();
    let timeout = |copier: &Copier| if copier.is_up() { REMOVAL_TIMEOUT } else { REMOVAL_TIMEOUT_DOWN };
    while !stays && began.elapsed() < timeout(&copier) && copier.withdraw() {
        background::wait(copier.step());
    }
}
