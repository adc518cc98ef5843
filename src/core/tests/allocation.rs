//! Tests for a process without free memory. Operations on entries must not allocate memory of the process, because a failed
//! allocation would abort it. Reports about entries may allocate, and must return an error if an allocation fails.
//!
//! A *tier* is a cache in memory that several processes share. A *flight* is the right to publish a value for a key: a lease, a
//! fill or a claim (`tier/flight.rs`).

#![cfg(not(any(loom, counting)))]

// This test uses only the damage functions of the harness.
#[allow(dead_code)]
mod harness;

use harness::damage::lived_in;
use pg_cache_core::testing::{SIZES, TestHost, memory, owner, value};
use pg_cache_core::{
    Acquired, Buffer, FailingAllocator, FlightRequest, Host, Key, Meta, Quota, Region, RelationFence,
    ReserveOptions, Reserved, Sizes, StaleOk, Stamp, Tier,
};

#[global_allocator]
static ALLOCATOR: FailingAllocator = FailingAllocator;

/// A buffer of a fixed length, which is longer than every value of [`work`].
struct Fixed([u8; 4096]);

impl Buffer for Fixed {
    fn allocate(&mut self, meta: &Meta) -> &mut [u8] {
        &mut self.0[..meta.value_len]
    }
}

/// Calls most of the operations on entries that sessions and commits use, with more entries than fit, so that the tier must evict.
/// The values have fewer than 3 000 bytes. The nine relations share four records (`SIZES`).
fn work<H: Host>(tier: &Tier<'_, H>, names: &[[u8; 8]], content: &[u8]) {
    let mut found = Fixed([0; 4096]);
    for (number, name) in names.iter().enumerate() {
        let scope = tier.scope(1, (number % 3) as u32, 0);
        // The factor, 2^64 divided by the golden ratio, spreads consecutive numbers over all hashes.
        let hash = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let Some(key) = Key::new(scope, name, hash) else { continue };
        let content = &content[..(number * 97) % content.len()];
        let tag = tier.fences().tag(hash);
        let relation = tier.fences().claim_fence(1, number as u32 % 9 + 1, RelationFence::Any);
        let _ = tier.put(&key, &value(content, &[tag, relation]));
        let _ = tier.get(&key, Stamp::LATEST, &mut found);
        let _ = tier.get_stale(&key, Stamp::LATEST, &mut found);
        let _ = tier.peek(&key, Stamp::LATEST);
        let _ = tier.touch(&key, 100);
        let _ = tier.incr(&key, 1, &value(&[], &[]), ReserveOptions::default());
        if let Ok(reservation) =
            tier.reserve(&key, &value(content, &[]), Some(Quota { bytes: 4_000, budget: 100 }).into())
        {
            tier.announce(&key, &reservation);
            match number % 3 {
                0 => tier.withdraw(&key, reservation),
                _ => tier.confirm(&key, reservation),
            }
        }
        if let Ok(reservation) = tier.reserve_removal(&key) {
            tier.cancel(reservation);
        }
        if let Acquired::Lead(lease) = tier.acquire(&key, FlightRequest::lease(owner(1), 50))
            && let Ok(reservation) = tier.reserve(&key, &value(content, &[]), Default::default())
        {
            tier.publish_leased(&key, reservation, lease.id);
        }
        let stale_ok = Some(StaleOk { ticks: 100, valid_at: 0 });
        if let Acquired::Lead(fill) = tier.acquire(&key, FlightRequest::fill(owner(1), 50))
            && let Ok(reservation) = tier.reserve(&key, &value(content, &[]), Default::default())
        {
            tier.publish_leased(&key, reservation, fill.id);
        }
        if let Ok(claim) = tier.claim(&key, Some(Stamp::LATEST.into()), owner(2))
            && let Ok(reservation) = tier.reserve(&key, &value(content, &[tag]), stale_ok.into())
        {
            tier.announce(&key, &reservation);
            tier.confirm_claimed(&key, reservation, claim, Some(Stamp::VOID));
        }
        tier.fences().raise(relation);
        let _ = tier.lower_as(relation, tier.fences().draw());
        tier.fences().reserved(Reserved::Trees(1));
        if number % 4 == 0 {
            tier.remove(&key);
            tier.remove_marked(&key.mark());
        }
    }
    tier.sweep(100);
    tier.trim(&tier.scope(1, 1, 0), 1_000, 500);
    tier.usage();
    tier.relation_stats(1).for_each(drop);
    tier.all_stats().for_each(drop);
    tier.release_leases_of(1);
    tier.release_leases_of(2);
}

/// No operation on entries may allocate memory of the process, also when it has to evict. Each allocation fails here. So an
/// operation that allocates aborts the test, or, if it handles the failure, is counted in `asked`.
#[test]
fn operations_on_entries_allocate_nothing() {
    let memory = memory(64 * 1024);
    let host = TestHost::default();
    host.now.set(1);
    let sizes = Sizes { shards: 2, ..SIZES };
    let tier = Tier::format(Region::of_words(&memory), sizes, &host, 0).expect("it fits");
    let names: Vec<[u8; 8]> = (0..600u64).map(u64::to_le_bytes).collect();
    let content = vec![7; 3_000];
    let ((), asked) = FailingAllocator::with(0, || work(&tier, &names, &content));
    assert_eq!(asked, 0);
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// The n-th allocation of a report fails, and all allocations after it. The report must then return an error, and no call may
/// change the tier: a report that cannot handle the failure aborts the process. n goes from 1 up until all three reports need fewer
/// allocations: the check, the list of flights, and the entries of the first bucket. The first two must then return what they
/// returned before.
#[test]
fn a_report_without_memory_says_so_and_changes_nothing() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    host.now.set(1);
    let tier = lived_in(&memory, &host);
    let scope = tier.scope(1, 1, 0);
    for number in 0..20u64 {
        let name = number.to_le_bytes();
        let key = Key::new(scope, &name, number.wrapping_mul(0x9e37_79b9_7f4a_7c15)).expect("a legal key");
        let _ = tier.put(&key, &value(&name, &[]));
        tier.acquire(&key, FlightRequest::lease(owner(1), 1_000));
    }
    let expected = tier.check();
    let flights = tier.in_flight().expect("there is memory");
    assert!(!flights.is_empty());
    let (mut short, mut enough) = ([0; 3], 0);
    for number in 0.. {
        let (checked, _) = FailingAllocator::with(number, || tier.try_check());
        let (in_flight, _) = FailingAllocator::with(number, || tier.in_flight());
        let (inspected, _) = FailingAllocator::with(number, || tier.inspect(0));
        short[0] += u32::from(checked.is_err());
        short[1] += u32::from(in_flight.is_err());
        short[2] += u32::from(inspected.is_err());
        assert_eq!(tier.check(), expected, "allocation {number}");
        if let (Ok(checked), Ok(in_flight), Ok(_)) = (checked, in_flight, inspected) {
            assert_eq!((checked, in_flight), (expected, flights));
            enough = number;
            break;
        }
    }
    // Without failures, the test would prove nothing. The check must fail for several n, and the list of flights for at least one.
    // The first bucket may have no entry. Then its report needs no memory, and never fails.
    assert!(enough > 3 && short[0] > 3 && short[1] > 0, "{short:?} of {enough}");
}

/// If a reader's vector cannot grow, the read is still a hit, the vector stays empty, and `was_allocated` returns false. With
/// memory it returns true, also for a value of no bytes: otherwise an empty value would look like a failure.
#[test]
fn a_vector_without_memory_says_so() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    for content in [&[7; 100][..], &[]] {
        let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
        tier.put(&key, &value(content, &[])).expect("there is room");
        for (allocations, was_allocated) in [(0, false), (1, true)] {
            let mut found = Vec::new();
            let (meta, _) = FailingAllocator::with(allocations, || tier.get(&key, Stamp::LATEST, &mut found));
            assert_eq!(meta.map(|meta| meta.value_len), Ok(content.len()));
            assert_eq!(found.was_allocated(), was_allocated);
            assert_eq!(found, if was_allocated { content } else { &[] });
        }
    }
}
