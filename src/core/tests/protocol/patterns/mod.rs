//! The protocol of invalidations by a pattern (`src/core/patterns/mod.rs`): a pattern is kept in a table, and readers compare their
//! keys with the patterns that are later than the entry. No test compares the model with the code (`tier/patterns.rs` and
//! `patterns/slots.rs`), so a new order of steps there must be made here, too.
//!
//! There are two keys in one space, and two patterns; the first pattern matches the first key, and the second one the second key or
//! both. The actors are: a writer for each pattern, which may abort; fills, each of which stores a value of a key in memory (a slow
//! fill stands for a lease that is held for long); a saver, which copies an entry to a row; an eviction; and readers, which also
//! promote rows, that is, make them entries again. A *slot* of the table holds one pattern. In some scenarios there is only one
//! slot, so that the second pattern must *retire* the first one: the *floor* of the space gets the number of the first pattern, and
//! values with lower stamps are refused.
//!
//! A value is the set of patterns that were visible when it was computed. It is right for a reader if it has all patterns that
//! match its key and were visible when the reader began. The model leaves out the fence of the database and the dependencies of
//! entries: `read_rule.rs` has them.
//!
//! A *stamp* is a number of the clock of changes, which each committed change increments. An entry is *renewed* with a later stamp
//! if no pattern matches its key. A pattern is *announced* while its transaction commits. A *fence* is a word in shared memory that
//! says when a dependency of entries last changed.

mod properties;
mod scenarios;
mod state;
mod steps;

pub use scenarios::{Patterns, Variant};

use crate::{Verdict, check, long};
use properties::{NOT_FOR_NOTHING, NOT_STALE, OWN_IS_HIT, SPARES_RENEWED};

/// The protocol as built must keep all properties in each scenario. Each other variant must break the property that is named, or be
/// harmless.
#[test]
fn patterns() {
    use Variant::*;
    use Verdict::*;
    let run = |name: &str, make: fn(Variant) -> Patterns, variant, verdict| {
        check(&format!("patterns, {name}: {variant:?}"), make(variant), verdict);
    };
    let memory = |variant, verdict| run("memory", Patterns::memory, variant, verdict);
    let retired = |variant, verdict| run("retired", Patterns::retired, variant, verdict);
    let saved = |variant, verdict| run("saved", Patterns::saved, variant, verdict);
    let two_fills = |variant, verdict| run("two fills", Patterns::two_fills, variant, verdict);
    let renewals = |variant, verdict| run("renewals", Patterns::renewals, variant, verdict);
    let own = |variant, verdict| run("own value", Patterns::own_value, variant, verdict);
    let scenarios: [&dyn Fn(Variant, Verdict); 5] = [&memory, &retired, &saved, &renewals, &own];
    for as_built in scenarios {
        as_built(AsBuilt, Right);
    }
    if long() {
        two_fills(AsBuilt, Right);
        run("saved and retired", Patterns::saved_and_retired, AsBuilt, Right);
    }
    // The slot stays announced until it is live, so the writer may lower the pattern fence before or after it marks the slot as
    // live.
    memory(LowersBeforeLive, Harmless);
    // A writer tells readers of the pattern before its transaction is visible, and draws the number afterwards.
    memory(AnnouncesLate, Breaks(NOT_STALE));
    memory(RaisesLate, Breaks(NOT_STALE));
    memory(DrawsEarly, Breaks(NOT_STALE));
    // A reader compares with all patterns beyond its entry's stamp, also with announced ones.
    memory(IgnoresAnnounced, Breaks(NOT_STALE));
    memory(IgnoresPending, Breaks(NOT_STALE));
    memory(ComparesEarlier, Breaks(NOT_STALE));
    memory(MissesWhileAnnounced, Breaks(NOT_FOR_NOTHING));
    memory(KeepsAborted, Breaks(NOT_FOR_NOTHING));
    // A value keeps the stamp from before it was computed.
    memory(StampsWhenStored, Breaks(NOT_STALE));
    // The floor is raised before a slot is taken from a pattern, and checked after the slots.
    retired(RaisesNoFloor, Breaks(NOT_STALE));
    retired(RaisesFloorLate, Breaks(NOT_STALE));
    retired(ChecksFloorFirst, Breaks(NOT_STALE));
    retired(RetiresAnnounced, Breaks(NOT_STALE));
    // Without a renewal, the floor removes values that no pattern matches.
    retired(NeverRenews, Breaks(SPARES_RENEWED));
    // An entry is renewed as of a moment before the comparison, and only if it is still the same entry.
    renewals(RenewsAsOfLater, Breaks(NOT_STALE));
    two_fills(RenewsAnother, Breaks(NOT_STALE));
    // Saved values are compared, too, and keep their stamps in the row and when they come back.
    saved(TrustsRows, Breaks(NOT_STALE));
    saved(PromotesAnew, Breaks(NOT_STALE));
    // A value that its transaction sets after its own pattern gets the number of the commit, unless another pattern has removed it.
    own(OwnKeepsStamp, Breaks(OWN_IS_HIT));
    own(OwnIgnoresOthers, Breaks(NOT_STALE));
}
