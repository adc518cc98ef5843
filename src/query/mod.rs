//! Values that are the results of queries: computed when they are missing, and right until what they were read from changes.

pub mod fetch;
