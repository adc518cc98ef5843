//! What the transaction has written to tables, as the fences that it has to raise for it.
//!
//! Nothing is collected on the way: the locks that it holds tell it (`pg/locks.rs`). So there is nothing to pay before the commit, and
//! nothing that a way of writing could go around.

use crate::pg::shared::{self, HotTier};
use crate::pg::{locks, relation};
use pg_cache_core::{FenceId, Relation, Reserved};

/// The fences of what the transaction has written so far, in order. May raise errors.
pub fn fences(tier: &HotTier) -> Vec<FenceId> {
    if !locks::has_written() {
        return Vec::new();
    }
    let mut relations = Vec::new();
    // Two steps: what a relation is, the server may not be asked while its locks are walked.
    locks::each_written(|number| relations.push(number));
    of_relations(tier, relations)
}

/// The fences that a write to some relations raises, in order. May raise errors.
pub fn of_relations(tier: &HotTier, mut relations: Vec<u32>) -> Vec<FenceId> {
    let mut fences = Vec::new();
    relations.sort_unstable();
    relations.dedup();
    let database = shared::database();
    for number in relations {
        match relation::of(number) {
            relation::Relation::Irrelevant => {}
            relation::Relation::Catalog => fences.push(definitions(tier)),
            relation::Relation::Rows { ancestors } => {
                let all = std::iter::once(&number).chain(ancestors.iter());
                fences.extend(all.map(|number| tier.fences().relation(database, *number, Relation::Any)));
            }
        }
    }
    fences.sort_unstable();
    fences.dedup();
    fences
}

/// The fence of what names and rules mean in this database.
pub fn definitions(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Definitions(shared::database()))
}

/// Calls with fences of what was written after [`fences`] had been asked for, by others who are told of commits: they are late, and
/// better than never. `raised` says which are not. Asks the server nothing, allocates nothing, and cannot fail; the same is true
/// of what it calls.
pub fn late(tier: &HotTier, raised: impl Fn(FenceId) -> bool, mut with: impl FnMut(FenceId)) {
    let database = shared::database();
    let mut add = |number| {
        let fence = tier.fences().relation(database, number, Relation::Any);
        if !raised(fence) {
            with(fence);
        }
    };
    locks::each_written(|number| match relation::remembered(number) {
        Some(relation::Relation::Irrelevant | relation::Relation::Catalog) => {}
        Some(relation::Relation::Rows { ancestors }) => {
            add(number);
            ancestors.iter().for_each(|number| add(*number));
        }
        // What nobody has asked about before is taken for a table.
        None => add(number),
    });
}
