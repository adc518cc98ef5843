//! The eviction policy: S3-FIFO (Yang and others, SOSP 2023), with one bit of history for each entry, a small queue that grows when
//! it is too small, and weights.
//!
//! `allocation.rs` asks this file for entries to evict when no block is free, and `publishing.rs` and `promoting.rs` for the queue
//! of a new entry. Each *shard*, a part of the tier with a lock of its own, has two eviction queues and evicts for itself.
//!
//! In a full shard, new entries enter a *small* queue with a twentieth of the blocks. Entries that no reader asks for are evicted
//! at the end of the small queue, so a scan does not displace other entries. Entries that a reader asked for move from that end to
//! the *main* queue. If an entry at the end of the main queue was asked for, it gets another round. The policy remembers for a
//! while the hashes of valid entries that were evicted from the small queue, as *ghosts*: if such a key returns, its entry goes
//! directly to the main queue.
//!
//! If more than a fifth of the new entries are of recently evicted keys, the workload has changed, and the small queue is too
//! short: new entries leave it before a reader asks for them again. The small queue then grows to two fifths of the blocks, and
//! shrinks again slowly.
//!
//! Small and expensive entries are worth more for each byte (`weight.rs`). The policy uses the *weight* of an entry twice:
//! - An entry that is heavier than the average gets further rounds in the main queue without being asked for: four for each
//!   doubling of the weight, and at most fifteen. They are counted in its header, and each visit renews them. This is the
//!   *inflation* of GreedyDual-Size-Frequency without a sorted list: an entry that no reader asks for leaves in the end, however
//!   heavy it is.
//! - The time for which an evicted key is remembered is proportional to the weight. So a small entry that returns after a long time
//!   still goes to the main queue.
//!
//! A light entry gets another round after a visit, like any other entry. If all entries are alike, all weights are 0.
//!
//! While a shard fills, all new entries enter the main queue. Otherwise all early entries would be in the small queue, and a loop
//! over more keys than fit in the tier would wash them out. A shard begins to fill when more than half of it is free. It is full
//! when less than a tenth is free, or at the first eviction: if values differ in size, the holes between the entries of a full
//! shard take more than a tenth.
//!
//! A *turn*, the unit of long times here, is the time in which a shard evicts as many blocks as it has. Only blocks of entries that
//! are still of use count. A hit sets one bit, if the bit is clear. All other work of the policy happens under the shard's lock.

use super::entry::Entry;
use super::guard::Guard;
use super::header::{Header, ROUNDS_MAX};
use super::streak::{Queue, Streak};
use super::weight::{Averages, DOUBLING, in_steps, log};
use crate::figures::Counter;
use crate::host::Host;
use crate::value::Kind;

/// How many entries one search for a victim may give another round. If all of them deserve one, the next entry is evicted anyway: a
/// bounded time under the lock is worth more than the best victim.
const SECOND_CHANCES: u32 = 64;
/// How many rounds an entry gets without being asked for, for each doubling of its weight.
const ROUNDS_PER_DOUBLING: i64 = 4;

/// Puts an entry that is new, or that was brought back from a table (`promoting.rs`), into the queue that the policy chooses. The
/// entry must be in no queue.
pub(super) fn admit<'m, H: Host>(shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header) {
    // The previous entry at this block may have left its visited bit set.
    shard.take_visit(entry);
    let weight = shard.averages().weight(header);
    let mut share = SmallShare::of(shard.policy_state());
    share.full = is_full(share.full, shard.free_blocks(), shard.capacity());
    let to_main = !share.full || {
        let age = ghost_age(shard, header.hash());
        let turn = u64::from(shard.capacity());
        share.learn(age.is_some_and(|age| age <= turn / 2), shard.entries());
        let stay = MainLap::of(shard.main_lap()).duration(shard.queued(Queue::Main));
        age.is_some_and(|age| is_recent(age, turn, stay, weight))
    };
    shard.set_policy_state(share.state());
    set_rounds_left(entry, header, if to_main { rounds_for(weight) } else { 0 });
    shard.enqueue(if to_main { Queue::Main } else { Queue::Small }, entry, header);
}

/// Returns true if a shard is full and false if it still fills. `before` is the last answer.
fn is_full(before: bool, free: u32, capacity: u32) -> bool {
    let (free, capacity) = (u64::from(free), u64::from(capacity));
    free * 10 < capacity || before && free * 2 <= capacity
}

/// Returns how many rounds an entry of this weight gets without being asked for.
fn rounds_for(weight: i64) -> u32 {
    in_steps(weight, ROUNDS_PER_DOUBLING).clamp(0, ROUNDS_MAX.into()) as u32
}

/// Writes into an entry how many rounds it has left.
fn set_rounds_left(entry: &Entry<'_>, header: &Header, rounds: u32) {
    if header.rounds() != rounds {
        entry.set_rounds(rounds);
    }
}

/// Returns the next entries to evict: the oldest entries of one queue. The search stops when the entries have `wanted` blocks
/// together, or when there are `most` of them. It also stops when it is the other queue's turn, and at an entry that deserves
/// another round. `useless` returns the reason if an entry is of no use any more; such an entry gets no other round. `most` must be
/// at least 1. The streak is empty only if the shard has no entry.
///
/// The entries stay linked, but their ghosts are stored already. So the caller must evict all of them under the same hold of the
/// lock.
pub(super) fn victims<'m, H: Host>(
    shard: &Guard<'m, H>,
    wanted: u32,
    most: usize,
    mut useless: impl FnMut(&Entry<'m>, &Header) -> Option<Counter>,
) -> Streak {
    let share = SmallShare { full: true, ..SmallShare::of(shard.policy_state()) };
    shard.set_policy_state(share.state());
    let mut averages = shard.averages();
    let mut lap = MainLap::of(shard.main_lap());
    let first = first_victim(shard, share, &mut averages, &mut lap, &mut useless);
    let Some((queue, mut entry, mut why)) = first else {
        return Streak::of(Queue::Small);
    };
    let mut streak = Streak::of(queue);
    let (mut small, mut main) = (shard.queued(Queue::Small), shard.queued(Queue::Main));
    let mut left = wanted;
    loop {
        let header = entry.header();
        shard.prefetch_eviction(&entry, &header);
        averages.learn(&header, shard.capacity());
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
    if queue == Queue::Main {
        lap.pass(shard.queued(Queue::Main).saturating_sub(main));
    }
    lap.evict(streak.evicted_blocks(), shard.capacity());
    shard.set_main_lap(lap.state());
    if queue == Queue::Small {
        let mut evicted = shard.evicted_blocks();
        for victim in streak.victims().iter().filter(|victim| victim.why == Counter::Evicted) {
            remember(shard, victim.hash, evicted);
            evicted = evicted.wrapping_add(victim.blocks.into());
        }
    }
    streak
}

/// Returns the entry to evict first, with its queue, and with the reason if it is of no use: the oldest entry of its queue, after
/// all older entries that deserve another round have got it. A counter always deserves one. It is evicted only if the search ends
/// at it and the oldest entry of the small queue is a counter, too, or the small queue is empty. Returns None if the shard has no
/// entry.
fn first_victim<'m, H: Host>(
    shard: &Guard<'m, H>,
    share: SmallShare,
    averages: &mut Averages,
    lap: &mut MainLap,
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
            // The search ends at a counter. An entry of the small queue is evicted before it.
            let other = shard.oldest(Queue::Small);
            if let Some(other) = other.filter(|other| other.header().kind() != Kind::COUNTER) {
                return Some((Queue::Small, other, None));
            }
        }
        let Some(rounds) = rounds.filter(|_| round < SECOND_CHANCES) else {
            return Some((queue, entry, None));
        };
        if header.kind() != Kind::COUNTER {
            averages.learn(&header, shard.capacity());
        }
        if queue == Queue::Main {
            lap.pass(header.blocks().into());
        }
        set_rounds_left(&entry, &header, rounds);
        shard.dequeue(&entry, &header);
        shard.enqueue(Queue::Main, &entry, &header);
    }
    None
}

/// The share of the blocks that the small queue may take, and the measure from which it follows: how many of the new entries
/// *return*, that is, were evicted shortly before. Both are fractions of [`WHOLE`]; the state fits into one word of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SmallShare {
    /// The share of those recent new entries whose keys had been evicted shortly before: within half a turn.
    returning: u32,
    /// The share of the small queue beyond [`SMALL_LEAST`].
    extra: u32,
    /// Whether the shard has been full since it last began to fill, see [`is_full`].
    full: bool,
}

/// The fraction 1. `extra` is always less, so bit 31 of its half of the word is free for `full`.
const WHOLE: u32 = 1 << 31;
/// The least share of the small queue: a twentieth.
const SMALL_LEAST: u32 = WHOLE / 20;
/// The greatest share of the small queue: two fifths.
const SMALL_MOST: u32 = WHOLE / 5 * 2;
/// If more than this returns, the small queue is too short. A workload with skewed popularity stays below it, however strong the
/// skew is.
const MANY_RETURN: u32 = WHOLE / 5;

/// The least number of recent entries that the measure covers, as a power of two.
const LATELY_LEAST: u32 = 6;

impl SmallShare {
    fn of(state: u64) -> Self {
        Self {
            returning: (state >> 32) as u32,
            extra: state as u32 & !WHOLE,
            full: state as u32 & WHOLE != 0,
        }
    }

    fn state(self) -> u64 {
        u64::from(self.returning) << 32 | u64::from(self.full) << 31 | u64::from(self.extra)
    }

    /// Records one more new entry; `returns` tells whether its key had been evicted shortly before, and `entries` is the number of
    /// entries in the shard. The measure covers about as many recent entries as an eighth of the entries in the shard, but at least
    /// 64: a shard with few large entries would take chance for a change. A grown small queue decays over about twice as many new
    /// entries as there are entries.
    fn learn(&mut self, returns: bool, entries: u64) {
        let turnover = entries.max(1).ilog2().min(30);
        let lately = turnover.saturating_sub(3).max(LATELY_LEAST);
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

    /// Returns the queue that the next victim is taken from. `small` and `main` are the blocks in the queues.
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

/// How fast the main queue moves: numbers of blocks, counted over the last turns (see the head of this file).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct MainLap {
    /// The blocks of entries that have reached the end of the main queue, whether they were evicted or got another round.
    passed: u32,
    /// The blocks of entries that were evicted from both queues although they were still of use.
    evicted: u32,
}

/// When `evicted` reaches this many turns, both numbers are halved, so that they tell of the last turns only.
const LAP_TURNS: u32 = 4;

impl MainLap {
    fn of(state: u64) -> Self {
        Self { passed: (state >> 32) as u32, evicted: state as u32 }
    }

    fn state(self) -> u64 {
        u64::from(self.passed) << 32 | u64::from(self.evicted)
    }

    /// Notes that entries with this number of blocks have reached the end of the main queue.
    fn pass(&mut self, blocks: u64) {
        self.passed = self.passed.saturating_add(blocks.try_into().unwrap_or(u32::MAX));
    }

    /// Notes that valid entries with this number of blocks were evicted.
    fn evict(&mut self, blocks: u64, capacity: u32) {
        self.evicted = self.evicted.saturating_add(blocks.try_into().unwrap_or(u32::MAX));
        if self.evicted >= capacity.saturating_mul(LAP_TURNS) {
            *self = Self { passed: self.passed / 2, evicted: self.evicted / 2 };
        }
    }

    /// Returns how long an entry takes from the begin of the main queue to its end, in evicted blocks, as a [`log`]. `main` is the
    /// number of blocks in the main queue.
    fn duration(self, main: u64) -> i64 {
        i64::from(log(main)) + i64::from(log(self.evicted.into())) - i64::from(log(self.passed.into()))
    }
}

/// Returns the binary logarithm of the unit of time, in evicted blocks. Time is counted in blocks and not in entries, because the
/// entries that stay are smaller than those that leave. A turn has 1 024 to 2 047 units, so the 16 bits of a time begin again after
/// 32 to 64 turns. In a shard with fewer than 1 024 blocks, the unit is one block, and a turn has fewer units.
fn log_of_unit(capacity: u32) -> u32 {
    capacity.checked_ilog2().unwrap_or(0).saturating_sub(10)
}

/// Stores a ghost: 16 bits of the hash, and 16 bits of the time, which is `evicted_blocks` in units. A ghost is never 0.
fn remember<H: Host>(shard: &Guard<'_, H>, hash: u32, evicted_blocks: u64) {
    let time = (evicted_blocks >> log_of_unit(shard.capacity())) as u16;
    shard.set_ghost(hash, u32::from(print(hash)) << 16 | u32::from(time));
}

/// Returns how long ago a valid entry with this hash was evicted from the small queue, in evicted blocks, if that is remembered.
/// The answer may be that of another key with the same bits, or too short by a multiple of the time in which the 16 bits begin
/// again.
fn ghost_age<H: Host>(shard: &Guard<'_, H>, hash: u32) -> Option<u64> {
    let (ghost, unit) = (shard.ghost(hash), log_of_unit(shard.capacity()));
    let age = ((shard.evicted_blocks() >> unit) as u16).wrapping_sub(ghost as u16);
    ((ghost >> 16) as u16 == print(hash)).then_some(u64::from(age) << unit)
}

/// Returns whether an entry of this weight returns soon enough after its eviction to go to the main queue, where it will stay for
/// at least `stay`, a logarithm. An average entry must return within half of this time: an entry that returns later will hardly be
/// read before it leaves the main queue. But it is always soon enough to return within a turn, because a hot set that has moved
/// makes the main queue fast for a while. A heavier entry has longer in both cases: twice the time for each doubling.
fn is_recent(age: u64, turn: u64, stay: i64, weight: i64) -> bool {
    i64::from(log(age)) <= (stay - DOUBLING).max(log(turn).into()).saturating_add(weight)
}

/// Returns the bits of the hash that a ghost keeps. They are never all 0, because a ghost of 0 means "no ghost".
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

    /// The small queue must stay small while a tenth of the new entries return, grow to its most when two fifths do, and shrink
    /// slowly when none does. It stops shrinking when `extra` is less than 1 024, because then a 1 024th of it is 0.
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
            assert_eq!(share.state(), state);
            for entries in [0, 1, u64::MAX] {
                share.learn(true, entries);
                share.learn(false, entries);
                share.is_reached(u64::MAX, u64::MAX);
            }
        }
        for weight in [i64::MIN, i64::MAX] {
            assert!(rounds_for(weight) <= ROUNDS_MAX);
            is_recent(u64::MAX, u64::MAX, 0, weight);
        }
    }

    /// The unit must fit the shard. If a turn had more units, the 16 bits of a time would begin again within fewer than 32 turns.
    #[test]
    fn a_turn_has_about_a_thousand_units() {
        for capacity in [1024, 1025, 2047, 2048, 131_072, u32::MAX] {
            let turn = capacity >> log_of_unit(capacity);
            assert!((1024..2048).contains(&turn), "{capacity}: {turn}");
        }
        assert_eq!([0, 1, 128].map(log_of_unit), [0; 3]);
    }

    /// The duration in the main queue must follow from how fast the queue moves. For 8 evicted blocks, 2 pass the end of the main
    /// queue here. So 800 blocks there pass while 3 200 are evicted, which is two doublings more than 800. When nothing passes any
    /// more, the duration must grow.
    #[test]
    fn an_entry_stays_in_the_main_queue_until_all_others_have_passed() {
        let mut lap = MainLap::of(0);
        let stay = |lap: MainLap| (lap.duration(800) - i64::from(log(800))) as f64 / DOUBLING as f64;
        assert_eq!(stay(lap), 0.0);
        for _ in 0..1000 {
            // One of eight blocks leaves from the main queue, and as many get another round.
            lap.evict(8, 1000);
            lap.pass(2);
            assert_eq!(MainLap::of(lap.state()), lap);
        }
        assert!((stay(lap) - 2.0).abs() < 0.1, "{}", stay(lap));
        (0..1000).for_each(|_| lap.evict(8, 1000));
        assert!(stay(lap) > 3.0, "{}", stay(lap));
    }

    /// The state of the lap may be damaged, too. No value of it may cause an overflow.
    #[test]
    fn any_lap_is_bearable() {
        for state in [u64::MAX, u64::from(u32::MAX), !u64::from(u32::MAX)] {
            let mut lap = MainLap::of(state);
            lap.pass(u64::MAX);
            lap.evict(u64::MAX, u32::MAX);
            lap.evict(u64::MAX, 0);
            is_recent(u64::MAX, u64::MAX, lap.duration(u64::MAX), i64::MIN);
            is_recent(u64::MAX, u64::MAX, lap.duration(0), i64::MAX);
        }
    }

    /// The rule in the head of this file, with its limits of 0 and 15 rounds. The times are those after which an entry still counts
    /// as recent, if an average entry may take 2 048 blocks.
    #[test]
    fn each_doubling_of_the_weight_gives_four_rounds_and_twice_the_time() {
        let doubling = i64::from(log(2)) - i64::from(log(1));
        let rounds = [-1, 0, 1, 2, 3, 4, 100].map(|times| rounds_for(times * doubling));
        assert_eq!(rounds, [0, 0, 4, 8, 12, 15, 15]);
        let is_recent = |age, stay, times| is_recent(age, 1024, log(stay).into(), times * doubling);
        for (times, most) in [(-2, 512), (-1, 1024), (0, 2048), (1, 4096), (3, 16_384)] {
            assert!(is_recent(most, 4096, times) && !is_recent(most + 1, 4096, times), "{times}");
        }
        assert!(is_recent(1024, 10, 0) && !is_recent(1025, 10, 0), "an average entry has a turn at least");
    }
}
