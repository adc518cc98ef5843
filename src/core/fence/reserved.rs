//! Reserved fences: those that are neither of a relation nor of a tag. [`Reserved`] lists them.
//!
//! A reserved fence has a slot with a mark of its identity. A fence claims its slot when a session first asks for it, and keeps it
//! until the region is formatted again.

use super::fences::{Fences, PROBES};
use super::id::{FenceId, reserved_fence};
use crate::hash::{reduce, scatter};
use crate::layout::RESERVED_WORDS;
use crate::sync::Ordering;

/// The meaning of a reserved fence.
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

impl Reserved {
    /// Returns the fence as one number. The upper half before scattering is the kind, so each kind must have another number.
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
    /// The mark of a slot is the hash of the identity with its lowest bit set, so that it is never 0. Two identities with the same
    /// mark would share a fence. That costs needless misses, as with two tags that share one.
    pub fn reserved(&self, which: Reserved) -> FenceId {
        let hash = scatter(which.identity());
        match self.claim(
            self.layout.reserved_at,
            RESERVED_WORDS,
            self.layout.sizes.reserved_fences,
            hash,
            hash | 1,
        ) {
            Some(slot) => reserved_fence(self.layout, slot),
            None => self.tag(hash),
        }
    }

    /// Returns the slot of a space's fence. None if no session has asked for the fence, or if the space uses the fence of a tag.
    /// Claims nothing.
    pub(crate) fn known_space(&self, database: u32, space: u32) -> Option<u32> {
        let hash = scatter(Reserved::Space { database, space }.identity());
        let slots = self.layout.sizes.reserved_fences;
        let first = reduce(hash, slots);
        (0..PROBES.min(slots)).map(|probe| (first + probe) % slots).find(|slot| {
            let word = self.region.word(self.layout.reserved_at + *slot as usize * RESERVED_WORDS);
            word.load(Ordering::Acquire) == hash | 1
        })
    }
}
