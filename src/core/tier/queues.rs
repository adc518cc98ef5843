//! The eviction queues of a shard, its visited bits and its ghosts, for the holder of the lock. A *shard* is a part of the tier,
//! the cache. A queue is a doubly linked list of entries, from the oldest to the newest; its links are in the headers of the
//! entries. `eviction.rs` has the policy that uses them.
//!
//! A *ghost* is the hash of an entry that was evicted lately. The *visited bit* of an entry says that a reader has asked for it.
//! The *weight* of an entry is what it costs to lose, in relation to its size (`weight.rs`). A *zone* is 64 KB of blocks with a
//! version that moves when an entry in it dies (`tier/shard.rs`). A *hold* is the time from acquiring to releasing the lock.

use super::entry::Entry;
use super::guard::Guard;
use super::header::{HEADER_WORDS, Header, IN_MAIN, LINKED};
use super::runs::NONE;
use super::shard::{
    AT_AVERAGES, AT_ENTRIES, AT_EVICTED, AT_MAIN_LAP, AT_POLICY, AT_QUEUES, QUEUE_WORDS, set_half,
};
use super::streak::{Queue, Streak, Victim};
use super::weight::Averages;
use crate::hash::reduce;
use crate::host::Host;
use crate::sync::Ordering;

/// How many of the entries before a victim in its bucket are prefetched.
const NEIGHBOURS_PREFETCHED: u32 = 3;

/// How many entries ahead in the queue a header is prefetched.
const PREFETCH_DISTANCE: u32 = 16;

impl<'m, H: Host> Guard<'m, H> {
    /// Returns the position of a queue's words in the shard's control block.
    fn queue_at(queue: Queue) -> usize {
        AT_QUEUES + queue as usize * QUEUE_WORDS
    }

    /// Returns the newest and the oldest entry of a queue, by their first blocks, or `NONE`.
    fn ends(&self, queue: Queue) -> (u32, u32) {
        let ends = self.get(Self::queue_at(queue));
        ((ends >> 32) as u32, ends as u32)
    }

    fn set_ends(&self, queue: Queue, newest: u32, oldest: u32) {
        self.set(Self::queue_at(queue), u64::from(newest) << 32 | u64::from(oldest));
    }

    /// Returns how many blocks the entries of a queue would have if each of them lay in one run. Blocks that only links need do not
    /// count.
    pub(crate) fn queued(&self, queue: Queue) -> u64 {
        self.get(Self::queue_at(queue) + 1)
    }

    /// Returns the entry that has been in a queue for the longest time.
    pub(crate) fn oldest(&self, queue: Queue) -> Option<Entry<'m>> {
        let (_, oldest) = self.ends(queue);
        (oldest != NONE).then(|| self.entry(oldest))
    }

    /// Returns the entry that came into the queue directly after this entry.
    pub(crate) fn newer(&self, entry: &Entry<'m>) -> Option<Entry<'m>> {
        let newer = entry.newer();
        (newer != NONE).then(|| self.entry(newer))
    }

    /// Puts an entry that is in no queue at the young end of a queue.
    pub(crate) fn enqueue(&self, queue: Queue, entry: &Entry<'m>, header: &Header) {
        let (newest, oldest) = self.ends(queue);
        entry.set_newer(NONE);
        entry.set_older(newest);
        entry.set_flag(IN_MAIN, queue == Queue::Main);
        if newest != NONE {
            self.entry(newest).set_newer(entry.block);
        }
        self.set_ends(queue, entry.block, if oldest == NONE { entry.block } else { oldest });
        self.add(Self::queue_at(queue) + 1, header.blocks().into());
    }

    /// Removes an entry from its queue. Its flag `IN_MAIN` tells which queue that is.
    pub(crate) fn dequeue(&self, entry: &Entry<'m>, header: &Header) {
        let queue = if entry.word(4) & IN_MAIN != 0 { Queue::Main } else { Queue::Small };
        let (mut newest, mut oldest) = self.ends(queue);
        let (newer, older) = (entry.newer(), entry.older());
        if newer == NONE {
            newest = older;
        } else {
            self.entry(newer).set_older(older);
        }
        if older == NONE {
            oldest = newer;
        } else {
            self.entry(older).set_newer(newer);
        }
        self.set_ends(queue, newest, oldest);
        self.add(Self::queue_at(queue) + 1, -i64::from(header.blocks()));
    }

    /// Clears the visited bit of an entry and returns whether it was set. False for a number that is no block.
    pub(crate) fn take_visit(&self, entry: &Entry<'m>) -> bool {
        let (at, mask) = self.shard.layout.visited_bit(entry.block);
        let word = self.shard.region.word(at);
        self.is_block(entry.block)
            && word.load(Ordering::Relaxed) & mask != 0
            && word.fetch_and(!mask, Ordering::Relaxed) & mask != 0
    }

    /// Returns whether an entry was visited, and leaves the bit as it is.
    pub(crate) fn is_visited(&self, entry: &Entry<'m>) -> bool {
        let (at, mask) = self.shard.layout.visited_bit(entry.block);
        self.is_block(entry.block) && self.shard.region.load(at) & mask != 0
    }

    /// Returns the word with the state of the small queue (`SmallShare` in `eviction.rs`). It is 0 at first.
    pub(crate) fn policy_state(&self) -> u64 {
        self.get(AT_POLICY)
    }

    pub(crate) fn set_policy_state(&self, state: u64) {
        self.set(AT_POLICY, state);
    }

    /// Returns the word with the state of the main queue (`MainLap` in `eviction.rs`). It is 0 at first.
    pub(crate) fn main_lap(&self) -> u64 {
        self.get(AT_MAIN_LAP)
    }

    pub(crate) fn set_main_lap(&self, state: u64) {
        self.set(AT_MAIN_LAP, state);
    }

    /// Returns the averages that weights are compared with (`weight.rs`).
    pub(super) fn averages(&self) -> Averages {
        Averages::of(self.get(AT_AVERAGES))
    }

    pub(super) fn set_averages(&self, averages: Averages) {
        self.set(AT_AVERAGES, averages.state());
    }

    /// Returns how many blocks the entries had that this shard has evicted so far although they were still of use.
    pub(crate) fn evicted_blocks(&self) -> u64 {
        self.get(AT_EVICTED)
    }

    /// Returns the ghost slot for a hash: the memory of an earlier eviction, in 32 bits. 0 if there is none. Hashes share slots, so
    /// the ghost may be that of another key.
    pub(crate) fn ghost(&self, hash: u32) -> u32 {
        let index = self.ghost_of(hash);
        let word = self.shard.region.load(self.shard.at + self.shard.layout.ghosts_at + (index / 2) as usize);
        (word >> (index % 2 * 32)) as u32
    }

    pub(crate) fn set_ghost(&self, hash: u32, ghost: u32) {
        let index = self.ghost_of(hash);
        set_half(&self.shard.region, self.shard.at + self.shard.layout.ghosts_at, index, ghost);
    }

    /// Returns the number of the ghost slot for a hash.
    fn ghost_of(&self, hash: u32) -> u32 {
        // Uses other bits of the hash than the bucket, which uses the upper ones.
        reduce(u64::from(hash.wrapping_mul(0x9e37_79b1)) << 32, self.shard.layout.ghosts)
    }

    /// Removes the oldest entries of a queue from their buckets, in one change, and from the queue. The streak must have been made
    /// under the same hold of the lock. Readers that already found these entries do not learn of it: the caller must
    /// [move their zones](Self::move_zones) before it gives any of their blocks back.
    pub(crate) fn detach_oldest(&self, streak: &Streak) {
        let victims = streak.victims();
        let Some(last) = victims.last() else { return };
        self.prefetch_neighbours(victims);
        self.change(|| {
            for victim in victims {
                let entry = self.entry(victim.block);
                self.unchain(&entry, victim.hash);
                entry.set_flag(LINKED, false);
            }
        });
        let (newest, _) = self.ends(streak.queue);
        let oldest = self.entry(last.block).newer();
        if oldest != NONE {
            self.entry(oldest).set_older(NONE);
        }
        self.set_ends(streak.queue, if oldest == NONE { NONE } else { newest }, oldest);
        let blocks: i64 = victims.iter().map(|victim| i64::from(victim.blocks)).sum();
        self.add(Self::queue_at(streak.queue) + 1, -blocks);
        self.add(AT_ENTRIES, -(victims.len() as i64));
        self.add(AT_EVICTED, streak.evicted_blocks() as i64);
    }

    /// Moves the zone versions of dead entries, so that readers learn of their death. Entries that follow each other in `gone` and
    /// share a zone need one move only.
    pub(crate) fn move_zones(&self, gone: &[Victim]) {
        let zone_at = |victim: &Victim| self.shard.layout.zone_at(victim.block);
        for neighbours in gone.chunk_by(|one, next| zone_at(one) == zone_at(next)) {
            self.move_zone(neighbours[0].block);
        }
    }

    /// Prefetches the entries that stand before the victims in their buckets: first the first entry of every bucket, then the
    /// second of every bucket, and so on. A walk through one bucket after the other would wait for memory at each step.
    fn prefetch_neighbours(&self, victims: &[Victim]) {
        let mut before = [NONE; Streak::MOST];
        for (before, victim) in before.iter_mut().zip(victims) {
            *before = self.shard.bucket(self.bucket_of(victim.hash));
        }
        for _ in 0..NEIGHBOURS_PREFETCHED {
            let is_other = |before: u32, victim: &Victim| before != victim.block && before != NONE;
            for (before, victim) in before.iter().zip(victims) {
                if is_other(*before, victim) {
                    self.entry(*before).prefetch_header();
                }
            }
            for (before, victim) in before.iter_mut().zip(victims) {
                if is_other(*before, victim) {
                    *before = self.entry(*before).bucket_next();
                }
            }
        }
    }

    /// Prefetches data that the next evictions of a queue will need. A memory access takes much longer than the work on the data.
    /// So each step is prefetched some evictions ahead: an entry's header, then its bucket, then its neighbours in the bucket.
    pub(crate) fn prefetch_next(&self, queue: Queue) {
        let (region, layout) = (self.shard.region, self.shard.layout);
        let bucket_of = |entry: &Entry<'m>| self.shard.bucket_of((entry.word(0) >> 32) as u32);
        let neighbour = |entry: &Entry<'m>| self.shard.bucket(bucket_of(entry));
        let Some(first) = self.oldest(queue) else { return };
        let second = self.entry(first.newer());
        region.prefetch(layout.block_at(self.entry(neighbour(&second)).bucket_next()));
        let third = self.entry(second.newer());
        region.prefetch(layout.block_at(neighbour(&third)));
        let fifth = self.entry(self.entry(third.newer()).newer());
        region.prefetch(self.shard.at + layout.buckets_at + (bucket_of(&fifth) / 2) as usize);
        region.prefetch(
            self.shard.at + layout.ghosts_at + (self.ghost_of((fifth.word(0) >> 32) as u32) / 2) as usize,
        );
        region.prefetch(layout.block_at(self.entry(fifth.newer()).newer()));
    }

    /// Prefetches data for the eviction of an entry, and the header of an entry further on in its queue: a memory access takes much
    /// longer than the work on the data. Entries that were stored one after the other mostly lie next to each other, so the later
    /// header is guessed from the distance in blocks.
    pub(crate) fn prefetch_eviction(&self, entry: &Entry<'m>, header: &Header) {
        let (region, layout) = (self.shard.region, self.shard.layout);
        let ahead =
            layout.block_at(entry.block.wrapping_add(header.blocks().wrapping_mul(PREFETCH_DISTANCE)));
        region.prefetch(ahead);
        region.prefetch(ahead + HEADER_WORDS - 1);
        let bucket = self.shard.bucket_of(header.hash());
        region.prefetch(self.shard.at + layout.buckets_at + (bucket / 2) as usize);
        let ghost = self.ghost_of(header.hash());
        region.prefetch(self.shard.at + layout.ghosts_at + (ghost / 2) as usize);
    }
}
