//! Stores values: reserves memory for a value, publishes it, or announces it and confirms it when its transaction is visible.
//! Commits (`store/transaction/commit.rs` of the extension) and fills call it. The functions here take locks; the caller must not
//! hold one.
//!
//! A *reservation* is blocks with a value that no reader can find yet. It can always be published, so a commit that has reserved
//! everything cannot fail any more. An *announcement* is a hidden entry at the front of its hash bucket. While it stands, its key
//! is a miss for every reader. So from the announcement until [`Tier::confirm`], no reader sees the old value or the new one.
//!
//! A *space* is a set of keys in one database. A *stamp* is a number of the clock of changes, which each committed change
//! increments. A *fence* is a word in shared memory that says when a dependency of entries last changed. A *flight* is the right to
//! publish a value for a key: a lease, a fill or a claim (`tier/flight.rs`). A change of the key *voids* its flight: the value of
//! that flight will be refused.

use super::Tier;

use super::entry::Entry;
use super::eviction;
use super::flight::Ended;
use super::freeing::Unlinked;
use super::guard::Guard;
use super::header::{COUNTER_BYTES, Header, NOTE_HEADER_BYTES, REST_BYTES_MAX, TOMBSTONE};
use super::writer::Writer;
use crate::fence::Stamp;
use crate::figures::{Cost, Counter};
use crate::host::Host;
use crate::key::Key;
use crate::value::{
    DEPENDENCIES_MAX, Kind, NOTE_BYTES_MAX, NewValue, Refusal, Reservation, ReserveOptions, Stored,
};

/// The outcome of a reservation.
enum Outcome {
    /// Its value is stored.
    Stored,
    /// It was the announcement of a removal.
    Removed,
    /// Its value is dropped.
    Dropped,
}

impl<H: Host> Tier<'_, H> {
    /// Writes a value to blocks where no reader can see it yet. May evict other entries. After an error, no memory is held. A
    /// reservation is never refused later: it can only be dropped.
    ///
    /// If the space has a quota, its own entries are evicted until the value fits, or [`Refusal::Quota`] is returned. A space that
    /// shares the last cell, the place of its statistics, with other spaces has no quota, because its own use is not known.
    pub fn reserve(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        options: ReserveOptions,
    ) -> Result<Reservation, Refusal> {
        let outcome = match options.quota.filter(|_| self.is_counted_alone(&key.scope)) {
            Some(quota) => self.reserve_within(key, value, options, quota),
            None => self.try_reserve(key, value, options),
        };
        match outcome {
            Err(Refusal::TooLarge) => self.statistics.count(key.scope.cell, Counter::RefusedSize),
            Err(Refusal::Full) => self.statistics.count(key.scope.cell, Counter::RefusedFull),
            Err(Refusal::Off) => self.statistics.count(key.scope.cell, Counter::RefusedOff),
            Err(Refusal::Quota) => self.statistics.count(key.scope.cell, Counter::RefusedQuota),
            Err(Refusal::TooManyDependencies) | Ok(_) => {}
        }
        outcome
    }

    /// Does the work of `reserve` without a quota and without counting.
    pub(super) fn try_reserve(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        options: ReserveOptions,
    ) -> Result<Reservation, Refusal> {
        let ReserveOptions { stale_ok, .. } = options;
        if value.dependencies.len() > DEPENDENCIES_MAX {
            return Err(Refusal::TooManyDependencies);
        }
        let bytes_max = self.entry_bytes_max.min(REST_BYTES_MAX - NOTE_HEADER_BYTES - NOTE_BYTES_MAX);
        if value.bytes.len() > bytes_max || value.note.len() > NOTE_BYTES_MAX {
            return Err(Refusal::TooLarge);
        }
        let is_counter = value.kind == Kind::COUNTER;
        let has_no_note = is_counter && value.bytes.len() != COUNTER_BYTES;
        let value = &NewValue { note: if has_no_note { &[] } else { value.note }, ..*value };
        let mut header = Header::new(key, value, &options, self.host.now());
        if header.byte_len() > self.entry_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let block = self.allocate(key, &mut header)?;
        let entry = Entry::new(self.region, &self.layout, block);
        // The parts must be written in the order that `entry.rs` describes, because `Header::new` has computed their places.
        let mut writer = Writer::new(&entry, &self.layout, &header);
        for dependency in value.dependencies {
            writer.write(&dependency.0.to_ne_bytes());
        }
        writer.align();
        writer.write(key.bytes);
        if is_counter || stale_ok.is_some() {
            writer.align();
        }
        if let Some(stale_ok) = stale_ok {
            writer.write(&stale_ok.as_word().to_ne_bytes());
        }
        if is_counter {
            writer.write(value.bytes);
            writer.write_note(value.note);
        } else {
            writer.write_note(value.note);
            writer.write(value.bytes);
        }
        writer.finish();
        Ok(Reservation { block })
    }

    /// Reserves what a transaction needs to remove a key when it commits. The caller announces and confirms it like a value.
    pub fn reserve_removal(&self, key: &Key<'_>) -> Result<Reservation, Refusal> {
        let value = NewValue {
            bytes: &[],
            note: &[],
            kind: Kind(0),
            stamp: Stamp::VOID,
            expires: u32::MAX,
            cost: Cost::NONE,
            dependencies: &[],
        };
        let reservation = self.reserve(key, &value, ReserveOptions::default())?;
        Entry::new(self.region, &self.layout, reservation.block).set_flag(TOMBSTONE, true);
        Ok(reservation)
    }

    /// Stores a value at once: reserves it and [publishes](Self::publish) it.
    pub fn put(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Stored, Refusal> {
        let reservation = self.reserve(key, value, ReserveOptions::default())?;
        match self.publish(key, reservation) {
            Stored::Dropped => Err(Refusal::Off),
            stored => Ok(stored),
        }
    }

    /// Makes a reservation visible, as a plain set does, and replaces the present entry of the key. Voids the key's flight: the
    /// session that is computing the key cannot publish any more. Takes a bounded number of steps, allocates nothing and raises no
    /// error. The value is dropped only if the shard is switched off.
    pub fn publish(&self, key: &Key<'_>, reservation: Reservation) -> Stored {
        self.publish_if(key, reservation, |guard, _| {
            guard.flights().void(key.hash);
            true
        })
    }

    /// Makes a value visible under a lease, a fill or a claim, if the key was not set or removed since it was given, and if it has
    /// not lost its slot. Otherwise drops the value. Ends the flight.
    ///
    /// If a transaction has announced a change of the key, the value is stored behind the announcement. No reader sees the value
    /// while the announcement stands. Confirming the announcement removes the value, and withdrawing it makes the value visible,
    /// which is then right.
    pub fn publish_leased(&self, key: &Key<'_>, reservation: Reservation, lease: u64) -> Stored {
        self.publish_if(key, reservation, |guard, _| {
            guard.flights().end(key.hash, lease, self.host.now()) == Ended::Valid
        })
    }

    /// Makes a reservation visible if `decide` returns true, and otherwise drops it. `decide` runs under the lock of the shard, so
    /// it must not take another lock. It receives whether the key has a valid value.
    pub(super) fn publish_if(
        &self,
        key: &Key<'_>,
        reservation: Reservation,
        decide: impl FnOnce(&Guard<'_, H>, bool) -> bool,
    ) -> Stored {
        let shard = self.shard_of(key);
        let now = self.host.now();
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = shard.lock(&self.host);
        let mut unlinked = Unlinked::within(&key.scope);
        let old = guard.find(key);
        let valid = old.is_some_and(|(entry, header)| self.is_valid_in(&key.scope, &entry, &header, now));
        let kept = !guard.poisoned() && decide(&guard, valid);
        if kept {
            self.replace(&guard, key, None, old, Some(&new), &mut unlinked);
        }
        drop(guard);
        self.conclude(key, reservation, if kept { Outcome::Stored } else { Outcome::Dropped }, &mut unlinked);
        match (kept, valid) {
            (false, _) => Stored::Dropped,
            (true, true) => Stored::Replaced,
            (true, false) => Stored::New,
        }
    }

    /// Ends the use of a reservation after the lock was released: counts the outcome, frees the blocks that no entry needs, and
    /// finishes `unlinked`.
    fn conclude(&self, key: &Key<'_>, reservation: Reservation, outcome: Outcome, unlinked: &mut Unlinked) {
        match outcome {
            Outcome::Stored => self.statistics.count(key.scope.cell, Counter::Stored),
            Outcome::Removed => self.release(reservation.block),
            Outcome::Dropped => {
                self.release(reservation.block);
                self.statistics.count(key.scope.cell, Counter::Dropped);
            }
        }
        self.release_all(unlinked);
    }

    /// Replaces the present entry of a key with a new one, or with none, removes an announcement, and forgets where the old value
    /// is saved. All of it happens in one change. So readers see the state before or the state after, and never the old value
    /// between the announcement and the new value. `old` must be what `guard.find` returns for the key in this hold of the lock.
    fn replace<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        key: &Key<'_>,
        announced: Option<&Entry<'t>>,
        old: Option<(Entry<'t>, Header)>,
        new: Option<&Entry<'t>>,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| {
            guard.forget_location(key.fingerprint());
            if let Some(announced) = announced {
                guard.unlink_hidden(announced);
            }
            if let Some((entry, header)) = &old {
                guard.unlink(entry, header);
            }
            if let Some(new) = new {
                let header = new.header();
                guard.link(new, &header);
                eviction::admit(guard, new, &header);
            }
        });
        if let Some((entry, header)) = &old {
            let how = if new.is_some() { Counter::Replaced } else { Counter::Removed };
            self.note_gone(&mut unlinked.deltas, header.space_id(), how, 1);
            self.note_killed(&mut unlinked.deltas, entry, header);
            self.give_back(guard, entry, header, unlinked);
        }
    }

    /// Announces that a change of the key is about to become visible. From now on the key is a miss. The caller must announce
    /// before the change can become visible, and must then call exactly one of [`confirm`](Self::confirm),
    /// [`confirm_as`](Self::confirm_as), [`confirm_claimed`](Self::confirm_claimed) and [`withdraw`](Self::withdraw).
    pub fn announce(&self, key: &Key<'_>, reservation: &Reservation) {
        let guard = self.shard_of(key).lock(&self.host);
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        guard.change(|| guard.link_hidden(&entry));
    }

    /// Confirms an announced change with the stamp of its value: the change is visible now. Voids the key's flight. Takes a bounded
    /// number of steps, allocates nothing and cannot fail.
    pub fn confirm(&self, key: &Key<'_>, reservation: Reservation) {
        let stamp = Entry::new(self.region, &self.layout, reservation.block).header().stamp();
        self.confirm_as(key, reservation, Some(stamp));
    }

    /// Confirms an announced change with the moment as of which the value is right (see `fence/mod.rs`, *Set and fence*). If
    /// `stamp` is None, the value is not right: it is dropped, and the key is removed, because the old value was announced to be
    /// wrong. A removal ignores the stamp.
    pub fn confirm_as(&self, key: &Key<'_>, reservation: Reservation, stamp: Option<Stamp>) {
        self.confirm_if(key, reservation, stamp, |guard| {
            guard.flights().void(key.hash);
            true
        });
    }

    /// Does the same as [`confirm_as`](Self::confirm_as) for a value that was announced under a claim, and ends the claim. Returns
    /// whether the claim still stood. If another session has set or removed the key since, that change was later, and the
    /// announcement is withdrawn.
    pub fn confirm_claimed(
        &self,
        key: &Key<'_>,
        reservation: Reservation,
        claim: u64,
        stamp: Option<Stamp>,
    ) -> bool {
        self.confirm_if(key, reservation, stamp, |guard| {
            guard.flights().end(key.hash, claim, self.host.now()) == Ended::Valid
        })
    }

    /// Confirms an announced change, or withdraws it if `decide` returns false. `decide` runs under the lock of the shard, so it
    /// must not take another lock. Returns what `decide` has returned.
    fn confirm_if(
        &self,
        key: &Key<'_>,
        reservation: Reservation,
        stamp: Option<Stamp>,
        decide: impl FnOnce(&Guard<'_, H>) -> bool,
    ) -> bool {
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        let mut unlinked = Unlinked::within(&key.scope);
        let stands = decide(&guard);
        let is_removal = new.header().has(TOMBSTONE);
        let stamp = stamp.filter(|_| !is_removal);
        if let Some(stamp) = stamp {
            new.set_stamp(stamp);
        }
        let kept = stands && stamp.is_some();
        let old = guard.find(key).filter(|_| stands);
        if stands {
            self.replace(&guard, key, Some(&new), old, kept.then_some(&new), &mut unlinked);
        } else {
            guard.change(|| guard.unlink_hidden(&new));
        }
        drop(guard);
        let outcome = match kept {
            true => Outcome::Stored,
            false if is_removal => Outcome::Removed,
            false => Outcome::Dropped,
        };
        self.conclude(key, reservation, outcome, &mut unlinked);
        stands
    }

    /// Withdraws an announced change: it will not happen. Readers find the present entry of the key again, if there is one.
    pub fn withdraw(&self, key: &Key<'_>, reservation: Reservation) {
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        guard.change(|| guard.unlink_hidden(&entry));
        drop(guard);
        self.release(reservation.block);
    }

    /// Frees the blocks of a reservation that was not announced.
    pub fn cancel(&self, reservation: Reservation) {
        self.release(reservation.block);
    }
}
