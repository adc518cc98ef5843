//! The check of a tier: walks through the entries, the queues, the flights and the directory of every shard, compares them with the
//! bitmaps and the counts, looks for fences that stay raised, and reports errors. `cache_check` and the tests call it. A *shard* is
//! a part of the tier, the cache, with a lock of its own. A *fence* is a word that says when a dependency of entries last changed;
//! it is *raised* only while a transaction commits.
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
//! `shared_blocks` in `check/blocks.rs`.
//!
//! ```text
//! findings.rs   the findings of a check
//! blocks.rs     which entry has which blocks
//! spaces.rs     the figures of spaces
//! shard.rs      checks one shard
//! ```

mod blocks;
mod findings;
mod shard;
mod spaces;

use crate::fence::{FenceId, Fences};
use crate::host::Host;
use crate::tier::Tier;
use crate::tier::shard::Shard;
use blocks::{AllBlocks, shared_blocks};
use findings::{Doubt, FINDINGS, FINDINGS_PER_SHARD, Findings};
use shard::check_shard;
use spaces::Spaces;
use std::collections::{HashSet, TryReserveError};

/// How many looks must make the same finding in doubt before it is reported.
const LOOKS: usize = 4;

impl<H: Host> Tier<'_, H> {
    /// Verifies the tier and returns a description of each error that it finds, a hundred at most, or an error if there is no
    /// memory for the check. The caller must not hold a lock, and must not have raised a fence.
    pub fn try_check(&self) -> Result<Vec<String>, TryReserveError> {
        check(self)
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
    let mut owned = AllBlocks::of(layout)?;
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
