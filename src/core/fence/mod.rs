//! Fences: one word for each dependency of entries, which says when the dependency last changed.
//!
//! A fence is `(seq : 46 | pending : 18)`. `seq` is the number, on the clock of changes, of the last committed change. `pending`
//! counts the transactions that are about to commit one.
//!
//! The protocol of a writer. The proof rests on the order of these steps:
//! 1. The writer [raises](Fences::raise) the fence before any other session can see its changes.
//! 2. Its changes become visible.
//! 3. The writer [lowers](Fences::lower) the fence. One step numbers the change and takes `pending` back. A writer that aborts
//!    after step 1 [withdraws](Fences::withdraw) instead and leaves `seq` as it was.
//!
//! The protocol of a fill: take a stamp with [`Fences::now`], *then* take a snapshot, then read the source. An entry is valid
//! while, for each of its fences, `pending` is 0 and `seq` is not greater than the entry's stamp.
//!
//! Why that is enough: a reader that starts after step 2 finds `pending` or, after step 3, a `seq` that was drawn from the clock
//! after step 2. A stamp at least as large was taken after that draw, so the snapshot of such a value saw the change. No lock
//! protects fences: each step is one atomic operation on one word. Every access must be sequentially consistent, because a stamp
//! and a fence are different words.
//!
//! *Set and fence*: a transaction that sets a value and lowers the fences of the value's dependencies would invalidate its own
//! value. To prevent that, the value is published as of the commit. All of these conditions must hold, or the value is dropped and
//! the key removed:
//! - The stamp was taken before the snapshot that the value was computed on, and the transaction has not changed any of the value's
//!   dependencies since it computed the value.
//! - The transaction [draws](Fences::draw) one number when its changes are visible, and lowers all its fences [with
//!   it](Fences::lower_as). This number becomes the value's stamp.
//! - Each of the transaction's own fences among the value's dependencies was [alone](Lowered::was_alone_since) since the stamp when
//!   it was lowered. Each other dependency [held](Fences::holds) for the stamp when the transaction looked at it after the draw.
//!
//! The fences need not agree at one moment. A writer that raises a fence after the transaction has looked at it draws a later
//! number, and so invalidates the value. A writer that raised it before that is found. One number for each fence would be wrong:
//! the value would need the last of them, and that number also covers changes that other writers numbered in between. If a fence
//! fails its check after others were lowered, only the value is lost: lowering is the same either way.
//!
//! *Relations.* A relation *claims* a record, with fences of its own, when an entry first depends on it ([`Fences::dependency`]).
//! Writers claim nothing, so tables that are never cached cannot use up the records. A writer of a relation without a record raises
//! an *unclaimed* fence instead. Such relations share unclaimed fences by their hash. Two rules make the claim safe:
//! - A writer that has raised its fences must check whether a record was claimed meanwhile ([`Fences::claims`]). If so, it must
//!   also raise the fence of the record that its relation has by now.
//! - An entry must also depend on the unclaimed fence if a writer that looked before the claim may still be under way, or has ended
//!   since the entry's stamp. The record is *settled* once a look after the claim finds no pending changes on the unclaimed fence.
//!   From the stamp of that moment on, entries depend on the record alone.
//!
//! The models in `tests/protocol/` try every order of these steps.

use crate::layout::{
    AT_ANY, AT_BULK, AT_CLAIMS, AT_NOW, AT_SETTLED, AT_SHARED, LINE, Layout, RELATION_WORDS, RESERVED_WORDS,
};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

const PENDING_BITS: u32 = 18;
const PENDING_MASK: u64 = (1 << PENDING_BITS) - 1;
/// The largest number on the clock of changes. At a million commits per second, the clock reaches it in two years.
pub(crate) const STAMP_MAX: u64 = (1 << 46) - 1;
/// How many slots a search looks at, from the slot that the hash selects.
const PROBES: u32 = 16;

/// A moment on the clock of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(u64);

impl Stamp {
    /// Before every change: an entry with this stamp is invalid if a dependency of it has ever changed.
    pub const VOID: Self = Self(0);
    /// After every change: the horizon of a reader that may see all committed changes.
    pub const LATEST: Self = Self(STAMP_MAX);

    /// Returns the moment with a number.
    pub fn from_number(number: u64) -> Self {
        Self(number & STAMP_MAX)
    }

    /// Returns the number of the moment.
    pub fn number(self) -> u64 {
        self.0
    }
}

/// The name of a fence: the position of its word. An entry stores this for each dependency.
///
/// A name in a damaged entry may be the position of any word. That word is then read, and never written to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FenceId(pub(crate) u32);

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
        /// The number of the database.
        database: u32,
        /// The number of the space in the database.
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

/// One of the two fences of a relation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Raised by every write.
    Any,
    /// Raised by writes that do not say which rows they change.
    Bulk,
}

/// The word of a fence just before it was lowered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "or call `lower`"]
pub struct Lowered(u64);

impl Lowered {
    /// Whether no other writer has changed anything under this fence since `stamp`, or was about to.
    pub fn was_alone_since(self, stamp: Stamp) -> bool {
        self.0 & PENDING_MASK == 1 && self.0 >> PENDING_BITS <= stamp.0
    }
}

/// All fences of a region.
#[derive(Clone, Copy, Debug)]
pub struct Fences<'m> {
    region: Region<'m>,
    layout: &'m Layout,
}

impl<'m> Fences<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout) -> Self {
        Self { region, layout }
    }

    /// Returns the present moment. The caller must take it before the snapshot that a value is computed on.
    pub fn now(&self) -> Stamp {
        Stamp(self.region.word(AT_NOW).load(Ordering::SeqCst))
    }

    /// Returns the fence of a tag. Tags share fences by their hash. Sharing costs a needless miss and never causes a stale hit.
    pub fn tag(&self, hash: u64) -> FenceId {
        FenceId(self.layout.tags_at as u32 + reduce(hash, self.layout.sizes.tag_fences))
    }

    /// Returns the fence of a relation. Claims a record. If all records are taken, the relation shares one, and if there are no
    /// records, it uses the fence of a tag.
    pub fn relation(&self, database: u32, relation: u32, which: Relation) -> FenceId {
        match self.claim_record(database, relation) {
            Some(slot) => relation_fence(self.layout, slot.number, which),
            None => self.tag(scatter(identity(database, relation))),
        }
    }

    /// Returns the fences that an entry with this stamp must depend on if it depends on a relation. Claims a record. The second
    /// fence is returned only while there may be a writer that does not know of the claim.
    pub fn dependency(&self, database: u32, relation: u32, stamp: Stamp) -> (FenceId, Option<FenceId>) {
        let Some(slot) = self.claim_record(database, relation) else {
            return (self.tag(scatter(identity(database, relation))), None);
        };
        let own = relation_fence(self.layout, slot.number, Relation::Any);
        // 0 while the record is not settled, and otherwise one more than the stamp at which it was settled. Relations that share a
        // record did not all claim it at the same time, so a shared record never counts as settled.
        let settled = self.region.word(record(self.layout, slot.number) + AT_SETTLED);
        let since = if slot.is_shared { 0 } else { settled.load(Ordering::SeqCst) };
        if since > 0 && since <= stamp.0.saturating_add(1) {
            return (own, None);
        }
        // This must come between the claim and the look at the unclaimed fence. A writer that raises the unclaimed fence after that
        // look finds the claim.
        self.region.word(AT_CLAIMS).fetch_add(1, Ordering::SeqCst);
        let unclaimed = self.unclaimed(database, relation);
        if since == 0 && !slot.is_shared && self.pending(unclaimed) == 0 {
            // The clock must be read after that look: every writer that has lowered the fence before drew an earlier number.
            settled.store(self.now().0 + 1, Ordering::SeqCst);
        }
        (own, (!self.holds(unclaimed, stamp, Stamp::LATEST)).then_some(unclaimed))
    }

    /// Returns the fence that a writer of a relation must raise. Claims nothing. The answer holds while [`claims`](Self::claims)
    /// returns the same number. If the number differs after the writer has raised the fence, the writer must ask again and also
    /// raise the fence that it gets then.
    pub fn write(&self, database: u32, relation: u32) -> FenceId {
        match self.find_record(database, relation) {
            _ if self.layout.sizes.relation_fences == 0 => self.tag(scatter(identity(database, relation))),
            Some(slot) => relation_fence(self.layout, slot, Relation::Any),
            None => self.unclaimed(database, relation),
        }
    }

    /// Returns a number that grows whenever the answer of [`write`](Self::write) may change.
    pub fn claims(&self) -> u64 {
        self.region.word(AT_CLAIMS).load(Ordering::SeqCst)
    }

    fn unclaimed(&self, database: u32, relation: u32) -> FenceId {
        let number = reduce(scatter(identity(database, relation)), self.layout.unclaimed());
        unclaimed_fence(self.layout, number)
    }

    /// Claims the record of a relation, or a record that it shares. Returns None if there are no records.
    fn claim_record(&self, database: u32, relation: u32) -> Option<Slot> {
        let identity = identity(database, relation);
        let hash = scatter(identity);
        let slots = self.layout.sizes.relation_fences;
        match self.claim(self.layout.relations_at, RELATION_WORDS, slots, hash, identity) {
            Some(number) => Some(Slot { number, is_shared: self.is_shared(number) }),
            None if slots == 0 => None,
            None => {
                let number = reduce(hash, slots);
                if !self.is_shared(number) {
                    self.region.word(record(self.layout, number) + AT_SHARED).store(1, Ordering::SeqCst);
                }
                Some(Slot { number, is_shared: true })
            }
        }
    }

    /// Finds the record of a relation for a writer. Claims nothing.
    fn find_record(&self, database: u32, relation: u32) -> Option<u32> {
        let identity = identity(database, relation);
        let slots = self.layout.sizes.relation_fences;
        let first = reduce(scatter(identity), slots);
        for probe in 0..PROBES.min(slots) {
            let slot = (first + probe) % slots;
            match self.region.word(record(self.layout, slot)).load(Ordering::SeqCst) {
                0 => return None,
                found if found == identity => return Some(slot),
                _ => {}
            }
        }
        self.is_shared(first).then_some(first)
    }

    fn is_shared(&self, slot: u32) -> bool {
        self.region.word(record(self.layout, slot) + AT_SHARED).load(Ordering::SeqCst) != 0
    }

    /// Whether a fence is that of a relation's record.
    pub fn is_of_relation(&self, fence: FenceId) -> bool {
        self.record_of(fence).is_some()
    }

    /// Returns the database and the number of the relation whose record a fence belongs to. None for the fence of a record that
    /// relations share, and for every other fence.
    pub fn relation_of(&self, fence: FenceId) -> Option<(u32, u32)> {
        let at = self.record_of(fence).filter(|at| self.region.load(at + AT_SHARED) == 0)?;
        let identity = self.region.word(at).load(Ordering::Acquire);
        (identity != 0).then_some(((identity >> 32) as u32, identity as u32))
    }

    /// Whether a fence is that of relations without a record, which share it.
    pub fn is_of_unclaimed(&self, FenceId(at): FenceId) -> bool {
        let words = (at as usize).checked_sub(self.layout.unclaimed_at);
        words.is_some_and(|words| words < self.layout.unclaimed() as usize * LINE)
    }

    /// Returns the position of the record that a fence belongs to.
    pub(crate) fn record_of(&self, FenceId(at): FenceId) -> Option<usize> {
        let words = (at as usize).checked_sub(self.layout.relations_at)?;
        let slot = words / RELATION_WORDS;
        (slot < self.layout.sizes.relation_fences as usize).then(|| record(self.layout, slot as u32))
    }

    /// Returns the position of the record if the fence is the one that every write of its relation raises.
    pub(crate) fn record_of_any(&self, fence: FenceId) -> Option<usize> {
        self.record_of(fence).filter(|record| record + AT_ANY == fence.0 as usize)
    }

    /// Returns the claimed records: the position of each, and its database and relation. The latter is None if relations share the
    /// record.
    pub(crate) fn records(&self) -> impl Iterator<Item = (usize, Option<(u32, u32)>)> + use<'m> {
        let (region, layout) = (self.region, self.layout);
        (0..layout.sizes.relation_fences).map(move |slot| record(layout, slot)).filter_map(move |at| {
            let identity = region.word(at).load(Ordering::Acquire);
            let owner = ((identity >> 32) as u32, identity as u32);
            (identity != 0).then(|| (at, Some(owner).filter(|_| region.load(at + AT_SHARED) == 0)))
        })
    }

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

    /// Raises a fence: a change is about to become visible. The caller must then call exactly one of `lower` and `withdraw`.
    pub fn raise(&self, fence: FenceId) {
        self.word(fence).fetch_add(1, Ordering::SeqCst);
    }

    /// Lowers a fence with a number of its own: the change is visible now.
    pub fn lower(&self, fence: FenceId) {
        let _ = self.lower_as(fence, self.draw());
    }

    /// Draws the number of a change that is visible now. A transaction draws one, and lowers all its fences with it.
    pub fn draw(&self) -> Stamp {
        Stamp::from_number(self.region.word(AT_NOW).fetch_add(1, Ordering::SeqCst).wrapping_add(1))
    }

    /// Lowers a fence with a number that was drawn for it. Returns the word that it had before.
    pub fn lower_as(&self, fence: FenceId, number: Stamp) -> Lowered {
        let word = self.word(fence);
        let mut old = word.load(Ordering::SeqCst);
        loop {
            let new =
                (old >> PENDING_BITS).max(number.0) << PENDING_BITS | (old & PENDING_MASK).saturating_sub(1);
            match word.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Lowered(old),
                Err(found) => old = found,
            }
        }
    }

    /// Withdraws a change: it will not happen. `seq` stays as it is.
    pub fn withdraw(&self, fence: FenceId) {
        let word = self.word(fence);
        let mut old = word.load(Ordering::SeqCst);
        // `pending` must never go below 0, also after an unmatched withdrawal: the subtraction would borrow from `seq`.
        while old & PENDING_MASK != 0 {
            match word.compare_exchange_weak(old, old - 1, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(found) => old = found,
            }
        }
    }

    /// Whether this fence allows a value as of `stamp` to be served to a reader that may not see changes after `horizon`.
    #[inline(always)]
    pub fn holds(&self, fence: FenceId, stamp: Stamp, horizon: Stamp) -> bool {
        let word = self.word(fence).load(Ordering::SeqCst);
        // The rotation puts `pending` above `seq`, so a pending change is greater than every stamp.
        word.rotate_right(PENDING_BITS) <= stamp.0.min(horizon.0)
    }

    /// Whether a change has been committed since `stamp`, so that older values are wrong for good. A change that is only pending
    /// does not count, because it may still be withdrawn.
    pub fn passed(&self, fence: FenceId, stamp: Stamp) -> bool {
        self.word(fence).load(Ordering::SeqCst) >> PENDING_BITS > stamp.0
    }

    /// Returns how many changes are about to be committed under this fence.
    pub fn pending(&self, fence: FenceId) -> u64 {
        self.word(fence).load(Ordering::SeqCst) & PENDING_MASK
    }

    /// Returns the whole word of a fence if a writer has raised it.
    pub(crate) fn raised(&self, fence: FenceId) -> Option<u64> {
        let word = self.word(fence).load(Ordering::SeqCst);
        (word & PENDING_MASK > 0).then_some(word)
    }

    /// Returns all fences.
    pub(crate) fn all(&self) -> impl Iterator<Item = FenceId> + use<'m> {
        let layout = self.layout;
        let reserved = (0..layout.sizes.reserved_fences).map(|slot| reserved_fence(layout, slot));
        let relations = (0..layout.sizes.relation_fences).flat_map(|slot| {
            [Relation::Any, Relation::Bulk].map(|which| relation_fence(layout, slot, which))
        });
        let unclaimed = (0..layout.unclaimed()).map(|number| unclaimed_fence(layout, number));
        let tags = (0..layout.sizes.tag_fences).map(|tag| FenceId(layout.tags_at as u32 + tag));
        reserved.chain(relations).chain(unclaimed).chain(tags)
    }

    #[inline(always)]
    fn word(&self, FenceId(at): FenceId) -> &'m AtomicU64 {
        self.region.word(at as usize)
    }

    /// Returns the slot that holds this mark, and takes a free slot if the mark is new. Slots are never given back. So a session
    /// that has found its slot finds the same one for ever, without a lock.
    fn claim(&self, at: usize, width: usize, slots: u32, hash: u64, mark: u64) -> Option<u32> {
        let first = reduce(hash, slots);
        for probe in 0..PROBES.min(slots) {
            let slot = (first + probe) % slots;
            let word = self.region.word(at + slot as usize * width);
            let mut found = word.load(Ordering::Acquire);
            if found == 0 {
                match word.compare_exchange(0, mark, Ordering::SeqCst, Ordering::Acquire) {
                    Ok(_) => return Some(slot),
                    Err(winner) => found = winner,
                }
            }
            if found == mark {
                return Some(slot);
            }
        }
        None
    }
}

/// The record of a relation.
struct Slot {
    number: u32,
    is_shared: bool,
}

/// Returns a relation of a database as one word.
fn identity(database: u32, relation: u32) -> u64 {
    u64::from(database) << 32 | u64::from(relation)
}

fn unclaimed_fence(layout: &Layout, number: u32) -> FenceId {
    FenceId((layout.unclaimed_at + number as usize * LINE) as u32)
}

/// Returns the fence of a slot, which lies behind the identity.
fn reserved_fence(layout: &Layout, slot: u32) -> FenceId {
    FenceId((layout.reserved_at + slot as usize * RESERVED_WORDS) as u32 + 2)
}

/// Returns the position of a relation's record.
fn record(layout: &Layout, slot: u32) -> usize {
    layout.relations_at + slot as usize * RELATION_WORDS
}

fn relation_fence(layout: &Layout, slot: u32, which: Relation) -> FenceId {
    let word = match which {
        Relation::Any => AT_ANY,
        Relation::Bulk => AT_BULK,
    };
    FenceId((record(layout, slot) + word) as u32)
}

/// Returns a number below `bound`, evenly distributed if the hashes are.
#[inline]
pub(crate) fn reduce(hash: u64, bound: u32) -> u32 {
    (((hash >> 32) * u64::from(bound)) >> 32) as u32
}

/// Scatters numbers that lie close together. The function is reversible, so distinct numbers stay distinct.
#[inline]
pub(crate) fn scatter(number: u64) -> u64 {
    let mut bits = number;
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ bits >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ bits >> 31
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::layout::Sizes;

    fn with_fences(test: impl FnOnce(Fences<'_>)) {
        let memory: Vec<_> = (0..64 * 1024 / 8).map(|_| AtomicU64::new(0)).collect();
        let sizes = Sizes {
            bytes: memory.len() * 8,
            reserved_fences: 4,
            relation_fences: 4,
            tag_fences: 16,
            counters: 1,
            shards: 1,
        };
        let layout = Layout::of(sizes).expect("it is large enough");
        let region = Region::of_words(&memory);
        layout.format(&region);
        test(Fences::new(region, &layout));
    }

    #[test]
    fn lowering_tells_who_was_alone() {
        with_fences(|fences| {
            let [mine, shared] = [fences.tag(0), fences.tag(u64::MAX)];
            assert_ne!(mine, shared);
            let stamp = fences.now();
            for fence in [mine, shared, shared] {
                fences.raise(fence);
            }
            let number = fences.draw();
            assert!(stamp < number && number == fences.now(), "drawing moves the clock by one");
            assert!(fences.lower_as(mine, number).was_alone_since(stamp));
            assert!(!fences.lower_as(shared, number).was_alone_since(stamp), "another change was pending");
            assert!(fences.holds(mine, number, Stamp::LATEST), "right as of the own commit");
            assert!(!fences.holds(mine, stamp, Stamp::LATEST), "wrong as of what was before it");
            assert!(!fences.holds(shared, number, Stamp::LATEST), "still pending");
            assert!(
                !fences.lower_as(shared, fences.draw()).was_alone_since(stamp),
                "another change has been since the stamp"
            );
            fences.raise(shared);
            assert!(
                fences
                    .lower_as(shared, fences.draw())
                    .was_alone_since(Stamp::from_number(number.number() + 1))
            );
        });
    }

    #[test]
    fn late_lowering_takes_nothing_back() {
        with_fences(|fences| {
            let fence = fences.tag(0);
            fences.raise(fence);
            fences.raise(fence);
            let (first, second) = (fences.draw(), fences.draw());
            let _ = fences.lower_as(fence, second);
            let _ = fences.lower_as(fence, first);
            assert!(fences.passed(fence, first) && !fences.passed(fence, second));
            assert_eq!(fences.pending(fence), 0);
            assert!(!fences.lower_as(fence, second).was_alone_since(second), "nobody had raised it");
            assert_eq!(fences.pending(fence), 0, "and nothing is borrowed from seq");
            assert!(!fences.passed(fence, second));
        });
    }

    #[test]
    fn a_relation_has_a_record_once_an_entry_depends_on_it() {
        with_fences(|fences| {
            let (stamp, claims) = (fences.now(), fences.claims());
            let unclaimed = fences.write(1, 7);
            assert!(!fences.is_of_relation(unclaimed) && unclaimed == fences.write(1, 8), "they share one");
            assert_eq!(fences.claims(), claims, "writers claim nothing");
            // A writer that has found no record is under way. An entry depends on both fences until that writer has ended.
            fences.raise(unclaimed);
            let (record, beside) = fences.dependency(1, 7, stamp);
            assert_eq!(beside, Some(unclaimed));
            assert_ne!(fences.claims(), claims, "the writer is told to look again");
            assert_eq!(fences.write(1, 7), record);
            assert_eq!((fences.relation_of(record), fences.relation_of(unclaimed)), (Some((1, 7)), None));
            assert!(fences.is_of_unclaimed(unclaimed) && !fences.is_of_unclaimed(record));
            fences.lower(unclaimed);
            assert_eq!(fences.dependency(1, 7, stamp).1, Some(unclaimed), "older than that writer's change");
            let stamp = fences.now();
            assert_eq!(fences.dependency(1, 7, stamp), (record, None));
            // The record is settled. Entries with this stamp or a later one do not look at the unclaimed fence any more.
            let claims = fences.claims();
            fences.raise(unclaimed);
            assert_eq!(fences.dependency(1, 7, stamp), (record, None));
            assert_eq!(fences.claims(), claims);
            assert_eq!(fences.dependency(1, 7, Stamp::VOID).1, Some(unclaimed), "older than that");
        });
    }

    #[test]
    fn relations_that_share_a_record_are_never_settled() {
        with_fences(|fences| {
            (1..=4).for_each(|relation| _ = fences.dependency(1, relation, fences.now()));
            let (shared, beside) = fences.dependency(1, 5, fences.now());
            assert_eq!((fences.write(1, 5), beside), (shared, None));
            assert_eq!(fences.relation_of(shared), None, "the record is that of several relations");
            let unclaimed = fences.unclaimed(1, 5);
            fences.raise(unclaimed);
            assert_eq!(fences.dependency(1, 5, fences.now()), (shared, Some(unclaimed)));
        });
    }
}
