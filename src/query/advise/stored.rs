//! The stored results of queries in this database, summed up for each space and each text of a query.
//!
//! A *marker* is an entry without a result, which says why there is none (`store/kind.rs`). A marker is no stored result.

use crate::pg::memory;
use crate::store::kind;
use crate::store::results::{self, State};
use std::collections::BTreeMap;
use std::rc::Rc;

/// The stored results of one text in a space.
#[derive(Default)]
pub struct Group {
    /// The number of stored results, including invalid ones.
    pub results: f64,
    /// About how many of the latest hits of the server were hits of these results.
    pub hits: u64,
    /// The sum of the times that their queries took, in milliseconds.
    pub cost_ms: f64,
    /// The sum of their rows.
    pub rows: f64,
    pub space_oid: u32,
    /// The tables whose changes have invalidated a result before it could be stored, so that its query is left out for a while
    /// (`query/ticket.rs`). None if no query with this text is left out. Other queries with the same text may have stored results.
    pub left_out: Option<String>,
    /// Whether a stored result of this text was wrong, so that results are not stored any more (`query/verify.rs`).
    pub has_differed: bool,
}

/// The groups of all stored results, by their spaces and texts.
pub type Groups = BTreeMap<(Rc<str>, Vec<u8>), Group>;

/// Returns the stored results whose texts the caller may read. Leaves out results with a text that was cut off, because different
/// queries may begin with it.
pub fn groups() -> Groups {
    let mut groups = Groups::new();
    for result in results::of_database() {
        memory::check();
        let Some((text, is_cut)) = result.text() else { continue };
        let state = result.state();
        // An invalid marker says nothing any more.
        let is_void = matches!(state, State::Invalid(_)) && kind::is_marker(result.entry.meta.kind);
        if is_cut || is_void {
            continue;
        }
        let key = (Rc::clone(&result.entry.space), memory::copy(text));
        let group = groups.entry(key).or_default();
        group.space_oid = result.entry.space_oid;
        match state {
            State::LeftOut(_, by) => {
                group.left_out = Some(by.join(", "));
                continue;
            }
            State::Differed(_) => {
                group.has_differed = true;
                continue;
            }
            State::Valid | State::Invalid(_) => {}
        }
        group.results += 1.0;
        group.hits += result.entry.hits;
        group.cost_ms += result.entry.meta.cost.micros() as f64 / 1000.0;
        group.rows += result.facts().map_or(0.0, |facts| facts.rows as f64);
    }
    groups
}
