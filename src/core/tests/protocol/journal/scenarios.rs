//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.
//!
//! `mod.rs` explains the words: the *journal* is a ring of lines, a *record* names one change, a *lap* is one way around the ring,
//! and a *life* ends with a crash.
//!
//! The *cursor* of the client is the number of the last record that it has applied.
//!
//! A new variant needs a line in the test in `mod.rs`, which names the property that it must break or says that it is harmless. It
//! also needs a branch that breaks the rule: in this file, or in `writer.rs`, `client.rs` or `properties.rs`.

use super::state::{Name, Read, Write};

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    // Writers.
    /// The record is appended before the change is visible.
    AppendsBeforeVisible,
    /// The lines of the record are reserved before the change is visible, and written after that.
    ReservesBeforeVisible,
    /// The record of a changed catalog is appended before all sessions know of the change.
    AppendsBeforeSpread,
    /// The record is appended after the change is visible, and before the fence is lowered.
    AppendsBeforeLowered,
    /// A failed COMMIT PREPARED appends no record.
    ErrorAppendsNothing,
    /// The header has no checksum.
    NoChecksum,
    /// A slow writer replaces the header of a later lap.
    ReplacesLaterLap,
    /// The header has no checksum, and a slow writer replaces the header of a later lap: it just stores the header.
    JustStores,
    /// A writer claims each line of its record before it writes one. If another writer is busy with the line, it gives its record
    /// up and moves the tail on by one lap, so that readers of the record get a reset. There is no checksum.
    Claims,
    /// As in `Claims`, a writer claims the line. If another writer is busy with it, it leaves the line, and does not move the tail.
    LeavesBusyLine,
    /// As in `Claims`, a writer claims its lines. If it gives its record up, it does not release the lines that it has claimed.
    KeepsClaims,
    /// The writer writes the first line of a record first.
    FirstLineFirst,
    // Readers of the journal.
    /// The reader goes on behind a line that is not written yet.
    SkipsUnwritten,
    /// A reader that has waited long for a line that is not written returns a reset.
    GivesUpWaiting,
    /// The reader does not look at the tail after it has copied.
    NoTailAfterCopy,
    /// The reader does not look at the tail after it has copied, and writers claim lines as in `Claims`.
    ClaimsWithoutTail,
    /// A line of a later lap counts as one that is not written yet.
    WaitsForLaterLap,
    /// A number is accepted unless it is above the tail.
    AcceptsBelowBase,
    /// A life begins at the base of the life before.
    SameBase,
    /// A life begins at the last number of the life before.
    BaseAtOldTail,
    // Clients.
    /// The client notes its cursor when it has the answer.
    NotesAfterAnswer,
    /// The read is sent inside a transaction that has a snapshot.
    OldSnapshot,
    /// A standby answers the read.
    Standby,
    /// An answer is kept though a record names it.
    KeepsNamed,
    /// A reset drops the values, and keeps the answers that are under way.
    ResetSparesFlight,
    /// The client reads before it has the number of `cache_seq`.
    ReadsBeforeSeq,
    /// The answer of `cache_seq` replaces a cursor that the client already has.
    SeqReplacesCursor,
    /// A reset tells the tail, and the client needs no `cache_seq`.
    ResetTellsTail,
    /// A notification moves the cursor.
    NotifyMovesCursor,
    /// A notification drops the value.
    NotifyDrops,
    /// The client takes a record of everything for one that does not concern it.
    IgnoresEverything,
    /// The database answers with a stored entry without a look at its fence.
    IgnoresFence,
}

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Journal {
    pub variant: Variant,
    /// The lines of the ring.
    pub lines: u8,
    /// The changes that each writer makes, one after the other.
    pub changes: &'static [&'static [Name]],
    /// Whether the database stores values, under a fence.
    pub stores: bool,
    /// Whether the changes are of catalogs, which other sessions may see later than new snapshots do.
    pub spreads: bool,
    /// The threads of the client that call `cache_changes`.
    pub callers: usize,
    /// Whether the server may crash, once.
    pub crashes: bool,
}

impl Journal {
    /// Returns the identifier of a writer's change: changes are numbered through all writers. None if the writer has no such
    /// change.
    pub fn id(&self, writer: usize, change: u8) -> Option<u8> {
        let earlier: usize = self.changes[..writer].iter().map(|changes| changes.len()).sum();
        (usize::from(change) < self.changes[writer].len()).then_some(earlier as u8 + change)
    }

    /// Returns the name in the record of a change.
    pub fn name(&self, id: u8) -> Name {
        self.changes.concat()[usize::from(id)]
    }

    /// Returns the changes that concern the value, as bits.
    pub fn concerning(&self) -> u8 {
        let names = self.changes.concat();
        (0..names.len()).filter(|id| names[*id] != Name::Other).fold(0, |all, id| all | 1 << id)
    }

    /// Returns the changes whose records the client takes for ones that name the value, as bits.
    pub fn naming(&self) -> u8 {
        let names = self.changes.concat();
        let is_ignored =
            |id: &usize| names[*id] == Name::Everything && self.variant == Variant::IgnoresEverything;
        (0..names.len()).filter(is_ignored).fold(self.concerning(), |all, id| all & !(1 << id))
    }

    /// Returns how many lines the record of a change needs.
    pub fn parts(&self, id: u8) -> u8 {
        if self.name(id) == Name::LongTag { 2 } else { 1 }
    }

    /// Returns whether all records together take more lines than the ring has.
    pub fn laps(&self) -> bool {
        let changes = self.changes.concat().len() as u8;
        (0..changes).map(|id| self.parts(id)).sum::<u8>() > self.lines
    }

    /// Returns whether writers claim lines.
    pub fn claims(&self) -> bool {
        use Variant::*;
        [Claims, ClaimsWithoutTail, KeepsClaims, LeavesBusyLine].contains(&self.variant)
    }

    /// Returns whether headers have a checksum of the line.
    pub fn has_checksum(&self) -> bool {
        ![Variant::NoChecksum, Variant::JustStores].contains(&self.variant) && !self.claims()
    }

    /// Returns the steps with which a change is made and recorded, in order.
    pub fn writing(&self, id: u8) -> Vec<Write> {
        use Write::*;
        let is_fenced = self.stores && self.name(id) != Name::Other;
        let (raise, lower): (&[Write], &[Write]) = if is_fenced { (&[Raise], &[Lower]) } else { (&[], &[]) };
        let show: &[Write] = if self.spreads { &[Show, Spread] } else { &[Show] };
        let write = &self.writing_lines(id)[..];
        let append = &[&[Reserve], write].concat()[..];
        match self.variant {
            Variant::AppendsBeforeVisible => [raise, append, show, lower].concat(),
            Variant::ReservesBeforeVisible => [raise, &[Reserve], show, lower, write].concat(),
            Variant::AppendsBeforeSpread => [raise, &[Show], append, &[Spread], lower].concat(),
            Variant::AppendsBeforeLowered => [raise, show, append, lower].concat(),
            _ => [raise, show, lower, append].concat(),
        }
    }

    /// Returns the steps that write the lines of a record. The first line is written last. So a reader that finds it written finds
    /// the others written, too.
    fn writing_lines(&self, id: u8) -> Vec<Write> {
        let mut parts: Vec<_> = (0..self.parts(id)).collect();
        if self.variant != Variant::FirstLineFirst {
            parts.reverse();
        }
        let claims = parts.iter().filter(|_| self.claims()).map(|part| Write::Claim(*part));
        claims.chain(parts.iter().flat_map(|part| [Write::Body(*part), Write::Header(*part)])).collect()
    }

    /// Returns the steps of a read, in order.
    pub fn reading(&self) -> Vec<Read> {
        use Read::*;
        let mut steps = match self.variant {
            Variant::NotesAfterAnswer => vec![Look, Snapshot, Note, Keep],
            Variant::OldSnapshot => vec![Snapshot, Note, Keep],
            _ => vec![Note, Look, Snapshot, Keep],
        };
        steps.retain(|step| *step != Look || self.stores);
        steps
    }
}

impl Journal {
    /// Two transactions change the value.
    pub fn two_writers(variant: Variant) -> Self {
        let changes = &[&[Name::Key] as &[Name], &[Name::Tag]];
        Self { variant, lines: 2, changes, stores: false, spreads: false, callers: 1, crashes: false }
    }

    /// One transaction changes the value, and one changes another key. The ring has one line.
    pub fn lapped(variant: Variant) -> Self {
        Self { lines: 1, changes: &[&[Name::Key], &[Name::Other]], ..Self::two_writers(variant) }
    }

    /// The ring has two lines, for three records.
    pub fn three_records(variant: Variant) -> Self {
        Self { lines: 2, changes: &[&[Name::Key], &[Name::Other, Name::Tag]], ..Self::two_writers(variant) }
    }

    /// The ring has one line, for three records of three writers.
    pub fn three_writers(variant: Variant) -> Self {
        Self {
            lines: 1,
            changes: &[&[Name::Key], &[Name::Other], &[Name::Tag]],
            ..Self::two_writers(variant)
        }
    }

    /// Two transactions change the value, and the database stores values under fences.
    pub fn stored(variant: Variant) -> Self {
        Self { stores: true, ..Self::two_writers(variant) }
    }

    /// Two transactions change catalogs on which the value depends.
    pub fn catalogs(variant: Variant) -> Self {
        Self { spreads: true, ..Self::two_writers(variant) }
    }

    /// One transaction changes a catalog, and the database stores values under fences.
    pub fn stored_catalogs(variant: Variant) -> Self {
        Self { stores: true, changes: &[&[Name::Key]], ..Self::catalogs(variant) }
    }

    /// Two transactions change the value, and the server crashes, or is replaced by its standby.
    pub fn crashed(variant: Variant) -> Self {
        Self { crashes: true, ..Self::two_writers(variant) }
    }

    /// A prepared transaction whose names are lost, a transaction that changes another key, and a crash.
    pub fn prepared(variant: Variant) -> Self {
        Self { changes: &[&[Name::Everything], &[Name::Other]], ..Self::crashed(variant) }
    }

    /// One record takes both lines of the ring, and another one takes one line.
    pub fn long_record(variant: Variant) -> Self {
        Self { changes: &[&[Name::LongTag], &[Name::Other]], ..Self::two_writers(variant) }
    }

    /// One record takes two of the three lines of the ring, and two records take one line each.
    pub fn three_lines(variant: Variant) -> Self {
        let changes = &[&[Name::LongTag] as &[Name], &[Name::Other, Name::Key]];
        Self { lines: 3, changes, ..Self::two_writers(variant) }
    }

    /// The client has two threads that ask for changes.
    pub fn two_callers(variant: Variant) -> Self {
        Self { callers: 2, changes: &[&[Name::Key]], ..Self::two_writers(variant) }
    }

    /// The client has two threads that ask for changes, and the ring of one line laps both.
    pub fn two_lapped_callers(variant: Variant) -> Self {
        Self { callers: 2, ..Self::lapped(variant) }
    }

    /// All at once: the ring has one line, the database stores values, and the server crashes.
    pub fn all(variant: Variant) -> Self {
        Self { stores: true, crashes: true, ..Self::lapped(variant) }
    }
}
