//! The protocol of single flight: several callers want the result of the same query, and one of them computes it for all. The
//! actors are *callers*, which are sessions with one call each, and *writers*, which are transactions that change the relation
//! that the query reads. The code is `tier/acquiring.rs` and `tier/flight.rs` of the core, and `query/flight.rs` of the extension.
//! No test compares the model with the code, so a new order of steps there must be made here, too.
//!
//! A caller that finds no valid result draws a number from the clock of changes: its *arrival*. Then it looks, under the shard's
//! lock. If the key has no flight, the caller begins the *flight* of the key and *leads* it: it reads the flight's *stamp* from the
//! clock, takes a snapshot, runs the query, and *lands* the result. Otherwise it *waits*: it marks the slot of the present flight,
//! sleeps until a leader wakes it, and looks again.
//!
//! A caller takes a result that is valid, or a result whose stamp is not less than its arrival. The flight of such a result began
//! after the caller arrived, so its snapshot has all changes that were visible when the call began. A result that has become
//! invalid while the query ran is stored with its stamp if the slot is marked. Other callers find it invalid.
//!
//! A slot keeps two facts after its flight has ended, for the next flight of the key. (In `tier/flight.rs`, they are the number of
//! failures and the mark *awaited before*.) The *fruitless* level, which counts flights in a row without a result, stays until a
//! result is stored. If the flight was marked, the next flight *owes* its result to the waiters of the last flight, even if that
//! flight had a valid result. The reason: a new caller may begin and end the next flight before these waiters look again, and then
//! they must find a result that they may take. A flight that owes its result also stores an invalid result. If a flight ends
//! without a result, the next flight owes a result to the same waiters. A flight that replaces a flight that is over inherits its
//! mark.
//!
//! A result may vary on settings. The leader learns that when it has planned the query. It then ends the flight of the key without
//! settings, and looks at the key with its settings like any caller. If it begins the flight of that key, that flight gets the mark
//! of the first one.
//!
//! The model of a result is the set of the changes that were visible to its snapshot. The tier does each step that concerns a slot
//! or a stored result under one hold of the shard's lock. All results depend on one fence, so that a look is one step;
//! `read_rule.rs` has readers that check several fences.
//!
//! Callers *arrive together* if each of them has marked or begun the first flight before the end of that flight. A later caller may
//! need a run of its own, even if it drew its arrival before that end.
//!
//! No call must depend on a timeout: if only a timeout leads out of a state, the model counts that as a call that does not end. A
//! waiter's check for deadlocks counts as a step, because the waiter repeats it as long as it sleeps. The server itself finds a
//! deadlock that consists of locks alone, and lets one of the queries fail.
//!
//! `state.rs` has the steps and the state, `steps.rs` the effect of the steps, `properties.rs` the possible steps and the
//! properties, and `scenarios.rs` the scenarios and variants.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed.

mod properties;
mod scenarios;
mod state;
mod steps;

pub use scenarios::{Flights, Variant};

use crate::{Verdict, check, long};
use properties::{
    NO_HANG, NO_NEEDLESS_RUN, NO_STALE_HIT, NO_STALE_WAIT, ONE_FOR_EACH_TIMEOUT, TWO_FRUITLESS, TWO_RUNS,
};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the named property, or be
/// harmless.
#[test]
fn flights() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Flights, variant, verdict| {
        check(&format!("flights, {name}: {variant:?}"), make(variant), verdict);
    };
    let calm = |variant, verdict| run("calm", Flights::calm, variant, verdict);
    let writer = |variant, verdict| run("writer", Flights::writer, variant, verdict);
    let four_callers = |variant, verdict| run("four callers", Flights::four_callers, variant, verdict);
    let fails = |variant, verdict| run("fails", Flights::fails, variant, verdict);
    let refused = |variant, verdict| run("refused", Flights::refused, variant, verdict);
    let flush = |variant, verdict| run("flush", Flights::flush, variant, verdict);
    let removals = |variant, verdict| run("removals", Flights::removals, variant, verdict);
    let death = |variant, verdict| run("death", Flights::death, variant, verdict);
    let death_and_writer =
        |variant, verdict| run("death and writer", Flights::death_and_writer, variant, verdict);
    let varies = |variant, verdict| run("varies", Flights::varies, variant, verdict);
    let timeouts = |variant, verdict| run("timeouts", Flights::timeouts, variant, verdict);
    let lock = |variant, verdict| run("lock", Flights::lock, variant, verdict);
    let two_locks = |variant, verdict| run("two locks", Flights::two_locks, variant, verdict);
    let nested = |variant, verdict| run("nested", Flights::nested, variant, verdict);
    let recursive = |variant, verdict| run("recursive", Flights::recursive, variant, verdict);
    let scenarios: [&dyn Fn(Variant, Verdict); 15] = [
        &calm,
        &writer,
        &four_callers,
        &fails,
        &refused,
        &flush,
        &removals,
        &death,
        &death_and_writer,
        &varies,
        &timeouts,
        &lock,
        &two_locks,
        &nested,
        &recursive,
    ];
    for as_built in scenarios {
        as_built(AsBuilt, Right);
    }
    run("may fail", Flights::may_fail, AsBuilt, Right);
    if long() {
        run("two writers", Flights::two_writers, AsBuilt, Right);
        run("four may fail", Flights::four_may_fail, AsBuilt, Right);
        run("three removals", Flights::three_removals, AsBuilt, Right);
        varies(MovesWithNewSnapshot, Harmless);
        // The shortest paths to these failures are long.
        varies(MovedMarkIsOwed, Breaks(TWO_RUNS));
        run("three removals", Flights::three_removals, VoidIsNotCounted, Breaks(TWO_FRUITLESS));
        four_callers(UnstoredRemoves, Breaks(NO_NEEDLESS_RUN));
        run("four may fail", Flights::four_may_fail, FruitlessForgetsMark, Breaks(NO_NEEDLESS_RUN));
        run("five fail", Flights::five_fail, AsBuilt, Right);
    }
    // A stamp that is not less than an arrival was read after it, and before the snapshot.
    writer(ArrivalIsRead, Breaks(NO_STALE_WAIT));
    writer(StampAfterRun, Breaks(NO_STALE_HIT));
    writer(StampAfterRun, Breaks(NO_STALE_WAIT));
    writer(TakesAny, Breaks(NO_STALE_WAIT));
    // If an arrival is drawn too late, it is greater than the stamp of a flight whose result the caller could take.
    writer(DrawsAfterLook, Breaks(TWO_RUNS));
    writer(DrawsEachTime, Breaks(TWO_RUNS));
    // An invalid result keeps its stamp, and serves only waiters.
    writer(StoredWithNewStamp, Breaks(NO_STALE_HIT));
    writer(InvalidIsAHit, Breaks(NO_STALE_HIT));
    writer(InvalidNotStored, Breaks(TWO_RUNS));
    writer(InvalidNotStored, Breaks(NO_NEEDLESS_RUN));
    // A waiter may look late, after other callers have come and gone.
    four_callers(RemovesInvalid, Breaks(NO_NEEDLESS_RUN));
    // The mark of a flight counts for the next one, too, because the waiters may look late.
    for variant in [MarkEndsWithFlight, ValidForgetsMark] {
        writer(variant, Breaks(TWO_RUNS));
    }
    writer(OnlyWaitersInherit, Breaks(NO_NEEDLESS_RUN));
    death_and_writer(DeathForgetsMark, Breaks(NO_NEEDLESS_RUN));
    flush(ReplacedForgetsMark, Breaks(NO_HANG));
    writer(MarkLasts, Harmless);
    writer(NoMarks, Harmless);
    // The stamp of a flight must be from before the snapshot, also if the snapshot was taken to plan the query. The waiters of the
    // key without settings may look late at the key with their settings, as if they had marked its first flight.
    varies(MovesWithNewStamp, Breaks(NO_STALE_HIT));
    varies(MovesWithoutMark, Breaks(TWO_RUNS));
    // Each waiter that sleeps must be woken.
    for variant in [MarksAfterLook, MarksBeforeLook, ResetsAfterLook, WakesFirst] {
        calm(variant, Breaks(NO_HANG));
    }
    writer(MarksBeforeLookTwice, Harmless);
    // Waiters must not wait in line for flights without a result.
    fails(LevelNotInherited, Breaks(TWO_FRUITLESS));
    fails(LevelIsIgnored, Breaks(TWO_FRUITLESS));
    refused(RefusedIsAnError, Breaks(TWO_FRUITLESS));
    // The death of a session must end its flight and wake the waiters.
    for variant in [DeathKeepsSlot, DeathDoesNotWake, DiesBeforeWake] {
        death(variant, Breaks(NO_HANG));
    }
    // A deadlock may consist of locks and flights, and may begin after a check. Flights alone must never make a deadlock.
    lock(NoDeadlockCheck, Breaks(NO_HANG));
    two_locks(ChecksOnce, Breaks(NO_HANG));
    two_locks(ChecksLocksOnly, Breaks(NO_HANG));
    nested(LeaderWaits, Breaks(NO_HANG));
    recursive(WaitsForItself, Breaks(NO_HANG));
    timeouts(GivesUpByItself, Breaks(ONE_FOR_EACH_TIMEOUT));
}
