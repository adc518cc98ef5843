//! The words in which a tier is spoken to.

use crate::cost::Cost;
use crate::entry::{KEY_BYTES_MAX, Kind, Meta};
use crate::fence::{FenceId, Stamp};
use crate::layout::BLOCK_BYTES;
use crate::statistics::{Counter, Counts};

/// What the tier needs from its surroundings.
pub trait Host {
    /// The present time in ticks that never go back, whatever happens to the system's clock.
    fn now(&self) -> u32;
    /// Takes the lock of a shard. It is held for a bounded number of steps.
    fn lock(&self, shard: u32);
    /// Releases it.
    fn unlock(&self, shard: u32);
    /// The time on the clock that statements are timed with, which is kept with each lease. A host that asks for no lease's moment needs
    /// none.
    #[inline]
    fn moment(&self) -> u64 {
        0
    }
    /// Lets others go on with what they are doing. No lock is held.
    fn pause(&self) {}
    /// Whether this request for blocks is to fail although there are some. Tests say yes now and then.
    #[inline]
    fn refuses_blocks(&self) -> bool {
        false
    }
}

/// Whose keys: part of an entry's identity. Made by [`crate::Tier::scope`], once for many keys.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The database's number.
    pub database: u32,
    /// The space's number in it.
    pub space: u32,
    /// The role whose entries they are, or 0 for everybody's.
    pub role: u32,
    pub(crate) fences: [FenceId; 2],
    /// Where the space's statistics are.
    pub(crate) cell: u32,
}

impl Scope {
    /// Whether it is the same place and the same role's.
    pub fn is(&self, other: &Self) -> bool {
        self.place() == other.place() && self.role == other.role
    }

    /// Database and space as the one word that an entry keeps them in.
    #[inline(always)]
    pub(crate) fn place(&self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.space)
    }
}

/// The identity of an entry.
#[derive(Clone, Copy, Debug)]
pub struct Key<'k> {
    pub(crate) scope: Scope,
    pub(crate) bytes: &'k [u8],
    pub(crate) hash: u64,
    /// What is left of the bytes behind whole words, to be compared as a word, in little-endian order.
    pub(crate) tail: u64,
}

impl<'k> Key<'k> {
    /// A key of 1 to [`KEY_BYTES_MAX`] bytes. `hash` is of the bytes; equal keys must come with equal hashes.
    ///
    /// A key of another length is no key: None.
    pub fn new(scope: Scope, bytes: &'k [u8], hash: u64) -> Option<Self> {
        let space = u64::from(scope.space) << 32 | u64::from(scope.role);
        // Never 0, which marks a place where nobody computes anything.
        let hash = mix(hash ^ space ^ u64::from(scope.database).rotate_left(48)).max(1);
        let tail = match bytes.last_chunk::<8>() {
            // The last eight bytes without those that belong to the last whole word: a shift instead of a loop.
            Some(last) if !bytes.len().is_multiple_of(8) => {
                u64::from_le_bytes(*last) >> (64 - bytes.len() % 8 * 8)
            }
            Some(_) => 0,
            None => bytes.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte)),
        };
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self { scope, bytes, hash, tail })
    }

    /// What it takes to remove the key when its bytes are not at hand any more, or to have it fetched before it is asked for.
    #[inline]
    pub fn mark(&self) -> KeyMark {
        let Scope { database, space, role, .. } = self.scope;
        KeyMark { hash: self.hash, database, space, role }
    }

    /// The half of the hash that an entry keeps and that buckets are chosen by; shards are chosen by the other half.
    pub(crate) fn print(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Distributes hashes over both halves of a word, those of a scope apart from those of others. One multiplication, because nothing
/// of a read can begin before.
#[inline(always)]
fn mix(hash: u64) -> u64 {
    let product = u128::from(hash) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// A key without its bytes: see [`crate::Tier::remove_marked`] and [`crate::Tier::fetch_bucket`]. As good as a key for removing, because who shares its hash only
/// misses for nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct KeyMark {
    /// The database's number.
    pub database: u32,
    /// The space's number in it.
    pub space: u32,
    /// The role whose entry it is, or 0.
    pub role: u32,
    hash: u64,
}

impl KeyMark {
    /// The half of the hash that an entry keeps.
    pub(crate) fn print(&self) -> u32 {
        (self.hash >> 32) as u32
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Database and space as the one word that an entry keeps them in.
    pub(crate) fn place(&self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.space)
    }
}

/// A value to be stored.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'v> {
    /// Its bytes.
    pub bytes: &'v [u8],
    /// What they are.
    pub kind: Kind,
    /// As of when they are right.
    pub stamp: Stamp,
    /// The tick at which its time is over.
    pub expires: u32,
    /// What it cost to compute.
    pub cost: Cost,
    /// What makes it wrong by changing, beside its database and its space; at most [`crate::DEPENDENCIES_MAX`].
    pub dependencies: &'v [FenceId],
}

/// Who reads: what it may see of others' changes, and what it has changed itself.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'r> {
    /// It may not see what changed after this.
    pub horizon: Stamp,
    /// What it has changed and not committed yet, in order.
    pub changed: &'r [FenceId],
    /// Whether its surroundings have to know of every relation that it reads: what depends on relations is not for it, then.
    pub tracked: bool,
}

impl From<Stamp> for Reader<'_> {
    /// A reader who has changed nothing.
    fn from(horizon: Stamp) -> Self {
        Self { horizon, changed: &[], tracked: false }
    }
}

/// Why there is no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// There is no entry of this key.
    Absent,
    /// Its time is over.
    Expired,
    /// It, or something it depends on, has changed or is about to.
    Fenced,
    /// The reader has changed something it depends on.
    Own,
    /// The shard is switched off.
    Off,
}

/// Why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is larger than one entry may be in a tier of this size.
    TooLarge,
    /// There is no room, and nothing that could be evicted.
    Full,
    /// It has more dependencies than an entry can name.
    TooManyDependencies,
    /// The space may not take more.
    Quota,
    /// The shard is switched off.
    Off,
}

/// Why a counter was not moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrError {
    /// The key holds something else.
    OtherKind(Kind),
    /// The result would not fit into 64 bits.
    Overflow,
    /// A new counter could not be stored.
    Refused(Refusal),
}

/// The right to publish a value that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// Distinguishes it from all others of the region.
    pub number: u64,
    /// The moment as of which the value will be right: to be stored with it.
    pub stamp: Stamp,
    /// When it was acquired, on the [host's clock](Host::moment): not before the stamp was drawn.
    pub acquired: u64,
}

/// On whose behalf a flight is begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session.
    pub session: u32,
    /// The role whose share of the places it takes.
    pub role: u32,
}

/// What a flight is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A caller computes a value, and will come back with it.
    Lease,
    /// A session runs a query, and will store its result at once.
    Fill,
    /// A transaction will be the first to set a key.
    Claim,
}

/// Why a flight cannot be begun.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The space has its share of the places.
    Space,
    /// The role has its share of the places.
    Role,
    /// All places are taken.
    All,
    /// The shard is switched off.
    Off,
}

/// Why a key cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// There is a value for this reader.
    Present,
    /// A transaction that is about to commit has announced a change of the key.
    Changing,
    /// Another session has claimed it.
    Claimed,
    /// There is no place for the claim.
    NoPlace(Limit),
}

/// Somebody who computes the value of a key, or has claimed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The lease's number, or the claim's.
    pub number: u64,
    /// Who, or 0 if it is nobody's in particular.
    pub owner: u32,
    /// Until which tick; the largest number for a claim, which ends with its transaction.
    pub deadline: u32,
    /// What it is for.
    pub purpose: Purpose,
}

/// How long a value may be served after it has stopped being right, to those who said that it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lingering {
    /// For so many ticks.
    pub ticks: u32,
    /// When it was right for certain.
    pub right_at: u32,
}

/// Whether a value is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// It is.
    Right,
    /// It was, and may be served until a tick.
    Stale {
        /// The tick.
        until: u32,
    },
}

/// The answer to who wants to compute a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// You are the one.
    Lead(Lease),
    /// Somebody else is.
    Busy(InFlight),
    /// There is a value by now. Only said to those who asked for that.
    Present,
    /// There is no place for a flight: compute, but it cannot be published.
    NoPlace(Limit),
}

/// What publishing did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The value is there, and no other was.
    New,
    /// The value is there in the place of another.
    Replaced,
    /// The value was dropped.
    Dropped,
}

/// Room for a value, already written, that nobody can see yet. It ends in [`crate::Tier::publish`] or [`crate::Tier::cancel`], or
/// its memory is lost until the region is formatted again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "publish or cancel it, or its memory is lost"]
pub struct Reservation {
    pub(crate) block: u32,
}

/// Where a value is copied to.
pub trait Buffer {
    /// As many bytes as the value has, or none if there is no memory for them. May be called more than once for one value, if the first copy was disturbed.
    fn room(&mut self, meta: &Meta) -> &mut [u8];

    /// Whether there was as much room as was asked for the last time. Nothing was copied to a buffer without it.
    fn had_room(&self) -> bool {
        true
    }
}

impl Buffer for Vec<u8> {
    fn room(&mut self, meta: &Meta) -> &mut [u8] {
        self.resize(meta.value_len, 0);
        self
    }
}

/// For those who only look.
impl Buffer for () {
    fn room(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}

/// An entry as inspection shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The database's number.
    pub database: u32,
    /// The space's number.
    pub space: u32,
    /// The role, or 0.
    pub role: u32,
    /// The key.
    pub key: Vec<u8>,
    /// The rest.
    pub meta: Meta,
    /// Whether it would be served now.
    pub valid: bool,
}

/// What is known of a space. The counts are since they were reset, what there is is as it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceStats {
    /// The numbers of its database and of itself. None for all spaces together that have no figures of their own.
    pub space: Option<(u32, u32)>,
    /// Entries, right or not.
    pub entries: u64,
    pub(crate) blocks: u64,
    pub(crate) counts: Counts,
}

impl SpaceStats {
    /// Bytes of blocks in use, by entries and by what is reserved for such.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    /// How often something happened.
    pub fn counted(&self, what: Counter) -> u64 {
        self.counts[what as usize]
    }
}

/// What is known of a relation. The counts are since they were reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationStats {
    /// Its number. None for all together that share records.
    pub relation: Option<u32>,
    /// How often it has changed.
    pub changes: u64,
    /// Entries that died of that, and whose room was reclaimed.
    pub killed: u64,
    /// The tick in which it changed last.
    pub last: u32,
}

/// How full the tier is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Entries, right or not.
    pub entries: u64,
    /// Bytes of blocks in use, by entries and reservations.
    pub used_bytes: u64,
    /// Bytes of all blocks.
    pub block_bytes: u64,
    /// Bytes of fences.
    pub fence_bytes: u64,
    /// Bytes of places for flights.
    pub flight_bytes: u64,
    /// Bytes of statistics, of backends and of spaces.
    pub statistics_bytes: u64,
    /// Values that are being computed, and keys that are claimed.
    pub flights: u64,
    /// Keys that are claimed.
    pub claims: u64,
    /// Announced changes that are neither confirmed nor withdrawn.
    pub announced: u64,
    /// Shards.
    pub shards: u32,
    /// Shards that are switched off.
    pub shards_off: u32,
}
