//! The parts of the report that need no server: the core by itself. One line is one part.

use crate::eviction;
use crate::hot_tier::{get, innocents, memory, put};
use crate::pace::Pace;
use crate::progress::Progress;
use crate::report::section::Section;
use std::time::Duration;

/// A part of the report.
#[derive(Clone, Copy)]
pub struct Part {
    /// Names it in the JSON, for good.
    pub id: &'static str,
    /// Measures it.
    measure: fn(&Pace) -> Section,
    /// About how long that takes.
    estimate: fn(&Pace) -> Duration,
}

/// All parts, in the order in which they are reported.
pub const PARTS: [Part; 5] = [
    Part { id: "core-get", measure: get::measure, estimate: get::estimate },
    Part { id: "core-put", measure: put::measure, estimate: put::estimate },
    Part { id: "core-memory", measure: memory::measure, estimate: memory::estimate },
    Part { id: "core-innocents", measure: innocents::measure, estimate: innocents::estimate },
    Part { id: "eviction", measure: eviction::measure, estimate: eviction::estimate },
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
