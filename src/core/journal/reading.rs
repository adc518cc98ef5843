//! Reading the journal, the ring of records that name what has changed, and finding its oldest record. `mod.rs` has the rules for
//! readers. `store/changes.rs`, `store/broadcast.rs` and background workers of the extension read it.
//!
//! A *life* of the journal begins when it is first used, and ends when its memory is formatted or damaged. Numbers of another life
//! are of no use.

use super::line::{Found, Record, copy};
use super::ring::{AT_TAIL, Journal};
use crate::key::KEY_BYTES_MAX;
use crate::layout::{JOURNAL_HEAD_WORDS, LINE};
use crate::sync::{Ordering, fence};

/// The reader may have missed records: they were overwritten, its number belongs to another life of the journal, or no life has
/// begun. It must start anew with [`Journal::last`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lost;

/// The next record of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NextRecord<'b> {
    /// The number of the record. The reader passes it to the next [`read`](Journal::read).
    pub number: u64,
    /// The change.
    pub record: Record<'b>,
    /// The tick at which it was appended.
    pub tick: u32,
}

impl<'m> Journal<'m> {
    /// Returns the first record behind a number, which must be that of a record, or one that [`last`](Self::last) or
    /// [`oldest`](Self::oldest) has returned. The name of the record is in `name`. Returns None if there is no further record, or
    /// if its writer is still busy: then the reader asks again later with the same number.
    pub fn read<'b>(
        &self,
        after: u64,
        name: &'b mut [u8; KEY_BYTES_MAX],
    ) -> Result<Option<NextRecord<'b>>, Lost> {
        let base = self.base();
        let position = after.checked_sub(base).filter(|_| base > 0).ok_or(Lost)?;
        let tail = self.tail();
        if position == tail {
            return Ok(None);
        }
        if position > tail || tail - position > self.lines {
            return Err(Lost);
        }
        let copied = match copy(|part| self.line(position + part), name) {
            Found::Written(copied) => Some(copied),
            Found::Busy => None,
            Found::Lost => return Err(Lost),
        };
        // A later writer reserves the lines before it overwrites a word of them. So if the copy has such a word, this look at
        // `tail` finds the reservation.
        fence(Ordering::Acquire);
        let tail = self.region.load(self.at + AT_TAIL);
        if tail - position > self.lines {
            return Err(Lost);
        }
        let Some(copied) = copied else { return Ok(None) };
        let number = after + copied.lines();
        if number - base > tail {
            return Err(Lost);
        }
        let record = Record {
            what: copied.what,
            database: copied.database,
            object: copied.object,
            role: copied.role,
            name: &name[..copied.length],
        };
        Ok(Some(NextRecord { number, record, tick: copied.tick }))
    }

    /// Returns a number behind which the journal has all records, as far back as possible: the place of the oldest record in the
    /// ring that is written. None before the first life. Writers may come around to this place before the caller reads; then the
    /// read returns [`Lost`].
    pub fn oldest(&self) -> Option<u64> {
        let last = self.last()?;
        let (base, tail) = (self.base(), self.tail());
        let first = tail.saturating_sub(self.lines);
        if first == 0 {
            return Some(base);
        }
        // The ring may begin in the middle of a record, or with a record that is not written yet.
        let begins = |position: &u64| self.line(*position).begins_record();
        Some((first..tail).find(begins).map_or(last, |position| base + position))
    }

    /// Ends the life of the journal, unless all of its records that are still in the ring are whole. No other process may use the
    /// journal meanwhile (`tier/reviving.rs`).
    pub(crate) fn revive(&self) {
        let mut name = [0; KEY_BYTES_MAX];
        let mut at = self.oldest();
        while let Some(after) = at {
            match self.read(after, &mut name) {
                Ok(Some(next)) => at = Some(next.number),
                Ok(None) if Some(after) == self.last() => return,
                Ok(None) | Err(Lost) => {
                    for word in 0..JOURNAL_HEAD_WORDS + self.lines as usize * LINE {
                        self.region.store(self.at + word, 0);
                    }
                    return;
                }
            }
        }
    }
}
