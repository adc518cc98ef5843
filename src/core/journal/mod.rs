//! The journal: a ring of records that name what has changed. It is for readers outside of the changing transactions: sessions and
//! workers that tell caches outside of the database which keys, tags or relations have changed. `store/journal.rs` of the extension
//! appends the records.
//!
//! A writer appends a record *after* its change is visible to other sessions. So a reader that has taken the number of the last
//! record, and then looks at the database, finds everything that a record up to this number names.
//!
//! # The ring
//!
//! ```text
//! base      the number from which the records count; 0 while the journal is unused          a line of its own
//! tail      how many lines were ever reserved                                                a line of its own
//! lines     header | 7 words                                                                 line.rs
//! ```
//!
//! A record takes one line or several in a row. A *position* counts the lines since the life of the journal began: position `p`
//! lies in line `p % n` of the `n` lines of the ring, in its lap `p / n + 1`. The *number* of a record is `base` plus the position
//! behind its last line.
//!
//! A *life* of the journal begins when it is first used. It ends when the memory is formatted, or revived with a record that is not
//! whole (`reading.rs`). The caller chooses a `base` above all numbers of earlier lives, so a number of another life lies below
//! `base` or above `base + tail`.
//!
//! # Access rules
//!
//! No lock protects the ring, so no writer ever waits for another one.
//! 1. A writer reserves lines by adding to `tail`. Then it writes the words of each line, and then the line's header, which has the
//!    lap. It writes the first line of a record last.
//! 2. A reader stops at a line whose header has an earlier lap: its writer is still busy. A reader must never skip it, because the
//!    record may name a change that is visible already.
//! 3. After a reader has copied a record, it must check that `tail` has not come around to the record's lines. Otherwise a later
//!    writer may have overwritten them, and the record counts as lost.
//! 4. A writer may be so slow that later writers have come around to its lines. Then both write to the same words. A header is only
//!    ever replaced by one of a later lap, and has a checksum of the line. So a reader finds the record of the later writer, or
//!    finds that the line is damaged, and then the record counts as lost, too. (The checksum has 18 bits, so it misses one such
//!    mixture in 262 144.)
//! 5. A reader that has lost a record must start anew. Nothing tells it what it has missed.
//!
//! The loom models in `tests/models/journal.rs` try the orders of these steps under the memory model, except for rule 4, which has
//! too many; `tests.rs` has one of them. The models in `tests/protocol/journal/` prove that a cache which follows the journal is
//! never stale, and which relations must be named.

mod line;
mod reading;
mod ring;
#[cfg(all(test, not(any(loom, counting))))]
mod tests;

pub use line::{Record, What};
pub use reading::{Lost, NextRecord};
pub use ring::{BATCH_MAX, Journal};
