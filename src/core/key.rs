//! The identity of an entry, a cached value: a database, a space, a role, and the bytes of a key. A *space* is a set of keys in one
//! database, and a *scope* is the database, the space and the role together. A *mark* is a key without its bytes.
//!
//! A scope carries what every access to its keys needs: the *fences* of the database and of the space, words in shared memory that
//! say when all their entries were last invalidated, and the *cell*, the place where the space's statistics are counted. A *tier*
//! is a cache in memory that several processes share; it consists of *shards*, each with a lock and hash buckets of its own.

use crate::fence::FenceId;

/// The most bytes that a key may have. A key has at least one byte.
pub const KEY_BYTES_MAX: usize = 1024;

/// The database, space and role that a key belongs to: a part of an entry's identity. Made by [`crate::Tier::scope`], once for many
/// keys.
#[derive(Clone, Copy, Debug)]
pub struct Scope {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the space in the database.
    pub space: u32,
    /// The OID of the role that owns the entries, or 0 for entries of all roles.
    pub role: u32,
    /// The fences of the database and of the space, in this order.
    pub(crate) fences: [FenceId; 2],
    /// The pattern fence of the space, or the fence of the space if it has no pattern fence (`patterns/mod.rs`).
    pub(crate) patterns: FenceId,
    /// The cell that holds the space's statistics.
    pub(crate) cell: u32,
}

impl Scope {
    /// Whether both scopes have the same database, space and role.
    pub fn is(&self, other: &Self) -> bool {
        self.space_id() == other.space_id() && self.role == other.role
    }

    /// Returns the fences of the database and of the space, in this order. Every entry of the scope depends on both.
    pub fn fences(&self) -> [FenceId; 2] {
        self.fences
    }

    /// Returns the OID of the space.
    pub fn space(&self) -> u32 {
        self.space
    }

    /// Returns the OID of the role that the entries belong to, or 0.
    pub fn role(&self) -> u32 {
        self.role
    }

    /// Returns database and space as one word, as an entry stores them.
    #[inline(always)]
    pub(crate) fn space_id(&self) -> u64 {
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
    /// Makes a key of 1 to [`KEY_BYTES_MAX`] bytes. `hash` must be a hash of the bytes: equal keys must have equal hashes, in all
    /// processes that use the tier.
    ///
    /// Returns None if the key has another length.
    pub fn new(scope: Scope, bytes: &'k [u8], hash: u64) -> Option<Self> {
        let space = u64::from(scope.space) << 32 | u64::from(scope.role);
        // Never 0, because 0 marks an empty slot for a flight, the right to set a key (`tier/flight.rs`).
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

    /// Returns the bytes of the key.
    pub fn bytes(&self) -> &'k [u8] {
        self.bytes
    }

    /// Returns the scope of the key.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// Returns the mark of the key: enough to remove the key when its bytes are gone, or to prefetch its entry.
    #[inline]
    pub fn mark(&self) -> KeyMark {
        let Scope { database, space, role, .. } = self.scope;
        KeyMark { hash: self.hash, database, space, role }
    }

    /// Returns the half of the hash that an entry keeps and that chooses the bucket. The other half chooses the shard.
    pub(crate) fn fingerprint(&self) -> u32 {
        (self.hash >> 32) as u32
    }
}

/// Spreads a hash over both halves of a word, so that equal keys of different scopes have different halves. It is one
/// multiplication, because no step of a read can begin before it is done.
#[inline(always)]
fn mix(hash: u64) -> u64 {
    let product = u128::from(hash) * 0x9e37_79b9_7f4a_7c15;
    product as u64 ^ (product >> 64) as u64
}

/// A key without its bytes: see [`crate::Tier::remove_marked`] and [`crate::Tier::prefetch_bucket`]. It removes as reliably as a
/// key does: if another key of the same scope looks the same in the index, that key is removed too, which costs one needless miss.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(C)]
pub struct KeyMark {
    /// The OID of the database.
    pub database: u32,
    /// The OID of the space in the database.
    pub space: u32,
    /// The role that owns the entry, or 0.
    pub role: u32,
    hash: u64,
}

impl KeyMark {
    /// Returns the half of the hash that an entry keeps.
    pub(crate) fn fingerprint(&self) -> u32 {
        (self.hash >> 32) as u32
    }

    pub(crate) fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns database and space as one word, as an entry stores them.
    pub(crate) fn space_id(&self) -> u64 {
        u64::from(self.database) << 32 | u64::from(self.space)
    }
}
