//! The eviction policy: S3-FIFO (Yang and others, SOSP 2023), with one bit of history for each entry, a small queue that grows when
//! it is too small, and weights.
//!
//! New entries enter a *small* queue with a twentieth of the blocks. Entries that no reader asks for are evicted at the end of the
//! small queue, so a scan does not displace other entries. Entries that a reader asked for move from there to the *main* queue. If
//! an entry at the end of the main queue was asked for, it gets another round. The policy remembers for a while the hashes of valid
//! entries that were evicted from the small queue, as *ghosts*: if such a key returns, its entry goes directly to the main queue.
//!
//! If many recently evicted keys return, the workload has changed, and the small queue is too short: new entries leave it before a
//! reader asks for them again. The small queue then grows to two fifths of the blocks, and shrinks again slowly.
//!
//! Small and expensive entries are worth more for each byte (`weight.rs`). The policy uses the *weight* of an entry twice:
//! - An entry that is heavier than the average gets further rounds in the main queue without being asked for: four for each
//!   doubling of the weight, and at most fifteen. They are counted in its header, and each visit renews them. This is the
//!   *inflation* of GreedyDual-Size-Frequency without a sorted list: an entry that no reader asks for leaves in the end, however
//!   heavy it is.
//! - The time for which an evicted key is remembered is proportional to the weight. So a small entry that returns after a long time
//!   still goes to the main queue, and a large one must return soon.
//!
//! A light entry gets another round after a visit, like any other entry. If all entries are alike, all weights are 0.
//!
//! While more than a tenth of the shard is free, all new entries enter the main queue. Otherwise all early entries would be in the
//! small queue, and a loop over more keys than fit in the tier would wash them out.
//!
//! A hit sets one bit, if the bit is clear. All other work of the policy happens under the shard's lock.

use super::entry::{Entry, Header, ROUNDS_MAX};
use super::guard::Guard;
use super::streak::{Queue, Streak};
use super::weight::{Averages, in_steps, log};
use crate::figures::Counter;
use crate::host::Host;
use crate::value::Kind;

/// The inverse of a share: while more than a tenth of the blocks is free, all new entries go to the main queue.
const OPEN_SHARE: u64 = 10;
/// How many entries one search for a victim may give another round. If all of them were asked for, the next entry is evicted
/// anyway: a bounded time under the lock is worth more than the best victim.
const SECOND_CHANCES: u32 = 64;
/// How many rounds an entry gets without being asked for, for each doubling of its weight.
const ROUNDS_PER_DOUBLING: i64 = 4;

/// Puts a new entry, which must be in no queue, into the queue that the policy chooses.
pub(super) fn admit<'m, H: Host>(shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header) {
    // The previous entry at this block may have left its visited bit set.
    shard.take_visit(entry);
    // While the shard has much free space, no entry has to be protected from eviction.
    let open = u64::from(shard.free_blocks()) * OPEN_SHARE > u64::from(shard.capacity());
    let weight = shard.averages().weight(header);
    let to_main = open || {
        let (age, entries) = (ghost_age(shard, header.hash()), shard.entries());
        let mut share = SmallShare::of(shard.policy_state());
        share.learn(age.is_some_and(|age| age <= entries / 2), entries);
        shard.set_policy_state(share.state());
        age.is_some_and(|age| is_recent(age, entries, weight))
    };
    if to_main {
        promise(entry, header, rounds_for(weight));
    }
    shard.enqueue(if to_main { Queue::Main } else { Queue::Small }, entry, header);
}

/// Returns how many rounds an entry of this weight gets without being asked for.
fn rounds_for(weight: i64) -> u32 {
    in_steps(weight, ROUNDS_PER_DOUBLING).clamp(0, ROUNDS_MAX.into()) as u32
}

/// Writes into an entry how many rounds it has left.
fn promise(entry: &Entry<'_>, header: &Header, rounds: u32) {
    if header.rounds() != rounds {
        entry.set_rounds(rounds);
    }
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
    let mut averages = shard.averages();
    let first = first_victim(shard, share, &mut averages, &mut useless);
    let Some((queue, mut entry, mut why)) = first else {
        return Streak::of(Queue::Small);
    };
    let mut streak = Streak::of(queue);
    let (mut small, mut main) = (shard.queued(Queue::Small), shard.queued(Queue::Main));
    let mut left = wanted;
    loop {
        let header = entry.header();
        shard.prefetch_eviction(&entry, &header);
        averages.learn(&header);
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
        let stays = header.kind() == Kind::COUNTER || header.rounds() > 0 || shard.is_visited(&next);
        if why.is_none() && stays {
            // This entry deserves another round. The next search that reaches it gives it one.
            break;
        }
        entry = next;
    }
    shard.set_averages(averages);
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
    averages: &mut Averages,
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
        let rounds = if header.kind() == Kind::COUNTER {
            Some(0)
        } else if shard.take_visit(&entry) {
            Some(rounds_for(averages.weight(&header)))
        } else {
            header.rounds().checked_sub(1)
        };
        if header.kind() == Kind::COUNTER && round == SECOND_CHANCES {
            // The search met counters only. A new entry is evicted before a counter.
            let other = shard.oldest(Queue::Small);
            if let Some(other) = other.filter(|other| other.header().kind() != Kind::COUNTER) {
                return Some((Queue::Small, other, None));
            }
        }
        let Some(rounds) = rounds.filter(|_| round < SECOND_CHANCES) else {
            return Some((queue, entry, None));
        };
        if header.kind() != Kind::COUNTER {
            averages.learn(&header);
        }
        promise(&entry, &header, rounds);
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

/// Returns how many entries were evicted since an entry with this hash left the small queue, if that is remembered. The count has
/// 16 bits, so it begins again after 65 536 evictions.
fn ghost_age<H: Host>(shard: &Guard<'_, H>, hash: u32) -> Option<u64> {
    let ghost = shard.ghost(hash);
    let age = (shard.evicted() as u16).wrapping_sub(ghost as u16);
    ((ghost >> 16) as u16 == print(hash)).then_some(age.into())
}

/// Returns whether an entry of this weight returns soon enough after its eviction to go to the main queue. For an average entry,
/// this is the time in which as many entries are evicted as the shard holds.
fn is_recent(age: u64, entries: u64, weight: i64) -> bool {
    i64::from(log(age)) <= i64::from(log(entries)).saturating_add(weight)
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
        for weight in [i64::MIN, i64::MAX] {
            assert!(rounds_for(weight) <= ROUNDS_MAX);
            is_recent(u64::MAX, u64::MAX, weight);
        }
    }

    #[test]
    fn each_doubling_of_the_weight_gives_four_rounds_and_twice_the_time() {
        let doubling = i64::from(log(2)) - i64::from(log(1));
        let rounds = [-1, 0, 1, 2, 3, 4, 100].map(|times| rounds_for(times * doubling));
        assert_eq!(rounds, [0, 0, 4, 8, 12, 15, 15]);
        for (times, most) in [(-2, 256), (-1, 512), (0, 1024), (1, 2048), (3, 8192)] {
            let weight = times * doubling;
            assert!(is_recent(most, 1024, weight) && !is_recent(most + 1, 1024, weight), "{times}");
        }
    }
}
