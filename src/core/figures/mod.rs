//! Figures for operators and for evictions. There are counts of each *space*, a set of keys in one database (`statistics.rs`), of
//! each relation (`relation_stats.rs`), and of the whole server (`event.rs`). Others tell how long operations took (`latency.rs`),
//! which keys were hit, by a sample (`samples.rs`), and how long values took to compute (`cost.rs`). `counter.rs` lists the events
//! of a space, and `deltas.rs` collects changes that are added to shared memory together. `statistics.rs`, `relation_stats.rs` and
//! `samples.rs` have access rules. `tier/statistics.rs` is the interface for users.

mod cost;
mod counter;
mod deltas;
mod event;
mod latency;
mod relation_stats;
mod samples;
mod statistics;

pub use cost::Cost;
pub use counter::Counter;
pub(crate) use counter::{Counts, entries};
pub(crate) use deltas::{Delta, Deltas};
pub use event::{Event, Events};
pub use latency::{BUCKETS, Histogram, Histograms, Operation, bucket_limit_nanos};
pub use relation_stats::RelationStats;
pub(crate) use samples::SAMPLED_EVERY;
pub(crate) use statistics::Statistics;
pub use statistics::{Figures, SPACE_NAME_BYTES_MAX, SpaceStats};
