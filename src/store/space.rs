//! Spaces: where keys live.

use crate::pg::shared::{self, HotTier};
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{FenceId, Key, Reserved, Scope};
use std::hash::Hasher;
use std::sync::OnceLock;

/// A space of this session's database.
#[derive(Debug)]
pub struct Space {
    pub tier: &'static HotTier,
    scope: Scope,
    /// What everything in it depends on: the database, and the space itself.
    pub fences: [FenceId; 2],
}

/// The number of the space that is always there.
const DEFAULT: u32 = 1;

impl Space {
    /// The space `default`; none while there is no cache.
    #[inline]
    pub fn default() -> Option<&'static Self> {
        static SPACE: OnceLock<Space> = OnceLock::new();
        if let Some(space) = SPACE.get() {
            return Some(space);
        }
        let tier = shared::tier()?;
        Some(SPACE.get_or_init(|| {
            let database = shared::database();
            let reserved = [Reserved::Database(database), Reserved::Space { database, space: DEFAULT }];
            let fences = reserved.map(|what| tier.fences().reserved(what));
            Self { tier, scope: tier.scope(database, DEFAULT, 0), fences }
        }))
    }

    /// A key of this space; none if it has a length that no key has.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8], hash: u64) -> Option<Key<'k>> {
        Key::new(self.scope, bytes, hash)
    }

    /// The fence of a tag: tags belong to the database, so the same name in another one is another tag.
    pub fn tag(&self, name: &[u8]) -> FenceId {
        // Apart from the keys' hashes, though nothing compares the two.
        self.tier.fences().tag(hash(name).rotate_left(17) ^ hash(&self.scope.database.to_ne_bytes()))
    }
}

/// The hash of some bytes, the same in all backends: each runs the same library, and the seed is shared.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(shared::hash_seed(), SharedSeed::global_fixed());
    hasher.write(bytes);
    hasher.finish()
}
