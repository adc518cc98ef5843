//! The scenarios that are checked, and the variants of the protocol: as it is built, and with one rule broken.
//!
//! `mod.rs` explains the model. A *slot* holds one pattern; a pattern is *announced* while its transaction commits, and *retired*
//! when another one needs its slot. To *renew* an entry is to give it a later stamp.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. A *fill* computes an entry and stores it.
//!
//! A new variant needs a line in the test in `mod.rs`, which names the property that it must break or says that it is harmless. It
//! also needs a branch that breaks the rule: in this file, or in `steps.rs` or `properties.rs`.

use super::state::{KEYS, Write};

/// The protocol as it is built, with one rule broken, or built in another way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variant {
    /// The protocol as it is built.
    AsBuilt,
    /// The writer lowers the pattern fence before it marks the slot as live.
    LowersBeforeLive,
    /// The writer announces the pattern when its transaction is visible.
    AnnouncesLate,
    /// The writer raises the pattern fence when its transaction is visible.
    RaisesLate,
    /// The writer draws its number before its transaction is visible.
    DrawsEarly,
    /// A reader does not compare with announced patterns.
    IgnoresAnnounced,
    /// A reader compares only if the pattern fence has a later number, not if it is raised.
    IgnoresPending,
    /// A reader compares with the patterns before its entry's stamp.
    ComparesEarlier,
    /// A reader misses every key of the space while a pattern is announced.
    MissesWhileAnnounced,
    /// A writer that aborts leaves its slot announced.
    KeepsAborted,
    /// A value gets its stamp when it is stored.
    StampsWhenStored,
    /// A writer takes a slot from a pattern without raising the floor.
    RaisesNoFloor,
    /// The floor is raised after the slot was taken.
    RaisesFloorLate,
    /// A reader checks the floor before it looks at the slots.
    ChecksFloorFirst,
    /// A writer takes a slot from an announced pattern.
    RetiresAnnounced,
    /// No entry is renewed.
    NeverRenews,
    /// An entry is renewed as of the moment after the comparison.
    RenewsAsOfLater,
    /// The reader renews the present entry of the key, also if it is not the entry that the reader compared.
    RenewsAnother,
    /// The reader does not compare the key of a saved value.
    TrustsRows,
    /// A value that comes back from a row gets a new stamp.
    PromotesAnew,
    /// A value that its transaction sets after its own pattern keeps its stamp.
    OwnKeepsStamp,
    /// Such a value gets the number of the commit although another pattern may have removed it.
    OwnIgnoresOthers,
}

/// The model: a variant and a scenario.
#[derive(Clone, Debug)]
pub struct Patterns {
    pub variant: Variant,
    /// The keys that each pattern matches, a bit for each key.
    pub matched: [u8; 2],
    /// The number of slots.
    pub slots: usize,
    /// The keys that the fills compute: one fill for each entry of the list.
    pub fills: &'static [usize],
    /// The keys that have a value in memory in the beginning.
    pub present: [bool; KEYS],
    /// The keys that the readers read, an entry for each reader.
    pub readers: &'static [usize],
    /// The most reads of a reader, which reads again and again.
    pub reads: u8,
    /// Whether entries are saved and evicted.
    pub saves: bool,
    /// Whether the transaction of the first pattern then sets the first key.
    pub sets_own: bool,
}

impl Patterns {
    /// Returns the steps of a writer, in order. An abort may come instead of `Show`.
    pub fn writing(&self) -> Vec<Write> {
        use Write::*;
        match self.variant {
            Variant::LowersBeforeLive => vec![Take, Announce, Raise, Show, Draw, Lower, Live],
            Variant::AnnouncesLate => vec![Take, Show, Announce, Raise, Draw, Live, Lower],
            Variant::RaisesLate => vec![Take, Announce, Show, Raise, Draw, Live, Lower],
            Variant::DrawsEarly => vec![Take, Announce, Raise, Draw, Show, Live, Lower],
            _ if self.sets_own => {
                vec![Take, Stamp, Announce, Raise, Show, Draw, Live, Lower, Decide, Publish]
            }
            _ => vec![Take, Announce, Raise, Show, Draw, Live, Lower],
        }
    }

    /// Whether a pattern matches a key.
    pub fn matches(&self, pattern: usize, key: usize) -> bool {
        self.matched[pattern] & 1 << key != 0
    }

    /// Two slots, and a fill of the key that both patterns match.
    pub fn memory(variant: Variant) -> Self {
        Self {
            variant,
            matched: [0b01, 0b11],
            slots: 2,
            fills: &[0],
            present: [false, true],
            readers: &[0, 1],
            reads: 1,
            saves: false,
            sets_own: false,
        }
    }

    /// One slot, which the second pattern takes from the first one.
    pub fn retired(variant: Variant) -> Self {
        Self {
            matched: [0b01, 0b10],
            slots: 1,
            present: [true, false],
            reads: 2,
            readers: &[0],
            ..Self::memory(variant)
        }
    }

    /// Two fills of one key.
    pub fn two_fills(variant: Variant) -> Self {
        Self { fills: &[0, 0], matched: [0b01, 0b10], readers: &[0], reads: 2, ..Self::memory(variant) }
    }

    /// One reader that reads twice, and no fill.
    pub fn renewals(variant: Variant) -> Self {
        Self { fills: &[], readers: &[1], reads: 2, ..Self::memory(variant) }
    }

    /// Values are saved in rows, and come back.
    pub fn saved(variant: Variant) -> Self {
        Self { saves: true, matched: [0b01, 0b10], readers: &[0], reads: 2, ..Self::memory(variant) }
    }

    /// Values are saved in rows, and there is one slot.
    pub fn saved_and_retired(variant: Variant) -> Self {
        Self { slots: 1, ..Self::saved(variant) }
    }

    /// A transaction sets a key after it has invalidated a pattern that matches the key.
    pub fn own_value(variant: Variant) -> Self {
        Self { sets_own: true, fills: &[], present: [false, false], readers: &[0], ..Self::memory(variant) }
    }
}
