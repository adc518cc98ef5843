//! Looks at keys, and makes the batches that give Redis their present values.
//!
//! A *place* is a space whose values may be in Redis (`places.rs`). A *set* in Redis contains the keys that depend on a tag or a
//! relation. There is a set for each *bucket*, a stretch of time (`sets.rs`).

use super::places::Places;
use super::sets::{self, SetId, Sets};
use crate::pg::memory;
use crate::pg::shared::HotTier;
use crate::store::export;
use pg_cache_redis::{Batch, SetAddition, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The most keys of a batch.
pub const KEYS_MAX: usize = 500;
/// A batch ends with the value that brings the bytes of its values to this number, so a large last value may exceed it.
const BYTES_MAX: usize = 256 << 10;

/// A key to look at: the OIDs of its database and its space, and its bytes.
pub type KeyId = (u32, u32, Vec<u8>);

/// The parts of the worker's state that a look at keys needs.
#[derive(Debug)]
pub struct Looker<'w> {
    /// The cache in shared memory.
    pub tier: &'static HotTier,
    /// The names of databases and spaces.
    pub places: &'w mut Places,
    /// The sets in Redis that the worker has written.
    pub sets: &'w mut Sets,
    /// The longest time to live in Redis.
    pub max_ttl_ms: u64,
    /// Whether the worker leaves this Redis, so that it must remove all keys, also those with valid values.
    pub removes_all: bool,
}

impl Looker<'_> {
    /// Takes as many keys from `keys` as fit into a batch. Returns the batch that gives Redis their present values, and the sets
    /// that the batch creates. May raise errors.
    pub fn next_batch(&mut self, keys: &mut BTreeSet<KeyId>) -> (Batch, Vec<SetId>) {
        let (mut batch, mut additions) = (Batch::default(), BTreeMap::new());
        let (mut bytes, mut channels) = (0, BTreeSet::new());
        for _ in 0..KEYS_MAX {
            if bytes >= BYTES_MAX {
                break;
            }
            let Some(key) = keys.pop_first() else { break };
            memory::check();
            bytes += self.add(&key, &mut batch, &mut additions, &mut channels);
        }
        let is_new = |(id, addition): (&SetId, &SetAddition)| (!addition.must_exist).then_some(*id);
        let created = additions.iter().filter_map(is_new).collect();
        batch.set_additions = additions.into_values().collect();
        batch.channels = channels.into_iter().collect();
        (batch, created)
    }

    /// Adds the present value of a key to the batch, or the removal of the key if Redis must not have a value. Returns the bytes of
    /// the value. Leaves out a key without a place.
    fn add(
        &mut self,
        (database, space, key): &KeyId,
        batch: &mut Batch,
        additions: &mut BTreeMap<SetId, SetAddition>,
        channels: &mut BTreeSet<String>,
    ) -> usize {
        let Some(place) = self.places.find(*database, *space) else { return 0 };
        let mut redis_key = place.prefix.clone().into_bytes();
        redis_key.extend_from_slice(key);
        channels.insert(place.channel.clone());
        // A key in Redis must be UTF-8. Of a database with another encoding, only ASCII keys certainly are.
        let is_legal = place.is_utf8 && std::str::from_utf8(key).is_ok() || key.is_ascii();
        let copy = Some(())
            .filter(|()| is_legal && !self.removes_all)
            .and_then(|()| export::look(self.tier, *database, *space, key, place.is_utf8));
        let Some(copy) = copy else {
            batch.removals.push(redis_key);
            return 0;
        };
        let bucket = self.sets.bucket();
        let tags = copy.tags.iter().map(|tag| sets::of_tag(*database, tag));
        let ids = tags.chain(copy.relations.iter().map(|(database, oid)| sets::of_relation(*database, *oid)));
        for id in ids {
            // If an earlier batch has created the set, it must still exist in Redis: otherwise Redis has evicted it, and its
            // members are lost. Without a set, no change could remove the key, so Redis must not have its value.
            let Some(must_exist) = self.sets.add(id, bucket) else {
                batch.removals.push(redis_key);
                return 0;
            };
            let addition = additions.entry(id).or_insert_with(|| SetAddition {
                set: self.places.names().set(&place.database, bucket, id.1),
                members: Vec::new(),
                ttl_ms: self.sets.ttl_ms(),
                must_exist,
            });
            addition.members.push(redis_key.clone());
        }
        let ttl_ms = copy.ttl_ms.min(self.max_ttl_ms);
        let bytes = copy.json.len();
        batch.values.push(Value { key: redis_key, json: copy.json, ttl_ms });
        bytes
    }
}
