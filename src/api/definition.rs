//! SQL functions by which tests look at the fences of definitions. Only debug builds have them, and tests declare them (`CREATE
//! FUNCTION … AS '$libdir/pg_cache', 'latest_change_wrapper'`). A *definition* is that of an object, such as the columns of a
//! table, or the meaning of a name: the object that the name stands for. The *fence* of a definition is a word in shared memory
//! with the number of its last change (`docs/architecture.md`). If there is no cache in shared memory, the functions return 0 or
//! false.

use crate::pg::shared;
use crate::pg::varlena::TextArgument;
use crate::store::definitions;
use pg_cache_core::{FenceId, Reserved, Stamp};
use pgrx::prelude::*;

/// Returns the number of the latest change on the clock of changes.
#[pg_extern(sql = false)]
fn latest_change() -> i64 {
    shared::tier().map_or(0, |tier| tier.fences().now().as_u64() as i64)
}

/// Returns the number that identifies a fence. `kind` says which fence: that of all definitions (`any`), of roles (`roles`), of
/// definitions that are neither relations nor names (`other`), of the relation with this OID (`relation`), or of a name (`name`).
#[pg_extern(sql = false)]
fn fence_of_definition(kind: TextArgument<'_>, oid: i64, name: TextArgument<'_>) -> i64 {
    shared::tier().map_or(0, |tier| {
        let fence = match kind.0 {
            b"any" => definitions::any(tier),
            b"roles" => tier.fences().reserved(Reserved::Roles),
            b"other" => definitions::other(tier),
            b"relation" => definitions::of_relation(tier, oid as u32),
            _ => definitions::of_name(tier, name.0),
        };
        fence.number().into()
    })
}

/// Returns whether the fence with this number has changed since the change with the number `since`.
#[pg_extern(sql = false)]
fn fence_has_changed(fence: i64, since: i64) -> bool {
    shared::tier().is_some_and(|tier| {
        let fence = FenceId::from_number(fence as u32);
        tier.fences().has_changed_since(fence, Stamp::from_u64(since as u64))
    })
}
