//! The client of Redis behind pg_cache, which copies values of the cache to Redis (`docs/redis.md`): a thread that executes *jobs*
//! in order and answers each of them in order. The *Redis worker*, a background worker of PostgreSQL (`src/workers/redis/`), sends
//! the jobs. It decides what is written; this crate only executes it. The *target* is the Redis of the settings: one server, a
//! cluster, or the master that sentinels name (`target.rs`).
//!
//! The crate depends neither on PostgreSQL nor on the shared memory of the cache, so the compiler proves that the thread touches
//! neither.
//!
//! Rules:
//!
//! - Every wait for a server ends after the timeout of the target, or later after a large request (`node.rs`). A connection on
//!   which a wait has ended without an answer is *given up*: nothing is sent over it any more. Two waits have no bound: the
//!   resolution of a host name, and the connection to a Unix socket whose server accepts none and whose queue is full. Both happen
//!   on the thread, so the worker never waits for them.
//! - After a failure, the thread skips every job until `Job::Connect` succeeds. So no job is executed out of order.
//! - Commands that a server has received over a connection that was given up never run after newer ones. Before anything is
//!   written, `Job::Connect` ends the old connections by `CLIENT KILL`. It finds those of this process by their number. At the
//!   first connection of a process, it also ends those of earlier processes, which it finds by their name. This protection needs a
//!   user with the rights to `CLIENT ID` and `CLIENT KILL`, and for earlier processes also to `CLIENT SETNAME` and `CLIENT LIST`.
//! - No text that leaves the crate contains the user or the password of the target.
//! - A panic ends the thread, never the process. The crate never prints.
//!
//! A *set* in Redis has the Redis keys of the values that depend on a tag or a relation. When the tag or the relation changes, the
//! values of these keys are removed. Redis may evict a set like any other key. The *proof* of a set is a member with an empty name.
//! Only an addition that may create the set adds the proof. If Redis evicts the set and a later addition creates it again, the
//! proof is missing. So a set that is not complete is always noticed, even if Redis evicts it between two commands.

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
