//! The metrics of spaces: reads, values, queries and memory. A *space* is a named cache, whose counts are in shared memory
//! (`SpaceStats` of the core). [`ALL`] lists the metrics; each goes to a *sink*, the receiver of metrics (`family.rs`). A new
//! counter needs a line there.

use super::family::{Family, Label, Owner, Sink, Type, Value};
use crate::pg::{background, memory, shared};
use crate::store::space;
use pg_cache_core::{Counter, Figures, SpaceStats};

/// The figure of a space from which a metric gets its value.
#[derive(Clone, Copy)]
enum Source {
    /// A number of events.
    Count(Counter),
    /// A sum of times that is counted in milliseconds.
    Millis(Counter),
    /// A sum of times that is counted in microseconds.
    Micros(Counter),
    /// The number of entries in memory.
    Entries,
    /// The memory of the entries.
    Bytes,
}

impl Source {
    fn of(self, stats: &SpaceStats) -> Value {
        match self {
            Self::Count(what) => Value::Number(stats.counted(what)),
            Self::Millis(what) => Value::Millis(stats.counted(what)),
            Self::Micros(what) => Value::Micros(stats.counted(what)),
            Self::Entries => Value::Number(stats.entries),
            Self::Bytes => Value::Number(stats.bytes()),
        }
    }
}

/// A family, and its metrics for each space: the labels of each, besides those of the space, and its figure.
struct OfSpace {
    family: Family,
    samples: &'static [(&'static [Label<'static>], Source)],
}

const fn counter(
    name: &'static str,
    help: &'static str,
    samples: &'static [(&'static [Label<'static>], Source)],
) -> OfSpace {
    OfSpace { family: Family { name, kind: Type::Counter, help }, samples }
}

const fn gauge(
    name: &'static str,
    help: &'static str,
    samples: &'static [(&'static [Label<'static>], Source)],
) -> OfSpace {
    OfSpace { family: Family { name, kind: Type::Gauge, help }, samples }
}

/// The metrics of each space, in the order in which they are shown.
const ALL: [OfSpace; 17] = [
    counter(
        "pgcache_hits_total",
        "Reads that returned a value, by the place where it was found.",
        &[
            (&[("tier", "memory")], Source::Count(Counter::Hit)),
            (&[("tier", "table")], Source::Count(Counter::HitSaved)),
        ],
    ),
    counter(
        "pgcache_misses_total",
        "Reads that found no valid value, by the reason.",
        &[
            (&[("reason", "absent")], Source::Count(Counter::MissAbsent)),
            (&[("reason", "expired")], Source::Count(Counter::MissExpired)),
            (&[("reason", "invalidated")], Source::Count(Counter::MissFenced)),
            (&[("reason", "own_change")], Source::Count(Counter::MissOwn)),
            (&[("reason", "off")], Source::Count(Counter::MissOff)),
        ],
    ),
    counter(
        "pgcache_stale_served_total",
        "Values that were served after they had stopped being valid.",
        &[(&[], Source::Count(Counter::Stale))],
    ),
    counter(
        "pgcache_stale_served_age_seconds_total",
        "Sum of the times since stale values that were served were last known to be valid.",
        &[(&[], Source::Millis(Counter::StaleTime))],
    ),
    counter("pgcache_stored_total", "Values stored.", &[(&[], Source::Count(Counter::Stored))]),
    counter(
        "pgcache_promoted_total",
        "Values brought back from a table to memory.",
        &[(&[], Source::Count(Counter::Promoted))],
    ),
    counter(
        "pgcache_refused_total",
        "Values that a limit kept from being stored, by the limit.",
        &[
            (&[("reason", "room")], Source::Count(Counter::RefusedFull)),
            (&[("reason", "size")], Source::Count(Counter::RefusedSize)),
            (&[("reason", "quota")], Source::Count(Counter::RefusedQuota)),
            (&[("reason", "transaction")], Source::Count(Counter::RefusedTransaction)),
            (&[("reason", "off")], Source::Count(Counter::RefusedOff)),
        ],
    ),
    counter(
        "pgcache_evicted_total",
        "Valid values removed from memory because it was short, by the limit.",
        &[
            (&[("reason", "room")], Source::Count(Counter::Evicted)),
            (&[("reason", "quota")], Source::Count(Counter::EvictedQuota)),
        ],
    ),
    counter(
        "pgcache_removed_total",
        "Values removed from memory for another reason than eviction, by the reason.",
        &[
            (&[("reason", "replaced")], Source::Count(Counter::Replaced)),
            (&[("reason", "deleted")], Source::Count(Counter::Removed)),
            (&[("reason", "expired")], Source::Count(Counter::Expired)),
            (&[("reason", "invalidated")], Source::Count(Counter::Fenced)),
        ],
    ),
    counter(
        "pgcache_fills_total",
        "Queries that pg_cache ran because no result was found or a result had to be renewed, by whether the result was stored.",
        &[
            (&[("result", "stored")], Source::Count(Counter::Filled)),
            (&[("result", "not_stored")], Source::Count(Counter::FilledUnstored)),
        ],
    ),
    counter(
        "pgcache_fill_seconds_total",
        "Time that these queries took.",
        &[(&[], Source::Micros(Counter::FillTime))],
    ),
    counter(
        "pgcache_saved_seconds_total",
        "Time that hits have saved: the time that the queries of their results took.",
        &[(&[], Source::Micros(Counter::Saved))],
    ),
    counter(
        "pgcache_waits_total",
        "Calls that waited for another session that computed the value.",
        &[(&[], Source::Count(Counter::Waited))],
    ),
    counter(
        "pgcache_wait_seconds_total",
        "Time that these calls waited.",
        &[(&[], Source::Micros(Counter::WaitTime))],
    ),
    counter(
        "pgcache_read_retries_total",
        "Reads that were repeated because of a concurrent change.",
        &[(&[], Source::Count(Counter::Retry))],
    ),
    gauge("pgcache_entries", "Values in memory, valid or not.", &[(&[], Source::Entries)]),
    gauge(
        "pgcache_memory_bytes",
        "Memory of the values, with values that are about to be stored.",
        &[(&[], Source::Bytes)],
    ),
];

/// Passes the metrics of the spaces of this database to a sink. A space that was not used since the cache was last empty has none.
/// If the server has too many spaces, some of them share figures: these have one set of metrics, without the labels `database` and
/// `space`. May raise errors.
pub fn collect(figures: &Figures, into: &mut impl Sink) {
    let (database, mut spaces) = (shared::database(), Vec::new());
    let name = background::database_name(database);
    if let Some(shared) = figures.spaces().first().filter(|stats| stats.space.is_none() && is_used(stats)) {
        memory::push(&mut spaces, (Owner::default(), shared));
    }
    space::each_name(|oid, space| {
        if let Some(stats) = figures.of_space(database, oid) {
            memory::check();
            let owner = Owner::of(&[("database", &name), ("space", space)]);
            memory::push(&mut spaces, (owner, stats));
        }
    });
    let metrics: usize = ALL.iter().map(|family| family.samples.len()).sum();
    into.make_room(spaces.len() * metrics);
    for OfSpace { family, samples } in &ALL {
        into.family(family);
        for (owner, stats) in &spaces {
            for (labels, source) in *samples {
                into.sample(family.name, owner, labels, source.of(stats));
            }
        }
    }
}

/// Returns whether the figures contain a count other than 0, or memory in use.
fn is_used(stats: &SpaceStats) -> bool {
    stats.bytes() > 0 || Counter::ALL.iter().any(|what| stats.counted(*what) > 0)
}
