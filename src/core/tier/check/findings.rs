//! The findings of a check, and how many of them are kept. A *finding* is a sentence about an error that the check has found in the
//! shared memory; the files of this folder make them. A *fence* is a word that says when a dependency of entries last changed; it
//! is *raised* only while a transaction commits (`fence/mod.rs`). A *shard* is a part of the tier, the cache, with a lock of its
//! own.

use crate::fence::FenceId;
use std::collections::HashSet;

/// The most findings of one shard. A damaged shard could cause pages of findings, and the first ones are enough.
pub(super) const FINDINGS_PER_SHARD: usize = 8;

/// The most findings that are reported, because a person reads them.
pub(super) const FINDINGS: usize = 100;

/// A finding that concurrent work can cause for a moment.
#[derive(PartialEq, Eq, Hash)]
pub(super) enum Doubt {
    /// A count that differs from what the walk has found.
    Counted(String),
    /// A raised fence, with its whole word. A commit changes the word even if the next writer raises the fence at once, so only a
    /// fence that stays raised without a commit makes the same finding again.
    Raised(FenceId, u64),
}

/// The findings of one walk.
pub(super) struct Findings {
    /// The findings that are certain.
    pub certain: Vec<String>,
    /// The findings in doubt.
    pub doubts: HashSet<Doubt>,
}
