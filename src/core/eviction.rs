//! Who has to go when there is no room: S3-FIFO (Yang and others, SOSP 2023), behind one small trait.
//!
//! New entries enter a *small* queue of a tenth of the blocks. What nobody asks for there leaves at its end, so a scan
//! passes through without touching the rest; what was asked for moves to the *main* queue. An entry at the
//! end of the main queue that was asked for gets another round. What left the small queue is remembered for
//! a while: if it comes back, it goes to the main queue at once.
//!
//! While the shard is far from full everybody enters the main queue, so that what came first is not all in the small one,
//! where a loop longer than the tier would wash it out.
//!
//! A hit sets one bit, if it is clear. Everything here happens under the shard's lock.

use crate::Host;
use crate::entry::{Entry, Header, IN_MAIN, Kind};
use crate::shard::Guard;

/// The queues that entries wait in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Queue {
    Small,
    Main,
}

/// A policy decides the order in which entries leave. It keeps its state in the shard.
pub(crate) trait Policy {
    /// Gives a new entry its place.
    fn admit<'m, H: Host>(&self, shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header);

    /// The entry that is to go next, still in its place. `dispensable` says that an entry is of no use any more: such a
    /// one gets no other round. None if there is no entry, or none was found in a bounded time.
    fn victim<'m, H: Host>(
        &self,
        shard: &Guard<'m, H>,
        dispensable: impl FnMut(&Entry<'m>, &Header) -> bool,
    ) -> Option<Entry<'m>>;
}

/// S3-FIFO with one bit of history for each entry.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct S3Fifo;

/// The small queue's share of the blocks in both is one in this many.
const SMALL_SHARE: u64 = 10;
/// How many entries one search for a victim may give another round. With every entry asked for, the one after that many
/// goes: a bounded time under the lock is worth more than the perfect victim.
const SECOND_CHANCES: u32 = 64;

impl Policy for S3Fifo {
    fn admit<'m, H: Host>(&self, shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header) {
        // The blocks' last owner may have left its mark.
        shard.take_visit(entry);
        // As long as there is room for all, the main queue takes everybody: nobody has to be protected from anybody.
        let open = u64::from(shard.free_blocks()) * SMALL_SHARE > u64::from(shard.capacity());
        let queue = if open || remembered(shard, header.hash()) { Queue::Main } else { Queue::Small };
        shard.enqueue(queue, entry, header);
    }

    fn victim<'m, H: Host>(
        &self,
        shard: &Guard<'m, H>,
        mut dispensable: impl FnMut(&Entry<'m>, &Header) -> bool,
    ) -> Option<Entry<'m>> {
        for round in 0..=SECOND_CHANCES {
            let (small, main) = (shard.queued(Queue::Small), shard.queued(Queue::Main));
            let from_small = small.saturating_mul(SMALL_SHARE) >= small.saturating_add(main);
            let entry = if from_small {
                shard.oldest(Queue::Small).or_else(|| shard.oldest(Queue::Main))
            } else {
                shard.oldest(Queue::Main).or_else(|| shard.oldest(Queue::Small))
            }?;
            let header = entry.header();
            if dispensable(&entry, &header) {
                return Some(entry);
            }
            let spared = header.kind() == Kind::COUNTER || shard.take_visit(&entry);
            if !spared || round == SECOND_CHANCES {
                if entry.word(4) & IN_MAIN == 0 {
                    remember(shard, header.hash());
                }
                return Some(entry);
            }
            shard.dequeue(&entry, &header);
            shard.enqueue(Queue::Main, &entry, &header);
        }
        None
    }
}

/// A ghost is 16 bits of the hash and 16 bits of when, counted in evictions. Never 0.
fn remember<H: Host>(shard: &Guard<'_, H>, hash: u32) {
    shard.set_ghost(hash, u32::from(print(hash)) << 16 | u32::from(shard.evicted() as u16));
}

/// Whether an entry with this hash left the small queue not longer ago than there are entries now.
fn remembered<H: Host>(shard: &Guard<'_, H>, hash: u32) -> bool {
    let ghost = shard.ghost(hash);
    let ago = (shard.evicted() as u16).wrapping_sub(ghost as u16);
    (ghost >> 16) as u16 == print(hash) && u64::from(ago) <= shard.entries()
}

fn print(hash: u32) -> u16 {
    (hash as u16) | 1
}
