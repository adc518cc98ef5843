//! Allocates blocks for entries: finds free blocks, and evicts entries if too few are free. `publishing.rs` calls it for each value
//! that is to be stored. A *shard* is a part of the tier with a lock and blocks of its own.
//!
//! - A shard's blocks must only be taken and given back under the lock of that shard. A backend never holds two shard locks at
//!   once.
//! - A backend does a bounded amount of work before it releases the lock: a few evictions and a short search. Then it acquires the
//!   lock again if it needs more blocks. So waiting writers get the lock in between. The time from acquiring to releasing the lock
//!   is called a *hold*.
//!
//! A *run* is a row of neighbouring blocks. An entry that lies in several runs is *chained*; it is *spread* if it may have blocks
//! in other shards than that of its key.

use super::Tier;
use super::entry::Entry;
use super::eviction;
use super::freeing::{EVICTIONS_PER_HOLD, Unlinked};
use super::guard::Guard;
use super::header::{CHAINED, Header, SPREAD};
use super::judge::Judge;
use super::runs::{RUN_BLOCKS_MAX, RUN_BLOCKS_MIN, blocks_of, link_at};
use super::shard::Shard;
use super::streak::{Queue, Streak, Victim};
use crate::blocks::Run;
use crate::figures::{Counter, Deltas};
use crate::host::Host;
use crate::key::Key;
use crate::layout::{BLOCK_BYTES, Layout};
use crate::region::Region;
use crate::value::Refusal;

/// The work that is still allowed during this hold of a lock.
struct Hold {
    /// How many entries may still be evicted.
    evictions: u32,
    /// The words of the bitmap that may be searched before an entry is evicted instead. It is 0 after a search without success:
    /// evictions free blocks in other places, so a second search of the same words would find nothing new.
    search: u32,
}
/// A search for blocks may look at this many words of the bitmap, and at one more word for every [`FREE_BLOCKS_PER_WORD`] free
/// blocks, before an entry is evicted instead. So the search is long if the shard has many holes, and cheap if the shard is full.
const SEARCH_WORDS_MIN: u32 = 8;
/// A search for blocks may look at one more word for every group of this many free blocks: see [`SEARCH_WORDS_MIN`].
const FREE_BLOCKS_PER_WORD: u32 = 32;
/// An entry that needs more than an eighth of a shard's blocks is spread over several shards.
const SHARD_SHARE: u32 = 8;
/// For an entry of at most this many blocks (512 bytes), the first attempt looks for one run.
const SMALL_BLOCKS: u32 = 32;
/// For a larger entry, the first attempt accepts only runs of at least an eighth of its blocks. This minimum is itself at least
/// [`SMALL_BLOCKS`] and at most [`PIECE_BLOCKS_MAX`].
const PIECES: u32 = 8;
/// The greatest minimum for the first attempt ([`PIECES`]), 4 KB: evicting neighbours until a longer run is free would take too
/// long.
const PIECE_BLOCKS_MAX: u32 = 256;

/// Where the blocks of an entry will come from.
struct Plan {
    /// The blocks that the entry needs if it lies in one run.
    blocks: u32,
    /// Whether the entry takes its blocks from several shards, at most `share` at each visit, because it is large for one shard.
    spread: bool,
    /// The most blocks that one visit to a shard may take. No limit if the entry is not spread.
    share: u32,
    /// The blocks of the shortest run that is taken at first. Shorter runs are taken after a hold that took no block.
    piece: u32,
}

impl Plan {
    /// Plans an entry of this many blocks.
    fn of(blocks: u32, layout: &Layout) -> Self {
        let spread = blocks > layout.blocks / SHARD_SHARE;
        let share = if spread { layout.blocks / SHARD_SHARE / 2 } else { u32::MAX };
        let piece = if blocks <= SMALL_BLOCKS {
            blocks
        } else {
            (blocks / PIECES).clamp(SMALL_BLOCKS, PIECE_BLOCKS_MAX)
        };
        Self { blocks, spread, share, piece }
    }
}

/// A visit to a shard, which may take several holds of its lock.
struct Visit {
    /// The number of the shard.
    shard: u32,
    /// The blocks that this visit may still take.
    share_left: u32,
    /// How many holds in a row have taken no block. It counts across shards.
    holds_without_blocks: u32,
}

impl Visit {
    /// Returns whether the search moves on to the next shard.
    ///
    /// If the entry is not spread, the first hold without a block may only lack long runs. So the search stays in the shard for one
    /// more hold, with short runs. After that, each further shard gets one hold, until a shard gives blocks. If the entry is
    /// spread, the visit goes on over several holds until the shard has given its whole share, or a hold takes no block: the
    /// shard's data is in the processor's cache now, and would not be there at a later visit.
    fn is_over(&self, plan: &Plan) -> bool {
        if plan.spread {
            self.holds_without_blocks > 0 || self.share_left < RUN_BLOCKS_MIN
        } else {
            self.holds_without_blocks > 1
        }
    }
}

/// The blocks that have been collected for an entry so far.
struct Allocation {
    /// The first run of the entry.
    first: Option<Run>,
    /// The last run of the chain so far. None if there is no chain.
    last: Option<Run>,
    /// The bytes of the entry that have no block yet.
    left: usize,
}

impl Allocation {
    /// Adds a run. It is the only run of the entry if `in_one_run` is true, and the next run of a chain otherwise.
    fn add(&mut self, region: &Region<'_>, layout: &Layout, run: Run, in_one_run: bool) {
        if in_one_run {
            self.left = 0;
        } else {
            region.store(link_at(layout, run), 0);
            if let Some(last) = self.last {
                region.store(link_at(layout, last), u64::from(run.first) << 32 | u64::from(run.blocks));
            }
            self.last = Some(run);
            self.left = self.left.saturating_sub(run.blocks as usize * BLOCK_BYTES - 8);
        }
        self.first = self.first.or(Some(run));
    }

    /// Writes into the header whether the entry is chained, and the length of its first run.
    fn record_chain(&self, header: &mut Header) {
        if let (Some(first), Some(_)) = (self.first, self.last) {
            header.words[4] |= CHAINED;
            header.words[6] |= u64::from(first.blocks);
        }
    }

    /// Gives all collected blocks back and returns the error `why`.
    fn abandon<H: Host>(self, tier: &Tier<'_, H>, header: &mut Header, why: Refusal) -> Result<u32, Refusal> {
        self.record_chain(header);
        if let Some(first) = self.first {
            let entry = Entry::new(tier.region, &tier.layout, first.first);
            tier.release_runs(&entry, header);
        }
        Err(why)
    }
}

impl<H: Host> Tier<'_, H> {
    /// Takes blocks for an entry, evicts other entries if needed, and records in the entry's header how the runs are connected and
    /// whether the entry is spread. The caller must not hold a lock. After an error, no block stays taken.
    ///
    /// One run in the key's own shard is best. If the free space is fragmented, the entry is chained: first from a few long runs,
    /// and if evictions do not free such runs, from runs of any length. An entry that is large for a shard visits one shard after
    /// the other and takes at most a sixteenth of a shard's blocks at each visit, so that it does not empty one shard.
    ///
    /// Returns the first block of the entry. Gives up with [`Refusal::Full`] when more holds in a row than twice the number of
    /// shards have taken no block. Gives up with [`Refusal::Off`] when the key's own shard is switched off.
    pub(crate) fn allocate(&self, key: &Key<'_>, header: &mut Header) -> Result<u32, Refusal> {
        let home = self.shard_of(key).index;
        let mut judge = Judge::new(self);
        let plan = Plan::of(header.blocks(), &self.layout);
        let mut visit = Visit { shard: home, share_left: plan.share, holds_without_blocks: 0 };
        let mut allocation = Allocation { first: None, last: None, left: header.byte_len() };
        while allocation.left > 0 && visit.holds_without_blocks <= self.layout.shards.saturating_mul(2) {
            let before = allocation.left;
            let is_off = self.take_runs(key, &plan, &mut visit, &mut judge, &mut allocation);
            if is_off && visit.shard == home {
                return allocation.abandon(self, header, Refusal::Off);
            }
            visit.holds_without_blocks =
                if allocation.left < before { 0 } else { visit.holds_without_blocks + 1 };
            if visit.is_over(&plan) {
                visit.shard = (visit.shard + 1) % self.layout.shards;
                visit.share_left = plan.share;
                header.words[4] |= SPREAD;
            }
        }
        if allocation.left > 0 {
            return allocation.abandon(self, header, Refusal::Full);
        }
        allocation.record_chain(header);
        allocation.first.map(|run| run.first).ok_or(Refusal::Full)
    }

    /// Takes runs of the visited shard during one hold of its lock, and gives spread victims back after the hold. Returns whether
    /// the shard is switched off.
    fn take_runs<'t>(
        &'t self,
        key: &Key<'_>,
        plan: &Plan,
        visit: &mut Visit,
        judge: &mut Judge<'t, '_, H>,
        allocation: &mut Allocation,
    ) -> bool {
        let guard = Shard::new(self.region, &self.layout, visit.shard).lock(&self.host);
        let mut unlinked = Unlinked::within(&key.scope);
        let mut hold = Hold {
            evictions: EVICTIONS_PER_HOLD,
            search: SEARCH_WORDS_MIN + guard.free_blocks() / FREE_BLOCKS_PER_WORD,
        };
        if guard.poisoned() {
            visit.share_left = 0;
        }
        while allocation.left > 0 && visit.share_left >= RUN_BLOCKS_MIN {
            let in_one_run = allocation.first.is_none() && !plan.spread && plan.blocks <= RUN_BLOCKS_MAX;
            // In a chain, one word of each run is the link.
            let want = if in_one_run { plan.blocks } else { blocks_of(allocation.left + 8) };
            let want = want.max(RUN_BLOCKS_MIN).min(visit.share_left).min(RUN_BLOCKS_MAX);
            let least = if visit.holds_without_blocks == 0 { plan.piece.min(want) } else { RUN_BLOCKS_MIN };
            let Some(run) = self.take(&guard, least, want, judge, &mut hold, &mut unlinked) else {
                break;
            };
            allocation.add(&self.region, &self.layout, run, in_one_run && run.blocks == plan.blocks);
            visit.share_left -= run.blocks;
            self.note_blocks(&mut unlinked.deltas, key.scope.space_id(), i64::from(run.blocks));
        }
        let is_off = guard.poisoned();
        drop(guard);
        self.release_all(&mut unlinked);
        is_off
    }

    /// Takes a run of the locked shard. If a short search finds none, evicts entries to free one. Returns None if that does not
    /// succeed within the budget of the hold.
    fn take<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        least: u32,
        want: u32,
        judge: &mut Judge<'t, '_, H>,
        hold: &mut Hold,
        unlinked: &mut Unlinked,
    ) -> Option<Run> {
        if self.host.refuses_blocks() {
            return None;
        }
        let mut run = guard.take(least, want, hold.search);
        if run.is_none() {
            hold.search = 0;
        }
        while run.is_none() && hold.evictions > 0 && !unlinked.is_full() {
            let Some(freed) = self.evict(guard, want, judge, hold, unlinked) else {
                // There is no entry to evict, so only a full search of the bitmap can still find a run.
                return guard.take(least, want, u32::MAX);
            };
            run = guard.take_around(freed, least, want);
        }
        run
    }

    /// Evicts entries of the locked shard until they have freed at least `wanted` blocks in it, or the budget of the hold is used
    /// up. Returns the first block of the last evicted entry. Mostly the other freed blocks are next to it, so the caller looks for
    /// a run there. Returns None if it evicted nothing, because there is no entry to evict.
    fn evict<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        wanted: u32,
        judge: &mut Judge<'t, '_, H>,
        hold: &mut Hold,
        unlinked: &mut Unlinked,
    ) -> Option<u32> {
        let (mut left, mut last) = (wanted, None);
        while left > 0 && hold.evictions > 0 && !unlinked.is_full() {
            // A spread victim needs a slot of `unlinked`, and any victim may be spread.
            let most = unlinked.left().min(hold.evictions as usize);
            let streak =
                eviction::victims(guard, left, most, |entry, header| judge.is_useless(entry, header));
            let victims = streak.victims();
            let Some(last_victim) = victims.last() else { break };
            last = Some(last_victim.block);
            guard.detach_oldest(&streak);
            self.count_evictions(&streak, &mut unlinked.deltas);
            hold.evictions = hold.evictions.saturating_sub(victims.len() as u32);
            let here = victims.iter().filter(|victim| !victim.spread);
            left = here.fold(left, |left, victim| left.saturating_sub(victim.blocks));
            // Prefetching pays only for evictions in this hold, so it is left out when most of the budget is used.
            if left == 0 && hold.evictions > EVICTIONS_PER_HOLD / 2 {
                guard.prefetch_next(streak.queue);
            }
            guard.move_zones(victims);
            self.give_back_all(guard, victims, unlinked);
        }
        last
    }

    /// Counts the victims for their spaces: as evicted if they were still valid, as expired or fenced otherwise. Their blocks must
    /// not have been given back yet.
    fn count_evictions(&self, streak: &Streak, deltas: &mut Deltas) {
        for of_one_space in streak.victims().chunk_by(Victim::is_of_space_of) {
            let space_id = of_one_space[0].space_id;
            let was_valid = |victim: &&Victim| victim.why == Counter::Evicted;
            let evicted = of_one_space.iter().filter(was_valid).count() as u32;
            self.note_gone(deltas, space_id, Counter::Evicted, evicted);
            if streak.queue == Queue::Small {
                self.note_gone(deltas, space_id, Counter::EvictedUnread, evicted);
            }
            for victim in of_one_space.iter().filter(|victim| !was_valid(victim)) {
                self.note_gone(deltas, space_id, victim.why, 1);
                let entry = Entry::new(self.region, &self.layout, victim.block);
                self.note_killed(deltas, &entry, &entry.header());
            }
        }
    }
}
