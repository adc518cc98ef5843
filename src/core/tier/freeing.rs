//! Gives the blocks of *unlinked* entries back: those that are not in the chain of their hash bucket any more. A *run* is a row of
//! neighbouring blocks. In an entry of several runs, each run holds the link to the next run, so the link must be read before the
//! run is given back.
//!
//! An entry is *spread* if it may have blocks in other shards than that of its key; a *shard* is a part of the tier with a lock of
//! its own. A *hold* is the time from acquiring to releasing a shard's lock. A *space* is a set of keys in one database. A *zone*
//! is 64 KB of blocks with a version that moves when an entry in it dies (`tier/shard.rs`). *Deltas* are changes of figures that
//! are written after a hold (`figures/deltas.rs`).

use super::Tier;

use super::entry::Entry;
use super::guard::Guard;
use super::header::{Header, SPREAD};
use super::shard::Shard;
use super::streak::Victim;
use crate::blocks::Run;
use crate::figures::Deltas;
use crate::host::Host;
use crate::key::Scope;

/// The most evictions during one hold of a lock, which is the time from acquiring to releasing it. Waiting writers get the lock in
/// between. It is also the size of the list of spread entries.
pub(super) const EVICTIONS_PER_HOLD: u32 = 32;

/// Unlinked entries that are spread over several shards. Their blocks are given back when no lock is held. The size is fixed,
/// because nothing that a commit does may allocate. Every list must end in one call of [`Tier::release_all`], except in
/// `reviving.rs`, which finds all free blocks anew.
#[derive(Default)]
pub(crate) struct Unlinked {
    /// The first blocks of the entries, `count` of them.
    blocks: [u32; EVICTIONS_PER_HOLD as usize],
    count: usize,
    /// The changes that the hold makes to the figures of spaces and relations.
    pub deltas: Deltas,
}

impl Unlinked {
    /// Creates the list for a hold on behalf of a space. Most of the changes of the hold are likely to concern that space.
    #[inline(always)]
    pub(crate) fn within(scope: &Scope) -> Self {
        let mut unlinked = Self::default();
        unlinked.deltas.begin(scope);
        unlinked
    }

    pub(crate) fn is_full(&self) -> bool {
        self.left() == 0
    }

    pub(super) fn left(&self) -> usize {
        self.blocks.len() - self.count
    }

    /// Adds an entry. The list must not be full: the blocks of an entry that has no place here are lost.
    fn push(&mut self, block: u32) {
        if let Some(slot) = self.blocks.get_mut(self.count) {
            *slot = block;
            self.count += 1;
        }
    }
}

impl<H: Host> Tier<'_, H> {
    /// Gives the blocks of an entry back. The entry must be unlinked and its zone must have moved ([`Guard::unlink`]), so that
    /// readers learn of its death. A spread entry is put on the list `unlinked` instead, which must not be full; its blocks are
    /// given back after the hold.
    pub(crate) fn give_back<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        entry: &Entry<'t>,
        header: &Header,
        unlinked: &mut Unlinked,
    ) {
        if header.has(SPREAD) {
            unlinked.push(entry.block);
            return;
        }
        let mut runs = entry.runs(&self.layout, header);
        let mut next = runs.next();
        while let Some(data) = next {
            // The next run is read before the run that names it is given back. If a run cannot be given back, it is damaged, and
            // its link must not be followed.
            next = runs.next();
            if !guard.give(data.run) {
                break;
            }
            self.note_blocks(&mut unlinked.deltas, header.space_id(), -i64::from(data.run.blocks));
        }
    }

    /// Gives the blocks of evicted entries back, after they were unlinked and their zones were moved. Entries that lie next to each
    /// other are given back as one run. `unlinked` must have room for each spread entry.
    pub(super) fn give_back_all<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        gone: &[Victim],
        unlinked: &mut Unlinked,
    ) {
        let beside = |one: &Victim, next: &Victim| {
            one.whole && next.whole && one.block.wrapping_add(one.blocks) == next.block
        };
        for neighbours in gone.chunk_by(beside) {
            let run = Run {
                first: neighbours[0].block,
                blocks: neighbours.iter().fold(0, |sum, victim| sum.saturating_add(victim.blocks)),
            };
            if neighbours[0].whole && guard.give(run) {
                for victim in neighbours {
                    self.note_blocks(&mut unlinked.deltas, victim.space_id, -i64::from(victim.blocks));
                }
            } else {
                // An entry in several runs is given back on its own. So is each entry of the run if one of them is damaged.
                for victim in neighbours {
                    let entry = guard.entry(victim.block);
                    self.give_back(guard, &entry, &entry.header(), unlinked);
                }
            }
        }
    }

    /// Finishes the work of a hold after the lock was released: settles the deltas and releases the spread entries. It must be
    /// called once for each list. The caller must not hold a lock.
    pub(crate) fn release_all(&self, unlinked: &mut Unlinked) {
        unlinked.deltas.settle(&self.statistics);
        for block in &unlinked.blocks[..unlinked.count] {
            self.release(*block);
        }
    }

    /// Gives the blocks of an entry back that is not linked. The caller must not hold a lock.
    pub(crate) fn release(&self, block: u32) {
        let entry = Entry::new(self.region, &self.layout, block);
        self.release_runs(&entry, &entry.header());
    }

    /// Gives the runs of an entry back, with one lock after the other, and subtracts the blocks from those of the space. The caller
    /// must not hold a lock.
    pub(super) fn release_runs(&self, entry: &Entry<'_>, header: &Header) {
        let mut given = 0;
        self.give_runs(entry.runs(&self.layout, header).map(|data| data.run), &mut given);
        self.statistics.add_blocks(self.cell_of(header.space_id()), -given);
    }

    /// Gives runs back and adds the number of their blocks to `given`. Neighbours in the chain that lie in one shard need one hold
    /// of its lock. Stops at a run that cannot be given back, because it is damaged.
    fn give_runs(&self, mut runs: impl Iterator<Item = Run>, given: &mut i64) {
        let mut next = runs.next();
        while let Some(run) = next {
            let owner = self.layout.shard_of_block(run.first);
            if owner >= self.layout.shards {
                return;
            }
            let guard = Shard::new(self.region, &self.layout, owner).lock(&self.host);
            let mut current = Some(run);
            while let Some(run) = current {
                next = runs.next();
                if !guard.give(run) {
                    return;
                }
                *given += i64::from(run.blocks);
                current = next.filter(|run| self.layout.shard_of_block(run.first) == owner);
            }
        }
    }
}
