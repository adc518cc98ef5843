//! The fences of definitions, which tell changes of the meaning of queries. `docs/architecture.md` explains the word fence.
//!
//! A change of definitions belongs to one of three classes, and each has fences of its own:
//!
//! - a relation is changed: the fence of the relation ([`of_relation`]);
//! - a name gets or loses a meaning, because an object is created, renamed, moved or dropped: the fence of the name ([`of_name`]),
//!   whatever the kind and the schema of the object;
//! - any other change: [`other`], one fence for each database.
//!
//! Every change also raises the fence [`any`] of the database. It stands for all definitions together, for results of which it is
//! not known which names they use.
//!
//! The fences of relations and names are found by a hash, and share words with each other and with tags. Sharing costs needless
//! misses only.

use crate::pg::memory;
use crate::pg::shared::{self, HotTier};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{FenceId, Reserved};
use std::hash::Hasher;

/// The kinds of definitions, as the first byte of what is hashed. No tag begins with such a byte, so a tag and a definition share a
/// fence only by chance.
#[derive(Clone, Copy, Debug)]
#[repr(u8)]
enum Kind {
    Relation = 1,
    Name = 2,
    Other = 3,
}

/// Returns the fence of the definition of a relation of this database: its columns, rules, policies, owner, privileges and options,
/// and for a partitioned table its partitions.
pub fn of_relation(tier: &HotTier, oid: u32) -> FenceId {
    hashed(tier, Kind::Relation, &oid.to_le_bytes())
}

/// Returns the fence of a name in this database. The name is that of a relation, a function, a type or a schema, as the catalogs
/// have it: without quotes, and cut to 63 bytes.
pub fn of_name(tier: &HotTier, name: &[u8]) -> FenceId {
    hashed(tier, Kind::Name, name)
}

/// Returns the fence of all definitions of this database that are neither those of a relation nor the meaning of a name.
pub fn other(tier: &HotTier) -> FenceId {
    hashed(tier, Kind::Other, b"")
}

/// Returns the fence that every change of a definition in this database raises.
pub fn any(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Definitions(shared::database()))
}

/// Adds the fences on which the result of a query depends because of definitions, except that of roles. `relations` are all
/// relations of its range tables, also of the views and partitions in it, and `names` all identifiers of its text and of its search
/// path. None stands for names that are not known, for instance because a function has run the query. May raise errors.
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
    relations.for_each(|oid| memory::push(fences, of_relation(tier, oid)));
    names.for_each(|name| memory::push(fences, of_name(tier, name)));
    memory::push(fences, other(tier));
}

fn hashed(tier: &HotTier, kind: Kind, name: &[u8]) -> FenceId {
    let mut hasher = FoldHasher::with_seed(shared::hash_seed(), SharedSeed::global_fixed());
    hasher.write(&[0, kind as u8]);
    hasher.write(name);
    tier.fences().tag_of(shared::database(), hasher.finish())
}
