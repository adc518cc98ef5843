//! The tier as its users see it: a map from keys to values that may evict entries at any time.
//!
//! This file stores, removes, announces and sweeps entries, and begins and ends flights. Reading without a lock is in `reading.rs`,
//! and finding blocks is in `room.rs`. Each operation on a key holds the lock of one shard. Blocks of unlinked entries that lie in
//! other shards are released after that lock.

use crate::fence::{FenceId, Fences, Reserved, Stamp};
use crate::figures::cost::Cost;
use crate::figures::statistics::{Counter, Statistics};
use crate::layout::{BLOCK_BYTES, Layout, Sizes};
use crate::region::{Region, RegionError};
use crate::sync::Ordering;
use crate::terms::{
    Acquired, Host, InFlight, IncrError, Inspected, Key, KeyMark, Lease, Limit, Lingering, NewValue, Owner,
    Purpose, Reader, Refusal, Reservation, Scope, Stored, Unclaimed, Usage,
};
use crate::tier::allocation::Unlinked;
use crate::tier::entry::{
    DEPENDENCIES_MAX, Entry, HIDDEN, Header, Kind, LINGERS, LINKED, TOMBSTONE, Writer, blocks_of,
};
use crate::tier::eviction::{Policy, S3Fifo};
use crate::tier::shard::{Guard, Shard};
use std::collections::TryReserveError;

pub(crate) mod allocation;
pub(crate) mod check;
pub(crate) mod entry;
mod eviction;
pub(crate) mod flight;
mod quota;
mod reading;
pub(crate) mod shard;

/// One entry may take at most the size of the tier divided by this.
const ENTRY_SHARE: u64 = 8;

/// A tier in a region, as one backend sees it.
#[derive(Debug)]
pub struct Tier<'m, H> {
    pub(crate) region: Region<'m>,
    pub(crate) layout: Layout,
    pub(crate) host: H,
    pub(crate) statistics: Statistics<'m>,
    /// The most bytes that an entry may take. A header with a larger number is damaged.
    pub(crate) entry_bytes_max: usize,
}

impl<'m, H: Host> Tier<'m, H> {
    /// Formats a region as an empty tier. No other process may use the region meanwhile.
    ///
    /// `sizes.bytes` is ignored: the region's own size counts.
    pub fn format(region: Region<'m>, sizes: Sizes, host: H, backend: u32) -> Result<Self, RegionError> {
        let layout = Layout::of(Sizes { bytes: region.bytes(), ..sizes })?;
        layout.format(&region);
        for shard in 0..layout.shards {
            Shard::new(region, &layout, shard).format();
        }
        Ok(Self::new(region, layout, host, backend))
    }

    fn new(region: Region<'m>, layout: Layout, host: H, backend: u32) -> Self {
        let share = layout.blocks_total() / ENTRY_SHARE;
        // In a tier with room for a few entries, an eighth would be too little for any entry.
        let blocks = share.max(u64::from(blocks_of(2048)).min(layout.blocks_total() / 2));
        Self {
            region,
            statistics: Statistics::of(region, &layout, backend),
            layout,
            host,
            entry_bytes_max: blocks as usize * BLOCK_BYTES,
        }
    }

    /// Attaches to the tier in a region that was formatted before, perhaps by another process and at another address.
    pub fn attach(region: Region<'m>, host: H, backend: u32) -> Result<Self, RegionError> {
        Ok(Self::new(region, Layout::read(&region)?, host, backend))
    }

    /// Returns how many locks a tier of these sizes needs of its host.
    pub fn shards_of(sizes: Sizes) -> Result<u32, RegionError> {
        Layout::of(sizes).map(|layout| layout.shards)
    }

    /// Returns the bytes that a region of these sizes uses for its header, fences and statistics, and not for entries.
    pub fn bytes_beside_entries(sizes: Sizes) -> usize {
        Layout::words_before_zones(&sizes) * 8
    }

    /// Returns the fences of the tier.
    pub fn fences(&self) -> Fences<'_> {
        Fences::new(self.region, &self.layout)
    }

    /// Returns the scope of a space's keys: those of one role, or those of all roles if `role` is 0.
    ///
    /// The first call for a space gives it its statistics, so that they are listed.
    pub fn scope(&self, database: u32, space: u32, role: u32) -> Scope {
        let scope = self.scope_of(database, space, role);
        self.statistics.name(scope.cell, scope.place());
        scope
    }

    /// Returns the scope that an entry names. Unlike [`scope`](Self::scope), it does not add the space to the statistics.
    pub(crate) fn scope_of(&self, database: u32, space: u32, role: u32) -> Scope {
        let fences = self.fences();
        let fences = [
            fences.reserved(Reserved::Database(database)),
            fences.reserved(Reserved::Space { database, space }),
        ];
        Scope { database, space, role, fences, cell: self.layout.cell_of_fence(fences[1]) }
    }

    /// Writes a value to blocks where no reader can see it yet. May evict other entries. Every error of storing a value comes from
    /// this call.
    pub fn reserve(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Reservation, Refusal> {
        self.reserve_lingering(key, value, None)
    }

    /// Does the same as [`reserve`](Self::reserve) for a value that may be served stale for some time.
    pub fn reserve_lingering(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        lingering: Option<Lingering>,
    ) -> Result<Reservation, Refusal> {
        let outcome = self.try_reserve(key, value, lingering);
        match outcome {
            Err(Refusal::TooLarge) => self.statistics.count(key.scope.cell, Counter::RefusedSize),
            Err(Refusal::Full) => self.statistics.count(key.scope.cell, Counter::RefusedFull),
            Err(Refusal::Off) => self.statistics.count(key.scope.cell, Counter::RefusedOff),
            _ => {}
        }
        outcome
    }

    fn try_reserve(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        lingering: Option<Lingering>,
    ) -> Result<Reservation, Refusal> {
        if value.dependencies.len() > DEPENDENCIES_MAX {
            return Err(Refusal::TooManyDependencies);
        }
        if value.bytes.len() > self.entry_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let mut header = Header::new(key, value, lingering.is_some(), self.host.now());
        if header.bytes() > self.entry_bytes_max {
            return Err(Refusal::TooLarge);
        }
        let block = self.find_room(key, &mut header)?;
        let entry = Entry::new(self.region, &self.layout, block);
        let mut writer = Writer::new(&entry, &self.layout, &header);
        for dependency in value.dependencies {
            writer.write(&dependency.0.to_ne_bytes());
        }
        writer.align();
        writer.write(key.bytes);
        if value.kind == Kind::COUNTER || lingering.is_some() {
            writer.align();
        }
        if let Some(lingering) = lingering {
            writer.write(&lingering.as_word().to_ne_bytes());
        }
        writer.write(value.bytes);
        writer.finish();
        Ok(Reservation { block })
    }

    /// Returns the most bytes that an entry may take, with its header, its dependencies and its key.
    pub fn entry_bytes_max(&self) -> usize {
        self.entry_bytes_max
    }

    /// Makes a reservation visible, as a plain set does, and replaces the present entry of the key. Voids the key's flight: the
    /// session that is computing the key cannot publish any more. Takes a bounded number of steps, allocates nothing and cannot
    /// fail.
    pub fn publish(&self, key: &Key<'_>, reservation: Reservation) -> Stored {
        self.publish_if(key, reservation, |guard, _| {
            guard.flights().void(key.hash);
            true
        })
    }

    /// Makes a value visible under a lease or a claim, if no other session has set or removed the key since the lease was given.
    /// Ends the flight or the claim.
    ///
    /// If a transaction has announced a change of the key, the value is stored behind the announcement. No reader sees the value
    /// while the announcement stands. Confirming the announcement removes the value, and withdrawing it makes the value visible,
    /// which is then right.
    pub fn publish_leased(&self, key: &Key<'_>, reservation: Reservation, lease: u64) -> Stored {
        self.publish_if(key, reservation, |guard, _| guard.flights().end(key.hash, lease) == Some(true))
    }

    fn publish_if(
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
        let outcome = if guard.poisoned() || !decide(&guard, valid) {
            Stored::Dropped
        } else {
            self.replace(&guard, None, old, Some(&new), &mut unlinked);
            if valid { Stored::Replaced } else { Stored::New }
        };
        drop(guard);
        if outcome == Stored::Dropped {
            self.release(reservation.block);
            self.statistics.count(key.scope.cell, Counter::Dropped);
        } else {
            self.statistics.count(key.scope.cell, Counter::Stored);
        }
        self.release_all(&mut unlinked);
        outcome
    }

    /// Replaces the present entry of a key with a new one, or with none, and removes an announcement. All of it happens in one
    /// change. So readers see the state before or the state after, and never the old value between the announcement and the new
    /// value.
    fn replace<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        announced: Option<&Entry<'t>>,
        old: Option<(Entry<'t>, Header)>,
        new: Option<&Entry<'t>>,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| {
            if let Some(announced) = announced {
                guard.unlink_hidden(announced);
            }
            if let Some((entry, header)) = &old {
                guard.unlink(entry, header);
            }
            if let Some(new) = new {
                let header = new.header();
                guard.link(new, &header);
                S3Fifo.admit(guard, new, &header);
            }
        });
        if let Some((entry, header)) = &old {
            let how = if new.is_some() { Counter::Replaced } else { Counter::Removed };
            self.note_gone(&mut unlinked.tally, header.place(), how, 1);
            self.note_killed(&mut unlinked.tally, entry, header);
            self.give_back(guard, entry, header, unlinked);
        }
    }

    /// Reserves what a transaction needs to remove a key when it commits.
    pub fn reserve_removal(&self, key: &Key<'_>) -> Result<Reservation, Refusal> {
        let value = NewValue {
            bytes: &[],
            kind: Kind(0),
            stamp: Stamp::VOID,
            expires: u32::MAX,
            cost: Cost::NONE,
            dependencies: &[],
        };
        let reservation = self.reserve(key, &value)?;
        Entry::new(self.region, &self.layout, reservation.block).set_flag(TOMBSTONE, true);
        Ok(reservation)
    }

    /// Announces that a change of the key is about to become visible. From now on the key is a miss. The caller must announce
    /// before the change can become visible, and must then call exactly one of [`confirm`](Self::confirm),
    /// [`confirm_as`](Self::confirm_as), [`confirm_claimed`](Self::confirm_claimed) and [`withdraw`](Self::withdraw).
    pub fn announce(&self, key: &Key<'_>, reservation: &Reservation) {
        let guard = self.shard_of(key).lock(&self.host);
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        guard.change(|| guard.link_hidden(&entry));
    }

    /// Confirms an announced change: it is visible now. Takes a bounded number of steps, allocates nothing and cannot fail.
    pub fn confirm(&self, key: &Key<'_>, reservation: Reservation) {
        let stamp = Entry::new(self.region, &self.layout, reservation.block).header().stamp();
        self.confirm_as(key, reservation, Some(stamp));
    }

    /// Confirms an announced change with the moment as of which the value is right (see `fence.rs`, *Set and fence*). If `stamp` is
    /// None, the value is not right: it is dropped, and the key is removed, because the old value was announced to be wrong. A
    /// removal ignores the stamp.
    pub fn confirm_as(&self, key: &Key<'_>, reservation: Reservation, stamp: Option<Stamp>) {
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        let mut unlinked = Unlinked::within(&key.scope);
        guard.flights().void(key.hash);
        let removal = new.header().has(TOMBSTONE);
        let stamp = stamp.filter(|_| !removal);
        if let Some(stamp) = stamp {
            new.set_stamp(stamp);
        }
        let kept = stamp.is_some();
        self.replace(&guard, Some(&new), guard.find(key), kept.then_some(&new), &mut unlinked);
        drop(guard);
        if kept {
            self.statistics.count(key.scope.cell, Counter::Stored);
        } else {
            self.release(reservation.block);
            if !removal {
                self.statistics.count(key.scope.cell, Counter::Dropped);
            }
        }
        self.release_all(&mut unlinked);
    }

    /// Withdraws an announced change: it will not happen. The entry that the key had before is visible again.
    pub fn withdraw(&self, key: &Key<'_>, reservation: Reservation) {
        let entry = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        guard.change(|| guard.unlink_hidden(&entry));
        drop(guard);
        self.release(reservation.block);
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
        let new = Entry::new(self.region, &self.layout, reservation.block);
        let guard = self.shard_of(key).lock(&self.host);
        let mut unlinked = Unlinked::within(&key.scope);
        let stands = guard.flights().end(key.hash, claim) == Some(true);
        let kept = stands && stamp.is_some();
        if let Some(stamp) = stamp {
            new.set_stamp(stamp);
        }
        let old = guard.find(key).filter(|_| stands);
        self.replace(&guard, Some(&new), old, kept.then_some(&new), &mut unlinked);
        drop(guard);
        if kept {
            self.statistics.count(key.scope.cell, Counter::Stored);
        } else {
            self.release(reservation.block);
            self.statistics.count(key.scope.cell, Counter::Dropped);
        }
        self.release_all(&mut unlinked);
        stands
    }

    /// Claims a key that has no value for this reader: no other session can claim it until the claim ends. Without a reader, the
    /// present entry of the key does not matter: the caller knows that it will be removed.
    ///
    /// A session that already has the claim gets its number again.
    pub fn claim(&self, key: &Key<'_>, reader: Option<Reader<'_>>, owner: Owner) -> Result<u64, Unclaimed> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() {
            return Err(Unclaimed::NoPlace(Limit::Off));
        }
        if guard.is_changing(key) {
            return Err(Unclaimed::Changing);
        }
        let is_claim = |leader: &InFlight| leader.purpose == Purpose::Claim;
        if let Some(other) = guard.flights().leader(key.hash, now).filter(is_claim) {
            return if other.owner == owner.session { Ok(other.number) } else { Err(Unclaimed::Claimed) };
        }
        if reader.is_some_and(|reader| self.has_value(&guard, key, reader, now)) {
            return Err(Unclaimed::Present);
        }
        let lease = self.draw_lease(&guard, Stamp::LATEST);
        let begun = guard.flights().begin(key, Purpose::Claim, &lease, owner, u32::MAX, now);
        begun.map(|()| lease.number).map_err(Unclaimed::NoPlace)
    }

    fn draw_lease(&self, guard: &Guard<'_, H>, horizon: Stamp) -> Lease {
        // The stamp must be drawn first: then a statement that begins after `acquired` sees all that was committed before the
        // stamp.
        let stamp = self.fences().now().min(horizon);
        Lease { number: guard.next_lease(), stamp, acquired: self.host.moment() }
    }

    fn has_value(&self, guard: &Guard<'_, H>, key: &Key<'_>, reader: Reader<'_>, now: u32) -> bool {
        let right = |(entry, header): (Entry<'_>, Header)| {
            self.serve(&entry, &header, &key.scope, reader, now, None::<&mut ()>).is_ok()
        };
        !guard.is_changing(key) && guard.find(key).is_some_and(right)
    }

    /// Asks for the lease of a key. The lease ends at `deadline`, a tick, if nothing ends it before.
    pub fn acquire(&self, key: &Key<'_>, owner: Owner, deadline: u32) -> Acquired {
        self.begin_flight(key, Purpose::Lease, None, Stamp::LATEST, owner, deadline)
    }

    /// Does the same as [`acquire`](Self::acquire) for a caller that computes on a snapshot of `horizon`. If `horizon` is earlier
    /// than now, it becomes the stamp.
    pub fn acquire_as_of(&self, key: &Key<'_>, horizon: Stamp, owner: Owner, deadline: u32) -> Acquired {
        self.begin_flight(key, Purpose::Lease, None, horizon, owner, deadline)
    }

    /// Does the same as [`acquire`](Self::acquire), unless the key has a value for this reader by now.
    pub fn acquire_missing(
        &self,
        key: &Key<'_>,
        reader: Reader<'_>,
        owner: Owner,
        deadline: u32,
    ) -> Acquired {
        self.begin_flight(key, Purpose::Lease, Some(reader), reader.horizon, owner, deadline)
    }

    /// Begins a fill: the session will compute the value on a new snapshot and publish it. A fill takes over the key's lease if
    /// there is one.
    pub fn begin_fill(&self, key: &Key<'_>, owner: Owner, deadline: u32) -> Acquired {
        self.begin_flight(key, Purpose::Fill, None, Stamp::LATEST, owner, deadline)
    }

    fn begin_flight(
        &self,
        key: &Key<'_>,
        purpose: Purpose,
        reader: Option<Reader<'_>>,
        horizon: Stamp,
        owner: Owner,
        deadline: u32,
    ) -> Acquired {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() {
            return Acquired::NoPlace(Limit::Off);
        }
        if reader.is_some_and(|reader| self.has_value(&guard, key, reader, now)) {
            return Acquired::Present;
        }
        let goes_before = |leader: &InFlight| purpose == Purpose::Fill && leader.purpose == Purpose::Lease;
        if let Some(leader) = guard.flights().leader(key.hash, now).filter(|leader| !goes_before(leader)) {
            return Acquired::Busy(leader);
        }
        let lease = self.draw_lease(&guard, horizon);
        match guard.flights().begin(key, purpose, &lease, owner, deadline, now) {
            Ok(()) => Acquired::Lead(lease),
            Err(limit) => Acquired::NoPlace(limit),
        }
    }

    /// Returns the flight of a key, if there is one now.
    pub fn leader(&self, key: &Key<'_>) -> Option<InFlight> {
        let now = self.host.now();
        self.shard_of(key).lock(&self.host).flights().leader(key.hash, now)
    }

    /// Returns a lease by its number. None if its value could not be published any more: the lease has ended, or another session
    /// has set or removed the key since.
    pub fn lease(&self, key: &Key<'_>, lease: u64) -> Option<Lease> {
        self.shard_of(key).lock(&self.host).flights().lease(key.hash, lease)
    }

    /// Ends a flight or a claim without a result. Returns whether it existed.
    pub fn release_lease(&self, key: &Key<'_>, lease: u64) -> bool {
        self.shard_of(key).lock(&self.host).flights().end(key.hash, lease).is_some()
    }

    /// Ends all flights and claims of a session that has ended. Returns their number.
    pub fn release_leases_of(&self, session: u32) -> u32 {
        (0..self.layout.shards).map(|shard| self.locked(shard).flights().end_all_of(session)).sum()
    }

    /// Disowns the leases of a session that has ended. A caller that knows the number of a lease can still use it.
    pub fn disown_leases_of(&self, session: u32) {
        (0..self.layout.shards).for_each(|shard| self.locked(shard).flights().disown(session));
    }

    /// Returns all flights and claims that are not over, or an error if there is no memory for the list.
    pub fn in_flight(&self) -> Result<Vec<InFlight>, TryReserveError> {
        let now = self.host.now();
        let mut found = Vec::new();
        for shard in 0..self.layout.shards {
            let guard = self.locked(shard);
            for flight in guard.flights().all(now) {
                found.try_reserve(1)?;
                found.push(flight);
            }
        }
        Ok(found)
    }

    fn locked(&self, shard: u32) -> Guard<'_, H> {
        Shard::new(self.region, &self.layout, shard).lock(&self.host)
    }

    /// Frees the blocks of a reservation.
    pub fn cancel(&self, reservation: Reservation) {
        self.release(reservation.block);
    }

    /// Stores a value at once.
    pub fn put(&self, key: &Key<'_>, value: &NewValue<'_>) -> Result<Stored, Refusal> {
        let reservation = self.reserve(key, value)?;
        match self.publish(key, reservation) {
            Stored::Dropped => Err(Refusal::Off),
            stored => Ok(stored),
        }
    }

    /// Removes a key. Returns whether it had a value that would have been served.
    pub fn remove(&self, key: &Key<'_>) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        guard.flights().void(key.hash);
        let Some((entry, header)) = guard.find(key).filter(|_| !guard.poisoned()) else { return false };
        let valid = self.is_valid_in(&key.scope, &entry, &header, now);
        let mut unlinked = Unlinked::within(&key.scope);
        self.drop_entry(&guard, &entry, &header, Counter::Removed, &mut unlinked);
        drop(guard);
        self.release_all(&mut unlinked);
        valid
    }

    /// Removes a key of which only the mark is left, and voids its flight. Changes of the key that other transactions have
    /// announced stay announced, as with [`remove`](Self::remove). Takes a bounded number of steps, allocates nothing and cannot
    /// fail.
    pub fn remove_marked(&self, mark: &KeyMark) {
        let is_it = |header: &Header| {
            header.hash() == mark.print()
                && header.place() == mark.place()
                && header.role() == mark.role
                && header.has(LINKED)
                && !header.has(HIDDEN)
        };
        loop {
            let guard = Shard::of_hash(self.region, &self.layout, mark.hash()).lock(&self.host);
            guard.flights().void(mark.hash());
            if guard.poisoned() {
                return;
            }
            let mut unlinked = Unlinked::default();
            for entry in guard.in_bucket(guard.bucket_of(mark.print())) {
                let header = entry.header();
                if is_it(&header) && !unlinked.is_full() {
                    self.drop_entry(&guard, &entry, &header, Counter::Removed, &mut unlinked);
                }
            }
            drop(guard);
            self.release_all(&mut unlinked);
            if !unlinked.is_full() {
                return;
            }
        }
    }

    /// Gives an entry another time to live. Returns whether the key had a value that would have been served.
    pub fn touch(&self, key: &Key<'_>, expires: u32) -> bool {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard
            .find(key)
            .filter(|(entry, header)| !guard.poisoned() && self.is_valid_in(&key.scope, entry, header, now));
        if let Some((entry, _)) = &found {
            entry.set_expires(expires);
        }
        found.is_some()
    }

    /// Adds to a counter in one step, and returns its new value. If the key is absent, stores a counter as `new` describes it, with
    /// the value `by`.
    pub fn incr(&self, key: &Key<'_>, by: i64, new: &NewValue<'_>) -> Result<i64, IncrError> {
        self.incr_with(key, by, new, |value| self.reserve(key, value))
    }

    pub(crate) fn incr_with(
        &self,
        key: &Key<'_>,
        by: i64,
        new: &NewValue<'_>,
        reserve: impl Fn(&NewValue<'_>) -> Result<Reservation, Refusal>,
    ) -> Result<i64, IncrError> {
        loop {
            if let Some(outcome) = self.add(key, by) {
                return outcome;
            }
            let value = NewValue { bytes: &by.to_ne_bytes(), kind: Kind::COUNTER, ..*new };
            let reservation = reserve(&value).map_err(IncrError::Refused)?;
            // An announced change of the key does not stop this: when it is confirmed, it replaces the counter. Waiting for it
            // could take long.
            let stored = self.publish_if(key, reservation, |guard, valid| {
                if !valid {
                    guard.flights().void(key.hash);
                }
                !valid
            });
            match stored {
                Stored::New | Stored::Replaced => return Ok(by),
                Stored::Dropped if self.shard_of(key).poisoned() => {
                    return Err(IncrError::Refused(Refusal::Off));
                }
                // Another session has stored a counter first: add to that one.
                Stored::Dropped => {}
            }
        }
    }

    /// Adds to a counter in one step, and returns its new value. Returns None if the key is absent.
    pub fn add(&self, key: &Key<'_>, by: i64) -> Option<Result<i64, IncrError>> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        let (entry, header) = guard.find(key).filter(|(entry, header)| {
            !guard.poisoned() && self.is_valid_in(&key.scope, entry, header, now)
        })?;
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

    /// Turns a value into a counter with this number. Its time to live, stamp, dependencies and [`Lingering`] time stay. Returns
    /// false and changes nothing if the key does not hold this value any more.
    pub fn to_counter(
        &self,
        key: &Key<'_>,
        value: (Kind, &[u8]),
        number: i64,
        reserve: impl FnOnce(&NewValue<'_>, Option<Lingering>) -> Result<Reservation, Refusal>,
    ) -> Result<bool, Refusal> {
        let mut dependencies = [FenceId(0); DEPENDENCIES_MAX];
        let guard = self.shard_of(key).lock(&self.host);
        let found = guard.find(key).filter(|(entry, header)| {
            !guard.poisoned()
                && self.is_valid_in(&key.scope, entry, header, self.host.now())
                && self.holds_value(entry, header, value)
        });
        let Some((entry, old)) = found else { return Ok(false) };
        let lingering = entry.lingering(&self.layout, &old);
        let dependencies = &mut dependencies[..old.dependencies()];
        for (place, fence) in dependencies.iter_mut().enumerate() {
            *fence = entry.dependency(&self.layout, &old, place);
        }
        drop(guard);
        let new = NewValue {
            bytes: &number.to_ne_bytes(),
            kind: Kind::COUNTER,
            stamp: old.stamp(),
            expires: old.expires(),
            cost: old.meta().cost,
            dependencies,
        };
        let reservation = reserve(&new, lingering)?;
        // Comparing the places of the two entries would not be enough, because another entry may lie in the same place by now.
        let is_same = |(entry, header): (Entry<'_>, Header)| {
            let same_dependency =
                |place| entry.dependency(&self.layout, &header, place) == dependencies[place];
            header.stamp() == old.stamp()
                && header.expires() == old.expires()
                && header.dependencies() == old.dependencies()
                && (0..header.dependencies()).all(same_dependency)
                && self.holds_value(&entry, &header, value)
        };
        let stored =
            self.publish_if(key, reservation, |guard, valid| valid && guard.find(key).is_some_and(is_same));
        Ok(stored != Stored::Dropped)
    }

    /// Returns whether an entry holds exactly this value. The caller must hold the lock of the entry's shard.
    fn holds_value(&self, entry: &Entry<'_>, header: &Header, (kind, bytes): (Kind, &[u8])) -> bool {
        let mut copy = [0; 64];
        let mut at = header.value_at();
        header.kind() == kind
            && header.meta().value_len == bytes.len()
            && bytes.chunks(copy.len()).all(|part| {
                let copy = &mut copy[..part.len()];
                entry.copy(&self.layout, header, at, copy);
                at += part.len();
                copy == part
            })
    }

    /// Looks through the next `budget` buckets and removes entries that will never be served again. Returns how many entries it
    /// removed.
    pub fn sweep(&self, budget: u32) -> u64 {
        let mut judge = Judge::new(self);
        let mut removed = 0;
        let mut left = budget;
        while left > 0 {
            let shard = Shard::new(self.region, &self.layout, self.layout.next_swept(&self.region));
            let guard = shard.lock(&self.host);
            let mut unlinked = Unlinked::default();
            let from = guard.swept().min(guard.buckets());
            let until = guard.buckets().min(from.saturating_add(left.min(BUCKETS_PER_HOLD)));
            let mut at = from;
            while at < until && !guard.poisoned() && !unlinked.is_full() {
                for entry in guard.in_bucket(at) {
                    let header = entry.header();
                    if !header.has(LINKED) {
                        // The chain is damaged and perhaps a cycle. Following it would unlink the same entries again.
                        break;
                    }
                    if !header.has(HIDDEN)
                        && let Some(reason) = judge.is_useless(&entry, &header)
                        && !unlinked.is_full()
                    {
                        self.drop_entry(&guard, &entry, &header, reason, &mut unlinked);
                        removed += 1;
                    }
                }
                at += 1;
            }
            let done = at >= guard.buckets() || guard.poisoned();
            guard.set_swept(if done { 0 } else { at });
            drop(guard);
            self.release_all(&mut unlinked);
            left -= (at - from).clamp(1, left);
            if done {
                self.layout.sweep_next(&self.region);
            }
        }
        removed
    }

    /// Returns the entries of a bucket, and `None` behind the last bucket of the last shard. It copies the keys, so it is meant for
    /// inspection and not for hot paths. Returns an error if there is no memory for the copies.
    pub fn inspect(&self, bucket: u64) -> Result<Option<Vec<Inspected>>, TryReserveError> {
        let now = self.host.now();
        let shard = u32::try_from(bucket / u64::from(self.layout.buckets)).ok();
        let Some(shard) = shard.filter(|n| *n < self.layout.shards) else { return Ok(None) };
        let mut found = Vec::new();
        let guard = Shard::new(self.region, &self.layout, shard).lock(&self.host);
        if guard.poisoned() {
            return Ok(Some(found));
        }
        for entry in guard.in_bucket((bucket % u64::from(self.layout.buckets)) as u32) {
            let header = entry.header();
            if header.has(HIDDEN) {
                continue;
            }
            let mut key = Vec::new();
            key.try_reserve_exact(header.key_len())?;
            key.resize(header.key_len(), 0);
            entry.copy(&self.layout, &header, header.key_at(), &mut key);
            found.try_reserve(1)?;
            found.push(Inspected {
                database: header.database(),
                space: header.space(),
                role: header.role(),
                key,
                meta: header.meta(),
                valid: self.is_valid(&entry, &header, now),
            });
        }
        Ok(Some(found))
    }

    /// Returns how full the tier is.
    pub fn usage(&self) -> Usage {
        let now = self.host.now();
        let mut usage = Usage {
            block_bytes: self.layout.blocks_total() * BLOCK_BYTES as u64,
            fence_bytes: (self.layout.counters_at - self.layout.reserved_at) as u64 * 8,
            flight_bytes: (self.layout.buckets_at - self.layout.flights_at) as u64
                * 8
                * u64::from(self.layout.shards),
            statistics_bytes: Layout::statistics_words(&self.layout.sizes) as u64 * 8,
            shards: self.layout.shards,
            ..Usage::default()
        };
        for number in 0..self.layout.shards {
            let guard = Shard::new(self.region, &self.layout, number).lock(&self.host);
            usage.entries = usage.entries.wrapping_add(guard.entries());
            let is_claim = |flight: &InFlight| flight.purpose == Purpose::Claim;
            usage.flights += guard.flights().all(now).count() as u64;
            usage.claims += guard.flights().all(now).filter(is_claim).count() as u64;
            usage.announced = usage.announced.wrapping_add(guard.hidden());
            usage.used_bytes +=
                u64::from(self.layout.blocks.saturating_sub(guard.free_blocks())) * BLOCK_BYTES as u64;
            usage.shards_off += u32::from(guard.poisoned());
        }
        usage
    }

    /// Verifies every structure and returns a description of each error that it finds, or an error if there is no memory for the
    /// check.
    pub fn try_check(&self) -> Result<Vec<String>, TryReserveError> {
        crate::tier::check::check(self)
    }

    /// Does the same as [`try_check`](Self::try_check), and panics if there is no memory.
    #[cfg(any(test, feature = "testing"))]
    pub fn check(&self) -> Vec<String> {
        self.try_check().expect("there is memory to check with")
    }

    pub(crate) fn shard_of(&self, key: &Key<'_>) -> Shard<'_> {
        Shard::of_hash(self.region, &self.layout, key.hash)
    }

    pub(crate) fn drop_entry<'t>(
        &'t self,
        guard: &Guard<'t, H>,
        entry: &Entry<'t>,
        header: &Header,
        reason: Counter,
        unlinked: &mut Unlinked,
    ) {
        guard.change(|| guard.unlink(entry, header));
        self.note_gone(&mut unlinked.tally, header.place(), reason, 1);
        self.note_killed(&mut unlinked.tally, entry, header);
        self.give_back(guard, entry, header, unlinked);
    }
}

/// Decides for one entry after another whether it can ever be served again. It keeps the scope of the last entry, because the next
/// entry probably has the same one.
pub(crate) struct Judge<'t, 'm, H> {
    tier: &'t Tier<'m, H>,
    now: u32,
    scope: Option<Scope>,
}

impl<'t, 'm, H: Host> Judge<'t, 'm, H> {
    pub(crate) fn new(tier: &'t Tier<'m, H>) -> Self {
        Self { tier, now: tier.host.now(), scope: None }
    }

    /// Returns why an entry will never be served again, or None if it still may be.
    pub(crate) fn is_useless(&mut self, entry: &Entry<'_>, header: &Header) -> Option<Counter> {
        let expired = header.expires() <= self.now;
        if expired && !header.has(LINGERS) {
            return Some(Counter::Expired);
        }
        let tier = self.tier;
        let fences = tier.fences();
        let scope = match self.scope {
            Some(scope) if scope.place() == header.place() => scope,
            _ => *self.scope.insert(tier.scope_of(header.database(), header.space(), header.role())),
        };
        let passed = |fence| fences.passed(fence, header.stamp());
        if scope.fences.into_iter().any(passed) {
            return Some(Counter::Fenced);
        }
        let fenced =
            (0..header.dependencies()).any(|place| passed(entry.dependency(&tier.layout, header, place)));
        match (expired, fenced) {
            (false, false) => None,
            _ if self.lingers(entry, header, fenced) => None,
            (true, _) => Some(Counter::Expired),
            (false, true) => Some(Counter::Fenced),
        }
    }

    /// Whether an entry that is no longer right may still be served stale.
    fn lingers(&self, entry: &Entry<'_>, header: &Header, fenced: bool) -> bool {
        header.has(LINGERS) && self.tier.lingers_until(entry, header, fenced) > self.now
    }
}

/// The number of buckets that a sweep, or the hand of a space, looks through in one hold of the lock.
pub(crate) const BUCKETS_PER_HOLD: u32 = 64;
