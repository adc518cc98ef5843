//! Decides from the tree of a query whether the query may return different rows for the same data. Such a query is *unclear*: with
//! another plan, PostgreSQL may choose other rows, or another order of values within a row. A query counts as unclear if
//!
//! - it has `LIMIT`, `OFFSET` or `DISTINCT ON`, and its `ORDER BY` may leave the order of some rows open;
//! - it has a window function that depends on the order of such rows. These are all except the ranking functions;
//! - it has `ARRAY(SELECT …)` whose query does not give the order of its rows;
//! - it chooses one of several equal values: by `DISTINCT`, `GROUP BY`, `UNION` and the like, `min`, or `max`. Equal values of some
//!   types are different values, such as the numbers 1.0 and 1.00 (`is_identity`);
//! - it has an aggregate whose value depends on the order of its input, and that order is not given: a list, a sum of floating
//!   point numbers, or an aggregate that is not built in.
//!
//! The bodies of functions are not examined. Some queries count as unclear although they always return the same rows.
//! `query/verify.rs` asks this if a stored result differs from a new run: for an unclear query, that proves no bug.

#![allow(unsafe_code)]

use super::relation;
use super::tree::{self, nodes};
use pgrx::prelude::*;
use std::ffi::{CStr, c_int, c_void};

/// Returns whether one of some rewritten queries is unclear.
///
/// # Safety
/// `queries` must be a list of analyzed queries, or null.
pub unsafe fn are_unclear(queries: *mut pg_sys::List) -> bool {
    // SAFETY: as the caller promises.
    unsafe { visit(queries.cast(), std::ptr::null_mut()) }
}

/// The server calls this for each node of a tree. Returns true at the first node that is unclear, which ends the walk.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walkers take any node, and a query has a walker of its own.
    unsafe {
        let is_unclear = match (*node).type_ {
            pg_sys::NodeTag::T_Query => cuts_off(node.cast()) || chooses_among_equals(node.cast()),
            pg_sys::NodeTag::T_SetOperationStmt => merges_equals(node.cast()),
            pg_sys::NodeTag::T_SubLink => is_unordered_array(node.cast()),
            pg_sys::NodeTag::T_Aggref => is_ordered_aggregate(node.cast()),
            pg_sys::NodeTag::T_WindowFunc => {
                !RANKS.contains(&(*node.cast::<pg_sys::WindowFunc>()).winfnoid.to_u32())
            }
            _ => false,
        };
        is_unclear
            || pg_sys::ffi::pg_guard_ffi_boundary(|| match (*node).type_ {
                pg_sys::NodeTag::T_Query => tree::query_tree_walker(node.cast(), visit, context, 0),
                _ => tree::expression_tree_walker(node, visit, context),
            })
    }
}

/// The window functions `rank`, `dense_rank`, `percent_rank` and `cume_dist`: rows that are equal in the order get equal values.
const RANKS: [u32; 4] = [3101, 3102, 3103, 3104];

/// Returns whether a query leaves out rows, and its order does not decide which rows.
unsafe fn cuts_off(query: *const pg_sys::Query) -> bool {
    // SAFETY: a query, whose lists hold what the server's headers say.
    unsafe {
        let query = &*query;
        let has_limit = !query.limitCount.is_null() || !query.limitOffset.is_null();
        let keeps_ties =
            query.limitOption == pg_sys::LimitOption::LIMIT_OPTION_WITH_TIES && query.limitOffset.is_null();
        (has_limit && !keeps_ties || query.hasDistinctOn) && !is_ordered(query)
    }
}

/// Returns whether the order of a query leaves only the order of equal rows open: it contains all columns that the query returns,
/// all columns by which it groups, or the primary key of its only table.
unsafe fn is_ordered(query: &pg_sys::Query) -> bool {
    // SAFETY: the lists of a query hold nodes of these types.
    unsafe {
        let is_sorted = |reference: u32| reference != 0 && has_reference(query.sortClause, reference);
        let all_columns = nodes::<pg_sys::TargetEntry>(query.targetList).all(|entry| {
            let is_given = is_sorted((**entry).ressortgroupref) && is_identity_of((**entry).expr.cast());
            (**entry).resjunk || is_given
        });
        let all_groups = !query.groupClause.is_null()
            && query.groupingSets.is_null()
            && nodes::<pg_sys::SortGroupClause>(query.groupClause)
                .all(|clause| is_sorted((**clause).tleSortGroupRef));
        !query.sortClause.is_null() && (all_columns || all_groups || has_sorted_key(query))
    }
}

/// Returns whether a query removes or groups equal rows whose values may differ.
unsafe fn chooses_among_equals(query: *const pg_sys::Query) -> bool {
    // SAFETY: the lists of a query hold nodes of these types.
    unsafe {
        let query = &*query;
        nodes::<pg_sys::TargetEntry>(query.targetList).any(|entry| {
            let reference = (**entry).ressortgroupref;
            let is_compared = reference != 0
                && (has_reference(query.groupClause, reference)
                    || has_reference(query.distinctClause, reference));
            is_compared && !is_identity_of((**entry).expr.cast())
        })
    }
}

/// Returns whether a set operation removes equal rows whose values may differ.
unsafe fn merges_equals(operation: *const pg_sys::SetOperationStmt) -> bool {
    // SAFETY: the three lists have a value for each column.
    unsafe {
        let operation = &*operation;
        let keeps_all = operation.all && operation.op == pg_sys::SetOperation::SETOP_UNION;
        let columns = || tree::oids(operation.colTypes).zip(tree::oids(operation.colCollations));
        !keeps_all && columns().any(|(kind, collation)| !is_identity(kind, -1, collation))
    }
}

/// Returns whether an expression is `ARRAY(SELECT …)`, and the order of its elements is open.
unsafe fn is_unordered_array(link: *const pg_sys::SubLink) -> bool {
    // SAFETY: the query of an analyzed expression is a query.
    unsafe {
        (*link).subLinkType == pg_sys::SubLinkType::ARRAY_SUBLINK
            && !is_ordered(&*(*link).subselect.cast::<pg_sys::Query>())
    }
}

/// Types whose values are identical if they are equal. Text is another one, with a deterministic collation.
const IDENTITIES: [pg_sys::Oid; 18] = [
    pg_sys::BOOLOID,
    pg_sys::CHAROID,
    pg_sys::INT2OID,
    pg_sys::INT4OID,
    pg_sys::INT8OID,
    pg_sys::OIDOID,
    pg_sys::XIDOID,
    pg_sys::DATEOID,
    pg_sys::TIMEOID,
    pg_sys::TIMESTAMPOID,
    pg_sys::TIMESTAMPTZOID,
    pg_sys::UUIDOID,
    pg_sys::BYTEAOID,
    pg_sys::INETOID,
    pg_sys::CIDROID,
    pg_sys::MACADDROID,
    pg_sys::BITOID,
    pg_sys::VARBITOID,
];

/// Returns whether all equal values of an expression are identical.
unsafe fn is_identity_of(expression: *const pg_sys::Node) -> bool {
    // SAFETY: an expression of an analyzed query.
    unsafe {
        is_identity(
            pg_sys::exprType(expression),
            pg_sys::exprTypmod(expression),
            pg_sys::exprCollation(expression),
        )
    }
}

/// Returns whether all equal values of a type are identical.
fn is_identity(kind: pg_sys::Oid, modifier: i32, collation: pg_sys::Oid) -> bool {
    const TEXTS: [pg_sys::Oid; 3] = [pg_sys::TEXTOID, pg_sys::VARCHAROID, pg_sys::NAMEOID];
    // SAFETY: looks up catalogs.
    unsafe {
        let mut modifier = modifier;
        let kind = pg_sys::getBaseTypeAndTypmod(kind, &raw mut modifier);
        if TEXTS.contains(&kind) {
            return collation == pg_sys::InvalidOid || pg_sys::get_collation_isdeterministic(collation);
        }
        // A modifier fixes the number of digits behind the point.
        let is_scaled = kind == pg_sys::NUMERICOID && modifier >= 0;
        is_scaled || IDENTITIES.contains(&kind) || pg_sys::get_typtype(kind) as u8 == pg_sys::TYPTYPE_ENUM
    }
}

/// Returns whether a list of sort clauses has one that refers to an expression.
unsafe fn has_reference(clauses: *const pg_sys::List, reference: u32) -> bool {
    // SAFETY: the caller passes a list of sort clauses.
    unsafe { nodes::<pg_sys::SortGroupClause>(clauses).any(|clause| (**clause).tleSortGroupRef == reference) }
}

/// Returns whether a query reads one table and nothing else, and its order contains the primary key of that table.
unsafe fn has_sorted_key(query: &pg_sys::Query) -> bool {
    // SAFETY: the lists of a query hold nodes of these types. The relation is locked since the query was analyzed, so it can be
    // opened without another lock. The server returns a set of its own, or null.
    unsafe {
        let is_plain = query.groupClause.is_null()
            && query.groupingSets.is_null()
            && query.distinctClause.is_null()
            && query.setOperations.is_null()
            && !query.hasTargetSRFs;
        let from = if query.jointree.is_null() { std::ptr::null_mut() } else { (*query.jointree).fromlist };
        let mut sources = nodes::<pg_sys::RangeTblRef>(from);
        let (Some(source), None, true) = (sources.next(), sources.next(), is_plain) else { return false };
        if (**source).type_ != pg_sys::NodeTag::T_RangeTblRef {
            return false;
        }
        let index = (**source).rtindex;
        let entry = nodes::<pg_sys::RangeTblEntry>(query.rtable).nth(index.max(1) as usize - 1);
        let Some(entry) =
            entry.filter(|entry| (***entry).rtekind == pg_sys::RTEKind::RTE_RELATION && !is_tree(**entry))
        else {
            return false;
        };
        let relation = pg_sys::relation_open((**entry).relid, pg_sys::NoLock as c_int);
        let key = pg_sys::RelationGetIndexAttrBitmap(
            relation,
            pg_sys::IndexAttrBitmapKind::INDEX_ATTR_BITMAP_PRIMARY_KEY,
        );
        pg_sys::relation_close(relation, pg_sys::NoLock as c_int);
        let (mut member, mut is_sorted) = (-1, !key.is_null());
        loop {
            member = pg_sys::bms_next_member(key, member);
            if member < 0 || !is_sorted {
                return is_sorted;
            }
            let column = member + pg_sys::FirstLowInvalidHeapAttributeNumber;
            is_sorted = nodes::<pg_sys::TargetEntry>(query.targetList).any(|target| {
                let var = (**target).expr.cast::<pg_sys::Var>();
                (*var).xpr.type_ == pg_sys::NodeTag::T_Var
                    && (*var).varno as c_int == index
                    && c_int::from((*var).varattno) == column
                    && (*var).varlevelsup == 0
                    && has_reference(query.sortClause, (**target).ressortgroupref)
            });
        }
    }
}

/// Returns whether a relation is read with its children by inheritance. The primary key of the relation does not hold for them.
unsafe fn is_tree(entry: *const pg_sys::RangeTblEntry) -> bool {
    // SAFETY: an entry of a relation. Looks up catalogs.
    unsafe {
        let is_partitioned = (*entry).relkind as u8 == pg_sys::RELKIND_PARTITIONED_TABLE;
        (*entry).inh && !is_partitioned && relation::is_inheritance_parent((*entry).relid.to_u32())
    }
}

/// Built-in aggregates that make a list of their input, or choose one of several values by the order of their input. Aggregates of
/// that kind in a new version of PostgreSQL must be added.
const LISTS: [&CStr; 14] = [
    c"array_agg",
    c"string_agg",
    c"json_agg",
    c"jsonb_agg",
    c"json_agg_strict",
    c"jsonb_agg_strict",
    c"json_object_agg",
    c"jsonb_object_agg",
    c"json_object_agg_strict",
    c"jsonb_object_agg_strict",
    c"json_object_agg_unique",
    c"jsonb_object_agg_unique",
    c"xmlagg",
    c"any_value",
];
/// Aggregates that return one of their input values. Without ORDER BY, any of the equal values.
const CHOICES: [&CStr; 4] = [c"min", c"max", c"mode", c"percentile_disc"];

/// Returns whether the value of an aggregate depends on the order of its input, and the order is not given.
unsafe fn is_ordered_aggregate(aggregate: *const pg_sys::Aggref) -> bool {
    // SAFETY: an aggregate of an analyzed query. Looks up catalogs; the name is a new string, or null.
    unsafe {
        let aggregate = &*aggregate;
        if aggregate.aggfnoid.to_u32() >= pg_sys::FirstNormalObjectId {
            return true;
        }
        let name = pg_sys::get_func_name(aggregate.aggfnoid);
        if name.is_null() {
            return true;
        }
        let name = CStr::from_ptr(name);
        let is_float =
            [pg_sys::FLOAT4OID, pg_sys::FLOAT8OID, pg_sys::FLOAT8ARRAYOID].contains(&aggregate.aggtype);
        let is_list = LISTS.contains(&name);
        let keeps_values = is_list || CHOICES.contains(&name) || !aggregate.aggdistinct.is_null();
        let are_identities = || {
            let mut values = nodes::<pg_sys::TargetEntry>(aggregate.args);
            values.all(|entry| (**entry).resjunk || is_identity_of((**entry).expr.cast()))
        };
        if keeps_values && name != c"count" && !are_identities() {
            return true;
        }
        if !is_list && (!is_float || CHOICES.contains(&name)) {
            return false;
        }
        let order = if aggregate.aggdistinct.is_null() { aggregate.aggorder } else { aggregate.aggdistinct };
        let is_given = |entry: *const pg_sys::TargetEntry| {
            let is_constant = (*(*entry).expr).type_ == pg_sys::NodeTag::T_Const;
            (*entry).resjunk || is_constant || has_reference(order, (*entry).ressortgroupref)
        };
        order.is_null() || !nodes::<pg_sys::TargetEntry>(aggregate.args).all(|entry| is_given(*entry))
    }
}
