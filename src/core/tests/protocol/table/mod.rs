//! The protocol of the table tier: a value is saved in a row, leaves the memory, and comes back. The code is `tier/saving.rs`,
//! `tier/directory.rs` and `tier/promoting.rs` of the core, and `store/table/` of the extension. `as_built/table.rs` takes the
//! steps of this model for one key with the real tier, but not with real rows.
//!
//! The actors are a writer, which makes one change after the other; an eviction, which may come at any time (except
//! where an entry leaves the memory when it is saved, and only then); the saver, which marks entries, copies them to rows, and
//! adds the locations of the rows; readers, which read again and again; and deciders, which set a key only if it has no value. The
//! mark of an entry goes with each change of its key, so the saver learns of a change after it has copied. `keys/` has the
//! competition of writers for a key.
//!
//! A *location* in the memory says where the row of a value is. It is found by the *bits* of the key, a part of the key's hash that
//! other keys may share (`tier/directory.rs`).
//!
//! A version of a key is the number of the change that made it. A time to live is a version of its own with the bytes
//! of an earlier one. Blocks and rows keep their contents until they are used again. Blocks, positions and file
//! numbers are few, so they recur. All values have the same stamp: no change in this model advances the clock that stamps
//! are taken from.
//!
//! A restart is one that loses the memory. Rows do not say from which life of the memory they are: a new memory has no
//! location, and the saver empties a table before it uses it again. So the epoch in the rows of the code, which is the
//! number of the memory's life, is a second protection.

mod properties;
mod reader;
mod saver;
mod scenarios;
mod state;
mod tier;
mod writer;

pub use scenarios::{Table, Variant};
pub use state::{Change, Location, Outcome, Read, Save, State, Step, Value, Write};

use crate::{Verdict, check, long};
use properties::{NOT_OVERLOOKED, NOT_REMOVED, NOT_STALE, PROMOTED_IS_PRESENT, SAVED_IS_PRESENT, WHOLE};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named.
#[test]
fn table() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Table, variant, verdict| {
        check(&format!("table, {name}: {variant:?}"), make(variant), verdict);
    };
    let transactions = |variant, verdict| run("transactions", Table::transactions, variant, verdict);
    let at_once = |variant, verdict| run("at once", Table::at_once, variant, verdict);
    let two_rows = |variant, verdict| run("two rows", Table::two_rows, variant, verdict);
    let touched = |variant, verdict| run("touched", Table::touched, variant, verdict);
    let same_bits = |variant, verdict| run("same bits", Table::same_bits, variant, verdict);
    let rewritten = |variant, verdict| run("rewritten", Table::rewritten, variant, verdict);
    let moved = |variant, verdict| run("moved", Table::moved, variant, verdict);
    let deciders = |variant, verdict| run("deciders", Table::deciders, variant, verdict);
    let scenarios: [&dyn Fn(Variant, Verdict); 7] =
        [&transactions, &at_once, &touched, &same_bits, &rewritten, &moved, &deciders];
    for as_built in scenarios {
        as_built(AsBuilt, Right);
    }
    run("decider and reader", Table::decider_and_reader, AsBuilt, Right);
    run("leaves", Table::leaves, AsBuilt, Right);
    if long() {
        run("two rows", Table::two_rows, AsBuilt, Right);
        run("two keys", Table::two_keys, AsBuilt, Right);
        run("both keys", Table::both_keys, AsBuilt, Right);
    }
    // A location is given only to a copy of the entry that is there.
    at_once(ComparesBlocks, Breaks(NOT_STALE));
    at_once(TwoSavers, Breaks(NOT_STALE));
    touched(KeepsMarkWhenTouched, Breaks(NOT_STALE));
    // If both marked entries had the same block, then the first copy has the properties of the first entry and the bytes of the
    // second one. It gets a location, because the second entry is still there with its mark.
    two_rows(MarksTwice, Breaks(WHOLE));
    moved(MovesWithoutLooking, Breaks(NOT_STALE));
    // A change forgets all locations with the key's bits in the same step. Until then, the announcement hides them.
    for variant in [ForgetsEarlier, ForgetsLater, ForgetsWhenAnnounced] {
        transactions(variant, Breaks(NOT_STALE));
    }
    two_rows(TwoLocations, Breaks(NOT_STALE));
    transactions(IgnoresAnnouncements, Breaks(NOT_STALE));
    transactions(IgnoresAnnouncements, Breaks(NOT_REMOVED));
    // If a reader reads another row, then that row may never have had a location. It may be a copy of a block that was
    // used again before it was copied. Comparing the file does not help `LocksLate`, because file numbers recur.
    for variant in [LocksLate, DoesNotLookAgain, DoesNotLock, TruncatesFirst] {
        at_once(variant, Breaks(WHOLE));
    }
    at_once(TruncatesFirst, Breaks(SAVED_IS_PRESENT));
    same_bits(DoesNotCompareKeys, Breaks(WHOLE));
    rewritten(DoesNotCompareFiles, Breaks(NOT_STALE));
    // A row becomes an entry only if it is the present value.
    at_once(PromotesWithoutLooking, Breaks(PROMOTED_IS_PRESENT));
    at_once(PromotesWithoutLooking, Breaks(NOT_REMOVED));
    deciders(PromotesWithoutLooking, Breaks(PROMOTED_IS_PRESENT));
    // A saved value is a value.
    deciders(DecidesByMemory, Breaks(NOT_OVERLOOKED));
    deciders(DecidesWithoutAskingAgain, Breaks(NOT_OVERLOOKED));
}
