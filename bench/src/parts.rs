//! The parts of the report that speak for themselves: some have a server of their own, the others are the core by itself. One line
//! is one part.

use crate::eviction;
use crate::hot_tier::{get, innocents, memory, put};
use crate::pace::Pace;
use crate::progress::Progress;
use crate::report::section::Section;
use crate::served::{rates, sizes, tags, tax, walk};
use std::time::Duration;

/// A part of the report.
#[derive(Clone, Copy)]
pub struct Part {
    /// Names it in the JSON, for good.
    pub id: &'static str,
    /// Whether it takes a server.
    pub served: bool,
    /// Measures it.
    measure: fn(&Pace) -> Section,
    /// About how long that takes.
    estimate: fn(&Pace) -> Duration,
}

/// All parts, in the order in which they are reported.
pub const PARTS: [Part; 10] = [
    Part { id: "tags", served: true, measure: tags::measure, estimate: tags::estimate },
    Part { id: "sizes", served: true, measure: sizes::measure, estimate: sizes::estimate },
    Part { id: "rates", served: true, measure: rates::measure, estimate: rates::estimate },
    Part { id: "tax", served: true, measure: tax::measure, estimate: tax::estimate },
    Part { id: "walk", served: true, measure: walk::measure, estimate: walk::estimate },
    Part { id: "core-get", served: false, measure: get::measure, estimate: get::estimate },
    Part { id: "core-put", served: false, measure: put::measure, estimate: put::estimate },
    Part { id: "core-memory", served: false, measure: memory::measure, estimate: memory::estimate },
    Part { id: "core-innocents", served: false, measure: innocents::measure, estimate: innocents::estimate },
    Part { id: "eviction", served: false, measure: eviction::measure, estimate: eviction::estimate },
];

/// Measures some parts, one after the other.
pub fn run(parts: &[Part], pace: &Pace) -> Vec<Section> {
    parts
        .iter()
        .map(|part| {
            let progress = Progress::begin(part.id, (part.estimate)(pace));
            let section = (part.measure)(pace);
            assert_eq!(section.id, part.id, "a section stands under the name it was asked for by");
            progress.end();
            section
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn ids_are_unique_among_all_that_is_measured() {
        let plan = crate::plan::measurements();
        let ids: Vec<_> =
            PARTS.iter().map(|part| part.id).chain(plan.iter().map(|one| one.id.as_str())).collect();
        assert_eq!(ids.iter().collect::<HashSet<_>>().len(), ids.len());
    }
}
