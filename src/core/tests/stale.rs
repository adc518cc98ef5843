//! Tests values that may be served stale: for how long, to which readers, and when the tier removes them.
//!
//! A value is *stale* if it is not valid any more: it has expired, or a dependency has changed. A *fence* is the word in shared
//! memory that says when a dependency last changed. A *tick* is the unit of time, which the host of the tier chooses. A *sweep*
//! removes entries that can never be served again. A *tier* is a cache in memory that several processes share.

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Counter, FenceId, Freshness, Key, Miss, NewValue, Reader, Region, RelationFence, Reserved, StaleOk,
    Stamp, Tier,
};

/// The tick at which the entry expires.
const EXPIRES: u32 = 100;
/// The number of ticks for which the entry may be served stale.
const TICKS: u32 = 50;

/// A tier with one entry, and the key and the only tag of the entry.
struct Bed<'t> {
    /// The tier.
    tier: &'t Tier<'t, &'t TestHost>,
    /// The host of the tier, whose clock the tests set.
    host: &'t TestHost,
    /// The key of the entry.
    key: Key<'t>,
    /// The fence of the only tag of the entry.
    tag: FenceId,
}

/// Runs a test on a tier with one entry, which was stored at tick 10, and checks the tier afterwards.
fn with_entry(test: impl FnOnce(&Bed<'_>)) {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    host.now.set(10);
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let tag = tier.fences().tag(7 << 60);
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    let dependencies = [tag];
    let new = NewValue { stamp: tier.fences().now(), expires: EXPIRES, ..value(b"value", &dependencies) };
    let stale_ok = Some(StaleOk { ticks: TICKS, valid_at: 10 });
    let reservation = tier.reserve(&key, &new, stale_ok.into()).expect("there is room");
    tier.publish(&key, reservation);
    test(&Bed { tier: &tier, host: &host, key, tag });
    assert_eq!(tier.check(), Vec::<String>::new());
}

impl Bed<'_> {
    /// Changes a dependency, and commits.
    fn change(&self, fence: FenceId) {
        self.tier.fences().raise(fence);
        self.tier.fences().lower(fence);
    }

    /// Reads the key as a reader that accepts no stale value.
    fn get(&self) -> Result<(), Miss> {
        self.tier.get(&self.key, Stamp::LATEST, &mut Vec::new()).map(|_| ())
    }

    /// Reads the key, and accepts a stale value. Fails if the value is not the stored one.
    fn get_stale(&self) -> Result<Freshness, Miss> {
        let mut found = Vec::new();
        let outcome = self.tier.get_stale(&self.key, Stamp::LATEST, &mut found);
        assert!(outcome.is_err() || found == b"value");
        outcome.map(|(_, freshness)| freshness)
    }

    /// Sweeps the whole tier at a tick. Returns the number of removed entries.
    fn swept_at(&self, tick: u32) -> u64 {
        self.host.now.set(tick);
        self.tier.sweep(10_000)
    }
}

/// An expired entry may be served stale for its number of ticks. A sweep must keep it until then, and remove it
/// after that.
#[test]
fn an_expired_entry_may_be_served_stale_for_its_ticks() {
    with_entry(|bed| {
        assert_eq!(bed.get_stale(), Ok(Freshness::Valid));
        bed.host.now.set(EXPIRES);
        assert_eq!(bed.get(), Err(Miss::Expired));
        assert_eq!(bed.get_stale(), Ok(Freshness::Stale { until: EXPIRES + TICKS }));
        assert_eq!(bed.swept_at(EXPIRES + TICKS - 1), 0, "it may still be served");
        assert_eq!(bed.get_stale(), Ok(Freshness::Stale { until: EXPIRES + TICKS }));
        assert_eq!(bed.swept_at(EXPIRES + TICKS), 1);
        assert_eq!((bed.get_stale(), bed.tier.counted(Counter::Expired)), (Err(Miss::Absent), 1));
    });
}

/// An invalidated entry may be served stale for its number of ticks, from the last tick at which a hit was noted. A sweep must keep
/// it until then, and remove it after that.
#[test]
fn an_invalidated_entry_may_be_served_stale_from_the_last_noted_hit_on() {
    with_entry(|bed| {
        // The tier notes a hit at most once in twenty ticks, and never notes a peek.
        for (tick, peeks) in [(25, false), (31, false), (50, false), (90, true)] {
            bed.host.now.set(tick);
            match peeks {
                true => assert!(bed.tier.peek(&bed.key, Stamp::LATEST).is_ok()),
                false => assert_eq!(bed.get(), Ok(())),
            }
        }
        bed.change(bed.tag);
        // The last note is from tick 31, which is 59 ticks ago.
        assert_eq!((bed.get(), bed.get_stale()), (Err(Miss::Fenced), Err(Miss::Fenced)));
        assert_eq!(bed.swept_at(91), 1);
    });
    with_entry(|bed| {
        bed.host.now.set(40);
        assert_eq!(bed.get(), Ok(()));
        bed.change(bed.tag);
        assert_eq!(bed.get_stale(), Ok(Freshness::Stale { until: 40 + TICKS }));
        assert_eq!(bed.swept_at(40 + TICKS - 1), 0, "it may still be served");
        assert_eq!(bed.swept_at(40 + TICKS), 1);
        assert_eq!((bed.get_stale(), bed.tier.counted(Counter::Fenced)), (Err(Miss::Absent), 1));
    });
}

/// After a flush of its space, or an announced removal, an entry must not be served stale.
#[test]
fn a_flush_and_a_removal_end_the_stale_time_at_once() {
    with_entry(|bed| {
        bed.change(bed.tier.fences().reserved(Reserved::Space { database: 1, space: 1 }));
        assert_eq!(bed.get_stale(), Err(Miss::Fenced));
        assert_eq!(bed.swept_at(11), 1);
    });
    with_entry(|bed| {
        let removal = bed.tier.reserve_removal(&bed.key).expect("there is room");
        bed.tier.announce(&bed.key, &removal);
        assert_eq!(bed.get_stale(), Err(Miss::Fenced), "it is about to be removed");
        bed.tier.confirm(&bed.key, removal);
        assert_eq!(bed.get_stale(), Err(Miss::Absent));
    });
}

/// A session that has itself changed a dependency must not get the stale value. Other sessions do.
#[test]
fn a_session_gets_no_stale_value_that_its_own_change_invalidated() {
    with_entry(|bed| {
        let changed = [bed.tag];
        let reader = pg_cache_core::Reader { changed_fences: &changed, ..Stamp::LATEST.into() };
        let mut found = Vec::new();
        assert_eq!(bed.tier.get_stale(&bed.key, reader, &mut found).map(|_| ()), Err(Miss::Own));
        bed.change(bed.tag);
        assert_eq!(bed.tier.get_stale(&bed.key, reader, &mut found).map(|_| ()), Err(Miss::Fenced));
        assert!(bed.get_stale().is_ok(), "others do");
    });
}

/// The word that says how long an entry may be served stale must be found in entries of one piece or several, behind keys and
/// dependencies of any length. Each length of a key has another number of ticks, so a wrong word gives a wrong answer.
#[test]
fn the_stale_time_is_found_in_entries_of_any_shape() {
    let memory = memory(96 * 1024);
    let host = TestHost::default();
    host.now.set(10);
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let tags: Vec<_> = (0..5).map(|number| tier.fences().tag(number << 60)).collect();
    for length in 1..40 {
        for size in [0, 1, 7, 8, 500, 3_000] {
            let (name, content) = (vec![b'k'; length], vec![length as u8; size]);
            let key = Key::new(tier.scope(1, 1, 0), &name, length as u64).expect("a legal key");
            let new = NewValue { expires: 10, ..value(&content, &tags[..length % 5]) };
            let stale_ok = Some(StaleOk { ticks: length as u32, valid_at: 10 });
            let reservation = tier.reserve(&key, &new, stale_ok.into()).expect("there is room");
            tier.publish(&key, reservation);
            let mut found = Vec::new();
            let (_, freshness) = tier.get_stale(&key, Stamp::LATEST, &mut found).expect("it may be served");
            assert_eq!((freshness, found), (Freshness::Stale { until: 10 + length as u32 }, content));
        }
    }
    assert_eq!(tier.check(), Vec::<String>::new());
}

/// A tracked reader, as in a SERIALIZABLE transaction, must read relations itself. So it must get no value that depends on a
/// relation, neither a valid one nor a stale one.
#[test]
fn a_tracked_reader_gets_no_stale_value_of_a_relation() {
    let memory = memory(48 * 1024);
    let host = TestHost::default();
    host.now.set(10);
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    let dependencies = [tier.fences().claim_fence(1, 7, RelationFence::Any)];
    let new = NewValue { stamp: tier.fences().now(), expires: EXPIRES, ..value(b"value", &dependencies) };
    let stale_ok = Some(StaleOk { ticks: TICKS, valid_at: 10 });
    let reservation = tier.reserve(&key, &new, stale_ok.into()).expect("there is room");
    tier.publish(&key, reservation);
    let get = |tracked| {
        let reader = Reader { tracked, ..Stamp::LATEST.into() };
        tier.get_stale(&key, reader, &mut Vec::new()).map(|(_, freshness)| freshness)
    };
    assert_eq!((get(false), get(true)), (Ok(Freshness::Valid), Err(Miss::Own)));
    host.now.set(EXPIRES);
    let until = EXPIRES + TICKS;
    assert_eq!((get(false), get(true)), (Ok(Freshness::Stale { until }), Err(Miss::Expired)));
}
