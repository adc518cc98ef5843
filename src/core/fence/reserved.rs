//! Reserved fences: the fences of databases, spaces, definitions, roles and the like ([`Reserved`] lists them), and not of
//! relations or tags. A *fence* is a word in shared memory that says when something that entries depend on last changed
//! (`fence/mod.rs`).
//!
//! A reserved fence has a *slot*, a cache line of its own, with a *mark*: the hash of its identity. A fence takes (*claims*) a slot
//! when a session first asks for it, and keeps it until the region, the shared memory of the cache, is formatted again. If no slot
//! is free, it shares the fence of a tag.
//!
//! A *space* is a set of keys in one database. A *watch* makes a tag stand for a relation. The *journal* is a ring of records in
//! shared memory that name changes.

use super::fences::{Fences, PROBES};
use super::id::{FenceId, reserved_fence};
use crate::hash::{reduce, scatter};
use crate::layout::RESERVED_WORDS;
use crate::sync::Ordering;

/// The meaning of a reserved fence. A new one needs a number of its own in `kind`, the same number in `identity`, and an arm in
/// `reserved_kind` if its changes are counted as an event of their own. The numbers 1 to 7 are in use, and `KIND_MASK` has no
/// room for others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reserved {
    /// All entries of a database.
    Database(u32),
    /// The definitions in a database: the meaning of names and rules.
    Definitions(u32),
    /// The roles and privileges of the whole cluster.
    Roles,
    /// The watches of a database: which tags stand for which relations.
    Watches(u32),
    /// The inheritance trees of a database. An entry that depends on an inheritance parent depends on this, too.
    Trees(u32),
    /// The privileges in the spaces of a database. No entry depends on it: a session checks privileges when it reads. So a change
    /// under this fence invalidates nothing, and is only named in the journal. Other changes that only the journal must name use
    /// it, too.
    Grants(u32),
    /// All entries of a space of a database.
    Space {
        /// The OID of the database.
        database: u32,
        /// The OID of the space in the database.
        space: u32,
    },
}

/// The kinds of reserved fences, by the number in the mark of a slot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReservedKind {
    Database,
    Definitions,
    Roles,
    Space,
    /// Watches, inheritance trees and privileges.
    Other,
}

/// The bits of a mark that hold the number of the kind, above the lowest bit.
const KIND_MASK: u64 = 0b1110;

impl Reserved {
    /// Returns the number of the kind. Each kind must have another number, below 8.
    fn kind(self) -> u64 {
        match self {
            Self::Database(_) => 1,
            Self::Definitions(_) => 2,
            Self::Roles => 3,
            Self::Space { .. } => 4,
            Self::Watches(_) => 5,
            Self::Trees(_) => 6,
            Self::Grants(_) => 7,
        }
    }

    /// Returns the mark of the slot: the hash of the identity, with the number of the kind, and with the lowest bit set, so that it
    /// is never 0.
    fn mark(self, hash: u64) -> u64 {
        hash & !KIND_MASK | self.kind() << 1 | 1
    }

    /// Returns the fence as one number. The upper half before scattering is the kind.
    fn identity(self) -> u64 {
        match self {
            Self::Database(database) => scatter(1 << 32 | u64::from(database)),
            Self::Definitions(database) => scatter(2 << 32 | u64::from(database)),
            Self::Roles => scatter(3 << 32),
            Self::Watches(database) => scatter(5 << 32 | u64::from(database)),
            Self::Trees(database) => scatter(6 << 32 | u64::from(database)),
            Self::Grants(database) => scatter(7 << 32 | u64::from(database)),
            Self::Space { database, space } => scatter(4 << 32 | u64::from(database)) ^ u64::from(space),
        }
    }
}

impl Fences<'_> {
    /// Returns a reserved fence, and claims a slot for it if it has none. If all slots that the search looks at belong to others,
    /// returns the fence of a tag instead.
    ///
    /// Two identities with the same mark would share a fence. That costs needless misses, as with two tags that share one.
    pub fn reserved(&self, which: Reserved) -> FenceId {
        let hash = scatter(which.identity());
        match self.claim(
            self.layout.reserved_at,
            RESERVED_WORDS,
            self.layout.sizes.reserved_fences,
            hash,
            which.mark(hash),
        ) {
            Some(slot) => reserved_fence(self.layout, slot),
            None => self.tag(hash),
        }
    }

    /// Returns the slot of a space's fence. None if no session has asked for the fence, or if the space uses the fence of a tag.
    /// Claims nothing.
    pub(crate) fn known_space(&self, database: u32, space: u32) -> Option<u32> {
        let which = Reserved::Space { database, space };
        let hash = scatter(which.identity());
        let slots = self.layout.sizes.reserved_fences;
        let first = reduce(hash, slots);
        (0..PROBES.min(slots)).map(|probe| (first + probe) % slots).find(|slot| {
            let word = self.region.word(self.layout.reserved_at + *slot as usize * RESERVED_WORDS);
            word.load(Ordering::Acquire) == which.mark(hash)
        })
    }

    /// Returns the kind of a reserved fence. None if it is the fence of a relation or of a tag.
    pub(crate) fn reserved_kind(&self, FenceId(at): FenceId) -> Option<ReservedKind> {
        let slot = (at as usize).checked_sub(self.layout.reserved_at)? / RESERVED_WORDS;
        if slot >= self.layout.sizes.reserved_fences as usize {
            return None;
        }
        let mark = self.region.load(self.layout.reserved_at + slot * RESERVED_WORDS);
        Some(match (mark & KIND_MASK) >> 1 {
            1 => ReservedKind::Database,
            2 => ReservedKind::Definitions,
            3 => ReservedKind::Roles,
            4 => ReservedKind::Space,
            _ => ReservedKind::Other,
        })
    }
}
