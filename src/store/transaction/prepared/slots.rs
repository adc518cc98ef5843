//! The slots for records of prepared transactions in shared memory (`pg/prepared.rs`): which slot is free, and what fits into a
//! record. A *record* has the fences that the transaction has changed, and the *marks* of its keys: the hash of a key, with its
//! database, space and role. A *fence* is a word in shared memory that says when something that values depend on last changed
//! (`docs/architecture.md`).

use crate::pg::error::{OrRaise, Refused};
use crate::pg::memory;
use crate::pg::prepared::{self, FENCES_MAX, MARKS_MAX, Record, State, Table};
use crate::pg::shared;
use pg_cache_core::{FenceId, KeyMark, Reserved};
use pgrx::pg_sys::TransactionId;
use pgrx::prelude::PgSqlErrorCode;

/// Returns an error like the server's own one, for the case that all records are taken: more transactions are prepared than the
/// server allows.
pub(super) fn no_room() -> Refused {
    let code = PgSqlErrorCode::ERRCODE_OUT_OF_MEMORY;
    Refused::new(code, "maximum number of prepared transactions reached")
        .hint("Increase max_prepared_transactions.")
}

/// Returns a record that can be used for a new transaction: a free one, or the record of a transaction that has ended unnoticed.
pub(super) fn find_free<'r>(
    records: &'r mut [Record],
    ended: &[TransactionId],
) -> Option<(usize, &'r mut Record)> {
    let is_free = |record: &Record| match record.state() {
        State::Free => true,
        State::Prepared => record.enders == 0 && ended.contains(&record.xid),
        _ => false,
    };
    records.iter_mut().enumerate().find(|(_, record)| is_free(record))
}

/// Returns the recorded transactions that are not prepared any more. Returns an empty list if a record is free: then the caller
/// needs none of theirs. May raise errors.
pub(super) fn ended_unnoticed() -> Vec<TransactionId> {
    let prepared = prepared::with_table(|Table { records, .. }| {
        if records.iter().any(|record| record.state() == State::Free) {
            return Ok(Vec::new());
        }
        let prepared = records.iter().filter(|record| record.state() == State::Prepared);
        memory::try_collect(prepared.map(|record| record.xid))
    });
    let mut ended = prepared.unwrap_or(Ok(Vec::new())).or_raise();
    ended.retain(|xid| !prepared::is_in_progress(*xid));
    ended
}

/// Returns fences and keys that fit into a record. If there are too many keys, the fences of their spaces replace them. If there
/// are too many fences, the fence of the database replaces them, with the fence of roles if roles have changed. The keys must be
/// sorted.
pub(super) fn fit_into_record(
    mut fences: Vec<FenceId>,
    mut marks: Vec<KeyMark>,
) -> (Vec<FenceId>, Vec<KeyMark>) {
    if marks.len() > MARKS_MAX {
        let spaces = space_fences_of(&marks);
        memory::reserve(&mut fences, spaces.len());
        fences.extend(spaces);
        marks.clear();
    }
    if fences.len() > FENCES_MAX {
        let roles = shared::tier().map(|tier| tier.fences().reserved(Reserved::Roles));
        let changes_roles = roles.is_some_and(|roles| fences.contains(&roles));
        fences = all_fences();
        fences.retain(|fence| changes_roles || Some(*fence) != roles);
        marks.clear();
    }
    (fences, marks)
}

/// Returns the fences of the spaces of these keys, each once. The keys must be sorted.
pub(super) fn space_fences_of(marks: &[KeyMark]) -> Vec<FenceId> {
    let Some(tier) = shared::tier() else { return Vec::new() };
    let space = |mark: &KeyMark| (mark.database, mark.space);
    let spaces = marks.chunk_by(|one, next| space(one) == space(next)).map(|marks| {
        let KeyMark { database, space, .. } = marks[0];
        tier.fences().reserved(Reserved::Space { database, space })
    });
    memory::collect(spaces)
}

/// Returns the fences of everything that a transaction of this database can have changed: everything cached in the database, and
/// everything that depends on roles in the other databases.
pub(super) fn all_fences() -> Vec<FenceId> {
    let fences = |reserved: [Reserved; 2]| {
        shared::tier().map(|tier| reserved.map(|what| tier.fences().reserved(what))).into_iter().flatten()
    };
    fences([Reserved::Database(shared::database()), Reserved::Roles]).collect()
}
