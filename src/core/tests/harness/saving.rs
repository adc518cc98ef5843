//! The saver of the tests, and actions on saved values. Its copies are what rows of a table are for the server. `tier/saving.rs`
//! has the rules of a saver, and `tier/directory.rs` those of locations.
//!
//! The saver *marks* an entry before it copies it; a *segment* is a list of its copies. A saved value that becomes an entry again
//! is *promoted*.
//!
//! A *tier* is a cache in memory that several processes share. A *location* says where a copy of an entry is saved; the *directory*
//! of the tier has the locations. To *locate* a copy is to add its location to the directory.

use super::action::SPACES;
use super::both::Both;
use super::expectations::note_of;
use super::keys::{SCOPES, with_key};
use pg_cache_core::testing::TestHost;
use pg_cache_core::{
    Batch, FenceId, Key, Location, Marked, Meta, NewValue, ReserveOptions, SavedValue, StaleOk, Stored, Tier,
};
use std::collections::HashMap;

/// The most entries of a batch: so few that many batches are full.
const BATCH: usize = 6;
/// The number of segments that the saver fills one after the other, and then again from the first.
const SEGMENTS: u16 = 4;

/// A copy of an entry, as the saver has written it.
#[derive(Clone)]
pub struct SavedCopy {
    /// The space, the role and the bytes of the key.
    identity: (u32, u32, Vec<u8>),
    /// The note of the value.
    note: Vec<u8>,
    /// The bytes of the value.
    pub value: Vec<u8>,
    /// The properties of the value.
    pub meta: Meta,
    /// The fences of the value's dependencies.
    dependencies: Vec<FenceId>,
    /// How long the value may be served stale. None if it may not be.
    stale_ok: Option<StaleOk>,
}

impl SavedCopy {
    /// Whether this is a copy of a value of the key: see [`with_key`].
    pub fn is_of(&self, key: u8) -> bool {
        let (space, role) = SCOPES[key as usize % SCOPES.len()];
        self.identity == (space.into(), role, vec![b'k'; 1 + (key / 6) as usize * 50])
    }

    /// Returns the copy in the form in which the tier judges it.
    pub fn saved(&self) -> SavedValue<'_> {
        SavedValue {
            key: &self.identity.2,
            meta: self.meta,
            dependencies: &self.dependencies,
            stale_ok: self.stale_ok,
        }
    }
}

/// A saver with its copies, and with a batch that is written and not yet located.
#[derive(Default)]
pub struct Saver {
    copies: HashMap<Location, SavedCopy>,
    /// The marked entries, and the locations of their copies in the same order.
    batch: Option<(Batch, Vec<Location>)>,
    /// The segment that is being filled.
    segment: u16,
    /// How many copies were written so far. Copies are numbered from 1, and the number of a copy is also its position.
    written: u64,
    /// The bucket at which the walk through the buckets continues.
    bucket: u64,
}

impl Saver {
    /// Writes a copy to the segment that is being filled. The copy has no location in the tier yet.
    fn write(&mut self, copy: SavedCopy) -> Location {
        self.written += 1;
        let location = Location::new(self.segment, self.written).expect("a legal location");
        self.copies.insert(location, copy);
        location
    }

    /// Returns the copy at a location. A location that leads nowhere fails the test.
    pub fn copy(&self, location: Location) -> &SavedCopy {
        self.copies.get(&location).unwrap_or_else(|| panic!("nothing is saved at {location:?}"))
    }
}

/// Copies a marked entry.
fn read(tier: &Tier<'_, &TestHost>, marked: &Marked) -> SavedCopy {
    let mut key = vec![0; marked.key_len()];
    let mut dependencies = vec![FenceId::from_number(0); marked.dependency_count()];
    let mut note = vec![0; marked.note_len()];
    let mut value = vec![0; marked.meta().value_len];
    let stale_ok = tier.read_marked(marked, &mut key, &mut dependencies, &mut note, &mut value);
    SavedCopy {
        identity: (marked.space(), marked.role(), key),
        note,
        value,
        meta: marked.meta(),
        dependencies,
        stale_ok,
    }
}

/// Promotes the value at a location, or forgets the location, so that the caller's operation can try again. The directory knows
/// only bits of the hash, so the location of a key may lead to the copy of another key with the same hash.
pub fn settle(tier: &Tier<'_, &TestHost>, saver: &Saver, key: u8, location: Location) {
    with_key(tier, key, |name| {
        if !saver.copy(location).is_of(key) || !promote(tier, saver.copy(location), name, location) {
            tier.forget_location(name, location);
        }
    });
}

/// Brings a copy back into memory. Returns false if the value is of no use, if it is refused, or if the tier drops it.
fn promote(tier: &Tier<'_, &TestHost>, copy: &SavedCopy, key: &Key<'_>, location: Location) -> bool {
    let value = NewValue {
        bytes: &copy.value,
        note: &copy.note,
        kind: copy.meta.kind,
        stamp: copy.meta.stamp,
        expires: copy.meta.expires,
        cost: copy.meta.cost,
        dependencies: &copy.dependencies,
    };
    if tier.is_saved_useless(&scope_of(tier, copy), &copy.saved()) {
        return false;
    }
    let options = ReserveOptions { stale_ok: copy.stale_ok, ..ReserveOptions::default() };
    tier.reserve(key, &value, options)
        .is_ok_and(|reserved| tier.promote(key, reserved, location, copy.meta.created) == Stored::New)
}

fn scope_of(tier: &Tier<'_, &TestHost>, copy: &SavedCopy) -> pg_cache_core::Scope {
    tier.scope(1, copy.identity.0, copy.identity.1)
}

impl Both<'_> {
    /// Marks and copies entries, without locating the copies: the oldest ones of one shard, also those that an earlier batch has
    /// marked in vain, or those of the next buckets.
    pub fn mark(&mut self, shard: u8, oldest: bool) {
        let (tier, saver) = (self.tier, &mut self.model.saver);
        let mut batch = Batch::with_room(BATCH).expect("there is memory");
        // Space 3 is not saved.
        let admits = |space| space < u32::from(SPACES - 1);
        if oldest {
            tier.mark_oldest(u32::from(shard) % tier.shards(), 1, true, admits, &mut batch);
        } else {
            let next = tier.mark_bucket(saver.bucket, 1, admits, &mut batch);
            saver.bucket = next.unwrap_or(0);
        }
        let copies: Vec<_> = batch.marked().iter().map(|marked| saver.write(read(tier, marked))).collect();
        saver.batch = Some((batch, copies));
    }

    /// Locates the copies of the last batch. With `leave`, the located entries leave the memory. Each located copy must have the
    /// note of its own value.
    pub fn locate(&mut self, leave: bool) {
        let Some((batch, locations)) = self.model.saver.batch.take() else { return };
        for (marked, location) in batch.marked().iter().zip(locations) {
            if self.tier.locate(marked, location, leave) {
                let copy = self.model.saver.copy(location);
                assert_eq!(copy.note, note_of(copy.meta.kind, &copy.value), "the note of another value");
            }
        }
    }

    /// Frees the oldest segment: moves the copies that readers have asked for to the segment that is being filled, and forgets the
    /// rest. The freed segment is filled from now on.
    pub fn recycle(&mut self) {
        let (tier, saver) = (self.tier, &mut self.model.saver);
        // A batch that is not yet located is given up. Its entries stay marked.
        saver.batch = None;
        let oldest = (saver.segment + 1) % SEGMENTS;
        let mut asked = Vec::new();
        for shard in 0..tier.shards() {
            tier.each_location(shard, |location, was_asked| {
                if was_asked && location.segment() == oldest {
                    asked.push(location);
                }
            });
        }
        for from in asked {
            let copy = saver.copy(from).clone();
            let key = (0..super::KEYS).find(|key| copy.is_of(*key)).expect("a copy of a key");
            let to = saver.write(copy);
            assert!(with_key(tier, key, |key| tier.move_location(key, from, to)), "no process interferes");
        }
        tier.forget_segment(oldest);
        saver.copies.retain(|location, _| location.segment() != oldest);
        saver.segment = oldest;
    }

    /// Promotes the saved value of a key, if the key has no other.
    pub fn promote(&mut self, key: u8) {
        let (tier, saver) = (self.tier, &self.model.saver);
        if let Some(location) = with_key(tier, key, |key| tier.location(key))
            && saver.copy(location).is_of(key)
        {
            with_key(tier, key, |key| promote(tier, saver.copy(location), key, location));
        }
    }
}
