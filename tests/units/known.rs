//! Unit tests of what the launcher knows of the databases (`src/workers/known.rs`). The *launcher* is the background worker that
//! starts the other workers of pg_cache. For each database, it notes how many values had been stored when it last started a worker.

use crate::workers::known::Known;

/// The numbers are those of the stored values of a database. Fails if a database that was never noted has no new values, so that
/// its first worker would not start, or if it has new values although the number is that of the last note. Also fails if a greater
/// number gives no new values.
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

/// `retain` keeps the databases for which its function returns true. Fails if the facts of a dropped database stay, or if those of
/// another one go with them.
#[test]
fn dropped_databases_are_forgotten() {
    let mut known = Known::default();
    (1..=1000).for_each(|database| known.note(database, 0));
    known.retain(|database| database == 7);
    assert!(known.started(7).is_some() && known.started(8).is_none() && known.has_new(8, 0));
    known.retain(|_| false);
    assert!(known.is_empty());
}
