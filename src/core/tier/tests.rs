//! Unit tests of a tier, the cache, that need to see its parts: what readers and evictions do at the edges of damage.
//!
//! A *shard* is a part of the tier with a lock of its own. The *visited bit* of an entry says that a reader has asked for it. A
//! *zone* is 64 KB of blocks with a version that moves when an entry in it dies (`tier/shard.rs`).

use super::Tier;
use super::shard::Shard;
use crate::fence::Stamp;
use crate::hash::scatter;
use crate::key::Key;
use crate::layout::Sizes;
use crate::reader::{Buffer, Miss};
use crate::region::Region;
use crate::testing::{SIZES, TestHost, memory, value};
use crate::value::{Meta, NewValue, ReserveOptions, StaleOk};

/// A number that is no block has no zone and no visited bit. The computed positions would hit words of another shard. Fails if
/// unlinking an entry with such a number changes one of those words.
#[test]
fn evicting_a_number_that_is_no_block_writes_to_no_other_shard() {
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let (region, layout) = (tier.region, &tier.layout);
    let others = layout.block_at(layout.first_block(1))..memory.len();
    others.clone().for_each(|at| region.store(at, u64::MAX));
    let guard = Shard::new(region, layout, 0).lock(&tier.host);
    // The zone of the first number, and the visited bit of the second, would lie in the first of those words: a zone has 4 096
    // blocks, and a word has the visited bits of 256 blocks.
    let zone = (others.start - layout.zone_at(0)) * 4096;
    let visited = (others.start - layout.visited_bit(0).0) * 256;
    for block in [zone, visited] {
        let entry = guard.entry(block as u32);
        guard.take_visit(&entry);
        guard.change(|| guard.unlink(&entry, &entry.header()));
    }
    let written = others.filter(|at| region.load(*at) != u64::MAX).count();
    assert_eq!(written, 0);
}

/// Eviction takes a counter only if the small queue is empty or its oldest entry is a counter. Here the counters stand side by side
/// in the main queue, and there are more of them than one search passes over. If the search took the last of those, counters would
/// be missing.
#[test]
fn counters_stay_while_there_is_anything_else() {
    let memory = memory(512 * 1024);
    let host = TestHost::default();
    let sizes = Sizes { shards: 1, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let scope = tier.scope(1, 1, 0);
    let value = value(&[1; 80], &[]);
    let with_key = |number: u64, use_key: &dyn Fn(&Key<'_>)| {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        use_key(&Key::new(scope, &number.to_le_bytes(), hash).expect("a legal key"));
    };
    for number in 0..500 {
        with_key(number, &|key| assert_eq!(tier.incr(key, 1, &value, ReserveOptions::default()), Ok(1)));
    }
    // Returning keys go to the main queue, so the small queue is often short enough that eviction turns to the main queue.
    for step in 0..40_000u64 {
        let number = 1_000 + scatter(step) % 6_000 * (scatter(!step) % 6_000) / 6_000;
        with_key(number, &|key| {
            if tier.get(key, Stamp::LATEST, &mut Vec::new()).is_err() {
                tier.put(key, &value).expect("there is somebody to evict");
            }
        });
    }
    for number in 0..500 {
        with_key(number, &|key| assert!(tier.peek(key, Stamp::LATEST).is_ok(), "counter {number} is gone"));
    }
}

/// A reader checks the length in the header, and the length of a value with a note is read after that. If the entry dies in
/// between, the second length may be anything, and the caller's buffer must not be asked for that much memory.
#[test]
fn a_noted_entry_that_dies_while_it_is_read_asks_for_no_memory() {
    struct Refusing;
    impl Buffer for Refusing {
        fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
            panic!("{} bytes", meta.value_len)
        }
    }
    let memory = memory(256 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 7).expect("a legal key");
    let stale_ok = Some(StaleOk { ticks: 100, valid_at: 1 });
    let new = NewValue { note: b"note", ..value(b"value", &[]) };
    tier.publish(&key, tier.reserve(&key, &new, stale_ok.into()).expect("there is room"));
    let guard = tier.shard_of(&key).lock(&tier.host);
    let (entry, header) = guard.find(&key).expect("it was just stored");
    // The length of note and value in the entry that takes the blocks.
    entry.set_word(3, entry.word(3) | ((1 << 31) - 1));
    let (reader, into) = (Stamp::LATEST.into(), &mut Refusing);
    assert_eq!(tier.serve(&entry, &header, key.scope(), reader, 1, Some(into)), Err(Miss::Off));
    assert_eq!(tier.serve_stale(&entry, &header, key.scope(), reader, 1, &mut Refusing), None);
}
