//! The saver of a database: copies entries to its segments, the tables of saved values (`record.rs`), and frees segments.
//!
//! Only the worker of the database runs this code, so there is one saver for a database. Each method must be called in a
//! transaction of the worker. An error ends the saver. That loses nothing: a row without a location in the directory
//! (`core/tier/directory.rs`) does not exist, and the next saver finds everything else in the records.
//!
//! The saver fills one segment after the other. When the current one is full, it goes on with an empty one. If no segment is empty
//! then, it frees the oldest. Rows of the oldest segment that a reader has asked for are copied on first. So there are no deleted
//! rows, and no old snapshot can make a table grow.
//!
//! To save an entry, the saver *marks* it under the lock of its *shard* (the part of the cache that it is in), copies it to a row,
//! and adds the row's location to the directory. A change of the entry in between takes the mark away, and the copy is then not
//! used (`core/tier/saving.rs`).

use super::holdings::SEGMENTS_LEAST;
use super::record::{self, Record};
use super::row::{self, FORMAT};
use crate::pg::catalog;
use crate::pg::memory;
use crate::pg::segment::{self, Segment, SegmentRow};
use crate::pg::settings;
use crate::pg::shared::{self, HotTier};
use crate::store::keyspace::{Tiers, hash};
use crate::store::space;
use pg_cache_core::{Batch, Counter, FenceId, Key, Location, Marked, Meta, SavedValue, StaleOk};
use std::collections::BTreeMap;

/// The number of tables that `sql/segments.sql` creates.
pub const SEGMENTS: usize = 8;
/// The most entries that are marked in one hold of a shard's lock, so that the lock is held for a short time.
const MARKED_MAX: usize = 128;
/// How many batches of one shard are saved at most before the saver goes on to the next shard, so that a busy shard does not keep
/// the others waiting.
const BATCHES_PER_SHARD: u32 = 8;
/// The most buckets that one call of [`Saver::save_rest`] looks at. Most entries are saved already, so a call would look at all of
/// them to find a few.
const WALKED_MAX: u64 = 1 << 16;
/// The most bytes that are appended at once, unless one value is larger. This bounds the memory of the copies.
const APPENDED_MAX: usize = 1 << 20;
/// The least size of a segment in bytes: eight blocks of 8 kB.
const SEGMENT_BYTES_MIN: u64 = 64 << 10;
/// An estimate of the bytes that a row takes besides its key, its note and its value. It only serves to compare sizes with limits.
const ROW_BYTES: u64 = 120;

/// A saver. It exists as long as its worker.
#[derive(Debug)]
pub struct Saver {
    tier: &'static HotTier,
    /// The segments of this database, in the order of their names.
    segments: Vec<u16>,
    /// The number of the last value. The values of a saver are numbered from 1 on.
    item: i64,
    /// The generation of the extension's tables (`catalog::generation`), and where each space of this database keeps its entries as
    /// of then. The generation is 0 before the first look.
    spaces: (u64, BTreeMap<u32, Tiers>),
    /// The memory for marked entries, which is used again and again.
    batch: Batch,
    /// The bucket at which the walk through all entries continues.
    bucket: u64,
    /// The number of evictions at the last look for entries that will be evicted soon.
    evicted: u64,
    /// Whether marked entries could not be saved. The next look must then mark them again.
    has_failed: bool,
    /// How many values were saved.
    pub saved: u64,
    /// How many copies came too late, because the entry had changed.
    pub outdated: u64,
}

/// A copy of an entry or of a row, on its way to a row.
struct Copied {
    /// The key.
    key: Vec<u8>,
    /// The fences of the value's dependencies.
    dependencies: Vec<FenceId>,
    /// The bytes of the note (`store/note.rs`), followed by the bytes of the value.
    content: Vec<u8>,
    /// The number of bytes of the note.
    note_len: usize,
    /// The properties of the value.
    meta: Meta,
    /// How long the value may be served stale. None if it may not be.
    stale_ok: Option<StaleOk>,
    /// The OID of the space.
    space: u32,
    /// The OID of the role that owns the entry, or 0.
    role: u32,
}

/// How many entries were to be saved because they will be evicted soon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Due {
    None,
    Few,
    /// At least one full batch of a shard, from which values were saved. More entries may be due, and may be evicted before a later
    /// call would save them.
    Many,
}

/// The rows of a segment that the saver copies to another segment before it frees the segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Keep {
    /// Those that a reader has asked for, up to a quarter of a segment.
    Asked,
    /// All that are in use.
    All,
}

impl Saver {
    /// Makes the saver of this database, and makes its tables segments. None if there is no tier with a directory, no memory, or
    /// if fewer than [`SEGMENTS_LEAST`] tables are segments. No other saver of the database may exist.
    pub fn new() -> Option<Self> {
        let tier = shared::tier().filter(|tier| tier.has_directory())?;
        let mut saver = Self {
            tier,
            segments: Vec::new(),
            item: 0,
            spaces: (0, BTreeMap::new()),
            batch: Batch::with_room(MARKED_MAX).ok()?,
            bucket: 0,
            evicted: 0,
            // An earlier saver may have marked entries that it did not save.
            has_failed: true,
            saved: 0,
            outdated: 0,
        };
        let tables = segments_of_extension();
        // The extension was dropped, and perhaps created again, while no worker ran.
        record::each(tier, |number, record| {
            if record.database == shared::database() && !tables.contains(&record.table) {
                tier.forget_segment(number);
                record::release(tier, number);
            }
        });
        for table in tables {
            let Some(number) = record::adopt(tier, table) else { break };
            memory::push(&mut saver.segments, number);
            saver.verify(number);
        }
        if saver.segments.len() >= SEGMENTS_LEAST {
            return Some(saver);
        }
        // Another database may have what is too little for this one.
        let unused = saver.records().filter(|(_, record)| record.is_empty());
        unused.for_each(|(number, _)| record::release(tier, number));
        None
    }

    /// Empties a segment whose file is not the one that its locations lead to: the table was just adopted, or a command has
    /// rewritten it. A command may just be rewriting a table that cannot be locked at once, so such a segment is retired.
    fn verify(&self, number: u16) {
        let Some(record) = Record::read(self.tier, number) else { return };
        let (file, bytes) =
            Segment::to_read(record.table).map_or((0, record.bytes), |open| (open.file(), open.bytes()));
        if file == 0 || file != record.file {
            Record { bytes, ..record }.write(self.tier, number);
            self.free(number);
        }
    }

    /// Returns the records of this database's segments, each with the number of its segment.
    fn records(&self) -> impl Iterator<Item = (u16, Record)> + '_ {
        self.segments.iter().filter_map(|number| Some((*number, Record::read(self.tier, *number)?)))
    }

    /// Returns the size of a full segment in bytes. It does not depend on the number of databases, although all databases share
    /// `pg_cache.table_size`.
    fn segment_bytes() -> u64 {
        (settings::table_bytes() / SEGMENTS as u64).max(SEGMENT_BYTES_MIN)
    }

    /// Saves entries that will be evicted soon: the oldest ones of all shards. Returns how many there were.
    pub fn save_due(&mut self) -> Due {
        let mut due = Due::None;
        // Without evictions, entries whose locations were pushed out of a full directory are not saved again: they would push out
        // others.
        let evicted =
            [Counter::Evicted, Counter::EvictedQuota].map(|what| self.tier.counted(what)).iter().sum();
        let again = std::mem::replace(&mut self.evicted, evicted) != evicted || self.has_failed;
        self.has_failed = false;
        for shard in 0..self.tier.shards() {
            // The search looks at a limited number of the oldest entries. This number of full batches comes only if entries have
            // left the memory in between.
            for _ in 0..BATCHES_PER_SHARD {
                let before = self.saved;
                let marked = self.save_batch(|saver, admits, batch| {
                    saver.tier.mark_oldest(shard, shared::database(), again, admits, batch);
                });
                let is_full = marked == MARKED_MAX as u64;
                due = due.max(match marked {
                    0 => Due::None,
                    _ if is_full && self.saved > before => Due::Many,
                    _ => Due::Few,
                });
                if !is_full {
                    break;
                }
            }
        }
        due
    }

    /// Returns whether a segment of this database must be freed soon: because none is empty, or because another database waits for
    /// the space of one.
    pub fn needs_segment(&self) -> bool {
        !self.records().any(|(_, record)| record.is_empty())
            || self.records().any(|(_, record)| record.is_to_be_freed)
    }

    /// Returns whether no segment of this database has rows.
    pub fn is_empty(&self) -> bool {
        self.records().all(|(_, record)| record.is_empty())
    }

    /// Saves about `budget` other entries, and goes on where the last call has ended. Returns whether there were any.
    pub fn save_rest(&mut self, budget: u64) -> bool {
        let (mut saved, mut left) = (0, self.tier.buckets_total().min(WALKED_MAX));
        while saved < budget && left > 0 {
            let from = self.bucket;
            saved += self.save_batch(|saver, admits, batch| {
                let next = saver.tier.mark_bucket(saver.bucket, shared::database(), admits, batch);
                saver.bucket = next.unwrap_or(0);
            });
            left = left.saturating_sub(self.bucket.abs_diff(from).max(1));
        }
        saved > 0
    }

    /// Marks entries by `mark` and saves them. `mark` gets a function that tells by the OID of its space whether an entry is to be
    /// saved. Returns how many were marked.
    fn save_batch(&mut self, mark: impl FnOnce(&mut Self, &dyn Fn(u32) -> bool, &mut Batch)) -> u64 {
        self.learn_spaces();
        let mut batch = std::mem::take(&mut self.batch);
        let spaces = std::mem::take(&mut self.spaces);
        // The default space may have no row. Another space that is not known yet may be one that must stay in memory.
        let admits = |space: u32| match spaces.1.get(&space) {
            Some(tiers) => *tiers != Tiers::Hot,
            None => space == space::DEFAULT_OID,
        };
        mark(self, &admits, &mut batch);
        self.spaces = spaces;
        self.save(batch.marked());
        let marked = batch.marked().len() as u64;
        self.batch = batch;
        shared::check_for_interrupts();
        marked
    }

    /// Reads again where the spaces keep their entries, if that may have changed.
    fn learn_spaces(&mut self) {
        let generation = crate::pg::catalog::generation();
        if self.spaces.0 != generation {
            let mut found = BTreeMap::new();
            space::each(|oid, options| _ = found.insert(oid, options.tiers));
            self.spaces = (generation, found);
        }
    }

    /// Copies marked entries to rows, and adds their locations.
    fn save(&mut self, marked: &[Marked]) {
        let mut rest = marked;
        while !rest.is_empty() {
            let mut bytes = 0;
            let is_within = |one: &&Marked| {
                bytes += one.meta().value_len + one.note_len() + one.key_len();
                bytes <= APPENDED_MAX
            };
            let count = rest.iter().take_while(is_within).count().max(1);
            let (some, behind) = rest.split_at(count);
            let copies = memory::collect(some.iter().map(|one| self.copy(one)));
            let Some(places) = self.append(&copies) else {
                self.has_failed = true;
                return;
            };
            for (one, place) in some.iter().zip(places) {
                // In a space that keeps values in tables only, the entry leaves the memory now.
                let leave = self.spaces.1.get(&one.space()) == Some(&Tiers::Table);
                match place.is_some_and(|place| self.tier.locate(one, place, leave)) {
                    true => self.saved += 1,
                    false => self.outdated += 1,
                }
            }
            rest = behind;
        }
    }

    /// Copies an entry. The copy may be torn: only `Tier::locate` tells whether the entry has stayed the same.
    fn copy(&self, marked: &Marked) -> Copied {
        let mut copied = Copied {
            key: memory::zeroed(marked.key_len()),
            dependencies: no_fences(marked.dependency_count()),
            content: memory::zeroed(marked.note_len() + marked.meta().value_len),
            note_len: marked.note_len(),
            meta: marked.meta(),
            stale_ok: None,
            space: marked.space(),
            role: marked.role(),
        };
        let (note, value) = copied.content.split_at_mut(copied.note_len);
        copied.stale_ok =
            self.tier.read_marked(marked, &mut copied.key, &mut copied.dependencies, note, value);
        copied
    }

    /// Appends values to the current segment. Returns the location of each, or None for a value whose parts are not consecutive.
    /// None altogether if no segment has room now.
    fn append(&mut self, copies: &[Copied]) -> Option<Vec<Option<Location>>> {
        let wanted = copies.iter().map(|one| ROW_BYTES + (one.key.len() + one.content.len()) as u64).sum();
        let (number, mut record) = self.current(wanted)?;
        let Some(segment) = Segment::to_append(record.table) else {
            // Another session has locked the table. The values are marked again, and go to the next segment then.
            self.begin();
            return None;
        };
        if segment.file() != record.file {
            drop(segment);
            self.free(number);
            return None;
        }
        let fences: Vec<Vec<u8>> = memory::collect(copies.iter().map(|one| {
            memory::collect(one.dependencies.iter().flat_map(|fence| fence.number().to_ne_bytes()))
        }));
        let (mut rows, mut heads) = (Vec::new(), Vec::new());
        for (one, dependencies) in copies.iter().zip(&fences) {
            self.item += 1;
            memory::push(&mut heads, rows.len());
            row::parts_of(self.row(one, dependencies), |part| memory::push(&mut rows, part));
        }
        let positions = segment.append(&rows);
        let place = |(index, head): (usize, &usize)| {
            let end = heads.get(index + 1).copied().unwrap_or(rows.len());
            let parts = positions.get(*head..end)?;
            let follows = |pair: &[u64]| segment::is_next(pair[0], pair[1]);
            let is_consecutive = parts.windows(2).all(follows);
            parts.first().filter(|_| is_consecutive).and_then(|first| Location::new(number, *first))
        };
        let places = memory::collect(heads.iter().enumerate().map(place));
        record.bytes = segment.bytes();
        record.rows = record.rows.saturating_add(heads.len() as u32);
        record.expires = copies.iter().map(last_tick).fold(record.expires, u32::max);
        record.write(self.tier, number);
        Some(places)
    }

    /// Returns a value as one row. `dependencies` are its fences in the form of the row.
    fn row<'r>(&self, one: &'r Copied, dependencies: &'r [u8]) -> SegmentRow<'r> {
        let stale_ok = one.stale_ok.unwrap_or(StaleOk { ticks: 0, valid_at: 0 });
        SegmentRow {
            format: FORMAT,
            kind: one.meta.kind.0.into(),
            part: 0,
            space: one.space,
            role: one.role,
            item: self.item,
            stamp: one.meta.stamp.as_u64() as i64,
            cost: one.meta.cost.micros() as i64,
            created: one.meta.created,
            expires: one.meta.expires,
            stale_ticks: stale_ok.ticks,
            valid_at: stale_ok.valid_at,
            length: one.content.len() as u32,
            note: one.note_len as u32,
            epoch: shared::content_id(),
            key: &one.key,
            dependencies,
            value: &one.content,
        }
    }

    /// Returns the segment to append to. Goes on to an empty segment if the current one has no room for `wanted` more bytes. None
    /// if there is no segment to go on to.
    fn current(&self, wanted: u64) -> Option<(u16, Record)> {
        let youngest =
            self.records().filter(|(_, record)| record.turn > 0).max_by_key(|(_, record)| record.turn);
        if let Some((number, record)) = youngest
            && record.bytes + wanted <= Self::segment_bytes()
        {
            return Some((number, record));
        }
        self.begin()
    }

    /// Begins an empty segment: it becomes the one to append to. None if there is no empty segment, or no room for another one.
    fn begin(&self) -> Option<(u16, Record)> {
        let (number, mut record) = self.records().find(|(_, record)| record.is_empty())?;
        if !self.has_room() {
            return None;
        }
        let mut turn = 0;
        record::each(self.tier, |_, other| turn = turn.max(other.turn));
        record = Record { turn: turn + 1, began: shared::tick(), expires: 0, rows: 0, bytes: 0, ..record };
        record.write(self.tier, number);
        Some((number, record))
    }

    /// Returns the bytes that count towards `pg_cache.table_size`.
    fn counted(&self) -> u64 {
        record::counted(self.tier, settings::table_bytes(), Self::segment_bytes())
    }

    /// Returns whether another segment may be begun. All databases share `pg_cache.table_size`. If their segments fill it, the
    /// oldest segment of the server must be freed first: by this saver, or by the saver of its database, which is asked for that.
    /// If that database has no saver for some time, the launcher retires the segment.
    fn has_room(&self) -> bool {
        if self.counted() + Self::segment_bytes() <= settings::table_bytes() {
            return true;
        }
        let mut oldest: Option<(u16, Record)> = None;
        record::each(self.tier, |number, record| {
            if record.turn > 0 && oldest.is_none_or(|(_, known)| record.turn < known.turn) {
                oldest = Some((number, record));
            }
        });
        if let Some((number, record)) = oldest.filter(|(_, record)| !record.is_to_be_freed) {
            record.ask_to_free(self.tier, number);
        }
        false
    }

    /// Empties the tables of retired segments, and frees one segment that is due, the oldest first. A segment is due if its rows
    /// have all expired or are mostly out of use, if it is too old, if another database waits for its space, if the segments exceed
    /// `pg_cache.table_size`, or if no segment is empty. Without `copies`, no row is copied on: that may need disk space. Returns
    /// whether a table was emptied, and None if the tables are gone: then the saver must end.
    pub fn maintain(&mut self, copies: bool) -> Option<bool> {
        if !self.has_tables() {
            return None;
        }
        let retired: Vec<u16> = memory::collect(
            self.records().filter(|(_, record)| record.is_retired()).map(|(number, _)| number),
        );
        let emptied = retired.into_iter().filter(|number| self.empty(*number)).count() > 0;
        let Some((number, keep)) = self.due() else { return Some(emptied) };
        if copies {
            self.copy_on(number, keep);
        }
        Some(self.free(number) || emptied)
    }

    /// Returns the oldest segment that is to be freed, and which of its rows are copied on before.
    fn due(&self) -> Option<(u16, Keep)> {
        let youngest = self.records().map(|(_, record)| record.turn).max().filter(|turn| *turn > 0)?;
        let (used, now) = (self.used_rows(), shared::tick());
        let has_empty = self.records().any(|(_, record)| record.is_empty());
        let too_large = self.counted() > settings::table_bytes();
        let mut due: Option<(u32, u16, Keep)> = None;
        for (number, record) in self.records().filter(|(_, record)| record.turn > 0) {
            let used = used.iter().find(|(of, _)| *of == number).map_or(0, |(_, count)| *count);
            let is_youngest = record.turn == youngest;
            let keep = if record.expires <= now || used == 0 && !is_youngest {
                Some(Keep::All)
            } else if record.is_to_be_freed || too_large {
                Some(Keep::Asked)
            } else if !is_youngest && (used * 2 < record.rows || record.is_old()) {
                Some(Keep::All)
            } else if !has_empty && !is_youngest {
                Some(Keep::Asked)
            } else {
                None
            };
            if let Some(keep) = keep
                && due.is_none_or(|(turn, ..)| record.turn < turn)
            {
                due = Some((record.turn, number, keep));
            }
        }
        due.map(|(_, number, keep)| (number, keep))
    }

    /// Returns whether all tables are there. If not, the extension was dropped, and the segments become free.
    fn has_tables(&self) -> bool {
        let tables = segments_of_extension();
        let gone = self.records().filter(|(_, record)| !tables.contains(&record.table));
        let gone: Vec<u16> = memory::collect(gone.map(|(number, _)| number));
        gone.iter().for_each(|number| {
            self.tier.forget_segment(*number);
            record::release(self.tier, *number);
        });
        gone.is_empty()
    }

    /// Returns how many rows of each segment of this database have a location.
    fn used_rows(&self) -> [(u16, u32); SEGMENTS] {
        let mut used = [(u16::MAX, 0); SEGMENTS];
        used.iter_mut().zip(&self.segments).for_each(|(count, number)| count.0 = *number);
        for shard in 0..self.tier.shards() {
            self.tier.each_location(shard, |location, _| {
                if let Some((_, count)) = used.iter_mut().find(|(number, _)| *number == location.segment()) {
                    *count += 1;
                }
            });
        }
        used
    }

    /// Copies rows of a segment to the current one, and moves their locations. Stops early if the segment cannot be read, or if no
    /// segment has room: the other rows are lost when the segment is freed.
    fn copy_on(&mut self, number: u16, keep: Keep) {
        let mut locations = Vec::new();
        for shard in 0..self.tier.shards() {
            self.tier.each_location(shard, |location, asked| {
                if location.segment() == number && (asked || keep == Keep::All) {
                    memory::push(&mut locations, location);
                }
            });
        }
        let mut left = match keep {
            Keep::Asked => Self::segment_bytes() / 4,
            Keep::All => u64::MAX,
        };
        let mut rest = &locations[..];
        while !rest.is_empty() {
            let Some((copies, looked)) = self.copies_of_rows(number, rest) else { return };
            rest = &rest[looked..];
            if copies.is_empty() {
                continue;
            }
            let is_within = |(_, one): &&(Location, Copied)| {
                left = left.saturating_sub(ROW_BYTES + one.content.len() as u64);
                left > 0
            };
            let count = copies.iter().take_while(is_within).count();
            let (from, copies): (Vec<_>, Vec<_>) = copies.into_iter().take(count).unzip();
            let Some(places) = self.append(&copies).filter(|_| count > 0) else { return };
            for ((from, one), to) in from.into_iter().zip(&copies).zip(places) {
                let scope = self.tier.scope(shared::database(), one.space, one.role);
                if let Some((key, to)) = Key::new(scope, &one.key, hash(&one.key)).zip(to) {
                    self.tier.move_location(&key, from, to);
                }
            }
            shared::check_for_interrupts();
        }
    }

    /// Copies the values at the first of some locations of a segment, if they may still be served. Returns them, and at how many
    /// locations it has looked. None if the segment cannot be read.
    fn copies_of_rows(
        &self,
        number: u16,
        locations: &[Location],
    ) -> Option<(Vec<(Location, Copied)>, usize)> {
        let record = Record::read(self.tier, number)?;
        let segment = Segment::to_read(record.table).filter(|open| open.file() == record.file)?;
        let copy = |location: &Location| {
            let found = segment.row(location.position())?;
            let first = found.row();
            let dependencies = row::dependencies(&first);
            let (meta, stale_ok) = (row::meta(&first), row::stale_ok(&first));
            let scope = self.tier.scope(shared::database(), first.space, first.role);
            let saved = SavedValue { key: first.key, meta, dependencies: &dependencies, stale_ok };
            if !row::is_current(&first) || first.part != 0 || self.tier.is_saved_useless(&scope, &saved) {
                return None;
            }
            let note_len = first.note.min(first.length) as usize;
            let mut content = memory::zeroed(note_len + meta.value_len);
            let (note, value) = content.split_at_mut(note_len);
            let key = memory::copy(first.key);
            let (space, role) = (first.space, first.role);
            let is_whole = super::reading::copy(&segment, location.position(), &found, note, value);
            let copied = Copied { key, dependencies, content, note_len, meta, stale_ok, space, role };
            is_whole.then_some((*location, copied))
        };
        let (mut copies, mut bytes, mut looked) = (Vec::new(), 0, 0);
        for location in locations.iter().take(MARKED_MAX) {
            looked += 1;
            if let Some((location, one)) = copy(location) {
                bytes += one.key.len() + one.content.len();
                memory::push(&mut copies, (location, one));
            }
            if bytes >= APPENDED_MAX {
                break;
            }
        }
        Some((copies, looked))
    }

    /// Empties a segment, or retires it if its table is locked. No location leads to it afterwards. Returns whether its table was
    /// emptied.
    fn free(&self, number: u16) -> bool {
        let is_empty = self.empty(number);
        if !is_empty {
            record::retire(self.tier, number);
        }
        is_empty
    }

    /// Empties a segment if no other session has a lock on its table. Returns whether it was emptied; if not, nothing has changed.
    fn empty(&self, number: u16) -> bool {
        let Some(record) = Record::read(self.tier, number) else { return false };
        let Some(segment) = Segment::to_truncate(record.table) else { return false };
        self.tier.forget_segment(number);
        segment.truncate();
        Record { file: segment.file(), turn: 0, rows: 0, bytes: 0, is_to_be_freed: false, ..record }
            .write(self.tier, number);
        true
    }
}

/// Returns the last tick (`pg/clock.rs`) at which a value may be served, stale or not.
fn last_tick(one: &Copied) -> u32 {
    one.meta.expires.saturating_add(one.stale_ok.map_or(0, |stale_ok| stale_ok.ticks))
}

/// Returns a list of so many fences, to be overwritten. Raises an error if there is no memory.
fn no_fences(count: usize) -> Vec<FenceId> {
    memory::collect(std::iter::repeat_n(FenceId::from_number(0), count))
}

/// Returns the tables of this database that the saver may write to.
fn segments_of_extension() -> Vec<u32> {
    catalog::schema_of_extension().map_or(Vec::new(), |schema| segment::all(schema, SEGMENTS))
}
