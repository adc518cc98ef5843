//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken. A
//! scenario and a variant decide which steps each actor takes, in which order.
//!
//! `mod.rs` explains the words: the *saver* copies entries to rows of *segments*, and a *location* in memory says where the row of
//! a value is.
//!
//! A *tier* is a cache in memory that several processes share.
//!
//! A new variant needs a line in the test in `mod.rs`, which names the property that it must break. It also needs a branch that
//! breaks the rule: in this file, or in the file of the actor (`writer.rs`, `saver.rs`, `reader.rs`, `tier.rs`).

use super::state::{Change, KEYS, Read, Write};

/// The protocol as it is built, and with one rule broken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// The saver compares the block and the stamp of an entry instead of the mark.
    ComparesBlocks,
    /// An entry with another time to live keeps its mark.
    KeepsMarkWhenTouched,
    /// The saver marks again before it copies, so that a batch may have two entries of a key.
    MarksTwice,
    /// Another saver marks entries between the steps of this one.
    TwoSavers,
    /// A row becomes an entry even if its location was forgotten meanwhile.
    PromotesWithoutLooking,
    /// The reader takes the lock of the segment's table after it has read the location for the last time.
    LocksLate,
    /// The reader takes no lock.
    DoesNotLock,
    /// The reader does not read the location again.
    DoesNotLookAgain,
    /// The reader accepts a row of any key.
    DoesNotCompareKeys,
    /// The reader accepts a row of any file.
    DoesNotCompareFiles,
    /// A set may have two locations with the same bits, and a change forgets only the younger one.
    TwoLocations,
    /// The reader goes on to the location although a change of the key is announced.
    IgnoresAnnouncements,
    /// The location is forgotten in a step before the change is made in the tier.
    ForgetsEarlier,
    /// The location is forgotten in a step after the change is made in the tier.
    ForgetsLater,
    /// The location is forgotten when the change is announced.
    ForgetsWhenAnnounced,
    /// A decider does not look for a location.
    DecidesByMemory,
    /// A decider takes a key for absent after it has brought back or forgotten a saved value.
    DecidesWithoutAskingAgain,
    /// The saver gives a moved row its location even if the old location was forgotten meanwhile.
    MovesWithoutLooking,
    /// The saver removes the rows of a segment before it forgets their locations.
    TruncatesFirst,
}

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Table {
    /// The rule that is broken, if any.
    pub variant: Variant,
    /// Whether both keys have the same bits.
    pub same_bits: bool,
    /// The changes that the writer makes, in order.
    pub changes: &'static [Change],
    /// The keys that have a value in the beginning.
    pub present: [bool; KEYS],
    /// The keys that the readers read.
    pub read: &'static [usize],
    /// The number of readers.
    pub readers: usize,
    /// The number of deciders, all for key 0. They come after the readers in the state.
    pub deciders: usize,
    /// The number of segments.
    pub segments: usize,
    /// The most rows of a segment.
    pub positions: usize,
    /// Whether entries leave the memory when they are saved, and only then.
    pub leaves: bool,
    /// Whether a superuser rewrites the tables, and the server restarts once.
    pub rewrites: bool,
}

impl Table {
    /// Returns the bits of a key, which select its location.
    pub fn bits(&self, key: usize) -> usize {
        if self.same_bits { 0 } else { key }
    }

    /// Whether a reader of the state is a decider.
    pub fn decides(&self, reader: usize) -> bool {
        reader >= self.readers
    }

    /// Returns the steps of a reader or a decider, in order.
    pub fn reading(&self, reader: usize) -> Vec<Read> {
        use Read::*;
        let check: &[Read] = match self.variant {
            Variant::LocksLate => &[Record, LookAgain, Lock],
            Variant::DoesNotLock => &[Record, LookAgain],
            Variant::DoesNotLookAgain => &[Record, Lock],
            _ => &[Record, Lock, LookAgain],
        };
        let (begin, end): (&[Read], &[Read]) = match self.decides(reader) {
            true => (&[Decide], &[Row, Bytes, Promote, Forget]),
            false => (&[Begin(0), Look, Locate], &[Row, Bytes, Promote]),
        };
        [begin, check, end].concat()
    }

    /// Returns the steps of a change, in order.
    pub fn writing(&self, change: Change) -> Vec<Write> {
        use Write::*;
        let mut steps = match change {
            Change::Set(_) | Change::Remove(_) => vec![Announce, Show, Confirm],
            Change::SetAtOnce(_) | Change::RemoveAtOnce(_) => vec![AtOnce],
            Change::Touch(_) => vec![Touch],
        };
        match self.variant {
            Variant::ForgetsEarlier => steps.insert(steps.len() - 1, Forget),
            Variant::ForgetsLater => steps.push(Forget),
            Variant::ForgetsWhenAnnounced if steps[0] == Announce => steps.insert(1, Forget),
            _ => {}
        }
        steps
    }

    /// Whether the step that makes a change in the tier also forgets the location, as built.
    pub fn forgets_in_change(&self) -> bool {
        ![Variant::ForgetsEarlier, Variant::ForgetsLater, Variant::ForgetsWhenAnnounced]
            .contains(&self.variant)
    }
}

impl Table {
    /// One key, changed by transactions.
    pub fn transactions(variant: Variant) -> Self {
        Self {
            variant,
            same_bits: false,
            changes: &[Change::Set(0), Change::Remove(0)],
            present: [true, false],
            read: &[0],
            readers: 1,
            deciders: 0,
            segments: 1,
            positions: 1,
            leaves: false,
            rewrites: false,
        }
    }

    /// One key, changed without transactions. Its third value gets the block of the first one.
    pub fn at_once(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0), Change::SetAtOnce(0), Change::RemoveAtOnce(0)];
        Self { changes, ..Self::transactions(variant) }
    }

    /// One key, set twice without transactions, and room for two rows.
    pub fn two_rows(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0), Change::SetAtOnce(0)];
        Self { changes, positions: 2, ..Self::transactions(variant) }
    }

    /// One key, which gets another time to live.
    pub fn touched(variant: Variant) -> Self {
        Self { changes: &[Change::Touch(0), Change::SetAtOnce(0)], ..Self::transactions(variant) }
    }

    /// Two keys with the same bits.
    pub fn same_bits(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0)];
        Self { same_bits: true, changes, present: [true, true], positions: 2, ..Self::transactions(variant) }
    }

    /// Two keys with different bits.
    pub fn two_keys(variant: Variant) -> Self {
        Self { same_bits: false, ..Self::same_bits(variant) }
    }

    /// A superuser rewrites the table, and the server restarts.
    pub fn rewritten(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0)];
        Self { changes, positions: 2, rewrites: true, ..Self::transactions(variant) }
    }

    /// The saver copies rows to another segment.
    pub fn moved(variant: Variant) -> Self {
        Self { changes: &[Change::SetAtOnce(0)], segments: 2, ..Self::transactions(variant) }
    }

    /// Two sessions set one key if it has no value.
    pub fn deciders(variant: Variant) -> Self {
        Self { changes: &[], readers: 0, deciders: 2, ..Self::transactions(variant) }
    }

    /// One session sets the key if it has no value, another one removes it, and a third one reads.
    pub fn decider_and_reader(variant: Variant) -> Self {
        Self { changes: &[Change::RemoveAtOnce(0)], deciders: 1, ..Self::transactions(variant) }
    }

    /// One key, whose value is either in the memory or saved.
    pub fn leaves(variant: Variant) -> Self {
        let changes = &[Change::Touch(0), Change::Set(0)];
        Self { changes, leaves: true, ..Self::transactions(variant) }
    }

    /// Two sessions set one key if it has no value. The value is either in the memory or saved.
    pub fn leaves_for_deciders(variant: Variant) -> Self {
        Self { leaves: true, ..Self::deciders(variant) }
    }

    /// A reader of both of two keys with the same bits.
    pub fn both_keys(variant: Variant) -> Self {
        Self { read: &[0, 1], ..Self::same_bits(variant) }
    }
}
