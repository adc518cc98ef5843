//! A fence as the models see it: the counterpart of `src/core/fence/fences.rs`. It is so small that a state of the whole
//! memory takes a few bytes.
//!
//! In the code, each method is one atomic operation on one word. So it may be one step in a model. `lower` is `Fences::lower_as`,
//! and `was_alone` is `Lowered::was_alone_since`; the others have the names that they have there. A change of one of these
//! functions must be made here, too. `as_built/fences.rs` compares both.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A *fence* is a word in shared memory that
//! says when a dependency of entries last changed.

/// A fence. The numbers stay small in a model, because each writer draws only one or two.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    /// The number of the last change.
    pub seq: u8,
    /// The number of writers that have raised the fence.
    pub pending: u8,
}

impl Fence {
    /// A change is about to become visible. Each raise is followed by one `lower` or one `withdraw`.
    pub fn raise(&mut self) {
        self.pending += 1;
    }

    /// Takes one raise back with the change number `number`, and returns the fence as it was before. The fence must be raised.
    pub fn lower(&mut self, number: u8) -> Self {
        let found = *self;
        self.seq = self.seq.max(number);
        self.pending -= 1;
        found
    }

    /// Takes one raise back for a change that was aborted. The fence must be raised.
    pub fn withdraw(&mut self) {
        self.pending -= 1;
    }

    /// Returns whether a value with this stamp is right for a reader that must not see changes after `safe_stamp`.
    pub fn holds(self, stamp: u8, safe_stamp: u8) -> bool {
        self.pending == 0 && self.seq <= stamp.min(safe_stamp)
    }

    /// Returns whether a transaction that found the fence like this when it lowered it was alone: no other transaction had changed
    /// the dependency since `stamp`, and none was about to.
    pub fn was_alone(self, stamp: u8) -> bool {
        self.pending == 1 && self.seq <= stamp
    }
}

/// The safe stamp of a reader that sees everything that is committed.
pub const LATEST: u8 = u8::MAX;
