//! The table of patterns. `mod.rs` has its layout and the rules of access.
//!
//! A *slot* holds one pattern. It is *announced* while the transaction of the pattern commits, *live* after that, and *retired*
//! when another pattern needs it. A *fence* is a word in shared memory that says when a dependency of entries last changed. A
//! *space* is a set of keys in one database.
//!
//! The *region* is the shared memory of the tier, the cache. `tier/patterns.rs` is the only caller.

use crate::fence::{FenceId, Stamp};
use crate::glob::Glob;
use crate::hash::scatter;
use crate::key::{KEY_BYTES_MAX, Scope};
use crate::layout::{LINE, Layout, PATTERN_HEAD_WORDS, PATTERN_WORDS};
use crate::region::{Region, copy_bytes};
use crate::sync::{Ordering, fence};

/// A slot that no pattern has. New memory is 0, so all slots are free at first.
const FREE: u64 = 0;
/// A writer is filling the slot.
const WRITING: u64 = 1;
/// The transaction of the pattern is about to commit.
const ANNOUNCED: u64 = 2;
/// The transaction has committed. The number is that of its commit.
const LIVE: u64 = 3;
const STATE_BITS: u32 = 2;
const STATE_MASK: u64 = (1 << STATE_BITS) - 1;

/// The most steps of all comparisons for one entry together: some milliseconds. If an entry needs more, it is a miss for a reader,
/// but is not removed.
pub(crate) const STEPS_MAX: u32 = 1 << 20;
/// The most leading bytes of a pattern that are compared without its other bytes.
const PREFIX_MAX: usize = 7;
// A pattern may be as long as a key.
const _: () = assert!(PATTERN_WORDS * 8 == KEY_BYTES_MAX);
/// The number of groups into which spaces are divided to find out which has the most patterns.
const GROUPS: usize = 64;

/// A pattern that is announced. The caller must pass it to exactly one of [`Tier::confirm_pattern`](crate::Tier::confirm_pattern)
/// and [`Tier::withdraw_pattern`](crate::Tier::withdraw_pattern).
#[derive(Debug, PartialEq, Eq)]
#[must_use = "or the slot stays announced"]
pub struct AnnouncedPattern {
    /// The slot that holds the pattern.
    pub(crate) slot: u32,
    /// The pattern fence of the space.
    pub(crate) fence: FenceId,
}

/// The question whether one of the patterns removes a key.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Question<'k> {
    /// The database and the space of the key in one word.
    pub space_id: u64,
    /// The role of the key, or 0.
    pub role: u32,
    /// The bytes of the key.
    pub key: &'k [u8],
    /// Only live patterns with a greater number count.
    pub since: Stamp,
    /// Whether announced patterns count.
    pub announced: bool,
    /// Patterns with this number do not count: they are the asking transaction's own.
    pub except: Option<Stamp>,
}

/// The answer to a [`Question`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// A pattern matches.
    Removed,
    /// No pattern matches.
    Kept,
    /// The comparisons took too many steps.
    TooLong,
}

/// The slots of a region.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Patterns<'m> {
    region: Region<'m>,
    layout: &'m Layout,
}

impl<'m> Patterns<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout) -> Self {
        Self { region, layout }
    }

    fn slots(&self) -> u32 {
        self.layout.sizes.patterns
    }

    fn head_at(&self, slot: u32) -> usize {
        self.layout.patterns_at + LINE + slot as usize * PATTERN_HEAD_WORDS
    }

    fn bytes_at(&self, slot: u32) -> usize {
        self.head_at(self.slots()) + slot as usize * PATTERN_WORDS
    }

    /// Returns the number and the state of a slot as one word.
    fn state(&self, slot: u32) -> u64 {
        self.region.word(self.head_at(slot)).load(Ordering::SeqCst)
    }

    fn set_state(&self, slot: u32, state: u64) {
        self.region.word(self.head_at(slot)).store(state, Ordering::SeqCst);
    }

    fn exchange(&self, slot: u32, from: u64, to: u64) -> bool {
        let word = self.region.word(self.head_at(slot));
        word.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn space_id(&self, slot: u32) -> u64 {
        self.region.load(self.head_at(slot) + 1)
    }

    /// Returns how many slots were ever taken. The slots behind them are free.
    fn used(&self) -> u32 {
        let used = self.region.word(self.layout.patterns_at).load(Ordering::SeqCst);
        used.min(self.slots().into()) as u32
    }

    /// Returns whether more than half of the slots were ever taken. Then entries should be renewed, before no slot is free.
    pub(crate) fn are_half_taken(&self) -> bool {
        self.used() > self.slots() / 2
    }

    /// Takes a free slot, and marks that it is being written. Returns None if no slot is free.
    pub(crate) fn take_free(&self) -> Option<u32> {
        loop {
            let used = self.used();
            let is_taken = |slot: &u32| self.state(*slot) == FREE && self.exchange(*slot, FREE, WRITING);
            if let Some(slot) = (0..used).find(is_taken) {
                return Some(slot);
            }
            if used >= self.slots() {
                return None;
            }
            // Readers look at the slots below this number only, so it must grow before the slot is announced.
            let word = self.region.word(self.layout.patterns_at);
            let more = u64::from(used) + 1;
            let _ = word.compare_exchange(used.into(), more, Ordering::SeqCst, Ordering::SeqCst);
        }
    }

    /// Returns the slot that the next pattern may retire, with its state, its number and its space. It has the oldest live pattern
    /// of the group of spaces that has the most patterns. None if no pattern is live.
    pub(crate) fn oldest(&self) -> Option<(u32, u64, Stamp, u64)> {
        let group = |space_id: u64| (scatter(space_id) >> 32) as usize % GROUPS;
        let mut counts = [0_u32; GROUPS];
        let live =
            || (0..self.used()).map(|slot| (slot, self.state(slot))).filter(|(_, state)| is_live(*state));
        live().for_each(|(slot, _)| counts[group(self.space_id(slot))] += 1);
        let most = counts.iter().max()?;
        live()
            .filter(|(slot, _)| counts[group(self.space_id(*slot))] == *most)
            .min_by_key(|(_, state)| number(*state))
            .map(|(slot, state)| (slot, state, number(state), self.space_id(slot)))
    }

    /// Takes a live slot, and marks that it is being written. The fence of its space must have its number already. Returns false if
    /// another writer has taken it first. `state` must be as [`oldest`](Self::oldest) has found it.
    pub(crate) fn retire(&self, slot: u32, state: u64) -> bool {
        is_live(state) && self.exchange(slot, state, WRITING)
    }

    /// Writes a pattern to a slot that the caller has taken, and announces it.
    pub(crate) fn announce(&self, slot: u32, scope: &Scope, pattern: Glob<'_>) {
        let bytes = pattern.bytes();
        let head = self.head_at(slot);
        // This fence pairs with the one at the end of `ask`: a reader that has seen one of the following words also sees the floor
        // that was raised before the slot was taken.
        fence(Ordering::Release);
        self.region.store(head + 1, scope.space_id());
        self.region.store(head + 2, u64::from(scope.role) << 32 | bytes.len() as u64);
        self.region.store(head + 3, prefix(bytes));
        for (index, chunk) in bytes.chunks(8).enumerate().take(PATTERN_WORDS) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.region.store(self.bytes_at(slot) + index, u64::from_ne_bytes(word));
        }
        self.set_state(slot, ANNOUNCED);
    }

    /// Marks an announced pattern as live since a number.
    pub(crate) fn confirm(&self, slot: u32, change: Stamp) {
        self.set_state(slot, live(change));
    }

    /// Frees an announced slot.
    pub(crate) fn withdraw(&self, slot: u32) {
        self.set_state(slot, FREE);
    }

    /// Answers whether a pattern removes a key. Subtracts the steps that it needs from `steps`.
    pub(crate) fn ask(&self, question: &Question<'_>, steps: &mut u32) -> Verdict {
        let first = first_bytes(question.key);
        for slot in 0..self.used() {
            let state = self.state(slot);
            let counts = match state & STATE_MASK {
                ANNOUNCED => question.announced,
                LIVE => number(state) > question.since && Some(number(state)) != question.except,
                _ => false,
            };
            // A look at a slot costs about as much as a comparison of a byte.
            let Some(left) = steps.checked_sub(1) else { return Verdict::TooLong };
            *steps = left;
            if !counts {
                continue;
            }
            let head = self.head_at(slot);
            let (role_and_length, prefix) = (self.region.load(head + 2), self.region.load(head + 3));
            if self.region.load(head + 1) != question.space_id
                || (role_and_length >> 32) as u32 != question.role
                || !begins_with(question.key, first, prefix)
            {
                continue;
            }
            let mut bytes = [0; KEY_BYTES_MAX];
            let length = (role_and_length as u32 as usize).min(bytes.len());
            let bytes = &mut bytes[..length];
            if let Some(words) = self.region.slice_at(self.bytes_at(slot), PATTERN_WORDS) {
                copy_bytes(words, 0, bytes);
            }
            match Glob::new(bytes).and_then(|glob| glob.matches_within(question.key, steps)) {
                Some(false) => {}
                Some(true) => return Verdict::Removed,
                // There were too few steps, or the bytes are no pattern: it was retired while it was copied, or it is damaged.
                None => return Verdict::TooLong,
            }
        }
        fence(Ordering::Acquire);
        Verdict::Kept
    }

    /// Makes the table usable after all processes that used it have ended: announced patterns count as committed with the number
    /// `change`, and slots that were being written are free. Returns what is damaged.
    pub(crate) fn revive(&self, change: Stamp) -> Option<String> {
        for slot in 0..self.used() {
            match self.state(slot) & STATE_MASK {
                ANNOUNCED => self.set_state(slot, live(change)),
                WRITING => self.set_state(slot, FREE),
                _ => {}
            }
        }
        self.complaint(|| change)
    }

    /// Returns what is wrong with a live pattern, if anything: its number must not be after `now`, which is called later, and its
    /// bytes must be a pattern. Ignores a pattern that is retired during the look.
    pub(crate) fn complaint(&self, now: impl Fn() -> Stamp) -> Option<String> {
        let is_wrong = |slot: &u32| {
            let state = self.state(*slot);
            let length = self.region.load(self.head_at(*slot) + 2) as u32 as usize;
            let mut bytes = [0; KEY_BYTES_MAX];
            let is_pattern = bytes.get_mut(..length).is_some_and(|bytes| {
                let words = self.region.slice_at(self.bytes_at(*slot), PATTERN_WORDS);
                words.into_iter().for_each(|words| copy_bytes(words, 0, bytes));
                Glob::new(bytes).is_some()
            });
            is_live(state) && (!is_pattern || number(state) > now()) && self.state(*slot) == state
        };
        (0..self.used()).find(is_wrong).map(|slot| format!("pattern {slot} is damaged"))
    }
}

fn is_live(state: u64) -> bool {
    state & STATE_MASK == LIVE
}

fn live(change: Stamp) -> u64 {
    change.as_u64() << STATE_BITS | LIVE
}

fn number(state: u64) -> Stamp {
    Stamp::from_u64(state >> STATE_BITS)
}

/// Returns the first literal bytes of a pattern, and their number in the lowest byte. Each key that the pattern matches begins with
/// them.
fn prefix(pattern: &[u8]) -> u64 {
    let literal = pattern.iter().take(PREFIX_MAX).take_while(|byte| !b"*?\\".contains(byte));
    let count = literal.clone().count();
    literal.enumerate().fold(count as u64, |word, (at, byte)| word | u64::from(*byte) << (8 * (at + 1)))
}

/// Returns the first bytes of a key in the form of a [`prefix`].
fn first_bytes(key: &[u8]) -> u64 {
    let bytes = key.iter().take(PREFIX_MAX).enumerate();
    bytes.fold(0, |word, (at, byte)| word | u64::from(*byte) << (8 * (at + 1)))
}

/// Whether a key, whose first bytes are `first`, begins with a [`prefix`].
fn begins_with(key: &[u8], first: u64, prefix: u64) -> bool {
    let count = (prefix & 0xff).min(PREFIX_MAX as u64) as u32;
    let shift = 64 - 8 * (count + 1);
    key.len() >= count as usize && (prefix & !0xff) << shift == (first << shift)
}
