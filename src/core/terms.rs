//! The types in the interface of a tier: keys, values, readers, leases, results, and the [`Host`] that the tier runs in.
//!
//! They hold no shared memory themselves. The operations that use them are in `tier.rs` and `reading.rs`.

use crate::fence::{FenceId, Stamp};
use crate::figures::cost::Cost;
use crate::figures::statistics::{Counter, Counts};
use crate::layout::BLOCK_BYTES;
use crate::tier::entry::{KEY_BYTES_MAX, Kind, Meta};

/// What the tier needs from its host, the process that it runs in.
pub trait Host {
    /// Returns the present time in ticks. Ticks never go back, even when the system's clock does.
    fn now(&self) -> u32;
    /// Acquires the lock of a shard. The tier holds it for a bounded number of steps.
    fn lock(&self, shard: u32);
    /// Releases the lock of a shard.
    fn unlock(&self, shard: u32);
    /// Returns the time on the clock that the host times statements with. Each lease keeps it. A host that never reads
    /// [`Lease::acquired`] does not need such a clock.
    #[inline]
    fn moment(&self) -> u64 {
        0
    }
    /// Lets other processes make progress. The tier holds no lock when it calls this.
    fn pause(&self) {}
    /// Whether a request for blocks must fail although blocks are free. Tests return true now and then.
    #[inline]
    fn refuses_blocks(&self) -> bool {
        false
    }
}

/// The database, space and role that a key belongs to: a part of an entry's identity. Made by [`crate::Tier::scope`], once for many
/// keys.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The number of the database.
    pub database: u32,
    /// The number of the space in the database.
    pub space: u32,
    /// The role that owns the entries, or 0 for entries of all roles.
    pub role: u32,
    pub(crate) fences: [FenceId; 2],
    /// The cell that holds the space's statistics.
    pub(crate) cell: u32,
}

impl Scope {
    /// Whether both scopes have the same database, space and role.
    pub fn is(&self, other: &Self) -> bool {
        self.place() == other.place() && self.role == other.role
    }

    /// Returns database and space as one word, as an entry stores them.
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
    /// The bytes after the last whole word, as one word in little-endian order, so that they are compared at once.
    pub(crate) tail: u64,
}

impl<'k> Key<'k> {
    /// Makes a key of 1 to [`KEY_BYTES_MAX`] bytes. `hash` must be a hash of the bytes: equal keys must have equal hashes.
    ///
    /// Returns None if the key has another length.
    pub fn new(scope: Scope, bytes: &'k [u8], hash: u64) -> Option<Self> {
        let space = u64::from(scope.space) << 32 | u64::from(scope.role);
        // Never 0, because 0 marks an empty place for a flight.
        let hash = mix(hash ^ space ^ u64::from(scope.database).rotate_left(48)).max(1);
        let tail = match bytes.last_chunk::<8>() {
            // Shifts out the bytes that belong to the last whole word: a shift instead of a loop.
            Some(last) if !bytes.len().is_multiple_of(8) => {
                u64::from_le_bytes(*last) >> (64 - bytes.len() % 8 * 8)
            }
            Some(_) => 0,
            None => bytes.iter().rev().fold(0, |tail, byte| tail << 8 | u64::from(*byte)),
        };
        (1..=KEY_BYTES_MAX).contains(&bytes.len()).then_some(Self { scope, bytes, hash, tail })
    }

    /// Returns the mark of the key: enough to remove the key when its bytes are gone, or to prefetch its entry.
    #[inline]
    pub fn mark(&self) -> KeyMark {
        let Scope { database, space, role, .. } = self.scope;
        KeyMark { hash: self.hash, database, space, role }
    }

    /// Returns the half of the hash that an entry keeps and that chooses the bucket. The other half chooses the shard.
    pub(crate) fn print(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Spreads a hash over both halves of a word, so that equal keys of different scopes differ. It is one multiplication, because no
/// step of a read can begin before it is done.
#[inline(always)]
fn mix(hash: u64) -> u64 {
    let product = u128::from(hash) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// A key without its bytes: see [`crate::Tier::remove_marked`] and [`crate::Tier::fetch_bucket`]. It removes as reliably as a key
/// does: if another key has the same hash, that key is removed too, which costs one needless miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct KeyMark {
    /// The number of the database.
    pub database: u32,
    /// The number of the space in the database.
    pub space: u32,
    /// The role that owns the entry, or 0.
    pub role: u32,
    hash: u64,
}

impl KeyMark {
    /// Returns the half of the hash that an entry keeps.
    pub(crate) fn print(&self) -> u32 {
        (self.hash >> 32) as u32
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns database and space as one word, as an entry stores them.
    pub(crate) fn place(&self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.space)
    }
}

/// A value to store.
#[derive(Clone, Copy, Debug)]
pub struct NewValue<'v> {
    /// The bytes of the value.
    pub bytes: &'v [u8],
    /// The kind of the value.
    pub kind: Kind,
    /// The moment as of which the value is right.
    pub stamp: Stamp,
    /// The tick at which the value expires.
    pub expires: u32,
    /// The cost of computing the value.
    pub cost: Cost,
    /// The fences of the value's dependencies, apart from its database and its space; at most [`crate::DEPENDENCIES_MAX`].
    pub dependencies: &'v [FenceId],
}

/// A reader: which changes of others it may see, and what it has changed itself.
#[derive(Clone, Copy, Debug)]
pub struct Reader<'r> {
    /// The reader may not see a value if a dependency has changed after this moment.
    pub horizon: Stamp,
    /// The fences of what the reader has changed and not committed yet. They must be sorted.
    pub changed: &'r [FenceId],
    /// Whether the server must know every relation that the reader reads. Such a reader gets no entry that depends on a relation.
    pub tracked: bool,
}

impl From<Stamp> for Reader<'_> {
    /// Makes a reader that has changed nothing.
    fn from(horizon: Stamp) -> Self {
        Self { horizon, changed: &[], tracked: false }
    }
}

/// The reason why a read returns no value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Miss {
    /// The key has no entry.
    Absent,
    /// The entry has expired.
    Expired,
    /// The entry, or one of its dependencies, has changed or is about to change.
    Fenced,
    /// The reader itself has changed a dependency of the entry, or it is [tracked](Reader::tracked) and the entry depends on a
    /// relation.
    Own,
    /// The shard is switched off, or the entry is damaged.
    Off,
}

/// What makes an entry wrong for a reader.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fencing {
    /// Another transaction is about to commit a change of the key itself.
    Key,
    /// This dependency has changed, or is about to change.
    Changed(FenceId),
    /// This dependency has changed after the reader's horizon. The entry is right for later readers.
    Newer(FenceId),
    /// The reader itself has changed this dependency.
    Own(FenceId),
    /// The entry depends on this relation, and the reader is [tracked](Reader::tracked).
    Tracked(FenceId),
}

/// The reason why a value was not stored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The entry is larger than an entry may be in a tier of this size.
    TooLarge,
    /// There are not enough free blocks, and no entry can be evicted.
    Full,
    /// The value has more dependencies than an entry can hold.
    TooManyDependencies,
    /// The space has reached its quota.
    Quota,
    /// The shard is switched off.
    Off,
}

/// The reason why a counter was not changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IncrError {
    /// The key holds a value of another kind.
    OtherKind(Kind),
    /// The result does not fit into 64 bits.
    Overflow,
    /// A new counter could not be stored.
    Refused(Refusal),
}

/// The right to publish a value that is being computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lease {
    /// The number of the lease, different from that of every other lease of the region.
    pub number: u64,
    /// The moment as of which the value will be right. The value must be stored with this stamp.
    pub stamp: Stamp,
    /// The time on the [host's clock](Host::moment) at which the lease was acquired. It is never before the stamp was drawn.
    pub acquired: u64,
}

/// The owner of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// The session that owns the flight.
    pub session: u32,
    /// The role whose share of the places the flight counts against.
    pub role: u32,
}

/// The purpose of a flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// A caller computes a value and will publish it later.
    Lease,
    /// A session runs a query and will store its result at once.
    Fill,
    /// A transaction will be the first to set a key.
    Claim,
}

/// The reason why a flight cannot begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// The space has used up its share of the places.
    Space,
    /// The role has used up its share of the places.
    Role,
    /// All places are taken.
    All,
    /// The shard is switched off.
    Off,
}

/// The reason why a key cannot be claimed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclaimed {
    /// The key has a value for this reader.
    Present,
    /// A transaction that is about to commit has announced a change of the key.
    Changing,
    /// Another session has claimed the key.
    Claimed,
    /// There is no place for the claim.
    NoPlace(Limit),
}

/// A flight: a session computes the value of a key or has claimed the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The number of the lease or of the claim.
    pub number: u64,
    /// The session that owns the flight, or 0 if no session owns it.
    pub owner: u32,
    /// The tick at which the flight ends by itself. A claim has the largest number, because it ends with its transaction.
    pub deadline: u32,
    /// The purpose of the flight.
    pub purpose: Purpose,
}

/// How long a value may be served stale to readers that accept stale values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lingering {
    /// The number of ticks for which the value may be served stale.
    pub ticks: u32,
    /// The last tick at which the value was known to be right.
    pub right_at: u32,
}

/// Whether a served value is right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freshness {
    /// The value is right.
    Right,
    /// The value was right before, and may be served until a tick.
    Stale {
        /// The tick until which the value may be served.
        until: u32,
    },
}

/// The answer to a caller that wants to compute a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Acquired {
    /// The caller has the lease.
    Lead(Lease),
    /// Another flight of this key is under way.
    Busy(InFlight),
    /// The key has a value by now. Only callers that asked to be told get this answer.
    Present,
    /// There is no place for a flight. The caller may compute the value but cannot publish it.
    NoPlace(Limit),
}

/// The result of publishing a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stored {
    /// The value is stored. The key had no valid value before.
    New,
    /// The value is stored and replaces a valid one.
    Replaced,
    /// The value is dropped.
    Dropped,
}

/// Blocks with a value that is already written but not yet visible. It must end in a call that consumes it, such as
/// [`crate::Tier::publish`] or [`crate::Tier::cancel`]. Otherwise its memory is lost until the region is formatted again.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "publish or cancel it, or its memory is lost"]
pub struct Reservation {
    pub(crate) block: u32,
}

/// The destination that a value is copied to.
pub trait Buffer {
    /// Returns as many bytes as the value has, or none if there is no memory for them. The tier may call it more than once for one
    /// value, because a writer may disturb the first copy.
    fn room(&mut self, meta: &Meta) -> &mut [u8];

    /// Whether the last call of `room` returned as many bytes as were asked for. If not, the tier has copied nothing.
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

/// A buffer for callers that want only the [`Meta`]. It receives no bytes.
impl Buffer for () {
    fn room(&mut self, _: &Meta) -> &mut [u8] {
        &mut []
    }
}

/// An entry as [`crate::Tier::inspect`] shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inspected {
    /// The number of the database.
    pub database: u32,
    /// The number of the space.
    pub space: u32,
    /// The role that owns the entry, or 0.
    pub role: u32,
    /// The bytes of the key.
    pub key: Vec<u8>,
    /// The kind, the stamp and the other properties of the value.
    pub meta: Meta,
    /// Whether a reader would get the entry now.
    pub valid: bool,
}

/// The statistics of a space. The counts begin at the last reset; entries and bytes are the present ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpaceStats {
    /// The numbers of the database and of the space. None for the spaces that share the last cell, counted together.
    pub space: Option<(u32, u32)>,
    /// The number of entries, valid or not.
    pub entries: u64,
    pub(crate) blocks: u64,
    pub(crate) counts: Counts,
}

impl SpaceStats {
    /// Returns the bytes of blocks in use, for entries and for reservations.
    pub fn bytes(&self) -> u64 {
        self.blocks * BLOCK_BYTES as u64
    }

    /// Returns how often an event was counted since the last reset.
    pub fn counted(&self, what: Counter) -> u64 {
        self.counts[what as usize]
    }
}

/// The statistics of a relation. The counts begin at the last reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RelationStats {
    /// The number of the relation. None for the relations that share records, counted together.
    pub relation: Option<u32>,
    /// The number of transactions that changed the relation.
    pub changes: u64,
    /// The number of entries that a change of the relation invalidated and whose memory has been reclaimed.
    pub killed: u64,
    /// The tick of the last change.
    pub last: u32,
}

/// How full the tier is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// The number of entries, valid or not.
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
    /// The number of flights: values that are being computed and keys that are claimed.
    pub flights: u64,
    /// The number of claimed keys.
    pub claims: u64,
    /// The number of announced changes that are neither confirmed nor withdrawn yet.
    pub announced: u64,
    /// The number of shards.
    pub shards: u32,
    /// The number of shards that are switched off.
    pub shards_off: u32,
}
