//! A test harness that runs the same actions on a tier and on a naive model, and compares the two.
//!
//! The model is a map of entries, a clock, and the number of the last change of each fence. The tier may forget an
//! entry when it had to evict, but it must never serve a value that the model would not serve. After every step the
//! harness verifies all structures of the tier and compares the counters. `tests/model.rs`, the fuzzer and
//! `tests/replay.rs` use it.

pub mod damage;
pub mod story;

use pg_cache_core::{
    Acquired, Cost, Counter, FenceId, FlightRequest, Freshness, Host, IncrError, Key, Kind, Lease, Miss,
    NewValue, Owner, Purpose, Quota, Refusal, Region, Relation, Reservation, Sizes, StaleOk, Stamp, Stored,
    Tier, Unclaimed,
};
use proptest::test_runner::{Config as ProptestConfig, RngSeed};
use std::cell::Cell;
use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::time::Duration;

/// One step of a test.
#[derive(Clone, Debug)]
pub enum Action {
    Put {
        key: u8,
        size: usize,
        tags: u8,
        ttl: u32,
        absent: bool,
    },
    Get {
        key: u8,
    },
    Remove {
        key: u8,
    },
    Touch {
        key: u8,
        ttl: u32,
    },
    Incr {
        key: u8,
        by: i64,
    },
    Wait {
        ticks: u32,
    },
    /// A writer announces a change of a tag, by raising the tag's fence.
    Raise {
        tag: u8,
    },
    /// One of the writers that announced a change of the tag commits or aborts.
    Settle {
        tag: u8,
        commit: bool,
    },
    /// Invalidates every entry of the database.
    Flush,
    Sweep {
        budget: u32,
    },
    /// Reserves memory for a value and leaves the store unfinished.
    Reserve {
        key: u8,
        size: usize,
    },
    /// Finishes the oldest unfinished store: publishes or cancels it.
    Resolve {
        publish: bool,
    },
    /// A transaction announces that it will set or remove a key.
    Announce {
        key: u8,
        size: usize,
        removal: bool,
    },
    /// The oldest transaction that announced a key commits or aborts.
    Finish {
        commit: bool,
    },
    /// A session asks for the right to compute a key: a lease or a fill.
    Acquire {
        key: u8,
        hold: u32,
    },
    /// The session with the oldest lease stores its value or gives up.
    Land {
        size: usize,
        give_up: bool,
    },
    /// Stores a value that may be served stale for `ticks`.
    Linger {
        key: u8,
        size: usize,
        tags: u8,
        ttl: u32,
        ticks: u32,
    },
    /// Reads a value that is right or that may be served stale.
    GetStale {
        key: u8,
    },
    /// One of two sessions claims a key that has no value, or whose value it will remove.
    Claim {
        key: u8,
        second: bool,
        removed: bool,
    },
    /// The session with the oldest claim sets the key, with or without an announcement, or gives up.
    EndClaim {
        size: usize,
        announced: bool,
        give_up: bool,
    },
    /// Another process attaches to the region.
    Reattach,
    /// Stores at once, in a space with a quota of `quota` bytes.
    PutWithin {
        key: u8,
        size: usize,
        quota: u16,
    },
    /// Trims a space to `quota` bytes.
    Trim {
        space: u8,
        quota: u16,
    },
    /// Counts an event in one of many other spaces.
    Elsewhere {
        space: u8,
    },
    /// Resets the counts of a space.
    Reset {
        space: u8,
    },
}

/// A host with a clock that only moves when the test sets it, locks that detect a second held lock, and requests for
/// blocks that can fail.
#[derive(Default)]
pub struct TestHost {
    pub now: Cell<u32>,
    held: Cell<Option<u32>>,
    /// The number of the request for blocks from which on all requests fail: 1 is the next request. It counts down to
    /// 1. 0 means that none fails.
    pub failing: Cell<u32>,
    /// The number of the lock that fails the test, because the operation does not seem to end. It counts down to 1. 0
    /// means no limit.
    pub patience: Cell<u32>,
}

impl Host for &TestHost {
    fn now(&self) -> u32 {
        self.now.get()
    }
    fn lock(&self, shard: u32) {
        assert_eq!(self.held.replace(Some(shard)), None, "a second lock is taken");
        let left = self.patience.get();
        assert_ne!(left, 1, "this goes on for ever");
        self.patience.set(left.saturating_sub(1));
    }
    fn unlock(&self, shard: u32) {
        assert_eq!(self.held.replace(None), Some(shard), "a lock is released that is not held");
    }
    fn refuses_blocks(&self) -> bool {
        let left = self.failing.get();
        self.failing.set(if left > 1 { left - 1 } else { left });
        left == 1
    }
}

#[derive(Clone, Debug)]
struct Known {
    value: Vec<u8>,
    kind: Kind,
    expires: u32,
    stamp: u64,
    tags: u8,
    stale_ok: Option<StaleOk>,
    /// Whether a change of the relation has invalidated the entry before it expired.
    killed: bool,
    /// Whether nothing else had invalidated the entry before that, so that the tier had no other reason to remove it.
    alone: bool,
}

/// The model's copy of a fence.
#[derive(Clone, Copy, Default)]
struct Fence {
    seq: u64,
    pending: u32,
}

/// Returns the configuration of a property test. `make test` repeats the same cases, so that it gives the same result
/// for the same code. `make test-long` tries other cases, and twenty times as many. `PG_CACHE_TEST_SEED` repeats a
/// run whose seed was printed.
pub fn cases(number: u32) -> ProptestConfig {
    let long = std::env::var("PG_CACHE_TEST_LONG").is_ok_and(|long| !long.is_empty());
    let told = std::env::var("PG_CACHE_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let fresh = || {
        u64::from(std::process::id())
            ^ std::time::UNIX_EPOCH.elapsed().map_or(0, |since| since.as_secs() << 20)
    };
    let seed = told.unwrap_or_else(|| if long { fresh() } else { 2026 });
    println!("PG_CACHE_TEST_SEED={seed}");
    ProptestConfig {
        cases: if long { number * 20 } else { number },
        failure_persistence: None,
        rng_seed: RngSeed::Fixed(seed),
        ..ProptestConfig::default()
    }
}

pub struct Harness {
    memory: Vec<AtomicU64>,
    shards: u32,
}

/// The number of keys that the actions choose from.
pub const KEYS: u8 = 24;
const TAGS: u8 = 3;
/// The tag that stands for a relation: its fence is a relation's.
const RELATION: u8 = 0;
/// The number of spaces that hold keys, and of other spaces in which nothing is stored. Together they are more than a
/// backend has rows for.
pub const SPACES: u8 = 4;
pub const ELSEWHERE: u8 = 12;
/// A budget that is enough to search any space twice.
const BUDGET: u32 = 10_000;
/// The limit of locks for one step and the check after it. The check takes one lock for each block.
const LOCKS_PER_STEP: u32 = 50_000;

impl Harness {
    pub fn new(bytes: usize, shards: u32) -> Self {
        let bytes = bytes + Tier::<&TestHost>::bytes_beside_entries(Self::sizes(shards));
        Self { memory: (0..bytes / 8).map(|_| AtomicU64::new(0xdead_beef)).collect(), shards }
    }

    fn sizes(shards: u32) -> Sizes {
        Sizes {
            bytes: 0,
            reserved_fences: 1 + u32::from(SPACES + ELSEWHERE),
            relation_fences: 4,
            tag_fences: 16,
            backends: SLOTS,
            shards,
        }
    }

    pub fn run(&self, actions: &[Action]) {
        let host = TestHost::default();
        host.now.set(1);
        let region = Region::of_words(&self.memory);
        let mut tier = match Tier::format(region, Self::sizes(self.shards), &host, 0) {
            Ok(tier) => tier,
            Err(pg_cache_core::RegionError::TooSmall { .. }) => return,
            Err(error) => panic!("{error}"),
        };
        let mut model = Model::default();
        let mut begun = Begun::default();
        let mut backend = 0;
        for (step, action) in actions.iter().enumerate() {
            if let Action::Reattach = action {
                backend = (backend + 1) % (SLOTS + 1);
                tier = Tier::attach(region, &host, backend).expect("what was formatted can be attached");
            }
            host.patience.set(LOCKS_PER_STEP);
            step_both(&tier, &host, &mut model, &mut begun, action);
            let held: Vec<_> =
                tier.check().into_iter().filter(|finding| !finding.ends_with("fences are raised")).collect();
            assert!(held.is_empty(), "after step {step}, {action:?}: {held:?}");
            model.expect_counts(&tier, step, action);
            model.expect_toll(&tier, step, action);
        }
        model.expect_sums(&tier);
        host.patience.set(LOCKS_PER_STEP);
        for (_, _, reservation) in begun.reserved {
            tier.cancel(reservation);
        }
        for (key, _, reservation) in begun.announced {
            with_key(&tier, key, |key| tier.withdraw(key, reservation));
        }
        for owner in [OWNER, SETTER, CLAIMERS[0], CLAIMERS[1]] {
            tier.release_leases_of(owner);
        }
        // When every key is removed, no entry may be in use.
        for key in 0..KEYS {
            with_key(&tier, key, |key| tier.remove(key));
        }
        let usage = tier.usage();
        assert_eq!((usage.entries, usage.announced, usage.flights), (0, 0, 0));
        assert!(usage.used_bytes <= 16, "{} bytes have leaked", usage.used_bytes);
        for stats in tier.all_stats() {
            assert_eq!((stats.entries, stats.bytes()), (0, 0), "{:?}", stats.space);
        }
    }
}

/// Operations that were begun and have not ended.
#[derive(Default)]
struct Begun {
    reserved: Vec<(u8, Known, Reservation)>,
    /// The value is None for a removal.
    announced: Vec<(u8, Option<Known>, Reservation)>,
    leases: Vec<(u8, Lease)>,
    claims: Vec<(u8, u64)>,
}

/// The session that computes values.
const OWNER: u32 = 7;
/// The session that claims a key and sets it at once.
const SETTER: u32 = 8;
/// The two sessions that claim keys and set them later.
const CLAIMERS: [u32; 2] = [9, 10];
/// The tier notes that an entry was found right only once in this many ticks.
const NOTED_EVERY: u32 = 20;
/// The number of backends that have a slot of statistics. One more backend attaches that has none.
const SLOTS: u32 = 2;
/// The counters whose values the model can derive from the tier's answers.
const TOLD: [Counter; 9] = [
    Counter::Hit,
    Counter::MissAbsent,
    Counter::MissExpired,
    Counter::MissFenced,
    Counter::Stored,
    Counter::Dropped,
    Counter::RefusedFull,
    Counter::RefusedSize,
    Counter::RefusedQuota,
];

/// The model's copy of a flight. Keys of one class have the same hash, and share a flight.
#[derive(Clone, Copy)]
struct Flight {
    lease: u64,
    owner: u32,
    purpose: Purpose,
    /// None for a claim, which has no deadline.
    deadline: Option<u32>,
    stamp: u64,
    void: bool,
}

impl Flight {
    fn leads(&self, now: u32, flushed: u64) -> bool {
        self.deadline.is_none_or(|deadline| deadline > now && self.stamp >= flushed)
    }
}

/// Returns the owner of a flight for a key. The keys are spread over four roles, so that no role exceeds its share of
/// the places for flights.
fn owner_of(session: u32, key: u8) -> Owner {
    Owner { session, role: u32::from(key % 4) }
}

#[derive(Default)]
struct Model {
    /// The keys with announced changes. A key occurs once for each announcement.
    changing: Vec<u8>,
    flights: HashMap<u8, Flight>,
    entries: HashMap<u8, Known>,
    tags: [Fence; TAGS as usize],
    flushed: u64,
    now: u64,
    /// The counts of events in each space since its last reset.
    counts: [[u64; Counter::ALL.len()]; SPACES as usize],
    /// The counts from before the resets, summed over all spaces.
    forgotten: [u64; Counter::ALL.len()],
    /// Whether a space had to make room within its own entries.
    trimmed: [bool; SPACES as usize],
    toll: Toll,
}

/// The effects of changes of the relation.
#[derive(Default)]
struct Toll {
    changes: u64,
    last: u32,
    /// The number of entries that these changes have invalidated.
    killed: u64,
    /// The number of these entries that have been removed, and that the tier cannot have evicted before they were
    /// invalidated.
    gone: u64,
    /// The count from before the resets.
    forgotten: u64,
}

impl Model {
    fn count(&mut self, key: u8, what: Counter) {
        self.counts[space_of(key) as usize][what as usize] += 1;
    }

    fn count_read(&mut self, key: u8, outcome: Result<(), Miss>) {
        self.count(
            key,
            match outcome {
                Ok(()) => Counter::Hit,
                Err(Miss::Absent) => Counter::MissAbsent,
                Err(Miss::Expired) => Counter::MissExpired,
                Err(Miss::Fenced) => Counter::MissFenced,
                Err(miss) => panic!("{miss:?}"),
            },
        );
    }

    fn count_refusal(&mut self, key: u8, refusal: Refusal) {
        self.count(
            key,
            match refusal {
                Refusal::TooLarge => Counter::RefusedSize,
                Refusal::Full => Counter::RefusedFull,
                Refusal::Quota => Counter::RefusedQuota,
                other => panic!("refused: {other:?}"),
            },
        );
    }

    /// Copies counts from the tier that the model cannot derive.
    fn believe(&mut self, tier: &Tier<'_, &TestHost>, key: u8, whats: &[Counter]) {
        let space = space_of(key);
        let stats = tier.space_stats(1, space.into()).expect("it was used");
        for what in whats {
            self.counts[space as usize][*what as usize] = stats.counted(*what);
        }
    }

    /// Asserts that the tier has counted each event in its space.
    fn expect_counts(&self, tier: &Tier<'_, &TestHost>, step: usize, action: &Action) {
        for (space, counts) in self.counts.iter().enumerate() {
            let stats = tier.space_stats(1, space as u32);
            for what in TOLD {
                let counted = stats.as_ref().map_or(0, |stats| stats.counted(what));
                assert_eq!(
                    counted, counts[what as usize],
                    "{what:?} in space {space} after step {step}, {action:?}"
                );
            }
        }
    }

    /// Asserts that the counts of the spaces add up to the total counts.
    fn expect_sums(&self, tier: &Tier<'_, &TestHost>) {
        let all: Vec<_> = tier.all_stats().collect();
        for what in Counter::ALL {
            let sum: u64 = all.iter().map(|stats| stats.counted(what)).sum();
            assert_eq!(tier.counted(what), sum + self.forgotten[what as usize], "{what:?}");
        }
        let usage = tier.usage();
        assert_eq!(all.iter().map(|stats| stats.entries).sum::<u64>(), usage.entries);
    }

    /// Returns the result that a reader of a key must get.
    fn expected(&self, key: u8, now: u32) -> Result<&Known, Miss> {
        if self.changing.contains(&key) {
            return Err(Miss::Fenced);
        }
        let known = self.entries.get(&key).ok_or(Miss::Absent)?;
        self.verdict(known, now).map(|()| known)
    }

    /// Returns the result that a reader must get if it accepts stale values.
    fn expected_stale(&self, key: u8, now: u32) -> Result<(&Known, Freshness), Miss> {
        let miss = match self.expected(key, now) {
            Ok(known) => return Ok((known, Freshness::Right)),
            Err(miss) => miss,
        };
        let known = self.entries.get(&key).ok_or(miss)?;
        let StaleOk { ticks, right_at } = known.stale_ok.ok_or(miss)?;
        let last = if self.is_fenced(known) { right_at.min(known.expires) } else { known.expires };
        let ended = self.changing.contains(&key) || self.flushed > known.stamp || last + ticks <= now;
        if ended { Err(miss) } else { Ok((known, Freshness::Stale { until: last + ticks })) }
    }

    /// Compares the counts of the relation. The tier counts a killed entry when the entry is removed, and only the
    /// tier knows when it evicted an entry. So its count must be at most the number of entries that were killed, and
    /// at least the number of killed entries that are known to be removed.
    fn expect_toll(&self, tier: &Tier<'_, &TestHost>, step: usize, action: &Action) {
        let all = tier.relation_stats(1).collect::<Vec<_>>();
        let found = all.first().copied().unwrap_or_default();
        let (Toll { changes, last, killed, gone, forgotten }, counted) = (&self.toll, found.killed);
        assert_eq!(found.changes, *changes, "after step {step}, {action:?}");
        assert!(all.is_empty() || found.last == *last, "after step {step}, {action:?}: {found:?}");
        assert!(
            (*gone..=*killed).contains(&(counted + forgotten)),
            "{counted} and {forgotten} are counted, {killed} have died, {gone} of them gone, after step {step}, {action:?}"
        );
    }

    /// Returns whether a change of the relation has invalidated the entry, and the entry had not expired before the
    /// last change.
    fn is_killed(&self, known: &Known) -> bool {
        known.tags >> RELATION & 1 == 1
            && self.tags[RELATION as usize].seq > known.stamp
            && known.expires > self.toll.last
    }

    /// Notes a change of the relation.
    fn note_change(&mut self, now: u32) {
        self.toll.changes += 1;
        self.toll.last = now;
        let mut entries = std::mem::take(&mut self.entries);
        entries.values_mut().for_each(|known| self.note_killed(known));
        self.entries = entries;
    }

    fn note_killed(&mut self, known: &mut Known) {
        if !known.killed && self.is_killed(known) {
            known.killed = true;
            known.alone = self.flushed <= known.stamp
                && (0..TAGS)
                    .filter(|tag| *tag != RELATION && known.tags >> tag & 1 == 1)
                    .all(|tag| self.tags[tag as usize].seq <= known.stamp);
            self.toll.killed += 1;
        }
    }

    /// Gives a key another value.
    fn put(&mut self, tier: &Tier<'_, &TestHost>, key: u8, mut known: Known) {
        self.take(tier, key);
        self.note_killed(&mut known);
        self.entries.insert(key, known);
    }

    /// Removes the value of a key.
    fn take(&mut self, tier: &Tier<'_, &TestHost>, key: u8) -> Option<Known> {
        let known = self.entries.remove(&key);
        if known.as_ref().is_some_and(|known| known.alone && self.is_killed(known))
            && !may_forget(tier, self, key)
        {
            self.toll.gone += 1;
        }
        known
    }

    fn is_fenced(&self, known: &Known) -> bool {
        (0..TAGS).filter(|tag| known.tags >> tag & 1 == 1).any(|tag| {
            let fence = self.tags[tag as usize];
            fence.pending > 0 || fence.seq > known.stamp
        })
    }

    /// Notes that the key was set or removed, which voids its flight.
    fn changed(&mut self, key: u8) {
        if let Some(flight) = self.flights.get_mut(&class(key)) {
            flight.void = true;
        }
    }

    fn verdict(&self, known: &Known, now: u32) -> Result<(), Miss> {
        if known.expires <= now {
            return Err(Miss::Expired);
        }
        if self.is_fenced(known) || self.flushed > known.stamp { Err(Miss::Fenced) } else { Ok(()) }
    }
}

/// Returns the bytes of a value. Different values differ in length or content.
fn content(key: u8, size: usize, salt: u64) -> Vec<u8> {
    (0..size).map(|at| (at as u8).wrapping_mul(31) ^ key ^ (salt >> (at % 8 * 8)) as u8).collect()
}

/// Returns the class of a key. There are two classes, and all keys of a class have the same hash in every scope.
fn class(key: u8) -> u8 {
    key / 6 % 2
}

/// The six scopes: four spaces, and in two of them also the keys of a role.
const SCOPES: [(u8, u32); 6] = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0)];

fn space_of(key: u8) -> u8 {
    SCOPES[key as usize % SCOPES.len()].0
}

/// Calls `what` with a key. The keys have four different lengths, and the same bytes in six scopes. The hash passed
/// here cancels the scope that `Key::new` mixes in, so that all keys of a class share one hash and one bucket. There,
/// only the whole identity of a key distinguishes it from the others.
fn with_key<T>(tier: &Tier<'_, &TestHost>, key: u8, what: impl FnOnce(&Key<'_>) -> T) -> T {
    let (space, role) = SCOPES[key as usize % SCOPES.len()];
    let space = u32::from(space);
    let bytes = vec![b'k'; 1 + (key / 6) as usize * 50];
    let hash = u64::from(space) << 32 ^ u64::from(role) ^ u64::from(class(key)) << 20;
    what(&Key::new(tier.scope(1, space, role), &bytes, hash).expect("a legal key"))
}

fn dependencies(tier: &Tier<'_, &TestHost>, tags: u8) -> Vec<FenceId> {
    (0..TAGS).filter(|tag| tags >> tag & 1 == 1).map(|tag| fence_of(tier, tag)).collect()
}

fn fence_of(tier: &Tier<'_, &TestHost>, tag: u8) -> FenceId {
    if tag == RELATION {
        return tier.fences().relation(1, 7, Relation::Any);
    }
    tier.fences().tag(u64::from(tag) << 60)
}

/// Returns whether the tier had a reason to forget an entry of the key's space.
fn may_forget(tier: &Tier<'_, &TestHost>, model: &Model, key: u8) -> bool {
    model.trimmed[space_of(key) as usize]
        || [Counter::Evicted, Counter::RefusedFull].into_iter().any(|what| tier.counted(what) > 0)
}

fn step_both(
    tier: &Tier<'_, &TestHost>,
    host: &TestHost,
    model: &mut Model,
    begun: &mut Begun,
    action: &Action,
) {
    let now = host.now.get();
    match *action {
        Action::PutWithin { key, size, quota } => put_within(tier, model, key, size, quota.into(), now),
        Action::Trim { space, quota } => trim(tier, model, space % SPACES, quota.into()),
        Action::Elsewhere { space } => {
            let scope = tier.scope(1, 100 + u32::from(space % ELSEWHERE), 0);
            tier.note(&scope, Counter::Saved, 1 + u64::from(space));
        }
        Action::Reset { space } => {
            let space = space % SPACES;
            if let Some(stats) = tier.space_stats(1, space.into()) {
                for what in Counter::ALL {
                    model.forgotten[what as usize] += stats.counted(what);
                }
            }
            tier.reset_stats(1, space.into());
            if space == 0 {
                model.toll.forgotten += tier.relation_stats(1).map(|stats| stats.killed).sum::<u64>();
                model.toll.changes = 0;
                tier.reset_relation_stats(1);
            }
            model.counts[space as usize] = Default::default();
        }
        Action::Put { key, size, tags, ttl, absent } => {
            let known = new_value(model, key, size, tags % 8, now + ttl);
            let setter = owner_of(SETTER, key);
            let outcome = with_key(tier, key, |key| {
                let dependencies = dependencies(tier, known.tags);
                let reservation = tier.reserve(key, &as_value(&known, &dependencies), Default::default())?;
                if !absent {
                    return Ok(tier.publish(key, reservation));
                }
                Ok(match tier.claim(key, Some(Stamp::LATEST.into()), setter) {
                    Ok(claim) => tier.publish_leased(key, reservation, claim),
                    Err(_) => {
                        tier.cancel(reservation);
                        Stored::Dropped
                    }
                })
            });
            match outcome {
                Ok(stored) => published(tier, model, key, known, stored, absent, now),
                Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
            }
            expect(tier, model, key, now);
        }
        Action::Get { key } => expect(tier, model, key, now),
        Action::Remove { key } => {
            let removed = with_key(tier, key, |key| tier.remove(key));
            model.changed(key);
            let valid = model.take(tier, key).is_some_and(|known| model.verdict(&known, now).is_ok());
            assert!(
                removed == valid || (valid && may_forget(tier, model, key)),
                "removed {removed}, valid {valid}"
            );
        }
        Action::Touch { key, ttl } => {
            let touched = with_key(tier, key, |key| tier.touch(key, now + ttl));
            let valid = model.entries.get(&key).is_some_and(|known| model.verdict(known, now).is_ok());
            assert!(
                touched == valid || (valid && may_forget(tier, model, key)),
                "touched {touched}, valid {valid}"
            );
            if let Some(known) = model.entries.get_mut(&key).filter(|_| valid) {
                // If the tier has forgotten the entry, it serves nothing, so the model's expiry does not matter.
                known.expires = now + ttl;
            }
        }
        Action::Incr { key, by } => incr(tier, model, key, by, now),
        Action::Wait { ticks } => host.now.set(now + ticks),
        Action::Raise { tag } => {
            tier.fences().raise(fence_of(tier, tag));
            model.tags[tag as usize].pending += 1;
        }
        Action::Settle { tag, commit } => {
            let fence = &mut model.tags[tag as usize];
            if fence.pending > 0 {
                fence.pending -= 1;
                if commit {
                    let _ = tier.lower_as(fence_of(tier, tag), tier.fences().draw());
                    model.now += 1;
                    fence.seq = model.now;
                    if tag == RELATION {
                        model.note_change(now);
                    }
                } else {
                    tier.fences().withdraw(fence_of(tier, tag));
                }
            }
        }
        Action::Flush => {
            let fence = tier.fences().reserved(pg_cache_core::Reserved::Database(1));
            tier.fences().raise(fence);
            tier.fences().lower(fence);
            model.now += 1;
            model.flushed = model.now;
        }
        Action::Sweep { budget } => {
            tier.sweep(budget);
        }
        Action::Reserve { key, size } => {
            let known = new_value(model, key, size, 1, now + 30);
            let outcome = with_key(tier, key, |key| {
                tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
            });
            match outcome {
                Ok(reservation) => begun.reserved.push((key, known, reservation)),
                Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
            }
        }
        Action::Resolve { publish } => {
            if begun.reserved.is_empty() {
                return;
            }
            let (key, known, reservation) = begun.reserved.remove(0);
            if publish {
                let stored = with_key(tier, key, |key| tier.publish(key, reservation));
                published(tier, model, key, known, stored, false, now);
                expect(tier, model, key, now);
            } else {
                tier.cancel(reservation);
            }
        }
        Action::Announce { key, size, removal } => {
            let known = new_value(model, key, size, 2, now + 30);
            let outcome = with_key(tier, key, |key| {
                if removal {
                    return tier.reserve_removal(key);
                }
                tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
            });
            match outcome {
                Ok(reservation) => {
                    with_key(tier, key, |key| tier.announce(key, &reservation));
                    model.changing.push(key);
                    begun.announced.push((key, (!removal).then_some(known), reservation));
                }
                Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
            }
            expect(tier, model, key, now);
        }
        Action::Finish { commit } => {
            if begun.announced.is_empty() {
                return;
            }
            let (key, known, reservation) = begun.announced.remove(0);
            let place =
                model.changing.iter().position(|changing| *changing == key).expect("it was announced");
            model.changing.remove(place);
            if commit {
                with_key(tier, key, |key| tier.confirm(key, reservation));
                model.changed(key);
                if known.is_some() {
                    model.count(key, Counter::Stored);
                }
                match known {
                    Some(known) => model.put(tier, key, known),
                    None => drop(model.take(tier, key)),
                }
            } else {
                with_key(tier, key, |key| tier.withdraw(key, reservation));
            }
            expect(tier, model, key, now);
        }
        Action::Acquire { key, hold } => {
            let leader = model.flights.get(&class(key)).filter(|flight| flight.leads(now, model.flushed));
            let fills = hold % 4 == 3;
            // A fill takes over from a lease.
            let leader = leader.filter(|flight| !fills || flight.purpose != Purpose::Lease);
            let owner = owner_of(OWNER, key);
            // Every second request asks for the lease only if there is no value.
            let acquired = with_key(tier, key, |key| match hold % 4 {
                0 | 2 => tier.acquire(
                    key,
                    FlightRequest::lease(owner, now + hold).unless_present(Stamp::LATEST.into()),
                ),
                1 => tier.acquire(key, FlightRequest::lease(owner, now + hold)),
                _ => tier.acquire(key, FlightRequest::fill(owner, now + hold)),
            });
            let present = hold % 2 == 0 && model.expected(key, now).is_ok();
            match (acquired, leader) {
                (Acquired::Present, _) => assert!(present, "there is no value"),
                (acquired, _) if present && !may_forget(tier, model, key) => {
                    panic!("{acquired:?} beside a value")
                }
                (Acquired::Lead(lease), None) => {
                    assert_eq!(lease.stamp.as_u64(), model.now);
                    assert_eq!(with_key(tier, key, |key| tier.lease(key, lease.id)), Some(lease));
                    let deadline = Some(now + hold);
                    let flight = Flight {
                        lease: lease.id,
                        owner: OWNER,
                        purpose: if fills { Purpose::Fill } else { Purpose::Lease },
                        deadline,
                        stamp: model.now,
                        void: false,
                    };
                    model.flights.insert(class(key), flight);
                    begun.leases.push((key, lease));
                }
                (Acquired::Busy(leader), Some(flight)) => {
                    let deadline = flight.deadline.unwrap_or(u32::MAX);
                    assert_eq!(
                        (leader.owner, leader.purpose, leader.deadline),
                        (flight.owner, flight.purpose, deadline)
                    );
                }
                (acquired, leader) => {
                    panic!("{acquired:?} while {:?} leads", leader.map(|flight| flight.lease))
                }
            }
        }
        Action::Land { size, give_up } => land(tier, model, begun, size, give_up, now),
        Action::Linger { key, size, tags, ttl, ticks } => {
            let stale_ok = StaleOk { ticks, right_at: now };
            let known =
                Known { stale_ok: Some(stale_ok), ..new_value(model, key, size, tags % 8, now + ttl) };
            let outcome = with_key(tier, key, |key| {
                let dependencies = dependencies(tier, known.tags);
                let value = as_value(&known, &dependencies);
                let reservation = tier.reserve(key, &value, Some(stale_ok).into())?;
                Ok(tier.publish(key, reservation))
            });
            match outcome {
                Ok(stored) => published(tier, model, key, known, stored, false, now),
                Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
            }
            expect(tier, model, key, now);
        }
        Action::GetStale { key } => expect_stale(tier, model, key, now),
        Action::Claim { key, second, removed } => {
            let owner = CLAIMERS[usize::from(second)];
            let by = owner_of(owner, key);
            let reader = (!removed).then_some(Stamp::LATEST.into());
            let claimed = with_key(tier, key, |key| tier.claim(key, reader, by));
            let other = model.flights.get(&class(key)).filter(|flight| flight.deadline.is_none());
            match (claimed, other) {
                _ if model.changing.contains(&key) => {
                    assert_eq!(claimed, Err(Unclaimed::Changing), "it is being changed");
                }
                (_, Some(claim)) => {
                    let own = (claim.owner == owner).then_some(claim.lease);
                    assert_eq!(claimed, own.ok_or(Unclaimed::Claimed), "it is claimed");
                }
                (Err(why), None) => {
                    assert_eq!(why, Unclaimed::Present);
                    assert!(!removed && model.expected(key, now).is_ok(), "refused without a reason");
                }
                (Ok(lease), None) => {
                    let valid = model.expected(key, now).is_ok();
                    assert!(removed || !valid || may_forget(tier, model, key), "there is a value");
                    let (purpose, stamp) = (Purpose::Claim, model.now);
                    let flight = Flight { lease, owner, purpose, deadline: None, stamp, void: false };
                    model.flights.insert(class(key), flight);
                    begun.claims.push((key, lease));
                }
            }
        }
        Action::EndClaim { size, announced, give_up } => {
            end_claim(tier, model, begun, size, announced, give_up, now);
        }
        Action::Reattach => {}
    }
}

fn land(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    begun: &mut Begun,
    size: usize,
    give_up: bool,
    now: u32,
) {
    if begun.leases.is_empty() {
        return;
    }
    let (key, lease) = begun.leases.remove(0);
    // None if another session has taken over the flight after the deadline.
    let flight = model.flights.get(&class(key)).copied().filter(|flight| flight.lease == lease.id);
    if flight.is_some() {
        model.flights.remove(&class(key));
    }
    if give_up {
        assert_eq!(with_key(tier, key, |key| tier.release_lease(key, lease.id)), flight.is_some());
        return;
    }
    let known = Known { stamp: lease.stamp.as_u64(), ..new_value(model, key, size, 1, now + 30) };
    let reservation = with_key(tier, key, |key| {
        tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
    });
    match reservation {
        Ok(reservation) => {
            let stored = with_key(tier, key, |key| tier.publish_leased(key, reservation, lease.id));
            let entitled = flight.is_some_and(|flight| !flight.void);
            assert_eq!(stored != Stored::Dropped, entitled, "{stored:?}");
            model.count(key, if entitled { Counter::Stored } else { Counter::Dropped });
            if entitled {
                model.put(tier, key, known);
            }
        }
        Err(refusal) => {
            expect_refusal(tier, model, key, &known, refusal);
            with_key(tier, key, |key| tier.release_lease(key, lease.id));
        }
    }
    expect(tier, model, key, now);
}

fn end_claim(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    begun: &mut Begun,
    size: usize,
    announced: bool,
    give_up: bool,
    now: u32,
) {
    if begun.claims.is_empty() {
        return;
    }
    let (key, claim) = begun.claims.remove(0);
    let flight = model.flights.remove(&class(key)).expect("a claim stands until it is ended");
    assert_eq!(flight.lease, claim);
    let known = new_value(model, key, size, 1, now + 30);
    let reservation = with_key(tier, key, |key| {
        tier.reserve(key, &as_value(&known, &dependencies(tier, known.tags)), Default::default())
    });
    let reservation = match reservation {
        Ok(reservation) if !give_up => reservation,
        outcome => {
            match outcome {
                Ok(reservation) => tier.cancel(reservation),
                Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
            }
            assert!(with_key(tier, key, |key| tier.release_lease(key, claim)), "it stood");
            return;
        }
    };
    let stored = with_key(tier, key, |key| {
        if !announced {
            return tier.publish_leased(key, reservation, claim) != Stored::Dropped;
        }
        tier.announce(key, &reservation);
        tier.confirm_claimed(key, reservation, claim, Some(stamp(known.stamp)))
    });
    assert_eq!(stored, !flight.void, "what is set later is later");
    model.count(key, if stored { Counter::Stored } else { Counter::Dropped });
    if stored {
        model.put(tier, key, known);
    }
    expect(tier, model, key, now);
}

fn put_within(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, size: usize, quota: u64, now: u32) {
    let known = new_value(model, key, size, 0, now + 30);
    let before = innocents(tier, space_of(key));
    let was_counted = tier.counted(Counter::Evicted) + tier.counted(Counter::RefusedFull);
    let outcome = with_key(tier, key, |key| {
        tier.reserve(key, &as_value(&known, &[]), Some(Quota { bytes: quota, budget: BUDGET }).into())
    });
    model.trimmed[space_of(key) as usize] = true;
    if tier.counted(Counter::Evicted) + tier.counted(Counter::RefusedFull) == was_counted {
        let useless = |what| tier.counted(what) > 0;
        assert!(
            before == innocents(tier, space_of(key)) || useless(Counter::Expired) || useless(Counter::Fenced),
            "another space had to make room"
        );
    }
    match outcome {
        Ok(reservation) => {
            let stats = tier.space_stats(1, space_of(key).into()).expect("it is used");
            assert!(stats.bytes() <= quota, "{} bytes, of {quota}", stats.bytes());
            let stored = with_key(tier, key, |key| tier.publish(key, reservation));
            published(tier, model, key, known, stored, false, now);
        }
        Err(Refusal::Quota) => {
            model.count_refusal(key, Refusal::Quota);
            if known.value.len() + 400 < quota as usize {
                nothing_is_left_to_evict(tier, space_of(key));
            }
        }
        Err(refusal) => expect_refusal(tier, model, key, &known, refusal),
    }
    expect(tier, model, key, now);
}

fn trim(tier: &Tier<'_, &TestHost>, model: &mut Model, space: u8, quota: u64) {
    let scope = tier.scope(1, space.into(), 0);
    let before = innocents(tier, space);
    let done = tier.trim(&scope, quota, BUDGET);
    model.trimmed[space as usize] = true;
    assert_eq!(done, tier.used_bytes(&scope) <= quota);
    assert!(before == innocents(tier, space), "another space had to make room");
    if !done {
        nothing_is_left_to_evict(tier, space);
    }
}

/// Returns the entries and bytes of the other spaces.
fn innocents(tier: &Tier<'_, &TestHost>, space: u8) -> Vec<(u64, u64)> {
    let others = (0..SPACES).filter(|other| *other != space);
    others
        .filter_map(|other| tier.space_stats(1, other.into()))
        .map(|stats| (stats.entries, stats.bytes()))
        .collect()
}

/// Asserts that the space has no entry left that could be evicted: only counters, and memory that is reserved or
/// announced.
fn nothing_is_left_to_evict(tier: &Tier<'_, &TestHost>, space: u8) {
    for entry in (0..).map_while(|bucket| tier.inspect(bucket).expect("there is memory")).flatten() {
        let spared = entry.space != u32::from(space) || entry.meta.kind == Kind::COUNTER;
        assert!(spared, "{entry:?} could have gone");
    }
}

fn new_value(model: &Model, key: u8, size: usize, tags: u8, expires: u32) -> Known {
    let salt = model.now.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ u64::from(expires);
    let value = content(key, size, salt);
    Known {
        value,
        kind: Kind(key % 4),
        expires,
        stamp: model.now,
        tags,
        stale_ok: None,
        killed: false,
        alone: false,
    }
}

fn as_value<'v>(known: &'v Known, dependencies: &'v [FenceId]) -> NewValue<'v> {
    // The model's clock and the tier's clock move together, so the numbers of stamps are equal.
    NewValue {
        bytes: &known.value,
        kind: known.kind,
        stamp: stamp(known.stamp),
        expires: known.expires,
        cost: Cost::of(Duration::from_micros(7)),
        dependencies,
    }
}

/// Returns the tier's stamp for a moment on the model's clock. Both clocks start at 0 and are moved by the same
/// actions.
fn stamp(moment: u64) -> Stamp {
    Stamp::from_u64(moment)
}

fn published(
    tier: &Tier<'_, &TestHost>,
    model: &mut Model,
    key: u8,
    known: Known,
    stored: Stored,
    absent: bool,
    now: u32,
) {
    let valid = model.entries.get(&key).is_some_and(|known| model.verdict(known, now).is_ok());
    let claimed = model.flights.get(&class(key)).is_some_and(|flight| flight.deadline.is_none());
    if stored != Stored::Dropped {
        model.count(key, Counter::Stored);
    }
    match (stored, absent) {
        // A refused claim stores nothing.
        (Stored::Dropped, _) => {}
        // The claim has replaced the flight of a session that was computing the value.
        (_, true) => assert!(model.flights.remove(&class(key)).is_none() || !claimed, "it is claimed"),
        (_, false) => model.changed(key),
    }
    match stored {
        Stored::New => assert!(!valid || may_forget(tier, model, key), "a valid entry was overlooked"),
        Stored::Replaced => assert!(valid && !absent, "nothing was there to replace"),
        Stored::Dropped => {
            assert!(
                absent && (valid || claimed || model.changing.contains(&key)),
                "dropped without a reason"
            );
            return;
        }
    }
    model.put(tier, key, known);
}

fn expect_refusal(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, known: &Known, refusal: Refusal) {
    model.count_refusal(key, refusal);
    match refusal {
        Refusal::TooLarge => assert!(known.value.len() + 600 > tier.entry_bytes_max(), "it is not too large"),
        Refusal::Full => {}
        other => panic!("refused: {other:?}"),
    }
}

/// Reads a key and compares the answer with the model's.
fn expect(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, now: u32) {
    let mut value = Vec::new();
    let answer = with_key(tier, key, |key| tier.get(key, Stamp::LATEST, &mut value));
    model.count_read(key, answer.map(|_| ()));
    let verdict = model.expected(key, now);
    match answer {
        Ok(meta) => {
            let known = verdict.expect("served what the model would not");
            assert_eq!(value, known.value, "another value");
            assert_eq!(
                (meta.kind, meta.expires, meta.stamp.as_u64()),
                (known.kind, known.expires, known.stamp)
            );
            note_right(model, key, now);
        }
        Err(Miss::Absent) => {
            // The entry was swept or evicted, or never existed.
            assert!(verdict.is_err() || may_forget(tier, model, key), "forgot without a reason");
        }
        Err(miss) => {
            let verdict = verdict.map(|_| ());
            assert!(verdict == Err(miss) || may_forget(tier, model, key), "{miss:?} instead of {verdict:?}");
        }
    }
}

/// Notes that a reader found the value right.
fn note_right(model: &mut Model, key: u8, now: u32) {
    if let Some(Known { stale_ok: Some(stale_ok), .. }) = model.entries.get_mut(&key)
        && now - stale_ok.right_at >= NOTED_EVERY
    {
        stale_ok.right_at = now;
    }
}

/// Reads a key, accepting a stale value, and compares the answer with the model's.
fn expect_stale(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, now: u32) {
    let mut value = Vec::new();
    let answer = with_key(tier, key, |key| tier.get_stale(key, Stamp::LATEST, &mut value));
    // A stale hit counts as a miss: the one that a reader gets if it does not accept stale values.
    model.count_read(
        key,
        match answer {
            Ok((_, Freshness::Right)) => Ok(()),
            Ok((_, Freshness::Stale { .. })) => model.expected(key, now).map(|_| ()),
            Err(miss) => Err(miss),
        },
    );
    match (answer, model.expected_stale(key, now)) {
        (Ok((_, freshness)), Ok((known, expected))) => {
            assert_eq!((freshness, &value), (expected, &known.value));
            if freshness == Freshness::Right {
                note_right(model, key, now);
            }
        }
        (Ok((_, freshness)), Err(miss)) => panic!("{freshness:?} instead of {miss:?}"),
        (Err(Miss::Absent), expected) => {
            assert!(expected.is_err() || may_forget(tier, model, key), "forgot what may still be served");
        }
        (Err(miss), expected) => {
            let expected = expected.map(|(_, freshness)| freshness);
            assert!(
                expected == Err(miss) || may_forget(tier, model, key),
                "{miss:?} instead of {expected:?}"
            );
        }
    }
}

fn incr(tier: &Tier<'_, &TestHost>, model: &mut Model, key: u8, by: i64, now: u32) {
    let fresh = new_value(model, key, 0, 0, now + 40);
    let outcome = with_key(tier, key, |key| tier.incr(key, by, &as_value(&fresh, &[]), None));
    // The model cannot know whether the counter was stored anew or added to.
    model.believe(tier, key, &[Counter::Stored, Counter::Dropped, Counter::RefusedFull]);
    let known = model.entries.get(&key).filter(|known| model.verdict(known, now).is_ok()).cloned();
    let known = known.as_ref();
    match (outcome, known) {
        (Ok(sum), Some(known)) if known.kind == Kind::COUNTER && !may_forget(tier, model, key) => {
            assert_eq!(Some(sum), counter(known).checked_add(by));
        }
        (Err(IncrError::OtherKind(kind)), Some(known)) => assert_eq!(kind, known.kind),
        (Err(IncrError::Overflow), Some(known)) => assert_eq!(counter(known).checked_add(by), None),
        (Err(IncrError::Refused(_)), _) => {}
        (Err(error), None) => panic!("{error:?} on nothing"),

        (Ok(_), Some(known)) => {
            assert!(known.kind == Kind::COUNTER || may_forget(tier, model, key), "added to what is no number")
        }
        (Ok(sum), None) => assert_eq!(sum, by, "a new counter begins with what is added"),
    }
    if let Ok(sum) = outcome {
        model.changed(key);
        let value = sum.to_ne_bytes().to_vec();
        // A counter that was forgotten starts again, with a new expiry.
        let kept = known.cloned().filter(|known| known.kind == Kind::COUNTER);
        let anew = sum == by && may_forget(tier, model, key);
        let known = match kept {
            Some(old) if !anew => Known { value, ..old },
            Some(old) => {
                // Both are possible, so ask the tier.
                let meta = with_key(tier, key, |key| tier.peek(key, Stamp::LATEST));
                let expires = meta.map_or(old.expires, |meta| meta.expires);
                let stamp = meta.map_or(old.stamp, |meta| meta.stamp.as_u64());
                let tags = if expires == fresh.expires && stamp == fresh.stamp { 0 } else { old.tags };
                Known { value, expires, stamp, tags, ..old }
            }
            None => Known { value, kind: Kind::COUNTER, ..fresh },
        };
        model.put(tier, key, known);
    }
    expect(tier, model, key, now);
}

fn counter(known: &Known) -> i64 {
    i64::from_ne_bytes(known.value.clone().try_into().expect("a counter has eight bytes"))
}
