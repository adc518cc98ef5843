//! What the transaction has written to tables, as the fences that it has to raise for it.
//!
//! Nothing is collected on the way: the locks that it holds tell it (`pg/locks.rs`). So there is nothing to pay before the commit, and
//! nothing that a way of writing could go around.

use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
#[cfg(debug_assertions)]
use crate::pg::{error::Refused, targets};
use crate::pg::{locks, relation};
use pg_cache_core::{FenceId, Relation, Reserved, Stamp};
use std::cell::{Cell, RefCell};

thread_local! {
    /// What the transaction that is being committed held write locks on before.
    static SEEN: RefCell<Vec<u32>> = const { RefCell::new(Vec::new()) };
    /// As of when this session knows what is a part of what.
    static TREES: Cell<Stamp> = const { Cell::new(Stamp::VOID) };
}

/// The fences of what the transaction has written so far, in order. May raise errors.
pub fn fences(tier: &HotTier) -> Vec<FenceId> {
    fences_of(tier, &relations(tier))
}

/// What the transaction holds write locks on, in order. May raise errors.
fn relations(tier: &HotTier) -> Vec<u32> {
    let mut relations = Vec::new();
    if locks::has_written() {
        if have_grown(tier, TREES.get(), false) {
            // The stamp first: what grows after it is found to have grown.
            TREES.set(tier.fences().now());
            relation::forget_parts();
        }
        locks::each_written(|number| relations.push(number));
        relations.sort_unstable();
        relations.dedup();
    }
    relations
}

/// The fences that a write to some relations raises, in order. May raise errors.
pub fn of_relations(tier: &HotTier, mut relations: Vec<u32>) -> Vec<FenceId> {
    relations.sort_unstable();
    relations.dedup();
    fences_of(tier, &relations)
}

/// Not while the locks are walked: what a relation is, the server may not be asked then.
fn fences_of(tier: &HotTier, relations: &[u32]) -> Vec<FenceId> {
    let mut fences = Vec::new();
    let database = shared::database();
    for number in relations {
        match relation::of(*number) {
            relation::Relation::Irrelevant => {}
            relation::Relation::Catalog => fences.push(definitions(tier)),
            relation::Relation::Rows { ancestors } => {
                let all = std::iter::once(number).chain(ancestors.iter());
                fences.extend(all.map(|number| tier.fences().relation(database, *number, Relation::Any)));
            }
        }
    }
    fences.sort_unstable();
    fences.dedup();
    fences
}

/// Those that a commit raises: the same. What this one has seen, [`late`] leaves out.
pub fn before_commit(tier: &HotTier) -> Vec<FenceId> {
    let relations = if settings::broken() == Broken::Off { relations(tier) } else { Vec::new() };
    let fences = fences_of(tier, &relations);
    compare(tier, &fences);
    SEEN.set(relations);
    fences
}

/// Those that a prepared transaction will have to raise: the same, and as of when it is known that they are all.
pub fn before_prepare(tier: &HotTier) -> (Vec<FenceId>, Stamp) {
    let is_seen = ![Broken::Never, Broken::Unseen].contains(&settings::broken());
    let relations = if is_seen { relations(tier) } else { Vec::new() };
    let fences = fences_of(tier, &relations);
    compare(tier, &fences);
    let has_parts = relations.iter().any(|number| relation::may_be_part(*number));
    (fences, if has_parts { TREES.get() } else { Stamp::LATEST })
}

/// In builds for tests: whatever a statement has named as its target is to be fenced.
fn compare(_tier: &HotTier, _fences: &[FenceId]) {
    #[cfg(debug_assertions)]
    if locks::has_written() && [Broken::Off, Broken::Unseen].contains(&settings::broken()) {
        let missing = targets::named().into_iter().find(|number| {
            fences_of(_tier, &[*number]).iter().any(|fence| _fences.binary_search(fence).is_err())
        });
        if let Some(number) = missing {
            let code = pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
            Refused::new(code, format!("relation {number} is written to and not fenced")).raise();
        }
    }
}

/// The fence of what names and rules mean in this database.
pub fn definitions(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Definitions(shared::database()))
}

/// The fence of what may be above relations in trees of them.
pub fn trees(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Trees(shared::database()))
}

/// Whether something has come above others since, or does so just now. `own` if the fence of trees is raised by ourselves.
pub fn have_grown(tier: &HotTier, since: Stamp, own: bool) -> bool {
    let (fences, trees) = (tier.fences(), trees(tier));
    // In this order: what is pending no more has passed.
    fences.pending(trees) > u64::from(own) || fences.passed(trees, since)
}

/// Calls with fences of what was written after [`before_commit`], by others who are told of commits, and of what has come above
/// what was written before it: they are late, and better than never. `grows` if the transaction has raised the fence of trees.
/// Asks the server nothing, allocates nothing, and cannot fail; the same is true of what it calls.
pub fn late(tier: &HotTier, grows: bool, mut with: impl FnMut(FenceId)) {
    match settings::broken() {
        Broken::Off => {}
        // For as long, others see what is not fenced.
        Broken::Late => std::thread::sleep(std::time::Duration::from_millis(2)),
        Broken::Never | Broken::Unseen => return,
    }
    let database = shared::database();
    let mut add = |number| with(tier.fences().relation(database, number, Relation::Any));
    let mut is_known = true;
    SEEN.with_borrow(|seen| {
        locks::each_written(|number| {
            if seen.binary_search(&number).is_ok() {
                return;
            }
            match relation::remembered(number) {
                Some(relation::Relation::Irrelevant | relation::Relation::Catalog) => {}
                Some(relation::Relation::Rows { ancestors }) => {
                    add(number);
                    ancestors.iter().for_each(|number| add(*number));
                }
                None => is_known = false,
            }
        });
    });
    // Whoever has them grow from now on does so when others can see what was written.
    let have_grown = have_grown(tier, TREES.get(), grows);
    let has_parts = || SEEN.with_borrow(|seen| seen.iter().any(|number| relation::may_be_part(*number)));
    if !is_known || have_grown && has_parts() {
        // It may be a part of any table, and who could tell may not be asked any more.
        with(tier.fences().reserved(Reserved::Database(database)));
    }
}
