//! The sets in Redis by which the keys with a tag are found, as far as the worker has written them.
//!
//! There is a set for each tag and each *bucket*, a stretch of time that is one minute longer than the longest time to live. A key
//! is added to the set of the present bucket. So when a tag changes, all its keys that may still be in Redis are in the sets of the
//! present bucket and of the one before. A set expires two stretches after its last addition. So no set grows for ever, and none
//! ends before its members. A relation that values depend on has such sets, too.

use crate::pg::clock;
use crate::store::keyspace::hash;
use std::collections::HashMap;
use std::time::Instant;

/// The most tags of which the worker remembers the sets. Values with further tags are not copied.
const KNOWN_MAX: usize = 1_000_000;

/// The longest expected time from the look at a key until Redis gets it, in milliseconds. The jobs before it take this time.
const DELAY_MS: u64 = 60_000;

/// A tag or a relation of a database: the OID of the database, and a hash.
pub type SetId = (u32, u64);

/// Returns the sets of a tag.
pub fn of_tag(database: u32, tag: &[u8]) -> SetId {
    (database, hash(tag))
}

/// Returns the sets of a relation.
pub fn of_relation(database: u32, relation: u32) -> SetId {
    // No tag ends with this byte, which is not legal in UTF-8.
    let [a, b, c, d] = relation.to_ne_bytes();
    (database, hash(&[a, b, c, d, 0xff]))
}

/// The sets of a tag.
#[derive(Clone, Copy, Debug)]
struct Known {
    /// The latest bucket with a set.
    bucket: u64,
    /// Whether the bucket before has a set, too.
    has_earlier: bool,
}

/// The sets that the worker has written and not removed.
#[derive(Debug)]
pub struct Sets {
    /// The length of a bucket, in milliseconds.
    bucket_ms: u64,
    /// The time when the worker started, in milliseconds since 1970, and the same moment on a clock that is never set.
    began: (u64, Instant),
    /// The bucket in which old sets were last forgotten.
    purged: u64,
    /// The sets of each tag.
    known: HashMap<SetId, Known>,
}

impl Sets {
    /// `max_ttl_ms` is the longest time to live of a key.
    pub fn new(max_ttl_ms: u64) -> Self {
        // A key lives from the time when Redis gets it, which is a little later than its bucket was chosen.
        let bucket_ms = max_ttl_ms + DELAY_MS;
        let began = (clock::unix_us() / 1000, Instant::now());
        Self { bucket_ms, began, purged: 0, known: HashMap::new() }
    }

    /// Returns the present bucket. It does not follow the clock of the system if that is set.
    pub fn bucket(&self) -> u64 {
        let (began_ms, began) = self.began;
        (began_ms + began.elapsed().as_millis() as u64) / self.bucket_ms
    }

    /// Returns the time to live of a set from an addition on, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        2 * self.bucket_ms
    }

    /// Notes that a key is added to the set of a bucket, which must be the present one. Returns whether the set was written before.
    /// None if there are too many tags, or no memory.
    pub fn add(&mut self, id: SetId, bucket: u64) -> Option<bool> {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&id) {
            // This looks at all sets, so it must happen at most once per bucket.
            if std::mem::replace(&mut self.purged, bucket) != bucket {
                self.known.retain(|_, known| known.bucket + 1 >= bucket);
            }
            if self.known.len() >= KNOWN_MAX {
                return None;
            }
        }
        self.known.try_reserve(1).ok()?;
        let before = self.known.get(&id).copied();
        let has_earlier = before
            .is_some_and(|known| known.bucket + 1 == bucket || known.bucket == bucket && known.has_earlier);
        self.known.insert(id, Known { bucket, has_earlier });
        Some(before.is_some_and(|known| known.bucket == bucket))
    }

    /// Returns the same tag, if it has sets.
    pub fn known(&self, id: SetId) -> Option<SetId> {
        self.known.contains_key(&id).then_some(id)
    }

    /// Forgets the sets of a tag, and returns the buckets whose sets may have keys: the caller must remove these sets and their
    /// members.
    pub fn take(&mut self, id: SetId, bucket: u64) -> Vec<u64> {
        let Some(known) = self.known.remove(&id).filter(|known| known.bucket + 1 >= bucket) else {
            return Vec::new();
        };
        let earlier =
            known.bucket.checked_sub(1).filter(|earlier| known.has_earlier && earlier + 1 >= bucket);
        [Some(known.bucket), earlier].into_iter().flatten().collect()
    }

    /// Notes that sets which were taken are perhaps still in Redis, because their removal has failed. `bucket` is that of the call
    /// of `take`.
    pub fn put_back(&mut self, id: SetId, bucket: u64) {
        let bucket = self.known.get(&id).map_or(bucket, |known| known.bucket.max(bucket));
        self.known.insert(id, Known { bucket, has_earlier: true });
    }

    /// Forgets the latest set of a tag, whose creation Redis has refused: the next addition creates it.
    pub fn forget(&mut self, id: SetId) {
        if let Some(known) = self.known.remove(&id).filter(|known| known.has_earlier) {
            self.known.insert(id, Known { bucket: known.bucket.saturating_sub(1), has_earlier: false });
        }
    }

    /// Forgets all sets. All keys in Redis must be compared with the cache afterwards.
    pub fn clear(&mut self) {
        self.known.clear();
    }
}
