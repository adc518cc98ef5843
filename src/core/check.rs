//! Walks every structure and says what is wrong.
//!
//! Under the shard's lock, one shard at a time, so that others are at work between one and the next: an entry's blocks in another
//! shard may be seen as they are a moment later. What is wrong stays wrong. So whatever is found is looked for again, and only
//! what is found each time is told.

use crate::Host;
use crate::entry::{Entry, HIDDEN, IN_MAIN, LINKED};
use crate::fence::Fences;
use crate::layout::Layout;
use crate::shard::{Guard, Queue, Shard};
use crate::statistics::{Counts, entries};
use crate::tier::Tier;
use std::collections::{HashMap, HashSet};

/// A damaged shard could fill pages: the first findings tell as much.
const FINDINGS_PER_SHARD: usize = 8;

/// All that may be told: somebody is to read it.
const FINDINGS: usize = 100;
/// How often a finding has to be made.
const LOOKS: usize = 3;

pub(crate) fn check<H: Host>(tier: &Tier<'_, H>) -> Vec<String> {
    let mut findings = look(tier);
    for _ in 1..LOOKS {
        if findings.is_empty() {
            break;
        }
        let again: HashSet<String> = look(tier).into_iter().collect();
        findings.retain(|finding| again.contains(finding));
    }
    findings.truncate(FINDINGS);
    findings
}

fn look<H: Host>(tier: &Tier<'_, H>) -> Vec<String> {
    let (region, layout, host) = (tier.region, &tier.layout, &tier.host);
    let mut findings = Vec::new();
    let mut spaces = Spaces::of(tier);
    // Blocks that belong to entries, over all shards: an entry may have blocks in several.
    let mut owned: HashSet<u32> = HashSet::new();
    for number in 0..layout.shards {
        let guard = Shard::new(region, layout, number).lock(host);
        let mut complaints = Vec::new();
        if guard.poisoned() {
            complaints.push("it is switched off after a panic".into());
        } else {
            check_shard(&guard, layout, &mut owned, &mut spaces.walked, &mut complaints);
        }
        spaces.poisoned |= guard.poisoned();
        drop(guard);
        complaints.truncate(FINDINGS_PER_SHARD);
        findings.extend(complaints.into_iter().map(|complaint| format!("shard {number}: {complaint}")));
    }
    for number in 0..layout.shards {
        let guard = Shard::new(region, layout, number).lock(host);
        let (counted, free) = (guard.bitmap().count(), guard.free_blocks());
        spaces.used += u64::from(counted);
        if u64::from(counted) + u64::from(free) != u64::from(layout.blocks) {
            findings.push(format!(
                "shard {number}: {counted} blocks in use and {free} free are not {}",
                layout.blocks
            ));
        }
    }
    for block in &owned {
        let guard = Shard::new(region, layout, layout.shard_of_block(*block)).lock(host);
        if !guard.bitmap().holds(*block) {
            findings.push(format!("block {block} belongs to an entry and is free"));
        }
    }
    findings.extend(spaces.complaints(tier));
    let fences = Fences::new(region, layout);
    let pending = fences.all().filter(|fence| fences.pending(*fence) > 0).count();
    if pending > 0 {
        findings.push(format!("{pending} fences are raised"));
    }
    findings
}

fn check_shard<H: Host>(
    guard: &Guard<'_, H>,
    layout: &Layout,
    owned: &mut HashSet<u32>,
    walked: &mut HashMap<u64, Walked>,
    complaints: &mut Vec<String>,
) {
    let mut linked = HashSet::new();
    let mut hidden = 0;
    let mut queued = [0u64; 2];
    for bucket in 0..guard.buckets() {
        for entry in guard.in_bucket(bucket) {
            let header = entry.header();
            if !linked.insert(entry.block) {
                complaints.push(format!("bucket {bucket} leads to block {} twice", entry.block));
                break;
            }
            if !header.has(LINKED) || header.key_len() == 0 {
                complaints.push(format!("bucket {bucket} leads to block {}, which is no entry", entry.block));
                break;
            }
            if header.has(HIDDEN) {
                hidden += 1;
            }
            if guard.bucket_of(header.hash()) != bucket {
                complaints.push(format!("the entry in block {} is in the wrong bucket", entry.block));
            }
            if !header.has(HIDDEN) {
                queued[usize::from(header.has(IN_MAIN))] += u64::from(header.blocks());
            }
            let space = walked.entry(header.place()).or_default();
            space.entries += u64::from(!header.has(HIDDEN));
            let mut bytes = 0;
            'runs: for data in entry.runs(layout, &header) {
                bytes += data.bytes();
                space.blocks += u64::from(data.run.blocks);
                if data.run.blocks > layout.blocks {
                    complaints.push(format!("the entry in block {} is larger than the shard", entry.block));
                    break;
                }
                for block in data.run.first..data.run.first.saturating_add(data.run.blocks) {
                    if !owned.insert(block) {
                        complaints.push(format!("block {block} belongs to two entries"));
                        // Perhaps a chain that goes round.
                        break 'runs;
                    }
                }
            }
            if bytes < header.bytes() {
                complaints.push(format!(
                    "the entry in block {} has {bytes} of its {} bytes",
                    entry.block,
                    header.bytes()
                ));
            }
        }
    }
    if linked.len() as u64 != guard.entries().wrapping_add(guard.hidden()) || hidden != guard.hidden() {
        complaints.push(format!(
            "{} entries are linked, {hidden} of them hidden; {} and {} are counted",
            linked.len(),
            guard.entries(),
            guard.hidden()
        ));
    }
    complaints.extend(guard.flights().complaints());
    for queue in [Queue::Small, Queue::Main] {
        check_queue(guard, queue, &linked, queued[queue as usize], complaints);
    }
}

/// What was found of a space.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Walked {
    entries: u64,
    blocks: u64,
}

/// What the cells say of spaces, and what was found of them.
///
/// Others may be at work between one shard and the next. What changes meanwhile cannot be compared, so the cells are
/// read before and after.
struct Spaces {
    before: Vec<(Counts, u64)>,
    /// By database and space.
    walked: HashMap<u64, Walked>,
    /// Blocks that are in use.
    used: u64,
    /// Of a shard that is switched off nothing is known.
    poisoned: bool,
}

impl Spaces {
    fn of<H: Host>(tier: &Tier<'_, H>) -> Self {
        Self { before: Self::cells(tier), walked: HashMap::new(), used: 0, poisoned: false }
    }

    fn cells<H: Host>(tier: &Tier<'_, H>) -> Vec<(Counts, u64)> {
        let statistics = &tier.statistics;
        statistics.cells().map(|cell| (statistics.counts(cell), statistics.blocks(cell))).collect()
    }

    fn complaints<H: Host>(self, tier: &Tier<'_, H>) -> Vec<String> {
        let now = Self::cells(tier);
        if self.poisoned {
            return Vec::new();
        }
        let mut found = vec![Walked::default(); now.len()];
        for (place, walked) in self.walked {
            let cell = &mut found[tier.cell_of(place) as usize];
            cell.entries += walked.entries;
            cell.blocks += walked.blocks;
        }
        let mut complaints = Vec::new();
        for (cell, (found, (before, now))) in found.iter().zip(self.before.iter().zip(&now)).enumerate() {
            let (counts, blocks) = now;
            // What is reserved is nobody's entry yet.
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
        complaints
    }
}

fn check_queue<H: Host>(
    guard: &Guard<'_, H>,
    queue: Queue,
    linked: &HashSet<u32>,
    blocks: u64,
    complaints: &mut Vec<String>,
) {
    if guard.queued(queue) != blocks {
        complaints.push(format!(
            "the {queue:?} queue counts {} blocks, its entries have {blocks}",
            guard.queued(queue)
        ));
    }
    let mut seen = HashSet::new();
    let mut older = 0;
    let mut next: Option<Entry<'_>> = guard.oldest(queue);
    while let Some(entry) = next {
        if !linked.contains(&entry.block) || !seen.insert(entry.block) {
            complaints.push(format!(
                "the {queue:?} queue leads to block {}, which has no place there",
                entry.block
            ));
            return;
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
}

#[cfg(all(test, not(any(loom, counting))))]
mod tests {
    use super::*;
    use crate::entry::{CHAINED, RUN_BLOCKS_MIN, link_at};
    use crate::layout::Sizes;
    use crate::region::Region;
    use crate::sync::AtomicU64;
    use crate::{Cost, Key, Kind, NewValue, Stamp};

    struct Alone;

    impl Host for Alone {
        fn now(&self) -> u32 {
            1
        }
        fn lock(&self, _shard: u32) {}
        fn unlock(&self, _shard: u32) {}
    }

    #[test]
    fn an_entry_whose_runs_go_round_is_complained_of_once() {
        let memory: Vec<_> = (0..1024 * 1024 / 8).map(|_| AtomicU64::new(0)).collect();
        let sizes =
            Sizes { bytes: 0, reserved_fences: 4, relation_fences: 0, tag_fences: 1, counters: 1, shards: 1 };
        let tier = Tier::format(Region::of_words(&memory), sizes, Alone, 0).expect("it fits");
        let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
        let value = NewValue {
            bytes: b"value",
            kind: Kind(1),
            stamp: Stamp::VOID,
            expires: u32::MAX,
            cost: Cost::NONE,
            dependencies: &[],
        };
        tier.put(&key, &value).expect("it is stored");
        let guard = tier.shard_of(&key).lock(&tier.host);
        let (entry, header) = guard.find(&key).expect("it was just stored");
        // As long as can be, in runs of which each is the first one again.
        entry.set_flag(CHAINED, true);
        entry.set_word(3, header.words[3] | u64::from(u32::MAX));
        entry.set_word(6, header.words[6] | u64::from(RUN_BLOCKS_MIN));
        let run = crate::blocks::Run { first: entry.block, blocks: RUN_BLOCKS_MIN };
        tier.region.store(link_at(&tier.layout, run), u64::from(run.first) << 32 | u64::from(run.blocks));
        let mut complaints = Vec::new();
        let mut walked = HashMap::new();
        check_shard(&guard, &tier.layout, &mut HashSet::new(), &mut walked, &mut complaints);
        assert!((1..10).contains(&complaints.len()), "{} complaints", complaints.len());
    }
}
