//! Marks the element of a list at which each open savepoint begins. The list grows while savepoints are open. The ledger
//! (`ledger.rs`, the changes of the transaction), its patterns (`own_patterns.rs`) and the list of held leases (`held_leases.rs`)
//! are such lists.
//!
//! A *depth* is the nesting depth of a savepoint, as PostgreSQL counts it: 1 is outside of all savepoints, 2 is the outermost
//! savepoint. Releasing a savepoint changes one mark and no element of the list, so its time does not depend on the length of the
//! list.

use std::collections::TryReserveError;

/// The open savepoints that have elements in the list.
#[derive(Debug)]
pub struct SavepointMarks {
    /// One mark for each savepoint that has elements. The marks of inner savepoints come after those of outer ones.
    marks: Vec<Mark>,
}

/// The beginning of a savepoint in the list.
#[derive(Clone, Copy, Debug)]
struct Mark {
    depth: i32,
    /// The index of the first element that belongs to the savepoint. The elements before it belong to outer savepoints.
    first: usize,
}

/// The depth outside of all savepoints. It needs no mark, because the elements of this depth begin at index 0.
const TOP_LEVEL: i32 = 1;

impl SavepointMarks {
    /// The state of a transaction in which no savepoint has elements.
    pub const NONE: Self = Self { marks: Vec::new() };

    /// Forgets all savepoints. Keeps the allocated memory.
    pub fn clear(&mut self) {
        self.marks.clear();
    }

    /// Returns the index of the first element of the innermost open savepoint. `depth` must be the depth of that savepoint. If the
    /// savepoint has no elements yet, returns `length`, which must be the length of the list.
    pub fn first_of_innermost(&self, depth: i32, length: usize) -> usize {
        match self.marks.last() {
            Some(mark) if mark.depth == depth => mark.first,
            _ if depth <= TOP_LEVEL => 0,
            _ => length,
        }
    }

    /// Returns whether no open savepoint has elements. The list may still have elements from outside of all savepoints.
    pub fn is_empty(&self) -> bool {
        self.marks.is_empty()
    }

    /// Makes room for one more mark, so that [`add`](Self::add) cannot fail.
    pub fn make_room(&mut self) -> Result<(), TryReserveError> {
        self.marks.try_reserve(1)
    }

    /// Records that the innermost open savepoint owns the element at `index`, which must be the end of the list. `depth` must be
    /// the depth of that savepoint. The caller must have called [`make_room`](Self::make_room) before.
    pub fn add(&mut self, depth: i32, index: usize) {
        if depth > TOP_LEVEL && self.marks.last().is_none_or(|mark| mark.depth < depth) {
            self.marks.push(Mark { depth, first: index });
        }
    }

    /// Releases the innermost open savepoint, which must have this depth. Its elements now belong to the savepoint around it.
    /// Returns whether the savepoint had elements. Does not allocate.
    pub fn release(&mut self, depth: i32) -> bool {
        let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) else { return false };
        let outer = depth - 1;
        if outer > TOP_LEVEL && self.marks.last().is_none_or(|around| around.depth < outer) {
            // This push cannot allocate: it uses the memory of the mark that was just removed.
            self.marks.push(Mark { depth: outer, ..mark });
        }
        true
    }

    /// Rolls back the savepoint of this depth and the savepoints inside it. If they have elements, returns the index of the first
    /// one: the caller must remove this element and all that follow. Does not allocate.
    pub fn roll_back(&mut self, depth: i32) -> Option<usize> {
        let mut first = None;
        while let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) {
            first = Some(mark.first);
        }
        first
    }

    /// Returns the index of the first element of each savepoint, from the outermost to the innermost. A caller that removes
    /// elements from the list must adjust these indexes.
    pub fn first_indexes(&mut self) -> impl Iterator<Item = &mut usize> {
        self.marks.iter_mut().map(|mark| &mut mark.first)
    }
}
