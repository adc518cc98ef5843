//! Values for caches outside of the database, which follow the journal: `cache_get_near` returns them. The *journal* is a ring in
//! shared memory that names what has changed (`journal.rs`).
//!
//! Such a cache may keep a value if the journal names every change that makes the value wrong: of its key, of its tags, of the
//! relations that the tags stand for, of its space (the named cache that its key is in) and its database. It may not keep the
//! result of a query, which also depends on definitions and on relations that no tag stands for.

use super::entry;
use super::kind;
use super::note;
use super::space::{Notify, Space};
use super::status::{self, Status};
use super::watch;
use crate::pg::memory;
use crate::pg::shared::{self, HotTier};
use crate::pg::varlena::Varlena;
use pg_cache_core::{Buffer, Meta, NOTE_BYTES_MAX};
use std::cell::RefCell;
use std::collections::HashSet;

/// A value with everything that a cache outside of the database must know.
#[derive(Debug)]
pub struct NearValue {
    /// The properties of the value.
    pub meta: Meta,
    /// The bytes of the value.
    pub value: Varlena,
    /// Whether a cache that follows the journal may keep the value.
    pub may_be_kept: bool,
    /// The tags of the value.
    pub tags: Vec<Vec<u8>>,
}

/// Receives a value and its note (`note.rs`).
struct Noted {
    /// The bytes of the value.
    value: Varlena,
    /// Room for the longest note.
    note: Vec<u8>,
    /// The length in bytes of the note that was received.
    length: usize,
}

impl Buffer for Noted {
    const WANTS_NOTE: bool = true;

    fn note_target(&mut self, bytes: usize) -> &mut [u8] {
        self.length = bytes.min(self.note.len());
        &mut self.note[..self.length]
    }

    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        self.value.allocate(meta)
    }

    fn was_allocated(&self) -> bool {
        self.value.was_allocated()
    }
}

thread_local! {
    /// The relations that this session knows to be named in the journal. They are named as long as shared memory exists.
    static NAMED: RefCell<HashSet<u32>> = RefCell::default();
}

/// The most relations that a session remembers. When there are more, it forgets all and begins again.
const NAMED_MAX: usize = 4096;

/// Makes sure that writers name changes of a relation in the journal. Returns false if this session remembers that it has done so
/// before.
fn mark_named(tier: &HotTier, relation: u32) -> bool {
    NAMED.with_borrow_mut(|named| {
        if named.contains(&relation) {
            return false;
        }
        tier.fences().mark_named(shared::database(), relation);
        if named.len() >= NAMED_MAX {
            named.clear();
        }
        named.insert(relation)
    })
}

/// Returns the value of a key, if there is one for this session. May raise errors.
pub fn read(space: &Space, key: &[u8]) -> Option<NearValue> {
    let mut into = Noted { value: Varlena::default(), note: memory::zeroed(NOTE_BYTES_MAX), length: 0 };
    loop {
        into.length = 0;
        let meta = entry::read(space, key, &mut into)?;
        let tags = || note::tags(meta.kind, &into.note[..into.length]);
        let tier = shared::tier();
        // A value of the own transaction is not committed, and its note is not copied.
        let is_committed = matches!(status::current(), Some(Status::Hot | Status::Table));
        let may_be_kept = is_committed
            && kind::may_leave(meta.kind)
            && tier.is_some_and(|tier| tier.journal().exists())
            && space.options.notify != Notify::Off;
        if let Some(tier) = tier.filter(|_| may_be_kept) {
            // Writers name a relation only after it was marked, so the value must be read after that.
            let relations = watch::relations_of(tier, tags());
            if relations.into_iter().fold(false, |is_new, oid| mark_named(tier, oid) | is_new) {
                continue;
            }
        }
        let tags = memory::collect(tags().map(memory::copy));
        return Some(NearValue { meta, value: into.value, may_be_kept, tags });
    }
}
