//! The client of Redis behind pg_cache: a thread that executes jobs in order and answers each of them in order.
//!
//! The crate knows neither PostgreSQL nor the shared memory of the cache, so the compiler proves that the thread touches neither.
//! The worker decides what is written; this crate only executes it.
//!
//! Rules:
//!
//! - Every wait for a server ends after the timeout of the target, or later after a large request (`node.rs`), and the first wait
//!   that ends so gives the connection up. Two waits have no bound: the resolution of a host name, and the connection to a Unix
//!   socket whose server accepts none and whose queue is full. Both happen on the thread, so the worker never waits for them.
//! - After a failure, the thread skips every job until `Job::Connect` succeeds. So no job is executed out of order.
//! - Commands that a server has received but not executed when a connection was given up never run after newer ones. Before
//!   anything is written, `Job::Connect` ends the old connections by `CLIENT KILL`: those of this process by their number, and, at
//!   the first connection, those of processes that have ended by their name. A user without the rights to `CLIENT ID`, `CLIENT
//!   KILL`, and, for the connections of other processes, `CLIENT SETNAME` and `CLIENT LIST`, lacks this protection.
//! - No text that leaves the crate contains the user or the password of the target.
//! - A panic ends the thread, never the process. The crate never prints.
//!
//! A set has the Redis keys that depend on a tag or a relation, so that a change of the tag leads to its keys. Its *proof* is a
//! member with an empty name, which only an addition that may create the set adds. If Redis evicts the set and a later addition
//! creates it again, the proof is missing. So a set that is not complete is always noticed, even if Redis evicts it between two
//! commands.

mod commands;
mod failure;
mod find;
mod info;
mod jobs;
mod link;
mod mask;
mod members;
mod messages;
mod names;
mod node;
mod slots;
mod target;
mod thread;
mod writing;

pub use jobs::{Answer, Batch, Facts, Job, SetAddition, Value};
pub use mask::mask;
pub use names::{Names, pattern};
pub use target::Target;
pub use thread::Client;
