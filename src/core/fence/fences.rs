//! The words of fences, and the operations on them. A commit raises the fences of what it has changed, and lowers them afterwards
//! (`store/transaction/commit.rs` of the extension); a reader asks whether the fences of an entry hold (`tier/reading.rs`).
//! `fence/mod.rs` has the layout of the word, the rules and the proof.
//!
//! The *region* is the shared memory of the tier (the cache), as words of 64 bits. A *stamp* is a number of the clock of changes,
//! which each committed change increments. A *slot* is the place of a reserved fence or of a relation's record, and its *mark* is
//! the word that says which one it holds. A *space* is a set of keys in one database; its *pattern fence* says when keys were last
//! invalidated by a pattern (`patterns/mod.rs`).

use super::id::{FenceId, RelationFence, pattern_fence, relation_fence, reserved_fence, unclaimed_fence};
use super::stamp::Stamp;
use crate::hash::{reduce, scatter};
use crate::layout::{AT_NOW, Layout};
use crate::region::Region;
use crate::sync::{AtomicU64, Ordering};

/// The bits of `pending`, at the low end of a fence. `seq` has all other bits. `pending` would overflow into `seq` if 2^18
/// transactions were about to commit under one fence. PostgreSQL has at most 2^18 - 1 backends (`MAX_BACKENDS`).
pub(super) const PENDING_BITS: u32 = 18;
pub(super) const PENDING_MASK: u64 = (1 << PENDING_BITS) - 1;
/// How many slots a search looks at, from the slot that the hash selects, so that its time is bounded. The slots are those of
/// reserved fences, or the records of relations. A search that finds no slot among them gives up.
pub(super) const PROBES: u32 = 16;

/// The word of a fence just before it was lowered: it tells whether other writers used the fence at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use = "or call `lower`"]
pub struct Lowered(u64);

impl Lowered {
    /// Whether the writer that lowered the fence was alone: since `stamp`, no other writer had lowered the fence, and no other
    /// writer still had it raised. False if the fence was not raised.
    pub fn was_alone_since(self, stamp: Stamp) -> bool {
        self.0 & PENDING_MASK == 1 && self.0 >> PENDING_BITS <= stamp.0
    }
}

/// All fences of a region.
#[derive(Clone, Copy, Debug)]
pub struct Fences<'m> {
    pub(super) region: Region<'m>,
    pub(super) layout: &'m Layout,
}

impl<'m> Fences<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout) -> Self {
        Self { region, layout }
    }

    /// Returns the number of the latest change: the last one that was [drawn](Self::draw). A caller that uses it as the stamp of a
    /// value must call this before it takes the snapshot on which it computes the value.
    pub fn now(&self) -> Stamp {
        Stamp(self.region.word(AT_NOW).load(Ordering::SeqCst))
    }

    /// Returns the fence of a tag of a database, by any hash of the tag's name. A fast hash function gives similar names similar
    /// hashes, so the hash is scattered.
    pub fn tag_of(&self, database: u32, hash: u64) -> FenceId {
        self.tag(scatter(hash ^ scatter(database.into())))
    }

    /// Returns the fence of a tag by a hash whose upper half is evenly distributed. Tags share fences by their hash. Sharing costs
    /// needless misses and never causes a stale hit.
    pub fn tag(&self, hash: u64) -> FenceId {
        FenceId(self.layout.tags_at as u32 + reduce(hash, self.layout.sizes.tag_fences))
    }

    /// Returns the pattern fence of a space, by the fence of the space. A space that uses the fence of a tag has no pattern fence,
    /// and this returns the fence of the space.
    pub(crate) fn patterns_of(&self, space: FenceId) -> FenceId {
        pattern_fence(self.layout, space).unwrap_or(space)
    }

    /// Raises a fence: a change is about to become visible. The caller must then call exactly one of `lower`, `lower_as`,
    /// [`Tier::lower_as`](crate::Tier::lower_as) and `withdraw`. Until then, no entry that depends on the fence is valid.
    pub fn raise(&self, fence: FenceId) {
        self.word(fence).fetch_add(1, Ordering::SeqCst);
    }

    /// Draws a number and lowers a fence with it. The change must be visible already.
    pub fn lower(&self, fence: FenceId) {
        let _ = self.lower_as(fence, self.draw());
    }

    /// Draws the number of a change. The change must be visible already. A transaction draws one number, and lowers all its fences
    /// with it.
    pub fn draw(&self) -> Stamp {
        Stamp::from_u64(self.region.word(AT_NOW).fetch_add(1, Ordering::SeqCst).wrapping_add(1))
    }

    /// Lowers a fence with a number that was [drawn](Self::draw) for the change. Returns the word that the fence had before. `seq`
    /// never goes back: if another writer has lowered the fence with a later number, that number stays. If the fence is not raised,
    /// `pending` stays 0.
    pub fn lower_as(&self, fence: FenceId, change: Stamp) -> Lowered {
        let word = self.word(fence);
        let mut old = word.load(Ordering::SeqCst);
        loop {
            let new =
                (old >> PENDING_BITS).max(change.0) << PENDING_BITS | (old & PENDING_MASK).saturating_sub(1);
            match word.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return Lowered(old),
                Err(found) => old = found,
            }
        }
    }

    /// Undoes `raise` for a change that was aborted. `seq` stays as it is.
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

    /// Whether this fence allows a value as of `stamp` to be served to a reader that may not see changes after `safe_stamp`: no
    /// change is pending, and the last one is not after either moment.
    #[inline(always)]
    pub fn holds(&self, fence: FenceId, stamp: Stamp, safe_stamp: Stamp) -> bool {
        let word = self.word(fence).load(Ordering::SeqCst);
        // The rotation puts `pending` above `seq`, so a pending change is greater than every stamp.
        word.rotate_right(PENDING_BITS) <= stamp.0.min(safe_stamp.0)
    }

    /// Whether a change has been committed since `stamp`. If so, a value with this stamp never becomes valid again. A change that
    /// is only pending does not count, because it may still be withdrawn.
    pub fn has_changed_since(&self, fence: FenceId, stamp: Stamp) -> bool {
        self.word(fence).load(Ordering::SeqCst) >> PENDING_BITS > stamp.0
    }

    /// Returns how many changes are about to be committed under this fence.
    pub fn pending(&self, fence: FenceId) -> u64 {
        self.word(fence).load(Ordering::SeqCst) & PENDING_MASK
    }

    /// Returns the number of the last change under this fence, and how many changes are about to be committed. Both are read at the
    /// same moment.
    pub(super) fn last_change(&self, fence: FenceId) -> (Stamp, u64) {
        let word = self.word(fence).load(Ordering::SeqCst);
        (Stamp(word >> PENDING_BITS), word & PENDING_MASK)
    }

    /// Sets `seq` to a stamp, unless `seq` is greater already. `pending` stays as it is.
    pub(crate) fn advance_seq(&self, fence: FenceId, stamp: Stamp) {
        let word = self.word(fence);
        let mut old = word.load(Ordering::SeqCst);
        while old >> PENDING_BITS < stamp.0 {
            let new = stamp.0 << PENDING_BITS | old & PENDING_MASK;
            match word.compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(found) => old = found,
            }
        }
    }

    /// Returns the whole word of a fence if a writer has raised it.
    pub(crate) fn word_if_raised(&self, fence: FenceId) -> Option<u64> {
        let word = self.word(fence).load(Ordering::SeqCst);
        (word & PENDING_MASK > 0).then_some(word)
    }

    /// Returns all fences: first the reserved ones, each followed by its pattern fence, and then the others.
    pub(crate) fn all_fences(&self) -> impl Iterator<Item = FenceId> + use<'m> {
        let layout = self.layout;
        let reserved = (0..layout.sizes.reserved_fences).flat_map(|slot| {
            let fence = reserved_fence(layout, slot);
            [Some(fence), pattern_fence(layout, fence)].into_iter().flatten()
        });
        let relations = (0..layout.sizes.relation_fences).flat_map(|slot| {
            [RelationFence::Any, RelationFence::Bulk].map(|which| relation_fence(layout, slot, which))
        });
        let unclaimed = (0..layout.unclaimed()).map(|index| unclaimed_fence(layout, index));
        let tags = (0..layout.sizes.tag_fences).map(|tag| FenceId(layout.tags_at as u32 + tag));
        reserved.chain(relations).chain(unclaimed).chain(tags)
    }

    #[inline(always)]
    fn word(&self, FenceId(at): FenceId) -> &'m AtomicU64 {
        self.region.word(at as usize)
    }

    /// Returns the slot that holds this mark, and takes a free slot if the mark is new. Returns None if all slots that the search
    /// looks at hold other marks, or if there are no slots. `first_slot_at` is the position of the first slot, and `slot_words` is
    /// the number of words of a slot; its first word holds the mark. The upper half of `hash` selects the slot where the search
    /// begins, and must be the same for equal marks. A mark must not be 0.
    ///
    /// A slot keeps its mark while sessions use the region; only a revival gives slots back (`reviving.rs`). So every later search
    /// for the mark finds the same slot, without a lock.
    pub(super) fn claim(
        &self,
        first_slot_at: usize,
        slot_words: usize,
        slots: u32,
        hash: u64,
        mark: u64,
    ) -> Option<u32> {
        let first = reduce(hash, slots);
        for probe in 0..PROBES.min(slots) {
            let slot = (first + probe) % slots;
            let word = self.region.word(first_slot_at + slot as usize * slot_words);
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
