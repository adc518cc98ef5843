//! The tags of changed rows. A *watch* makes a tag stand for a table (`watch.rs`). It may have tags with placeholders for columns,
//! such as `order:{id}`: *templates* (`template.rs`). Then a trigger (`pg/row_trigger.rs`) calls this file for each changed row,
//! and the transaction invalidates the tags of the old and of the new row.
//!
//! Entries with such a tag also depend on the *bulk fence* of the relation (`fence/mod.rs` of the core). This word in shared memory
//! says when the relation was last changed without a report of each row. A transaction raises this fence at its commit, unless the
//! trigger has run for all rows that the transaction has changed (`transaction/table_writes/`).

use super::keyspace;
use super::template::Template;
use super::transaction::{JournalName, pending, reported_rows};
use super::watch;
use crate::pg::row_trigger::{Column, RowChange};
use crate::pg::{memory, names, relation, shared};
use crate::store::note::TAG_BYTES_MAX;
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The templates of a relation, with the columns of their placeholders, as the session has prepared them.
struct Prepared {
    /// The session's list of templates from which this was prepared.
    of: Rc<watch::Templates>,
    /// The value of `relation::generation` when this was prepared.
    generation: u64,
    /// The parts of each template. None if a template names a column that the relation does not have.
    templates: Option<Vec<Vec<Part>>>,
}

enum Part {
    Text(Vec<u8>),
    Column(Column),
}

/// The most relations whose templates a session keeps prepared.
const PREPARED_MAX: usize = 64;

thread_local! {
    /// The prepared templates, by the relation whose rows have changed.
    static PREPARED: RefCell<HashMap<u32, Rc<Prepared>>> = RefCell::new(HashMap::new());
}

/// Invalidates the tags of a changed row when the transaction commits, and counts the row. May raise errors.
pub fn changed(change: &RowChange) {
    let Some(tier) = shared::tier() else { return };
    let oid = change.relation();
    if reported_rows::is_incomplete(oid) {
        return;
    }
    let prepared = prepare(change);
    // If there is a trigger but no template, the list of watches and the triggers disagree.
    let templates = prepared.templates.as_ref().filter(|templates| !templates.is_empty());
    let Some(templates) = templates else { return reported_rows::mark_incomplete(oid) };
    for template in templates {
        let old = tag(change, template, true);
        let new = tag(change, template, false).filter(|new| old.as_ref() != Some(new));
        for tag in [old, new].into_iter().flatten() {
            let fence = keyspace::tag(tier, &tag);
            names::note(fence.number(), &tag);
            if !pending::invalidate_if_few(fence, JournalName::Tag(tag.into_boxed_slice())) {
                return reported_rows::mark_incomplete(oid);
            }
        }
    }
    reported_rows::count_reported(oid, change.has_old(), change.has_new());
}

/// Returns the tag of the old or of the new row. None if the change has no such row, if one of the columns is null, or if the tag
/// is empty or too long, because no entry can have such a tag.
fn tag(change: &RowChange, template: &[Part], is_old: bool) -> Option<Vec<u8>> {
    if !(if is_old { change.has_old() } else { change.has_new() }) {
        return None;
    }
    let mut text = Vec::new();
    for part in template {
        match part {
            Part::Text(bytes) => {
                memory::reserve(&mut text, bytes.len());
                text.extend_from_slice(bytes);
            }
            Part::Column(column) => {
                // A longer text is too long for a tag anyway, and the value may have many megabytes.
                if !change.add(column, is_old, TAG_BYTES_MAX + 1, &mut text) {
                    return None;
                }
            }
        }
    }
    (1..=TAG_BYTES_MAX).contains(&text.len()).then_some(text)
}

/// Returns the templates of the row's relation.
fn prepare(change: &RowChange) -> Rc<Prepared> {
    let (oid, of, generation) = (change.relation(), watch::templates(), relation::generation());
    let last = PREPARED.with_borrow(|all| all.get(&oid).cloned());
    if let Some(last) = last.filter(|last| Rc::ptr_eq(&last.of, &of) && last.generation == generation) {
        return last;
    }
    let mut trees = vec![oid];
    if let relation::Relation::Rows { ancestors, .. } = relation::of(oid) {
        trees.extend(ancestors.iter());
    }
    let of_relation = trees.iter().flat_map(|watched| of.of_relation(*watched));
    let templates = of_relation.map(|text| split(change, text)).collect();
    let prepared = Rc::new(Prepared { of: Rc::clone(&of), generation, templates });
    PREPARED.with_borrow_mut(|all| {
        if all.len() >= PREPARED_MAX {
            all.clear();
        }
        // Without memory, the templates are prepared again for the next row.
        if all.try_reserve(1).is_ok() {
            all.insert(oid, Rc::clone(&prepared));
        }
    });
    prepared
}

/// Splits a template into parts. Returns None if the relation does not have one of its columns.
fn split(change: &RowChange, text: &[u8]) -> Option<Vec<Part>> {
    let template = Template::parse(text).ok()?;
    let mut parts = Vec::new();
    template.each_part(|fixed, placeholder| {
        let part = match placeholder {
            None => Part::Text(memory::copy(fixed)),
            Some(name) => Part::Column(change.column(name)?),
        };
        memory::push(&mut parts, part);
        Some(())
    })?;
    Some(parts)
}
