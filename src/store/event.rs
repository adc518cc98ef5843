//! Events: names for things that happen in an application, such as `order_paid`. Each event has *targets* in spaces (named caches):
//! the keys, patterns and tags that become invalid with the event. A target is a *template* (`template.rs`), a text with
//! placeholders in braces, which get the values of the event. `cache_on_event` registers targets, and `cache_emit` calls [`emit`].
//!
//! Each session remembers all events of the database until it learns that a table of pg_cache has changed (`catalog::generation` in
//! `pg/catalog.rs`).

use super::entry;
use super::note::TAG_BYTES_MAX;
use super::space::{self, DEFAULT, DEFAULT_OID};
use super::template::Template;
use crate::pg::catalog::{self, Rows, Table, events};
use crate::pg::encoding::shown;
use crate::pg::error::Refused;
use crate::pg::local::local;
use crate::pg::memory;
use pg_cache_core::{Glob, KEY_BYTES_MAX};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::rc::Rc;

/// The most bytes of the name of an event.
pub const NAME_BYTES_MAX: usize = 63;
/// The most targets of an event in one space.
pub const TARGETS_MAX: usize = 64;
/// The most events of a database, counted for each space. Each session that emits events remembers all of them.
pub const EVENTS_MAX: usize = 1000;
/// The most bytes of a target.
pub const TARGET_BYTES_MAX: usize = 1024;

/// The kind of a target. The text of a target says it: `tag:` begins a tag and `match:` a pattern, and any other target is a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Key,
    Tag,
    Pattern,
}

impl Kind {
    /// Splits a target into its kind and its template.
    pub fn split(target: &[u8]) -> (Self, &[u8]) {
        let prefixed = [(Self::Tag, b"tag:".as_slice()), (Self::Pattern, b"match:")];
        let found = prefixed.iter().find_map(|(kind, prefix)| Some((*kind, target.strip_prefix(*prefix)?)));
        found.unwrap_or((Self::Key, target))
    }
}

/// The targets of an event in one space.
#[derive(Debug)]
pub struct Registered {
    /// The OID of the space.
    pub space_oid: u32,
    /// The name of the space.
    pub space: String,
    /// The templates of the keys, patterns and tags.
    pub targets: Vec<Vec<u8>>,
}

/// The events as the session remembers them, by their names.
struct Known {
    /// The value of `catalog::generation` from before the table was read.
    generation: u64,
    /// The targets of each event, by its name.
    events: Rc<BTreeMap<Vec<u8>, Vec<Registered>>>,
}

local! {
    static KNOWN: RefCell<Option<Known>> = RefCell::new(None);
}

/// Calls `with` for each event in each space: with the name of the event, the OID of the space, and the targets.
fn each(rows: Rows<'_>, mut with: impl FnMut(&[u8], u32, Vec<Option<&[u8]>>)) {
    catalog::read(Table::Events, rows, |row| {
        memory::check();
        let event = row.text(events::EVENT).unwrap_or_default();
        let space = row.oid(events::SPACE).unwrap_or_default();
        with(event, space, row.texts(events::TARGETS).unwrap_or_default());
    });
}

/// Returns all events, ordered by name. Events of a space that does not exist are left out. May raise errors.
fn read() -> BTreeMap<Vec<u8>, Vec<Registered>> {
    let mut spaces = BTreeMap::from([(DEFAULT_OID, DEFAULT.to_owned())]);
    space::each_space(|oid, name, _| {
        memory::check();
        spaces.insert(oid, name.to_owned());
    });
    let mut all = BTreeMap::<Vec<u8>, Vec<Registered>>::new();
    each(Rows::All, |event, space_oid, targets| {
        let Some(space) = spaces.get(&space_oid).cloned() else { return };
        let targets = memory::collect(targets.into_iter().flatten().map(memory::copy));
        let of_event = all.entry(memory::copy(event)).or_default();
        memory::push(of_event, Registered { space_oid, space, targets });
    });
    all
}

/// Returns all events from the memory of the session, or from the table. May raise errors.
pub fn all() -> Rc<BTreeMap<Vec<u8>, Vec<Registered>>> {
    // A transaction that takes no locks learns of no changes. An event must reach the targets that are committed.
    catalog::accept_changes();
    let generation = catalog::generation();
    let known = KNOWN.with_borrow(|known| {
        known.as_ref().filter(|known| known.generation == generation).map(|known| Rc::clone(&known.events))
    });
    known.unwrap_or_else(|| {
        let events = Rc::new(read());
        KNOWN.with_borrow_mut(|known| *known = Some(Known { generation, events: Rc::clone(&events) }));
        events
    })
}

/// Returns an error if an event has too many targets in a space, or if the database has too many events. This transaction must have
/// written the event already, and the error undoes it. Events that running transactions have added count, too.
pub fn check_limits(event: &[u8], space: u32) -> Result<(), Refused> {
    let (mut events, mut targets) = (0, 0);
    each(Rows::AllUncommitted, |name, oid, all| {
        events += 1;
        if name == event && oid == space {
            targets = targets.max(all.len());
        }
    });
    let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    if targets > TARGETS_MAX {
        let message =
            format!("event \"{}\" would have more than {TARGETS_MAX} targets in one space", shown(event));
        return Err(Refused::new(code, message).hint("Use a pattern or a tag that stands for several keys."));
    }
    if events > EVENTS_MAX {
        let message = format!("the database would have more than {EVENTS_MAX} events");
        return Err(Refused::new(code, message)
            .hint("Run cache_off_event for an event that is not emitted any more. The view cache_events lists the events."));
    }
    Ok(())
}

/// Escapes the bytes of a text from this position on, so that they are literal in a pattern.
fn escape(text: &mut Vec<u8>, from: usize) {
    let value = memory::copy(&text[from..]);
    text.truncate(from);
    memory::reserve(text, 2 * value.len());
    for byte in value {
        if b"*?\\".contains(&byte) {
            text.push(b'\\');
        }
        text.push(byte);
    }
}

/// Returns whether a template always becomes a pattern: neither the text before a placeholder nor the whole text may end with an
/// unpaired backslash, which would escape the beginning of a value.
pub fn is_pattern(template: &Template<'_>) -> bool {
    let mut is_valid = true;
    let filled: Result<_, Infallible> = template.fill(|_, text| {
        is_valid &= Glob::new(text).is_some();
        Ok(())
    });
    let Ok(text) = filled;
    is_valid && Glob::new(&text).is_some()
}

/// Returns whether a value can have a tag of this name.
fn is_tag(name: &[u8]) -> bool {
    (1..=TAG_BYTES_MAX).contains(&name.len())
}

/// Invalidates the targets of an event when the transaction commits. `value` gets a target, one of its placeholders, and the text
/// to which it adds the value of the placeholder. Does nothing if the event has no targets. Keys and tags that are too long to
/// exist are left out.
///
/// Does not check a privilege of the current role in the spaces of the targets: the owner of the extension has registered them.
pub fn emit(
    event: &[u8],
    mut value: impl FnMut(&[u8], &[u8], &mut Vec<u8>) -> Result<(), Refused>,
) -> Result<(), Refused> {
    let all = all();
    for registered in all.get(event).into_iter().flatten() {
        let space = space::without_privilege(registered.space.as_bytes())?;
        for target in &registered.targets {
            let (kind, text) = Kind::split(target);
            // The template was checked when the target was registered.
            let Ok(template) = Template::parse(text) else { continue };
            let name = template.fill(|placeholder, text| {
                let from = text.len();
                value(target, placeholder, text)?;
                if kind == Kind::Pattern {
                    escape(text, from);
                }
                Ok::<(), Refused>(())
            })?;
            match kind {
                Kind::Key => _ = entry::remove(&space, &name)?,
                Kind::Tag if is_tag(&name) => entry::invalidate_tag(&space, &name)?,
                Kind::Tag => {}
                Kind::Pattern => match Glob::new(&name).filter(|_| name.len() <= KEY_BYTES_MAX) {
                    Some(pattern) => entry::invalidate_pattern(&space, pattern)?,
                    // A pattern may be longer than the keys that it matches. So one that is too long may still match a key.
                    None => entry::flush(&space, false)?,
                },
            }
        }
    }
    Ok(())
}
