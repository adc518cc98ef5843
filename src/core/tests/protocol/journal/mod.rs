//! The journal (`src/core/journal/`), and a near-cache that follows it (`docs/near-caches.md`). No test compares the model with the
//! code, so a new order of steps there must be made here, too. `tests/models/journal.rs` tests the memory orderings of the code.
//!
//! The journal is a ring of lines in shared memory. A writer changes something that a value depends on. After its
//! change is visible to every session, it reserves the lines of a record by adding to the tail, and writes them. The
//! number of the record is the base of the journal's life plus the position of the record's end. A writer may be slow
//! between any two steps.
//!
//! The client keeps the value of one key, with the names that it depends on, outside of the server. Its *cursor* is
//! the number of the last record that it has applied. Its calls of `cache_changes` return the records after the cursor
//! up to the first one that is not written, or a *reset*: the ring does not reach back to the cursor, a record was
//! overwritten while it was read, or the cursor is of another life. After a reset, the client drops the value and takes the tail as
//! its cursor (`cache_seq`). A read notes the cursor before it is sent. Its answer is not kept if a record that was applied
//! meanwhile names the value. Reads and calls run at the same time, and an answer may arrive late. Answers that are lost need no
//! steps of their own: the client might as well have applied them later.
//!
//! The database answers a read with a stored value that is valid by its fence, or computes the value from a new
//! snapshot. An answer that was computed is returned without a look at the fence. `read_rule.rs` has the steps of
//! fences apart; here a writer draws a number from the clock of changes and lowers its fence with it in one step. A
//! session that has not yet heard of a catalog's change computes the old value, although its snapshot is new.
//!
//! A crash loses the journal, the stored value, and the changes that are not visible. A visible change may lose its
//! record: then the new life tells the client. A promoted standby is such a life, too. Notifications occur only in
//! variants, because the client may call at any time.
//!
//! The properties say: after the client has applied the answer of a call that began when a record and all records
//! before it were written, no local read misses the change; after a reset, no local read misses a change that was
//! visible to every session before it; no local value is older than an applied record that names it; and, as the
//! reason for all of these, each change that a local value lacks has a number that is still ahead of the cursor.
//! Where a variant claims lines, no line may stay claimed.
//!
//! `naming.rs` is a model of its own: it shows which changes of relations must have a record. `state.rs` has the steps and the
//! state, `writer.rs` and `client.rs` the effect of the steps, `properties.rs` the properties, and `scenarios.rs` the scenarios and
//! variants.
//!
//! A *fence* is a word in shared memory that says when a dependency of entries last changed.

mod client;
mod naming;
mod properties;
mod scenarios;
mod state;
mod writer;

use scenarios::{Journal, Variant};

use crate::{Verdict, check, long};
use properties::{AHEAD, BOUNDED, NOT_OLDER, RELEASED};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named, or be
/// harmless.
#[test]
fn journal() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Journal, variant, verdict| {
        check(&format!("journal, {name}: {variant:?}"), make(variant), verdict);
    };
    let two_writers = |variant, verdict| run("two writers", Journal::two_writers, variant, verdict);
    let lapped = |variant, verdict| run("lapped", Journal::lapped, variant, verdict);
    let stored = |variant, verdict| run("stored", Journal::stored, variant, verdict);
    let catalogs = |variant, verdict| run("catalogs", Journal::catalogs, variant, verdict);
    let crashed = |variant, verdict| run("crash", Journal::crashed, variant, verdict);
    let prepared = |variant, verdict| run("prepared", Journal::prepared, variant, verdict);
    let two_callers = |variant, verdict| run("two callers", Journal::two_callers, variant, verdict);
    let three_records = |variant, verdict| run("three records", Journal::three_records, variant, verdict);
    let three_writers = |variant, verdict| run("three writers", Journal::three_writers, variant, verdict);
    let stored_catalogs =
        |variant, verdict| run("stored catalogs", Journal::stored_catalogs, variant, verdict);
    let long_record = |variant, verdict| run("long record", Journal::long_record, variant, verdict);
    let scenarios: [&dyn Fn(Variant, Verdict); 10] = [
        &two_writers,
        &lapped,
        &three_records,
        &long_record,
        &stored,
        &catalogs,
        &stored_catalogs,
        &crashed,
        &prepared,
        &two_callers,
    ];
    for as_built in scenarios {
        as_built(AsBuilt, Right);
    }
    if long() {
        three_writers(AsBuilt, Right);
        run("three lines", Journal::three_lines, AsBuilt, Right);
        run("two lapped callers", Journal::two_lapped_callers, AsBuilt, Right);
        run("all", Journal::all, AsBuilt, Right);
        three_writers(Claims, Harmless);
    }
    // A record must get its number after its change is visible to every session. It may get it before the fence is
    // lowered: until then, the database answers with no stored value.
    for variant in [AppendsBeforeVisible, ReservesBeforeVisible] {
        two_writers(variant, Breaks(BOUNDED));
        stored(variant, Breaks(BOUNDED));
    }
    two_writers(ReservesBeforeVisible, Breaks(AHEAD));
    catalogs(AppendsBeforeSpread, Breaks(BOUNDED));
    stored_catalogs(AppendsBeforeSpread, Breaks(BOUNDED));
    stored(AppendsBeforeLowered, Harmless);
    prepared(ErrorAppendsNothing, Breaks(BOUNDED));
    // A writer that is slower than one lap of the ring writes into the line of a later record.
    for variant in [JustStores, NoChecksum, ReplacesLaterLap] {
        lapped(variant, Breaks(BOUNDED));
    }
    // Another correct way: instead of a checksum, only one writer at a time may write a line.
    for scenario in [&lapped as &dyn Fn(Variant, Verdict), &three_records, &long_record] {
        scenario(Claims, Harmless);
    }
    lapped(LeavesBusyLine, Breaks(BOUNDED));
    long_record(KeepsClaims, Breaks(RELEASED));
    // If only the first line of a record is written, then the reader returns a reset.
    long_record(FirstLineFirst, Harmless);
    two_writers(SkipsUnwritten, Breaks(BOUNDED));
    two_writers(SkipsUnwritten, Breaks(AHEAD));
    // A reset makes up for a record that is not written, because its change is visible already.
    two_writers(GivesUpWaiting, Harmless);
    // The checksum of the model is exact. That of the code is not, so the code looks at the tail as well.
    lapped(NoTailAfterCopy, Harmless);
    lapped(ClaimsWithoutTail, Breaks(BOUNDED));
    lapped(WaitsForLaterLap, Breaks(BOUNDED));
    // A new life has numbers above all that the old one has given away, the last one included.
    for variant in [AcceptsBelowBase, SameBase, BaseAtOldTail] {
        crashed(variant, Breaks(BOUNDED));
    }
    // An old answer must have a cursor from before its snapshot, so that the records of later changes are ahead.
    for variant in [NotesAfterAnswer, OldSnapshot, Standby, ReadsBeforeSeq] {
        two_writers(variant, Breaks(BOUNDED));
    }
    two_writers(KeepsNamed, Breaks(NOT_OLDER));
    prepared(IgnoresEverything, Breaks(BOUNDED));
    stored(IgnoresFence, Breaks(BOUNDED));
    // A reset stands for all records that the client has missed, also for the answers that are under way.
    lapped(ResetSparesFlight, Breaks(BOUNDED));
    lapped(ResetTellsTail, Harmless);
    // A cursor may move back, but only applied records and a reset may move it on.
    two_callers(SeqReplacesCursor, Breaks(BOUNDED));
    two_writers(NotifyMovesCursor, Breaks(BOUNDED));
    two_writers(NotifyDrops, Harmless);
}
