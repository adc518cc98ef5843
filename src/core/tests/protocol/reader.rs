//! A reader of one entry, under READ COMMITTED, or under REPEATABLE READ with a safe stamp. It takes one step for each
//! fence that it checks, and judges at the end whether the value it got was right.

use crate::memory::{Fence, LATEST};

/// One atomic step of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Under REPEATABLE READ: notes the current number as the reader's safe stamp.
    Horizon,
    /// Begins. The reader must see what is visible now. Under REPEATABLE READ it must not see anything else.
    Begin,
    /// Finds the entry that this actor has published.
    Find(usize),
    Check(usize),
    // Only variants have the following steps.
    CheckPending(usize),
    CheckSeq(usize),
}

/// How the read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
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
    at: u8,
    pub repeatable: bool,
    pub safe_stamp: u8,
    pub visible: u8,
    /// Whether a transaction had aborted before the reader began.
    pub after_abort: bool,
    pub found: Option<u8>,
    pub outcome: Option<Outcome>,
}

/// The entry that a reader finds. `value` is the set of the changes that the value contains, one bit for each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub stamp: u8,
    pub value: u8,
}

/// The state of the model that a reader sees in a step.
pub struct View<'v> {
    pub now: u8,
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

/// Returns the steps of a reader, as the code takes them.
pub fn program(repeatable: bool, dependencies: &[usize]) -> Vec<Read> {
    let begin: &[Read] = if repeatable { &[Read::Horizon, Read::Begin] } else { &[Read::Begin] };
    let checks = dependencies.iter().map(|fence| Read::Check(*fence));
    begin.iter().copied().chain([Read::Find(0)]).chain(checks).collect()
}

impl Reader {
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

    /// Returns the possible next steps. `entries` are the actors that have published an entry.
    pub fn next(&self, program: &[Read], entries: impl Iterator<Item = usize>) -> Vec<Read> {
        match program.get(usize::from(self.at)).filter(|_| self.outcome.is_none()) {
            Some(Read::Find(_)) => entries.map(Read::Find).collect(),
            step => step.copied().into_iter().collect(),
        }
    }

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

    pub fn hit(&self, what: impl Fn(&Self) -> bool) -> bool {
        self.outcome == Some(Outcome::Hit) && what(self)
    }
}
