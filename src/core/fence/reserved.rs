//! Reserved fences: those of databases, spaces, definitions and roles.

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
    /// All entries of a space of a database.
    Space {
        /// The OID of the database.
        database: u32,
        /// The OID of the space in the database.
        space: u32,
    },
}

impl Reserved {
    fn identity(self) -> u64 {
        match self {
            Self::Database(database) => scatter(1 << 32 | u64::from(database)),
            Self::Definitions(database) => scatter(2 << 32 | u64::from(database)),
            Self::Roles => scatter(3 << 32),
            Self::Watches(database) => scatter(5 << 32 | u64::from(database)),
            Self::Trees(database) => scatter(6 << 32 | u64::from(database)),
            Self::Space { database, space } => scatter(4 << 32 | u64::from(database)) ^ u64::from(space),
        }
    }
}

impl Fences<'_> {
    /// Returns a reserved fence: its own, or that of a tag if there are more databases and spaces than reserved fences.
    ///
    /// If two identities ever had the same mark, they would share a fence as two tags do.
    pub fn reserved(&self, what: Reserved) -> FenceId {
        let hash = scatter(what.identity());
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

    /// Returns the slot of a space's own fence. None if the fence was never asked for, or if the space has none of its own.
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
