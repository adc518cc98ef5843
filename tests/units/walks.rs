//! Tests of the walk of a saver through all entries (`src/store/table/saver/walk.rs`).

use crate::store::table::saver::walk::Walk;

/// Fails if the walk goes on although there is nothing to save, or pauses although values were stored during the round.
#[test]
fn the_walk_pauses_until_values_are_stored() {
    let mut walk = Walk::default();
    let mut round = |stored, found| {
        walk.begin_if_due(stored);
        let began = walk.is_under_way();
        if began {
            walk.go_to(Some(1));
            walk.begin_if_due(stored + 1);
            walk.note_found(found);
            walk.go_to(None);
        }
        began
    };
    assert!(round(7, true));
    assert!(round(7, false), "the round before has found something");
    assert!(!round(7, false));
    assert!(round(8, false), "a value was stored");
    assert!(!round(8, false));
}
