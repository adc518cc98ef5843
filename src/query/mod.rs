//! Query results as cached values: the cache computes a result when it is missing, and the result stays valid until its time to
//! live ends or a dependency changes.

pub mod advise;
pub mod asked;
mod clock;
mod compress;
mod counts;
pub mod explain;
pub mod fetch;
mod fill;
mod flight;
mod forms;
mod freshness;
mod job;
pub mod keep;
mod last_key;
pub mod observe;
mod prefill;
mod refusals;
pub mod result;
mod run;
mod search;
mod text;
mod texts;
mod ticket;
pub mod verify;
pub mod warmer;
mod worth;

pub use job::{Found, Wanted};
