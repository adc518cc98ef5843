//! The actors of the protocol, their steps, and the state between two steps. `mod.rs` explains the words. The *bits* of a key
//! select its location (`tier/directory.rs` of the core). A *tier* is a cache in memory that several processes share. The *saver*
//! copies entries to rows of *segments*, which are tables. An *announced* change of a key hides the key's value until the change is
//! confirmed (`tier/publishing.rs`).
//!
//! A new field of [`State`] needs its first value in `properties.rs` (`init_states`). If a restart loses it, `State::restart` in
//! `tier.rs` must reset it. A new step of the protocol as built also needs a branch in `as_built/table.rs`.

/// The number of keys.
pub const KEYS: usize = 2;
/// The blocks of the memory: enough for two entries, and for one reservation of the writer.
pub const BLOCKS: usize = 3;
/// The number of segments in the state. A scenario may use only the first one.
pub const SEGMENTS: usize = 2;
/// The number of the file to which a superuser rewrites a table. The record of the segment never has it.
pub const REWRITTEN: u8 = 9;
/// The number in a segment's record from a restart until the saver empties the table. No file has it.
pub const UNKNOWN: u8 = 8;

/// A value with its key: in a block, in a row, or copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Value {
    pub key: usize,
    /// The number of the change that made the value. It stands for the value's properties.
    pub version: u8,
    /// The key and the version with which the bytes were set.
    pub bytes: (usize, u8),
}

/// The entry of a key in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub block: usize,
    /// Whether the saver has marked it.
    pub marked: bool,
}

/// The place of a row: the index in its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    /// The number of the segment.
    pub segment: usize,
    /// The index of the row in the segment.
    pub position: usize,
}

/// A table of rows.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    pub rows: Vec<Value>,
    /// The number of the table's file. It changes when the saver empties the table, and when a superuser rewrites it.
    pub file: u8,
    /// The number of the file as the segment's record has it.
    pub recorded: u8,
}

impl Segment {
    /// Whether the table has the file that its record names, so that its locations are right.
    pub fn is_as_recorded(&self) -> bool {
        self.file == self.recorded
    }
}

/// A change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Sets the key in a transaction, which may abort.
    Set(usize),
    /// Removes the key in a transaction, which may abort.
    Remove(usize),
    /// Sets the key without a transaction: visible, and made in the tier, in one step.
    SetAtOnce(usize),
    /// Removes the key without a transaction, in one step.
    RemoveAtOnce(usize),
    /// Gives the key another time to live, in one step.
    Touch(usize),
}

impl Change {
    /// Returns the key that changes.
    pub fn key(self) -> usize {
        match self {
            Self::Set(key)
            | Self::Remove(key)
            | Self::SetAtOnce(key)
            | Self::RemoveAtOnce(key)
            | Self::Touch(key) => key,
        }
    }

    /// Returns whether the key has no value after the change.
    pub fn removes(self) -> bool {
        matches!(self, Self::Remove(_) | Self::RemoveAtOnce(_))
    }
}

/// One step of the writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Announces the change. From now on, readers miss the key.
    Announce,
    /// Commits: other sessions see the change in the source, but the tier does not have it yet.
    Show,
    /// Makes the announced change in the tier.
    Confirm,
    /// Ends the announcement after an abort, instead of `Show` and the steps after it.
    Withdraw,
    /// Sets or removes the key without a transaction: commits the change and makes it in the tier.
    AtOnce,
    /// Gives the key another time to live, without a transaction.
    Touch,
    /// Forgets the location. As built, the step that makes the change in the tier does this.
    Forget,
}

/// One step of the saver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Save {
    /// Marks these entries, a bit for each key.
    Mark(u8),
    /// Copies the next marked entry.
    Copy,
    /// Appends all copies to a segment.
    Append(usize),
    /// Adds the location of the next copy.
    Locate,
    /// Forgets the locations in a segment.
    Empty(usize),
    /// Removes the rows of the segment, unless a reader holds its lock.
    Truncate,
    /// Copies a row of a segment.
    CopyRow(Location),
    /// Appends the copy of a row to the other segment.
    AppendRow,
    /// Replaces the location of the row by that of its copy.
    Move,
    /// The saver ends, or finds no room. Another one begins.
    GiveUp,
}

/// One step of a reader or a decider.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// Begins to read this key.
    Begin(usize),
    /// Looks in the memory. An announcement ends the read with a miss.
    Look,
    /// Reads the location.
    Locate,
    /// Reads the file of the segment from its record.
    Record,
    /// Takes the lock of the segment's table.
    Lock,
    /// Reads the location again.
    LookAgain,
    /// Compares the file, and reads the key and the properties of the row.
    Row,
    /// Reads the bytes of the row, which may take long.
    Bytes,
    /// Makes the row an entry, if the location was not forgotten meanwhile and the key has no entry. Ends the read with the row.
    Promote,
    /// Decides whether the key has a value, under the lock of the shard. Sets the key if it has none.
    Decide,
    /// Forgets the location before it decides again.
    Forget,
}

/// One step of one actor, or an event that no actor chooses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(Write),
    /// The entry of this key is evicted.
    Evict(usize),
    Saver(Save),
    /// Another saver of the same database marks all entries.
    OtherSaver,
    /// A superuser rewrites the table of a segment, so that its rows change their places.
    Rewrite(usize),
    /// The server restarts with a new memory. The tables stay as they are.
    Restart,
    Reader(usize, Read),
}

/// An entry that was marked. Its key stands for the hash, which keys with the same bits share.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Marked {
    /// The key of the entry.
    pub key: usize,
    /// The block of the entry.
    pub block: usize,
    /// The version as of the mark.
    pub version: u8,
}

/// The work that the saver is at.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Saver {
    Idle,
    /// It has marked these entries, and has copied the first ones of them.
    Copying(Vec<Marked>, Vec<Value>),
    /// It has appended the copies. The locations of these are still to be added.
    Locating(Vec<(Marked, Location)>),
    /// It has forgotten the locations in this segment, whose rows are still to be removed.
    Emptied(usize),
    /// It has copied the row at `from`. `to` is None until the copy is appended.
    Moving {
        from: Location,
        copy: Value,
        to: Option<Location>,
    },
}

/// How a read or a decision ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Miss,
    /// A hit in memory on a value that the reader may get.
    Hit,
    /// A hit on a row that the reader may get.
    SavedHit,
    /// An older value than the reader must see.
    Stale,
    /// A value of a key that was removed before the reader began.
    Removed,
    /// The properties of one value with the bytes of another one, or a value of another key.
    Torn,
    /// A decider has found a value.
    Present,
    /// A decider has set the key.
    First,
}

/// The state of a reader or a decider.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reader {
    /// How many steps it has taken.
    pub at: u8,
    /// The key that it reads.
    pub key: usize,
    /// The version that was visible when the reader began. A decider begins with each `Decide`.
    pub expected: u8,
    /// The location that it has read. None if it has not read one.
    pub location: Option<Location>,
    /// The number of the file as of `Record`.
    pub recorded: u8,
    /// Whether it holds the lock of the segment of its location.
    pub locked: bool,
    /// The row that it has read.
    pub value: Option<Value>,
    /// How the read or the decision ended. None before its end.
    pub outcome: Option<Outcome>,
}

/// The state of the model between two steps: the tier, the source, and the progress of each actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The content of each block. A free block keeps its content.
    pub blocks: [Value; BLOCKS],
    /// The entry of each key.
    pub entries: [Option<Entry>; KEYS],
    /// The block of the announcement of each key.
    pub announced: [Option<usize>; KEYS],
    /// The locations with the same bits, the youngest first. As built, there is at most one.
    pub locations: [Vec<Location>; KEYS],
    /// The segments, the tables with saved rows.
    pub segments: [Segment; SEGMENTS],
    /// The version of each key that other sessions see in the source: the number of the last committed change.
    pub visible: [u8; KEYS],
    /// The version of each key that the tier has. It is behind `visible` between the commit of a change and its confirmation.
    pub through: [u8; KEYS],
    /// The versions of each key that are removals, one bit for each version.
    pub removals: [u8; KEYS],
    /// The versions of each key that have the bytes of an earlier version and another time to live, one bit for each version.
    pub touches: [u8; KEYS],
    /// The index of the writer's present change in the scenario.
    pub change: u8,
    /// The index of the writer's next step in the present change.
    pub at: u8,
    /// The work that the saver is at.
    pub saver: Saver,
    /// The readers and the deciders.
    pub readers: Vec<Reader>,
    /// Whether the server has restarted, which loses the memory.
    pub restarted: bool,
    /// An older value than the present one has become an entry.
    pub promoted_old: bool,
    /// A decider has set a key that had a value.
    pub overlooked: bool,
}
