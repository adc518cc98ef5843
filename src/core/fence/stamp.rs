//! Moments on the clock of changes, a number that each committing writer increments. A value carries a stamp that was taken before
//! the value was computed. A *fence*, the word that says when a dependency of values last changed, stores 46 bits of such a number
//! (`fence/mod.rs`). A reader with a *safe stamp* may not see changes after that moment.

/// The largest number on the clock of changes. At a million commits per second, the clock reaches it in two years. Beyond it, the
/// rules of fences do not hold. So a saved cache whose clock has reached it is not used again (`reviving.rs`).
pub(crate) const STAMP_MAX: u64 = (1 << 46) - 1;

/// A moment on the clock of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Stamp(pub(super) u64);

impl Stamp {
    /// Before every change: an entry with this stamp is invalid if a dependency of it has ever changed.
    pub const VOID: Self = Self(0);
    /// After every change: the safe stamp of a reader that may see all committed changes.
    pub const LATEST: Self = Self(STAMP_MAX);

    /// Returns the moment whose number is in the lowest 46 bits. The other bits are ignored, so the word may also hold flags there.
    pub fn from_u64(number: u64) -> Self {
        Self(number & STAMP_MAX)
    }

    /// Returns the number of the moment.
    pub fn as_u64(self) -> u64 {
        self.0
    }
}
