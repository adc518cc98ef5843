//! An entry, the value of a key in shared memory: a header, followed by the dependencies, the key, the note and the value as one
//! stream of bytes. `header.rs` has the header, and `runs.rs` says in which blocks the stream lies.
//!
//! - A *dependency* is the number of a fence, in 4 bytes (`fence/mod.rs`). The dependencies are padded to a whole word, so that the
//!   key begins at a word. The value follows the key directly, except for the value of a counter, which is a word of its own.
//! - A *note* is bytes that the caller stores beside a value. It stands before the value of an entry that is *noted*: two bytes
//!   with its length, and then its bytes. Readers of the value skip it. The note of a counter stands behind the value, so that the
//!   place of its word does not depend on it.
//! - An entry is *exported* if a store outside of the server gets a copy of its value (`exporting.rs`).
//! - An entry may be *stale_ok*: readers that accept stale values may get it for a limited time after it stopped being valid. Such
//!   an entry has one more word before its note and value: `ticks : 32 | when the entry was last known to be valid : 32`. The
//!   second half is written under the lock. The word is not part of the header, so that other entries do not pay for it.
//!
//! `Tier::try_reserve` (`publishing.rs`) writes the parts in this order, and `Header::new` computes their places and lengths. A new
//! part must be added to both, and must keep a word that is read or written in one step at a multiple of 8 bytes. It also needs
//! another version of the layout (`VERSION` in `layout.rs`).
//!
//! An entry is *linked* while it is in the chain of its hash bucket, and *dead* once it was removed. Access:
//! - Three kinds of readers may read an entry: the backend that owns it, before it is linked and after it was unlinked; a holder of
//!   the lock of its shard; and a reader that found it by the rules of `shard.rs` and checks afterwards whether it lived all the
//!   time (`Sighting::lived`).
//! - Only the owner of an entry that is not linked, or a holder of the lock, may call the functions that write.
//! - The bytes of a dead entry may be anything, so this code never trusts them: every loop must end by itself, and the number of a
//!   block that does not exist leads to the sink, a word that is never trusted (`Layout::block_at`).

use super::header::{
    CHAINED, COUNTER_BYTES, HEADER_BYTES, HEADER_WORDS, Header, MAY_BE_STALE, NOTE_HEADER_BYTES, ROUNDS_MAX,
    ROUNDS_SHIFT, STAMP_SHIFT,
};
use super::runs::Runs;
use crate::blocks::Run;
use crate::fence::{FenceId, Stamp};
use crate::key::{KEY_BYTES_MAX, Key};
use crate::layout::{BLOCK_BYTES, LINE, Layout};
use crate::region::{Region, copy_bytes};
use crate::sync::{AtomicU64, Ordering};
use crate::value::{Kind, Meta, NOTE_BYTES_MAX, StaleOk};

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

    /// Writes how many rounds in the main queue the entry has left (`eviction.rs`).
    pub(crate) fn set_rounds(&self, rounds: u32) {
        let rest = self.word(6) & !(u64::from(ROUNDS_MAX) << ROUNDS_SHIFT);
        self.set_word(6, rest | u64::from(rounds.min(ROUNDS_MAX)) << ROUNDS_SHIFT);
    }

    /// Returns the entry's runs of blocks, in order.
    pub(crate) fn runs(&self, layout: &'m Layout, header: &Header) -> Runs<'m> {
        let chained = header.has(CHAINED);
        let first =
            Run { first: self.block, blocks: if chained { header.first_run() } else { header.blocks() } };
        // No entry is larger than all blocks together. The limit makes the walk end in time if the length is damaged.
        let bytes = header.byte_len().min(layout.blocks_total() as usize * BLOCK_BYTES);
        Runs::new(self.region, layout, first, chained, bytes)
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
