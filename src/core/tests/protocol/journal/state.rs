//! The actors of the protocol, their steps, and the state between two steps.
//!
//! A change has an identifier, which is a bit in every set of changes. A value is the set of the changes that were visible when it
//! was computed, without those that do not concern it. `mod.rs` explains the words: a *record* names one change, the *tail* counts
//! the reserved lines of the ring, a *lap* is one way around the ring, and a *life* begins after each crash, with a new *base* from
//! which the records count.
//!
//! The *cursor* of the client is the number of the last record that it has applied. A *fence* is a word in shared memory that says
//! when a dependency of entries last changed.
//!
//! A new field of [`State`] needs its first value in `properties.rs` (`init_states`). If a crash loses it, `State::crash` in
//! `writer.rs` must reset it.

use crate::memory::Fence;

/// The most changes in a scenario.
pub const CHANGES: usize = 4;

/// The name in the record of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name {
    /// The key that the client reads.
    Key,
    /// A tag of that key.
    Tag,
    /// A tag of that key, with a name that needs two lines.
    LongTag,
    /// A key that the client does not read.
    Other,
    /// Everything in the database, because the names of a prepared transaction are lost.
    Everything,
}

/// One atomic step of a writer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Write {
    /// Raises the fence of the key, if the database stores values.
    Raise,
    /// The change becomes visible to new snapshots.
    Show,
    /// The change of a catalog reaches the sessions that have cached the catalog.
    Spread,
    /// Draws a number, and lowers the fence with it.
    Lower,
    /// Reserves the lines of the record, by adding to the tail. From now on the record has its number.
    Reserve,
    /// Only variants have this step and the next one. Takes possession of the line, unless another writer is still busy with it.
    Claim(u8),
    /// Gives the record up because the line is busy, and moves the tail by one lap instead.
    Skip,
    /// Writes the body of a line of the record.
    Body(u8),
    /// Writes the header of that line.
    Header(u8),
    /// Only a variant has this step: COMMIT PREPARED ends with an error after the change became visible, and appends no record.
    Fail,
}

/// A step of a read that the client sends to the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Read {
    /// The client notes its cursor.
    Note,
    /// Looks for a stored entry.
    Look,
    /// Computes the value from a snapshot, and stores it.
    Snapshot,
    /// The client gets the answer.
    Keep,
}

/// A step of `cache_changes` or of `cache_seq`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Call {
    /// The client sends `cache_changes` with its cursor, and the server compares the cursor with the ring.
    Begin,
    /// Reads the header of the line.
    Header,
    /// Copies the line, and compares it with the checksum of its header.
    Copy,
    /// Compares the tail with the position.
    Tail,
    /// Waits no longer for a line that is not written.
    GiveUp,
    /// The client gets the answer.
    Apply,
    /// The client sends `cache_seq`.
    SendSeq,
    /// The server reads the tail.
    TakeSeq,
    /// The client gets the tail, and takes it as its cursor.
    ApplySeq,
}

/// One step of one actor, or a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    Writer(usize, Write),
    Reader(Read),
    Caller(usize, Call),
    /// A standby replays all changes.
    Replay,
    /// A notification arrives. Only variants take anything from it.
    Notify,
    /// The server restarts with a new memory.
    Crash,
}

/// The change that a line of a record names, and the number of the line in the record.
pub type Body = (u8, u8);

/// A line of the ring: the header, and the body that writers may overwrite at any time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Line {
    /// The lap in the header. 0 if the line was never written.
    pub lap: u8,
    /// Whether the writer of this lap has claimed the line and has not written it yet.
    pub is_claimed: bool,
    /// The checksum of the body, as exact as the body itself.
    pub sum: Option<Body>,
    /// The body of the line. None if the line was never written.
    pub body: Option<Body>,
}

/// The progress of a writer, which makes a change and writes its record.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Writer {
    /// The index of the present change in the writer's list.
    pub change: u8,
    /// The index of the next step in the present change.
    pub at: u8,
    /// The position of the first line that it has reserved.
    pub position: u8,
    /// Whether it has found a line busy, so that its next step is `Skip`.
    pub skips: bool,
}

/// The stored value: the changes that it contains, as bits, and its stamp.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Entry {
    /// The changes that the value contains, as bits.
    pub value: u8,
    /// The stamp of the value.
    pub stamp: u8,
}

/// A read that is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Flight {
    /// How many steps of the read are done or were left out. 0 if no read is under way.
    pub at: u8,
    /// The clock of changes before the snapshot.
    pub stamp: u8,
    /// The changes in the answer, as bits.
    pub value: u8,
    /// Whether the answer is the stored value.
    pub is_hit: bool,
    /// Whether a record that was applied meanwhile names the value, or everything was dropped.
    pub is_named: bool,
}

/// The progress of `cache_changes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Scan {
    /// The position of the record that is being read.
    pub position: u8,
    /// The number of the line in that record.
    pub part: u8,
    /// The changes in the records that were read, as bits.
    pub records: u8,
    /// The changes that the client must know after the answer, as bits.
    pub owed: u8,
}

/// The state of a thread of the client that calls `cache_changes` or `cache_seq`. Each state but `Idle` is named after the next
/// step, or after what is under way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Caller {
    #[default]
    Idle,
    /// The server is about to read the header of a line.
    Header(Scan),
    /// The header is of this lap, and has this checksum.
    Copy(Scan, Option<Body>),
    /// The record of this change is copied, or the line is not written yet.
    Tail(Scan, Option<u8>),
    /// The answer: the number up to which the client may move its cursor.
    Changes(Scan, u8),
    /// The other answer, with the number of the tail.
    Reset(Scan, u8),
    /// `cache_seq` was sent.
    SeqSent,
    /// The answer of `cache_seq`.
    Seq(u8),
}

/// The client outside of the server: the value that it keeps, and its progress.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Client {
    /// The number of the last record that was applied. None until `cache_seq` has answered.
    pub cursor: Option<u8>,
    /// The changes in the local value, as bits. None if the client has no value.
    pub value: Option<u8>,
    /// The only read.
    pub flight: Flight,
    /// The threads that call `cache_changes` or `cache_seq`.
    pub callers: Vec<Caller>,
    /// The changes that no local read may miss any more, as bits.
    pub proven: u8,
    /// The changes whose records were applied, as bits.
    pub applied: u8,
}

/// The state of the model between two steps: the journal, the database, and the progress of each actor.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The base of the journal's life.
    pub base: u8,
    /// How many lines were reserved in this life.
    pub tail: u8,
    /// The lines of the ring.
    pub lines: Vec<Line>,
    /// The changes that are visible to new snapshots, as bits.
    pub visible: u8,
    /// The visible changes that every session sees.
    pub spread: u8,
    /// The changes that the standby has replayed.
    pub replayed: u8,
    /// The clock of changes.
    pub now: u8,
    /// The fence of the key and of its tag.
    pub fence: Fence,
    /// The stored value.
    pub entry: Option<Entry>,
    /// Whether the server has crashed.
    pub crashed: bool,
    /// The writers.
    pub writers: Vec<Writer>,
    /// The client that follows the journal.
    pub client: Client,
    /// The number of the record of each change, and 0 before it is reserved. If a crash comes before that and the change is
    /// visible, the new base counts as its number.
    pub numbers: [u8; CHANGES],
    /// The changes whose writer has done everything that it does.
    pub written: u8,
}
