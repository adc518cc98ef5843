//! Keyspaces: the keys of a space in the tier, with their hashes, the fences that they depend on, and the limits of their values. A
//! space (`space/`) makes its keyspace once; the other files of the store pass it on to reach the space's entries.
//!
//! A *space* is a named cache with its own options, and the *tier* is the cache in shared memory. A *fence* is a word in shared
//! memory that says when something that values depend on last changed (`docs/architecture.md`). The file also has the hash of keys
//! and tags, and the form of the keys of query results.

use crate::pg::shared::{self, HotTier};
use crate::store::kind;
use crate::store::latency;
use crate::store::status::Status;
use foldhash::SharedSeed;
use foldhash::fast::FoldHasher;
use pg_cache_core::{
    Cost, Counter, FenceId, IncrError, KEY_BYTES_MAX, Key, Kind, NewValue, Operation, Quota, Refusal,
    Reservation, ReserveOptions, Reserved, Scope, StaleOk,
};
use std::hash::Hasher;
use std::time::Duration;

/// The places where a space keeps its values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tiers {
    /// Only in memory.
    Hot,
    /// In memory until they are saved in a table, and then only there.
    Table,
    /// In memory, and in a table before they are evicted.
    #[default]
    Both,
}

impl Tiers {
    /// Returns the value of the option `tiers`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Hot => "hot",
            Self::Table => "table",
            Self::Both => "both",
        }
    }
}

/// The part of the tier that holds the keys of a space, for a role.
#[derive(Clone, Copy, Debug)]
pub struct Keyspace {
    pub tier: &'static HotTier,
    pub scope: Scope,
    /// The fences that every entry in this keyspace depends on: those of the database and of the space.
    pub fences: [FenceId; 2],
    /// The places where the space keeps its values.
    pub tiers: Tiers,
    /// The most bytes that the space may use in the tier. None: no limit.
    quota: Option<u64>,
    /// Whether Redis gets copies of the values.
    is_exported: bool,
}

/// The most buckets that are searched to make room within a quota. If the space is a thousandth of the tier, this takes some
/// milliseconds.
const QUOTA_BUDGET: u32 = 16_384;

impl Keyspace {
    /// Returns the keyspace of a space and a role, or of all roles if `role` is 0. If `exported_as` is the name of the space, Redis
    /// gets copies of the values that are stored from now on. None if there is no cache.
    pub fn of(
        space: u32,
        role: u32,
        tiers: Tiers,
        quota: Option<u64>,
        exported_as: Option<&str>,
    ) -> Option<Self> {
        let tier = shared::tier()?;
        let database = shared::database();
        let reserved = [Reserved::Database(database), Reserved::Space { database, space }];
        let fences = reserved.map(|what| tier.fences().reserved(what));
        let scope = tier.scope(database, space, role);
        if let Some(name) = exported_as {
            tier.set_space_name(&scope, name.as_bytes());
        }
        Some(Self { tier, scope, fences, tiers, quota, is_exported: exported_as.is_some() })
    }

    /// Returns a key of this keyspace, or none if its length is not valid for a key. `hash` must be [`hash`] of the bytes.
    #[inline]
    pub fn key<'k>(&self, bytes: &'k [u8], hash: u64) -> Option<Key<'k>> {
        Key::new(self.scope, bytes, hash)
    }

    /// Refuses and counts an entry that is too large to fit even into an empty cache or quota.
    pub fn check_size(&self, bytes: usize) -> Result<(), Status> {
        if bytes > self.tier.entry_bytes_max() {
            self.tier.count_for_space(&self.scope, Counter::RefusedSize, 1);
            return Err(Refusal::TooLarge.into());
        }
        if self.quota.is_some_and(|quota| bytes as u64 > quota) {
            self.tier.count_for_space(&self.scope, Counter::RefusedQuota, 1);
            return Err(Status::Refused("larger than the quota of the space"));
        }
        Ok(())
    }

    /// Writes a value to memory that no session can see yet, within the quota of the space. The caller must publish or cancel the
    /// reservation, or its memory is lost.
    pub fn reserve(
        &self,
        key: &Key<'_>,
        value: &NewValue<'_>,
        stale_ok: Option<StaleOk>,
    ) -> Result<Reservation, Refusal> {
        self.tier.reserve(key, value, ReserveOptions { stale_ok, ..self.options(value.kind) })
    }

    /// Adds to a counter. A new counter must fit into the quota of the space.
    pub fn incr(&self, key: &Key<'_>, by: i64, new: &NewValue<'_>) -> Result<i64, IncrError> {
        self.tier.incr(key, by, new, self.options(new.kind))
    }

    /// Returns the options for storing a value of a kind.
    fn options(&self, kind: Kind) -> ReserveOptions {
        let quota = self.quota.map(|bytes| Quota { bytes, budget: QUOTA_BUDGET });
        ReserveOptions { quota, is_exported: self.is_exported && kind::may_leave(kind), stale_ok: None }
    }

    /// Turns a value into a counter with this number. Returns false if the key does not hold this value any more.
    pub fn make_counter(&self, key: &Key<'_>, value: (Kind, &[u8]), number: i64) -> Result<bool, Refusal> {
        self.tier.to_counter(key, value, number, |new, stale_ok| self.reserve(key, new, stale_ok))
    }

    /// Counts a *stale* value: one that was served after it had stopped being valid. `valid_at` is the tick (`pg/clock.rs`) at
    /// which it was last known to be valid.
    #[cold]
    pub fn count_stale(&self, valid_at: u32) {
        self.tier.count_for_space(&self.scope, Counter::Stale, 1);
        self.tier.count_for_space(&self.scope, Counter::StaleTime, shared::ms_since(valid_at));
    }

    /// Counts a query that was run because its result was not found or had to be renewed.
    pub fn count_fill(&self, cost: Cost, is_stored: bool) {
        let what = if is_stored { Counter::Filled } else { Counter::FilledUnstored };
        self.tier.count_for_space(&self.scope, what, 1);
        self.tier.count_for_space(&self.scope, Counter::FillTime, cost.micros());
        latency::end_long(Operation::Fill, Duration::from_micros(cost.micros()));
    }

    /// Returns the fence of the space.
    pub fn own_fence(&self) -> FenceId {
        self.fences[1]
    }
}

/// Returns the fence of a tag. Tags belong to the database: the same name in another database is another tag.
pub fn tag(tier: &HotTier, name: &[u8]) -> FenceId {
    tier.fences().tag_of(shared::database(), hash(name))
}

/// The beginning of the key of a query result. The rest is a SHA-256 hash in hexadecimal digits (`query/asked.rs`).
pub const QUERY_PREFIX: &[u8] = b"query:";
/// The length of the key of a query result.
pub const QUERY_KEY_BYTES: usize = QUERY_PREFIX.len() + 64;

/// The key of a query result.
pub type QueryKey = [u8; QUERY_KEY_BYTES];

/// Returns the key of a query result with this hash: the prefix, and the hash in hexadecimal digits.
pub fn query_key(hash: &[u8; 32]) -> QueryKey {
    let mut bytes = [0; QUERY_KEY_BYTES];
    bytes[..QUERY_PREFIX.len()].copy_from_slice(QUERY_PREFIX);
    for (at, byte) in hash.iter().enumerate() {
        for (half, digit) in [byte >> 4, byte & 15].into_iter().enumerate() {
            bytes[QUERY_PREFIX.len() + 2 * at + half] = b"0123456789abcdef"[usize::from(digit)];
        }
    }
    bytes
}

/// Returns whether a key has the form of the key of a query result. A caller may choose such a key, too.
pub fn is_of_query(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let hash = key.strip_prefix(QUERY_PREFIX).filter(|_| key.len() == QUERY_KEY_BYTES);
    hash.is_some_and(|hash| hash.iter().all(is_digit))
}

/// Returns the reason why nothing can be stored under a key: its length. None if the length is valid.
#[inline]
pub fn why_unfit(key: &[u8]) -> Option<&'static str> {
    match key.len() {
        0 => Some("the key is empty"),
        1..=KEY_BYTES_MAX => None,
        _ => Some("the key is longer than 1024 bytes"),
    }
}

/// Returns the hash of some bytes. It is the same in all backends, because they all run the same library and share the seed.
#[inline]
pub fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = FoldHasher::with_seed(shared::hash_seed(), SharedSeed::global_fixed());
    hasher.write(bytes);
    hasher.finish()
}
