//! The stored results of queries, by their texts.

use crate::pg::memory;
use crate::store::results::{self, State};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The stored results of one text in a space.
#[derive(Default)]
pub struct Group {
    pub results: f64,
    pub hits: u64,
    pub cost_ms: f64,
    pub rows: f64,
    pub space_oid: u32,
    /// The tables whose changes have invalidated the results before they could be stored, so that no result is stored for a while
    /// (`query/ticket.rs`). None if results are stored.
    pub left_out: Option<String>,
}

/// The groups of all stored results, by their spaces and texts.
pub type Groups = BTreeMap<(Rc<str>, Vec<u8>), Group>;

/// Returns the stored results whose texts the caller may read.
pub fn groups() -> Groups {
    let mut groups = Groups::new();
    for result in results::of_database() {
        memory::check();
        let Some((text, false)) = result.text() else { continue };
        let key = (Rc::clone(&result.entry.space), memory::copy(text));
        let group = groups.entry(key).or_default();
        group.space_oid = result.entry.space_oid;
        if let State::LeftOut(_, by) = result.state() {
            group.left_out = Some(by.join(", "));
            continue;
        }
        group.results += 1.0;
        group.hits += result.entry.hits;
        group.cost_ms += result.entry.meta.cost.micros() as f64 / 1000.0;
        group.rows += result.facts().map_or(0.0, |facts| facts.rows as f64);
    }
    groups
}
