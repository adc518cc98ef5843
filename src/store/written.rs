//! The relations that this transaction has written, as the fences that its commit has to raise.
//!
//! Nothing is collected on the way: the transaction's locks name the relations (`pg/locks.rs`). So a write costs nothing before the
//! commit, and no way of writing can go around it.

use crate::pg::local::local;
use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
#[cfg(debug_assertions)]
use crate::pg::{error::Refused, targets};
use crate::pg::{locks, memory, query, relation};
use pg_cache_core::{FenceId, Relation, Reserved, Stamp};
use std::cell::{Cell, RefCell};

/// The relations written as of the last look, and the fences that follow from them. A session that writes does so again and again to the
/// same tables, so mostly the locks are all that has to be looked at.
#[derive(Debug)]
struct Written {
    /// The relations that the transaction holds write locks on, in order.
    relations: Vec<u32>,
    /// Their fences, in order.
    fences: Vec<FenceId>,
    /// `relation::generation` when the fences were found. None if they were not found to the end.
    generation: Option<u64>,
    /// `Fences::claims` when the fences were found.
    claims: u64,
    /// Since when inheritance trees may have grown that this session does not know of.
    trees: Stamp,
    /// Whether these fences are raised by the commit that is under way.
    raised: bool,
    /// Where the locks are collected.
    found: Vec<u32>,
}

local! {
    static WRITTEN: RefCell<Written> = RefCell::new(Written {
        relations: Vec::new(),
        fences: Vec::new(),
        generation: None,
        claims: 0,
        trees: Stamp::VOID,
        raised: false,
        found: Vec::new(),
    });
}

/// Calls with the fences of the relations written so far, in order. May raise errors before.
pub fn with_fences<R>(tier: &HotTier, call: impl FnOnce(&[FenceId]) -> R) -> R {
    WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        call(&written.fences)
    })
}

/// Whether the transaction has written any relation that `is_one` of some, or a part of one. May raise errors.
pub fn has_written_any(tier: &HotTier, is_one: impl Fn(&u32) -> bool) -> bool {
    let own = WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        memory::copy(&written.relations)
    });
    own.into_iter().any(|own| {
        is_one(&own)
            || matches!(
                relation::of(own),
                relation::Relation::Rows { ancestors } if ancestors.iter().any(&is_one)
            )
    })
}

/// Whether the transaction has looked at a foreign table. May raise errors.
pub fn has_seen_foreign() -> bool {
    let mut seen = Vec::new();
    locks::each_seen(|number| seen.push(number));
    seen.into_iter().any(relation::is_foreign)
}

/// Whether the transaction holds a write lock on a foreign table: a write to that does not change this database. May raise errors.
pub fn has_written_foreign() -> bool {
    let mut written = Vec::new();
    locks::each_written(|number| written.push(number));
    written.into_iter().any(relation::is_foreign)
}

/// The fences that a write to some relations raises, in order, and since when inheritance trees may have grown above these without this
/// session's knowledge. `fence` is that of one relation. May raise errors.
pub fn of_relations(
    tier: &HotTier,
    relations: &[u32],
    fence: impl Fn(u32) -> FenceId,
) -> (Vec<FenceId>, Stamp) {
    let trees = renew_trees(tier);
    let mut fences = Vec::new();
    add_fences(tier, relations, fence, &mut fences);
    let has_parts = relations.iter().any(|number| relation::may_be_part(*number));
    (fences, if has_parts { trees } else { Stamp::LATEST })
}

/// The fence that a write to a relation raises, and those of the tables that it is a part of, each with its relation. May raise errors.
pub fn of_relation(tier: &HotTier, relation: u32) -> Vec<(u32, FenceId)> {
    let mut relations = vec![relation];
    if let relation::Relation::Rows { ancestors } = relation::of(relation) {
        memory::reserve(&mut relations, ancestors.len());
        relations.extend(ancestors.iter());
    }
    memory::collect(relations.into_iter().map(|number| (number, fence_of(tier, number))))
}

/// The fence that a write to a relation raises, without those of the tables that it is a part of. It holds until a relation is given a
/// record (`Fences::claims`).
pub fn fence_of(tier: &HotTier, relation: u32) -> FenceId {
    tier.fences().write(shared::database(), relation)
}

/// The same for good: it gives the relation a record.
pub fn claimed_fence_of(tier: &HotTier, relation: u32) -> FenceId {
    tier.fences().relation(shared::database(), relation, Relation::Any)
}

/// Forgets what this session knows of inheritance if a tree has grown since it learned that. Returns as of when it is known.
pub fn renew_trees(tier: &HotTier) -> Stamp {
    WRITTEN.with_borrow_mut(|written| {
        written.renew_trees(tier);
        written.trees
    })
}

impl Written {
    fn renew_trees(&mut self, tier: &HotTier) {
        if have_grown(tier, self.trees, false) {
            // The stamp first: a tree that grows after it is found to have grown. A parent without columns leaves its new child's own
            // catalog rows as they are, so no message tells of it.
            self.trees = tier.fences().now();
            query::accept_messages();
            relation::forget_all();
        }
    }

    /// May raise errors.
    fn look(&mut self, tier: &HotTier) {
        self.found.clear();
        if locks::has_written() {
            self.renew_trees(tier);
            let Self { found, .. } = self;
            find(found);
            found.sort_unstable();
            found.dedup();
        }
        if self.found != self.relations || self.generation != Some(relation::generation()) {
            std::mem::swap(&mut self.found, &mut self.relations);
            self.resolve(tier);
        } else if self.claims != tier.fences().claims() {
            self.resolve(tier);
        }
    }

    /// Finds the fences of the relations. May raise errors.
    #[cold]
    fn resolve(&mut self, tier: &HotTier) {
        (self.generation, self.raised) = (None, false);
        self.claims = tier.fences().claims();
        let generation = relation::generation();
        self.fences.clear();
        add_fences(tier, &self.relations, |number| fence_of(tier, number), &mut self.fences);
        self.generation = Some(generation);
    }

    fn has_parts(&self) -> bool {
        self.relations.iter().any(|number| relation::may_be_part(*number))
    }
}

/// Lists what the locks tell. Room for it is made between two walks over them: nothing may fail during one. May raise errors.
fn find(found: &mut Vec<u32>) {
    loop {
        found.clear();
        let mut count = 0;
        locks::each_written(|number| {
            count += 1;
            if found.len() < found.capacity() {
                found.push(number);
            }
        });
        if count == found.len() {
            return;
        }
        memory::reserve(found, count);
    }
}

/// Must not be called while the locks are walked: it asks the server for what a relation is.
fn add_fences(tier: &HotTier, relations: &[u32], fence: impl Fn(u32) -> FenceId, fences: &mut Vec<FenceId>) {
    for number in relations {
        match relation::of(*number) {
            relation::Relation::Irrelevant => {}
            relation::Relation::Catalog => memory::push(fences, definitions(tier)),
            relation::Relation::Rows { ancestors } => {
                let all = std::iter::once(number).chain(ancestors.iter());
                memory::reserve(fences, 1 + ancestors.len());
                fences.extend(all.map(|number| fence(*number)));
            }
        }
    }
    fences.sort_unstable();
    fences.dedup();
}

/// Calls with the fences that a commit raises. May raise errors before.
pub fn before_commit<R>(tier: &HotTier, call: impl FnOnce(&[FenceId]) -> R) -> R {
    if ![Broken::Off, Broken::Early].contains(&settings::broken()) {
        compare(tier, &[]);
        return call(&[]);
    }
    WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        compare(tier, &written.fences);
        written.raised = true;
        call(&written.fences)
    })
}

/// To be called when the fences are raised: those of relations that were given a record meanwhile, which have to be raised, too. None
/// if there are no more.
pub fn claimed_meanwhile(tier: &HotTier) -> Option<Vec<FenceId>> {
    WRITTEN.with_borrow_mut(|written| {
        if !written.raised || written.claims == tier.fences().claims() {
            return None;
        }
        written.resolve(tier);
        written.raised = true;
        Some(memory::copy(&written.fences))
    })
}

/// The same for a session that has looked again often enough: it gives a record to each relation itself, so that nothing is left to look
/// for. May raise errors.
pub fn claim_all(tier: &HotTier) -> Vec<FenceId> {
    let relations = WRITTEN.with_borrow(|written| memory::copy(&written.relations));
    of_relations(tier, &relations, |number| claimed_fence_of(tier, number)).0
}

/// How often a commit looks again for new records: sessions that store values with watched tags while another commit hangs can keep
/// giving some.
pub const LOOKS_MAX: u32 = 8;

/// The fences that a transaction must raise which is prepared without a name, and since when trees may have grown above its relations.
/// Gives each relation a record, because the session does not look again. May raise errors.
pub fn before_unnamed_prepare(tier: &HotTier) -> (Vec<FenceId>, Stamp) {
    if [Broken::Never, Broken::Unseen].contains(&settings::broken()) {
        return (Vec::new(), Stamp::LATEST);
    }
    let relations = WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        memory::copy(&written.relations)
    });
    of_relations(tier, &relations, |number| claimed_fence_of(tier, number))
}

/// In builds for tests: every relation that a prepared transaction's statements have named as their target must be fenced.
pub fn check_before_prepare(_tier: &HotTier) {
    #[cfg(debug_assertions)]
    match settings::broken() {
        Broken::Never | Broken::Unseen => compare(_tier, &[]),
        _ => with_fences(_tier, |fences| compare(_tier, fences)),
    }
}

/// Forgets what was found at the last look.
pub fn forget() {
    WRITTEN.with_borrow_mut(|written| written.generation = None);
}

/// The transaction is over. Cannot fail.
pub fn over() {
    if let Ok(mut written) = WRITTEN.try_borrow_mut() {
        written.raised = false;
    }
}

/// In builds for tests: every relation that a statement has named as its target must be fenced.
fn compare(_tier: &HotTier, _fences: &[FenceId]) {
    #[cfg(debug_assertions)]
    if locks::has_written() && [Broken::Off, Broken::Early, Broken::Unseen].contains(&settings::broken()) {
        let missing = targets::named().into_iter().find(|number| {
            let mut fences = Vec::new();
            add_fences(_tier, &[*number], |number| fence_of(_tier, number), &mut fences);
            fences.iter().any(|fence| _fences.binary_search(fence).is_err())
        });
        if let Some(number) = missing {
            let code = pgrx::PgSqlErrorCode::ERRCODE_INTERNAL_ERROR;
            Refused::new(code, format!("relation {number} is written to and not fenced")).raise();
        }
    }
}

/// The fence of this database's definitions: what names and rules mean.
pub fn definitions(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Definitions(shared::database()))
}

/// The fence of this database's inheritance trees.
#[inline]
pub fn trees(tier: &HotTier) -> FenceId {
    local! {
        /// It never changes.
        static KNOWN: Cell<Option<FenceId>> = Cell::new(None);
    }
    KNOWN.get().unwrap_or_else(|| {
        let fence = tier.fences().reserved(Reserved::Trees(shared::database()));
        KNOWN.set(Some(fence));
        fence
    })
}

/// Whether an inheritance tree of the database has grown since, or is about to. `own` if this transaction has raised the fence of trees.
pub fn have_grown(tier: &HotTier, since: Stamp, own: bool) -> bool {
    let (fences, trees) = (tier.fences(), trees(tier));
    // In this order: a change that is pending no more has passed.
    fences.pending(trees) > u64::from(own) || fences.passed(trees, since)
}

/// Invalidates what depends on inheritance parents, at once. Cannot fail.
pub fn invalidate_trees(tier: &HotTier) {
    let trees = trees(tier);
    tier.fences().raise(trees);
    let _ = tier.lower_as(trees, tier.fences().draw());
}

/// Calls with the fences of relations that other libraries have written after [`before_commit`], and with that of trees if one has grown
/// above the written relations since. Raising these is late, and better than never. `grows` if the transaction has raised the fence of
/// trees. Asks the server nothing, allocates nothing, and cannot fail; the same must be true of `with`.
pub fn late(tier: &HotTier, grows: bool, mut with: impl FnMut(FenceId)) {
    match settings::broken() {
        Broken::Off | Broken::Early => {}
        // For as long, other sessions see changes that are not fenced.
        Broken::Late => std::thread::sleep(std::time::Duration::from_millis(2)),
        Broken::Never | Broken::Unseen => return,
    }
    let database = shared::database();
    let fence = |number| fence_of(tier, number);
    WRITTEN.with_borrow(|written| {
        let (mut is_known, mut has_parts) = (true, false);
        locks::each_written(|number| {
            if written.raised && written.relations.binary_search(&number).is_ok() {
                return;
            }
            match relation::remembered(number) {
                Some(relation::Relation::Irrelevant | relation::Relation::Catalog) => {}
                Some(relation::Relation::Rows { ancestors }) => {
                    has_parts |= !ancestors.is_empty();
                    with(fence(number));
                    ancestors.iter().for_each(|number| with(fence(*number)));
                }
                None => is_known &= relation::was_temporary(number),
            }
        });
        if !is_known {
            // The relation may be a part of any table, and the catalogs must not be asked any more.
            with(tier.fences().reserved(Reserved::Database(database)));
        }
        // The lock on a written relation keeps it from being given parents. A tree can only grow above its ancestors.
        let has_parts = || has_parts || written.raised && written.has_parts();
        if have_grown(tier, written.trees, grows) && has_parts() {
            with(trees(tier));
        }
    });
}
