//! Unit tests of the launcher's knowledge of the databases (`src/workers/known.rs`).

use crate::workers::known::Known;

/// Values are new if more or fewer were stored than at the start of the last worker. Fails if a database that was never noted has
/// none, so that its first worker would not start.
#[test]
fn values_are_new_until_a_worker_is_noted() {
    let mut known = Known::default();
    assert!(known.is_empty() && known.has_new(1, 5) && known.started(1).is_none());
    known.note(1, 5);
    assert!(!known.is_empty() && !known.has_new(1, 5) && known.has_new(1, 6) && known.has_new(2, 5));
    let first = known.started(1);
    known.note(1, 6);
    assert!(!known.has_new(1, 6) && known.started(1) >= first);
}

/// Fails if the facts of a dropped database stay, or if those of another one go with them.
#[test]
fn dropped_databases_are_forgotten() {
    let mut known = Known::default();
    (1..=1000).for_each(|database| known.note(database, 0));
    known.retain(|database| database == 7);
    assert!(known.started(7).is_some() && known.started(8).is_none() && known.has_new(8, 0));
    known.retain(|_| false);
    assert!(known.is_empty());
}
