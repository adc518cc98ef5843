//! Figures: what is counted of each space and of each relation, and how long values took to compute.

pub(crate) mod cost;
pub(crate) mod deltas;
pub(crate) mod relation_stats;
pub(crate) mod statistics;
