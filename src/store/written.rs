//! What the transaction has written to tables, as the fences that it has to raise for it.
//!
//! Nothing is collected on the way: the locks that it holds tell it (`pg/locks.rs`). So there is nothing to pay before the commit, and
//! nothing that a way of writing could go around.

use crate::pg::local::Local;
use crate::pg::settings::{self, Broken};
use crate::pg::shared::{self, HotTier};
#[cfg(debug_assertions)]
use crate::pg::{error::Refused, targets};
use crate::pg::{locks, relation};
use pg_cache_core::{FenceId, Relation, Reserved, Stamp};
use std::cell::{Cell, RefCell};

/// What the transaction had written at the last look, and what follows of it. A session that writes does so again and again to the same
/// tables: then the locks are all that has to be looked at.
#[derive(Debug)]
struct Written {
    /// What it holds write locks on, in order.
    relations: Vec<u32>,
    /// The fences of these, in order.
    fences: Vec<FenceId>,
    /// What was remembered of relations when that was found. None if it was not found to the end.
    generation: Option<u64>,
    /// As of when this session knows what is a part of what.
    trees: Stamp,
    /// Whether these fences are raised by the commit that is going on.
    raised: bool,
    /// Where the locks are looked at.
    found: Vec<u32>,
}

static WRITTEN: Local<RefCell<Written>> = Local::new(RefCell::new(Written {
    relations: Vec::new(),
    fences: Vec::new(),
    generation: None,
    trees: Stamp::VOID,
    raised: false,
    found: Vec::new(),
}));

/// Calls with the fences of what the transaction has written so far, in order. May raise errors before.
pub fn with_fences<R>(tier: &HotTier, call: impl FnOnce(&[FenceId]) -> R) -> R {
    WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        call(&written.fences)
    })
}

/// The fences that a write to some relations raises, in order. May raise errors.
pub fn of_relations(tier: &HotTier, relations: &[u32]) -> Vec<FenceId> {
    let mut fences = Vec::new();
    add_fences(tier, relations, &mut fences);
    fences
}

impl Written {
    /// May raise errors.
    fn look(&mut self, tier: &HotTier) {
        let Self { found, .. } = self;
        found.clear();
        if locks::has_written() {
            if have_grown(tier, self.trees, false) {
                // The stamp first: what grows after it is found to have grown.
                self.trees = tier.fences().now();
                relation::forget_parts();
            }
            locks::each_written(|number| found.push(number));
            found.sort_unstable();
            found.dedup();
        }
        let generation = Some(relation::generation());
        if self.found != self.relations || self.generation != generation {
            self.change(tier, generation);
        }
    }

    /// Takes what was found. Apart, as it is rare. May raise errors.
    #[cold]
    fn change(&mut self, tier: &HotTier, generation: Option<u64>) {
        std::mem::swap(&mut self.found, &mut self.relations);
        (self.generation, self.raised) = (None, false);
        self.fences.clear();
        add_fences(tier, &self.relations, &mut self.fences);
        self.generation = generation;
    }

    fn has_parts(&self) -> bool {
        self.relations.iter().any(|number| relation::may_be_part(*number))
    }
}

/// Not while the locks are walked: what a relation is, the server may not be asked then.
fn add_fences(tier: &HotTier, relations: &[u32], fences: &mut Vec<FenceId>) {
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
}

/// Calls with those that a commit raises: the same. What has been seen, [`late`] leaves out. May raise errors before.
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

/// Those that a prepared transaction will have to raise: the same, and as of when it is known that they are all. May raise errors.
pub fn before_prepare(tier: &HotTier) -> (Vec<FenceId>, Stamp) {
    if [Broken::Never, Broken::Unseen].contains(&settings::broken()) {
        compare(tier, &[]);
        return (Vec::new(), Stamp::LATEST);
    }
    WRITTEN.with_borrow_mut(|written| {
        written.look(tier);
        compare(tier, &written.fences);
        (written.fences.clone(), if written.has_parts() { written.trees } else { Stamp::LATEST })
    })
}

/// What was found at the last look is to be found again.
pub fn forget() {
    WRITTEN.with_borrow_mut(|written| written.generation = None);
}

/// The transaction is over. Cannot fail.
pub fn over() {
    if let Ok(mut written) = WRITTEN.try_borrow_mut() {
        written.raised = false;
    }
}

/// In builds for tests: whatever a statement has named as its target is to be fenced.
fn compare(_tier: &HotTier, _fences: &[FenceId]) {
    #[cfg(debug_assertions)]
    if locks::has_written() && [Broken::Off, Broken::Early, Broken::Unseen].contains(&settings::broken()) {
        let missing = targets::named().into_iter().find(|number| {
            of_relations(_tier, &[*number]).iter().any(|fence| _fences.binary_search(fence).is_err())
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
#[inline]
pub fn trees(tier: &HotTier) -> FenceId {
    /// It stays the same.
    static KNOWN: Local<Cell<Option<FenceId>>> = Local::new(Cell::new(None));
    KNOWN.get().unwrap_or_else(|| {
        let fence = tier.fences().reserved(Reserved::Trees(shared::database()));
        KNOWN.set(Some(fence));
        fence
    })
}

/// Whether something has come above others since, or does so just now. `own` if the fence of trees is raised by ourselves.
pub fn have_grown(tier: &HotTier, since: Stamp, own: bool) -> bool {
    let (fences, trees) = (tier.fences(), trees(tier));
    // In this order: what is pending no more has passed.
    fences.pending(trees) > u64::from(own) || fences.passed(trees, since)
}

/// Calls with the fences of relations that were written after [`before_commit`] by other libraries, and of trees that have grown above
/// the written relations since. Raising these is late, and better than never. `grows` if the transaction has raised the fence of trees.
/// Asks the server nothing, allocates nothing, and cannot fail; the same is true of what it calls.
pub fn late(tier: &HotTier, grows: bool, mut with: impl FnMut(FenceId)) {
    match settings::broken() {
        Broken::Off | Broken::Early => {}
        // For as long, others see what is not fenced.
        Broken::Late => std::thread::sleep(std::time::Duration::from_millis(2)),
        Broken::Never | Broken::Unseen => return,
    }
    let database = shared::database();
    let fence = |number| tier.fences().relation(database, number, Relation::Any);
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
        // What is remembered and not raised is of an earlier transaction, or has just been looked at.
        let has_parts = || has_parts || written.raised && written.has_parts();
        // Whoever has them grow from now on does so when others can see what was written.
        if !is_known || have_grown(tier, written.trees, grows) && has_parts() {
            // It may be a part of any table, and who could tell may not be asked any more.
            with(tier.fences().reserved(Reserved::Database(database)));
        }
    });
}
