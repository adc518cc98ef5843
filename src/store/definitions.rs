//! The fences of definitions, which tell changes of the meaning of queries. A *fence* is a word in shared memory that says when
//! something that values depend on last changed (`docs/architecture.md`). `command.rs` records which of them a transaction changes,
//! its commit raises them, and `query/ticket.rs` makes results depend on them.
//!
//! A change of definitions belongs to one of three classes, and each has fences of its own:
//!
//! - a relation is changed: the fence of the relation ([`of_relation`]);
//! - a name gets or loses a meaning, because an object is created, renamed, moved or dropped: the fence of the name ([`of_name`]),
//!   for objects of every kind, in every schema;
//! - any other change: [`other`], one fence for each database.
//!
//! Every change also raises the fence [`any`] of the database. It stands for all definitions together, for results of which it is
//! not known which names they use.
//!
//! If a transaction changes very many definitions, [`other`] stands for the further ones: every result depends on one of `other`
//! and `any`.
//!
//! The fences of relations and names are found by a hash, and share words with each other and with tags. Sharing costs needless
//! misses only.

use crate::pg::shared::{self, HotTier};
use crate::pg::{memory, names};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{FenceId, Reserved};
use std::hash::Hasher;

/// A definition, or all those that share the fence [`other`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Definition<'n> {
    /// The definition of the relation with this OID: its columns, rules, policies, owner, privileges and options, and for a
    /// partitioned table its partitions.
    Relation(u32),
    /// The meaning of this name, without quotes and cut to 63 bytes, as the catalogs have it.
    Name(&'n [u8]),
    Other,
}

/// The most bytes of a definition in the form of [`Definition::written`]: two, and those of a name.
const WRITTEN_MAX: usize = 2 + 64;

impl<'n> Definition<'n> {
    /// Returns the definition as bytes, and their number. They begin with a zero, as no tag does, so a tag and a definition share a
    /// fence only by chance. A name is cut to 64 bytes: the catalogs have no longer one.
    fn written(self) -> ([u8; WRITTEN_MAX], usize) {
        let oid;
        let (kind, name) = match self {
            Self::Relation(number) => {
                oid = number.to_le_bytes();
                (b'r', &oid[..])
            }
            Self::Name(name) => (b'n', &name[..name.len().min(64)]),
            Self::Other => (b'o', &[][..]),
        };
        let mut bytes = [0; WRITTEN_MAX];
        bytes[1] = kind;
        bytes[2..2 + name.len()].copy_from_slice(name);
        (bytes, 2 + name.len())
    }

    /// Returns the definition that was written as these bytes. None if they are not those of a definition.
    fn read(bytes: &'n [u8]) -> Option<Self> {
        match bytes {
            [0, b'r', oid @ ..] => Some(Self::Relation(u32::from_le_bytes(oid.try_into().ok()?))),
            [0, b'n', name @ ..] => Some(Self::Name(name)),
            [0, b'o'] => Some(Self::Other),
            _ => None,
        }
    }

    pub fn fence(self, tier: &HotTier) -> FenceId {
        let (bytes, length) = self.written();
        let mut hasher = FoldHasher::with_seed(shared::hash_seed(), SharedSeed::global_fixed());
        hasher.write(&bytes[..length]);
        tier.fences().tag_of(shared::database(), hasher.finish())
    }
}

/// Returns the fence of the definition of a relation of this database.
pub fn of_relation(tier: &HotTier, oid: u32) -> FenceId {
    Definition::Relation(oid).fence(tier)
}

/// Returns the fence of a name in this database. The name is that of a relation, a function, a type or a schema, as the catalogs
/// have it: without quotes, and cut to 63 bytes.
pub fn of_name(tier: &HotTier, name: &[u8]) -> FenceId {
    Definition::Name(name).fence(tier)
}

/// Returns the fence of all definitions of this database that are neither those of a relation nor the meaning of a name.
pub fn other(tier: &HotTier) -> FenceId {
    Definition::Other.fence(tier)
}

/// Returns the fence that every change of a definition in this database raises.
pub fn any(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Definitions(shared::database()))
}

/// Adds the fences on which the result of a query depends because of definitions, except that of roles. `relations` are all
/// relations of its range tables, also of the views and partitions in it, and `names` all identifiers of its text and of its search
/// path. None stands for names that are not known, for instance because a function has run the query. The most telling fences come
/// last, as in the list of an entry's dependencies. May raise errors.
pub fn dependencies<'n>(
    tier: &HotTier,
    relations: impl Iterator<Item = u32>,
    names: Option<impl Iterator<Item = &'n [u8]>>,
    fences: &mut Vec<FenceId>,
) {
    let Some(names) = names else {
        memory::push(fences, any(tier));
        return;
    };
    memory::push(fences, other(tier));
    names.for_each(|name| memory::push(fences, of_name(tier, name)));
    relations.for_each(|oid| memory::push(fences, of_relation(tier, oid)));
}

/// Remembers the name of a definition by its fence, for the status. May raise errors.
pub fn remember_name(fence: FenceId, definition: Definition<'_>) {
    let (bytes, length) = definition.written();
    names::note(fence.number(), &bytes[..length]);
}

/// Calls `read` with the definition whose fence this is, if it is still known which one was changed last. Raises an error if there
/// is no memory.
pub fn of_fence<R>(tier: &HotTier, fence: FenceId, read: impl FnOnce(Definition<'_>) -> R) -> Option<R> {
    let known = names::of(fence.number())?;
    Definition::read(&known).filter(|definition| definition.fence(tier) == fence).map(read)
}
