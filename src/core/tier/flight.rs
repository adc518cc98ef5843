//! Flights: which session computes the value of which key, and which transaction has claimed a key. `acquiring.rs` begins and ends
//! flights, `publishing.rs` publishes values under them, and each change of a key voids the flight of the key.
//!
//! Each flight takes a *slot* in the *shard* of its key; a shard is a part of the tier, the cache, with a lock of its own. A
//! *space* is a set of keys in one database. A *tick* is the unit of time, which the host of the tier chooses.
//!
//! A flight is the right to publish a value for a key. A lease or a fill begins before its value is computed, and the value is
//! published with the *stamp* from the beginning of the flight: the number of the last committed change at that time. A change of
//! the key's value *voids* the flight, so a value that was computed before a change is never published after it. A key has at most
//! one flight. So the next caller learns that another session is already computing the value. A flight has one of three
//! [purposes](Purpose):
//!
//! - A *lease* belongs to a caller that computes the value outside of the cache, until the lease's deadline.
//! - A *fill* belongs to a session that runs a query and stores its result. A fill has priority over leases: it replaces the lease
//!   of its own key. When no slot is free, it also takes the slot of another key's lease, namely the lease with the earliest
//!   deadline. A lease that lost its slot has ended: its value will be refused.
//! - A *claim* belongs to a transaction that sets a key which has no value. No other session can claim the key until that
//!   transaction ends. A claim has no deadline, because every transaction ends its claims. A claim has priority over the lease or
//!   the fill of its own key: it replaces that flight, so the value which that flight computes is refused.
//!
//! # Waiting for a fill
//!
//! Sessions that miss the same result wait for the fill that computes it, and take its result. Three marks of a slot serve them:
//!
//! - A session that is about to wait marks the fill as *awaited*. The result of an awaited fill is published even if a dependency
//!   has changed meanwhile: a session that began to wait before the fill began may still take it (see [`Reader::arrived`]).
//! - A fill that ends without a value leaves its number of *failures* in the slot. The next fill of the key inherits the number. No
//!   session waits for a fill with [`FAILURES_MAX`] failures, so the callers of a query that always fails do not wait in line.
//! - No session waits for a *lone* fill, because its session may hold locks that the waiting session needs.
//!
//! After its fill has ended, a slot keeps the first two marks for [`KEPT_TICKS`], or until another key takes the slot. Such a slot
//! counts as free. The mark *awaited* must last until the next fill of the key with a value has ended: a session that was woken may
//! look so late that the next fill has begun and ended before its look.
//!
//! [`Reader::arrived`]: crate::Reader::arrived
//!
//! # Slots and shares
//!
//! The slots of a shard are divided into sets. The hash of a key selects a set, and the flight may take any slot of that set. No
//! set depends on another set, so the rules below hold in each set, for any choice of keys:
//!
//! - One slot in eight is reserved for fills. A fill may also take the slot of a lease, so leases never keep a fill from a slot.
//!   Claims do not get the reserved slots.
//! - The flights of one space, and those of one role, may take about [`SHARE_PER_FREE_SLOT`] times as many slots as are free.
//!   Leases and claims are counted together, and fills are counted separately. So a space or a role that takes many slots is
//!   refused first, and other spaces and roles still find a slot.
//!
//! A lease or a fill is *over* when its deadline has passed, or when its space or database was flushed after its stamp was drawn.
//! Its slot is then free. Until another flight takes the slot, or the key is changed, a flight that is over may still publish its
//! value: the stamp, not the deadline, keeps the value right. If no slot is free, the caller of a lease or fill computes the value
//! without publishing it, and a claim is refused.
//!
//! ```text
//! hashes    a word for each slot: the hash of the key, 0 if the slot is empty
//! records   for each slot:
//!   word 0  ID of the flight : 32 | role : 32
//!   word 1  deadline in ticks : 32 | session : 32
//!   word 2  void : 1 | claim : 1 | fill : 1 | awaited : 1 | awaited before : 1 | lone : 1 | failures : 2 | free : 10 | stamp : 46
//!   word 3  fence of the database : 32 | fence of the space : 32
//!   word 4  the time of acquisition, on the clock of the host
//!           of a fill instead: how many sessions have given up waiting : 8 | when the last one gave up, in milliseconds : 56
//! ```
//!
//! Access: flights must only be read and written under the shard's lock. A key is identified by the 64 bits of its hash. Two keys
//! with the same hash are never in flight at the same time, and a change of one key voids the flight of the other. Such a collision
//! costs one publication but never causes a wrong value.
//!
//! The models in `tests/protocol/flights/` and `tests/protocol/keys/` copy the rules of this file, and must be changed with them.
//! Another meaning of a word needs another version of the layout (`VERSION` in `layout.rs`).

use crate::fence::{FenceId, Fences, Stamp};
use crate::key::Key;
use crate::layout::{FLIGHT_WORDS, Layout, SLOTS_OF_SET};
use crate::region::Region;

// The marks in word 2 of a record. A record without the marks of a claim and a fill is that of a lease.
const VOID: u64 = 1 << 63;
const CLAIM: u64 = 1 << 62;
const FILL: u64 = 1 << 61;
/// A session waits for the fill.
const AWAITED: u64 = 1 << 60;
/// A session waited for the previous fill of the key, and may wait for this one or be about to look for its value.
const AWAITED_BEFORE: u64 = 1 << 59;
/// No session may wait for the fill.
const LONE: u64 = 1 << 58;
/// The position of the two bits that count failures.
const FAILURES_AT: u32 = 56;
/// The mask of the two bits that count failures.
const FAILURES: u64 = 3 << FAILURES_AT;

/// The position of the bits that count how many sessions have given up waiting for a fill.
const GIVEN_UP_AT: u32 = 56;
/// The largest such count. Each one doubles the time that the other sessions still wait, so 16 multiply it by 65 536.
const GIVEN_UP_MAX: u64 = 16;

/// After this many fills in a row that ended without a value, no session waits for the next one: the query would probably fail
/// again. One failure may have another reason, for instance that the session was cancelled.
pub const FAILURES_MAX: u8 = 2;
/// The number of ticks for which a slot keeps the marks of a fill that has ended: ten seconds, if a tick is a twentieth of a
/// second.
const KEPT_TICKS: u32 = 200;

/// A space or a role may hold this many times as many slots as are free for its purpose. With 4, and no other flights in the set,
/// it may hold four fifths of these slots.
const SHARE_PER_FREE_SLOT: u32 = 4;
/// One slot in this many is reserved for fills.
const ONE_RESERVED_IN: u32 = 8;

/// The words of a record: the words of a slot without the word for the hash.
const RECORD_WORDS: usize = FLIGHT_WORDS - 1;

/// The right to publish a value that is being computed. The type serves for leases, fills and claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The ID of the lease, in 32 bits. IDs repeat after millions of leases: see `Guard::next_lease`.
    pub id: u64,
    /// The stamp from the time at which the lease was acquired, or the caller's safe stamp if that is older. The value must be
    /// stored with this stamp.
    pub stamp: Stamp,
    /// The time on the [host's clock](crate::Host::moment) at which the lease was acquired. The stamp is never drawn after this
    /// time.
    pub acquired: u64,
}

/// The owner of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session that owns the flight: a number that the caller chooses. 0 stands for no session. A fill must have a session.
    pub session: u32,
    /// The role whose share of the slots the flight counts against.
    pub role: u32,
}

/// The purpose of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A caller computes a value and will publish it later.
    Lease,
    /// A session runs a query and will store its result at once.
    Fill,
    /// A transaction has claimed a key without a value and will set it.
    Claim,
}

/// The reason why a flight cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The space has used up its share of the slots.
    Space,
    /// The role has used up its share of the slots.
    Role,
    /// No slot of the key's set is free for this purpose.
    All,
    /// The shard is switched off.
    Off,
}

/// A flight: a session computes the value of a key or has claimed the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The ID of the lease, the fill or the claim.
    pub id: u64,
    /// The session that owns the flight, or 0 if no session owns it.
    pub owner: u32,
    /// The tick at which the flight ends by itself. For a claim it is the largest possible tick, because a claim ends with its
    /// transaction.
    pub deadline: u32,
    /// The purpose of the flight.
    pub purpose: Purpose,
    /// Whether other sessions may wait for the value: true for a fill, unless it is lone or its query has failed before.
    pub may_be_awaited: bool,
    /// Whether the flight is a lone fill.
    pub is_lone: bool,
}

/// The result of [`Flights::end`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The key has no flight with this ID.
    Missing,
    /// The flight was void.
    Void,
    /// The flight was valid until now.
    Valid,
}

/// The slots of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Flights<'m> {
    region: Region<'m>,
    layout: &'m Layout,
    /// The position of the hashes of the slots.
    at: usize,
    /// The number of slots of the shard.
    slots: u32,
    /// The position of the word in the shard's control block that counts the taken slots. If the count is 0, no search is needed.
    taken_at: usize,
}

impl<'m> Flights<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &'m Layout, shard: u32, taken_at: usize) -> Self {
        let at = layout.shard_at(shard) + layout.flights_at;
        Self { region, layout, at, slots: layout.flights, taken_at }
    }

    fn slot(&self, index: u32) -> Slot<'m> {
        let index = index as usize;
        let record_at = self.at + self.slots as usize + index * RECORD_WORDS;
        Slot { region: self.region, hash_at: self.at + index, record_at }
    }

    /// Returns the slots that are taken.
    fn taken(&self) -> impl Iterator<Item = Slot<'m>> + use<'m> {
        let all = *self;
        let slots = if self.count() == 0 { 0 } else { self.slots };
        (0..slots).map(move |index| all.slot(index)).filter(|slot| slot.hash() != 0)
    }

    /// Returns the number of slots in a set. Small shards have one set.
    fn set_size(&self) -> u32 {
        self.slots.min(SLOTS_OF_SET)
    }

    /// Returns the number of the set that a key belongs to.
    fn set_of(&self, hash: u64) -> u32 {
        // The lower half of the hash chooses the shard, and the highest bits of the upper half choose the bucket. The lowest bits
        // of the upper half, which choose the set, are independent of both.
        (hash >> 32) as u32 % (self.slots / self.set_size())
    }

    /// Returns the slots that a key may be in.
    fn set(&self, hash: u64) -> impl Iterator<Item = Slot<'m>> + use<'m> {
        let (all, size) = (*self, self.set_size());
        let first = self.set_of(hash) * size;
        (first..first + size).map(move |index| all.slot(index))
    }

    /// Returns the slot with the flight of a key, even if the flight is over.
    fn slot_of_key(&self, hash: u64) -> Option<Slot<'m>> {
        if self.count() == 0 { None } else { self.set(hash).find(|slot| slot.hash() == hash) }
    }

    /// Returns whether a lease or a fill has ended by itself: its deadline has passed, or its space or database was flushed. A
    /// claim never ends by itself.
    fn is_over(&self, slot: &Slot<'_>, now: u32) -> bool {
        let fences = Fences::new(self.region, self.layout);
        let flushed = || slot.fences().into_iter().any(|fence| fences.has_changed_since(fence, slot.stamp()));
        slot.purpose() != Purpose::Claim && (slot.deadline() <= now || slot.has_ended() || flushed())
    }

    /// Returns the slot of a key's flight by the ID of the flight.
    fn slot_of(&self, hash: u64, id: u64) -> Option<Slot<'m>> {
        self.slot_of_key(hash).filter(|slot| slot.id() == id && !slot.has_ended())
    }

    /// Returns the flight of a key, if it is not over. Its session is the *leader*: other sessions give way to it or wait for it.
    /// The flight may be void.
    pub(crate) fn leader(&self, hash: u64, now: u32) -> Option<InFlight> {
        self.slot_of_key(hash).filter(|slot| !self.is_over(slot, now)).map(|slot| slot.in_flight())
    }

    /// Begins a flight. If the key already has a flight, the new flight replaces it; the caller must have checked that this is
    /// allowed. `deadline` must be the largest tick for a claim. After an error nothing has changed.
    pub(crate) fn begin(
        &self,
        key: &Key<'_>,
        purpose: Purpose,
        lease: &Lease,
        owner: Owner,
        deadline: u32,
        now: u32,
    ) -> Result<(), Limit> {
        let hash = key.hash;
        let fills = purpose == Purpose::Fill;
        // The slot of the key's own flight counts as free, because the new flight replaces that flight.
        let is_free = |slot: &Slot<'_>| [0, hash].contains(&slot.hash()) || self.is_over(slot, now);
        let can_be_taken = |slot: &Slot<'_>| is_free(slot) || fills && slot.purpose() == Purpose::Lease;
        let reserved = if fills { 0 } else { self.set_size() / ONE_RESERVED_IN };
        let free_slots = (self.set(hash).filter(can_be_taken).count() as u32).saturating_sub(reserved);
        if free_slots == 0 {
            return Err(Limit::All);
        }
        // The flights that count against the shares of the space and of the role.
        let competing =
            || self.set(hash).filter(|slot| !is_free(slot) && (slot.purpose() == Purpose::Fill) == fills);
        if competing().filter(|slot| slot.fences() == key.scope.fences).count() as u32
            >= free_slots * SHARE_PER_FREE_SLOT
        {
            return Err(Limit::Space);
        }
        if competing().filter(|slot| slot.role() == owner.role).count() as u32
            >= free_slots * SHARE_PER_FREE_SLOT
        {
            return Err(Limit::Role);
        }
        let slot = self
            .slot_of_key(hash)
            .or_else(|| self.set(hash).find(|slot| slot.hash() == 0))
            .or_else(|| self.set(hash).find(is_free))
            .or_else(|| self.set(hash).filter(can_be_taken).min_by_key(Slot::deadline));
        let Some(slot) = slot else { return Err(Limit::All) };
        if slot.hash() == 0 {
            self.set_count(self.count().wrapping_add(1));
        }
        let [of_database, of_space] = key.scope.fences;
        let mark = match purpose {
            Purpose::Lease => 0,
            Purpose::Fill => FILL | self.inherited(&slot, hash, now),
            Purpose::Claim => CLAIM,
        };
        self.region.store(slot.hash_at, hash);
        slot.set(0, lease.id << 32 | u64::from(owner.role));
        slot.set(1, u64::from(deadline) << 32 | u64::from(owner.session));
        slot.set(2, mark | lease.stamp.as_u64());
        slot.set(3, u64::from(of_database.0) << 32 | u64::from(of_space.0));
        slot.set(4, if fills { 0 } else { lease.acquired });
        Ok(())
    }

    /// Returns the marks that a new fill inherits from the previous fill of its key in the slot.
    fn inherited(&self, slot: &Slot<'_>, hash: u64, now: u32) -> u64 {
        let is_kept = slot.hash() == hash && slot.purpose() == Purpose::Fill && slot.deadline() > now;
        let awaited = if slot.is(AWAITED | AWAITED_BEFORE) { AWAITED_BEFORE } else { 0 };
        if is_kept { slot.get(2) & FAILURES | awaited } else { 0 }
    }

    /// Marks the fill of a key as lone: no session may wait for it.
    pub(crate) fn set_lone(&self, hash: u64) {
        if let Some(slot) = self.slot_of_key(hash) {
            slot.set(2, slot.get(2) | LONE);
        }
    }

    /// Marks the flight of a key as awaited.
    pub(crate) fn set_awaited(&self, hash: u64) {
        if let Some(slot) = self.slot_of_key(hash) {
            slot.set(2, slot.get(2) | AWAITED);
        }
    }

    /// Returns whether a session waits for the fill with this ID, or may be about to.
    pub(crate) fn is_awaited(&self, hash: u64, id: u64) -> bool {
        self.slot_of(hash, id).is_some_and(|slot| slot.is(AWAITED | AWAITED_BEFORE))
    }

    /// Notes that a session gives up waiting for a fill at the time `now_ms`, and returns 0. But if another session has given up
    /// lately, returns the number of milliseconds that this session must still wait. Each session that gives up doubles the
    /// `patience_ms` of the others.
    pub(crate) fn give_up(&self, hash: u64, id: u64, now_ms: u64, patience_ms: u64) -> u64 {
        let Some(slot) = self.slot_of(hash, id) else { return 0 };
        let (count, last_ms) = (slot.get(4) >> GIVEN_UP_AT, slot.get(4) & ((1 << GIVEN_UP_AT) - 1));
        let patience_ms = patience_ms.saturating_mul(1 << count.min(GIVEN_UP_MAX));
        let left_ms = last_ms.saturating_add(patience_ms).saturating_sub(now_ms);
        if count > 0 && left_ms > 0 {
            return left_ms;
        }
        slot.set(4, (count + 1).min(GIVEN_UP_MAX) << GIVEN_UP_AT | now_ms);
        0
    }

    /// Ends the flight of a key with a value, if it has this ID. If the result is not `Valid`, the value must not be published.
    pub(crate) fn end(&self, hash: u64, id: u64, now: u32) -> Ended {
        let Some(slot) = self.slot_of(hash, id) else { return Ended::Missing };
        let ended = if slot.is(VOID) { Ended::Void } else { Ended::Valid };
        let failures = match ended {
            Ended::Valid => {
                // The sessions that waited for the previous fill can take the value of this one.
                slot.set(2, slot.get(2) & !AWAITED_BEFORE);
                0
            }
            _ => slot.failures().saturating_add(1).min(FAILURES_MAX),
        };
        self.end_slot(&slot, failures, now);
        ended
    }

    /// Ends the flight of a key without a value, if it has this ID. Returns whether the flight existed. A fill counts this number
    /// of failures, unless it is lone: then its session may be the reason of the failure.
    pub(crate) fn fail(&self, hash: u64, id: u64, failures: u8, now: u32) -> bool {
        let Some(slot) = self.slot_of(hash, id) else { return false };
        let known = slot.failures();
        let counted = if slot.is(LONE) { known } else { known.saturating_add(failures).min(FAILURES_MAX) };
        self.end_slot(&slot, counted, now);
        true
    }

    /// Ends the flight of a slot. If a fill has failures or is marked as awaited, these marks stay in the slot for the next fill of
    /// the key.
    fn end_slot(&self, slot: &Slot<'_>, failures: u8, now: u32) {
        if slot.purpose() != Purpose::Fill || failures == 0 && !slot.is(AWAITED | AWAITED_BEFORE) {
            return self.clear(slot);
        }
        slot.set(0, 0);
        slot.set(1, u64::from(now.saturating_add(KEPT_TICKS)) << 32);
        let cleared = slot.get(2) & !(FAILURES | LONE | VOID);
        slot.set(2, cleared | u64::from(failures) << FAILURES_AT);
    }

    /// Returns a lease by its ID, if it may still publish its value. Its deadline may have passed. None for a claim and for a fill,
    /// whose slot does not keep the time of acquisition.
    pub(crate) fn lease(&self, hash: u64, id: u64) -> Option<Lease> {
        let slot = self.publishable(hash, id).filter(|slot| slot.purpose() == Purpose::Lease)?;
        Some(Lease { id, stamp: slot.stamp(), acquired: slot.get(4) })
    }

    /// Returns whether the key has a fill with this ID that may still publish its value. Its deadline may have passed.
    pub(crate) fn has_fill(&self, hash: u64, id: u64) -> bool {
        self.publishable(hash, id).is_some_and(|slot| slot.purpose() == Purpose::Fill)
    }

    /// Returns the slot of a flight by the ID of the flight, if the flight is not void.
    fn publishable(&self, hash: u64, id: u64) -> Option<Slot<'m>> {
        self.slot_of(hash, id).filter(|slot| !slot.is(VOID))
    }

    /// Voids the flight of a key that is being changed: its result will not be published. The flight keeps its slot, so that no
    /// other session starts the same computation meanwhile.
    pub(crate) fn void(&self, hash: u64) {
        if let Some(slot) = self.slot_of_key(hash) {
            slot.set(2, slot.get(2) | VOID);
        }
    }

    /// Ends all flights of a session, which must not be 0. Returns their number.
    pub(crate) fn end_all_of(&self, session: u32, now: u32) -> u32 {
        let mut ended = 0;
        for slot in self.taken().filter(|slot| slot.session() == session) {
            self.end_slot(&slot, slot.failures(), now);
            ended += 1;
        }
        ended
    }

    /// Ends all flights.
    pub(crate) fn end_all(&self) {
        (0..self.slots).for_each(|index| self.region.store(self.slot(index).hash_at, 0));
        self.set_count(0);
    }

    /// Removes the session from its leases, so that they outlive the session. A caller that knows the ID of a lease can still use
    /// it.
    pub(crate) fn disown(&self, session: u32) {
        let is_lease = |slot: &Slot<'_>| slot.purpose() == Purpose::Lease;
        for slot in self.taken().filter(|slot| slot.session() == session && is_lease(slot)) {
            slot.set(1, slot.get(1) >> 32 << 32);
        }
    }

    /// Returns the number of taken slots, including the slots of flights that are over.
    pub(crate) fn count(&self) -> u64 {
        self.region.load(self.taken_at)
    }

    fn set_count(&self, count: u64) {
        self.region.store(self.taken_at, count);
    }

    /// Returns all flights that are not over.
    pub(crate) fn all(&self, now: u32) -> impl Iterator<Item = InFlight> + use<'m> {
        let all = *self;
        self.taken().filter(move |slot| !all.is_over(slot, now)).map(|slot| slot.in_flight())
    }

    /// Returns descriptions of the errors in the slots, at most about `most`.
    pub(crate) fn complaints(&self, most: usize) -> Vec<String> {
        let mut complaints = Vec::new();
        let hashes = || (0..self.slots).map(|index| (index, self.slot(index).hash()));
        let taken = hashes().filter(|(_, hash)| *hash != 0).count() as u64;
        if taken != self.count() {
            complaints.push(format!("{taken} keys are in flight, {} are counted", self.count()));
        }
        for (index, hash) in hashes().filter(|(_, hash)| *hash != 0) {
            if complaints.len() >= most {
                return complaints;
            }
            if self.set_of(hash) != index / self.set_size() {
                complaints.push(format!("the flight in slot {index} is in the wrong set"));
            } else if hashes().any(|(other, same)| same == hash && other < index) {
                complaints
                    .push(format!("the key of the flight in slot {index} also has a flight in another slot"));
            }
        }
        for first in (0..self.slots).step_by(self.set_size() as usize) {
            let slots = (first..first + self.set_size()).map(|index| self.slot(index));
            let claims = slots.filter(|slot| slot.hash() != 0 && slot.is(CLAIM)).count() as u32;
            if claims > self.set_size() - self.set_size() / ONE_RESERVED_IN {
                complaints.push(format!("{claims} claims are in the set of slot {first}"));
            }
        }
        complaints
    }

    /// Makes a taken slot free.
    fn clear(&self, slot: &Slot<'_>) {
        self.region.store(slot.hash_at, 0);
        // A damaged count may be 0 already.
        self.set_count(self.count().saturating_sub(1));
    }
}

/// A slot of a shard.
struct Slot<'m> {
    /// The shared memory.
    region: Region<'m>,
    /// The position of the hash.
    hash_at: usize,
    /// The position of the record.
    record_at: usize,
}

impl Slot<'_> {
    fn hash(&self) -> u64 {
        self.region.load(self.hash_at)
    }
    fn get(&self, word: usize) -> u64 {
        self.region.load(self.record_at + word)
    }
    fn set(&self, word: usize, value: u64) {
        self.region.store(self.record_at + word, value);
    }
    fn id(&self) -> u64 {
        self.get(0) >> 32
    }
    fn role(&self) -> u32 {
        self.get(0) as u32
    }
    fn deadline(&self) -> u32 {
        (self.get(1) >> 32) as u32
    }
    fn session(&self) -> u32 {
        self.get(1) as u32
    }
    fn is(&self, mark: u64) -> bool {
        self.get(2) & mark != 0
    }
    fn purpose(&self) -> Purpose {
        match self.get(2) & (CLAIM | FILL) {
            0 => Purpose::Lease,
            FILL => Purpose::Fill,
            _ => Purpose::Claim,
        }
    }
    /// Whether the slot keeps only the marks of a fill that has ended. Such a slot has session 0, which no fill under way has.
    fn has_ended(&self) -> bool {
        self.purpose() == Purpose::Fill && self.session() == 0
    }
    fn failures(&self) -> u8 {
        ((self.get(2) & FAILURES) >> FAILURES_AT) as u8
    }
    fn stamp(&self) -> Stamp {
        Stamp::from_u64(self.get(2))
    }
    fn fences(&self) -> [FenceId; 2] {
        [FenceId((self.get(3) >> 32) as u32), FenceId(self.get(3) as u32)]
    }
    /// Returns the properties of the flight in this slot.
    fn in_flight(&self) -> InFlight {
        InFlight {
            id: self.id(),
            owner: self.session(),
            deadline: self.deadline(),
            purpose: self.purpose(),
            is_lone: self.is(LONE),
            may_be_awaited: self.purpose() == Purpose::Fill
                && !self.is(LONE)
                && self.failures() < FAILURES_MAX,
        }
    }
}
