//! Tests the fills that sessions wait for (`tier/flight.rs`): the answers to a waiting session, the results that it gets, and the
//! marks that a fill leaves to the next fill. Also tests readers that accept outdated values.
//!
//! A *fill* is the right of a session to compute and publish the value of a key. It is *lone* if no session may wait for it. A
//! session *arrives* when it begins to wait. An *outdated* value is one that only changes of rows have made invalid. A *tick* is
//! the unit of time, which the host of the tier chooses. A *tier* is a cache in memory that several processes share.
//!
//! In these tests, the numbers of sessions begin with 1, because a fill must have a session and 0 stands for none. To *land* a fill
//! is to publish its value.

use pg_cache_core::testing::{SIZES, TestHost, memory, value};
use pg_cache_core::{
    Acquired, FAILURES_MAX, FenceId, FlightRequest, InFlight, Key, Lease, Miss, NewValue, Owner, Reader,
    Region, Reserved, StaleOk, Stamp, Stored, Tier,
};

/// A deadline that does not pass.
const FOREVER: u32 = u32::MAX - 1;

/// A tier, a key, and a relation that its value depends on.
struct Bed<'t> {
    tier: &'t Tier<'t, &'t TestHost>,
    host: &'t TestHost,
    key: Key<'t>,
    rows: FenceId,
}

fn with_bed(test: impl FnOnce(&Bed<'_>)) {
    let memory = memory(2 << 20);
    let host = TestHost::default();
    host.now.set(1);
    let tier = Tier::format(Region::of_words(&memory), SIZES, &host, 0).expect("it fits");
    let key = Key::new(tier.scope(1, 1, 0), b"key", 1).expect("a legal key");
    let (rows, _) = tier.fences().dependency_fences(1, 7, tier.fences().now());
    test(&Bed { tier: &tier, host: &host, key, rows });
    assert_eq!(tier.check(), Vec::<String>::new());
}

impl Bed<'_> {
    fn ask(&self, session: u32, with: impl FnOnce(FlightRequest<'_>) -> FlightRequest<'_>) -> Acquired {
        let request = FlightRequest::fill(Owner { session, role: 7 }, FOREVER);
        self.tier.acquire(&self.key, with(request))
    }

    /// Begins a fill. Panics if the tier gives another answer.
    fn lead(&self, session: u32) -> Lease {
        match self.ask(session, |request| request) {
            Acquired::Lead(fill) => fill,
            other => panic!("{other:?}"),
        }
    }

    /// Waits for the fill of another session.
    fn wait(&self, session: u32, arrived: Option<Stamp>) -> (InFlight, Stamp) {
        match self.ask(session, |request| request.or_wait(arrived)) {
            Acquired::Wait(leader, arrived) => (leader, arrived),
            other => panic!("{other:?}"),
        }
    }

    fn land(&self, fill: Lease) -> Stored {
        self.land_with(fill, self.rows, None)
    }

    fn land_with(&self, fill: Lease, dependency: FenceId, stale_ok: Option<StaleOk>) -> Stored {
        let dependencies = [dependency];
        let new = NewValue { stamp: fill.stamp, expires: 1000, ..value(b"value", &dependencies) };
        let reservation = self.tier.reserve(&self.key, &new, stale_ok.into()).expect("there is room");
        self.tier.publish_leased(&self.key, reservation, fill.id)
    }

    /// Commits a change.
    fn change(&self, fence: FenceId) {
        self.tier.fences().raise(fence);
        self.tier.fences().lower(fence);
    }

    fn get(&self, arrived: Option<Stamp>) -> Result<(), Miss> {
        let reader = Reader { arrived, ..Stamp::LATEST.into() };
        self.tier.get(&self.key, reader, &mut Vec::new()).map(|_| ())
    }

    /// Reads the value, and accepts a value that was known to be valid at this tick or later. Returns the last tick at which it was
    /// known to be valid.
    fn get_outdated(&self, since: u32) -> Result<u32, Miss> {
        let reader = Reader { outdated_since: Some(since), ..Stamp::LATEST.into() };
        self.tier.get(&self.key, reader, &mut Vec::new()).map(|meta| meta.valid_at)
    }
}

/// A session that waits must get the result of the next fill even if a change has made that result invalid while the fill ran. It
/// must not get an invalid result of a fill that began before the session arrived. Other sessions must not get either result.
#[test]
fn a_waiting_session_gets_the_result_of_a_fill_that_began_later() {
    with_bed(|bed| {
        let first = bed.lead(1);
        let (leader, arrived) = bed.wait(2, None);
        assert_eq!((leader.id, leader.may_be_awaited), (first.id, true));
        assert!(arrived > first.stamp, "the fill may have read what was right before the session arrived");
        assert_eq!(bed.wait(2, Some(arrived)).1, arrived, "the session has arrived once");
        assert!(bed.tier.is_awaited(&bed.key, first.id));
        bed.change(bed.rows);
        assert_eq!(bed.land(first), Stored::New);
        assert_eq!(bed.get(Some(arrived)), Err(Miss::Fenced));

        let second = bed.lead(2);
        let (_, late) = bed.wait(3, None);
        bed.change(bed.rows);
        bed.land(second);
        assert_eq!(
            (bed.get(Some(arrived)), bed.get(Some(late)), bed.get(None)),
            (Ok(()), Err(Miss::Fenced), Err(Miss::Fenced))
        );
    });
}

/// A change that the waiting session has made itself must keep it from the result.
#[test]
fn a_waiting_session_does_not_get_what_it_has_changed() {
    with_bed(|bed| {
        let (fill, arrived) = (bed.lead(1), Stamp::VOID);
        bed.wait(2, None);
        bed.land(fill);
        let changed = [bed.rows];
        let reader = Reader { arrived: Some(arrived), changed_fences: &changed, ..Stamp::LATEST.into() };
        assert_eq!(bed.tier.get(&bed.key, reader, &mut Vec::new()).map(|_| ()), Err(Miss::Own));
    });
}

/// The next fill must know that sessions waited for the previous one, because they may not have looked yet. The fill after the next
/// one need not know it. A fill that ends without a value gives the sessions nothing to take, so it passes the mark on.
#[test]
fn the_next_fill_knows_that_sessions_wait() {
    with_bed(|bed| {
        let is_awaited = |fill: Lease| bed.tier.is_awaited(&bed.key, fill.id);
        let first = bed.lead(1);
        assert!(!is_awaited(first));
        bed.wait(2, None);
        bed.land(first);
        let second = bed.lead(3);
        assert!(is_awaited(second));
        assert!(bed.tier.fail_fill(&bed.key, second.id, 1));
        let third = bed.lead(4);
        assert!(is_awaited(third), "the second fill has served nobody");
        assert_eq!(bed.tier.release_leases_of(4), 1);
        let fourth = bed.lead(5);
        assert!(is_awaited(fourth), "nor has that of a session that has ended");
        bed.land(fourth);
        assert!(!is_awaited(bed.lead(6)), "the fourth fill has served the sessions");
    });
}

/// After two fills without a value, no session must wait for the next one. A fill with a value resets the count.
#[test]
fn no_session_waits_for_a_query_that_fails() {
    with_bed(|bed| {
        let may_wait =
            |session| matches!(bed.ask(session, |request| request.or_wait(None)), Acquired::Wait(..));
        for (failures, expected) in [(1, true), (1, false), (0, true), (FAILURES_MAX, false)] {
            let fill = bed.lead(1);
            match failures {
                0 => assert_eq!(bed.land(fill), Stored::New),
                failures => assert!(bed.tier.fail_fill(&bed.key, fill.id, failures)),
            }
            assert_eq!(bed.land(fill), Stored::Dropped, "it is over");
            assert_eq!(bed.tier.usage().flights, 0);
            let next = bed.lead(2);
            assert_eq!(may_wait(3), expected, "after {failures}");
            bed.tier.release_lease(&bed.key, next.id);
        }
    });
    with_bed(|bed| {
        let fill = bed.lead(1);
        bed.tier.fail_fill(&bed.key, fill.id, FAILURES_MAX);
        bed.host.now.set(1_000);
        bed.lead(2);
        assert!(matches!(bed.ask(3, |request| request.or_wait(None)), Acquired::Wait(..)), "it was long ago");
    });
}

/// A key that is removed again and again while its query runs must not keep a session waiting.
#[test]
fn a_void_fill_counts_as_a_failure() {
    with_bed(|bed| {
        for may_wait in [true, true, false] {
            let fill = bed.lead(1);
            let asked = bed.ask(2, |request| request.or_wait(None));
            assert_eq!(matches!(asked, Acquired::Wait(..)), may_wait);
            bed.tier.remove(&bed.key);
            assert_eq!(bed.land(fill), Stored::Dropped);
        }
    });
}

/// No session must wait for a lone fill, and a fill that is not lone replaces it.
#[test]
fn a_lone_fill_gives_way() {
    with_bed(|bed| {
        let Acquired::Lead(lone) = bed.ask(1, |request| request.lone()) else {
            panic!("nothing else is under way")
        };
        assert!(matches!(bed.ask(2, |request| request.lone().or_wait(None)), Acquired::Busy(_)));
        let other = bed.lead(3);
        assert!(matches!(bed.ask(2, |request| request.lone().or_wait(None)), Acquired::Wait(..)));
        assert_eq!((bed.land(lone), bed.land(other)), (Stored::Dropped, Stored::New));
    });
    with_bed(|bed| {
        let Acquired::Lead(lone) = bed.ask(1, |request| request.lone()) else {
            panic!("nothing else is under way")
        };
        bed.tier.fail_fill(&bed.key, lone.id, FAILURES_MAX);
        bed.lead(2);
        assert!(bed.wait(3, None).0.may_be_awaited, "the failure may be that of the first session only");
    });
}

/// A fill that takes over must end the other one, whose value is then refused. The sessions that wait go on waiting.
#[test]
fn a_fill_can_take_over() {
    with_bed(|bed| {
        let first = bed.lead(1);
        bed.wait(2, None);
        let Acquired::Lead(second) = bed.ask(3, |request| request.take_over()) else {
            panic!("it takes over")
        };
        assert!(bed.tier.is_awaited(&bed.key, second.id));
        assert_eq!((bed.land(first), bed.land(second)), (Stored::Dropped, Stored::New));
    });
}

/// Each session that gives up must double the time that the others must wait before one of them may give up: here from 100 ms to
/// 200 ms, and then to 400 ms.
#[test]
fn few_sessions_give_up_waiting() {
    with_bed(|bed| {
        let fill = bed.lead(1);
        let give_up = |now_ms| bed.tier.give_up(&bed.key, fill.id, now_ms, 100);
        assert_eq!((give_up(1_000), give_up(1_000), give_up(1_150)), (0, 200, 50));
        assert_eq!((give_up(1_200), give_up(1_200), give_up(1_600)), (0, 400, 0));
        assert_eq!(bed.tier.give_up(&bed.key, fill.id + 1, 1_600, 100), 0, "that fill is over");
    });
}

/// A reader that accepts an outdated value must get it only if nothing but rows has changed since the value was stored, and if the
/// value was known to be valid at the tick that the reader asks for, or later.
#[test]
fn only_changes_of_rows_are_forgiven() {
    let tag = |bed: &Bed<'_>| bed.tier.fences().tag(7 << 60);
    let space = |bed: &Bed<'_>| bed.tier.fences().reserved(Reserved::Space { database: 1, space: 1 });
    with_bed(|bed| {
        bed.host.now.set(50);
        bed.land(bed.lead(1));
        assert_eq!(bed.get_outdated(50), Ok(u32::MAX), "it is valid");
        bed.change(bed.rows);
        bed.host.now.set(90);
        assert_eq!((bed.get(None), bed.get_outdated(51)), (Err(Miss::Fenced), Err(Miss::Fenced)));
        assert_eq!(bed.get_outdated(50), Ok(50), "it was valid when it was stored");
        bed.change(space(bed));
        assert_eq!(bed.get_outdated(0), Err(Miss::Fenced));
    });
    with_bed(|bed| {
        bed.land_with(bed.lead(1), tag(bed), None);
        bed.change(tag(bed));
        assert_eq!(bed.get_outdated(0), Err(Miss::Fenced));
    });
    with_bed(|bed| {
        bed.host.now.set(50);
        bed.land_with(bed.lead(1), bed.rows, Some(StaleOk { ticks: 500, valid_at: 20 }));
        bed.change(bed.rows);
        assert_eq!((bed.get_outdated(21), bed.get_outdated(20)), (Err(Miss::Fenced), Ok(20)));
        bed.host.now.set(1_000);
        assert_eq!(bed.get_outdated(0), Err(Miss::Expired), "its time to live has ended");
    });
}
