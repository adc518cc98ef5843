//! Decides from the tree of a query whether the query may return different rows for the same data. Such a query is *unclear*: with
//! another plan, PostgreSQL may choose other rows, or another order of values within a row. A query counts as unclear if
//!
//! - it has `LIMIT`, `OFFSET` or `DISTINCT ON`, and its `ORDER BY` may leave the order of some rows open;
//! - it has a window function that depends on the order of such rows. These are all except the ranking functions;
//! - it has an aggregate whose value depends on the order of its input, and that order is not given: a list, a sum of floating
//!   point numbers, or an aggregate that is not built in.
//!
//! The bodies of functions are not examined. Some queries count as unclear although they always return the same rows.

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
            pg_sys::NodeTag::T_Query => cuts_off(node.cast()),
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
        let all_columns = nodes::<pg_sys::TargetEntry>(query.targetList)
            .all(|entry| (**entry).resjunk || is_sorted((**entry).ressortgroupref));
        let all_groups = !query.groupClause.is_null()
            && query.groupingSets.is_null()
            && nodes::<pg_sys::SortGroupClause>(query.groupClause)
                .all(|clause| is_sorted((**clause).tleSortGroupRef));
        !query.sortClause.is_null() && (all_columns || all_groups || has_sorted_key(query))
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

/// Aggregates that make a list of their input, or choose one of several values by the order of their input.
const LISTS: [&CStr; 15] = [
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
    c"mode",
];
/// Aggregates of floating point numbers that do not depend on the order of their input.
const CHOICES: [&CStr; 2] = [c"min", c"max"];

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
        if !(LISTS.contains(&name) || is_float && !CHOICES.contains(&name)) {
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
