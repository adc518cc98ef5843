//! The reasons for which the result of a query is not stored. [`Seen`] has what was observed of the query (`pg/observer.rs`).
//!
//! Order of the checks in a fill (`ticket.rs`), the run of a query whose result may be stored: [`check_plan`] between planning and
//! running, so that other sessions do not wait in vain; then, after the run, [`check`], [`relations_of`] and [`check_cursors`];
//! then [`admit_size`] and, after compression, [`admit_value`]. Where the query does not run (`explain.rs`, `advise/`),
//! [`check_before`] takes their place.

use super::job::Wanted;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::Seen;
use crate::pg::query::{self, Cursors};
use crate::pg::shared::HotTier;
use crate::pg::{function, locks, relation};
use crate::store::definitions;
use crate::store::space::Space;
use crate::store::status::{Object, Status};
use crate::store::transaction::table_writes;

/// The most relations that a result may depend on. A result with more is not stored. A relation takes up to three of the 255
/// dependencies that an entry has room for (`watch::add_relation`).
pub const RELATIONS_MAX: usize = 64;
const TOO_MANY_RELATIONS: Status = Status::Refused("the query reads too many relations");

/// The status of a call whose query is left out for a while (`TIMES_UNTIL_LEFT_OUT` in `ticket.rs`).
pub const LEAVES_OUT: Status = Status::Refused("the query is invalidated faster than it runs");

/// Returns an error if it is known before the run that the result must not be stored. [`Rules`](super::job::Rules) and
/// [`Job`](super::job::Job) may have further reasons.
pub fn check_before(tier: &HotTier, wanted: &Wanted<'_>, seen: &Seen) -> Result<(), Status> {
    check(tier, wanted, seen, false)?;
    relations_of(wanted, seen).map(|_| ())
}

/// Returns an error if the plan of a query already shows that its result must not be stored.
pub fn check_plan(wanted: &Wanted<'_>, seen: &Seen) -> Result<(), Status> {
    match seen {
        seen if seen.writes => Err(Status::Refused("the query writes")),
        seen if seen.locks_rows => Err(Status::Refused("the query locks rows")),
        seen if seen.sampled => Err(Status::Refused("the query uses TABLESAMPLE")),
        seen if wanted.depends.is_none() => seen.volatile.map_or(Ok(()), |function| Err(volatile(function))),
        _ => Ok(()),
    }
}

/// Returns an error if other sessions must not get the result. `has_seen_foreign` says whether the transaction had accessed a
/// foreign table before the query ran.
pub fn check(tier: &HotTier, wanted: &Wanted<'_>, seen: &Seen, has_seen_foreign: bool) -> Result<(), Status> {
    if seen.writes || seen.locks_rows {
        return Err(Status::Refused(if seen.writes { "the query writes" } else { "the query locks rows" }));
    }
    if seen.lost {
        return Err(OutOfMemory.into());
    }
    if seen.cache {
        return Err(Status::Refused("the query calls the cache"));
    }
    if seen.sampled {
        return Err(Status::Refused("the query uses TABLESAMPLE"));
    }
    let observed = || seen.relations.union(&seen.parts);
    if let Some(oid) = observed().find(|oid| relation::is_temporary(**oid)) {
        return Err(Status::Of("refused: {} is temporary", Object::Relation(*oid)));
    }
    // This holds regardless of `depends`: uncommitted rows must never be published.
    let is_read = |oid: &u32| seen.relations.contains(oid) || seen.parts.contains(oid);
    if let Some(oid) = table_writes::first_written(tier, is_read) {
        return Err(Status::Of("bypass: this transaction has changed {}", Object::Relation(oid)));
    }
    // The transaction may have written to catalogs, large objects, or data that only a function knows. Its locks do not show
    // whether it has.
    let unobserved = || {
        let native = |oid: &u32| function::is_native(*oid);
        seen.volatile.is_some()
            || seen.untracked
            || observed().any(|oid| relation::is_catalog(*oid))
            || locks::has_seen_large_objects()
            || seen.functions.iter().any(native)
    };
    if wanted.depends.is_some() && locks::has_written() && unobserved() {
        return Err(Status::Bypass("this transaction may have changed what the query reads"));
    }
    if observed().any(|oid| relation::is_foreign(*oid)) {
        if has_seen_foreign {
            return Err(Status::Bypass("this transaction has read a foreign table before"));
        }
        if table_writes::has_written_foreign() {
            return Err(Status::Refused("the query has written something"));
        }
    }
    // A compiled function may keep types from before a change of a definition until the session ends (`pg/function.rs`).
    let definitions = definitions::any(tier);
    let has_moved = || tier.fences().has_changed_since(definitions, function::compiled_since());
    let keeping = || seen.functions.iter().find(|oid| function::keeps_types(**oid));
    if let Some(oid) = has_moved().then(keeping).flatten() {
        let text = "refused: {} keeps types in this session from before a definition changed";
        return Err(Status::Of(text, Object::Function(*oid)));
    }
    Ok(())
}

/// Returns an error if a function of the query may have used a cursor of the session. `before` is the state of the cursors before
/// the query ran. It is None if the query calls no function that could use a cursor.
pub fn check_cursors(before: Option<Cursors>) -> Result<(), Status> {
    match before {
        Some(Cursors { held: 1.., .. }) => {
            Err(Status::Refused("the query may read from a cursor that was opened before"))
        }
        Some(before) if before != query::cursors() => {
            Err(Status::Refused("the query opens or closes a cursor"))
        }
        _ => Ok(()),
    }
}

/// Returns the relations whose rows the result depends on. If they are not all known, the error says why.
pub fn relations_of(wanted: &Wanted<'_>, seen: &Seen) -> Result<Vec<u32>, Status> {
    let unfollowed = || seen.relations.union(&seen.parts).find(|oid| !relation::is_followed(**oid));
    match wanted.depends {
        Some(relations) if relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
        Some(relations) => Ok(relations.to_vec()),
        None if let Some(function) = seen.volatile => Err(volatile(function)),
        None if seen.untracked => {
            Err(Status::Refused("the query calls a function that reads more than tables"))
        }
        None if let Some(oid) = unfollowed() => {
            let text = "refused: changes of {} cannot be followed";
            Err(Status::Of(text, Object::Relation(*oid)))
        }
        None if locks::has_seen_large_objects() => Err(Status::Refused("the query reads large objects")),
        None => match seen.rows_of_relations() {
            relations if relations.len() > RELATIONS_MAX => Err(TOO_MANY_RELATIONS),
            relations => Ok(relations.into_iter().collect()),
        },
    }
}

/// Returns the status for a query that calls a volatile function. 0 stands for an unknown function.
fn volatile(function: u32) -> Status {
    match function {
        0 => Status::Refused("the query is volatile"),
        _ => Status::Of("refused: {} is volatile", Object::Function(function)),
    }
}

/// Returns an error if a value of this size, after compression, must not be stored in the space (`max_value`).
pub fn admit_value(space: &Space, bytes: usize) -> Result<(), Status> {
    match bytes as u64 > space.options.max_value_bytes() {
        true => Err(Status::Refused("larger than a value may be")),
        false => Ok(()),
    }
}

/// The status of a result that exceeds the option `max_result_size` of its space.
pub const TOO_LARGE: Status = Status::Refused("larger than max_result_size");

/// Returns an error if a result of this size, before compression, must not be stored in the space (`max_result_size`).
pub fn admit_size(space: &Space, bytes: usize) -> Result<(), Status> {
    match bytes as u64 > space.options.max_result_bytes() {
        true => Err(TOO_LARGE),
        false => Ok(()),
    }
}
