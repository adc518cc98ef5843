//! The sets in Redis by which the keys with a tag are found, as far as the worker has written them. A relation that values depend
//! on has such sets, too.
//!
//! There is a set for each tag and each *bucket*, a stretch of time that is one minute longer than the longest time to live. A key
//! is added to the set of the present bucket. So when a tag changes, all its keys that may still be in Redis are in the sets of the
//! present bucket and of the bucket before. A set expires two stretches after its last addition. So no set grows for ever, and no
//! set expires before its members.

use crate::pg::clock;
use crate::store::keyspace::hash;
use std::collections::HashMap;
use std::time::Instant;

/// The most tags and relations whose sets the worker remembers. Values with further tags or relations are not copied.
const KNOWN_MAX: usize = 1_000_000;

/// The longest expected time in milliseconds from the look at a key until Redis has the value. The jobs that are sent before it
/// take this time.
const DELAY_MS: u64 = 60_000;

/// Identifies the sets of a tag or a relation: the OID of the database, and a hash.
pub type SetId = (u32, u64);

/// Returns the ID of the sets of a tag.
pub fn of_tag(database: u32, tag: &[u8]) -> SetId {
    (database, hash(tag))
}

/// Returns the ID of the sets of a relation.
pub fn of_relation(database: u32, relation: u32) -> SetId {
    // No tag in UTF-8 ends with this byte. A tag in another encoding may have the same bytes as a relation. Their keys are then in
    // the same sets, so a change of one also removes the keys of the other.
    let [a, b, c, d] = relation.to_ne_bytes();
    (database, hash(&[a, b, c, d, 0xff]))
}

/// The sets of a tag or a relation.
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
    /// The sets of each tag and relation.
    known: HashMap<SetId, Known>,
}

impl Sets {
    /// Makes the state of a worker that has written no sets. `max_ttl_ms` is the longest time to live of a key.
    pub fn new(max_ttl_ms: u64) -> Self {
        // A key lives from the time when Redis gets it, which is a little later than its bucket was chosen.
        let bucket_ms = max_ttl_ms + DELAY_MS;
        let began = (clock::unix_us() / 1000, Instant::now());
        Self { bucket_ms, began, purged: 0, known: HashMap::new() }
    }

    /// Returns the present bucket. It stays correct if the clock of the system is set.
    pub fn bucket(&self) -> u64 {
        let (began_ms, began) = self.began;
        (began_ms + began.elapsed().as_millis() as u64) / self.bucket_ms
    }

    /// Returns the time to live that a set gets with each addition, in milliseconds.
    pub fn ttl_ms(&self) -> u64 {
        2 * self.bucket_ms
    }

    /// Notes that a key is added to the set of a bucket, which must be the present bucket. Returns whether the set was written
    /// before. None if there are too many tags and relations, or if there is no memory.
    pub fn add(&mut self, id: SetId, bucket: u64) -> Option<bool> {
        if self.known.len() >= KNOWN_MAX && !self.known.contains_key(&id) {
            // This looks at all sets, so it must happen at most once in a bucket.
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

    /// Returns `id` if the worker has written sets of this tag or relation.
    pub fn known(&self, id: SetId) -> Option<SetId> {
        self.known.contains_key(&id).then_some(id)
    }

    /// Forgets the sets of a tag or a relation, and returns the buckets whose sets may have keys. The caller must remove these sets
    /// and their members.
    pub fn take(&mut self, id: SetId, bucket: u64) -> Vec<u64> {
        let Some(known) = self.known.remove(&id).filter(|known| known.bucket + 1 >= bucket) else {
            return Vec::new();
        };
        let earlier =
            known.bucket.checked_sub(1).filter(|earlier| known.has_earlier && earlier + 1 >= bucket);
        [Some(known.bucket), earlier].into_iter().flatten().collect()
    }

    /// Notes that the sets that a call of `take` has returned may still be in Redis, because their removal has failed. `bucket` is
    /// that of the call.
    pub fn put_back(&mut self, id: SetId, bucket: u64) {
        let bucket = self.known.get(&id).map_or(bucket, |known| known.bucket.max(bucket));
        self.known.insert(id, Known { bucket, has_earlier: true });
    }

    /// Forgets the latest set of a tag or a relation, because Redis has refused to create it. The next addition creates it again.
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
