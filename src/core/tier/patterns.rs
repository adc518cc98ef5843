//! Invalidations by a pattern over keys, such as `user:42:*`: announces and confirms them, and compares keys with them.
//! `patterns/mod.rs` has the protocol. Commits announce and confirm patterns; `reading.rs`, `promoting.rs` and `judge.rs` compare.
//! [`Tier::announce_pattern`] and [`Tier::renew`] take locks of shards, so their caller must not hold one. The other functions
//! take no lock.
//!
//! A *space* is a set of keys in one database. A *stamp* is a number of the clock of changes, which each committed change
//! increments; a reader with a *safe stamp* must not see changes after that stamp. A *fence* is *raised* while a change is pending,
//! and then has the number of the change. A *slot* holds one pattern, which is *announced* while its transaction commits, and
//! *retired* when another pattern needs the slot. The fence of the space is the *floor*: it then gets the number of the retired
//! pattern, so that older values of the space are refused. To *renew* an entry that no pattern matches is to give it a later stamp,
//! so that the next reader compares nothing.
//!
//! The *sweep* is a walk through the entries that removes those that will never be served again (`removing.rs`). A *shard* is a
//! part of the tier, the cache, with a lock of its own.

use super::Tier;
use super::entry::Entry;
use super::header::{HIDDEN, Header, LINKED};
use super::shard::{Shard, Sighting};
use crate::fence::{Reserved, Stamp};
use crate::figures::Event;
use crate::glob::Glob;
use crate::host::Host;
use crate::key::{KEY_BYTES_MAX, Key, Scope};
use crate::patterns::{AnnouncedPattern, Question, STEPS_MAX, Verdict};
use crate::reader::Reader;

/// The number of new patterns during which all entries are swept once, if more than half of the slots are taken. A server has 1024
/// slots, so in a tier of at most 1 GB the sweep goes round twice while the second half of them is taken.
const PATTERNS_PER_SWEEP: u32 = 256;
/// The most buckets that are swept for one pattern. A tier of 1 GB has 256 times as many, so in a larger tier the sweep goes round
/// more slowly. Without comparisons, the sweep of so many buckets takes about a millisecond.
const SWEPT_MAX: u32 = 16_384;
/// The most steps of comparisons in the sweep for one pattern: about a tenth of a millisecond.
const SWEEP_STEPS: u32 = 1 << 15;
/// How often a writer tries to retire a pattern. Each failure means that another writer has found a slot.
const ATTEMPTS_MAX: u32 = 100;

impl<H: Host> Tier<'_, H> {
    /// Announces that the keys of a scope that a pattern matches are about to become invalid. From now on they are misses. The
    /// caller must announce before the change can become visible, and must then call exactly one of
    /// [`confirm_pattern`](Self::confirm_pattern) and [`withdraw_pattern`](Self::withdraw_pattern).
    ///
    /// Returns None if there is no room for the pattern, or if it is longer than a key. The caller must then invalidate the whole
    /// space.
    pub fn announce_pattern(&self, scope: &Scope, pattern: Glob<'_>) -> Option<AnnouncedPattern> {
        // In a space that has no pattern fence, `scope.patterns` is the fence of the space, as `scope.fences[1]` always is.
        let has_room = self.layout.sizes.patterns > 0 && scope.patterns != scope.fences[1];
        if !has_room || pattern.bytes().len() > KEY_BYTES_MAX {
            return None;
        }
        if self.patterns().are_half_taken() {
            // Renews entries and removes those that a pattern matches, so that retiring a pattern costs no other entry.
            let buckets = self.layout.buckets.saturating_mul(self.layout.shards) / PATTERNS_PER_SWEEP;
            self.sweep_within(buckets.clamp(1, SWEPT_MAX), Some(SWEEP_STEPS));
        }
        let slot = self.take_slot()?;
        self.patterns().announce(slot, scope, pattern);
        self.fences().raise(scope.patterns);
        Some(AnnouncedPattern { slot, fence: scope.patterns })
    }

    /// Takes a free slot, or retires a pattern.
    fn take_slot(&self) -> Option<u32> {
        let patterns = self.patterns();
        for _ in 0..ATTEMPTS_MAX {
            if let Some(slot) = patterns.take_free() {
                return Some(slot);
            }
            let (slot, state, number, space_id) = patterns.oldest()?;
            let [database, space] = [(space_id >> 32) as u32, space_id as u32];
            // The floor must rise before the slot is taken.
            self.fences().advance_seq(self.fences().reserved(Reserved::Space { database, space }), number);
            if patterns.retire(slot, state) {
                return Some(slot);
            }
        }
        None
    }

    /// Confirms an announced pattern with the number that its transaction has [drawn](crate::Fences::draw). Every session can see
    /// the transaction now. Takes a bounded number of steps, allocates nothing and cannot fail.
    pub fn confirm_pattern(&self, announced: AnnouncedPattern, change: Stamp) {
        self.patterns().confirm(announced.slot, change);
        let _ = self.fences().lower_as(announced.fence, change);
        self.statistics.count_event(Event::ByPattern, 1);
    }

    /// Withdraws an announced pattern: its transaction was aborted.
    pub fn withdraw_pattern(&self, announced: AnnouncedPattern) {
        self.fences().withdraw(announced.fence);
        self.patterns().withdraw(announced.slot);
    }

    /// Whether a value of a key with this stamp was invalidated by a pattern, or is about to be. Patterns that were confirmed with
    /// the number `except` do not count. Also returns true if the comparisons take too many steps (`Verdict::TooLong`): a miss is
    /// always right. The caller must check the fence of the space afterwards.
    pub fn is_removed_by_pattern(&self, key: &Key<'_>, stamp: Stamp, except: Option<Stamp>) -> bool {
        self.has_pattern_since(&key.scope, stamp, Stamp::LATEST)
            && self.compare_with_patterns(&key.scope, key.bytes, stamp, except) != Verdict::Kept
    }

    /// Whether the space has a pattern that is announced, or later than the stamp or the safe stamp.
    #[inline(always)]
    pub(super) fn has_pattern_since(&self, scope: &Scope, stamp: Stamp, safe_stamp: Stamp) -> bool {
        !self.fences().holds(scope.patterns, stamp, safe_stamp)
    }

    /// Compares a key with the announced patterns and with those since a stamp.
    fn compare_with_patterns(
        &self,
        scope: &Scope,
        key: &[u8],
        since: Stamp,
        except: Option<Stamp>,
    ) -> Verdict {
        let (space_id, role) = (scope.space_id(), scope.role);
        let question = Question { space_id, role, key, since, announced: true, except };
        self.patterns().ask(&question, &mut { STEPS_MAX })
    }

    /// Decides for a reader whether a pattern has removed a value with this stamp. Returns None if so, or if the floor has.
    /// Otherwise returns the moment as of which the value was compared.
    pub(super) fn outlasts_patterns(
        &self,
        scope: &Scope,
        key: &[u8],
        stamp: Stamp,
        reader: Reader<'_>,
    ) -> Option<Stamp> {
        // The clock must be read before the slots.
        let as_of = self.fences().now();
        // The reader began to wait before the value was computed (`Reader::arrived`). It gets such a value even if a dependency has
        // changed since, and so also if a pattern has come since.
        if reader.arrived.is_some_and(|arrived| stamp >= arrived) {
            return Some(stamp);
        }
        let is_kept =
            self.compare_with_patterns(scope, key, stamp.min(reader.safe_stamp), None) == Verdict::Kept;
        // The floor must be checked after the slots.
        let holds = self.fences().holds(scope.fences[1], stamp, reader.safe_stamp);
        (is_kept && holds).then_some(as_of)
    }

    /// Does the same as [`outlasts_patterns`](Self::outlasts_patterns) for an entry. It is a separate function and reads the header
    /// again, so that the fast path can keep the header in registers.
    #[cold]
    #[inline(never)]
    pub(super) fn entry_outlasts_patterns(
        &self,
        block: u32,
        scope: &Scope,
        reader: Reader<'_>,
    ) -> Option<Stamp> {
        let entry = Entry::new(self.region, &self.layout, block);
        let header = entry.header();
        let mut key = [0; KEY_BYTES_MAX];
        self.outlasts_patterns(scope, self.copy_key(&entry, &header, &mut key), header.stamp(), reader)
    }

    /// Answers whether a pattern that was committed has removed an entry for good. If the comparisons take too many steps, the
    /// answer is false: the entry stays, and each reader compares it.
    #[cold]
    #[inline(never)]
    pub(super) fn has_lost_to_pattern(&self, entry: &Entry<'_>, header: &Header, steps: &mut u32) -> bool {
        let mut key = [0; KEY_BYTES_MAX];
        let question = Question {
            space_id: header.space_id(),
            role: header.role(),
            key: self.copy_key(entry, header, &mut key),
            since: header.stamp(),
            announced: false,
            except: None,
        };
        self.patterns().ask(&question, steps) == Verdict::Removed
    }

    /// Answers the same for a saved value.
    pub(super) fn has_saved_lost_to_pattern(&self, scope: &Scope, key: &[u8], stamp: Stamp) -> bool {
        let (space_id, role) = (scope.space_id(), scope.role);
        let question = Question { space_id, role, key, since: stamp, announced: false, except: None };
        self.fences().has_changed_since(scope.patterns, stamp)
            && self.patterns().ask(&question, &mut { STEPS_MAX }) == Verdict::Removed
    }

    /// Copies the key of an entry to `into`, and returns the copy.
    fn copy_key<'k>(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        into: &'k mut [u8; KEY_BYTES_MAX],
    ) -> &'k [u8] {
        let length = header.key_len().min(into.len());
        let key = &mut into[..length];
        entry.copy(&self.layout, header, header.key_at(), key);
        key
    }

    /// Gives an entry that a reader has compared with the patterns a later stamp, so that the next reader compares nothing. `as_of`
    /// must have been read from the clock before the comparison.
    #[cold]
    #[inline(never)]
    pub(super) fn renew(&self, shard: &Shard<'_>, seen: &Sighting<'_>, scope: &Scope, as_of: Stamp) {
        if !self.holds_as_of(&seen.entry, seen.header.stamp(), scope) {
            return;
        }
        let guard = shard.lock(&self.host);
        // If the entry has lived until now, it cannot die before the lock is released.
        if !guard.poisoned() && seen.lived() {
            self.set_later_stamp(&seen.entry, as_of);
        }
    }

    /// Compares an entry with the patterns, and renews it if none matches. The caller must hold the lock of its shard, and must
    /// have found that the entry is not useless. `as_of` must have been read from the clock before.
    pub(super) fn renew_locked(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: &Scope,
        as_of: Stamp,
        steps: &mut u32,
    ) {
        let mut key = [0; KEY_BYTES_MAX];
        let question = Question {
            space_id: header.space_id(),
            role: header.role(),
            key: self.copy_key(entry, header, &mut key),
            since: header.stamp(),
            announced: true,
            except: None,
        };
        if self.patterns().ask(&question, steps) == Verdict::Kept
            && self.holds_as_of(entry, header.stamp(), scope)
        {
            self.set_later_stamp(entry, as_of);
        }
    }

    /// Whether all fences of an entry hold. Must be called after the look at the slots, because the fence of the space is the
    /// floor.
    fn holds_as_of(&self, entry: &Entry<'_>, stamp: Stamp, scope: &Scope) -> bool {
        let fences = self.fences();
        let mut all = scope.fences.into_iter().chain(self.dependencies_of(entry.block));
        all.all(|fence| fences.holds(fence, stamp, Stamp::LATEST))
    }

    /// Gives an entry a stamp if it is later than its own. The caller must hold the lock of the entry's shard.
    fn set_later_stamp(&self, entry: &Entry<'_>, as_of: Stamp) {
        let header = entry.header();
        if header.has(LINKED) && !header.has(HIDDEN) && header.stamp() < as_of {
            entry.set_stamp(as_of);
        }
    }
}
