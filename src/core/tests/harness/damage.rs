//! Tests for damaged memory: words of the region are overwritten while a tier works in it.
//!
//! The rule: with any content of the memory, every operation must end, and none may crash. `tests/faults.rs`, the
//! fuzzer and `tests/replay.rs` test this rule with these functions.
//!
//! A *tier* is a cache in memory that several processes share. The *region* is the memory of the tier, in words of 64 bits. A
//! *shard* is a part of the tier with a lock of its own. The *directory* of a shard has the *locations* of values that were saved
//! outside of the region: a *segment* and a position in it (`tier/directory.rs`). A *lease* and a *fill* are rights to compute the
//! value of a key, and a *claim* is the right to set a key that has no value (`tier/flight.rs`).

use arbitrary::{Arbitrary, Unstructured};
use pg_cache_core::testing::{SIZES, TestHost, memory, owner, value};
use pg_cache_core::{
    Acquired, Batch, Counter, FlightRequest, Glob, Host, Key, Kind, Location, NewValue, Quota, Region,
    RelationFence, Reservation, ReserveOptions, Sizes, StaleOk, Stamp, Tier,
};
use std::sync::atomic::{AtomicU64, Ordering};

/// The sizes of the tier that [`lived_in`] makes.
pub const LIVED_IN: Sizes = Sizes { patterns: 2, ..SIZES };

/// The same sizes with a directory.
const SAVING: Sizes = Sizes { locations: 32, ..LIVED_IN };

/// The size of the memory for a tier with [`SAVING`]. The records of all segments take 32 kB of it.
const SAVING_BYTES: usize = 84 * 1024;

/// Formats a tier, and calls its operations, so that all its structures have been used. It has no directory and no journal.
pub fn lived_in<'m>(memory: &'m [AtomicU64], host: &'m TestHost) -> Tier<'m, &'m TestHost> {
    lived_in_with(LIVED_IN, memory, host)
}

/// Does the same with a tier of these sizes. It must have no journal.
fn lived_in_with<'m>(sizes: Sizes, memory: &'m [AtomicU64], host: &'m TestHost) -> Tier<'m, &'m TestHost> {
    let tier = Tier::format(Region::of_words(memory), sizes, host, 0).expect("it fits");
    every_operation(&tier, 1);
    tier
}

/// Saves some entries of each shard at new locations in a segment, as a saver does. With `leave`, they leave the memory. The rows
/// themselves are nowhere.
fn save<H: Host>(tier: &Tier<'_, H>, segment: u16, leave: bool) {
    let mut batch = Batch::with_room(8).expect("there is memory");
    for shard in 0..tier.shards() {
        match leave {
            true => tier.mark_oldest(shard, 1, true, |_| true, &mut batch),
            false => {
                let bucket = u64::from(shard) * tier.buckets_total() / u64::from(tier.shards());
                tier.mark_bucket(bucket, 1, |_| true, &mut batch);
            }
        }
        for (position, marked) in (1..).zip(batch.marked()) {
            let mut key = vec![0; marked.key_len()];
            let mut fences = vec![tier.fences().tag(0); marked.dependency_count()];
            let (mut note, mut value) = (vec![0; marked.note_len()], vec![0; marked.meta().value_len]);
            tier.read_marked(marked, &mut key, &mut fences, &mut note, &mut value);
            let location =
                Location::new(segment, u64::from(shard) << 8 | position).expect("a legal location");
            tier.locate(marked, location, leave);
        }
    }
}

/// Does an operation of readers or of the saver on the location of a key, if it has one. `how` chooses the operation.
fn use_location<H: Host>(tier: &Tier<'_, H>, key: &Key<'_>, how: u8) {
    let Some(found) = tier.location(key) else { return };
    let content = [how; 40];
    let new = value(&content, &[]);
    match how % 4 {
        0 => tier.note_asked(key, found),
        1 => {
            if let Ok(reserved) = tier.reserve(key, &new, Default::default()) {
                tier.promote(key, reserved, found, 1);
            }
        }
        2 => {
            let to = Location::new(2, u64::from(how) + 1).expect("a legal location");
            tier.move_location(key, found, to);
        }
        _ => {
            tier.forget_location(key, found);
        }
    }
}

/// Calls most operations of a tier on 40 keys, but none that needs a journal. Without a directory, those that need one do nothing.
/// The answers do not matter here. Each call must return. Another `salt` gives the same keys other hashes.
pub fn every_operation<H: Host>(tier: &Tier<'_, H>, salt: u64) {
    let mut found = Vec::new();
    for number in 0..40u64 {
        let scope = tier.scope(1, (number % 2) as u32, 0);
        let bytes = vec![b'k'; 1 + number as usize];
        let key = Key::new(scope, &bytes, number ^ salt).expect("a legal key");
        let content = vec![number as u8; (number as usize * 97) % 2_500];
        let tag = tier.fences().tag(number << 60);
        let dependencies = [tag, tier.fences().claim_fence(1, number as u32 + 1, RelationFence::Any)];
        let _ = tier.put(&key, &value(&content, &dependencies));
        if let Ok(reservation) =
            tier.reserve(&key, &value(&content, &[]), Some(Quota { bytes: 4_000, budget: 100 }).into())
        {
            tier.publish(&key, reservation);
        }
        tier.prefetch_bucket(key.mark());
        tier.prefetch_entry(key.mark());
        tier.prefetch_for_change(key.mark());
        let _ = tier.get(&key, Stamp::LATEST, &mut found);
        let _ = tier.touch(&key, 100);
        let _ = tier.peek_to_add(&key, &mut [0; 64]);
        let _ = tier.to_counter(&key, (Kind(1), &content), 1, |new, stale_ok| {
            tier.reserve(&key, new, stale_ok.into())
        });
        let _ = tier.incr(&key, 1, &value(&[], &[]), ReserveOptions::default());
        if let Ok(reservation) = tier.reserve(&key, &value(&content, &[]), Default::default()) {
            tier.announce(&key, &reservation);
            if number % 3 == 0 { tier.withdraw(&key, reservation) } else { tier.confirm(&key, reservation) }
        }
        if let Acquired::Lead(lease) = tier.acquire(&key, FlightRequest::lease(owner(1), 50))
            && let Ok(reservation) = tier.reserve(&key, &value(&content, &[]), Default::default())
        {
            tier.publish_leased(&key, reservation, lease.id);
        }
        let stale_ok = Some(StaleOk { ticks: 100, valid_at: 0 });
        if let Ok(claim) = tier.claim(&key, Some(Stamp::LATEST.into()), owner(2))
            && let Ok(reservation) = tier.reserve(&key, &value(&content, &[tag]), stale_ok.into())
        {
            tier.announce(&key, &reservation);
            tier.confirm_claimed(&key, reservation, claim, (number % 3 == 0).then_some(Stamp::VOID));
        }
        let glob = Glob::new(&bytes[..bytes.len() / 2]).expect("it is a pattern");
        if let Some(announced) = tier.announce_pattern(&scope, glob) {
            match number % 3 {
                0 => tier.withdraw_pattern(announced),
                _ => tier.confirm_pattern(announced, tier.fences().draw()),
            }
        }
        let _ = tier.get_stale(&key, Stamp::LATEST, &mut found);
        if number % 4 == 0 {
            tier.remove(&key);
        }
        if number % 10 == 0 {
            save(tier, 1, number % 20 == 0);
        }
        use_location(tier, &key, number as u8);
        tier.fences().raise(tag);
        if number % 2 == 0 {
            tier.fences().lower(tag)
        } else {
            tier.fences().withdraw(tag)
        }
        if number % 8 == 0 {
            tier.fences().raise(dependencies[1]);
            let _ = tier.lower_as(dependencies[1], tier.fences().draw());
        }
    }
    tier.sweep(100);
    let mut bucket = 0;
    while tier.inspect(bucket).expect("there is memory").is_some() {
        bucket += 1;
    }
    let mut located = 0;
    for shard in 0..tier.shards() {
        tier.each_location(shard, |location, was_asked| {
            located += usize::from(was_asked || location.segment() > 0)
        });
    }
    tier.forget_segment((located % 3) as u16);
    tier.usage();
    tier.in_flight().expect("there is memory");
    tier.disown_leases_of(1);
    tier.release_leases_of(1);
    every_figure(tier);
    for space in 0..2 {
        tier.trim(&tier.scope(1, space, 0), 1_000, 500);
    }
}

/// Reads and resets all statistics of spaces and relations.
fn every_figure<H: Host>(tier: &Tier<'_, H>) {
    tier.counted(Counter::Hit);
    for stats in tier.all_stats() {
        let (database, space) = stats.space.unwrap_or_default();
        tier.space_stats(database, space);
        tier.reset_stats(database, space);
    }
    // These are more spaces than a backend has rows for, and more than have cells.
    for space in 0..20 {
        tier.count_for_space(&tier.scope(1, space, 0), Counter::Saved, 1);
    }
    tier.reset_all_stats();
    tier.relation_stats(1).for_each(drop);
    tier.reset_relation_stats(1);
}

/// Overwrites word `at`, which must be in the memory. `how` selects the new value: 0 is `bits`, 1 is a small number that looks like
/// a position, 2 is the old value with one bit flipped, 3 is the value of another word, and any other number is the largest value.
pub fn scribble(memory: &[AtomicU64], at: usize, how: u8, bits: u64) {
    let old = memory[at].load(Ordering::Relaxed);
    let new = match how {
        0 => bits,
        1 => bits % 4096,
        2 => old ^ 1 << (bits % 64),
        3 => memory[bits as usize % memory.len()].load(Ordering::Relaxed),
        _ => u64::MAX,
    };
    memory[at].store(new, Ordering::Relaxed);
}

/// One step of a test that works while the memory is overwritten. Any numbers are valid: `suffer` reduces keys, sizes and
/// positions to those that exist. `how` of the first two is that of [`scribble`]. `Arbitrary` selects a variant by its place among
/// all of them, so a new or moved variant changes the meaning of the files in `fuzz/regressions/damage`.
#[derive(Clone, Debug, Arbitrary)]
pub enum Blow {
    /// Overwrites any word.
    Anywhere {
        at: u16,
        how: u8,
        bits: u64,
    },
    /// Overwrites a word that is in use, which means that it is not 0.
    InUse {
        at: u16,
        how: u8,
        bits: u64,
    },
    Put {
        key: u8,
        size: u16,
        counter: bool,
    },
    /// Reads a key, and accepts a stale value.
    Get {
        key: u8,
    },
    Remove {
        key: u8,
    },
    Touch {
        key: u8,
        ttl: u8,
    },
    Incr {
        key: u8,
        by: i64,
    },
    Wait {
        ticks: u8,
    },
    /// Reserves memory for a value and leaves the store unfinished.
    Reserve {
        key: u8,
        size: u16,
        announce: bool,
    },
    /// Finishes the oldest unfinished store.
    PublishOrCancel {
        publish: bool,
    },
    /// Claims the key if `ttl` is a multiple of 4. Otherwise acquires a lease and a fill that end after `ttl` ticks.
    Acquire {
        key: u8,
        ttl: u8,
    },
    /// Publishes a value under the lease with the ID `lease`, which need not exist.
    PublishLeased {
        key: u8,
        lease: u8,
        size: u16,
    },
    /// Raises, lowers or withdraws the fence of a tag, a relation or a space. `how` selects the operation and the kind of fence.
    Fence {
        tag: u8,
        how: u8,
    },
    /// Looks through `budget` buckets for dead entries, and trims a space.
    Sweep {
        budget: u8,
    },
    /// Looks at the entries of a bucket, which need not exist.
    Inspect {
        bucket: u8,
    },
    /// Reads the statistics, resets them, and ends the leases of a session.
    Look,
    Check,
    /// Saves the oldest entries, or those of one bucket, in a segment.
    Save {
        segment: u8,
        leave: bool,
    },
    /// Does an operation on the location of a key, which `how` chooses: see [`use_location`].
    UseLocation {
        key: u8,
        how: u8,
    },
    /// Forgets all locations in a segment.
    ForgetSegment {
        segment: u8,
    },
    /// Another process attaches to the region, if its header still allows that.
    Reattach,
}

/// The number of the lock at which the test fails, because a step does not seem to end. It is chosen far above what a
/// step needs.
const LOCKS_PER_STEP: u32 = 50_000;

/// Runs the first 200 steps that the bytes encode, on a region of its own, and then checks and uses the damaged tier. With any
/// content of the memory, each step must end, and none may crash.
pub fn endure(bytes: &[u8]) {
    let memory = memory(SAVING_BYTES);
    let host = TestHost::default();
    host.now.set(1);
    let mut tier = lived_in_with(SAVING, &memory, &host);
    let mut begun = Vec::new();
    let mut bytes = Unstructured::new(bytes);
    for _ in 0..200 {
        if bytes.is_empty() {
            break;
        }
        let Ok(blow) = Blow::arbitrary(&mut bytes) else { break };
        host.patience.set(LOCKS_PER_STEP);
        if let Blow::Reattach = blow {
            // The header may be damaged, too. Then no new process can attach.
            if let Ok(again) = Tier::attach(Region::of_words(&memory), &host, 0) {
                tier = again;
            }
        }
        suffer(&tier, &memory, &host, &mut begun, &blow);
    }
    host.patience.set(LOCKS_PER_STEP);
    tier.check();
    host.patience.set(LOCKS_PER_STEP);
    tier.sweep(500);
    host.patience.set(0);
    every_operation(&tier, 2);
}

/// Unfinished stores: the key, whether it is announced, and the reservation.
type Begun = Vec<(u8, bool, Reservation)>;

/// Does one step. `Reattach` is done by the caller.
fn suffer(tier: &Tier<'_, &TestHost>, memory: &[AtomicU64], host: &TestHost, begun: &mut Begun, blow: &Blow) {
    match *blow {
        Blow::Anywhere { at, how, bits } => scribble(memory, at as usize % memory.len(), how % 5, bits),
        Blow::InUse { at, how, bits } => {
            let used = |at: &usize| memory[*at].load(Ordering::Relaxed) != 0;
            let from = at as usize % memory.len();
            if let Some(at) = (from..memory.len()).chain(0..from).find(used) {
                scribble(memory, at, how % 5, bits);
            }
        }
        Blow::Put { key, size, counter } => {
            let content = vec![key; size as usize % 3_000];
            let kind = if counter { Kind::COUNTER } else { Kind(1) };
            let new = NewValue { kind, ..value(&content, &[]) };
            let _ = with_key(tier, key, |key| tier.put(key, &new));
        }
        Blow::Get { key } => {
            let _ = with_key(tier, key, |key| tier.get_stale(key, Stamp::LATEST, &mut Vec::new()));
        }
        Blow::Remove { key } => {
            with_key(tier, key, |key| tier.remove(key));
        }
        Blow::Touch { key, ttl } => {
            with_key(tier, key, |key| tier.touch(key, host.now.get().saturating_add(ttl.into())));
        }
        Blow::Incr { key, by } => {
            let _ =
                with_key(tier, key, |key| tier.incr(key, by, &value(&[], &[]), ReserveOptions::default()));
        }
        Blow::Wait { ticks } => host.now.set(host.now.get() + u32::from(ticks)),
        Blow::Reserve { key, size, announce } => {
            let content = vec![key; size as usize % 3_000];
            // Values of odd sizes may be served stale.
            let stale_ok =
                (size % 2 == 1).then_some(StaleOk { ticks: size.into(), valid_at: host.now.get() });
            let reserve = |key: &Key<'_>| tier.reserve(key, &value(&content, &[]), stale_ok.into());
            if let Ok(reserved) = with_key(tier, key, reserve) {
                if announce {
                    with_key(tier, key, |key| tier.announce(key, &reserved));
                }
                begun.push((key, announce, reserved));
            }
        }
        Blow::PublishOrCancel { publish } if !begun.is_empty() => {
            let (key, announced, reserved) = begun.remove(0);
            with_key(tier, key, |key| match (announced, publish) {
                (true, true) => tier.confirm(key, reserved),
                (true, false) => tier.withdraw(key, reserved),
                (false, true) => {
                    tier.publish(key, reserved);
                }
                (false, false) => tier.cancel(reserved),
            });
        }
        Blow::Acquire { key, ttl } => {
            let deadline = host.now.get().saturating_add(ttl.into());
            with_key(tier, key, |key| {
                if ttl % 4 == 0 {
                    let _ = tier.claim(key, Some(Stamp::LATEST.into()), owner(1));
                } else {
                    tier.acquire(
                        key,
                        FlightRequest::lease(owner(1), deadline).unless_present(Stamp::LATEST.into()),
                    );
                    tier.acquire(key, FlightRequest::fill(owner(2), deadline));
                }
            });
        }
        Blow::PublishLeased { key, lease, size } => {
            let content = vec![key; size as usize % 3_000];
            if let Ok(reserved) =
                with_key(tier, key, |key| tier.reserve(key, &value(&content, &[]), Default::default()))
            {
                with_key(tier, key, |key| tier.publish_leased(key, reserved, lease.into()));
            }
        }
        Blow::Fence { tag, how } => {
            let fences = tier.fences();
            let fence = match how / 3 % 3 {
                0 => fences.tag(u64::from(tag) << 56),
                1 => fences.claim_fence(1, tag.into(), RelationFence::Any),
                _ => fences.reserved(pg_cache_core::Reserved::Space { database: 1, space: tag.into() }),
            };
            match how % 3 {
                0 => fences.raise(fence),
                1 => {
                    let _ = tier.lower_as(fence, fences.draw());
                }
                _ => fences.withdraw(fence),
            }
        }
        Blow::Sweep { budget } => {
            tier.sweep(budget.into());
            let scope = tier.scope(1, u32::from(budget % 2), 0);
            tier.trim(&scope, u64::from(budget) * 32, budget.into());
        }
        Blow::Inspect { bucket } => {
            tier.inspect(bucket.into()).expect("there is memory");
        }
        Blow::Look => {
            tier.usage();
            tier.release_leases_of(1);
            every_figure(tier);
        }
        Blow::Check => {
            tier.check();
        }
        Blow::Save { segment, leave } => save(tier, u16::from(segment % 4), leave),
        Blow::UseLocation { key, how } => with_key(tier, key, |key| use_location(tier, key, how)),
        Blow::ForgetSegment { segment } => {
            tier.forget_segment(u16::from(segment % 4));
        }
        Blow::PublishOrCancel { .. } | Blow::Reattach => {}
    }
}

/// Calls `use_key` with one of the keys that [`lived_in`] has used: the same bytes, and the hash for its salt, which is 1.
fn with_key<T>(tier: &Tier<'_, &TestHost>, key: u8, use_key: impl FnOnce(&Key<'_>) -> T) -> T {
    let number = u64::from(key % 40);
    let bytes = vec![b'k'; 1 + number as usize];
    use_key(&Key::new(tier.scope(1, (number % 2) as u32, 0), &bytes, number ^ 1).expect("a legal key"))
}
