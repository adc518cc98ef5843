//! Changes living entries in place: their time to live, and the value of a counter. It also makes a counter of another value. The
//! functions here take the lock of the key's *shard*, the part of the tier that the key belongs to; the caller must not hold a
//! lock.
//!
//! A *location* says where the copy of a value is saved (`tier/directory.rs`), and an entry that the saver has copied is *marked*
//! (`saving.rs`). A *flight* is the right to publish a value that is being computed (`tier/flight.rs`). A change of the key *voids*
//! it: its value will be refused. An *announced* change of a key hides the key's value until the change is confirmed
//! (`publishing.rs`). A *tick* is the unit of time, which the host of the tier chooses.

use super::Tier;

use super::entry::Entry;
use super::header::{Header, MARKED};
use crate::fence::FenceId;
use crate::host::Host;
use crate::key::Key;
use crate::sync::Ordering;
use crate::value::{
    DEPENDENCIES_MAX, IncrError, Kind, Meta, NOTE_BYTES_MAX, NewValue, Refusal, Reservation, ReserveOptions,
    StaleOk, Stored,
};

impl<H: Host> Tier<'_, H> {
    /// Gives an entry another time to live: it expires at the tick `expires`. Returns false if the key has no value in memory that
    /// would be served. A saved copy has the old time to live, so its location is forgotten. A value that is only saved is lost,
    /// because its copy cannot be changed here. To keep such a value, the caller must [promote](Self::promote) it before.
    pub fn touch(&self, key: &Key<'_>, expires: u32) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard
            .find(key)
            .filter(|(entry, header)| !guard.poisoned() && self.is_valid_in(&key.scope, entry, header, now));
        guard.forget_location(key.fingerprint());
        if let Some((entry, _)) = &found {
            entry.set_flag(MARKED, false);
            entry.set_expires(expires);
        }
        found.is_some()
    }

    /// Adds to a counter in one step, and returns its new value. If the key has no valid value in memory, and none is saved, stores
    /// a counter as `new` describes it, but with the value `by`, with these options. The bytes and the kind of `new` are ignored.
    pub fn incr(
        &self,
        key: &Key<'_>,
        by: i64,
        new: &NewValue<'_>,
        options: ReserveOptions,
    ) -> Result<i64, IncrError> {
        loop {
            if let Some(outcome) = self.add(key, by) {
                return outcome;
            }
            let value = NewValue { bytes: &by.to_ne_bytes(), kind: Kind::COUNTER, ..*new };
            let reservation = self.reserve(key, &value, options).map_err(IncrError::Refused)?;
            // An announced change of the key does not stop this: when it is confirmed, it replaces the counter. Waiting for it
            // could take long.
            let stored = self.publish_if(key, reservation, |guard, valid| {
                let absent = !valid && guard.location(key).is_none();
                if absent {
                    guard.flights().void(key.hash);
                }
                absent
            });
            match stored {
                Stored::New | Stored::Replaced => return Ok(by),
                Stored::Dropped if self.shard_of(key).poisoned() => {
                    return Err(IncrError::Refused(Refusal::Off));
                }
                // Another session has stored a value first, or saved one: add to that one.
                Stored::Dropped => {}
            }
        }
    }

    /// Adds to a counter in one step, and returns its new value. Returns None if the key has no valid value in memory, and none is
    /// saved. After an error the value is as before.
    pub fn add(&self, key: &Key<'_>, by: i64) -> Option<Result<i64, IncrError>> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard
            .find(key)
            .filter(|(entry, header)| !guard.poisoned() && self.is_valid_in(&key.scope, entry, header, now));
        let Some((entry, header)) = found else {
            return guard.location(key).map(|location| Err(IncrError::Saved(location)));
        };
        if header.kind() != Kind::COUNTER {
            return Some(Err(IncrError::OtherKind(header.kind())));
        }
        let Some(word) = entry.counter(&self.layout, &header) else {
            // The entry is damaged, or was stored as a counter without holding a number. It is valid, so the caller's loop would
            // never replace it: refuse instead.
            return Some(Err(IncrError::Refused(Refusal::Off)));
        };
        let old = word.load(Ordering::Relaxed) as i64;
        let Some(sum) = old.checked_add(by) else { return Some(Err(IncrError::Overflow)) };
        word.store(sum as u64, Ordering::Relaxed);
        guard.flights().void(key.hash);
        Some(Ok(sum))
    }

    /// Copies the first bytes of the value that [`add`](Self::add) would add to, if it were a counter: as many as `into` holds.
    /// Returns None if the key has no valid value in memory. Does not count as a read.
    pub fn peek_to_add(&self, key: &Key<'_>, into: &mut [u8]) -> Option<Meta> {
        let guard = self.shard_of(key).lock(&self.host);
        let (entry, header) = guard.find(key).filter(|(entry, header)| {
            !guard.poisoned() && self.is_valid_in(&key.scope, entry, header, self.host.now())
        })?;
        entry.copy_value(&self.layout, &header, into);
        Some(entry.meta(&self.layout, &header))
    }

    /// Turns a value, given as its kind and its bytes, into a counter with this number. Its time to live, stamp, cost, note,
    /// dependencies and [`StaleOk`] time stay. `reserve` must reserve the new value that it receives; it runs without a lock.
    /// Returns false and changes nothing if the key does not hold this value any more.
    pub fn to_counter(
        &self,
        key: &Key<'_>,
        value: (Kind, &[u8]),
        number: i64,
        reserve: impl FnOnce(&NewValue<'_>, Option<StaleOk>) -> Result<Reservation, Refusal>,
    ) -> Result<bool, Refusal> {
        let (mut dependencies, mut note) = ([FenceId(0); DEPENDENCIES_MAX], [0; NOTE_BYTES_MAX]);
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard.find(key).filter(|(entry, header)| {
            !guard.poisoned()
                && self.is_valid_in(&key.scope, entry, header, self.host.now())
                && self.holds_value(entry, header, value)
        });
        let Some((entry, old)) = found else { return Ok(false) };
        let stale_ok = entry.stale_ok(&self.layout, &old);
        let dependencies = &mut dependencies[..old.dependency_count()];
        for (index, fence) in dependencies.iter_mut().enumerate() {
            *fence = entry.dependency(&self.layout, &old, index);
        }
        let noted = entry.note(&self.layout, &old);
        let note = &mut note[..noted.length];
        entry.copy(&self.layout, &old, noted.at, note);
        drop(guard);
        let new = NewValue {
            bytes: &number.to_ne_bytes(),
            note,
            kind: Kind::COUNTER,
            stamp: old.stamp(),
            expires: old.expires(),
            cost: old.cost(),
            dependencies,
        };
        let reservation = reserve(&new, stale_ok)?;
        // Comparing the blocks of the two entries would not be enough, because another entry may lie in the same blocks by now.
        let is_same = |(entry, header): (Entry<'_>, Header)| {
            let same_dependency =
                |index| entry.dependency(&self.layout, &header, index) == dependencies[index];
            header.stamp() == old.stamp()
                && header.expires() == old.expires()
                && header.dependency_count() == old.dependency_count()
                && (0..header.dependency_count()).all(same_dependency)
                && self.holds_value(&entry, &header, value)
        };
        let stored =
            self.publish_if(key, reservation, |guard, valid| valid && guard.find(key).is_some_and(is_same));
        Ok(stored != Stored::Dropped)
    }

    /// Returns whether an entry holds exactly this value. The caller must hold the lock of the entry's shard.
    fn holds_value(&self, entry: &Entry<'_>, header: &Header, (kind, bytes): (Kind, &[u8])) -> bool {
        let mut copy = [0; 64];
        let found = entry.value(&self.layout, header);
        let mut at = found.at;
        header.kind() == kind
            && found.length == bytes.len()
            && bytes.chunks(copy.len()).all(|part| {
                let copy = &mut copy[..part.len()];
                entry.copy(&self.layout, header, at, copy);
                at += part.len();
                copy == part
            })
    }
}
