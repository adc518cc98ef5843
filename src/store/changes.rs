//! The journal as a session sees it: the changes in its database that its role may know. The *journal* is a ring in shared memory
//! that names what has changed; each *record* names one change. `cache_changes` returns what this file reads.
//!
//! The journal names spaces (named caches) and relations by their OIDs. A session finds their names when it reads the journal:
//! - A key is shown if the role may read its space, and if the key belongs to all roles or to this one.
//! - A tag is shown if the role may read any space. A *watched* relation, one that tags stand for (`watch.rs`), is shown as its
//!   tags.
//! - A change of a whole space is shown if the role may read the space. A space that does not exist any more has no name, so it is
//!   shown as a change of the whole database. So is a change of privileges: the role may have missed changes that it could not see.
//!
//! A *tick* is 50 ms on the clock of `pg/clock.rs`.

use super::journal;
use super::names::{self, Spaces};
use super::watch;
use crate::pg::memory;
use crate::pg::role::Role;
use crate::pg::shared::{self, HotTier};
use pg_cache_core::{KEY_BYTES_MAX, NextRecord, What};
use std::cell::Cell;
use std::rc::Rc;
use std::time::{Duration, Instant};

/// The kind of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A key has another value, or none.
    Key,
    /// Everything with a tag has changed.
    Tag,
    /// Everything in a space has changed.
    Space,
    /// Everything in the database has changed.
    Database,
    /// The caller has missed changes, and must forget everything.
    Reset,
    /// There are no further changes that the caller may know, up to this number.
    Nothing,
}

/// A change, or a number up to which there is none.
#[derive(Debug)]
pub struct Change {
    /// The number from which the caller goes on.
    pub number: u64,
    /// The kind of the change.
    pub kind: Kind,
    /// The name of the space of a key, or of a space.
    pub space: Option<Rc<str>>,
    /// The key or the tag.
    pub name: Option<Vec<u8>>,
    /// The tick at which the change was appended (`pg/clock.rs`).
    pub tick: Option<u32>,
}

impl Change {
    fn number_only(number: u64, kind: Kind) -> Self {
        Self { number, kind, space: None, name: None, tick: None }
    }
}

/// Returns the number of the last change in the journal. None if there is no journal.
pub fn last() -> Option<u64> {
    let tier = shared::tier().filter(|tier| tier.journal().exists())?;
    // A journal that was never used has no numbers yet.
    journal::begin(tier);
    tier.journal().last()
}

/// Returns for how many milliseconds the journal reaches back. None if it has no records.
pub fn reach_ms() -> Option<u64> {
    let journal = shared::tier()?.journal();
    let mut name = [0; KEY_BYTES_MAX];
    let oldest = journal.read(journal.oldest()?, &mut name).ok()??;
    Some(shared::ms_since(oldest.tick))
}

/// How far a reader of the journal is behind.
#[derive(Clone, Copy, Debug)]
pub struct Lag {
    /// The lines of the journal that it has not read: a change with a name of up to 40 bytes has one, and a longer name has more.
    pub lines: u64,
    /// For how many milliseconds the first of these changes has been there. None if the journal does not have it any more.
    pub ms: Option<u64>,
}

/// Returns how far a reader is behind that has read the journal up to a number. None if there is no journal.
pub fn lag(number: u64) -> Option<Lag> {
    let journal = shared::tier()?.journal();
    let lines = journal.last()?.saturating_sub(number);
    let mut name = [0; KEY_BYTES_MAX];
    let ms = match journal.read(number, &mut name) {
        Ok(next) => Some(next.map_or(0, |next| shared::ms_since(next.tick))),
        Err(_) => None,
    };
    Some(Lag { lines, ms })
}

/// Returns the changes behind a number. It stops after the record with which it has `most` changes. A record of a watched relation
/// gives one change for each of its tags, all with the same number, so the result may be longer than `most`. Returns only a reset
/// if there is no journal, or if the journal does not reach back to the number. It does the same if the writer of the next record
/// has been stopped for longer than [`PATIENCE`]. A result with fewer than `most` changes has all up to the last change at the time
/// of the call, as far as they are written. May raise errors.
pub fn since(number: u64, most: usize) -> Vec<Change> {
    let reset = |number| vec![Change::number_only(number, Kind::Reset)];
    // Must be read before the journal: what the caller reads after a reset must not be older than this number.
    let Some((tier, last)) = shared::tier().zip(last()) else { return reset(0) };
    let view = View { tier, role: Role::current(), spaces: names::readable_by(Role::current()) };
    let (mut found, mut at) = (Vec::new(), number);
    for looked_at in 0_u32.. {
        let mut name = [0; KEY_BYTES_MAX];
        match tier.journal().read(at, &mut name) {
            Err(_) => return reset(last),
            Ok(None) => {
                if has_stalled(at, last) {
                    return reset(last);
                }
                break;
            }
            Ok(Some(next)) => {
                at = next.number;
                view.show(&next, &mut found);
            }
        }
        if found.len() >= most {
            return found;
        }
        // A caller that is behind must not follow busy writers for ever.
        if at >= last {
            break;
        }
        if looked_at % 1024 == 0 {
            shared::check_for_interrupts();
        }
    }
    if at > found.last().map_or(number, |change: &Change| change.number) {
        memory::push(&mut found, Change::number_only(at, Kind::Nothing));
    }
    found
}

thread_local! {
    /// The number behind which this session last found a record that its writer had not written yet, and when it first did.
    static STALLED: Cell<Option<(u64, Instant)>> = const { Cell::new(None) };
}

/// For how long the calls of a session may find the same record not written before the answer is a reset. A writer needs less than
/// a microsecond, unless its process is stopped.
const PATIENCE: Duration = Duration::from_secs(1);

/// Returns whether this session has waited too long for the record behind a number, although the journal goes on to `last`. The
/// change itself is visible, so a reader that starts anew misses nothing.
fn has_stalled(at: u64, last: u64) -> bool {
    let known = STALLED.get().filter(|(number, _)| *number == at);
    let since = known.map_or_else(Instant::now, |(_, since)| since);
    STALLED.set((at < last).then_some((at, since)));
    at < last && since.elapsed() > PATIENCE
}

/// The rights that decide which records are shown.
struct View {
    /// The cache in shared memory.
    tier: &'static HotTier,
    /// The role of the session.
    role: Role,
    /// The spaces of the database, with the names of those that the role may read.
    spaces: Spaces,
}

impl View {
    /// Adds what a record says to this role.
    fn show(&self, next: &NextRecord<'_>, found: &mut Vec<Change>) {
        let NextRecord { number, record, tick } = *next;
        if ![0, shared::database()].contains(&record.database) {
            return;
        }
        let mut add = |kind, space, name: Option<&[u8]>| {
            let name = name.map(memory::copy);
            memory::push(found, Change { number, kind, space, name, tick: Some(tick) });
        };
        match record.what {
            What::Key if ![0, self.role.oid()].contains(&record.role) => {}
            What::Key => {
                if let Some(space) = self.spaces.name(record.object) {
                    add(Kind::Key, Some(space), Some(record.name));
                }
            }
            What::Tag if self.spaces.is_empty() => {}
            What::Tag => add(Kind::Tag, None, Some(record.name)),
            What::Relation if self.spaces.is_empty() => {}
            What::Relation => {
                for tag in watch::known_tags_of(self.tier, record.object) {
                    add(Kind::Tag, None, Some(&tag));
                }
            }
            What::Space => match self.spaces.name(record.object) {
                Some(space) => add(Kind::Space, Some(space), None),
                None if self.spaces.exists(record.object) => {}
                None => add(Kind::Database, None, None),
            },
            What::Database | What::Privileges => add(Kind::Database, None, None),
        }
    }
}
