//! The eviction policy: S3-FIFO (Yang and others, SOSP 2023), with one bit of history for each entry, and a small queue
//! that grows when it is too small.
//!
//! New entries enter a *small* queue with a twentieth of the blocks. Entries that no reader asks for are evicted at the end of the
//! small queue, so a scan does not displace other entries. Entries that a reader asked for move from there to the *main* queue. If
//! an entry at the end of the main queue was asked for, it gets another round. The policy remembers for a while the hashes of valid
//! entries that were evicted from the small queue, as *ghosts*: if such a key returns, its entry goes directly to the main queue.
//!
//! If many recently evicted keys return, the workload has changed, and the small queue is too short: new entries leave it before a
//! reader asks for them again. The small queue then grows to two fifths of the blocks, and shrinks again slowly.
//!
//! While more than a tenth of the shard is free, all new entries enter the main queue. Otherwise all early entries would be in the
//! small queue, and a loop over more keys than fit in the tier would wash them out.
//!
//! A hit sets one bit, if the bit is clear. All other work of the policy happens under the shard's lock.

use super::entry::{Entry, Header};
use super::guard::Guard;
use super::streak::{Queue, Streak};
use crate::figures::Counter;
use crate::host::Host;
use crate::value::Kind;

/// The inverse of a share: while more than a tenth of the blocks is free, all new entries go to the main queue.
const OPEN_SHARE: u64 = 10;
/// How many entries one search for a victim may give another round. If all of them were asked for, the next entry is evicted
/// anyway: a bounded time under the lock is worth more than the best victim.
const SECOND_CHANCES: u32 = 64;

/// Puts a new entry, which must be in no queue, into the queue that the policy chooses.
pub(super) fn admit<'m, H: Host>(shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header) {
    // The previous entry at this block may have left its visited bit set.
    shard.take_visit(entry);
    // While the shard has much free space, no entry has to be protected from eviction.
    let open = u64::from(shard.free_blocks()) * OPEN_SHARE > u64::from(shard.capacity());
    let to_main = open || {
        let returns = remembered(shard, header.hash());
        let mut share = SmallShare::of(shard.policy_state());
        share.learn(returns, shard.entries());
        shard.set_policy_state(share.state());
        returns
    };
    shard.enqueue(if to_main { Queue::Main } else { Queue::Small }, entry, header);
}

/// Returns the next entries to evict: the oldest entries of one queue. The search stops when the entries have `wanted` blocks
/// together, when there are `most` of them, or at an entry that deserves another round. `useless` returns the reason if an entry is
/// of no use any more; such an entry gets no other round. The streak is empty if the shard has no entry.
///
/// The entries stay linked, but their ghosts are stored already. So the caller must evict all of them under the same hold of the
/// lock.
pub(super) fn victims<'m, H: Host>(
    shard: &Guard<'m, H>,
    wanted: u32,
    most: usize,
    mut useless: impl FnMut(&Entry<'m>, &Header) -> Option<Counter>,
) -> Streak {
    let share = SmallShare::of(shard.policy_state());
    let Some((queue, mut entry, mut why)) = first_victim(shard, share, &mut useless) else {
        return Streak::of(Queue::Small);
    };
    let mut streak = Streak::of(queue);
    let (mut small, mut main) = (shard.queued(Queue::Small), shard.queued(Queue::Main));
    let mut left = wanted;
    loop {
        let header = entry.header();
        shard.prefetch_eviction(&entry, &header);
        let more = streak.push(&entry, &header, why, most);
        left = left.saturating_sub(header.blocks());
        let queued = if queue == Queue::Small { &mut small } else { &mut main };
        *queued = queued.saturating_sub(header.blocks().into());
        if !more || left == 0 || share.turn(small, main) != queue {
            break;
        }
        let Some(next) = shard.newer(&entry) else { break };
        let header = next.header();
        why = useless(&next, &header);
        if why.is_none() && (header.kind() == Kind::COUNTER || shard.is_visited(&next)) {
            // This entry deserves another round. The next search that reaches it gives it one.
            break;
        }
        entry = next;
    }
    if queue == Queue::Small {
        let mut time = shard.evicted();
        for victim in streak.victims().iter().filter(|victim| victim.why == Counter::Evicted) {
            remember(shard, victim.hash, time);
            time = time.wrapping_add(1);
        }
    }
    streak
}

/// Returns the entry to evict first: the oldest of its queue, after all older entries that deserve another round have got it.
fn first_victim<'m, H: Host>(
    shard: &Guard<'m, H>,
    share: SmallShare,
    useless: &mut impl FnMut(&Entry<'m>, &Header) -> Option<Counter>,
) -> Option<(Queue, Entry<'m>, Option<Counter>)> {
    for round in 0..=SECOND_CHANCES {
        let turn = share.turn(shard.queued(Queue::Small), shard.queued(Queue::Main));
        let oldest = |queue| shard.oldest(queue).map(|entry| (queue, entry));
        let (queue, entry) = oldest(turn).or_else(|| oldest(turn.other()))?;
        let header = entry.header();
        let why = useless(&entry, &header);
        if why.is_some() {
            return Some((queue, entry, why));
        }
        let spared = header.kind() == Kind::COUNTER || shard.take_visit(&entry);
        if header.kind() == Kind::COUNTER && round == SECOND_CHANCES {
            // The search met counters only. A new entry is evicted before a counter.
            let other = shard.oldest(Queue::Small);
            if let Some(other) = other.filter(|other| other.header().kind() != Kind::COUNTER) {
                return Some((Queue::Small, other, None));
            }
        }
        if !spared || round == SECOND_CHANCES {
            return Some((queue, entry, None));
        }
        shard.dequeue(&entry, &header);
        shard.enqueue(Queue::Main, &entry, &header);
    }
    None
}

/// The share of both queues that the small queue may take, and the measure from which it follows. Both are fractions of [`WHOLE`];
/// the state fits into one word of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SmallShare {
    /// The share of those recent new entries whose keys had been evicted shortly before.
    returning: u32,
    /// The share of the small queue beyond [`SMALL_LEAST`].
    extra: u32,
}

const WHOLE: u32 = 1 << 31;
/// The least and the greatest share of the small queue: a twentieth, and two fifths.
const SMALL_LEAST: u32 = WHOLE / 20;
const SMALL_MOST: u32 = WHOLE / 5 * 2;
/// If more than this returns, the small queue is too short. A workload with skewed popularity stays below it, however strong the
/// skew is.
const MANY_RETURN: u32 = WHOLE / 5;

impl SmallShare {
    fn of(state: u64) -> Self {
        Self { returning: (state >> 32) as u32, extra: state as u32 }
    }

    fn state(self) -> u64 {
        u64::from(self.returning) << 32 | u64::from(self.extra)
    }

    /// Records one more new entry. The measure covers about as many recent entries as an eighth of the entries in the shard. A
    /// grown small queue decays over about twice as many as there are entries.
    fn learn(&mut self, returns: bool, entries: u64) {
        let turnover = entries.max(1).ilog2().min(30);
        let lately = turnover.saturating_sub(3);
        self.returning = self.returning.min(WHOLE);
        self.returning -= self.returning >> lately;
        if returns {
            self.returning += WHOLE >> lately;
        }
        if self.returning > MANY_RETURN {
            self.extra = SMALL_MOST - SMALL_LEAST;
        } else {
            self.extra -= self.extra >> (turnover + 1);
        }
    }

    /// Returns the queue that the next victim is taken from.
    fn turn(self, small: u64, main: u64) -> Queue {
        if self.is_reached(small, main) { Queue::Small } else { Queue::Main }
    }

    /// Returns whether the small queue has its share of the blocks, or more.
    fn is_reached(self, small: u64, main: u64) -> bool {
        // A shard has far fewer than 2^32 blocks. But damaged counts must not overflow either.
        let share = u64::from(SMALL_LEAST.saturating_add(self.extra));
        small.saturating_mul(WHOLE.into()) >= small.saturating_add(main).saturating_mul(share)
    }
}

/// Stores a ghost: 16 bits of the hash, and 16 bits of the time, counted in evictions. A ghost is never 0.
fn remember<H: Host>(shard: &Guard<'_, H>, hash: u32, evicted: u64) {
    shard.set_ghost(hash, u32::from(print(hash)) << 16 | u32::from(evicted as u16));
}

/// Returns whether an entry with this hash left the small queue recently: since then, at most half as many entries were evicted as
/// the shard holds. The count of evictions has 16 bits, so it begins again after 65 536 of them.
fn remembered<H: Host>(shard: &Guard<'_, H>, hash: u32) -> bool {
    let ghost = shard.ghost(hash);
    let ago = (shard.evicted() as u16).wrapping_sub(ghost as u16);
    (ghost >> 16) as u16 == print(hash) && u64::from(ago) <= shard.entries() / 2
}

/// Returns the bits of the hash that a ghost keeps. They are never all 0, because 0 means "no ghost".
fn print(hash: u32) -> u16 {
    (hash as u16) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the share after `times` new entries in a shard of 1 000 entries.
    fn after(returns: impl Fn(u32) -> bool, times: u32, from: SmallShare) -> SmallShare {
        let mut share = from;
        (0..times).for_each(|time| share.learn(returns(time), 1_000));
        share
    }

    #[test]
    fn the_small_queue_grows_when_many_return_and_shrinks_slowly() {
        let least = SmallShare::of(0);
        // One of ten returns, as with skewed popularity.
        assert_eq!(after(|time| time % 10 == 0, 10_000, least).extra, 0);
        // Two of five return.
        let most = after(|time| time % 5 < 2, 1_000, least);
        assert_eq!(most.extra, SMALL_MOST - SMALL_LEAST);
        assert!(most.is_reached(45, 55) && !most.is_reached(35, 65));
        let soon = after(|_| false, 500, most);
        assert!(soon.extra > most.extra / 2, "it shrinks too fast");
        assert_eq!(after(|_| false, 100_000, most).extra >> 11, 0, "it does not shrink");
        assert!(least.is_reached(6, 94) && !least.is_reached(4, 96));
    }

    /// The state may be damaged. No value of it may cause an overflow, which panics in tests.
    #[test]
    fn any_state_is_bearable() {
        for state in [u64::MAX, u64::from(u32::MAX), !u64::from(u32::MAX)] {
            let mut share = SmallShare::of(state);
            for entries in [0, 1, u64::MAX] {
                share.learn(true, entries);
                share.learn(false, entries);
                share.is_reached(u64::MAX, u64::MAX);
            }
        }
    }
}
