//! Figures: the counts of each space (`statistics.rs`) and of each relation (`relation_stats.rs`), a sample of the hits
//! (`samples.rs`), and how long values took to compute (`cost.rs`). Each of the first three files has its access rules.
//! `tier/statistics.rs` is the interface for users.

mod cost;
mod counter;
mod deltas;
mod relation_stats;
mod samples;
mod statistics;

pub use cost::Cost;
pub use counter::Counter;
pub(crate) use counter::{Counts, entries};
pub(crate) use deltas::{Delta, Deltas};
pub use relation_stats::RelationStats;
pub(crate) use samples::SAMPLED_EVERY;
pub(crate) use statistics::Statistics;
pub use statistics::{SPACE_NAME_BYTES_MAX, SpaceStats};
