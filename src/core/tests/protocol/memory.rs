//! A fence as the models see it: the twin of `src/core/fence.rs`, small enough that a state of the whole memory is a few bytes.
//!
//! Each method is one atomic operation on one word there, so it may be one step here.

/// A fence. Numbers of changes are small here: every writer draws one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Fence {
    pub seq: u8,
    pub pending: u8,
}

impl Fence {
    pub fn raise(&mut self) {
        self.pending += 1;
    }

    /// Takes a raise back as change number `number`, and returns what stood there before.
    pub fn lower(&mut self, number: u8) -> Self {
        let found = *self;
        self.seq = self.seq.max(number);
        self.pending -= 1;
        found
    }

    pub fn withdraw(&mut self) {
        self.pending -= 1;
    }

    /// Whether a value as of `stamp` is right for somebody who may not see what changed after `horizon`.
    pub fn holds(self, stamp: u8, horizon: u8) -> bool {
        self.pending == 0 && self.seq <= stamp.min(horizon)
    }

    /// Whether, to who found this when lowering, nobody else has changed anything since `stamp` or is about to.
    pub fn was_alone(self, stamp: u8) -> bool {
        self.pending == 1 && self.seq <= stamp
    }
}

/// The horizon of a reader who may see whatever is committed.
pub const LATEST: u8 = u8::MAX;
