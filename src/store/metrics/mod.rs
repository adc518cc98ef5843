//! The metrics of the server and of the spaces of this database, as the view `cache_metrics` and the text for Prometheus show them.
//! A *space* is a named cache.
//!
//! One call reads the figures of all spaces and backends once (`Tier::figures`), so the samples of one call agree with each other.
//! It takes no lock of the cache, and its cost does not grow with the number of entries. Figures of spaces have the labels
//! `database` and `space`. All other figures are of the whole server and are the same in each database. `docs/monitoring.md` lists
//! all metrics for users.
//!
//! ```text
//! family.rs   the parts of a metric: its family, its labels, its value
//! spaces.rs   the metrics of spaces
//! server.rs   the metrics of the server: invalidations, times, memory, tables, workers, journal, Redis
//! bound.rs    what a number of verified hits shows
//! text.rs     the text format of Prometheus
//! ```

mod bound;
mod family;
mod server;
mod spaces;
mod text;

pub use bound::Bound;
pub use family::{Family, Owner, Sink, Type, Value};
pub use server::{names_of, verified};
pub use text::Text;

use crate::pg::error::OrRaise;
use crate::pg::shared;

/// Passes all metrics to a sink. If the server does not cache, passes only `pgcache_up`, with the value 0. May raise errors.
pub fn collect(into: &mut impl Sink) {
    let tier = shared::tier();
    server::up(tier.is_some(), into);
    if let Some(tier) = tier {
        let figures = tier.figures().or_raise();
        spaces::collect(&figures, into);
        server::collect(tier, &figures, into);
    }
}
