//! One change that a transaction has made in the cache, kept in the session's own memory until it commits.

use crate::pg::memory::{self, OutOfMemory};
use crate::store::space::{Place, hash};
use pg_cache_core::{Cost, FenceId, Key, Kind, Lingering, Meta, NewValue, Refusal, Reservation, Stamp};

/// A key, kept.
#[derive(Debug)]
pub struct OwnKey {
    pub place: Place,
    pub bytes: Box<[u8]>,
    pub hash: u64,
}

impl OwnKey {
    pub fn new(place: Place, bytes: &[u8]) -> Result<Self, OutOfMemory> {
        Ok(Self { place, bytes: memory::try_copy(bytes)?.into_boxed_slice(), hash: hash(bytes) })
    }

    /// As the tier is asked for it.
    pub fn key(&self) -> Option<Key<'_>> {
        self.place.key(&self.bytes, self.hash)
    }

    /// Whether it is that key of that place.
    pub fn is(&self, place: &Place, bytes: &[u8]) -> bool {
        self.place.scope.is(&place.scope) && *self.bytes == *bytes
    }
}

/// A value, kept.
#[derive(Debug)]
pub struct Value {
    pub bytes: Box<[u8]>,
    pub kind: Kind,
    pub stamp: Stamp,
    pub expires: u32,
    pub dependencies: Box<[FenceId]>,
    pub lingering: Option<Lingering>,
    pub basis: Basis,
    /// The command in which it was set.
    pub command: u32,
}

/// With what right a value is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Basis {
    /// Because its caller says so.
    Plain,
    /// Because there was none, by a claim of this number: what somebody else sets meanwhile is later.
    Claim(u64),
    /// Because it was computed under a lease of this number. It is a fill, not a change: what was there is not wrong because of
    /// it, and it does not take the place of what has changed since.
    Lease(u64),
}

impl Value {
    /// Finds room for it in the tier.
    pub fn reserve(&self, key: &OwnKey, name: &Key<'_>) -> Result<Reservation, Refusal> {
        key.place.reserve(name, &self.as_new(), self.lingering)
    }

    fn as_new(&self) -> NewValue<'_> {
        NewValue {
            bytes: &self.bytes,
            kind: self.kind,
            stamp: self.stamp,
            expires: self.expires,
            cost: Cost::NONE,
            dependencies: &self.dependencies,
        }
    }

    /// What makes it wrong by changing.
    pub fn fences(&self, key: &OwnKey) -> impl Iterator<Item = FenceId> {
        self.dependencies.iter().copied().chain(key.place.fences)
    }

    /// What is known of it. It will be created when others can see it, so that it is of no age yet.
    pub fn meta(&self) -> Meta {
        let Self { kind, stamp, expires, .. } = *self;
        Meta { value_len: self.bytes.len(), kind, stamp, created: u32::MAX, expires, cost: Cost::NONE }
    }
}

/// What is changed.
#[derive(Debug)]
pub enum What {
    Set(OwnKey, Value),
    Remove(OwnKey),
    Touch(OwnKey, u32),
    Invalidate(FenceId),
}

impl What {
    /// Of what key, if it is of one.
    pub fn key(&self) -> Option<&OwnKey> {
        match self {
            Self::Set(key, _) | Self::Remove(key) | Self::Touch(key, _) => Some(key),
            Self::Invalidate(_) => None,
        }
    }

    /// What it takes in memory, about.
    pub fn bytes(&self) -> usize {
        OVERHEAD_BYTES
            + self.key().map_or(0, |key| key.bytes.len())
            + match self {
                Self::Set(_, value) => value.bytes.len() + value.dependencies.len() * 4,
                _ => 0,
            }
    }
}

/// What a change takes beside its bytes.
const OVERHEAD_BYTES: usize = 256;

/// A change, and when it was made.
#[derive(Debug)]
pub struct Change {
    pub what: What,
    /// The place of the change before it of the same key or fence.
    pub older: Option<usize>,
    /// Grows with each change. (Its place does not tell: a change takes the place of an older one of the same savepoint.)
    pub at: u64,
}
