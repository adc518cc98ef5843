//! Figures: what is counted of each space and of each relation, and how long values took to compute.

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
