//! The actors of the protocol, their steps, and the state between two steps.
//!
//! The model (`mod.rs`) is of invalidations by a pattern: readers compare their keys with the patterns that are later than the
//! entry. A *slot* holds one pattern. A pattern is *announced* while its transaction commits, and *live* afterwards. It is
//! *retired* when another pattern needs its slot: the *floor*, a number, is raised to the number of the pattern, and values with
//! lower stamps are refused. A *stamp* is a number of the clock of changes. To *renew* an entry is to give it a later stamp. A
//! *fence* is *raised* while a change is pending, and *lowered* with the number of the change. The *pattern fence* has the number
//! of the last pattern: a value whose stamp is not below that number needs no comparison.
//!
//! A *fill* computes an entry and stores it.
//!
//! A new step must be offered in `properties.rs`, and take effect in `steps.rs`. A new field of [`State`] needs its first value in
//! `properties.rs` (`init_states`).

use crate::memory::Fence;

/// The number of keys.
pub const KEYS: usize = 2;
/// The most slots of a scenario.
pub const SLOTS: usize = 2;

/// One step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Takes a free slot, or raises the floor to the number of a live pattern and takes its slot. Raising the floor and taking the
    /// slot are two steps. If there is no slot to take, the writer invalidates the whole space instead.
    Take,
    /// Notes the clock, as a set does. Only a transaction that also sets a key does this.
    Stamp,
    /// Marks the slot as announced.
    Announce,
    /// Raises the pattern fence, or the fence of the space if there was no slot.
    Raise,
    /// The commit.
    Show,
    /// Draws the number of the change.
    Draw,
    /// Marks the slot as live since the number.
    Live,
    /// Lowers the fence with the number.
    Lower,
    /// Decides whether the value that the transaction sets is right, and with which stamp.
    Decide,
    /// Stores that value.
    Publish,
    /// Undoes all steps, instead of `Show`.
    Abort,
}

/// One step of a fill.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fill {
    /// Notes the clock.
    Stamp,
    /// Computes the value.
    Compute,
    /// Stores the value.
    Publish,
}

/// One step of a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Begins, and finds the value of the key in memory, or otherwise in its row.
    Begin,
    /// Checks the floor.
    Floor,
    /// Checks the pattern fence. If it holds, the read is a hit.
    Patterns,
    /// Reads the clock.
    Clock,
    /// Looks at a slot.
    Slot(usize),
    /// Checks the floor again. The read is a hit if it holds.
    FloorAgain,
    /// Renews the entry, or makes the saved value an entry again.
    Renew,
}

/// One step of any actor. The number of a writer, a fill or a reader comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(usize, Write),
    Fill(usize, Fill),
    /// Copies the entry of this key to a row.
    Save(usize),
    /// The entry of this key is evicted.
    Evict(usize),
    Reader(usize, Read),
}

/// The state of a slot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Slot {
    #[default]
    Free,
    /// A writer has taken it.
    Taken,
    /// The pattern with this index is announced.
    Announced(usize),
    /// The pattern is live since this number.
    Live(usize, u8),
}

/// The state of a writer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// How many steps it has taken.
    pub at: u8,
    /// The slot that it has taken.
    pub slot: Option<usize>,
    /// The slot of the live pattern that the writer is about to retire, and the pattern's number.
    pub retiring: Option<(usize, u8)>,
    /// Whether it invalidates the whole space, because there is no slot.
    pub flushes: bool,
    /// The number that the writer has drawn from the clock of changes.
    pub number: u8,
    /// The clock of changes when the transaction set its value.
    pub stamp: u8,
    /// The patterns that were visible when the transaction set its value, a bit for each.
    pub value: u8,
    /// The stamp of the value that the transaction sets. None if it sets none.
    pub publishes: Option<u8>,
    /// Whether the transaction has aborted.
    pub aborted: bool,
}

/// The state of a fill.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Filler {
    /// How many steps the fill has taken.
    pub at: u8,
    /// The stamp of the value. As built, the clock of changes before the value was computed.
    pub stamp: u8,
    /// The patterns that were visible when the value was computed, a bit for each.
    pub value: u8,
}

/// A value in memory or in a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The stamp of the value.
    pub stamp: u8,
    /// The patterns that were visible when the value was computed, a bit for each.
    pub value: u8,
    /// Tells entries of one key apart.
    pub identity: u8,
}

/// How a read ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// The key has no value.
    Absent,
    /// A miss because of a pattern that matches the key, or because of the floor.
    Miss,
    /// A miss although no pattern that matches the key is announced or visible, and the floor was never raised.
    MissForNothing,
    Hit,
    /// A hit without a comparison.
    QuickHit,
    /// A hit on a value from before a pattern that matches the key.
    Stale,
}

/// The state of a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reader {
    /// How many reads it has made.
    pub reads: u8,
    /// How many steps of the present read it has taken.
    pub at: u8,
    /// The patterns that were visible when it began, a bit for each.
    pub visible: u8,
    /// The value that the present read has found.
    pub found: Option<Entry>,
    /// Whether it has found the value in a row.
    pub in_row: bool,
    /// The moment as of which the value is compared: the clock before the reader looks at the slots. In a hit without a comparison,
    /// the stamp of the value.
    pub as_of: u8,
    /// The entry of the last hit, and the moment as of which it was compared.
    pub last_hit: Option<(u8, u8)>,
    /// How the present read ended. None before its end.
    pub outcome: Option<Outcome>,
}

/// The state between two steps.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The clock of changes.
    pub now: u8,
    /// The fence of the space, whose number is the floor.
    pub space: Fence,
    /// The pattern fence.
    pub patterns: Fence,
    /// The table of patterns.
    pub slots: [Slot; SLOTS],
    /// The patterns whose transactions are visible, a bit for each.
    pub visible: u8,
    /// The writer of each pattern.
    pub writers: [Writer; 2],
    /// The fills.
    pub fills: Vec<Filler>,
    /// The value of each key in memory.
    pub memory: [Option<Entry>; KEYS],
    /// The saved value of each key.
    pub rows: [Option<Entry>; KEYS],
    /// The number of entries so far, from which each entry gets its identity.
    pub identities: u8,
    /// The readers.
    pub readers: Vec<Reader>,
    /// Whether an entry was renewed.
    pub renewed: bool,
    /// Whether the floor was raised for a retired pattern.
    pub retired: bool,
    /// Whether a space was flushed.
    pub flushed: bool,
    /// Whether the floor has refused a value although a reader had compared it, as of a moment that is not before the floor.
    pub lost_renewed: bool,
}
