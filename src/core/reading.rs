//! Reading: without a lock, judged by clock and fences, and proven afterwards.

use crate::entry::{Entry, HIDDEN, Header, Meta};
use crate::fence::{FenceId, Stamp};
use crate::shard::{Look, Shard};
use crate::statistics::Counter;
use crate::terms::{Buffer, Host, Key, Miss, Reader, Scope};
use crate::tier::Tier;

/// How often a read without a lock is repeated before it takes the lock.
const RETRIES: u32 = 8;

impl<H: Host> Tier<'_, H> {
    /// Copies the value of a key into a buffer, as this reader may see it.
    #[inline]
    pub fn get<'r>(
        &self,
        key: &Key<'_>,
        reader: impl Into<Reader<'r>>,
        into: &mut impl Buffer,
    ) -> Result<Meta, Miss> {
        let outcome = self.look(key, reader.into(), &mut Some(into));
        let what = match outcome {
            Ok(_) => Counter::Hit,
            Err(Miss::Absent) => Counter::MissAbsent,
            Err(Miss::Expired) => Counter::MissExpired,
            Err(Miss::Fenced) => Counter::MissFenced,
            Err(Miss::Own) => Counter::MissOwn,
            Err(Miss::Off) => Counter::MissOff,
        };
        self.statistics.count(key.scope.cell, what);
        outcome
    }

    /// What [`get`](Self::get) would say, without counting as a read.
    pub fn peek<'r>(&self, key: &Key<'_>, reader: impl Into<Reader<'r>>) -> Result<Meta, Miss> {
        self.look(key, reader.into(), &mut None::<&mut ()>)
    }

    #[inline]
    fn look(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        let now = self.host.now();
        match self.try_look(key, reader, now, into) {
            Some(outcome) => outcome,
            None => self.look_again(key, reader, now, into),
        }
    }

    /// One attempt without a lock. Nothing if a writer was in the way.
    #[inline(always)]
    fn try_look(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Option<Result<Meta, Miss>> {
        let shard = self.shard_of(key);
        match shard.look(key) {
            Look::Found(seen) => {
                let entry = Entry::new(self.region, &self.layout, seen.block);
                let header = entry.header();
                let outcome = if header.has(HIDDEN) {
                    Err(Miss::Fenced)
                } else {
                    self.serve(&entry, &header, &key.scope, reader, now, into)
                };
                if !shard.lived(&seen) {
                    return None;
                }
                if outcome.is_ok() && into.is_some() {
                    shard.visit(seen.block);
                }
                Some(outcome)
            }
            Look::Absent => Some(Err(Miss::Absent)),
            Look::Poisoned => Some(Err(Miss::Off)),
            Look::Disturbed => None,
        }
    }

    /// Further attempts, apart from the first one so that this does not burden it.
    #[cold]
    fn look_again(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        for _ in 0..RETRIES {
            self.statistics.count(key.scope.cell, Counter::Retry);
            if let Some(outcome) = self.try_look(key, reader, now, into) {
                return outcome;
            }
        }
        self.look_locked(&self.shard_of(key), key, reader, now, into)
    }

    /// Reading among so many writers that there was no quiet moment. The buffer is asked for room before the lock is
    /// taken, because it is somebody else's code; should the value have another length meanwhile, we begin again, and miss
    /// if it never stays what it was.
    #[cold]
    fn look_locked(
        &self,
        shard: &Shard<'_>,
        key: &Key<'_>,
        reader: Reader<'_>,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        let mut expected: Option<Meta> = None;
        for _ in 0..=RETRIES {
            let mut room = match (&mut *into, expected) {
                (Some(buffer), Some(meta)) => Some(buffer.room(&meta)),
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
            let outcome = self.serve(&entry, &header, &key.scope, reader, now, &mut None::<&mut ()>);
            let Ok(meta) = outcome else { return outcome };
            match &mut room {
                // A buffer may give less room than it was asked for, as one does that only looks.
                Some(room) if expected.is_some_and(|expected| expected.value_len == meta.value_len) => {
                    let length = room.len().min(meta.value_len);
                    entry.copy(&self.layout, &header, header.value_at(), &mut room[..length]);
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

    /// Judges an entry and copies its value if it is right.
    #[inline(always)]
    fn serve(
        &self,
        entry: &Entry<'_>,
        header: &Header,
        scope: &Scope,
        reader: Reader<'_>,
        now: u32,
        into: &mut Option<&mut impl Buffer>,
    ) -> Result<Meta, Miss> {
        if header.bytes() > self.entry_bytes_max {
            // Nobody has stored this. A caller must not be made to find room for it.
            return Err(Miss::Off);
        }
        if header.expires() <= now {
            return Err(Miss::Expired);
        }
        let (fences, stamp) = (self.fences(), header.stamp());
        let [database, space] = scope.fences;
        if !fences.holds(database, stamp, reader.horizon)
            || !fences.holds(space, stamp, reader.horizon)
            || header.dependencies() > 0 && !self.dependencies_hold(*entry, *header, reader.horizon)
        {
            return Err(Miss::Fenced);
        }
        if !reader.changed.is_empty() && self.is_changed_by(reader, *entry, *header, *scope) {
            return Err(Miss::Own);
        }
        let meta = header.meta();
        if let Some(buffer) = into {
            let room = buffer.room(&meta);
            let length = room.len().min(meta.value_len);
            entry.copy(&self.layout, header, header.value_at(), &mut room[..length]);
        }
        Ok(meta)
    }

    /// Apart, so that entries without dependencies do not pay for a loop.
    #[inline(never)]
    fn dependencies_hold(&self, entry: Entry<'_>, header: Header, horizon: Stamp) -> bool {
        let fences = self.fences();
        (0..header.dependencies()).all(|place| {
            fences.holds(entry.dependency(&self.layout, &header, place), header.stamp(), horizon)
        })
    }

    /// Whether the reader has itself changed something that an entry depends on, which nobody else can know yet.
    #[cold]
    #[inline(never)]
    fn is_changed_by(&self, reader: Reader<'_>, entry: Entry<'_>, header: Header, scope: Scope) -> bool {
        let changed = |fence: FenceId| reader.changed.binary_search(&fence).is_ok();
        scope.fences.into_iter().any(changed)
            || (0..header.dependencies()).any(|place| changed(entry.dependency(&self.layout, &header, place)))
    }

    /// Whether an entry would be served now.
    pub(crate) fn is_valid(&self, entry: &Entry<'_>, header: &Header, now: u32) -> bool {
        let scope = self.scope_of(header.database(), header.space(), header.role());
        self.serve(entry, header, &scope, Stamp::LATEST.into(), now, &mut None::<&mut ()>).is_ok()
    }
}
