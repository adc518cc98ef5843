//! The parts of the report. Each entry of [`PARTS`] is one part. Most parts start servers of their own. The others measure the
//! crate `pg_cache_core`, the cache in shared memory, without a server.
//!
//! A new part is a module with a function `measure` and a function `estimate`, and an entry in [`PARTS`]. The lists of parts and
//! their times in `pace.rs` and `make/bench.sh` must follow.

use crate::day;
use crate::eviction;
use crate::frameworks::{self, DJANGO, KEYV, RAILS};
use crate::hot_tier::{get, innocents, memory, put};
use crate::outward;
use crate::pace::Pace;
use crate::progress::Progress;
use crate::queries;
use crate::report::section::Section;
use crate::served::{rates, rows, sizes, tags, tax, walk};
use crate::tables;
use std::time::Duration;

/// A part of the report.
#[derive(Clone, Copy)]
pub struct Part {
    /// The name of the part in the JSON output, and for `--only`. It must never change.
    pub id: &'static str,
    /// Whether the part starts a server. Such a part may need the programs that [`check_tools`](crate::test_servers::check_tools)
    /// looks for.
    pub served: bool,
    /// Measures the part. Panics if that fails. The section must have the `id` of the part.
    measure: fn(&Pace) -> Section,
    /// Returns about how long the measurement takes.
    estimate: fn(&Pace) -> Duration,
}

/// All parts, in the order of the report.
pub const PARTS: [Part; 31] = [
    Part { id: "tags", served: true, measure: tags::measure, estimate: tags::estimate },
    Part { id: "sizes", served: true, measure: sizes::measure, estimate: sizes::estimate },
    Part { id: "rates", served: true, measure: rates::measure, estimate: rates::estimate },
    Part { id: "tax", served: true, measure: tax::measure, estimate: tax::estimate },
    Part { id: "walk", served: true, measure: walk::measure, estimate: walk::estimate },
    Part { id: "rows", served: true, measure: rows::measure, estimate: rows::estimate },
    Part {
        id: "queries-hit",
        served: true,
        measure: queries::hit::measure,
        estimate: queries::hit::estimate,
    },
    Part {
        id: "queries-large",
        served: true,
        measure: queries::large::measure,
        estimate: queries::large::estimate,
    },
    Part {
        id: "queries-dashboard",
        served: true,
        measure: queries::dashboard::measure,
        estimate: queries::dashboard::estimate,
    },
    Part {
        id: "queries-writes",
        served: true,
        measure: queries::writes::measure,
        estimate: queries::writes::estimate,
    },
    Part {
        id: "queries-tpch",
        served: true,
        measure: queries::tpch::measure,
        estimate: queries::tpch::estimate,
    },
    Part { id: "day", served: true, measure: day::measure, estimate: day::estimate },
    Part {
        id: "tables-read",
        served: true,
        measure: tables::read::measure,
        estimate: tables::read::estimate,
    },
    Part { id: "tables-set", served: true, measure: tables::set::measure, estimate: tables::set::estimate },
    Part {
        id: "tables-save",
        served: true,
        measure: tables::save::measure,
        estimate: tables::save::estimate,
    },
    Part {
        id: "tables-disk",
        served: true,
        measure: tables::disk::measure,
        estimate: tables::disk::estimate,
    },
    Part {
        id: "tables-restart",
        served: true,
        measure: tables::restart::measure,
        estimate: tables::restart::estimate,
    },
    Part {
        id: "outward-commit",
        served: true,
        measure: outward::commit::measure,
        estimate: outward::commit::estimate,
    },
    Part {
        id: "outward-delay",
        served: true,
        measure: outward::delay::measure,
        estimate: outward::delay::estimate,
    },
    Part {
        id: "outward-redis",
        served: true,
        measure: outward::redis::measure,
        estimate: outward::redis::estimate,
    },
    Part {
        id: "outward-calls",
        served: true,
        measure: outward::calls::measure,
        estimate: outward::calls::estimate,
    },
    Part {
        id: "outward-outages",
        served: true,
        measure: outward::outages::measure,
        estimate: outward::outages::estimate,
    },
    Part {
        id: "outward-off",
        served: true,
        measure: outward::off::measure,
        estimate: outward::off::estimate,
    },
    Part {
        id: "frameworks-django",
        served: true,
        measure: |pace| DJANGO.measure(pace),
        estimate: frameworks::estimate,
    },
    Part {
        id: "frameworks-keyv",
        served: true,
        measure: |pace| KEYV.measure(pace),
        estimate: frameworks::estimate,
    },
    Part {
        id: "frameworks-rails",
        served: true,
        measure: |pace| RAILS.measure(pace),
        estimate: frameworks::estimate,
    },
    Part { id: "core-get", served: false, measure: get::measure, estimate: get::estimate },
    Part { id: "core-put", served: false, measure: put::measure, estimate: put::estimate },
    Part { id: "core-memory", served: false, measure: memory::measure, estimate: memory::estimate },
    Part { id: "core-innocents", served: false, measure: innocents::measure, estimate: innocents::estimate },
    Part { id: "eviction", served: false, measure: eviction::measure, estimate: eviction::estimate },
];

/// Measures the given parts, one after the other, and shows their progress.
pub fn run(parts: &[Part], pace: &Pace) -> Vec<Section> {
    parts
        .iter()
        .map(|part| {
            let progress = Progress::begin(part.id, (part.estimate)(pace));
            let section = (part.measure)(pace);
            assert_eq!(section.id, part.id, "the section has the id of its part");
            progress.end();
            section
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// `--only` selects parts, and measurements of the plan (`plan.rs`), by their ids. So no two of these may have the same id.
    #[test]
    fn ids_are_unique_among_parts_and_measurements() {
        let plan = crate::plan::measurements();
        let ids: Vec<_> =
            PARTS.iter().map(|part| part.id).chain(plan.iter().map(|one| one.id.as_str())).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
