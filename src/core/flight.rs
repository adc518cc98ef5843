//! Flights: who is computing the value of which key just now, and who has said that he will be the one to set it.
//!
//! A flight is a right to publish. It is drawn before the computation begins and names the moment as of which the result
//! will be right. Setting or removing the key meanwhile voids it, so that a value computed before a change is
//! never published after it. And there is one for each key, so that those who come second know that somebody is at it.
//!
//! A *claim* is the same right for a transaction that sets a key which has no value: nobody else can claim the key until that
//! transaction ends. It has no deadline, because a transaction that ends, however it does, takes its claims back. It goes before
//! a flight, whose place it takes: what was being computed is overtaken by the value of the claim.
//!
//! Each shard has some places. A key may be in any of the few that its hash points to; when they are all taken, one computes
//! without publishing, and claims nothing: a cache may forget.
//!
//! ```text
//! word 0   hash of the key, 0 if the place is free
//! word 1   number of the lease, or of the claim
//! word 2   deadline in ticks : 32 | owner : 32
//! word 3   void : 1 | claim : 1 | stamp : 46
//! ```
//!
//! Access: under the shard's lock only. Keys are known by their whole hash. Two keys that share one are never in flight at
//! once, and each voids the other's flight: both cost a publication, not a wrong value.

use crate::layout::{Layout, PLACE_WORDS};
use crate::region::Region;
use crate::{InFlight, Lease, Stamp};

const VOID: u64 = 1 << 63;
const CLAIM: u64 = 1 << 62;
/// How many places a key may be in. Whoever looks for one looks at all of them.
const WINDOW: u32 = 32;

/// The places of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Flights<'m> {
    region: Region<'m>,
    at: usize,
    places: u32,
    /// The word in the shard's control block that counts the places which are taken: where none is, nobody has to look.
    taken_at: usize,
}

impl<'m> Flights<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &Layout, shard: u32, taken_at: usize) -> Self {
        Self { region, at: layout.shard_at(shard) + layout.flights_at, places: layout.places, taken_at }
    }

    fn place(&self, number: u32) -> Place<'m> {
        Place { region: self.region, at: self.at + number as usize * PLACE_WORDS }
    }

    /// Those that are taken, or none if there are none.
    fn taken(&self) -> impl Iterator<Item = Place<'m>> + use<'m> {
        let all = *self;
        let places = if self.count() == 0 { 0 } else { self.places };
        (0..places).map(move |number| all.place(number)).filter(|place| place.hash() != 0)
    }

    /// Those that a key may be in.
    fn window(&self, hash: u64) -> impl Iterator<Item = Place<'m>> + use<'m> {
        let all = *self;
        // Other bits than the shard's, which are those of the lower half, and the bucket's, which are the upper ones.
        let first = (hash >> 32) as u32 % self.places;
        (0..WINDOW.min(self.places)).map(move |step| all.place((first + step) % all.places))
    }

    fn of(&self, hash: u64) -> Option<Place<'m>> {
        if self.count() == 0 { None } else { self.window(hash).find(|place| place.hash() == hash) }
    }

    /// Who has the key, and until when: in a flight that is still in time, or by a claim.
    pub(crate) fn leader(&self, hash: u64, now: u32) -> Option<InFlight> {
        self.of(hash).map(|place| place.in_flight()).filter(|flight| flight.claim || flight.deadline > now)
    }

    /// Begins a flight, over one that is out of time if there is one. False if there is no place.
    pub(crate) fn begin(&self, hash: u64, lease: &Lease, owner: u32, deadline: u32, now: u32) -> bool {
        self.occupy(hash, lease, 0, owner, deadline, now)
    }

    /// Claims a key, over a flight if there is one. False if there is no place.
    pub(crate) fn claim(&self, hash: u64, lease: &Lease, owner: u32, now: u32) -> bool {
        self.occupy(hash, lease, CLAIM, owner, u32::MAX, now)
    }

    fn occupy(&self, hash: u64, lease: &Lease, claim: u64, owner: u32, deadline: u32, now: u32) -> bool {
        let free = |place: &Place<'_>| place.hash() == 0;
        let overdue = |place: &Place<'_>| !place.is_claim() && place.deadline() <= now;
        let place = self
            .of(hash)
            .or_else(|| self.window(hash).find(free))
            .or_else(|| self.window(hash).find(overdue));
        let Some(place) = place else { return false };
        if place.hash() == 0 {
            self.set_count(self.count().wrapping_add(1));
        }
        place.set(0, hash);
        place.set(1, lease.number);
        place.set(2, u64::from(deadline) << 32 | u64::from(owner));
        place.set(3, claim | lease.stamp.number());
        true
    }

    /// Ends a flight or a claim. Whether it was this one's, and nothing has voided it.
    pub(crate) fn end(&self, hash: u64, lease: u64) -> Option<bool> {
        let place = self.of(hash).filter(|place| place.lease() == lease)?;
        self.clear(&place);
        Some(place.get(3) & VOID == 0)
    }

    /// The moment as of which a result will be right, if its flight may still publish it.
    pub(crate) fn stamp(&self, hash: u64, lease: u64) -> Option<Stamp> {
        let place =
            self.of(hash).filter(|place| place.lease() == lease && place.get(3) & (VOID | CLAIM) == 0)?;
        Some(Stamp::from_number(place.get(3)))
    }

    /// Voids the flight of a key that is being changed. It goes on, so that nobody computes the same meanwhile who would get
    /// no further; what comes of it is not published.
    pub(crate) fn void(&self, hash: u64) {
        if let Some(place) = self.of(hash) {
            place.set(3, place.get(3) | VOID);
        }
    }

    /// Ends all flights and claims of an owner, and says how many they were.
    pub(crate) fn end_all_of(&self, owner: u32) -> u32 {
        let mut ended = 0;
        for place in self.taken().filter(|place| place.owner() == owner) {
            self.clear(&place);
            ended += 1;
        }
        ended
    }

    /// Makes the flights of an owner nobody's: whoever knows their numbers goes on with them.
    pub(crate) fn disown(&self, owner: u32) {
        for place in self.taken().filter(|place| place.owner() == owner && !place.is_claim()) {
            place.set(2, place.get(2) >> 32 << 32);
        }
    }

    /// How many places are taken.
    pub(crate) fn count(&self) -> u64 {
        self.region.load(self.taken_at)
    }

    fn set_count(&self, count: u64) {
        self.region.store(self.taken_at, count);
    }

    /// All flights and claims.
    pub(crate) fn all(&self) -> impl Iterator<Item = InFlight> + use<'m> {
        self.taken().map(|place| place.in_flight())
    }

    /// How many places are taken, counted one by one.
    pub(crate) fn counted(&self) -> u64 {
        (0..self.places).filter(|number| self.place(*number).hash() != 0).count() as u64
    }

    fn clear(&self, place: &Place<'_>) {
        place.set(0, 0);
        // Damage may have said that there are none.
        self.set_count(self.count().saturating_sub(1));
    }
}

struct Place<'m> {
    region: Region<'m>,
    at: usize,
}

impl Place<'_> {
    fn get(&self, word: usize) -> u64 {
        self.region.load(self.at + word)
    }
    fn set(&self, word: usize, value: u64) {
        self.region.store(self.at + word, value);
    }
    fn hash(&self) -> u64 {
        self.get(0)
    }
    fn lease(&self) -> u64 {
        self.get(1)
    }
    fn deadline(&self) -> u32 {
        (self.get(2) >> 32) as u32
    }
    fn owner(&self) -> u32 {
        self.get(2) as u32
    }
    fn is_claim(&self) -> bool {
        self.get(3) & CLAIM != 0
    }
    fn in_flight(&self) -> InFlight {
        InFlight {
            number: self.lease(),
            owner: self.owner(),
            deadline: self.deadline(),
            claim: self.is_claim(),
        }
    }
}

impl Lease {
    /// A lease with this number and stamp, as its holder kept them.
    pub fn new(number: u64, stamp: Stamp) -> Self {
        Self { number, stamp }
    }
}
