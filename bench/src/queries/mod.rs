//! The parts about cached results of queries (`cache_query`).
//!
//! [`hit`] measures the hit of a small result, [`large`] that of a large one. [`dashboard`] compares the dashboard of the sample
//! shop with its cached result, and [`tpch`] does so for the queries of TPC-H. [`writes`] compares cached and uncached reads while
//! a share of the requests are writes. `stage` starts the servers, `shop` fills the sample shop, and `race` runs the contenders,
//! the alternatives that a part compares, in turns.

pub mod dashboard;
pub mod hit;
pub mod large;
pub mod race;
pub mod shop;
pub mod stage;
pub mod tpch;
pub mod writes;
