//! A reader of one entry: READ COMMITTED, or REPEATABLE READ with a horizon, one step for each fence it checks.

use crate::memory::{Fence, LATEST};

/// One atomic step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Notes the moment that becomes its horizon, under REPEATABLE READ.
    Horizon,
    /// Begins: what is visible now it has to see, and under REPEATABLE READ nothing else.
    Begin,
    /// Finds the entry that this actor has published.
    Find(usize),
    Check(usize),
    // What only variants do.
    CheckPending(usize),
    CheckSeq(usize),
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Miss,
    /// Though nobody has changed anything or is about to.
    MissForNothing,
    Hit,
    /// Without a change that was visible when it began.
    Stale,
    /// With a change that its snapshot lacks, or that is not committed at all.
    Future,
}

/// The reader.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Reader {
    at: u8,
    pub repeatable: bool,
    pub horizon: u8,
    pub visible: u8,
    /// Whether somebody had aborted before it began.
    pub after_abort: bool,
    pub found: Option<u8>,
    pub outcome: Option<Outcome>,
}

/// What it may find.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Entry {
    pub stamp: u8,
    pub value: u8,
}

/// What it sees in a step.
pub struct View<'v> {
    pub now: u8,
    pub fences: &'v [Fence],
    /// The changes that are visible.
    pub visible: u8,
    /// The changes that matter to a value.
    pub relevant: u8,
    /// The changes of rows: a snapshot hides those that are newer. Catalogs are always read as they are now.
    pub rows: u8,
    /// Whether somebody has aborted.
    pub aborted: bool,
    /// Whether somebody has changed anything or is about to.
    pub disturbed: bool,
}

/// What a reader does, as it is built.
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
            horizon: LATEST,
            visible: 0,
            after_abort: false,
            found: None,
            outcome: None,
        }
    }

    /// What it does next, where `entries` are published.
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
            Read::Horizon => self.horizon = view.now,
            Read::Begin => (self.visible, self.after_abort) = (view.visible, view.aborted),
            Read::Find(entry) => self.found = Some(entry as u8),
            Read::Check(fence) => passed = view.fences[fence].holds(entry.stamp, self.horizon),
            Read::CheckPending(fence) => passed = view.fences[fence].pending == 0,
            Read::CheckSeq(fence) => passed = view.fences[fence].seq <= entry.stamp.min(self.horizon),
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
