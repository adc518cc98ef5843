//! Where the savepoints of a transaction begin in a list that grows while they are open.
//!
//! Releasing a savepoint moves one mark and touches nothing in the list, so it takes the same time however long the list is.

use std::collections::TryReserveError;

/// The open savepoints under which something was added to the list.
#[derive(Debug)]
pub struct Savepoints {
    /// Inner savepoints behind outer ones. A savepoint under which nothing was added has no mark.
    marks: Vec<Mark>,
}

#[derive(Clone, Copy, Debug)]
struct Mark {
    depth: i32,
    /// The place of the first element that belongs to the savepoint. Those before it belong to outer ones.
    first: usize,
}

/// The depth outside of all savepoints, which needs no mark: it begins at the beginning.
const OUTERMOST: i32 = 1;

impl Savepoints {
    pub const NONE: Self = Self { marks: Vec::new() };

    /// The first place in a list of this length that belongs to the savepoint of this depth, the innermost open one.
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

    /// Says that the element at this place, the end of the list, belongs to the savepoint of this depth, the innermost open one. There is
    /// [room](Self::make_room) for it.
    pub fn add(&mut self, depth: i32, place: usize) {
        if depth > OUTERMOST && self.marks.last().is_none_or(|mark| mark.depth < depth) {
            self.marks.push(Mark { depth, first: place });
        }
    }

    /// The savepoint of this depth is released: its elements belong to the one around it. Whether it had any. Does not allocate.
    pub fn release(&mut self, depth: i32) -> bool {
        let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) else { return false };
        let outer = depth - 1;
        if outer > OUTERMOST && self.marks.last().is_none_or(|around| around.depth < outer) {
            // In the room that the mark had.
            self.marks.push(Mark { depth: outer, ..mark });
        }
        true
    }

    /// The savepoint of this depth is rolled back, with those inside of it: the first place of their elements, if they have any. Does
    /// not allocate.
    pub fn roll_back(&mut self, depth: i32) -> Option<usize> {
        let mut first = None;
        while let Some(mark) = self.marks.pop_if(|mark| mark.depth >= depth) {
            first = Some(mark.first);
        }
        first
    }

    /// Calls with the place of each mark, from the outermost on, which can be changed.
    pub fn places(&mut self) -> impl Iterator<Item = &mut usize> {
        self.marks.iter_mut().map(|mark| &mut mark.first)
    }
}
