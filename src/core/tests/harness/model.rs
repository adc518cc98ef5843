//! The naive model: what a tier may and must return. Keys and tags are numbers (`keys.rs`). Expiries and deadlines are in ticks,
//! and stamps are numbers on the model's clock of changes, which moves with the tier's.
//!
//! A *flight* is the right to publish a value for a key: a lease, a fill or a claim (`tier/flight.rs`). An *announced* change of a
//! key hides the key's value until the change is confirmed (`tier/publishing.rs`). A *space* is a set of keys in one database. A
//! *tier* is a cache in memory that several processes share. A *fence* is a word in shared memory that says when a dependency of
//! entries last changed.

use super::action::{Action, RELATION, SPACES, TAGS};
use super::keys::{class, space_of};
use super::patterns::PatternsModel;
use super::saving::Saver;
use pg_cache_core::testing::TestHost;
use pg_cache_core::{Counter, Freshness, Kind, Miss, Purpose, Refusal, StaleOk, Tier};
use std::collections::HashMap;

/// The session that computes values.
pub const OWNER: u32 = 7;
/// The session that claims a key and sets it at once.
pub const SETTER: u32 = 8;
/// The two sessions that claim keys and set them later.
pub const CLAIMERS: [u32; 2] = [9, 10];
/// The tier notes that an entry was found valid only once in this many ticks, as its constant of the same name says
/// (`tier/reading.rs`).
pub const NOTED_EVERY: u32 = 20;
/// The number of backends that have a slot of statistics. One more backend attaches that has none.
pub const SLOTS: u32 = 2;
/// The counters whose values the model can derive from the tier's answers, apart from the actions that call `believe`.
pub const TOLD: [Counter; 9] = [
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

/// An entry as the model knows it.
#[derive(Clone, Debug)]
pub struct Known {
    /// The number of the key.
    pub key: u8,
    /// The bytes of the value.
    pub value: Vec<u8>,
    /// The kind of the value.
    pub kind: Kind,
    /// The tick at which the value expires.
    pub expires: u32,
    /// The number on the model's clock of changes as of which the value is valid.
    pub stamp: u64,
    /// The set of the tags that the value depends on: bit n stands for tag n.
    pub tags: u8,
    /// How long the value may be served stale. None if it may not be.
    pub stale_ok: Option<StaleOk>,
    /// Whether a change of the relation has invalidated the entry before it expired.
    pub killed: bool,
    /// Whether nothing else had invalidated the entry before that change, so that the tier had no other reason to remove it.
    pub alone: bool,
}

/// The model's copy of a fence: the number of its last change, and how many writers have it raised.
#[derive(Clone, Copy, Default)]
pub struct Fence {
    /// The number of the last change.
    pub seq: u64,
    /// The number of writers that have the fence raised.
    pub pending: u32,
}

/// The model's copy of a flight. Keys of one class have the same hash, and share a flight.
#[derive(Clone, Copy)]
pub struct Flight {
    /// The ID of the lease, the fill or the claim.
    pub lease: u64,
    /// The session that has the flight.
    pub owner: u32,
    /// Whether it is a lease, a fill or a claim.
    pub purpose: Purpose,
    /// None for a claim, which has no deadline.
    pub deadline: Option<u32>,
    /// The clock of changes when the flight began.
    pub stamp: u64,
    /// Whether the key was set or removed since, so that the value must be refused.
    pub void: bool,
}

impl Flight {
    /// Returns whether the flight is not over. A lease or a fill is over after its deadline, and after a flush of the
    /// database that is later than its stamp.
    pub fn leads(&self, now: u32, flushed: u64) -> bool {
        self.deadline.is_none_or(|deadline| deadline > now && self.stamp >= flushed)
    }
}

/// The content that the tier must have, unless it had to make room.
#[derive(Default)]
pub struct Model {
    /// The keys with announced changes. A key occurs once for each announcement.
    pub changing: Vec<u8>,
    /// The flight of each class of keys, even if it is over.
    pub flights: HashMap<u8, Flight>,
    /// The last value of each key, also if it is no longer valid.
    pub entries: HashMap<u8, Known>,
    /// The fence of each tag.
    pub tags: [Fence; TAGS as usize],
    /// The number of the last flush.
    pub flushed: u64,
    /// The clock of changes.
    pub now: u64,
    /// The counts of events in each space since its last reset.
    pub counts: [[u64; Counter::ALL.len()]; SPACES as usize],
    /// The counts from before the resets, summed over all spaces.
    pub forgotten: [u64; Counter::ALL.len()],
    /// Whether an action has worked within a quota of the space, which may have evicted any entry of the space.
    pub trimmed: [bool; SPACES as usize],
    /// The effects of changes of the relation.
    pub relation: RelationModel,
    /// The copies that are saved outside of the tier.
    pub saver: Saver,
    /// The patterns that were invalidated.
    pub patterns: PatternsModel,
}

/// The effects of changes of the relation. Unless a field says otherwise, its count is never reset.
#[derive(Default)]
pub struct RelationModel {
    /// The number of changes since the last reset.
    pub changes: u64,
    /// The tick of the last change.
    pub last: u32,
    /// The number of entries that these changes have invalidated.
    pub killed: u64,
    /// The number of these entries that have been removed, and that the tier cannot have evicted before they were
    /// invalidated.
    pub gone: u64,
    /// How many killed entries the tier had counted when its counts were reset.
    pub forgotten: u64,
}

impl Model {
    /// Counts an event in the space of a key.
    pub fn count(&mut self, key: u8, counter: Counter) {
        self.counts[space_of(key) as usize][counter as usize] += 1;
    }

    /// Counts a read by its outcome. The readers of the harness have changed nothing themselves, and no shard is switched off, so
    /// other outcomes are mistakes.
    pub fn count_read(&mut self, key: u8, outcome: Result<(), Miss>) {
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

    /// Counts a refused value by the reason. No shard is switched off here, and no value has too many dependencies, so other
    /// reasons are mistakes.
    pub fn count_refusal(&mut self, key: u8, refusal: Refusal) {
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

    /// Copies counts of the key's space from the tier, because the model cannot derive them.
    pub fn believe(&mut self, tier: &Tier<'_, &TestHost>, key: u8, counters: &[Counter]) {
        let space = space_of(key);
        let stats = tier.space_stats(1, space.into()).expect("it was used");
        for counter in counters {
            self.counts[space as usize][*counter as usize] = stats.counted(*counter);
        }
    }

    /// Asserts that the tier has counted each event in its space, for the counters in [`TOLD`].
    pub fn expect_counts(&self, tier: &Tier<'_, &TestHost>, step: usize, action: &Action) {
        for (space, counts) in self.counts.iter().enumerate() {
            let stats = tier.space_stats(1, space as u32);
            for counter in TOLD {
                let counted = stats.as_ref().map_or(0, |stats| stats.counted(counter));
                assert_eq!(
                    counted, counts[counter as usize],
                    "{counter:?} in space {space} after step {step}, {action:?}"
                );
            }
        }
    }

    /// Asserts that the counts of the spaces add up to the total counts.
    pub fn expect_sums(&self, tier: &Tier<'_, &TestHost>) {
        let all: Vec<_> = tier.all_stats().collect();
        for counter in Counter::ALL {
            let sum: u64 = all.iter().map(|stats| stats.counted(counter)).sum();
            assert_eq!(tier.counted(counter), sum + self.forgotten[counter as usize], "{counter:?}");
        }
        let usage = tier.usage();
        assert_eq!(all.iter().map(|stats| stats.entries).sum::<u64>(), usage.entries);
    }

    /// Returns the result that a reader of a key must get.
    pub fn expected(&self, key: u8, now: u32) -> Result<&Known, Miss> {
        if self.changing.contains(&key) {
            return Err(Miss::Fenced);
        }
        let known = self.entries.get(&key).ok_or(Miss::Absent)?;
        self.verdict(known, now).map(|()| known)
    }

    /// Returns the result that a reader must get if it accepts stale values.
    pub fn expected_stale(&self, key: u8, now: u32) -> Result<(&Known, Freshness), Miss> {
        let miss = match self.expected(key, now) {
            Ok(known) => return Ok((known, Freshness::Valid)),
            Err(miss) => miss,
        };
        let known = self.entries.get(&key).ok_or(miss)?;
        let StaleOk { ticks, valid_at } = known.stale_ok.ok_or(miss)?;
        let last = if self.is_fenced(known) { valid_at.min(known.expires) } else { known.expires };
        let ended = self.changing.contains(&key)
            || self.flushed > known.stamp
            || self.patterns.remove(known)
            || last + ticks <= now;
        if ended { Err(miss) } else { Ok((known, Freshness::Stale { until: last + ticks })) }
    }

    /// Compares the counts of the relation. The tier counts a killed entry when the entry is removed, and only the
    /// tier knows when it evicted an entry. So its count must be at most the number of entries that were killed, and
    /// at least the number of killed entries that are known to be removed.
    pub fn expect_relation(&self, tier: &Tier<'_, &TestHost>, step: usize, action: &Action) {
        let all = tier.relation_stats(1).collect::<Vec<_>>();
        let found = all.first().copied().unwrap_or_default();
        let (RelationModel { changes, last, killed, gone, forgotten }, counted) =
            (&self.relation, found.killed);
        assert_eq!(found.changes, *changes, "after step {step}, {action:?}");
        assert!(all.is_empty() || found.last_change == *last, "after step {step}, {action:?}: {found:?}");
        assert!(
            (*gone..=*killed).contains(&(counted + forgotten)),
            "{counted} and {forgotten} are counted, {killed} have died, {gone} of them gone, after step {step}, {action:?}"
        );
    }

    /// Returns whether a change of the relation has invalidated the entry, and the entry had not expired at the tick of the last
    /// change.
    pub fn is_killed(&self, known: &Known) -> bool {
        known.tags >> RELATION & 1 == 1
            && self.tags[RELATION as usize].seq > known.stamp
            && known.expires > self.relation.last
    }

    /// Notes a change of the relation, whose number the caller has already stored in `tags`.
    pub fn note_change(&mut self, now: u32) {
        self.relation.changes += 1;
        self.relation.last = now;
        let mut entries = std::mem::take(&mut self.entries);
        entries.values_mut().for_each(|known| self.note_killed(known));
        self.entries = entries;
    }

    /// Notes whether a change of the relation has invalidated the entry, unless that is noted already.
    pub fn note_killed(&mut self, known: &mut Known) {
        if !known.killed && self.is_killed(known) {
            known.killed = true;
            known.alone = self.flushed <= known.stamp
                && !self.patterns.remove(known)
                && (0..TAGS)
                    .filter(|tag| *tag != RELATION && known.tags >> tag & 1 == 1)
                    .all(|tag| self.tags[tag as usize].seq <= known.stamp);
            self.relation.killed += 1;
        }
    }

    /// Does what a revived tier does: raised fences count as changed, and announced changes as committed, with no value left.
    /// Reservations and flights are gone.
    pub fn restart(&mut self, tier: &Tier<'_, &TestHost>, now: u32) {
        self.now += 1;
        for tag in self.tags.iter_mut().filter(|tag| tag.pending > 0) {
            *tag = Fence { seq: self.now, pending: 0 };
        }
        let mut entries = std::mem::take(&mut self.entries);
        for known in entries.values_mut() {
            self.note_killed(known);
            // The tier may have removed an expired entry before the restart.
            known.alone &= known.expires > now;
        }
        self.entries = entries;
        for key in std::mem::take(&mut self.changing) {
            self.take(tier, key);
        }
        self.flights.clear();
        self.patterns.confirm_all(self.now);
    }

    /// Gives a key another value.
    pub fn put(&mut self, tier: &Tier<'_, &TestHost>, key: u8, mut known: Known) {
        self.take(tier, key);
        self.note_killed(&mut known);
        self.entries.insert(key, known);
    }

    /// Removes the value of a key and returns it. None if the model has none. Counts a killed value as gone, unless the tier may
    /// have evicted it before it was killed.
    pub fn take(&mut self, tier: &Tier<'_, &TestHost>, key: u8) -> Option<Known> {
        let known = self.entries.remove(&key);
        if known.as_ref().is_some_and(|known| known.alone && self.is_killed(known))
            && !may_forget(tier, self, key)
        {
            self.relation.gone += 1;
        }
        known
    }

    /// Returns whether a tag of the entry is about to change, or has changed since the entry's stamp.
    pub fn is_fenced(&self, known: &Known) -> bool {
        (0..TAGS).filter(|tag| known.tags >> tag & 1 == 1).any(|tag| {
            let fence = self.tags[tag as usize];
            fence.pending > 0 || fence.seq > known.stamp
        })
    }

    /// Notes that the key was set or removed, which voids its flight.
    pub fn changed(&mut self, key: u8) {
        if let Some(flight) = self.flights.get_mut(&class(key)) {
            flight.void = true;
        }
    }

    /// Returns an error with the reason if a reader must not get the entry. Does not look for announcements of its key.
    pub fn verdict(&self, known: &Known, now: u32) -> Result<(), Miss> {
        if known.expires <= now {
            return Err(Miss::Expired);
        }
        let is_invalid = self.is_fenced(known) || self.flushed > known.stamp || self.patterns.remove(known);
        if is_invalid { Err(Miss::Fenced) } else { Ok(()) }
    }
}

/// Returns whether the tier had a reason to forget a valid entry of the key's space: a quota of the space, a lack of blocks, or a
/// pattern that was retired.
pub fn may_forget(tier: &Tier<'_, &TestHost>, model: &Model, key: u8) -> bool {
    model.trimmed[space_of(key) as usize]
        || model.patterns.has_retired
        || [Counter::Evicted, Counter::RefusedFull].into_iter().any(|counter| tier.counted(counter) > 0)
}
