//! The keys, values and fences of the harness. A key is a number below `KEYS`, and a tag a number below `TAGS`.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed. A *scope* is the database, the space
//! and the role of a key. A *flight* is the right to publish a value for a key: a lease, a fill or a claim (`tier/flight.rs`).

use super::action::{RELATION, TAGS};
use pg_cache_core::testing::TestHost;
use pg_cache_core::{FenceId, Key, Owner, RelationFence, Tier};

/// Returns the owner of a flight for a key: a session, with one of four roles.
pub fn owner_of(session: u32, key: u8) -> Owner {
    Owner { session, role: u32::from(key % 4) }
}

/// Returns the bytes of a value. Another key or another `salt` nearly always gives other bytes, so that the harness notices a value
/// in the wrong place.
pub fn content(key: u8, size: usize, salt: u64) -> Vec<u8> {
    (0..size).map(|at| (at as u8).wrapping_mul(31) ^ key ^ (salt >> (at % 8 * 8)) as u8).collect()
}

/// Returns the class of a key. There are two classes, and all keys of a class have the same hash in every scope ([`with_key`]). So
/// they share one flight.
pub fn class(key: u8) -> u8 {
    key / 6 % 2
}

/// The six scopes, each a space and a role: four spaces with keys of all roles (role 0), and in two of them also keys of role 1.
pub const SCOPES: [(u8, u32); 6] = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0)];

/// Returns the space of a key.
pub fn space_of(key: u8) -> u8 {
    SCOPES[key as usize % SCOPES.len()].0
}

/// Calls `use_key` with a key. The keys have four different lengths, and the same bytes in six scopes. The hash passed here cancels
/// the space and the role that `Key::new` mixes in, so that all keys of a class share one hash and one bucket. There, only the
/// whole identity of a key distinguishes it from the others. The two classes differ in bit 20; any bit would do.
pub fn with_key<T>(tier: &Tier<'_, &TestHost>, key: u8, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let (space, role) = SCOPES[key as usize % SCOPES.len()];
    let space = u32::from(space);
    let bytes = vec![b'k'; 1 + (key / 6) as usize * 50];
    let hash = u64::from(space) << 32 ^ u64::from(role) ^ u64::from(class(key)) << 20;
    use_key(&Key::new(tier.scope(1, space, role), &bytes, hash).expect("a legal key"))
}

/// Returns the fences of a set of tags.
pub fn dependencies(tier: &Tier<'_, &TestHost>, tags: u8) -> Vec<FenceId> {
    (0..TAGS).filter(|tag| tags >> tag & 1 == 1).map(|tag| fence_of(tier, tag)).collect()
}

/// Returns the fence of a tag. Tag 0 is a relation: see [`RELATION`].
pub fn fence_of(tier: &Tier<'_, &TestHost>, tag: u8) -> FenceId {
    if tag == RELATION {
        return tier.fences().claim_fence(1, 7, RelationFence::Any);
    }
    // The highest bits of a hash select the fence, so no two tags share one.
    tier.fences().tag(u64::from(tag) << 60)
}
