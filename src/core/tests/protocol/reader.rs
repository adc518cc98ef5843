//! A reader of one entry, under READ COMMITTED, or under REPEATABLE READ. It takes one step for each fence that it
//! checks, and judges at the end whether the value that it got was right.
//!
//! A REPEATABLE READ reader has a *safe stamp*: the number on the clock of changes just before it took its snapshot. It
//! must not use an entry whose fence has a later number.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed.
//!
//! The models of this folder that check the fences of an entry one by one share this reader. In the code, the checks are in
//! `tier/reading.rs` of the core.

use crate::memory::{Fence, LATEST};

/// One atomic step of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Under REPEATABLE READ: notes the current number as the reader's safe stamp.
    Horizon,
    /// Begins. The reader must see every change that is visible now. Under REPEATABLE READ it must not see any other.
    Begin,
    /// Finds the entry that this actor has published.
    Find(usize),
    /// Checks this fence of the entry.
    Check(usize),
    // Only variants have the following steps.
    /// Checks that this fence of the entry is not raised.
    CheckPending(usize),
    /// Checks that `seq` of this fence is not beyond the stamp, nor beyond the safe stamp.
    CheckSeq(usize),
}

/// How the read ended. The order of the checks matters: a hit is stale even if it is also from the future.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A miss while another actor has changed something or is about to.
    Miss,
    /// A miss although no other actor has changed anything or is about to.
    MissForNothing,
    Hit,
    /// A hit on a value that lacks a change which was visible when the reader began.
    Stale,
    /// A hit on a value with a change that the reader's snapshot lacks, or with a change that is not committed.
    Future,
}

/// The state of a reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    /// How many steps of its program the reader has taken.
    at: u8,
    /// Whether the reader is under REPEATABLE READ.
    pub repeatable: bool,
    /// [`LATEST`] under READ COMMITTED.
    pub safe_stamp: u8,
    /// The changes that were visible when the reader began, as bits.
    pub visible: u8,
    /// Whether a transaction had aborted before the reader began.
    pub after_abort: bool,
    /// The actor whose entry the reader has found.
    pub found: Option<u8>,
    /// None while the read goes on.
    pub outcome: Option<Outcome>,
}

/// The entry that a reader finds. `value` is the set of the changes that the value contains, one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The stamp of the value.
    pub stamp: u8,
    /// The changes that the value contains, one bit for each.
    pub value: u8,
}

/// The state of the model that a reader sees in a step. Sets of changes have one bit for each change.
pub struct View<'v> {
    /// The clock of changes: the number that was drawn last.
    pub now: u8,
    /// The fences of the model.
    pub fences: &'v [Fence],
    /// The changes that are visible.
    pub visible: u8,
    /// The changes that matter to the value, because it depends on them.
    pub relevant: u8,
    /// The changes of rows. A snapshot hides newer ones. Changes of catalogs are not in it: catalogs are always read
    /// as they are now.
    pub rows: u8,
    /// Whether a transaction has aborted.
    pub aborted: bool,
    /// Whether a transaction has changed anything or is about to.
    pub disturbed: bool,
}

/// Returns the steps of a reader, as the code takes them. `dependencies` are the fences that it checks, in this order. `Find(0)`
/// stands for the step that finds any entry.
pub fn program(repeatable: bool, dependencies: &[usize]) -> Vec<Read> {
    let begin: &[Read] = if repeatable { &[Read::Horizon, Read::Begin] } else { &[Read::Begin] };
    let checks = dependencies.iter().map(|fence| Read::Check(*fence));
    begin.iter().copied().chain([Read::Find(0)]).chain(checks).collect()
}

impl Reader {
    /// Makes a reader that has not begun.
    pub fn new(repeatable: bool) -> Self {
        Self {
            at: 0,
            repeatable,
            safe_stamp: LATEST,
            visible: 0,
            after_abort: false,
            found: None,
            outcome: None,
        }
    }

    /// Returns the possible next steps: none once the read has ended. `entries` are the actors that have published an
    /// entry; the reader may find any of them, and waits while there is none.
    pub fn next(&self, program: &[Read], entries: impl Iterator<Item = usize>) -> Vec<Read> {
        match program.get(usize::from(self.at)).filter(|_| self.outcome.is_none()) {
            Some(Read::Find(_)) => entries.map(Read::Find).collect(),
            step => step.copied().into_iter().collect(),
        }
    }

    /// Takes a step. `entry` is the entry that the reader has found, and does not matter before that. A check that
    /// fails ends the read with a miss. The last step of the program ends it with a hit, and judges the value.
    pub fn step(&mut self, step: Read, program: &[Read], view: &View<'_>, entry: Entry) {
        self.at += 1;
        let mut passed = true;
        match step {
            Read::Horizon => self.safe_stamp = view.now,
            Read::Begin => (self.visible, self.after_abort) = (view.visible, view.aborted),
            Read::Find(entry) => self.found = Some(entry as u8),
            Read::Check(fence) => passed = view.fences[fence].holds(entry.stamp, self.safe_stamp),
            Read::CheckPending(fence) => passed = view.fences[fence].pending == 0,
            Read::CheckSeq(fence) => passed = view.fences[fence].seq <= entry.stamp.min(self.safe_stamp),
        }
        if !passed {
            self.outcome = Some(if view.disturbed { Outcome::Miss } else { Outcome::MissForNothing });
        } else if usize::from(self.at) == program.len() {
            let may_see = if self.repeatable { self.visible } else { view.visible };
            self.outcome = Some(if self.visible & view.relevant & !entry.value != 0 {
                Outcome::Stale
            } else if entry.value & view.relevant & view.rows & !may_see != 0 {
                Outcome::Future
            } else {
                Outcome::Hit
            });
        }
    }

    /// Returns whether the read has ended with a right value, and `condition` holds for the reader.
    pub fn hit(&self, condition: impl Fn(&Self) -> bool) -> bool {
        self.outcome == Some(Outcome::Hit) && condition(self)
    }
}
