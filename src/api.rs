//! The SQL functions, one file for each family, and the checks that they share (`arguments.rs`). They check arguments and convert
//! values, and call `query` and `store`, which make all decisions about caching.

mod advise;
mod arguments;
mod call;
mod content;
mod counter;
#[cfg(debug_assertions)]
mod definition;
mod event;
mod fetch;
mod grant;
mod inspect;
mod invalidation;
mod journal;
mod lease;
mod many;
mod measure;
mod metrics;
mod observe;
mod query;
mod size;
mod space;
mod statistics;
mod top;
mod value;
mod version;
mod view;
mod warmer;
mod watch;
