//! The check of a tier: walks the entries, the queues, the flights and the directory of every shard, compares them with the bitmaps
//! and the counts, looks for fences that stay raised, and reports errors.
//!
//! The walk holds one shard's lock at a time, so other backends work between one shard and the next. A finding is therefore of one
//! of two kinds:
//!
//! - *Certain.* The state of one shard cannot change while the walk holds the shard's lock. That includes whether the blocks of its
//!   entries are in use, even blocks of other shards: a block is taken before its entry is linked, and freed after its entry is
//!   unlinked, and unlinking takes the lock that the walk holds.
//! - *In doubt.* State that spans several shards, or that is read without a lock, may be inconsistent for a moment. Such a finding
//!   is reported only if several looks make the same finding, with a pause between the looks.
//!
//! A block that belongs to entries of two shards is a certain finding as well, but it takes a second walk to prove it, see
//! [`shared_blocks`].
//!
//! An entry is *linked* while it is in the chain of its hash bucket. A *zone* is 64 KB of blocks with a version that moves when an
//! entry in it dies (`shard.rs`). A *space* is a set of keys in one database. The *cell* of a space is the place of its counts in
//! shared memory (`figures/statistics.rs`).

use super::Tier;
use super::entry::{Entry, HIDDEN, Header, IN_MAIN, LINKED};
use super::guard::Guard;
use super::shard::Shard;
use super::streak::Queue;
use crate::blocks::{Bitmap, Run};
use crate::fence::{FenceId, Fences};
use crate::figures::{Counts, entries};
use crate::hash::scatter;
use crate::host::Host;
use crate::layout::Layout;
use crate::sync::{Ordering, fence};
use std::collections::{HashMap, HashSet, TryReserveError};
use std::hash::BuildHasherDefault;

/// A damaged shard could cause pages of findings. The first ones are enough.
const FINDINGS_PER_SHARD: usize = 8;

/// The most findings that are reported, because a person reads them.
const FINDINGS: usize = 100;
/// How many looks must make the same finding in doubt before it is reported.
const LOOKS: usize = 4;

/// A finding that concurrent work can cause for a moment.
#[derive(PartialEq, Eq, Hash)]
enum Doubt {
    /// A count that differs from what the walk has found.
    Counted(String),
    /// A raised fence, with its whole word. A commit changes the word even if the next writer raises the fence at once, so only a
    /// fence that stays raised without a commit makes the same finding again.
    Raised(FenceId, u64),
}

/// The findings of one walk.
struct Findings {
    /// The findings that are certain.
    certain: Vec<String>,
    /// The findings in doubt.
    doubts: HashSet<Doubt>,
}

impl<H: Host> Tier<'_, H> {
    /// Verifies the tier and returns a description of each error that it finds, a hundred at most, or an error if there is no
    /// memory for the check. The caller must not hold a lock, and must not have raised a fence.
    pub fn try_check(&self) -> Result<Vec<String>, TryReserveError> {
        crate::tier::check::check(self)
    }

    /// Does the same as [`try_check`](Self::try_check), and panics if there is no memory.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self) -> Vec<String> {
        self.try_check().expect("there is memory to check with")
    }
}

/// Checks a tier and returns the findings, or an error if there is no memory for the check.
fn check<H: Host>(tier: &Tier<'_, H>) -> Result<Vec<String>, TryReserveError> {
    let Findings { certain: mut findings, mut doubts } = look(tier)?;
    for _ in 1..LOOKS {
        if doubts.is_empty() {
            break;
        }
        tier.host.pause();
        let again = look(tier)?.doubts;
        doubts.retain(|doubt| again.contains(doubt));
    }
    let mut raised = 0;
    for doubt in doubts {
        match doubt {
            Doubt::Counted(finding) => findings.push(finding),
            Doubt::Raised(..) => raised += 1,
        }
    }
    if raised > 0 {
        findings.push(format!("{raised} fences are raised"));
    }
    findings.truncate(FINDINGS);
    Ok(findings)
}

/// Makes one walk through all shards.
fn look<H: Host>(tier: &Tier<'_, H>) -> Result<Findings, TryReserveError> {
    let (region, layout, host) = (tier.region, &tier.layout, &tier.host);
    let (mut certain, mut doubts) = (Vec::new(), HashSet::new());
    let mut spaces = Spaces::of(tier)?;
    let mut owned = Owned::of(layout)?;
    for shard in 0..layout.shards {
        let guard = Shard::new(region, layout, shard).lock(host);
        let mut complaints = Vec::new();
        if guard.poisoned() {
            complaints.push("it is switched off after a panic".into());
        } else {
            check_shard(&guard, tier, &mut owned, &mut spaces.walked, &mut complaints)?;
        }
        let (counted, free) = (guard.bitmap().count(), guard.free_blocks());
        if u64::from(counted) + u64::from(free) != u64::from(layout.blocks) {
            complaints.push(format!("{counted} blocks in use and {free} free are not {}", layout.blocks));
        }
        spaces.used += u64::from(counted);
        spaces.poisoned |= guard.poisoned();
        drop(guard);
        complaints.truncate(FINDINGS_PER_SHARD);
        certain.extend(complaints.into_iter().map(|complaint| format!("shard {shard}: {complaint}")));
        certain.truncate(FINDINGS);
    }
    certain.extend(shared_blocks(tier, &owned.twice));
    doubts.extend(spaces.complaints(tier)?.into_iter().map(Doubt::Counted));
    let fences = Fences::new(region, layout);
    certain.extend(tier.patterns().complaint(|| fences.now()));
    let raised = |fence: FenceId| fences.word_if_raised(fence).map(|word| Doubt::Raised(fence, word));
    for doubt in fences.all_fences().filter_map(raised) {
        doubts.try_reserve(1)?;
        doubts.insert(doubt);
    }
    Ok(Findings { certain, doubts })
}

/// A set of consecutive blocks, with a bit for each.
struct BlockSet {
    /// The number of the first block.
    first: u32,
    /// A bit for each block, 1 if the block is in the set.
    bits: Vec<u64>,
}

impl BlockSet {
    fn of(first: u32, blocks: u64) -> Result<Self, TryReserveError> {
        let words = blocks.div_ceil(64) as usize;
        let mut bits = Vec::new();
        bits.try_reserve_exact(words)?;
        bits.resize(words, 0);
        Ok(Self { first, bits })
    }

    /// Adds a run. If a block of it is in the set already, returns false and adds nothing. Blocks that the set has no bit for are
    /// left out.
    fn add(&mut self, run: Run) -> bool {
        if self.words_of(run).any(|(word, mask)| self.bits[word] & mask != 0) {
            return false;
        }
        self.words_of(run).for_each(|(word, mask)| self.bits[word] |= mask);
        true
    }

    /// Returns the words that have the bits of a run, with a mask of these bits for each.
    fn words_of(&self, run: Run) -> impl Iterator<Item = (usize, u64)> + use<> {
        let words = self.bits.len();
        let (mut index, mut left) = (run.first.wrapping_sub(self.first), run.blocks);
        std::iter::from_fn(move || {
            let word = (index / 64) as usize;
            let span = (64 - index % 64).min(left);
            if span == 0 || word >= words {
                return None;
            }
            let mask = u64::MAX >> (64 - span) << (index % 64);
            (index, left) = (index.wrapping_add(span), left - span);
            Some((word, mask))
        })
    }
}

/// A fast hash of the number of a block or a space. No caller can choose these numbers.
#[derive(Default)]
struct NumberHasher(u64);

impl std::hash::Hasher for NumberHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u32((*byte).into());
        }
    }
    fn write_u32(&mut self, number: u32) {
        self.write_u64(number.into());
    }
    fn write_u64(&mut self, number: u64) {
        self.0 = scatter(self.0 ^ number);
    }
    fn finish(&self) -> u64 {
        self.0
    }
}

/// A set of the numbers of blocks.
type Blocks = HashSet<u32, BuildHasherDefault<NumberHasher>>;
/// The figures of spaces, by database and space.
type Walks = HashMap<u64, Walked, BuildHasherDefault<NumberHasher>>;

/// The blocks of all entries that a walk has passed.
struct Owned {
    /// The blocks.
    all: BlockSet,
    /// Blocks that were found in entries of different shards, perhaps of one entry after the other.
    twice: HashSet<u32>,
}

impl Owned {
    fn of(layout: &Layout) -> Result<Self, TryReserveError> {
        Ok(Self { all: BlockSet::of(layout.first_block(0), layout.blocks_total())?, twice: HashSet::new() })
    }

    /// Adds a run of an entry. Blocks that another entry has already are added to `twice`.
    fn add(&mut self, run: Run) {
        if self.all.add(run) {
            return;
        }
        for block in run.first..run.first.saturating_add(run.blocks) {
            if !self.all.add(Run { first: block, blocks: 1 }) && self.twice.len() < FINDINGS {
                self.twice.insert(block);
            }
        }
    }
}

/// The blocks of one shard's entries. Most of them are blocks of that shard, too.
struct Mine {
    /// The blocks of this shard.
    own: BlockSet,
    /// The blocks of other shards.
    others: Blocks,
}

impl Mine {
    /// Adds a block. Returns false if it was there already.
    fn add(&mut self, block: u32, layout: &Layout) -> Result<bool, TryReserveError> {
        let run = Run { first: block, blocks: 1 };
        if self.covers(run, layout) {
            return Ok(self.own.add(run));
        }
        self.others.try_reserve(1)?;
        Ok(self.others.insert(block))
    }

    /// Adds a run of the shard's own blocks. If one of them was there already, or is another shard's, returns false and adds
    /// nothing.
    fn add_own(&mut self, run: Run, layout: &Layout) -> bool {
        self.covers(run, layout) && self.own.add(run)
    }

    /// Whether all blocks of a run are the shard's own.
    fn covers(&self, run: Run, layout: &Layout) -> bool {
        let index = run.first.wrapping_sub(self.own.first);
        index < layout.blocks && run.blocks <= layout.blocks - index
    }
}

/// Returns findings for those of the suspect blocks that belong to two entries at the same time. The caller must not hold a lock.
///
/// A walk that finds a block in entries of two shards may have seen the first entry before it died, and the second entry after it
/// reused the block. So this walk notes the version of the first entry's zone, as a reader does. If the version is the same when
/// the walk finds the second entry, the first entry was still alive when the second was linked.
fn shared_blocks<H: Host>(tier: &Tier<'_, H>, suspects: &HashSet<u32>) -> Vec<String> {
    let (region, layout) = (tier.region, &tier.layout);
    let mut findings = Vec::new();
    if suspects.is_empty() {
        return findings;
    }
    let mut owners: HashMap<u32, (usize, u64)> = HashMap::new();
    for shard in 0..layout.shards {
        let guard = Shard::new(region, layout, shard).lock(&tier.host);
        if guard.poisoned() {
            continue;
        }
        for entry in (0..guard.buckets()).flat_map(|bucket| guard.in_bucket(bucket)) {
            let zone = layout.zone_at(entry.block);
            for block in blocks_of(&entry, layout).filter(|block| suspects.contains(block)) {
                fence(Ordering::Acquire);
                let is_alive = |(zone, moved): &(usize, u64)| region.load(*zone) == *moved;
                if findings.len() < FINDINGS && owners.get(&block).is_some_and(is_alive) {
                    findings.push(format!("block {block} belongs to two entries"));
                }
                owners.insert(block, (zone, region.word(zone).load(Ordering::Acquire)));
            }
        }
    }
    findings
}

/// Returns the blocks of an entry, up to the first run that is longer than a shard.
fn blocks_of<'m>(entry: &Entry<'m>, layout: &'m Layout) -> impl Iterator<Item = u32> + use<'m> {
    let runs = entry.runs(layout, &entry.header()).map(|data| data.run);
    let runs = runs.take_while(|run| run.blocks <= layout.blocks);
    runs.flat_map(|run| run.first..run.first.saturating_add(run.blocks))
}

/// Checks a shard, whose lock the caller holds. Adds its blocks to `owned` and its entries to `walked`. Ends early when there are
/// enough complaints.
fn check_shard<H: Host>(
    guard: &Guard<'_, H>,
    tier: &Tier<'_, H>,
    owned: &mut Owned,
    walked: &mut Walks,
    complaints: &mut Vec<String>,
) -> Result<(), TryReserveError> {
    let mut walk = ShardWalk {
        guard,
        tier,
        owned,
        walked,
        complaints,
        mine: Mine {
            own: BlockSet::of(tier.layout.first_block(guard.index()), tier.layout.blocks.into())?,
            others: Blocks::default(),
        },
        linked: Blocks::default(),
        hidden: 0,
        queued: [0; 2],
    };
    guard.prefetch_blocks();
    for bucket in 0..guard.buckets() {
        if !walk.check_bucket(bucket)? {
            return Ok(());
        }
    }
    walk.check_counts();
    walk.complaints.extend(guard.flights().complaints(FINDINGS_PER_SHARD));
    walk.complaints.extend(guard.directory_complaints(FINDINGS_PER_SHARD));
    for queue in [Queue::Small, Queue::Main] {
        check_queue(guard, queue, &walk.linked, walk.queued[queue as usize], walk.complaints)?;
    }
    Ok(())
}

/// The walk through the entries of a shard.
struct ShardWalk<'w, H: Host> {
    /// The shard, whose lock is held.
    guard: &'w Guard<'w, H>,
    /// The tier.
    tier: &'w Tier<'w, H>,
    /// The blocks of the entries of all shards so far.
    owned: &'w mut Owned,
    /// The figures of the spaces so far.
    walked: &'w mut Walks,
    /// The errors that were found.
    complaints: &'w mut Vec<String>,
    /// The blocks of this shard's entries.
    mine: Mine,
    /// The first blocks of all entries that buckets lead to.
    linked: Blocks,
    /// The number of hidden entries: announced changes.
    hidden: u64,
    /// The blocks of the entries of each queue.
    queued: [u64; 2],
}

impl<H: Host> ShardWalk<'_, H> {
    /// Checks the entries of a bucket. Returns false when there are enough complaints.
    fn check_bucket(&mut self, bucket: u32) -> Result<bool, TryReserveError> {
        let guard = self.guard;
        for entry in guard.in_bucket(bucket) {
            let header = entry.header();
            if self.complaints.len() >= FINDINGS_PER_SHARD {
                return Ok(false);
            }
            self.linked.try_reserve(1)?;
            if !self.linked.insert(entry.block) {
                self.complaints.push(format!("bucket {bucket} leads to block {} twice", entry.block));
                break;
            }
            if !header.has(LINKED) || header.key_len() == 0 {
                self.complaints
                    .push(format!("bucket {bucket} leads to block {}, which is no entry", entry.block));
                break;
            }
            if guard.bucket_of(header.hash()) != bucket {
                self.complaints.push(format!("the entry in block {} is in the wrong bucket", entry.block));
            }
            if header.has(HIDDEN) {
                self.hidden += 1;
            } else {
                self.queued[usize::from(header.has(IN_MAIN))] += u64::from(header.blocks());
            }
            self.check_runs(&entry, &header)?;
        }
        Ok(true)
    }

    /// Checks that the blocks of an entry are in use, and that no other entry has them.
    fn check_runs(&mut self, entry: &Entry<'_>, header: &Header) -> Result<(), TryReserveError> {
        let layout = &self.tier.layout;
        self.walked.try_reserve(1)?;
        let space = self.walked.entry(header.space_id()).or_default();
        space.entries += u64::from(!header.has(HIDDEN));
        let mut bytes = 0;
        'runs: for data in entry.runs(layout, header) {
            bytes += data.byte_len();
            space.blocks += u64::from(data.run.blocks);
            if data.run.blocks > layout.blocks {
                self.complaints.push(format!("the entry in block {} is larger than the shard", entry.block));
                break;
            }
            let owner = layout.shard_of_block(data.run.first);
            let are_in_use =
                owner < layout.shards && Bitmap::new(self.tier.region, layout, owner).are_in_use(data.run);
            if are_in_use && self.mine.add_own(data.run, layout) {
                self.owned.add(data.run);
                continue;
            }
            // The slow way finds the block that is not in order, or blocks of another shard.
            for block in data.run.first..data.run.first.saturating_add(data.run.blocks) {
                if !self.mine.add(block, layout)? {
                    self.complaints.push(format!("block {block} belongs to two entries"));
                    // The chain of runs may be a cycle.
                    break 'runs;
                }
                let shard = layout.shard_of_block(block);
                if shard >= layout.shards || !Bitmap::new(self.tier.region, layout, shard).is_in_use(block) {
                    self.complaints.push(format!("block {block} belongs to an entry and is free"));
                    break 'runs;
                }
            }
            self.owned.add(data.run);
        }
        if bytes < header.byte_len() {
            let (block, wanted) = (entry.block, header.byte_len());
            self.complaints.push(format!("the entry in block {block} has {bytes} of its {wanted} bytes"));
        }
        Ok(())
    }

    /// Compares the numbers of entries and of hidden entries with the counts of the shard.
    fn check_counts(&mut self) {
        let (entries, hidden) = (self.guard.entries(), self.guard.hidden());
        if self.linked.len() as u64 != entries.wrapping_add(hidden) || self.hidden != hidden {
            self.complaints.push(format!(
                "{} entries are linked, {} of them hidden; {entries} and {hidden} are counted",
                self.linked.len(),
                self.hidden,
            ));
        }
    }
}

/// The entries and blocks of one space that a walk has counted.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Walked {
    /// The number of entries.
    entries: u64,
    /// The number of blocks.
    blocks: u64,
}

/// The figures in the cells of spaces (`figures/statistics.rs`), and what a walk has found of the spaces.
///
/// Other backends may work between one shard and the next. Figures that change meanwhile cannot be compared, so the cells are read
/// before and after the walk.
struct Spaces {
    /// The counts and the blocks in each cell before the walk.
    before: Vec<(Counts, u64)>,
    /// The findings by database and space.
    walked: Walks,
    /// The number of blocks in use, by the bitmaps of all shards.
    used: u64,
    /// Whether a shard is switched off. The entries of such a shard are unknown.
    poisoned: bool,
}

impl Spaces {
    fn of<H: Host>(tier: &Tier<'_, H>) -> Result<Self, TryReserveError> {
        Ok(Self { before: Self::cells(tier)?, walked: Walks::default(), used: 0, poisoned: false })
    }

    /// Reads the counts and the blocks in each cell.
    fn cells<H: Host>(tier: &Tier<'_, H>) -> Result<Vec<(Counts, u64)>, TryReserveError> {
        let statistics = &tier.statistics;
        let mut cells = Vec::new();
        for cell in statistics.cells() {
            cells.try_reserve(1)?;
            cells.push((statistics.counts(cell), statistics.blocks(cell)));
        }
        Ok(cells)
    }

    /// Compares the cells with what the walk has found, unless they have changed during the walk.
    fn complaints<H: Host>(self, tier: &Tier<'_, H>) -> Result<Vec<String>, TryReserveError> {
        let now = Self::cells(tier)?;
        if self.poisoned {
            return Ok(Vec::new());
        }
        let mut found = Vec::new();
        found.try_reserve_exact(now.len())?;
        found.resize(now.len(), Walked::default());
        for (space_id, walked) in self.walked {
            let cell = &mut found[tier.cell_of(space_id) as usize];
            cell.entries += walked.entries;
            cell.blocks += walked.blocks;
        }
        let mut complaints = Vec::new();
        for (cell, (found, (before, now))) in found.iter().zip(self.before.iter().zip(&now)).enumerate() {
            let (counts, blocks) = now;
            // A cell also counts reserved blocks, which belong to no entry yet. So it may count more blocks than were found.
            if before == now && (entries(counts) != found.entries || *blocks < found.blocks) {
                complaints.push(format!(
                    "cell {cell}: {} entries in {} blocks are there, {} and {blocks} are counted",
                    found.entries,
                    found.blocks,
                    entries(counts),
                ));
            }
        }
        let counted = now.iter().fold(0_u64, |sum, (_, blocks)| sum.saturating_add(*blocks));
        if self.before == now && counted != self.used {
            complaints.push(format!("{} blocks are in use, the spaces' are {counted}", self.used));
        }
        complaints.truncate(FINDINGS_PER_SHARD);
        Ok(complaints)
    }
}

/// Walks a queue of a shard from its oldest entry. `linked` has the first blocks of all entries of the shard, and `blocks` is the
/// number of blocks that the entries of the queue have.
fn check_queue<H: Host>(
    guard: &Guard<'_, H>,
    queue: Queue,
    linked: &Blocks,
    blocks: u64,
    complaints: &mut Vec<String>,
) -> Result<(), TryReserveError> {
    if guard.queued(queue) != blocks {
        complaints.push(format!(
            "the {queue:?} queue counts {} blocks, its entries have {blocks}",
            guard.queued(queue)
        ));
    }
    let mut seen = Blocks::default();
    let mut older = 0;
    let mut next: Option<Entry<'_>> = guard.oldest(queue);
    while let Some(entry) = next.filter(|_| complaints.len() < FINDINGS_PER_SHARD) {
        seen.try_reserve(1)?;
        if !linked.contains(&entry.block) || !seen.insert(entry.block) {
            complaints.push(format!(
                "the {queue:?} queue leads to block {}, which does not belong there",
                entry.block
            ));
            return Ok(());
        }
        if entry.older() != older {
            complaints.push(format!(
                "block {} does not know the one before it in the {queue:?} queue",
                entry.block
            ));
        }
        older = entry.block;
        next = (entry.newer() != 0).then(|| guard.entry(entry.newer()));
    }
    Ok(())
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;
    use crate::key::Key;
    use crate::layout::Sizes;
    use crate::region::Region;
    use crate::testing::{SIZES, TestHost, memory, value};
    use crate::tier::entry::{CHAINED, RUN_BLOCKS_MIN, link_at};

    /// Damage may turn the chain of an entry's runs into a cycle. The check must end after the first turn and report it once. If it
    /// followed the cycle, it would report each block again. The damaged length does not fit the counts of the shard either, so
    /// there are a few more complaints.
    #[test]
    fn an_entry_whose_runs_go_round_is_complained_of_once() {
        let memory = memory(1024 * 1024);
        let host = TestHost::default();
        let sizes = Sizes { shards: 1, ..SIZES };
        let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
        let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
        tier.put(&key, &value(b"value", &[])).expect("it is stored");
        let guard = tier.shard_of(&key).lock(&tier.host);
        let (entry, header) = guard.find(&key).expect("it was just stored");
        // Makes the entry as long as possible, with a chain of runs in which each run is the first one again.
        entry.set_flag(CHAINED, true);
        entry.set_word(3, header.words[3] | u64::from(u32::MAX));
        entry.set_word(6, header.words[6] | u64::from(RUN_BLOCKS_MIN));
        let run = crate::blocks::Run { first: entry.block, blocks: RUN_BLOCKS_MIN };
        tier.region.store(link_at(&tier.layout, run), u64::from(run.first) << 32 | u64::from(run.blocks));
        let mut complaints = Vec::new();
        let mut walked = Walks::default();
        let mut owned = Owned::of(&tier.layout).expect("there is memory");
        check_shard(&guard, &tier, &mut owned, &mut walked, &mut complaints).expect("there is memory");
        assert!((1..10).contains(&complaints.len()), "{} complaints", complaints.len());
    }
}
