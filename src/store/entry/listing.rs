//! Lists the keys of a space, in order and in pages, for `cache_keys`. A *space* is a named cache. The *tier* is the cache in
//! shared memory; it consists of *shards*, and these of hash buckets.

use super::access::keyspace_for_reading;
use super::reading::is_there;
use crate::pg::error::OrRaise;
use crate::pg::{memory, observer, shared};
use crate::store::space::Space;
use crate::store::status::{self, Status};
use crate::store::table::listing;
use crate::store::transaction::pending;
use std::collections::BTreeSet;

/// The most bytes that a call with several results returns, 64 MB, regardless of the size of the cache and of how often the call
/// names a key. Only a first value that is larger is returned all the same (`api/many.rs`).
pub const RETURNED_BYTES_MAX: usize = 64 << 20;

/// An estimate of the memory of a key in a list in addition to its bytes, in bytes.
const KEY_OVERHEAD_BYTES: usize = 32;

/// Returns the keys of a space that follow `after`, that `matches` accepts and that have a value for this session, sorted. Returns
/// the first `most` of them, as far as they fit into [`RETURNED_BYTES_MAX`]. May raise errors.
///
/// A key that has a value during the whole call is not missed, even if other sessions change it meanwhile: an entry stays in its
/// bucket, a new value of a key takes the place of the old one in one step, and the saved values of all shards are walked after the
/// memory. There are two exceptions: a value that is only in a table when the walk reaches its bucket, and only in memory when the
/// walk reaches the saved values of its shard; and a value that the saver copies to another table while these are walked.
pub fn keys(
    space: &Space,
    matches: impl Fn(&[u8]) -> bool,
    after: Option<&[u8]>,
    most: usize,
) -> Vec<Vec<u8>> {
    observer::note_cache();
    let keyspace = match keyspace_for_reading(space) {
        Ok(keyspace) => keyspace,
        Err(status) => {
            status::set(status);
            return Vec::new();
        }
    };
    status::set(Status::Hot);
    // The tier does not know the changes of this transaction. So the walks leave out the keys that it has changed, and these are
    // looked up once at the end.
    let mut own = pending::own_keys(&keyspace);
    own.sort_unstable();
    own.dedup();
    let mut first = FirstKeys { most, found: BTreeSet::new(), bytes: 0, end: None };
    let add = |first: &mut FirstKeys, key: Vec<u8>| {
        // Matching a long pattern takes time with each key, so cancellation is checked for each key.
        shared::check_for_interrupts();
        memory::check();
        if first.has_room_for(&key) && matches(&key) && is_there(&keyspace, &key) {
            first.add(key);
        }
    };
    let mut bucket = 0;
    loop {
        shared::check_for_interrupts();
        let found = keyspace.tier.keys_between(&keyspace.scope, bucket, after, first.end.as_deref());
        let Some(page) = found.or_raise() else { break };
        let others = page.keys.into_iter().filter(|key| own.binary_search(key).is_err());
        others.for_each(|key| add(&mut first, key));
        bucket = page.next;
    }
    let is_after = |key: &[u8]| after.is_none_or(|after| key > after);
    for shard in 0..keyspace.tier.shards() {
        listing::each_in_shard(keyspace.tier, shard, |key, _, _| {
            let is_wanted = key.scope().is(&keyspace.scope)
                && is_after(key.bytes())
                && own.binary_search_by(|own| own.as_slice().cmp(key.bytes())).is_err();
            if is_wanted {
                add(&mut first, memory::copy(key.bytes()));
            }
        });
    }
    own.into_iter().filter(|key| is_after(key)).for_each(|key| add(&mut first, key));
    memory::collect(first.found.into_iter())
}

/// The first keys, in order, of those that were added.
struct FirstKeys {
    /// The most keys to keep.
    most: usize,
    /// When there are too many, the last one is removed.
    found: BTreeSet<Vec<u8>>,
    /// The memory of the keys in `found`.
    bytes: usize,
    /// The least key that was left out. Keys behind it do not fit either. None if no key was left out yet.
    end: Option<Vec<u8>>,
}

impl FirstKeys {
    /// Returns whether a key may be one of the first keys. A key for which this is false must not be added.
    fn has_room_for(&self, key: &[u8]) -> bool {
        self.end.as_ref().is_none_or(|end| key < end.as_slice())
    }

    /// Adds a key, and leaves out the last keys if there are too many. Sets the status [`Status::Cut`] if their bytes are too many.
    fn add(&mut self, key: Vec<u8>) {
        let length = key.len();
        if !self.found.insert(key) {
            return;
        }
        self.bytes += KEY_OVERHEAD_BYTES + length;
        while self.found.len() > self.most || self.bytes > RETURNED_BYTES_MAX {
            if self.found.len() <= self.most {
                status::set(Status::Cut);
            }
            let Some(last) = self.found.pop_last() else { break };
            self.bytes -= KEY_OVERHEAD_BYTES + last.len();
            self.end = Some(last);
        }
    }
}
