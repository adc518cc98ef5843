//! The keys, values and fences of the test.

use super::action::{RELATION, TAGS};
use pg_cache_core::testing::TestHost;
use pg_cache_core::{FenceId, Key, Owner, Relation, Tier};

/// Returns the owner of a flight for a key. The keys are spread over four roles, so that no role exceeds its share of
/// the places for flights.
pub fn owner_of(session: u32, key: u8) -> Owner {
    Owner { session, role: u32::from(key % 4) }
}

/// Returns the bytes of a value. Different values differ in length or content.
pub fn content(key: u8, size: usize, salt: u64) -> Vec<u8> {
    (0..size).map(|at| (at as u8).wrapping_mul(31) ^ key ^ (salt >> (at % 8 * 8)) as u8).collect()
}

/// Returns the class of a key. There are two classes, and all keys of a class have the same hash in every scope.
pub fn class(key: u8) -> u8 {
    key / 6 % 2
}

/// The six scopes: four spaces, and in two of them also the keys of a role.
pub const SCOPES: [(u8, u32); 6] = [(0, 0), (1, 0), (0, 1), (1, 1), (2, 0), (3, 0)];

pub fn space_of(key: u8) -> u8 {
    SCOPES[key as usize % SCOPES.len()].0
}

/// Calls `what` with a key. The keys have four different lengths, and the same bytes in six scopes. The hash passed
/// here cancels the scope that `Key::new` mixes in, so that all keys of a class share one hash and one bucket. There,
/// only the whole identity of a key distinguishes it from the others.
pub fn with_key<T>(tier: &Tier<'_, &TestHost>, key: u8, what: impl FnOnce(&Key<'_>) -> T) -> T {
    let (space, role) = SCOPES[key as usize % SCOPES.len()];
    let space = u32::from(space);
    let bytes = vec![b'k'; 1 + (key / 6) as usize * 50];
    let hash = u64::from(space) << 32 ^ u64::from(role) ^ u64::from(class(key)) << 20;
    what(&Key::new(tier.scope(1, space, role), &bytes, hash).expect("a legal key"))
}

pub fn dependencies(tier: &Tier<'_, &TestHost>, tags: u8) -> Vec<FenceId> {
    (0..TAGS).filter(|tag| tags >> tag & 1 == 1).map(|tag| fence_of(tier, tag)).collect()
}

pub fn fence_of(tier: &Tier<'_, &TestHost>, tag: u8) -> FenceId {
    if tag == RELATION {
        return tier.fences().relation(1, 7, Relation::Any);
    }
    // The highest bits of a hash select the fence, so no two tags share one.
    tier.fences().tag(u64::from(tag) << 60)
}
