//! Begins and ends *flights*, the rights to publish a value for a key: a *lease* (a caller computes the value), a *fill* (a session
//! runs a query and stores its result), or a *claim* (a transaction sets a key that has no value). `flight.rs` has their rules.
//! `store/flights.rs`, `store/lease.rs` and `query/` of the extension call the functions here. They take the lock of the key's
//! shard, and those that look at all flights take the lock of one shard after the other. The caller must not hold a lock.
//!
//! A flight takes a *slot* of the shard, the part of the tier that the key belongs to. It is *void* once the key has changed: its
//! value will be refused. A *stamp* is a number of the clock of changes, which each committed change increments. A reader with a
//! *safe stamp* may not see changes after that stamp. A *tick* is the unit of time, which the host of the tier chooses. A
//! *location* says where the copy of a value is saved (`tier/directory.rs`); to *promote* a saved value is to make it an entry
//! again.

use super::Tier;

use super::entry::Entry;
use super::flight::{InFlight, Lease, Limit, Owner, Purpose};
use super::guard::Guard;
use super::header::Header;
use crate::fence::Stamp;
use crate::host::Host;
use crate::key::Key;
use crate::location::Location;
use crate::reader::Reader;
use std::collections::TryReserveError;

/// A request for a flight: see [`Tier::acquire`].
#[derive(Clone, Copy, Debug)]
pub struct FlightRequest<'r> {
    /// A lease or a fill.
    purpose: Purpose,
    /// The session and the role.
    owner: Owner,
    /// The tick at which the flight ends by itself.
    deadline: u32,
    /// The flight gets this stamp if it is earlier than the present moment.
    safe_stamp: Stamp,
    /// The reader for whom the key must have no value. None if that does not matter.
    reader: Option<Reader<'r>>,
    /// Whether no session may wait for the fill.
    is_lone: bool,
    /// Whether the fill replaces another fill.
    takes_over: bool,
    /// Whether the caller waits for another flight.
    waits: Waits,
}

/// Whether a caller waits for the session that computes the value.
#[derive(Clone, Copy, Debug)]
enum Waits {
    No,
    /// The caller waits. If it waits already, the field is the moment at which it began to wait.
    Since(Option<Stamp>),
}

impl<'r> FlightRequest<'r> {
    /// Requests a lease: the caller computes the value and publishes it later. The lease ends at the tick `deadline`, unless
    /// something ends it before.
    pub fn lease(owner: Owner, deadline: u32) -> Self {
        Self {
            purpose: Purpose::Lease,
            owner,
            deadline,
            safe_stamp: Stamp::LATEST,
            reader: None,
            is_lone: false,
            takes_over: false,
            waits: Waits::No,
        }
    }

    /// Requests a fill: the session computes the value on a new snapshot and publishes it at once. The fill ends at the tick
    /// `deadline`, as a lease does. Its owner must have a session: a fill of session 0 counts as ended.
    pub fn fill(owner: Owner, deadline: u32) -> Self {
        Self { purpose: Purpose::Fill, ..Self::lease(owner, deadline) }
    }

    /// Lets no session wait for the fill, because the session that computes the value may hold locks that others need. A fill that
    /// is not lone replaces a lone one.
    pub fn lone(self) -> Self {
        Self { is_lone: true, ..self }
    }

    /// Lets the fill replace another fill of the key, whose value will then be refused.
    pub fn take_over(self) -> Self {
        Self { takes_over: true, ..self }
    }

    /// Lets the caller wait if another session computes the value and [may be awaited](InFlight::may_be_awaited). The answer is
    /// then [`Acquired::Wait`]. If the caller waits already, `arrived` must be the moment in its previous such answer.
    pub fn or_wait(self, arrived: Option<Stamp>) -> Self {
        Self { waits: Waits::Since(arrived), ..self }
    }

    /// Sets the safe stamp of a caller that computes the value on an older snapshot. If the safe stamp is earlier than the present
    /// moment, the flight gets the safe stamp.
    pub fn as_of(self, safe_stamp: Stamp) -> Self {
        Self { safe_stamp, ..self }
    }

    /// Begins no flight if the key has a value for this reader by now. Otherwise the flight is [as of](Self::as_of) the safe stamp
    /// of the reader.
    pub fn unless_present(self, reader: Reader<'r>) -> Self {
        Self { reader: Some(reader), ..self.as_of(reader.safe_stamp) }
    }
}

/// The answer to a caller that wants to compute a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The caller has the lease or the fill.
    Lead(Lease),
    /// Another flight of this key is under way. Its owner may be the same session.
    Busy(InFlight),
    /// Another flight is under way, and the caller may wait for it. The stamp is the moment at which the caller began to wait, for
    /// [`Reader::arrived`].
    Wait(InFlight, Stamp),
    /// The key has a value by now. Only requests with [`unless_present`](FlightRequest::unless_present) get this answer.
    Present,
    /// The key has no value in memory, but a value may be saved at this location. Only requests with
    /// [`unless_present`](FlightRequest::unless_present) get this answer. The caller must promote the saved value or forget the
    /// location, and ask again.
    Saved(Location),
    /// There is no slot for a flight. The caller may compute the value but cannot publish it.
    NoSlot(Limit),
}

/// The reason why a key cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// The key has a value for this reader.
    Present,
    /// The key has no value in memory, but one may be saved at this location. The caller must promote the saved value or forget the
    /// location, and try again.
    Saved(Location),
    /// A transaction that is about to commit has announced a change of the key.
    Changing,
    /// Another session has claimed the key.
    Claimed,
    /// There is no slot for the claim.
    NoSlot(Limit),
}

impl<H: Host> Tier<'_, H> {
    /// Claims a key that has no value for this reader, and returns the ID of the claim. No other session can claim the key until
    /// the claim ends. Without a reader, the present entry of the key does not matter: the caller knows that it will be removed.
    ///
    /// A session that already has the claim gets its ID again, even if a change of the key has voided the claim. The caller must
    /// end each claim: with [`confirm_claimed`](Self::confirm_claimed), [`publish_leased`](Self::publish_leased) or
    /// [`release_lease`](Self::release_lease).
    pub fn claim(&self, key: &Key<'_>, reader: Option<Reader<'_>>, owner: Owner) -> Result<u64, Unclaimed> {
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() {
            return Err(Unclaimed::NoSlot(Limit::Off));
        }
        if guard.is_changing(key) {
            return Err(Unclaimed::Changing);
        }
        let is_claim = |leader: &InFlight| leader.purpose == Purpose::Claim;
        if let Some(other) = guard.flights().leader(key.hash, now).filter(is_claim) {
            return if other.owner == owner.session { Ok(other.id) } else { Err(Unclaimed::Claimed) };
        }
        if let Some(reader) = reader {
            if self.has_value(&guard, key, reader, now) {
                return Err(Unclaimed::Present);
            }
            if let Some(location) = guard.location(key) {
                return Err(Unclaimed::Saved(location));
            }
        }
        let lease = self.draw_lease(&guard, Stamp::LATEST);
        let begun = guard.flights().begin(key, Purpose::Claim, &lease, owner, u32::MAX, now);
        begun.map(|()| lease.id).map_err(Unclaimed::NoSlot)
    }

    /// Makes the ID, the stamp and the time of a new flight. The stamp is the present moment, or `safe_stamp` if that is earlier.
    fn draw_lease(&self, guard: &Guard<'_, H>, safe_stamp: Stamp) -> Lease {
        // The stamp must be read first. A statement that begins after `acquired` then sees every change that was committed before
        // the stamp.
        let stamp = self.fences().now().min(safe_stamp);
        Lease { id: guard.next_lease(), stamp, acquired: self.host.moment() }
    }

    /// Returns whether the reader would get a value of the key from memory. False while a transaction is about to change the key.
    fn has_value(&self, guard: &Guard<'_, H>, key: &Key<'_>, reader: Reader<'_>, now: u32) -> bool {
        let right = |(entry, header): (Entry<'_>, Header)| {
            self.serve(&entry, &header, &key.scope, reader, now, None::<&mut ()>).is_ok()
        };
        !guard.is_changing(key) && guard.find(key).is_some_and(right)
    }

    /// Asks for a lease or a fill of a key. A fill replaces the lease of the key, a lone fill, and with
    /// [`take_over`](FlightRequest::take_over) any fill. A caller that gets the flight must compute the value on a snapshot that it
    /// takes after this call, or pass the safe stamp of an older one ([`as_of`](FlightRequest::as_of)). It must end the flight with
    /// [`publish_leased`](Self::publish_leased), [`release_lease`](Self::release_lease) or [`fail_fill`](Self::fail_fill).
    /// Otherwise the flight ends by itself at its deadline.
    pub fn acquire(&self, key: &Key<'_>, request: FlightRequest<'_>) -> Acquired {
        let FlightRequest { purpose, owner, deadline, safe_stamp, reader, is_lone, takes_over, waits } =
            request;
        let now = self.host.now();
        let guard = self.shard_of(key).lock(&self.host);
        if guard.poisoned() {
            return Acquired::NoSlot(Limit::Off);
        }
        if let Some(reader) = reader {
            if self.has_value(&guard, key, reader, now) {
                return Acquired::Present;
            }
            if let Some(location) = guard.location(key).filter(|_| !guard.is_changing(key)) {
                return Acquired::Saved(location);
            }
        }
        let goes_before = |leader: &InFlight| {
            let is_weaker = match leader.purpose {
                Purpose::Lease => true,
                Purpose::Fill => takes_over || leader.is_lone && !is_lone,
                Purpose::Claim => false,
            };
            purpose == Purpose::Fill && is_weaker
        };
        if let Some(leader) = guard.flights().leader(key.hash, now).filter(|leader| !goes_before(leader)) {
            return match waits {
                Waits::Since(arrived) if leader.may_be_awaited => {
                    // The mark and the moment must be set under one hold of the lock, so that no fill can begin or end between
                    // them. The next fill then has a stamp that is not before the moment, and knows that a session waits.
                    guard.flights().set_awaited(key.hash);
                    Acquired::Wait(leader, arrived.unwrap_or_else(|| self.fences().draw()))
                }
                _ => Acquired::Busy(leader),
            };
        }
        let lease = self.draw_lease(&guard, safe_stamp);
        match guard.flights().begin(key, purpose, &lease, owner, deadline, now) {
            Ok(()) if is_lone => guard.flights().set_lone(key.hash),
            Ok(()) => {}
            Err(limit) => return Acquired::NoSlot(limit),
        }
        Acquired::Lead(lease)
    }

    /// Returns whether a session waits for the value that this fill computes, or may be about to.
    pub fn is_awaited(&self, key: &Key<'_>, fill: u64) -> bool {
        self.shard_of(key).lock(&self.host).flights().is_awaited(key.hash, fill)
    }

    /// Marks this fill as awaited, because the sessions that waited for another fill will wait for this one.
    pub fn set_awaited(&self, key: &Key<'_>, fill: u64) {
        let guard = self.shard_of(key).lock(&self.host);
        if guard.flights().has_fill(key.hash, fill) {
            guard.flights().set_awaited(key.hash);
        }
    }

    /// Lets a session give up waiting for a fill, unless another session has given up lately. Each session that gives up doubles
    /// the `patience_ms` of the others. So only a few of the waiting sessions compute a long query themselves. Returns the number
    /// of milliseconds that the session must still wait; 0 if it may give up. `now_ms` is the time on a clock that all sessions
    /// share.
    pub fn give_up(&self, key: &Key<'_>, fill: u64, now_ms: u64, patience_ms: u64) -> u64 {
        self.shard_of(key).lock(&self.host).flights().give_up(key.hash, fill, now_ms, patience_ms)
    }

    /// Ends a flight without a value. A fill that is not lone counts this number of failures. Returns whether the flight existed.
    pub fn fail_fill(&self, key: &Key<'_>, fill: u64, failures: u8) -> bool {
        let now = self.host.now();
        self.shard_of(key).lock(&self.host).flights().fail(key.hash, fill, failures, now)
    }

    /// Returns the flight of a key, if it is not over. The flight may be void.
    pub fn leader(&self, key: &Key<'_>) -> Option<InFlight> {
        let now = self.host.now();
        self.shard_of(key).lock(&self.host).flights().leader(key.hash, now)
    }

    /// Returns a lease by its ID. None if its value can no longer be published, because the lease has ended, or because the key was
    /// set or removed. Also None for the ID of a fill or a claim: no caller may publish a value under the flight of another one.
    pub fn lease(&self, key: &Key<'_>, lease: u64) -> Option<Lease> {
        self.shard_of(key).lock(&self.host).flights().lease(key.hash, lease)
    }

    /// Ends a flight without a value, and counts no failure. Returns whether the flight existed.
    pub fn release_lease(&self, key: &Key<'_>, lease: u64) -> bool {
        self.fail_fill(key, lease, 0)
    }

    /// Ends all flights of a session that has ended. Returns their number. `session` must not be 0, which stands for leases without
    /// a session. Leases that outlive the session must be [disowned](Self::disown_leases_of) before.
    pub fn release_leases_of(&self, session: u32) -> u32 {
        let now = self.host.now();
        (0..self.layout.shards).map(|shard| self.locked(shard).flights().end_all_of(session, now)).sum()
    }

    /// Disowns the leases of a session that has ended. A caller that knows the ID of a lease can still use it.
    pub fn disown_leases_of(&self, session: u32) {
        (0..self.layout.shards).for_each(|shard| self.locked(shard).flights().disown(session));
    }

    /// Returns all flights that are not over, or an error if there is no memory for the list.
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
}
