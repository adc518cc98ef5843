//! The actors of the protocol, their steps, and the state between two steps.

pub const KEYS: usize = 2;
/// Two entries, and one reservation of the writer.
pub const BLOCKS: usize = 3;
pub const SEGMENTS: usize = 2;
/// The number of the file to which a superuser rewrites a table. The record of the segment never has it.
pub const REWRITTEN: u8 = 9;
/// The number of a file that a record has as long as the saver has not emptied the table.
pub const UNKNOWN: u8 = 8;

/// A value with its key: in a block, in a row, or copied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Value {
    pub key: usize,
    pub version: u8,
    /// The key and the version with which the bytes were set.
    pub bytes: (usize, u8),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    pub block: usize,
    pub marked: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Location {
    pub segment: usize,
    pub position: usize,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Segment {
    pub rows: Vec<Value>,
    pub file: u8,
    /// The file as the segment's record has it.
    pub recorded: u8,
}

impl Segment {
    pub fn is_as_recorded(&self) -> bool {
        self.file == self.recorded
    }
}

/// A change of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// In a transaction, which may abort.
    Set(usize),
    Remove(usize),
    /// Visible and through in one step.
    SetAtOnce(usize),
    RemoveAtOnce(usize),
    Touch(usize),
}

impl Change {
    pub fn key(self) -> usize {
        match self {
            Self::Set(key)
            | Self::Remove(key)
            | Self::SetAtOnce(key)
            | Self::RemoveAtOnce(key)
            | Self::Touch(key) => key,
        }
    }

    pub fn removes(self) -> bool {
        matches!(self, Self::Remove(_) | Self::RemoveAtOnce(_))
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    Announce,
    /// The commit.
    Show,
    Confirm,
    Withdraw,
    AtOnce,
    Touch,
    /// Forgets the location. As built, the step that makes the change in the tier does this.
    Forget,
}

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
    Move,
    /// The saver ends, or finds no room. Another one begins.
    GiveUp,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    Begin(usize),
    /// Looks in the memory.
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
    Promote,
    /// Decides whether the key has a value, under the lock of the shard. Sets the key if it has none.
    Decide,
    /// Forgets the location before it decides again.
    Forget,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(Write),
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
    pub key: usize,
    pub block: usize,
    pub version: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Saver {
    Idle,
    Copying(Vec<Marked>, Vec<Value>),
    Locating(Vec<(Marked, Location)>),
    Emptied(usize),
    Moving { from: Location, copy: Value, to: Option<Location> },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    Miss,
    Hit,
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

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Reader {
    pub at: u8,
    pub key: usize,
    /// The version that was visible when the reader began.
    pub expected: u8,
    pub location: Option<Location>,
    pub recorded: u8,
    pub locked: bool,
    pub value: Option<Value>,
    pub outcome: Option<Outcome>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub blocks: [Value; BLOCKS],
    pub entries: [Option<Entry>; KEYS],
    /// The block of the announcement of each key.
    pub announced: [Option<usize>; KEYS],
    /// The locations with the same bits, the youngest first.
    pub locations: [Vec<Location>; KEYS],
    pub segments: [Segment; SEGMENTS],
    /// The last change that other sessions see in the source, and the last one that the tier has.
    pub visible: [u8; KEYS],
    pub through: [u8; KEYS],
    /// The versions without a value, and those with the bytes of an earlier one.
    pub removals: [u8; KEYS],
    pub touches: [u8; KEYS],
    /// The change that the writer is at, and its next step in it.
    pub change: u8,
    pub at: u8,
    pub saver: Saver,
    pub readers: Vec<Reader>,
    pub restarted: bool,
    /// An older value than the present one has become an entry.
    pub promoted_old: bool,
    /// A decider has set a key that had a value.
    pub overlooked: bool,
}
