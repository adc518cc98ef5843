//! The protocol of the table tier: a value is saved in a row, leaves the memory, and comes back.
//!
//! The actors are a writer, which makes one change after the other; an eviction, which may come at any time; the
//! saver; readers, which read again and again; and deciders, which set a key only if it has no value. `keys.rs` has
//! the competition of writers for a key.
//!
//! A version of a key is the number of the change that made it. A time to live is a version of its own with the bytes
//! of an earlier one. Blocks and rows keep their contents until they are used again. Blocks, positions and file
//! numbers are few, so they recur. All values have the same stamp, because no change in this model draws a number.
//!
//! A restart is one that loses the memory. Rows do not say from which life of the memory they are: a new memory has no
//! location, and the saver empties a table before it uses it again. So the epoch in the rows of the code is a second
//! protection.

use stateright::{Model, Property};

use crate::{Verdict, check, long};

const KEYS: usize = 2;
/// Two entries, and one reservation of the writer.
const BLOCKS: usize = 3;
const SEGMENTS: usize = 2;
/// The number of the file to which a superuser rewrites a table. The record of the segment never has it.
const REWRITTEN: u8 = 9;
/// The number of a file that a record has as long as the saver has not emptied the table.
const UNKNOWN: u8 = 8;

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
    block: usize,
    marked: bool,
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
    fn is_as_recorded(&self) -> bool {
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
    key: usize,
    block: usize,
    version: u8,
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
    /// A row becomes an entry even if its location does not stand any more.
    PromotesWithoutLooking,
    /// The reader takes the lock after it has read the location for the last time.
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
    /// The location is forgotten in a step after that.
    ForgetsLater,
    /// The location is forgotten when the change is announced.
    ForgetsWhenAnnounced,
    /// A decider does not look for a location.
    DecidesByMemory,
    /// A decider takes a key for absent after it has brought back or forgotten a saved value.
    DecidesWithoutAskingAgain,
    /// The saver gives a moved row its location even if the old location does not stand any more.
    MovesWithoutLooking,
    /// The saver removes the rows of a segment before it forgets their locations.
    TruncatesFirst,
}

#[derive(Clone, Debug)]
pub struct Table {
    pub variant: Variant,
    /// Whether both keys have the same bits.
    pub same_bits: bool,
    pub changes: &'static [Change],
    /// The keys that have a value in the beginning.
    pub present: [bool; KEYS],
    /// The keys that the readers read.
    pub read: &'static [usize],
    pub readers: usize,
    /// Deciders, all for key 0.
    pub deciders: usize,
    pub segments: usize,
    pub positions: usize,
    /// Whether entries leave the memory when they are saved, and only then.
    pub leaves: bool,
    /// Whether a superuser rewrites the tables, and the server restarts once.
    pub rewrites: bool,
}

impl Table {
    fn bits(&self, key: usize) -> usize {
        if self.same_bits { 0 } else { key }
    }

    fn decides(&self, reader: usize) -> bool {
        reader >= self.readers
    }

    fn reading(&self, reader: usize) -> Vec<Read> {
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

    fn writing(&self, change: Change) -> Vec<Write> {
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

    fn forgets_in_change(&self) -> bool {
        ![Variant::ForgetsEarlier, Variant::ForgetsLater, Variant::ForgetsWhenAnnounced]
            .contains(&self.variant)
    }
}

impl Change {
    fn key(self) -> usize {
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

impl State {
    /// Takes the first free block, so that blocks recur as soon as possible.
    fn allocate(&mut self, value: Value) -> Option<usize> {
        let used = |block: &usize| {
            self.announced.contains(&Some(*block))
                || self.entries.iter().flatten().any(|entry| entry.block == *block)
        };
        let block = (0..BLOCKS).find(|block| !used(block))?;
        self.blocks[block] = value;
        Some(block)
    }

    /// Makes the value of the next change of a key.
    fn next_value(&self, key: usize) -> Value {
        let version = self.visible[key] + 1;
        Value { key, version, bytes: (key, version) }
    }

    /// Returns the value of a key that is in the memory.
    pub fn in_memory(&self, key: usize) -> Option<Value> {
        self.entries[key].map(|entry| self.blocks[entry.block])
    }

    fn row(&self, location: Location) -> Option<Value> {
        self.segments[location.segment].rows.get(location.position).copied()
    }

    pub fn location(&self, model: &Table, key: usize) -> Option<Location> {
        self.locations[model.bits(key)].first().copied()
    }

    fn forget(&mut self, model: &Table, key: usize) {
        let locations = &mut self.locations[model.bits(key)];
        locations.drain(..locations.len().min(1));
    }

    /// Returns whether the location was added.
    fn add(&mut self, model: &Table, key: usize, location: Location) -> bool {
        let locations = &mut self.locations[model.bits(key)];
        let has_room = locations.is_empty() || model.variant == Variant::TwoLocations;
        if has_room {
            locations.insert(0, location);
        }
        has_room
    }

    /// Makes a change in the tier.
    fn change(&mut self, model: &Table, key: usize, entry: Option<usize>) {
        if model.forgets_in_change() {
            self.forget(model, key);
        }
        self.announced[key] = None;
        self.entries[key] = entry.map(|block| Entry { block, marked: false });
        self.through[key] = self.visible[key];
    }

    fn show(&mut self, key: usize, removes: bool) {
        self.visible[key] += 1;
        if removes {
            self.removals[key] |= 1 << self.visible[key];
        }
    }

    fn write(&mut self, model: &Table, step: Write) {
        let change = model.changes[usize::from(self.change)];
        let key = change.key();
        self.at += 1;
        match step {
            Write::Announce => self.announced[key] = self.allocate(self.next_value(key)),
            Write::Show => self.show(key, change.removes()),
            Write::Confirm => {
                let block = self.announced[key].filter(|_| !change.removes());
                self.change(model, key, block);
            }
            Write::Withdraw => {
                self.announced[key] = None;
                self.at = u8::MAX;
            }
            Write::AtOnce => {
                let value = self.next_value(key);
                let block = if change.removes() { None } else { self.allocate(value) };
                self.show(key, change.removes());
                self.change(model, key, block);
            }
            Write::Touch => {
                self.show(key, self.entries[key].is_none());
                if model.forgets_in_change() {
                    self.forget(model, key);
                }
                self.through[key] = self.visible[key];
                if let Some(entry) = &mut self.entries[key] {
                    self.touches[key] |= 1 << self.visible[key];
                    self.blocks[entry.block].version = self.visible[key];
                    entry.marked &= model.variant == Variant::KeepsMarkWhenTouched;
                }
            }
            Write::Forget => self.forget(model, key),
        }
        if usize::from(self.at) >= model.writing(change).len() {
            (self.change, self.at) = (self.change + 1, 0);
        }
    }

    /// Returns the keys that the saver may mark, a bit for each.
    fn to_be_saved(&self, model: &Table) -> u8 {
        let wanted = |key: &usize| {
            let is_saved = self.location(model, *key).is_some();
            self.entries[*key].is_some() && (!is_saved || model.variant == Variant::TwoLocations)
        };
        (0..KEYS).filter(wanted).fold(0, |keys, key| keys | 1 << key)
    }

    fn mark(&mut self, keys: u8, batch: &mut Vec<Marked>) {
        for key in (0..KEYS).filter(|key| keys >> key & 1 == 1) {
            if let Some(entry) = &mut self.entries[key] {
                entry.marked = true;
                let version = self.blocks[entry.block].version;
                batch.push(Marked { key, block: entry.block, version });
            }
        }
    }

    /// Returns whether a marked entry is still there, as the saver sees it.
    fn is_still(&self, model: &Table, marked: &Marked) -> bool {
        let is_it = |key: &usize| {
            self.entries[*key].is_some_and(|entry| {
                entry.block == marked.block && (entry.marked || model.variant == Variant::ComparesBlocks)
            })
        };
        (0..KEYS).filter(|key| model.bits(*key) == model.bits(marked.key)).any(|key| is_it(&key))
    }

    fn has_room(&self, model: &Table, segment: usize, rows: usize) -> bool {
        let found = &self.segments[segment];
        found.is_as_recorded() && found.rows.len() + rows <= model.positions
    }

    fn append(&mut self, segment: usize, value: Value) -> Location {
        let rows = &mut self.segments[segment].rows;
        rows.push(value);
        Location { segment, position: rows.len() - 1 }
    }

    fn forget_segment(&mut self, segment: usize) {
        self.locations.iter_mut().for_each(|locations| locations.retain(|one| one.segment != segment));
    }

    fn truncate(&mut self, segment: usize) {
        let file = (self.segments[segment].recorded + 1) % 2;
        self.segments[segment] = Segment { rows: vec![], file, recorded: file };
    }

    fn is_locked(&self, segment: usize) -> bool {
        let holds =
            |reader: &Reader| reader.locked && reader.location.is_some_and(|at| at.segment == segment);
        self.readers.iter().any(holds)
    }

    fn save(&mut self, model: &Table, step: Save) {
        let before = std::mem::replace(&mut self.saver, Saver::Idle);
        self.saver = match (step, before) {
            (Save::Mark(keys), Saver::Copying(mut batch, copies)) => {
                self.mark(keys, &mut batch);
                Saver::Copying(batch, copies)
            }
            (Save::Mark(keys), _) => {
                let mut batch = vec![];
                self.mark(keys, &mut batch);
                Saver::Copying(batch, vec![])
            }
            (Save::Copy, Saver::Copying(batch, mut copies)) => {
                // The lengths and the properties are those that the entry had when it was marked.
                let marked = batch[copies.len()];
                copies.push(Value { version: marked.version, ..self.blocks[marked.block] });
                Saver::Copying(batch, copies)
            }
            (Save::Append(segment), Saver::Copying(batch, copies)) => {
                let places: Vec<_> = copies.into_iter().map(|copy| self.append(segment, copy)).collect();
                Saver::Locating(batch.into_iter().zip(places).collect())
            }
            (Save::Locate, Saver::Locating(mut left)) => {
                let (marked, location) = left.remove(0);
                if self.is_still(model, &marked) && self.add(model, marked.key, location) && model.leaves {
                    self.entries[marked.key] = None;
                }
                if left.is_empty() { Saver::Idle } else { Saver::Locating(left) }
            }
            (Save::Empty(segment), _) if model.variant == Variant::TruncatesFirst => {
                self.truncate(segment);
                Saver::Emptied(segment)
            }
            (Save::Empty(segment), _) => {
                self.forget_segment(segment);
                Saver::Emptied(segment)
            }
            (Save::Truncate, Saver::Emptied(segment)) if model.variant == Variant::TruncatesFirst => {
                self.forget_segment(segment);
                Saver::Idle
            }
            (Save::Truncate, Saver::Emptied(segment)) => {
                if !self.is_locked(segment) {
                    self.truncate(segment);
                }
                Saver::Idle
            }
            (Save::CopyRow(from), _) => match self.row(from) {
                Some(copy) => Saver::Moving { from, copy, to: None },
                None => Saver::Idle,
            },
            (Save::AppendRow, Saver::Moving { from, copy, .. }) => {
                Saver::Moving { from, copy, to: Some(self.append(1 - from.segment, copy)) }
            }
            (Save::Move, Saver::Moving { from, copy, to: Some(to) }) => {
                if self.location(model, copy.key) == Some(from) {
                    self.forget(model, copy.key);
                    self.add(model, copy.key, to);
                } else if model.variant == Variant::MovesWithoutLooking {
                    self.add(model, copy.key, to);
                }
                Saver::Idle
            }
            (Save::GiveUp, _) => Saver::Idle,
            (step, before) => unreachable!("{step:?} in {before:?}"),
        };
    }

    /// Returns the steps that the saver may take.
    fn savings(&self, model: &Table) -> Vec<Save> {
        let wanted = self.to_be_saved(model);
        let marks = (1..1 << KEYS).filter(|keys| keys & !wanted == 0).map(Save::Mark);
        let segments = 0..model.segments;
        let gives_up = (self.saver != Saver::Idle).then_some(Save::GiveUp);
        let mut steps: Vec<_> = match &self.saver {
            Saver::Idle => {
                let used = |segment: &usize| {
                    let segment = &self.segments[*segment];
                    !segment.rows.is_empty() || !segment.is_as_recorded()
                };
                let moved = self.locations.iter().flatten().filter(|from| {
                    self.segments[from.segment].is_as_recorded()
                        && model.segments > 1
                        && self.has_room(model, 1 - from.segment, 1)
                });
                let emptied = segments
                    .filter(used)
                    .filter(|segment| model.variant != Variant::TruncatesFirst || !self.is_locked(*segment));
                marks.chain(emptied.map(Save::Empty)).chain(moved.copied().map(Save::CopyRow)).collect()
            }
            Saver::Copying(batch, copies) if copies.len() < batch.len() => {
                let again = model.variant == Variant::MarksTwice && copies.is_empty() && batch.len() == 1;
                marks.filter(|_| again).chain([Save::Copy]).collect()
            }
            Saver::Copying(_, copies) => {
                segments.filter(|at| self.has_room(model, *at, copies.len())).map(Save::Append).collect()
            }
            Saver::Locating(_) => vec![Save::Locate],
            Saver::Emptied(_) => vec![Save::Truncate],
            Saver::Moving { to: None, .. } => vec![Save::AppendRow],
            Saver::Moving { .. } => vec![Save::Move],
        };
        steps.extend(gives_up);
        steps
    }

    fn restart(&mut self) {
        self.entries = [None; KEYS];
        self.locations.iter_mut().for_each(Vec::clear);
        self.segments.iter_mut().for_each(|segment| segment.recorded = UNKNOWN);
        self.saver = Saver::Idle;
        self.readers.fill(Reader::default());
        self.restarted = true;
    }

    /// Whether the key has a value that a reader could get now.
    fn has_value(&self, model: &Table, key: usize) -> bool {
        let is_saved = |at: Location| {
            self.segments[at.segment].is_as_recorded() && self.row(at).is_some_and(|row| row.key == key)
        };
        self.entries[key].is_some() || self.location(model, key).is_some_and(is_saved)
    }

    /// Returns whether a reader that began when `expected` was visible may get a value.
    fn judge(&self, reader: &Reader, value: Value) -> Option<Outcome> {
        let key = reader.key;
        let is_set = |version: &u8| self.touches[key] >> version & 1 == 0;
        let bytes = (0..=value.version).rev().find(is_set).unwrap_or(0);
        if value.bytes != (key, bytes) {
            Some(Outcome::Torn)
        } else if value.version >= reader.expected {
            None
        } else if self.removals[key] >> reader.expected & 1 == 1 {
            Some(Outcome::Removed)
        } else {
            Some(Outcome::Stale)
        }
    }

    fn read(&mut self, model: &Table, number: usize, step: Read) {
        let mut reader = std::mem::take(&mut self.readers[number]);
        reader.at += 1;
        let key = reader.key;
        let location = self.location(model, key);
        let outcome = match step {
            Read::Begin(key) => {
                reader = Reader { at: 1, key, expected: self.visible[key], ..Reader::default() };
                None
            }
            Read::Look if self.announced[key].is_some() => {
                let goes_on = model.variant == Variant::IgnoresAnnouncements && self.entries[key].is_none();
                (!goes_on).then_some(Outcome::Miss)
            }
            Read::Look => self.in_memory(key).map(|value| self.judge(&reader, value).unwrap_or(Outcome::Hit)),
            Read::Locate => {
                reader.location = location;
                location.is_none().then_some(Outcome::Miss)
            }
            Read::Record => {
                let at = reader.location.expect("it has one");
                reader.recorded = self.segments[at.segment].recorded;
                None
            }
            Read::Lock => {
                reader.locked = true;
                None
            }
            Read::LookAgain => (location != reader.location).then_some(Outcome::Miss),
            Read::Row => {
                let at = reader.location.expect("it has one");
                let is_of_file = self.segments[at.segment].file == reader.recorded
                    || model.variant == Variant::DoesNotCompareFiles;
                let is_it = |row: &Value| {
                    is_of_file && (row.key == key || model.variant == Variant::DoesNotCompareKeys)
                };
                reader.value = self.row(at).filter(is_it);
                if reader.value.is_none() && location == reader.location {
                    self.forget(model, key);
                }
                reader.value.is_none().then_some(Outcome::Miss)
            }
            Read::Bytes => {
                let row = self.row(reader.location.expect("it has one"));
                let bytes = row.map(|row| row.bytes);
                reader.value = reader.value.zip(bytes).map(|(value, bytes)| Value { bytes, ..value });
                reader.value.is_none().then_some(Outcome::Miss)
            }
            Read::Promote => {
                let value = reader.value.expect("it has one");
                let stands = location == reader.location || model.variant == Variant::PromotesWithoutLooking;
                if stands && self.entries[key].is_none() {
                    self.promoted_old |= value.version != self.through[key];
                    self.entries[key] =
                        self.allocate(Value { key, ..value }).map(|block| Entry { block, marked: false });
                }
                Some(self.judge(&reader, value).unwrap_or(Outcome::SavedHit))
            }
            Read::Decide => self.decide(model, &mut reader, location),
            Read::Forget => {
                if location == reader.location {
                    self.forget(model, key);
                }
                let is_told = model.variant == Variant::DecidesWithoutAskingAgain;
                reader = Reader::default();
                if is_told { Some(self.set_first(model, key)) } else { None }
            }
        };
        if let Some(outcome) = outcome {
            let reading = model.reading(number);
            let forgets = reading.iter().position(|step| *step == Read::Forget);
            let ends = matches!(outcome, Outcome::Present | Outcome::First);
            reader = match forgets.filter(|_| !ends) {
                Some(at) => Reader { at: at as u8, location: reader.location, ..Reader::default() },
                None => Reader { at: reading.len() as u8, outcome: Some(outcome), ..Reader::default() },
            };
        }
        self.readers[number] = reader;
    }

    fn decide(&mut self, model: &Table, reader: &mut Reader, location: Option<Location>) -> Option<Outcome> {
        if self.entries[reader.key].is_some() {
            return Some(Outcome::Present);
        }
        reader.location = location.filter(|_| model.variant != Variant::DecidesByMemory);
        reader.expected = self.visible[reader.key];
        reader.location.is_none().then(|| self.set_first(model, reader.key))
    }

    /// Sets a key because a decider has found that it has no value.
    fn set_first(&mut self, model: &Table, key: usize) -> Outcome {
        self.overlooked |= self.has_value(model, key);
        self.entries[key] = None;
        let block = self.allocate(self.next_value(key));
        self.show(key, false);
        self.change(model, key, block);
        Outcome::First
    }
}

impl Model for Table {
    type State = State;
    type Action = Step;

    fn init_states(&self) -> Vec<State> {
        let mut blocks = [Value::default(); BLOCKS];
        let mut entries = [None; KEYS];
        for key in (0..KEYS).filter(|key| self.present[*key]) {
            blocks[key] = Value { key, version: 0, bytes: (key, 0) };
            entries[key] = Some(Entry { block: key, marked: false });
        }
        vec![State {
            blocks,
            entries,
            announced: [None; KEYS],
            locations: Default::default(),
            segments: Default::default(),
            visible: [0; KEYS],
            through: [0; KEYS],
            removals: [0; KEYS],
            touches: [0; KEYS],
            change: 0,
            at: 0,
            saver: Saver::Idle,
            readers: vec![Reader::default(); self.readers + self.deciders],
            restarted: false,
            promoted_old: false,
            overlooked: false,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Step>) {
        if let Some(change) = self.changes.get(usize::from(state.change)) {
            let next = self.writing(*change)[usize::from(state.at)];
            actions.push(Step::Writer(next));
            if next == Write::Show {
                actions.push(Step::Writer(Write::Withdraw));
            }
        }
        let may_evict = |key: &usize| !self.leaves && state.entries[*key].is_some();
        actions.extend((0..KEYS).filter(may_evict).map(Step::Evict));
        actions.extend(state.savings(self).into_iter().map(Step::Saver));
        if self.variant == Variant::TwoSavers && state.entries.iter().flatten().any(|entry| !entry.marked) {
            actions.push(Step::OtherSaver);
        }
        let may_rewrite = |segment: &usize| {
            self.rewrites && !state.segments[*segment].rows.is_empty() && !state.is_locked(*segment)
        };
        actions.extend((0..self.segments).filter(may_rewrite).map(Step::Rewrite));
        if self.rewrites && !state.restarted {
            actions.push(Step::Restart);
        }
        for (number, reader) in state.readers.iter().enumerate() {
            let begins = || self.read.iter().map(move |key| Step::Reader(number, Read::Begin(*key)));
            match self.reading(number).get(usize::from(reader.at)) {
                Some(Read::Begin(_)) => actions.extend(begins()),
                Some(step) => actions.push(Step::Reader(number, *step)),
                None if !self.decides(number) => actions.extend(begins()),
                None => {}
            }
        }
    }

    fn next_state(&self, last: &State, step: Step) -> Option<State> {
        let mut state = last.clone();
        match step {
            Step::Writer(step) => state.write(self, step),
            Step::Evict(key) => state.entries[key] = None,
            Step::Saver(step) => state.save(self, step),
            Step::OtherSaver => state.entries.iter_mut().flatten().for_each(|entry| entry.marked = true),
            Step::Rewrite(segment) => {
                let segment = &mut state.segments[segment];
                segment.rows.reverse();
                segment.file = REWRITTEN;
            }
            Step::Restart => state.restart(),
            Step::Reader(number, step) => state.read(self, number, step),
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        fn ends(state: &State, outcome: Outcome) -> bool {
            state.readers.iter().any(|reader| reader.outcome == Some(outcome))
        }
        let mut properties = vec![
            Property::always(NOT_STALE, |_, state: &State| !ends(state, Outcome::Stale)),
            Property::always(NOT_REMOVED, |_, state: &State| !ends(state, Outcome::Removed)),
            Property::always(WHOLE, |_, state: &State| !ends(state, Outcome::Torn)),
            Property::always(PROMOTED_IS_PRESENT, |_, state: &State| !state.promoted_old),
            Property::always(NOT_OVERLOOKED, |_, state: &State| !state.overlooked),
            Property::always(SAVED_IS_PRESENT, |_, state: &State| {
                let is_present = |at: &Location| {
                    let as_recorded = state.segments[at.segment].is_as_recorded();
                    let row = state.row(*at);
                    !as_recorded || row.is_some_and(|row| row.version == state.through[row.key])
                };
                state.locations.iter().flatten().all(is_present)
            }),
            Property::sometimes("a copy comes too late", |model: &Self, state: &State| match &state.saver {
                Saver::Locating(left) => !state.is_still(model, &left[0].0),
                _ => false,
            }),
            Property::sometimes("a position is used again", |_, state: &State| {
                state.segments.iter().any(|segment| segment.file == 1 && !segment.rows.is_empty())
            }),
            Property::sometimes(
                "a reader keeps the saver from a segment",
                |_, state: &State| matches!(state.saver, Saver::Emptied(segment) if state.is_locked(segment)),
            ),
            Property::sometimes(
                "a reader finds that its location has gone",
                |model: &Self, state: &State| {
                    let has_gone = |reader: &Reader| {
                        reader.location.is_some() && reader.location != state.location(model, reader.key)
                    };
                    state.readers.iter().any(|reader| reader.locked && has_gone(reader))
                },
            ),
        ];
        if self.readers > 0 {
            properties.push(Property::sometimes("a saved value is a hit", |_, state: &State| {
                ends(state, Outcome::SavedHit)
            }));
            properties.push(Property::sometimes("a value of the memory is a hit", |_, state: &State| {
                ends(state, Outcome::Hit)
            }));
        }
        if self.deciders > 1 {
            properties
                .push(Property::sometimes("one decider finds the other's value", |_, state: &State| {
                    ends(state, Outcome::First) && ends(state, Outcome::Present)
                }));
            properties.push(Property::sometimes(
                "both set the key, as it was evicted",
                |_, state: &State| {
                    state.readers.iter().filter(|reader| reader.outcome == Some(Outcome::First)).count() > 1
                },
            ));
        }
        properties
    }
}

const NOT_STALE: &str = "no stale read";
const NOT_REMOVED: &str = "no read of a removed key";
const WHOLE: &str = "what is read is whole and of its key";
const PROMOTED_IS_PRESENT: &str = "what is promoted is present";
const SAVED_IS_PRESENT: &str = "what has a location is present";
const NOT_OVERLOOKED: &str = "no decider overlooks a value";

impl Table {
    /// One key, changed by transactions.
    fn transactions(variant: Variant) -> Self {
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
    fn at_once(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0), Change::SetAtOnce(0), Change::RemoveAtOnce(0)];
        Self { changes, ..Self::transactions(variant) }
    }

    /// The same without the removal, and with room for two rows.
    fn two_rows(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0), Change::SetAtOnce(0)];
        Self { changes, positions: 2, ..Self::transactions(variant) }
    }

    /// One key, which gets another time to live.
    fn touched(variant: Variant) -> Self {
        Self { changes: &[Change::Touch(0), Change::SetAtOnce(0)], ..Self::transactions(variant) }
    }

    /// Two keys with the same bits.
    fn same_bits(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0)];
        Self { same_bits: true, changes, present: [true, true], positions: 2, ..Self::transactions(variant) }
    }

    /// Two keys with different bits.
    fn two_keys(variant: Variant) -> Self {
        Self { same_bits: false, ..Self::same_bits(variant) }
    }

    /// A superuser rewrites the table, and the server restarts.
    fn rewritten(variant: Variant) -> Self {
        let changes = &[Change::SetAtOnce(0)];
        Self { changes, positions: 2, rewrites: true, ..Self::transactions(variant) }
    }

    /// The saver copies rows to another segment.
    fn moved(variant: Variant) -> Self {
        Self { changes: &[Change::SetAtOnce(0)], segments: 2, ..Self::transactions(variant) }
    }

    /// Two sessions set one key if it has no value.
    fn deciders(variant: Variant) -> Self {
        Self { changes: &[], readers: 0, deciders: 2, ..Self::transactions(variant) }
    }

    /// One session sets the key if it has no value, another one removes it, and a third one reads.
    fn decider_and_reader(variant: Variant) -> Self {
        Self { changes: &[Change::RemoveAtOnce(0)], deciders: 1, ..Self::transactions(variant) }
    }

    /// One key, whose value is either in the memory or saved.
    pub fn leaves(variant: Variant) -> Self {
        let changes = &[Change::Touch(0), Change::Set(0)];
        Self { changes, leaves: true, ..Self::transactions(variant) }
    }

    /// Two sessions set such a key if it has no value.
    pub fn leaves_for_deciders(variant: Variant) -> Self {
        Self { leaves: true, ..Self::deciders(variant) }
    }

    /// A reader of both of two keys with the same bits.
    fn both_keys(variant: Variant) -> Self {
        Self { read: &[0, 1], ..Self::same_bits(variant) }
    }
}

#[test]
fn table() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Table, variant, verdict| {
        check(&format!("table, {name}: {variant:?}"), make(variant), verdict);
    };
    let transactions = |variant, verdict| run("transactions", Table::transactions, variant, verdict);
    let at_once = |variant, verdict| run("at once", Table::at_once, variant, verdict);
    let two_rows = |variant, verdict| run("two rows", Table::two_rows, variant, verdict);
    let touched = |variant, verdict| run("touched", Table::touched, variant, verdict);
    let same_bits = |variant, verdict| run("same bits", Table::same_bits, variant, verdict);
    let rewritten = |variant, verdict| run("rewritten", Table::rewritten, variant, verdict);
    let moved = |variant, verdict| run("moved", Table::moved, variant, verdict);
    let deciders = |variant, verdict| run("deciders", Table::deciders, variant, verdict);
    let scenarios: [&dyn Fn(Variant, Verdict); 7] =
        [&transactions, &at_once, &touched, &same_bits, &rewritten, &moved, &deciders];
    for as_built in scenarios {
        as_built(AsBuilt, Right);
    }
    run("decider and reader", Table::decider_and_reader, AsBuilt, Right);
    run("leaves", Table::leaves, AsBuilt, Right);
    if long() {
        run("two rows", Table::two_rows, AsBuilt, Right);
        run("two keys", Table::two_keys, AsBuilt, Right);
        run("both keys", Table::both_keys, AsBuilt, Right);
    }
    // A location is given only to a copy of the entry that is there.
    at_once(ComparesBlocks, Breaks(NOT_STALE));
    at_once(TwoSavers, Breaks(NOT_STALE));
    touched(KeepsMarkWhenTouched, Breaks(NOT_STALE));
    // The first copy has the properties that the first of the marked entries had, and the bytes of the second one.
    two_rows(MarksTwice, Breaks(WHOLE));
    moved(MovesWithoutLooking, Breaks(NOT_STALE));
    // A change forgets all locations with the key's bits in the same step. Until then, the announcement hides them.
    for variant in [ForgetsEarlier, ForgetsLater, ForgetsWhenAnnounced] {
        transactions(variant, Breaks(NOT_STALE));
    }
    two_rows(TwoLocations, Breaks(NOT_STALE));
    transactions(IgnoresAnnouncements, Breaks(NOT_STALE));
    transactions(IgnoresAnnouncements, Breaks(NOT_REMOVED));
    // If a reader reads another row, then that row may never have had a location. It may be a copy of a block that was
    // used again before it was copied. Comparing the file does not help `LocksLate`, because file numbers recur.
    for variant in [LocksLate, DoesNotLookAgain, DoesNotLock, TruncatesFirst] {
        at_once(variant, Breaks(WHOLE));
    }
    at_once(TruncatesFirst, Breaks(SAVED_IS_PRESENT));
    same_bits(DoesNotCompareKeys, Breaks(WHOLE));
    rewritten(DoesNotCompareFiles, Breaks(NOT_STALE));
    // A row becomes an entry only if it is the present value.
    at_once(PromotesWithoutLooking, Breaks(PROMOTED_IS_PRESENT));
    at_once(PromotesWithoutLooking, Breaks(NOT_REMOVED));
    deciders(PromotesWithoutLooking, Breaks(PROMOTED_IS_PRESENT));
    // A saved value is a value.
    deciders(DecidesByMemory, Breaks(NOT_OVERLOOKED));
    deciders(DecidesWithoutAskingAgain, Breaks(NOT_OVERLOOKED));
}
