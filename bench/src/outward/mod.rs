//! The parts of the report about data that leave the database. The *journal* is a ring in shared memory, in which each commit
//! records what it has changed in the cache. Background workers read the journal. One sends the changes with NOTIFY, which is
//! called the *broadcast* (`pg_cache.notify`). Another one, the Redis worker, copies values to Redis.
//!
//! [`commit`] compares the commits of writers that invalidate tags with the broadcast and without it, and [`calls`] does so for
//! single calls. [`off`] compares a journal without the broadcast with no journal. [`delay`] measures how long a change takes to
//! reach a listener. [`redis`] measures the Redis worker, and what it costs the sessions that set values. [`outages`] measures the
//! sessions while Redis is disturbed. `side` starts the servers, `switch` switches the broadcast on and off, `contest` runs
//! contenders, the alternatives that a part compares, in turns, and `listener` is a session that listens.

pub mod calls;
pub mod commit;
mod contest;
pub mod delay;
mod listener;
pub mod off;
pub mod outages;
pub mod redis;
mod side;
mod switch;

use crate::report::target::Target;

/// The number of sessions that work at the same time, in all parts except [`delay`], which has one session.
const CLIENTS: u32 = 8;
/// The goal for the commits per second with the broadcast, divided by those without it, and the worst acceptable figure.
const BROADCAST: Target = Target { goal: 0.97, floor: 0.95 };
