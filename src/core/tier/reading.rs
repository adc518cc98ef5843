//! Reading an entry without a lock, for `cache_get` and all other functions that look for a value.
//!
//! A reader finds the entry, checks its time to live and its fences, copies the value, and then proves that the entry lived during
//! the whole read (see `shard.rs`). If a writer disturbs the read, the reader tries again, and after some attempts takes the lock
//! of the key's *shard*, the part of the tier that the key belongs to. [`Reader`] says which entries a reader may get. A read
//! writes only the visited bit, and the counts and the sample of hits of its backend, with two exceptions, for which it takes the
//! lock. At most once a second, it writes into an entry that may be served stale the tick at which the entry was known to be valid.
//! And if it had to compare the key with newer patterns, it gives the entry a later stamp (`patterns/mod.rs`).
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed; it *holds* for an entry if that was
//! not after the entry's *stamp*, a number of the clock of changes (`fence/mod.rs`). A reader with a *safe stamp* may not see
//! changes after that stamp. The *visited bit* of an entry says that a reader has asked for it. A *tick* is the unit of time. A
//! *note* is bytes that are stored beside a value. A *location* says where the copy of a value is saved (`directory.rs`). A shard
//! is *poisoned*, that is, switched off, after a panic under its lock. A *hidden* entry announces a change of its key
//! (`publishing.rs`), and the key is then not served.

use super::Tier;
use super::entry::Entry;
use super::header::{HIDDEN, Header, MAY_BE_STALE};
use super::shard::{Look, Shard};
use crate::fence::{FenceId, Reserved, Stamp};
use crate::figures::Counter;
use crate::host::Host;
use crate::key::{Key, KeyMark, Scope};
use crate::reader::{Buffer, Freshness, InvalidBecause, Miss, Reader};
use crate::value::{Meta, StaleOk};

/// How often a reader repeats a read without a lock before it takes the lock. Other loops of this file use the same limit.
const RETRIES: u32 = 8;
/// The least age, in ticks, at which the word that says when an entry was last known to be valid is written again: one second, if a
/// tick is a twentieth of a second.
const NOTED_EVERY: u32 = 20;

/// The most bytes of a value that are compared. The number is limited because the comparison holds the lock.
const COMPARED_BYTES: usize = 64 << 10;

impl<H: Host> Tier<'_, H> {
    /// Copies the value of a key into a buffer, if this reader may see it. After a miss, the content of the buffer has no meaning.
    /// The caller must not hold a lock.
    ///
    /// Counts a hit or a miss, but counts nothing if the [reader repeats](Reader::repeats) a look, and no hit for a value that [is
    /// no hit](Buffer::is_hit). The caller must count a [`Miss::Saved`].
    #[inline(always)]
    pub fn get<'r>(
        &self,
        key: &Key<'_>,
        reader: impl Into<Reader<'r>>,
        into: &mut impl Buffer,
    ) -> Result<Meta, Miss> {
        let (reader, now) = (reader.into(), self.host.now());
        match self.try_look(key, reader, now, Some(&mut *into)) {
            Some(Ok(meta)) if into.accepts(&meta) => {
                if !reader.repeats && into.is_hit(&meta) {
                    self.statistics.count_hit(key.scope.cell, Counter::Hit, key.hash);
                }
                Ok(meta)
            }
            Some(outcome) => Err(self.missed(key, outcome.err(), reader.repeats)),
            None => self.get_again(key, reader, now, into),
        }
    }

    /// Repeats a read after a writer has disturbed the first attempt. Returns and counts what `get` does.
    #[cold]
    #[inline(never)]
    fn get_again(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        into: &mut impl Buffer,
    ) -> Result<Meta, Miss> {
        match self.look_again(key, reader, now, Some(&mut *into)) {
            Ok(meta) if into.accepts(&meta) => {
                if !reader.repeats && into.is_hit(&meta) {
                    self.statistics.count_hit(key.scope.cell, Counter::Hit, key.hash);
                }
                Ok(meta)
            }
            outcome => Err(self.missed(key, outcome.err(), reader.repeats)),
        }
    }

    /// Looks whether a value of an absent key is saved, and otherwise counts the miss. If `miss` is None, the buffer has refused
    /// the value, which counts as an absent key. This is a function of its own, so that a hit does not choose among counters.
    #[inline(never)]
    fn missed(&self, key: &Key<'_>, miss: Option<Miss>, repeats: bool) -> Miss {
        if miss == Some(Miss::Absent)
            && let Some(location) = self.location(key)
        {
            return Miss::Saved(location);
        }
        let miss = miss.unwrap_or(Miss::Absent);
        if !repeats {
            self.count_miss(&key.scope, miss);
        }
        miss
    }

    /// Counts a miss that `get` has not counted: after a [`Miss::Saved`], if the saved value could not be served.
    pub fn count_miss(&self, scope: &Scope, miss: Miss) {
        let counter = match miss {
            Miss::Absent | Miss::Saved(_) => Counter::MissAbsent,
            Miss::Expired => Counter::MissExpired,
            Miss::Fenced => Counter::MissFenced,
            Miss::Own => Counter::MissOwn,
            Miss::Off => Counter::MissOff,
        };
        self.statistics.count(scope.cell, counter);
    }

    /// Does the same as [`get`](Self::get) for a reader that accepts a stale value: if the value is no longer valid, the reader
    /// gets it as long as its [`StaleOk`] time lasts. An entry that was flushed or removed is never served, and neither is an
    /// entry that the reader's own changes have made invalid. Counted like `get`: a stale value is a miss.
    pub fn get_stale<'r>(
        &self,
        key: &Key<'_>,
        reader: impl Into<Reader<'r>>,
        into: &mut impl Buffer,
    ) -> Result<(Meta, Freshness), Miss> {
        let reader = reader.into();
        match self.get(key, reader, into) {
            Ok(meta) => Ok((meta, Freshness::Valid)),
            Err(miss @ (Miss::Expired | Miss::Fenced)) => self.look_stale(key, reader, into).ok_or(miss),
            Err(miss) => Err(miss),
        }
    }

    /// Looks for an entry that may be served although it is not valid. Returns None if there is none. Gives up after some attempts
    /// if writers keep disturbing it.
    #[cold]
    fn look_stale(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        into: &mut impl Buffer,
    ) -> Option<(Meta, Freshness)> {
        let now = self.host.now();
        let shard = self.shard_of(key);
        for _ in 0..=RETRIES {
            let seen = match shard.look(key) {
                Look::Found(seen) => seen,
                Look::Disturbed => {
                    shard.wait();
                    continue;
                }
                Look::Absent | Look::Poisoned => return None,
            };
            let found = self.serve_stale(&seen.entry, &seen.header, &key.scope, reader, now, into);
            if seen.lived() {
                found.inspect(|_| shard.visit(seen.entry.block));
                return found;
            }
        }
        None
    }

    /// Copies the value of an entry if this reader may get it, valid or stale. Returns None if the reader may not get it. The
    /// caller must check afterwards that the entry lived. [`Reader::arrived`] excuses no change here: it excuses one only for a
    /// value that `serve` returns as valid.
    pub(super) fn serve_stale(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: &Scope,
        reader: Reader<'_>,
        now: u32,
        into: &mut impl Buffer,
    ) -> Option<(Meta, Freshness)> {
        let fences = self.fences();
        let holds = |fence| fences.holds(fence, header.stamp(), reader.safe_stamp);
        if header.has(HIDDEN)
            || !header.has(MAY_BE_STALE)
            || header.byte_len() > self.entry_bytes_max
            || !holds(scope.patterns)
                && self
                    .entry_outlasts_patterns(entry.block, scope, Reader { arrived: None, ..reader })
                    .is_none()
            || !scope.fences.into_iter().all(holds)
            || reader.tracked && self.is_of_relations(entry.block)
            || self.is_changed_by(reader, entry.block, scope.fences)
        {
            return None;
        }
        let fenced = !self.dependencies_hold(entry.block, header.stamp(), reader.safe_stamp);
        let freshness = if fenced || header.expires() <= now {
            let until = self.stale_until(entry, header, fenced);
            if until <= now {
                return None;
            }
            Freshness::Stale { until }
        } else {
            Freshness::Valid
        };
        let meta = entry.meta(&self.layout, header);
        if meta.value_len > self.entry_bytes_max {
            // The header has changed since it was checked: the entry has died.
            return None;
        }
        let target = into.allocate(&meta);
        entry.copy_value(&self.layout, header, target);
        self.copy_note(entry, header, into);
        Some((meta, freshness))
    }

    /// Returns the tick until which an entry that is no longer valid may be served. The allowed time begins when the entry expires.
    /// If a dependency has changed (`fenced`), it begins at the last tick at which the entry was known to be valid, if that is
    /// earlier. Returns 0 if the entry may not be served.
    pub(crate) fn stale_until(&self, entry: &Entry<'_>, header: &Header, fenced: bool) -> u32 {
        let Some(StaleOk { ticks, valid_at }) = entry.stale_ok(&self.layout, header) else { return 0 };
        let valid_at = if fenced { valid_at.min(header.expires()) } else { header.expires() };
        valid_at.saturating_add(ticks)
    }

    /// Compares the present value of a key with other bytes. The value may be invalid. Returns its metadata, and whether both have
    /// the same length and begin with the same 64 KiB. None if the key has no entry in memory.
    pub fn compare(&self, key: &Key<'_>, value: &[u8]) -> Option<(Meta, bool)> {
        let guard = self.shard_of(key).lock(&self.host);
        let (entry, header) = guard.find(key).filter(|_| !guard.poisoned())?;
        let (meta, part) = (entry.meta(&self.layout, &header), entry.value(&self.layout, &header));
        let mut buffer = [0; 1024];
        let compared = &value[..value.len().min(COMPARED_BYTES)];
        let mut pieces = compared.chunks(buffer.len()).enumerate();
        let is_same = meta.value_len == value.len()
            && pieces.all(|(index, piece)| {
                let stored = &mut buffer[..piece.len()];
                entry.copy(&self.layout, &header, part.at + index * 1024, stored);
                *stored == *piece
            });
        Some((meta, is_same))
    }

    /// Returns the number of ticks for which the present value of a key may be served after it stopped being valid. Returns 0 if
    /// the key has no value.
    pub fn stale_ticks(&self, key: &Key<'_>) -> u32 {
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard.find(key).filter(|_| !guard.poisoned());
        found.and_then(|(entry, header)| entry.stale_ok(&self.layout, &header)).map_or(0, |noted| noted.ticks)
    }

    /// Writes into an entry that it is valid now, unless that was written less than [`NOTED_EVERY`] ticks ago. The function takes
    /// the lock, because the entry may have died since it was read, and its words may then belong to another entry.
    #[cold]
    #[inline(never)]
    fn note_valid(&self, key: &Key<'_>, block: u32, now: u32) {
        let is_due = |noted: &StaleOk| now.saturating_sub(noted.valid_at) >= NOTED_EVERY;
        let entry = Entry::new(self.region, &self.layout, block);
        let noted = entry.stale_ok(&self.layout, &entry.header());
        if !noted.as_ref().is_some_and(is_due) {
            return;
        }
        let guard = self.shard_of(key).lock(&self.host);
        let Some((entry, header)) = guard.find(key).filter(|_| !guard.poisoned()) else { return };
        if let Some(noted) = entry.stale_ok(&self.layout, &header).filter(is_due)
            && self.is_valid_in(&key.scope, &entry, &header, now)
        {
            entry.set_stale_ok(&self.layout, &header, StaleOk { valid_at: now, ..noted });
        }
    }

    /// Returns what [`get`](Self::get) would return, without a value. Does not count as a read: counts no hit or miss, and does not
    /// mark the entry as visited.
    pub fn peek<'r>(&self, key: &Key<'_>, reader: impl Into<Reader<'r>>) -> Result<Meta, Miss> {
        let (reader, now) = (reader.into(), self.host.now());
        let outcome = match self.try_look(key, reader, now, None::<&mut ()>) {
            Some(outcome) => outcome,
            None => self.look_again(key, reader, now, None::<&mut ()>),
        };
        outcome.map_err(|miss| match self.location(key) {
            Some(location) if miss == Miss::Absent => Miss::Saved(location),
            _ => miss,
        })
    }

    /// Explains a miss by [`Miss::Fenced`] or [`Miss::Own`]: returns why the entry of a key is not valid for this reader. The
    /// caller asks after the miss, so the answer is None if the entry has gone, or is valid by now, or if a writer disturbs the
    /// look.
    #[cold]
    pub fn why_fenced<'r>(&self, key: &Key<'_>, reader: impl Into<Reader<'r>>) -> Option<InvalidBecause> {
        let reader = reader.into();
        let Look::Found(seen) = self.shard_of(key).look(key) else { return None };
        let found = match seen.header.has(HIDDEN) {
            true => Some(InvalidBecause::Key),
            false => self.invalid_because(&seen.entry, seen.header.stamp(), &key.scope, reader),
        };
        found.filter(|_| seen.lived())
    }

    /// Returns why an entry with this stamp is not valid for a reader. None if it is valid.
    fn invalid_because(
        &self,
        entry: &Entry<'_>,
        stamp: Stamp,
        scope: &Scope,
        reader: Reader<'_>,
    ) -> Option<InvalidBecause> {
        let fences = self.fences();
        // The callers of this crate list the fences of definitions and roles first, and then those of tags and relations. The
        // latter say more, so the search begins at the end of the list.
        let dependencies = || self.dependencies_of(entry.block).rev().chain(scope.fences);
        // Several relations share an unclaimed fence (`fence/mod.rs`). The answer names the fence of the relation that is among the
        // dependencies and uses the unclaimed fence.
        let stands_for = |fence| {
            let is_it = |of: &FenceId| fences.unclaimed_of(*of) == Some(fence);
            dependencies().find(is_it).unwrap_or(fence)
        };
        // A change of roles also changes the fence of definitions. The answer names the roles, because that says more.
        let [definitions, roles] =
            [Reserved::Definitions(scope.database), Reserved::Roles].map(|what| fences.reserved(what));
        let fails = |safe_stamp| {
            let failing = || dependencies().filter(|fence| !fences.holds(*fence, stamp, safe_stamp));
            let first = failing().next()?;
            let is_of_roles = first == definitions && failing().any(|fence| fence == roles);
            Some(if is_of_roles { roles } else { stands_for(first) })
        };
        let is_own = |fence: &FenceId| reader.changed_fences.binary_search(fence).is_ok();
        let is_tracked = |fence: &FenceId| reader.tracked && fences.is_of_relation(*fence);
        let is_removed = self.has_pattern_since(scope, stamp, reader.safe_stamp)
            && self.entry_outlasts_patterns(entry.block, scope, reader).is_none();
        fails(Stamp::LATEST)
            .map(InvalidBecause::Changed)
            .or_else(|| fails(reader.safe_stamp).map(InvalidBecause::Newer))
            .or_else(|| dependencies().find(is_own).map(InvalidBecause::Own))
            .or_else(|| dependencies().find(is_tracked).map(InvalidBecause::Tracked))
            .or_else(|| is_removed.then_some(InvalidBecause::Pattern))
    }

    /// Prefetches the bucket of a key. A caller that knows keys some time before it reads them calls this first, and
    /// [`prefetch_entry`](Self::prefetch_entry) a little later: most of the cost of a read is waiting for memory.
    #[inline]
    pub fn prefetch_bucket(&self, key: KeyMark) {
        Shard::of_hash(self.region, &self.layout, key.hash()).prefetch_bucket(key.fingerprint());
    }

    /// Prefetches the first entry of the key's bucket, which is nearly always the key's entry, or, if there is none, the place
    /// where the key's location is.
    #[inline]
    pub fn prefetch_entry(&self, key: KeyMark) {
        Shard::of_hash(self.region, &self.layout, key.hash()).prefetch_entry(key.fingerprint());
    }

    /// Prefetches what a change of a key looks at: its bucket, and the place where its location may be. A caller that will change
    /// the key calls this some time before.
    #[inline]
    pub fn prefetch_for_change(&self, key: KeyMark) {
        let shard = Shard::of_hash(self.region, &self.layout, key.hash());
        shard.prefetch_bucket(key.fingerprint());
        shard.prefetch_location(key.fingerprint());
    }

    /// Makes one attempt without a lock. Returns None if a writer disturbed it. Counts nothing. Without a buffer, it copies nothing
    /// and does not mark the entry as visited.
    #[inline(always)]
    fn try_look(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        into: Option<&mut impl Buffer>,
    ) -> Option<Result<Meta, Miss>> {
        let shard = self.shard_of(key);
        let seen = match shard.look(key) {
            Look::Found(seen) => seen,
            Look::Absent => return Some(Err(Miss::Absent)),
            Look::Poisoned => return Some(Err(Miss::Off)),
            Look::Disturbed => return None,
        };
        if seen.header.has(HIDDEN) {
            return seen.lived().then_some(Err(Miss::Fenced));
        }
        let is_read = into.is_some();
        let mut compared = None;
        let outcome =
            self.serve_noting(&seen.entry, &seen.header, &key.scope, reader, now, into, &mut compared);
        let meta = match outcome {
            Ok(meta) => meta,
            Err(miss) => return seen.lived().then_some(Err(miss)),
        };
        if !seen.lived() {
            return None;
        }
        if let Some(as_of) = compared {
            self.renew(&shard, &seen, &key.scope, as_of);
        }
        if is_read {
            shard.visit(seen.entry.block);
            if seen.header.has(MAY_BE_STALE) {
                self.note_valid(key, seen.entry.block, now);
            }
        }
        Some(Ok(meta))
    }

    /// Makes further attempts. This is a function of its own, so that the first attempt does not carry its cost.
    #[cold]
    #[inline(never)]
    fn look_again(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        mut into: Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        for _ in 0..RETRIES {
            self.shard_of(key).wait();
            self.statistics.count(key.scope.cell, Counter::Retry);
            if let Some(outcome) = self.try_look(key, reader, now, into.as_deref_mut()) {
                return outcome;
            }
        }
        self.look_locked(&self.shard_of(key), key, reader, now, into)
    }

    /// Reads under the lock, after writers have disturbed every attempt without it. The buffer is asked for memory before the lock
    /// is taken, because the code of the caller must not run under it. The first round finds the length of the value, and the
    /// second copies it. If the length has changed meanwhile, another round follows, and it is a miss if the length keeps changing.
    #[cold]
    fn look_locked(
        &self,
        shard: &Shard<'_>,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        mut into: Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        let mut expected: Option<Meta> = None;
        for _ in 0..=RETRIES {
            let mut target = match (into.as_deref_mut(), expected) {
                (Some(buffer), Some(meta)) => Some(buffer.allocate(&meta)),
                _ => None,
            };
            let guard = shard.lock(&self.host);
            if guard.poisoned() {
                return Err(Miss::Off);
            }
            if guard.is_changing(key) {
                return Err(Miss::Fenced);
            }
            let Some((entry, header)) = guard.find(key) else { return Err(Miss::Absent) };
            let outcome = self.serve(&entry, &header, &key.scope, reader, now, None::<&mut ()>);
            let Ok(meta) = outcome else { return outcome };
            match &mut target {
                // A buffer may give less memory than was asked for: the buffer `()` gives none.
                Some(target) if expected.is_some_and(|expected| expected.value_len == meta.value_len) => {
                    entry.copy_value(&self.layout, &header, target);
                    if let Some(buffer) = into.as_deref_mut() {
                        self.copy_note(&entry, &header, buffer);
                    }
                    shard.visit(entry.block);
                    return Ok(meta);
                }
                _ => {}
            }
            drop(guard);
            if into.is_none() {
                return Ok(meta);
            }
            expected = Some(meta);
        }
        Err(Miss::Absent)
    }

    /// Decides whether this reader may have an entry, and copies its value if so. The caller must have found that the entry is not
    /// hidden, that is, not an announced change (`publishing.rs`). It must hold the lock, or check afterwards that the entry lived;
    /// otherwise neither answer counts.
    #[inline(always)]
    pub(crate) fn serve(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: &Scope,
        reader: Reader<'_>,
        now: u32,
        into: Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        self.serve_noting(entry, header, scope, reader, now, into, &mut None)
    }

    /// Does the same as [`serve`](Self::serve). If the key was compared with patterns, `compared` gets the moment as of which it
    /// was compared.
    #[inline(always)]
    #[allow(clippy::too_many_arguments)] // The arguments of `serve`, and one more.
    fn serve_noting(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: &Scope,
        reader: Reader<'_>,
        now: u32,
        into: Option<&mut impl Buffer>,
        compared: &mut Option<Stamp>,
    ) -> Result<Meta, Miss> {
        if header.byte_len() > self.entry_bytes_max {
            // No writer stores such an entry, so it is damaged. The caller's buffer must not be asked for that much memory.
            return Err(Miss::Off);
        }
        if header.expires() <= now {
            return Err(Miss::Expired);
        }
        let (fences, stamp) = (self.fences(), header.stamp());
        let [database, space] = scope.fences;
        let mut valid_at = u32::MAX;
        if !fences.holds(database, stamp, reader.safe_stamp)
            || !fences.holds(space, stamp, reader.safe_stamp)
            || header.dependency_count() > 0
                && !self.dependencies_hold(entry.block, header.stamp(), reader.safe_stamp)
        {
            valid_at = self.valid_at_if_accepted(entry.block, scope, reader).ok_or(Miss::Fenced)?;
        }
        if self.has_pattern_since(scope, stamp, reader.safe_stamp) {
            *compared = Some(self.entry_outlasts_patterns(entry.block, scope, reader).ok_or(Miss::Fenced)?);
        }
        if reader.tracked && self.is_of_relations(entry.block) {
            return Err(Miss::Own);
        }
        if !reader.changed_fences.is_empty() && self.is_changed_by(reader, entry.block, scope.fences) {
            return Err(Miss::Own);
        }
        let meta = Meta { valid_at, ..entry.meta(&self.layout, header) };
        if meta.value_len > self.entry_bytes_max {
            // The header has changed since it was checked: the entry has died.
            return Err(Miss::Off);
        }
        if let Some(buffer) = into {
            let target = buffer.allocate(&meta);
            entry.copy_value(&self.layout, header, target);
            self.copy_note(entry, header, buffer);
        }
        Ok(meta)
    }

    /// Copies the note of an entry, if the caller wants it.
    #[inline(always)]
    fn copy_note<B: Buffer>(&self, entry: &Entry<'_>, header: &Header, into: &mut B) {
        if B::WANTS_NOTE {
            let note = entry.note(&self.layout, header);
            let target = into.note_target(note.length);
            if target.len() == note.length {
                entry.copy(&self.layout, header, note.at, target);
            }
        }
    }

    // The following functions serve only some entries and some readers. They are separate functions and read the header again, so
    // that the fast path can keep the header in registers.

    /// Decides whether the reader accepts an entry although a fence does not hold. It may accept the entry because it
    /// [arrived](Reader::arrived) before the value was computed, or because it accepts [outdated](Reader::outdated_since) values:
    /// those that only changes of rows have made invalid. Returns the [`Meta::valid_at`] for the reader, or None if the reader does
    /// not accept the entry.
    #[cold]
    #[inline(never)]
    fn valid_at_if_accepted(&self, block: u32, scope: &Scope, reader: Reader<'_>) -> Option<u32> {
        let entry = Entry::new(self.region, &self.layout, block);
        let header = entry.header();
        if reader.arrived.is_some_and(|arrived| header.stamp() >= arrived) {
            return Some(u32::MAX);
        }
        let oldest = reader.outdated_since?;
        let fences = self.fences();
        let is_forgiven = |fence| {
            let is_of_rows = fences.is_of_relation(fence) || fences.is_of_unclaimed(fence);
            is_of_rows || fences.holds(fence, header.stamp(), reader.safe_stamp)
        };
        // An entry that may not be served stale has no word for that. It was valid when it was stored.
        let noted = entry.stale_ok(&self.layout, &header).map(|noted| noted.valid_at);
        let valid_at = noted.unwrap_or_else(|| header.created());
        let holds = scope.fences.into_iter().chain(self.dependencies_of(block)).all(is_forgiven);
        (holds && valid_at >= oldest).then_some(valid_at)
    }

    /// Returns whether the fences of all dependencies of an entry hold: none of them has changed since the stamp, is about to
    /// change, or has changed after the safe stamp. Does not check the fences of the space and the database.
    #[inline(never)]
    fn dependencies_hold(&self, block: u32, stamp: Stamp, safe_stamp: Stamp) -> bool {
        let fences = self.fences();
        self.dependencies_of(block).all(|fence| fences.holds(fence, stamp, safe_stamp))
    }

    /// Whether an entry depends on relations that have records (`fence/mod.rs`).
    #[cold]
    #[inline(never)]
    fn is_of_relations(&self, block: u32) -> bool {
        let fences = self.fences();
        self.dependencies_of(block).any(|fence| fences.is_of_relation(fence))
    }

    /// Returns whether the reader itself has changed a dependency of an entry, or its space or database. Before the commit, no
    /// fence shows such a change.
    #[cold]
    #[inline(never)]
    fn is_changed_by(&self, reader: Reader<'_>, block: u32, scope: [FenceId; 2]) -> bool {
        let changed = |fence: FenceId| reader.changed_fences.binary_search(&fence).is_ok();
        scope.into_iter().any(changed) || self.dependencies_of(block).any(changed)
    }

    /// Returns the fences of an entry's dependencies.
    #[inline(always)]
    pub(super) fn dependencies_of(&self, block: u32) -> impl DoubleEndedIterator<Item = FenceId> {
        let entry = Entry::new(self.region, &self.layout, block);
        let header = entry.header();
        (0..header.dependency_count()).map(move |index| entry.dependency(&self.layout, &header, index))
    }

    /// Whether a reader without changes of its own and with the latest safe stamp would get an entry now. The caller must hold the
    /// lock of the entry's shard.
    pub(crate) fn is_valid(&self, entry: &Entry<'_>, header: &Header, now: u32) -> bool {
        let scope = self.scope_of(header.database(), header.space(), header.role());
        self.is_valid_in(&scope, entry, header, now)
    }

    /// Does the same as [`is_valid`](Self::is_valid) for an entry whose scope the caller knows.
    pub(crate) fn is_valid_in(&self, scope: &Scope, entry: &Entry<'_>, header: &Header, now: u32) -> bool {
        self.serve(entry, header, scope, Stamp::LATEST.into(), now, None::<&mut ()>).is_ok()
    }
}
