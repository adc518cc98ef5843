//! The directory of a shard: where values are saved outside of the *region*, the shared memory of the *tier* (the cache). A *shard*
//! is a part of the tier with a lock, hash buckets and a directory of its own (`shard.rs`).
//!
//! The *saver*, a worker outside of the core, copies entries to a place of its own, for example to rows of a table (`saving.rs`).
//! It tells the directory the *location* of each copy: a *segment*, for example one table, and a position in it (`location.rs`).
//! The core does not know what these numbers mean. After the entry has been evicted, a reader finds the copy by its location.
//!
//! ```text
//! word     fingerprint : 20 | asked for : 1 | segment : 10 | position : 33      0 if the slot is empty
//! set      eight words, a cache line; the youngest location comes first
//! ```
//!
//! *Asked for* says that a reader has wanted the copy: a saver that reuses a segment keeps such copies.
//!
//! The upper half of a key's hash, which chooses the hash bucket (`Key::fingerprint`), also chooses the set. The lowest bits of
//! this half are the fingerprint in the word. Set and fingerprint together are called the *bits* of a key. Different keys may have
//! the same bits, so a reader must compare the key of the saved copy. Another meaning of a word needs another version of the layout
//! (`VERSION` in `layout.rs`).
//!
//! Rules:
//! 1. A copy without a location does not exist: nothing else leads to it.
//! 2. A change of a key must [forget](Guard::forget_location) the location with the key's bits in the same *hold* of the lock (the
//!    time from acquiring to releasing it) in which the change becomes visible.
//! 3. A set never has two locations with the same bits ([`Guard::add_location`]). So forgetting one location is enough.
//! 4. Words change only under the lock of the shard, with one exception: a reader sets the bit *asked for* by a
//!    compare-and-exchange of the whole word. It can never bring back a location that was forgotten meanwhile.
//! 5. Forgetting a location is always allowed. It costs a miss.
//!
//! Why a reader never gets an old copy: the version of a shard (`shard.rs`) is odd while a writer links or unlinks an entry, and
//! the writer then makes it even again. A change of a key that adds or removes an entry forgets the location before this last
//! step. A reader looks for the entry first and for the location afterwards, and it accepts the answer "no entry" only if it has
//! read the same even version before and after the search. If this is the version from after the change, the reader finds that the
//! location is gone. If it is the version from before the change, the read began before the change, so the reader may get the old
//! value. If the key has no entry, forgetting the location is the whole change.
//!
//! The functions of [`Tier`] that forget or move locations take the lock of a shard, or of one shard after the other. Their caller
//! must not hold one. The other functions of `Tier` take no lock.

use super::Tier;
use super::guard::Guard;
use super::shard::{AT_LOCATIONS, Shard};
use crate::hash::reduce;
use crate::host::Host;
use crate::key::Key;
use crate::layout::LOCATIONS_OF_SET;
#[cfg(doc)]
use crate::location::SEGMENTS_MAX;
use crate::location::{LOCATION_BITS, Location};
use crate::segments::SegmentRecord;
use crate::sync::Ordering;

/// Bit of a word: a reader has asked for the saved copy.
const ASKED: u64 = 1 << LOCATION_BITS;
const FINGERPRINT_SHIFT: u32 = LOCATION_BITS + 1;
const FINGERPRINT_BITS: u32 = u64::BITS - FINGERPRINT_SHIFT;

/// Returns the location in a word of the directory, and None for an empty slot.
fn location_in(word: u64) -> Option<Location> {
    (word != 0).then(|| Location::from_bits(word))
}

/// Returns whether a word of the directory has the fingerprint of a hash.
fn is_of(word: u64, hash: u32) -> bool {
    word != 0 && word >> FINGERPRINT_SHIFT == fingerprint(hash)
}

fn fingerprint(hash: u32) -> u64 {
    u64::from(hash) & ((1 << FINGERPRINT_BITS) - 1)
}

impl<'m> Shard<'m> {
    /// Returns the position of the set of a hash, or None if the tier has no directory.
    #[inline]
    pub(super) fn location_set(&self, hash: u32) -> Option<usize> {
        let sets = self.layout.location_sets;
        let set = reduce(u64::from(hash) << 32, sets) as usize;
        (sets > 0).then(|| self.at + self.layout.directory_at + set * LOCATIONS_OF_SET)
    }

    /// Returns the position of the word with the bits of a hash, and the word.
    fn location_word(&self, hash: u32) -> Option<(usize, u64)> {
        let set = self.location_set(hash)?;
        let mut words = (set..set + LOCATIONS_OF_SET).map(|at| (at, self.region.load(at)));
        words.find(|(_, word)| is_of(*word, hash))
    }

    /// Returns the location with the bits of a hash.
    pub(super) fn location(&self, hash: u32) -> Option<Location> {
        self.location_word(hash).and_then(|(_, word)| location_in(word))
    }

    /// Returns how many locations the directory of the shard has.
    pub(super) fn locations(&self) -> u64 {
        self.region.load(self.at + AT_LOCATIONS)
    }

    /// Returns the positions of all words of the directory.
    pub(super) fn location_words(&self) -> std::ops::Range<usize> {
        let at = self.at + self.layout.directory_at;
        at..at + self.layout.location_sets as usize * LOCATIONS_OF_SET
    }
}

impl<H: Host> Guard<'_, H> {
    /// Returns where a value of a key may be saved. None if the shard is *poisoned*, that is, switched off (`shard.rs`). An
    /// operation that decides whether the key has a value must not decide that it has none while this is Some.
    pub(super) fn location(&self, key: &Key<'_>) -> Option<Location> {
        self.shard.location(key.fingerprint()).filter(|_| !self.poisoned())
    }

    /// Forgets the location with the bits of a hash, if there is one. Returns whether there was one.
    pub(super) fn forget_location(&self, hash: u32) -> bool {
        let found = self.shard.location_word(hash);
        if let Some((at, _)) = found {
            self.empty_slot(at);
        }
        found.is_some()
    }

    /// Empties a slot that has a location.
    fn empty_slot(&self, at: usize) {
        self.shard.region.store(at, 0);
        self.count_locations(-1);
    }

    /// Adds to the number of locations of the shard.
    fn count_locations(&self, by: i64) {
        self.set(AT_LOCATIONS, self.get(AT_LOCATIONS).wrapping_add_signed(by));
    }

    /// Adds a location as the youngest of its set. A full set forgets its oldest location. Returns false and changes nothing if the
    /// set has a location with these bits, or if there is no directory.
    pub(super) fn add_location(&self, hash: u32, location: Location) -> bool {
        let Some(set) = self.shard.location_set(hash).filter(|_| self.shard.location(hash).is_none()) else {
            return false;
        };
        let region = self.shard.region;
        let free = (set..set + LOCATIONS_OF_SET).find(|at| region.load(*at) == 0);
        self.count_locations(free.is_some().into());
        // The words between the front and the free slot, or the end, move on by one.
        let mut at = free.unwrap_or(set + LOCATIONS_OF_SET - 1);
        while at > set {
            region.store(at, region.load(at - 1));
            at -= 1;
        }
        region.store(set, fingerprint(hash) << FINGERPRINT_SHIFT | location.bits());
        true
    }

    /// Returns complaints about a wrong number of locations, and about sets that have two locations with the same bits: of the
    /// latter, `most` at most.
    pub(super) fn directory_complaints(&self, most: usize) -> Vec<String> {
        let words = self.shard.location_words();
        let mut complaints = Vec::new();
        let (counted, known) =
            (words.clone().filter(|at| self.shard.region.load(*at) != 0).count(), self.shard.locations());
        if counted as u64 != known {
            complaints.push(format!("the directory has {counted} locations, and {known} are counted"));
        }
        for set in words.step_by(LOCATIONS_OF_SET) {
            let found: [u64; LOCATIONS_OF_SET] =
                std::array::from_fn(|at| self.shard.region.load(set + at) >> FINGERPRINT_SHIFT);
            let present = |at: usize| self.shard.region.load(set + at) != 0;
            let is_twice =
                |at: &usize| present(*at) && (0..*at).any(|one| present(one) && found[one] == found[*at]);
            if let Some(at) = (0..LOCATIONS_OF_SET).find(is_twice) {
                complaints
                    .push(format!("the directory has two locations of the same bits at word {}", set + at));
            }
            if complaints.len() >= most {
                break;
            }
        }
        complaints
    }
}

impl<H: Host> Tier<'_, H> {
    /// Returns whether the tier has a directory.
    pub fn has_directory(&self) -> bool {
        self.layout.location_sets > 0
    }

    /// Returns where the value of a key may be saved, and None if the shard is poisoned. Without a lock.
    ///
    /// A reader must ask only after [`get`](Self::get) has answered that the key has no entry in memory. It must then prevent that
    /// the saver reuses the segment, ask again, and read the copy only if the answer is the same. Otherwise the saver may have
    /// reused the segment between the two steps, and the copy of another key may be at that location.
    #[inline]
    pub fn location(&self, key: &Key<'_>) -> Option<Location> {
        let shard = self.shard_of(key);
        shard.location(key.fingerprint()).filter(|_| !shard.poisoned())
    }

    /// Notes that a reader has asked for the saved copy of a key at a location. A saver that reuses a segment copies such copies to
    /// another segment first. Does nothing if the location is not in the directory any more.
    pub fn note_asked(&self, key: &Key<'_>, location: Location) {
        if let Some((at, word)) = self.shard_of(key).location_word(key.fingerprint())
            && location_in(word) == Some(location)
            && word & ASKED == 0
        {
            let word_at = self.region.word(at);
            // If it fails, another process has just changed the word. The bit is only a hint.
            let _ = word_at.compare_exchange(word, word | ASKED, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    /// Forgets a location of a key, because the saved copy is of no use. Returns whether the location was still in the
    /// directory.
    pub fn forget_location(&self, key: &Key<'_>, location: Location) -> bool {
        let guard = self.shard_of(key).lock(&self.host);
        guard.shard.location(key.fingerprint()) == Some(location) && guard.forget_location(key.fingerprint())
    }

    /// Forgets a location of one shard. The caller need not know its key.
    pub fn forget_in_shard(&self, shard: u32, location: Location) {
        if shard < self.layout.shards {
            let guard = self.locked(shard);
            let words = guard.shard.location_words();
            words
                .filter(|at| location_in(self.region.load(*at)) == Some(location))
                .for_each(|at| guard.empty_slot(at));
        }
    }

    /// Replaces a location of a key after the saver has copied the copy from `from` to `to`. Returns false and changes nothing if
    /// `from` is not in the directory any more, or if the shard is poisoned: then the new copy must not be used. The new location
    /// begins without the bit *asked for*.
    pub fn move_location(&self, key: &Key<'_>, from: Location, to: Location) -> bool {
        let guard = self.shard_of(key).lock(&self.host);
        let hash = key.fingerprint();
        !guard.poisoned()
            && guard.shard.location(hash) == Some(from)
            && guard.forget_location(hash)
            && guard.add_location(hash, to)
    }

    /// Calls `visit` with each location of one shard, and with whether a reader has asked for it. Without a lock: other processes
    /// add and forget locations meanwhile.
    pub fn each_location(&self, shard: u32, mut visit: impl FnMut(Location, bool)) {
        if shard >= self.layout.shards {
            return;
        }
        for at in Shard::new(self.region, &self.layout, shard).location_words() {
            let word = self.region.load(at);
            if let Some(location) = location_in(word) {
                visit(location, word & ASKED != 0);
            }
        }
    }

    /// Returns the record of a segment. None if the tier has no directory, or if the segment is not below [`SEGMENTS_MAX`].
    pub fn segment(&self, segment: u16) -> Option<SegmentRecord<'_>> {
        SegmentRecord::new(self.region, &self.layout, segment)
    }

    /// Returns the number of buckets of all shards, for [`sweep`](Self::sweep) and [`mark_bucket`](Self::mark_bucket).
    pub fn buckets_total(&self) -> u64 {
        u64::from(self.layout.buckets) * u64::from(self.layout.shards)
    }

    /// Returns the number of shards, for [`each_location`](Self::each_location).
    pub fn shards(&self) -> u32 {
        self.layout.shards
    }

    /// Forgets all locations in a segment. Afterwards, no reader finds a copy in it. Returns how many there were.
    ///
    /// A reader that has found such a copy before may still read it. The saver must wait for such readers before it reuses the
    /// segment.
    pub fn forget_segment(&self, segment: u16) -> u64 {
        let mut forgotten = 0;
        for shard in 0..self.layout.shards {
            let guard = self.locked(shard);
            for at in guard.shard.location_words() {
                if location_in(self.region.load(at)).is_some_and(|found| found.segment() == segment) {
                    guard.empty_slot(at);
                    forgotten += 1;
                }
            }
        }
        forgotten
    }
}
