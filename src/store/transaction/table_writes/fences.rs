//! The fences that a write to a relation raises. A *fence* is a word in shared memory that says when something that values depend
//! on last changed (`docs/architecture.md`).
//!
//! A relation that cached values depend on has a *record*, and so a fence of its own; relations without a record share fences. A
//! record also has a *bulk fence*, for entries that depend on single rows of the relation. Another session may give a relation a
//! record at any time, or mark the record as one whose bulk fence must be raised. `Fences::claim_count` then grows. So a session
//! that has looked up fences must raise them, and then look again if that number has changed.

use crate::pg::shared::{self, HotTier};
use crate::pg::{memory, relation};
use crate::store::definitions;
use pg_cache_core::{FenceId, RelationFence};

/// How often a commit looks whether a relation was given a record since. Other sessions can give records to ever more relations, so
/// the number of looks must have a limit.
pub const LOOKS_MAX: u32 = 8;

/// How a session looks for the fences that a write to a relation raises. Another session may give the relation a record at any
/// time, or mark the record for entries that depend on single rows.
#[derive(Clone, Copy)]
pub enum Look {
    /// The session looks again if `Fences::claim_count` has changed after it has raised the fences.
    Repeated,
    /// The session does not look again. So it gives the relation a record, and raises the bulk fence even without a mark.
    Final,
}

impl Look {
    /// Returns the kind of the look with this number, counted from 1. The look with the number [`LOOKS_MAX`] is final.
    pub fn of_number(number: u32) -> Self {
        if number < LOOKS_MAX { Self::Repeated } else { Self::Final }
    }

    /// Returns the fences, without those of the tables above the relation.
    pub fn fences(self, tier: &HotTier, relation: u32) -> impl Iterator<Item = FenceId> + use<> {
        let claimed = |which| tier.fences().claim_fence(shared::database(), relation, which);
        let fences = match self {
            Self::Repeated => [Some(fence_of(tier, relation)), bulk_of(tier, relation)],
            Self::Final => [RelationFence::Any, RelationFence::Bulk].map(|which| Some(claimed(which))),
        };
        fences.into_iter().flatten()
    }
}

/// Returns the fence that a write to the relation raises, without the fences of the tables above it. The result is valid until a
/// relation is given a record (`Fences::claim_count`).
pub fn fence_of(tier: &HotTier, relation: u32) -> FenceId {
    tier.fences().fence_to_raise(shared::database(), relation)
}

/// Returns the bulk fence of a relation, if an entry may depend on it. Cannot fail.
pub fn bulk_of(tier: &HotTier, relation: u32) -> Option<FenceId> {
    tier.fences().bulk_fence_to_raise(shared::database(), relation)
}

/// Returns the fences of the relation and of the tables above it in inheritance trees, each with its table: the fence that a write
/// to the table raises, and the bulk fence of the table, if it has one. May raise errors.
pub fn fences_of_relation(tier: &HotTier, relation: u32) -> Vec<(u32, FenceId)> {
    let mut relations = vec![relation];
    if let relation::Relation::Rows { ancestors, .. } = relation::of(relation) {
        memory::reserve(&mut relations, ancestors.len());
        relations.extend(ancestors.iter());
    }
    memory::collect(
        relations.into_iter().flat_map(|oid| Look::Repeated.fences(tier, oid).map(move |fence| (oid, fence))),
    )
}

/// Adds the fences of these relations to `fences`, sorted. `fences_of` must return at most two for a relation. Must not be called
/// during a walk over the locks, because it reads the server's catalogs. May raise errors.
pub(super) fn add_fences<F: IntoIterator<Item = FenceId>>(
    tier: &HotTier,
    relations: &[u32],
    fences_of: impl Fn(u32) -> F,
    fences: &mut Vec<FenceId>,
) {
    for oid in relations {
        match relation::of(*oid) {
            relation::Relation::Irrelevant => {}
            relation::Relation::Catalog => {
                memory::push(fences, definitions::any(tier));
                memory::push(fences, definitions::other(tier));
            }
            relation::Relation::Rows { ancestors, .. } => {
                let all = std::iter::once(oid).chain(ancestors.iter());
                memory::reserve(fences, 2 * (1 + ancestors.len()));
                fences.extend(all.flat_map(|oid| fences_of(*oid)));
            }
        }
    }
    fences.sort_unstable();
    fences.dedup();
}

/// Calls `with` for each bulk fence of these relations and of the tables above them, with the relation. May raise errors.
pub(super) fn each_bulk(tier: &HotTier, relations: &[u32], mut with: impl FnMut(u32, FenceId)) {
    for oid in relations {
        if let relation::Relation::Rows { ancestors, .. } = relation::of(*oid) {
            let all = std::iter::once(oid).chain(ancestors.iter());
            all.filter_map(|above| bulk_of(tier, *above)).for_each(|fence| with(*oid, fence));
        }
    }
}
