//! An entry: a header, followed by the dependencies, the key, the note and the value as one stream of bytes.
//!
//! ```text
//! word 0   hash : 32      | next in the bucket : 32          under the lock; readers follow it
//! word 1   newer : 32     | older in the queue : 32          under the lock
//! word 2   database : 32  | space : 32                       never change while the entry lives
//! word 3   role : 32      | noted : 1 | exported : 1 | length of note and value : 30       never change
//! word 4   stamp : 46     | length of the key : 11 | flags : 7   stamp and flags under the lock
//! word 5   expires : 32   | created : 32                     ticks; expires under the lock
//! word 6   cost : 16      | kind : 8 | dependencies : 8 | rounds : 4 | rest at : 12 | blocks of the first run : 16
//!                                                            rounds under the lock
//! ```
//!
//! "Under the lock" is the lock of the key's shard. "Rest at" is the offset of the note and the value in bytes from the start of
//! the entry. "Blocks of the first run" is 0 unless the entry is chained (see below).
//!
//! A dependency has 4 bytes. The dependencies are padded to a whole word, so that the key begins at a word. The value follows the
//! key directly, except for the value of a counter, which is a word of its own.
//!
//! A *note* stands before the value of an entry that is *noted*: two bytes with its length, and then its bytes. Readers of the
//! value skip it. The note of a counter stands behind the value, so that the place of its word does not depend on it.
//!
//! An entry is *exported* if a store outside of the server gets a copy of its value (`exporting.rs`).
//!
//! An entry may be *stale_ok*: readers that accept stale values may get it for a limited time after it stopped being valid. Such an
//! entry has one more word before its note and value: `ticks : 32 | when the entry was last known to be valid : 32`. The second
//! half is written under the lock. The word is not part of the header, so that other entries do not pay for it.
//!
//! The bytes lie in one run of blocks if a run of that length is free. Otherwise the entry is *chained*: the last word of each run
//! holds the first block and the length of the next run. So the tier can use scattered free space.
//!
//! Three kinds of readers may read an entry: the backend that owns it, before it is linked and after it was unlinked; a holder of
//! the lock of its shard; and a reader that found it by the rules of `shard.rs` and checks afterwards whether it lived all the time
//! (`Sighting::lived`). Only the owner of an entry that is not linked, or a holder of the lock, may call the functions that write.
//!
//! An entry is *dead* once it was removed. The bytes of a dead entry may be anything, so this code never trusts them: every loop
//! must end by itself, and the number of a block that does not exist leads to the sink (`Layout::block_at`).
//!
//! The *region* is the shared memory of the tier, as words of 64 bits. An entry is *linked* while it is in the chain of its hash
//! bucket, and *announced* while it hides the value of its key until a change is confirmed (`publishing.rs`).

use crate::blocks::Run;
use crate::fence::{FenceId, Stamp};
use crate::figures::Cost;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::layout::{BLOCK_BYTES, BLOCK_WORDS, LINE, Layout};
use crate::region::{Region, copy_bytes};
use crate::sync::{AtomicU64, Ordering};
use crate::value::{DEPENDENCIES_MAX, Kind, Meta, NOTE_BYTES_MAX, NewValue, ReserveOptions, StaleOk};

pub(crate) const HEADER_WORDS: usize = 7;
pub(crate) const HEADER_BYTES: usize = HEADER_WORDS * 8;
/// The block number that means "no entry": block 0 lies in the region's header.
pub(crate) const NONE: u32 = 0;
/// The blocks of the shortest run: 64 bytes, room for a header and the link to the next run. No entry has fewer blocks.
pub(crate) const RUN_BLOCKS_MIN: u32 = 4;
/// The blocks of the longest run: its length must fit into 16 bits of the header.
pub(crate) const RUN_BLOCKS_MAX: u32 = u16::MAX as u32;

/// A copy of an entry's header, read once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header {
    pub words: [u64; HEADER_WORDS],
}

const STAMP_SHIFT: u32 = 18;
const KEY_SHIFT: u32 = 7;
const KEY_MASK: u64 = (1 << 11) - 1;
const ROUNDS_SHIFT: u32 = 28;
const REST_SHIFT: u32 = 16;
const REST_MASK: u64 = (1 << (ROUNDS_SHIFT - REST_SHIFT)) - 1;
/// Bit of word 3: the entry has a note.
const NOTED: u64 = 1 << 31;
/// Bit of word 3: the entry is exported.
const EXPORTED: u64 = 1 << 30;
/// The most bytes of a note, with [`NOTE_HEADER_BYTES`], and a value together.
pub(crate) const REST_BYTES_MAX: usize = EXPORTED as usize - 1;
/// The bytes before a note that hold its length.
pub(crate) const NOTE_HEADER_BYTES: usize = 2;
/// The bytes of the value of a counter.
pub(crate) const COUNTER_BYTES: usize = 8;
/// The most rounds that an entry can be promised.
pub(crate) const ROUNDS_MAX: u32 = 15;
// The header, the dependencies, the key and the word of a stale value end before the place that the rest can have at most.
const _: () = assert!(HEADER_BYTES + 4 * (DEPENDENCIES_MAX + 1) + KEY_BYTES_MAX + 16 <= REST_MASK as usize);
const _: () = assert!(NOTE_BYTES_MAX <= u16::MAX as usize);

/// Flag: the entry is in the main queue, not in the small one.
pub(crate) const IN_MAIN: u64 = 1;
/// Flag: the entry is chained: its bytes are in several runs, or in a run that ends with a link.
pub(crate) const CHAINED: u64 = 2;
/// Flag: the entry may have runs in other shards than the shard of its key.
pub(crate) const SPREAD: u64 = 8;
/// Flag: the entry announces the change of a transaction that is about to commit. A reader that finds it reports a miss.
pub(crate) const HIDDEN: u64 = 16;
/// Flag of an announcement: it has no value, because the transaction removes the key.
pub(crate) const TOMBSTONE: u64 = 32;
/// Flag of an entry that is not hidden: a saver has copied it, see `saving.rs`. It shares its bit with [`TOMBSTONE`]: an
/// announcement with that flag never becomes visible.
pub(crate) const MARKED: u64 = TOMBSTONE;
/// Flag: the entry has a word before its value that says how long it may be served after it stopped being valid.
pub(crate) const MAY_BE_STALE: u64 = 64;
/// Flag: the entry is *linked*: it is in a bucket, and also in an eviction queue unless it is hidden. An entry without this flag is
/// dead, or it is a reservation that only its owner uses.
pub(crate) const LINKED: u64 = 4;

impl Header {
    /// Makes the header of an entry that has no blocks yet and is not linked. The caller must have checked that the note and the
    /// value have at most [`REST_BYTES_MAX`], and that there are at most `DEPENDENCIES_MAX` dependencies. A counter with a note
    /// must have a value of [`COUNTER_BYTES`].
    pub(crate) fn new(key: &Key<'_>, value: &NewValue<'_>, options: &ReserveOptions, created: u32) -> Self {
        let may_be_stale = options.stale_ok.is_some();
        let mut header = Self::default();
        header.words[0] = u64::from(key.fingerprint()) << 32;
        header.words[2] = u64::from(key.scope.database) << 32 | u64::from(key.scope.space);
        let (noted, note_bytes) = match value.note.len() {
            0 => (0, 0),
            length => (NOTED, NOTE_HEADER_BYTES + length),
        };
        let exported = if options.is_exported { EXPORTED } else { 0 };
        header.words[3] =
            u64::from(key.scope.role) << 32 | noted | exported | (note_bytes + value.bytes.len()) as u64;
        header.words[4] = value.stamp.as_u64() << STAMP_SHIFT | (key.bytes.len() as u64) << KEY_SHIFT;
        header.words[5] = u64::from(value.expires) << 32 | u64::from(created);
        let behind_key = HEADER_BYTES + (4 * value.dependencies.len()).next_multiple_of(8) + key.bytes.len();
        // A counter has a word of its own, so that it is read and written in one step.
        let rest_at = match (may_be_stale, value.kind) {
            (true, _) => behind_key.next_multiple_of(8) + 8,
            (false, Kind::COUNTER) => behind_key.next_multiple_of(8),
            (false, _) => behind_key,
        };
        if may_be_stale {
            header.words[4] |= MAY_BE_STALE;
        }
        header.words[6] = u64::from(value.cost.bits()) << 48
            | u64::from(value.kind.0) << 40
            | (value.dependencies.len() as u64) << 32
            | (rest_at as u64) << REST_SHIFT;
        header
    }

    /// Reads a header from memory.
    #[inline(always)]
    pub(crate) fn load(words: &[AtomicU64; HEADER_WORDS]) -> Self {
        Self { words: words.each_ref().map(|word| word.load(Ordering::Relaxed)) }
    }

    /// Returns the 32 bits of the key's hash that the entry keeps (`Key::fingerprint`).
    pub(crate) fn hash(&self) -> u32 {
        (self.words[0] >> 32) as u32
    }
    /// Returns database and space in one word.
    pub(crate) fn space_id(&self) -> u64 {
        self.words[2]
    }
    pub(crate) fn database(&self) -> u32 {
        (self.words[2] >> 32) as u32
    }
    pub(crate) fn space(&self) -> u32 {
        self.words[2] as u32
    }
    pub(crate) fn role(&self) -> u32 {
        (self.words[3] >> 32) as u32
    }
    /// Returns whether a note stands before the value.
    pub(crate) fn is_noted(&self) -> bool {
        self.words[3] & NOTED != 0
    }
    /// Returns whether the entry is exported.
    pub(crate) fn is_exported(&self) -> bool {
        self.words[3] & EXPORTED != 0
    }
    /// Returns the length of the note and the value in bytes.
    fn rest_len(&self) -> usize {
        self.words[3] as usize & REST_BYTES_MAX
    }
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp::from_u64(self.words[4] >> STAMP_SHIFT)
    }
    pub(crate) fn key_len(&self) -> usize {
        (self.words[4] >> KEY_SHIFT & KEY_MASK) as usize
    }
    pub(crate) fn has(&self, flag: u64) -> bool {
        self.words[4] & flag != 0
    }
    pub(crate) fn expires(&self) -> u32 {
        (self.words[5] >> 32) as u32
    }
    pub(crate) fn created(&self) -> u32 {
        self.words[5] as u32
    }
    pub(crate) fn kind(&self) -> Kind {
        Kind((self.words[6] >> 40) as u8)
    }
    /// Returns the number of dependencies.
    pub(crate) fn dependency_count(&self) -> usize {
        ((self.words[6] >> 32) as u8 as usize).min(DEPENDENCIES_MAX)
    }
    /// Returns how many rounds in the main queue the entry gets although no reader asks for it.
    pub(crate) fn rounds(&self) -> u32 {
        (self.words[6] >> ROUNDS_SHIFT) as u32 & ROUNDS_MAX
    }
    pub(crate) fn cost(&self) -> Cost {
        Cost::from_bits((self.words[6] >> 48) as u16)
    }
    /// Returns how many blocks the first run of a chained entry has.
    pub(crate) fn first_run(&self) -> u32 {
        (self.words[6] as u16).into()
    }
    /// Returns the offset of the key in bytes, from the start of the entry.
    pub(crate) fn key_at(&self) -> usize {
        self.key_word() * 8
    }
    /// Returns the index of the word that the key begins with.
    fn key_word(&self) -> usize {
        HEADER_WORDS + ((self.words[6] >> 32) as u8 as usize).div_ceil(2)
    }
    /// Returns the offset of the note and the value in bytes, from the start of the entry.
    fn rest_at(&self) -> usize {
        (self.words[6] >> REST_SHIFT & REST_MASK) as usize
    }
    /// Returns the length of the entry in bytes, with its header and without links.
    pub(crate) fn byte_len(&self) -> usize {
        self.rest_at() + self.rest_len()
    }
    /// Returns how many blocks the entry needs if it lies in one run.
    pub(crate) fn blocks(&self) -> u32 {
        blocks_of(self.byte_len())
    }
    /// Returns the properties of a value of this length.
    fn meta(&self, value_len: usize) -> Meta {
        Meta {
            value_len,
            kind: self.kind(),
            stamp: self.stamp(),
            created: self.created(),
            expires: self.expires(),
            cost: self.cost(),
            valid_at: u32::MAX,
        }
    }
}

/// Returns how many blocks a run needs to hold this many bytes.
pub(crate) fn blocks_of(bytes: usize) -> u32 {
    // The cast cannot lose bits: even a length from the header of a dead entry is at most about 1 GB, that is, 2^26 blocks.
    bytes.div_ceil(BLOCK_BYTES) as u32
}

/// An entry, identified by its first block.
#[derive(Clone, Copy)]
pub(crate) struct Entry<'m> {
    /// The shared memory.
    pub(super) region: Region<'m>,
    /// The position of the first word.
    at: usize,
    /// The number of the first block.
    pub block: u32,
}

impl<'m> Entry<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &Layout, block: u32) -> Self {
        Self { region, at: layout.block_at(block), block }
    }

    #[inline(always)]
    pub(crate) fn header(&self) -> Header {
        self.header_words().map(Header::load).unwrap_or_default()
    }

    /// Returns the words of the header, or `None` if the region ends before the end of the header.
    #[inline(always)]
    pub(crate) fn header_words(&self) -> Option<&'m [AtomicU64; HEADER_WORDS]> {
        self.region.array_at(self.at)
    }

    /// Prefetches the cache line that the header begins on.
    #[inline(always)]
    pub(crate) fn prefetch_header(&self) {
        self.region.prefetch(self.at);
    }

    /// Prefetches the three cache lines after the line that the header begins on. In small entries they hold the key and the value.
    /// The processor fetches them at the same time as the header, before the code knows from the header where key and value are.
    #[inline(always)]
    pub(crate) fn prefetch(&self) {
        self.region.prefetch(self.at + LINE);
        self.region.prefetch(self.at + 2 * LINE);
        self.region.prefetch(self.at + 3 * LINE);
    }

    pub(crate) fn word(&self, index: usize) -> u64 {
        self.region.load(self.at + index)
    }

    pub(crate) fn set_word(&self, index: usize, value: u64) {
        self.region.store(self.at + index, value);
    }

    /// Returns database and space in one word.
    pub(crate) fn space_id(&self) -> u64 {
        self.word(2)
    }
    pub(crate) fn bucket_next(&self) -> u32 {
        self.word(0) as u32
    }
    pub(crate) fn set_bucket_next(&self, next: u32) {
        self.set_word(0, self.word(0) >> 32 << 32 | u64::from(next));
    }
    pub(crate) fn newer(&self) -> u32 {
        (self.word(1) >> 32) as u32
    }
    pub(crate) fn set_newer(&self, newer: u32) {
        self.set_word(1, u64::from(newer) << 32 | u64::from(self.word(1) as u32));
    }
    pub(crate) fn older(&self) -> u32 {
        self.word(1) as u32
    }
    pub(crate) fn set_older(&self, older: u32) {
        self.set_word(1, self.word(1) >> 32 << 32 | u64::from(older));
    }
    pub(crate) fn set_flag(&self, flag: u64, on: bool) {
        let flags = self.word(4);
        self.set_word(4, if on { flags | flag } else { flags & !flag });
    }
    pub(crate) fn set_stamp(&self, stamp: Stamp) {
        self.set_word(4, stamp.as_u64() << STAMP_SHIFT | self.word(4) & ((1 << STAMP_SHIFT) - 1));
    }
    pub(crate) fn set_expires(&self, expires: u32) {
        self.set_word(5, u64::from(expires) << 32 | u64::from(self.word(5) as u32));
    }
    /// Writes the tick of storing. The entry must not be linked yet.
    pub(crate) fn set_created(&self, created: u32) {
        self.set_word(5, self.word(5) >> 32 << 32 | u64::from(created));
    }

    /// Promises the entry so many rounds.
    pub(crate) fn set_rounds(&self, rounds: u32) {
        let rest = self.word(6) & !(u64::from(ROUNDS_MAX) << ROUNDS_SHIFT);
        self.set_word(6, rest | u64::from(rounds.min(ROUNDS_MAX)) << ROUNDS_SHIFT);
    }

    /// Returns the entry's runs of blocks, in order.
    pub(crate) fn runs(&self, layout: &'m Layout, header: &Header) -> Runs<'m> {
        let chained = header.has(CHAINED);
        Runs {
            region: self.region,
            layout,
            next: Run {
                first: self.block,
                blocks: if chained { header.first_run() } else { header.blocks() },
            },
            chained,
            // No entry is larger than all blocks together. The limit makes the walk end in time if the length is damaged.
            bytes: header.byte_len().min(layout.blocks_total() as usize * BLOCK_BYTES),
        }
    }

    /// Returns whether this is the entry of `key`. `header` must have been read from this entry.
    #[inline(always)]
    pub(crate) fn is_of(&self, layout: &'m Layout, header: &Header, key: &Key<'_>) -> bool {
        let length = key.bytes.len();
        if header.space_id() != key.scope.space_id()
            || header.role() != key.scope.role
            || header.key_len() != length
        {
            return false;
        }
        if header.has(CHAINED) {
            return (*self).has_key_chained(layout, key.bytes);
        }
        let Some(words) = self.region.slice_at(self.at + header.key_word(), length.div_ceil(8)) else {
            return false;
        };
        let (whole, rest) = key.bytes.as_chunks::<8>();
        let mut words = words.iter().map(|word| word.load(Ordering::Relaxed));
        whole.iter().all(|bytes| words.next() == Some(u64::from_ne_bytes(*bytes)))
            && (rest.is_empty()
                || words.next().is_some_and(|word| (word.to_le() ^ key.tail) << (64 - length % 8 * 8) == 0))
    }

    // The rare path reads the header again instead of receiving it, so that the fast path can keep the header in registers. If
    // lengths or places in it have changed meanwhile, the entry has died, and the caller's later check (`Sighting::lived`) finds
    // that.
    #[cold]
    #[inline(never)]
    fn has_key_chained(self, layout: &'m Layout, key: &[u8]) -> bool {
        let header = self.header();
        let mut bytes = [0; KEY_BYTES_MAX];
        bytes
            .get_mut(..key.len())
            .is_some_and(|bytes| self.copy_chained(layout, header.key_at(), bytes) && *bytes == *key)
    }

    /// Copies bytes of the entry from `offset` on. If the entry is dead, bytes may be missing; the missing part of `into` stays as
    /// it is.
    #[inline(always)]
    pub(crate) fn copy(&self, layout: &'m Layout, header: &Header, offset: usize, into: &mut [u8]) {
        if header.has(CHAINED) {
            (*self).copy_chained(layout, offset, into);
            return;
        }
        if let Some(words) = self.region.from(self.at) {
            copy_bytes(words, offset, into);
        }
    }

    /// Copies bytes of a chained entry from `offset` on. Returns whether all bytes were there.
    #[cold]
    #[inline(never)]
    fn copy_chained(self, layout: &'m Layout, offset: usize, into: &mut [u8]) -> bool {
        let (mut skip, mut rest) = (offset, into);
        for run in self.runs(layout, &self.header()) {
            let words = run.words(self.region, layout);
            if words.is_empty() {
                // The link leads nowhere: this entry is dead, and its length means nothing.
                return false;
            }
            let Some(size) = (words.len() * 8).checked_sub(skip) else {
                skip -= words.len() * 8;
                continue;
            };
            let size = size.min(rest.len());
            let (part, behind) = std::mem::take(&mut rest).split_at_mut(size);
            copy_bytes(words, skip, part);
            (skip, rest) = (0, behind);
            if rest.is_empty() {
                return true;
            }
        }
        false
    }

    /// Returns where the value is in the entry. `header` must have been read from this entry.
    #[inline(always)]
    pub(crate) fn value(&self, layout: &'m Layout, header: &Header) -> Part {
        match header.is_noted() {
            false => Part { at: header.rest_at(), length: header.rest_len() },
            true => self.value_beside_note(layout),
        }
    }

    // A function of its own, which reads the header again, for the same reason as `has_key_chained`.
    #[cold]
    #[inline(never)]
    fn value_beside_note(self, layout: &'m Layout) -> Part {
        let header = self.header();
        if header.kind() == Kind::COUNTER {
            return Part { at: header.rest_at(), length: header.rest_len().min(COUNTER_BYTES) };
        }
        let note = self.note(layout, &header);
        let at = note.at + note.length;
        Part { at, length: (header.rest_at() + header.rest_len()).saturating_sub(at) }
    }

    /// Returns where the note is in the entry. It has no bytes if there is none.
    pub(crate) fn note(&self, layout: &'m Layout, header: &Header) -> Part {
        if !header.is_noted() {
            return Part { at: header.rest_at(), length: 0 };
        }
        let before = if header.kind() == Kind::COUNTER { COUNTER_BYTES } else { 0 };
        let at = header.rest_at() + before + NOTE_HEADER_BYTES;
        let mut length = [0; NOTE_HEADER_BYTES];
        self.copy(layout, header, at - NOTE_HEADER_BYTES, &mut length);
        // The length of a dead entry may be anything.
        let most = (header.rest_at() + header.rest_len()).saturating_sub(at).min(NOTE_BYTES_MAX);
        let length = usize::from(u16::from_ne_bytes(length)).min(most);
        Part { at, length }
    }

    /// Returns the properties of the value.
    #[inline(always)]
    pub(crate) fn meta(&self, layout: &'m Layout, header: &Header) -> Meta {
        header.meta(self.value(layout, header).length)
    }

    /// Copies the value, or as much of it as `into` takes.
    #[inline(always)]
    pub(crate) fn copy_value(&self, layout: &'m Layout, header: &Header, into: &mut [u8]) {
        let value = self.value(layout, header);
        let length = into.len().min(value.length);
        self.copy(layout, header, value.at, &mut into[..length]);
    }

    /// Returns the word that holds a counter's value, or `None` if the entry's blocks end before it. The caller must have checked
    /// that the entry is a counter.
    pub(crate) fn counter(&self, layout: &'m Layout, header: &Header) -> Option<&'m AtomicU64> {
        self.word_of(layout, header, header.rest_at() / 8)
    }

    /// Returns how long the entry may be served after it stopped being valid, or `None` if it may not be served then.
    pub(crate) fn stale_ok(&self, layout: &'m Layout, header: &Header) -> Option<StaleOk> {
        let word = self.stale_ok_word(layout, header)?.load(Ordering::Relaxed);
        Some(StaleOk { ticks: (word >> 32) as u32, valid_at: word as u32 })
    }

    pub(crate) fn set_stale_ok(&self, layout: &'m Layout, header: &Header, stale_ok: StaleOk) {
        if let Some(word) = self.stale_ok_word(layout, header) {
            word.store(stale_ok.as_word(), Ordering::Relaxed);
        }
    }

    fn stale_ok_word(&self, layout: &'m Layout, header: &Header) -> Option<&'m AtomicU64> {
        let at = (header.rest_at() / 8).checked_sub(1)?;
        if header.has(MAY_BE_STALE) { self.word_of(layout, header, at) } else { None }
    }

    /// Returns the word at index `at` of the stream, in which links do not count.
    fn word_of(&self, layout: &'m Layout, header: &Header, mut at: usize) -> Option<&'m AtomicU64> {
        for run in self.runs(layout, header) {
            let words = run.words(self.region, layout);
            match words.get(at) {
                Some(word) => return Some(word),
                None => at -= words.len(),
            }
        }
        None
    }

    /// Returns a dependency by its position in the list.
    #[inline(always)]
    pub(crate) fn dependency(&self, layout: &'m Layout, header: &Header, index: usize) -> FenceId {
        let mut bytes = [0; 4];
        self.copy(layout, header, HEADER_BYTES + 4 * index, &mut bytes);
        FenceId(u32::from_ne_bytes(bytes))
    }
}

/// A part of an entry's bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Part {
    /// The offset in bytes, from the start of the entry.
    pub at: usize,
    /// The length in bytes.
    pub length: usize,
}

/// A run of an entry. If the entry is chained, the last word of the run is the link and holds no data.
#[derive(Clone, Copy)]
pub(crate) struct DataRun {
    /// The blocks.
    pub run: Run,
    /// Whether the last word is a link.
    chained: bool,
}

impl DataRun {
    /// Returns how many bytes of the stream fit into the run.
    pub(crate) fn byte_len(&self) -> usize {
        self.run.blocks as usize * BLOCK_BYTES - 8 * usize::from(self.chained)
    }

    /// Returns the words of the run that belong to the stream.
    #[inline]
    pub(crate) fn words<'m>(&self, region: Region<'m>, layout: &Layout) -> &'m [AtomicU64] {
        let words = self.run.blocks as usize * BLOCK_WORDS - usize::from(self.chained);
        region.slice_at(layout.block_at(self.run.first), words).unwrap_or(&[])
    }
}

/// Iterates over the runs of an entry. It ends when the runs hold all bytes of the entry, so a damaged chain never loops forever.
pub(crate) struct Runs<'m> {
    /// The shared memory.
    region: Region<'m>,
    /// The positions of all structures in the region.
    layout: &'m Layout,
    /// The next run.
    next: Run,
    /// Whether the entry has several runs.
    chained: bool,
    /// Bytes not yet covered by the runs returned so far.
    bytes: usize,
}

impl Iterator for Runs<'_> {
    type Item = DataRun;

    #[inline]
    fn next(&mut self) -> Option<DataRun> {
        if self.bytes == 0
            || self.next.blocks == 0
            || self.layout.shard_of_block(self.next.first) == self.layout.shards
        {
            return None;
        }
        let run = self.next;
        let size = run.blocks as usize * BLOCK_BYTES;
        if self.chained {
            let link = self.region.load(link_at(self.layout, run));
            self.next = Run { first: (link >> 32) as u32, blocks: (link as u32).min(RUN_BLOCKS_MAX) };
            self.bytes = self.bytes.saturating_sub(size - 8);
        } else {
            self.bytes = 0;
        }
        Some(DataRun { run, chained: self.chained })
    }
}

/// Returns the position of a run's link, the word in which a run of a chained entry names the next run.
pub(crate) fn link_at(layout: &Layout, run: Run) -> usize {
    layout.block_at(run.first) + run.blocks as usize * BLOCK_WORDS - 1
}
