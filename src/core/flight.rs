//! Flights: who is computing the value of which key just now.
//!
//! A flight is a right to publish. It is drawn before the computation begins and names the moment as of which the result
//! will be right. Setting or removing the key meanwhile voids it, so that a value computed before a change is
//! never published after it. And there is one for each key, so that those who come second know that somebody is at it.
//!
//! Each shard has a few places. When all are taken, one computes without publishing: a cache may forget.
//!
//! ```text
//! word 0   hash of the key, 0 if the place is free
//! word 1   number of the lease
//! word 2   deadline in ticks : 32 | owner : 32
//! word 3   void : 1 | stamp : 46
//! ```
//!
//! Access: under the shard's lock only. Keys are known by their whole hash. Two keys that share one are never in flight at
//! once, and each voids the other's flight: both cost a publication, not a wrong value.

use crate::layout::Layout;
use crate::region::Region;
use crate::{Lease, Stamp};

/// Places in a shard. A model of interleavings has one key in flight, and would take each look at a place as a step.
pub(crate) const PLACES: usize = if cfg!(loom) { 1 } else { 32 };
pub(crate) const PLACE_WORDS: usize = 4;

const VOID: u64 = 1 << 63;

/// The places of one shard.
#[derive(Clone, Copy)]
pub(crate) struct Flights<'m> {
    region: Region<'m>,
    at: usize,
}

impl<'m> Flights<'m> {
    pub(crate) fn new(region: Region<'m>, layout: &Layout, shard: u32) -> Self {
        Self { region, at: layout.shard_at(shard) + layout.flights_at }
    }

    fn places(&self) -> impl Iterator<Item = Place<'m>> + use<'m> {
        let Self { region, at } = *self;
        (0..PLACES).map(move |number| Place { region, at: at + number * PLACE_WORDS })
    }

    fn of(&self, hash: u64) -> Option<Place<'m>> {
        self.places().find(|place| place.hash() == hash)
    }

    /// The flight of a key that is still in time: its owner, and its deadline.
    pub(crate) fn leader(&self, hash: u64, now: u32) -> Option<(u32, u32)> {
        self.of(hash).filter(|place| place.deadline() > now).map(|place| (place.owner(), place.deadline()))
    }

    /// Begins a flight, over one that is out of time if there is one. False if there is no place.
    pub(crate) fn begin(&self, hash: u64, lease: &Lease, owner: u32, deadline: u32, now: u32) -> bool {
        let free = |place: &Place<'_>| place.hash() == 0;
        let overdue = |place: &Place<'_>| place.deadline() <= now;
        let place =
            self.of(hash).or_else(|| self.places().find(free)).or_else(|| self.places().find(overdue));
        let Some(place) = place else { return false };
        place.set(0, hash);
        place.set(1, lease.number);
        place.set(2, u64::from(deadline) << 32 | u64::from(owner));
        place.set(3, lease.stamp.number());
        true
    }

    /// Ends a flight. Whether it was this one's, and nothing has voided it.
    pub(crate) fn end(&self, hash: u64, lease: u64) -> Option<bool> {
        let place = self.of(hash).filter(|place| place.lease() == lease)?;
        place.clear();
        Some(place.get(3) & VOID == 0)
    }

    /// Voids the flight of a key that is being changed. It goes on, so that nobody computes the same meanwhile who would get
    /// no further; what comes of it is not published.
    pub(crate) fn void(&self, hash: u64) {
        if let Some(place) = self.of(hash) {
            place.set(3, place.get(3) | VOID);
        }
    }

    /// Ends all flights of an owner, and says how many they were.
    pub(crate) fn end_all_of(&self, owner: u32) -> u32 {
        let mut ended = 0;
        for place in self.places().filter(|place| place.hash() != 0 && place.owner() == owner) {
            place.clear();
            ended += 1;
        }
        ended
    }

    /// How many places are taken.
    pub(crate) fn count(&self) -> usize {
        self.places().filter(|place| place.hash() != 0).count()
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
    fn clear(&self) {
        self.set(0, 0);
    }
}

impl Lease {
    /// A lease with this number and stamp, as its holder kept them.
    pub fn new(number: u64, stamp: Stamp) -> Self {
        Self { number, stamp }
    }
}
