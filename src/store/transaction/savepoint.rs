//! Where the savepoints of a transaction begin in a list that grows while they are open.
//!
//! Releasing a savepoint moves one mark and touches no element of the list, so it takes the same time for any length of the list.

use std::collections::TryReserveError;

/// The open savepoints under which an element was added to the list.
#[derive(Debug)]
pub struct Savepoints {
    /// The marks of inner savepoints come after those of outer ones. A savepoint without elements has no mark.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    depth: i32,
    /// The index of the first element that belongs to the savepoint. The elements before it belong to outer savepoints.
    first: usize,
}

/// The depth outside of all savepoints. It needs no mark, because its elements begin at index 0.
const OUTERMOST: i32 = 1;

impl Savepoints {
    pub const NONE: Self = Self { marks: Vec::new() };

    /// Returns the index of the first element that belongs to a savepoint, in a list of this length. `depth` must be the depth of
    /// the innermost open savepoint.
    pub fn first(&self, depth: i32, length: usize) -> usize {
        match self.marks.last() {
            Some(mark) if mark.depth == depth => mark.first,
            _ if depth <= OUTERMOST => 0,
            _ => length,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Makes room for one more mark.
    pub fn make_room(&mut self) -> Result<(), TryReserveError> {
        self.marks.try_reserve(1)
    }

    /// Records that the element at this index, the end of the list, belongs to the savepoint of this depth. `depth` must be the
    /// depth of the innermost open savepoint, and there must be [room](Self::make_room) for a mark.
    pub fn add(&mut self, depth: i32, index: usize) {
        if depth > OUTERMOST && self.marks.last().is_none_or(|mark| mark.depth < depth) {
            self.marks.push(Mark { depth, first: index });
        }
    }

    /// Releases the savepoint of this depth: its elements now belong to the savepoint around it. Returns whether it had any. Does
    /// not allocate.
    pub fn release(&mut self, depth: i32) -> bool {
        let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) else { return false };
        let outer = depth - 1;
        if outer > OUTERMOST && self.marks.last().is_none_or(|around| around.depth < outer) {
            // This push cannot allocate: it uses the memory of the mark that was just removed.
            self.marks.push(Mark { depth: outer, ..mark });
        }
        true
    }

    /// Rolls back the savepoint of this depth and those inside it. Returns the index of the first of their elements, if they have
    /// any. Does not allocate.
    pub fn roll_back(&mut self, depth: i32) -> Option<usize> {
        let mut first = None;
        while let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) {
            first = Some(mark.first);
        }
        first
    }

    /// Returns the index of the first element of each savepoint, from the outermost to the innermost, for the caller to change.
    pub fn first_indexes(&mut self) -> impl Iterator<Item = &mut usize> {
        self.marks.iter_mut().map(|mark| &mut mark.first)
    }
}
