//! The protocol of single flight: several callers want the result of the same query, and one of them computes it for all. The
//! actors are *callers*, which are sessions with one call each, and *writers*, which are transactions that change the relation
//! that the query reads.
//!
//! A caller that finds no valid result draws a number from the clock of changes: its *arrival*. Then it looks, under the shard's
//! lock. It may begin the *flight* of the key and *lead* it: it reads the flight's *stamp* from the clock, takes a snapshot, runs
//! the query, and *lands* the result. Or it *waits*: it marks the slot of the present flight, and sleeps until a leader wakes it.
//! Then it looks again. It takes a result that is valid, or one whose stamp is not less than its arrival. The flight of such a
//! result began after the caller arrived, so its snapshot has all changes that were visible when the call began. A result that has
//! become invalid while the query ran is stored with its stamp if the slot is marked. Other callers find it invalid.
//!
//! A slot keeps two facts after its flight has ended, for the next flight of the key. Its *fruitless* level stays until a result
//! is stored. The mark of a flight makes the next flight *owe* its result to the waiters of the last one, even if that one had a
//! valid result. The reason: a new caller may begin and end the next flight before these waiters look again, and then they must
//! find a result that they may take. A flight that owes its result stores it also if it is invalid. A flight without a result
//! passes on what it owes. A flight that takes the slot of one that is over takes its mark, too.
//!
//! A result may vary on settings. The leader learns that when it has planned the query. Then it ends the flight of the key without
//! settings, and looks at the key with its settings like any caller. If it begins the flight of that key, it passes on the mark.
//!
//! A result is the set of the changes that were visible to its snapshot. Each step that concerns a slot or a stored result is what
//! the tier does under one hold of the shard's lock. All results depend on one fence, so that a look is one step; `read_rule.rs`
//! has readers that check several fences.
//!
//! Callers *arrive together* if each of them has marked or begun the first flight before that flight has ended. A later caller may
//! need a run of its own, even if it has drawn its arrival before.
//!
//! No call may depend on a timeout: a state from which only time leads on counts as a call that does not end. A waiter's check for
//! deadlocks counts as a step, because the waiter repeats it as long as it sleeps. The server itself finds a deadlock that consists
//! of locks alone, and lets one of the queries fail.

mod properties;
mod scenarios;
mod state;
mod steps;

pub use scenarios::{Flights, Variant};

use crate::{Verdict, check, long};
use properties::{
    NO_HANG, NO_NEEDLESS_RUN, NO_STALE_HIT, NO_STALE_WAIT, ONE_FOR_EACH_TIMEOUT, TWO_FRUITLESS, TWO_RUNS,
};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named, or be
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
    // An arrival that is drawn too late is greater than the stamp of a flight that would do.
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
    // The stamp of a flight is from before the snapshot, also if that was taken to plan the query. The waiters of the key without
    // settings may look late at the key with their settings, as if they had marked its first flight.
    varies(MovesWithNewStamp, Breaks(NO_STALE_HIT));
    varies(MovesWithoutMark, Breaks(TWO_RUNS));
    // Each waiter that sleeps is woken.
    for variant in [MarksAfterLook, MarksBeforeLook, ResetsAfterLook, WakesFirst] {
        calm(variant, Breaks(NO_HANG));
    }
    writer(MarksBeforeLookTwice, Harmless);
    // Flights without a result make no line of waiters.
    fails(LevelNotInherited, Breaks(TWO_FRUITLESS));
    fails(LevelIsIgnored, Breaks(TWO_FRUITLESS));
    refused(RefusedIsAnError, Breaks(TWO_FRUITLESS));
    // A session that dies ends its flight and wakes the waiters.
    for variant in [DeathKeepsSlot, DeathDoesNotWake, DiesBeforeWake] {
        death(variant, Breaks(NO_HANG));
    }
    // A deadlock may contain locks and flights, and may come into being after a check. Without locks, there is none.
    lock(NoDeadlockCheck, Breaks(NO_HANG));
    two_locks(ChecksOnce, Breaks(NO_HANG));
    two_locks(ChecksLocksOnly, Breaks(NO_HANG));
    nested(LeaderWaits, Breaks(NO_HANG));
    recursive(WaitsForItself, Breaks(NO_HANG));
    timeouts(GivesUpByItself, Breaks(ONE_FOR_EACH_TIMEOUT));
}
