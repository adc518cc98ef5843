//! Who has to go when there is no room: S3-FIFO (Yang and others, SOSP 2023), behind one small trait.
//!
//! New entries enter a *small* queue of a twentieth of the blocks. What nobody asks for there leaves at its end, so a scan
//! passes through without touching the rest; what was asked for moves to the *main* queue. An entry at the
//! end of the main queue that was asked for gets another round. What left the small queue is remembered for
//! a while: if it comes back, it goes to the main queue at once.
//!
//! When many come back that have just been sent away, what is asked for has changed, and the small queue is too short for
//! anybody new to be asked for twice in it. It then grows to two fifths, and shrinks again slowly.
//!
//! While the shard is far from full everybody enters the main queue, so that what came first is not all in the small one,
//! where a loop longer than the tier would wash it out.
//!
//! A hit sets one bit, if it is clear. Everything here happens under the shard's lock.

use crate::Host;
use crate::entry::{CHAINED, Entry, Header, Kind, NONE, SPREAD};
use crate::shard::{Guard, Queue};
use crate::statistics::Counter;

/// A policy decides the order in which entries leave. It keeps its state in the shard.
pub(crate) trait Policy {
    /// Gives a new entry its place.
    fn admit<'m, H: Host>(&self, shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header);

    /// The entries that are to go next, still in their places: the oldest ones of one queue, no more than have `wanted` blocks
    /// together, and at most `most`. `useless` says why an entry is of no use any more: such a one gets no other round.
    /// None if there is no entry, or none was found in a bounded time.
    fn victims<'m, H: Host>(
        &self,
        shard: &Guard<'m, H>,
        wanted: u32,
        most: usize,
        useless: impl FnMut(&Entry<'m>, &Header) -> Option<Counter>,
    ) -> Streak;
}

/// The oldest entries of a queue, one after the other, which go together.
pub(crate) struct Streak {
    pub queue: Queue,
    places: [Victim; Self::MOST],
    count: usize,
}

/// An entry that has to go, and what of its header is needed for that.
#[derive(Clone, Copy)]
pub(crate) struct Victim {
    pub block: u32,
    pub hash: u32,
    /// Database and space.
    pub place: u64,
    pub blocks: u32,
    /// In one run, of this shard.
    pub whole: bool,
    pub spread: bool,
    pub why: Counter,
}

impl Victim {
    /// Nobody.
    pub(crate) const NONE: Self = Self {
        block: NONE,
        hash: 0,
        place: 0,
        blocks: 0,
        whole: false,
        spread: false,
        why: Counter::Evicted,
    };

    pub(crate) fn is_of_space_of(&self, other: &Self) -> bool {
        self.place == other.place
    }
}

impl Streak {
    /// What all of them need is brought near at once.
    pub(crate) const MOST: usize = 32;

    fn of(queue: Queue) -> Self {
        Self { queue, places: [Victim::NONE; Self::MOST], count: 0 }
    }

    pub(crate) fn victims(&self) -> &[Victim] {
        &self.places[..self.count]
    }

    /// How many of them were still right.
    pub(crate) fn evicted(&self) -> usize {
        self.victims().iter().filter(|victim| victim.why == Counter::Evicted).count()
    }

    /// Whether there is room for another one behind this.
    fn push(&mut self, entry: &Entry<'_>, header: &Header, useless: Option<Counter>, most: usize) -> bool {
        if let Some(place) = self.places.get_mut(self.count) {
            *place = Victim {
                block: entry.block,
                hash: header.hash(),
                place: header.place(),
                blocks: header.blocks(),
                whole: !header.has(CHAINED | SPREAD),
                spread: header.has(SPREAD),
                why: useless.unwrap_or(Counter::Evicted),
            };
            self.count += 1;
        }
        self.count < Self::MOST.min(most)
    }
}

/// S3-FIFO with one bit of history for each entry, and a small queue that grows when it is too small.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct S3Fifo;

/// As long as more than this part of the blocks is free, there is room for all.
const OPEN_SHARE: u64 = 10;
/// How many entries one search for a victim may give another round. With every entry asked for, the one after that many
/// goes: a bounded time under the lock is worth more than the perfect victim.
const SECOND_CHANCES: u32 = 64;

impl Policy for S3Fifo {
    fn admit<'m, H: Host>(&self, shard: &Guard<'m, H>, entry: &Entry<'m>, header: &Header) {
        // The blocks' last owner may have left its mark.
        shard.take_visit(entry);
        // Nobody has to be protected from anybody while there is room for all.
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

    fn victims<'m, H: Host>(
        &self,
        shard: &Guard<'m, H>,
        wanted: u32,
        most: usize,
        mut useless: impl FnMut(&Entry<'m>, &Header) -> Option<Counter>,
    ) -> Streak {
        let share = SmallShare::of(shard.policy_state());
        let Some((queue, mut entry, mut why)) = self.first_victim(shard, share, &mut useless) else {
            return Streak::of(Queue::Small);
        };
        let mut streak = Streak::of(queue);
        let (mut small, mut main) = (shard.queued(Queue::Small), shard.queued(Queue::Main));
        let mut left = wanted;
        loop {
            let header = entry.header();
            shard.foresee(&entry, &header);
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
                // It gets another round: from whoever comes to it first.
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
}

impl S3Fifo {
    /// The entry that has to go first: the oldest of its queue, when all have got another round that deserve it.
    fn first_victim<'m, H: Host>(
        &self,
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
                // So many counters side by side. What is new is lost sooner than one of them.
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
}

/// How much of both queues the small one may take, and what it follows from. In parts of [`WHOLE`]; one word of the shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SmallShare {
    /// Of those that came lately, how many had just been sent away.
    returning: u32,
    /// What the small queue has beyond [`SMALL_LEAST`].
    extra: u32,
}

const WHOLE: u32 = 1 << 31;
const SMALL_LEAST: u32 = WHOLE / 20;
const SMALL_MOST: u32 = WHOLE / 5 * 2;
/// From here on the small queue is too short. Where popularity is merely skewed, however much, less than this returns.
const MANY_RETURN: u32 = WHOLE / 5;

impl SmallShare {
    fn of(state: u64) -> Self {
        Self { returning: (state >> 32) as u32, extra: state as u32 }
    }

    fn state(self) -> u64 {
        u64::from(self.returning) << 32 | u64::from(self.extra)
    }

    /// Takes note of one more who came. What counts are the last eighth of as many as there are entries; what follows from
    /// it holds for about twice as many.
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

    /// The queue that somebody has to leave.
    fn turn(self, small: u64, main: u64) -> Queue {
        if self.is_reached(small, main) { Queue::Small } else { Queue::Main }
    }

    fn is_reached(self, small: u64, main: u64) -> bool {
        // Blocks of a shard are far fewer than 2^32; what damage makes of their numbers must not overflow all the same.
        let share = u64::from(SMALL_LEAST.saturating_add(self.extra));
        small.saturating_mul(WHOLE.into()) >= small.saturating_add(main).saturating_mul(share)
    }
}

/// A ghost is 16 bits of the hash and 16 bits of when, counted in evictions. Never 0.
fn remember<H: Host>(shard: &Guard<'_, H>, hash: u32, evicted: u64) {
    shard.set_ghost(hash, u32::from(print(hash)) << 16 | u32::from(evicted as u16));
}

/// Whether an entry with this hash left the small queue not longer ago than it takes to evict half of the entries there are.
fn remembered<H: Host>(shard: &Guard<'_, H>, hash: u32) -> bool {
    let ghost = shard.ghost(hash);
    let ago = (shard.evicted() as u16).wrapping_sub(ghost as u16);
    (ghost >> 16) as u16 == print(hash) && u64::from(ago) <= shard.entries() / 2
}

fn print(hash: u32) -> u16 {
    (hash as u16) | 1
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(returns: impl Fn(u32) -> bool, times: u32, from: SmallShare) -> SmallShare {
        let mut share = from;
        (0..times).for_each(|time| share.learn(returns(time), 1_000));
        share
    }

    #[test]
    fn the_small_queue_grows_when_many_return_and_shrinks_slowly() {
        let least = SmallShare::of(0);
        // One of ten: as much as with skewed popularity.
        assert_eq!(after(|time| time % 10 == 0, 10_000, least).extra, 0);
        // Two of five.
        let most = after(|time| time % 5 < 2, 1_000, least);
        assert_eq!(most.extra, SMALL_MOST - SMALL_LEAST);
        assert!(most.is_reached(45, 55) && !most.is_reached(35, 65));
        let soon = after(|_| false, 500, most);
        assert!(soon.extra > most.extra / 2, "it shrinks too fast");
        assert_eq!(after(|_| false, 100_000, most).extra >> 11, 0, "it does not shrink");
        assert!(least.is_reached(6, 94) && !least.is_reached(4, 96));
    }

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
    #[cfg(not(any(loom, counting)))]
    struct Alone;

    #[cfg(not(any(loom, counting)))]
    impl Host for Alone {
        fn now(&self) -> u32 {
            1
        }
        fn lock(&self, _shard: u32) {}
        fn unlock(&self, _shard: u32) {}
    }

    /// They stand side by side in the main queue, more of them than one search passes over.
    #[cfg(not(any(loom, counting)))]
    #[test]
    fn counters_stay_while_there_is_anything_else() {
        let memory: Vec<_> = (0..512 * 1024 / 8).map(|_| crate::sync::AtomicU64::new(0)).collect();
        let sizes = crate::Sizes {
            bytes: 0,
            reserved_fences: 4,
            relation_fences: 0,
            tag_fences: 1,
            counters: 1,
            shards: 1,
        };
        let tier = crate::Tier::format(crate::Region::of_words(&memory), sizes, Alone, 0).expect("it fits");
        let scope = tier.scope(1, 1, 0);
        let value = crate::NewValue {
            bytes: &[1; 80],
            kind: Kind(1),
            stamp: crate::Stamp::VOID,
            expires: u32::MAX,
            cost: crate::Cost::NONE,
            dependencies: &[],
        };
        let with_key = |number: u64, what: &dyn Fn(&crate::Key<'_>)| {
            let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            what(&crate::Key::new(scope, &number.to_le_bytes(), hash).expect("a legal key"));
        };
        for number in 0..500 {
            with_key(number, &|key| assert_eq!(tier.incr(key, 1, &value), Ok(1)));
        }
        // What comes back is in the main queue, and so the small one is often short enough to be spared.
        for step in 0..40_000u64 {
            let number =
                1_000 + crate::fence::scatter(step) % 6_000 * (crate::fence::scatter(!step) % 6_000) / 6_000;
            with_key(number, &|key| {
                if tier.get(key, crate::Stamp::LATEST, &mut Vec::new()).is_err() {
                    tier.put(key, &value).expect("there is somebody to evict");
                }
            });
        }
        for number in 0..500 {
            with_key(number, &|key| {
                assert!(tier.peek(key, crate::Stamp::LATEST).is_ok(), "counter {number} is gone")
            });
        }
    }
}
