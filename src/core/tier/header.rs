//! The header of an entry: seven words in shared memory before the entry's bytes (`entry.rs` has the whole entry), and the flags in
//! them. [`Header`] is a copy, read once. A copy that was read without the lock may be that of a dead entry, whose words mean
//! nothing.
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
//! "Under the lock" is the lock of the key's shard, the part of the tier that the key belongs to. "Noted" says that the entry has a
//! *note*, bytes that are stored beside the value. "Exported" says that a store outside of the server gets a copy (`exporting.rs`).
//! "Rest at" is the offset of the note and the value in bytes from the start of the entry. "Blocks of the first run" is 0 unless
//! the entry is *chained*, that is, lies in several runs of neighbouring blocks (`runs.rs`).
//!
//! All seven flags are taken (below); one of them has two meanings. Another meaning of a bit needs another version of the layout
//! (`VERSION` in `layout.rs`).
//!
//! The *stamp* is the number of the clock of changes as of which the value is right (`fence/mod.rs`). A *tick* is the unit of time
//! of the host. *Rounds* are the laps that an entry gets in the main eviction queue although no reader asks for it (`eviction.rs`).
//!
//! A change of a key is *announced* by a *hidden* entry, which hides the key's value until the change is confirmed
//! (`publishing.rs`). A *reservation* is an entry that no reader can find yet. A *saver* copies entries to a place outside of the
//! memory (`saving.rs`).

use super::runs::blocks_of;
use crate::fence::Stamp;
use crate::figures::Cost;
use crate::key::{KEY_BYTES_MAX, Key};
use crate::sync::{AtomicU64, Ordering};
use crate::value::{DEPENDENCIES_MAX, Kind, Meta, NOTE_BYTES_MAX, NewValue, ReserveOptions};

pub(crate) const HEADER_WORDS: usize = 7;
pub(crate) const HEADER_BYTES: usize = HEADER_WORDS * 8;

/// A copy of an entry's header, read once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Header {
    pub words: [u64; HEADER_WORDS],
}

pub(super) const STAMP_SHIFT: u32 = 18;
const KEY_SHIFT: u32 = 7;
const KEY_MASK: u64 = (1 << 11) - 1;
pub(super) const ROUNDS_SHIFT: u32 = 28;
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
/// The most rounds in the main queue that an entry can have left (`eviction.rs`).
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
    pub(super) fn rest_len(&self) -> usize {
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
    pub(super) fn key_word(&self) -> usize {
        HEADER_WORDS + ((self.words[6] >> 32) as u8 as usize).div_ceil(2)
    }
    /// Returns the offset of the note and the value in bytes, from the start of the entry.
    pub(super) fn rest_at(&self) -> usize {
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
    pub(super) fn meta(&self, value_len: usize) -> Meta {
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
