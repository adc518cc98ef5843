//! Reads in the tree of a query what its result depends on, before the query is planned. The rewriter has expanded views and
//! policies in this tree, but the planner has not inlined functions, folded constants or removed anything yet.
//!
//! `pg/query/preparing.rs` calls this for a *fill*, which is a query whose result may be stored, and `client_statement.rs` for an
//! observed statement of the client. `observer.rs` keeps what a fill reads and calls while it runs, and explains each field of
//! [`Seen`]. `lost` means that memory was too short to note a finding ([`note`] returns false), so the findings are incomplete.
//!
//! The functions look up catalogs: they must be called within a transaction, and may raise errors.
//!
//! A version of PostgreSQL with new kinds of nodes may need new branches in `note_node`: for a node that converts a text to a value
//! while the query runs, that calls a function which `check_functions_in_node` does not report, or that has a type of its own.

#![allow(unsafe_code)]

use super::call::Call;
use super::observer::{self, Seen, note};
use super::tree::{self, nodes, oids};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::ffi::c_void;

/// Notes in the running fill, if there is one, what the rewritten tree of its query shows.
///
/// # Safety
/// `queries` must be a list of analyzed queries, or null.
pub unsafe fn note_queries(queries: *mut pg_sys::List) {
    if !observer::is_filling() {
        return;
    }
    // SAFETY: as the caller promises.
    let seen = unsafe { of_tree(queries.cast()) };
    observer::with_fill(|fill| {
        fill.add(&seen);
        fill.volatile = fill.volatile.or(seen.volatile);
    });
}

/// Returns what the rewritten tree of a query shows.
///
/// # Safety
/// `tree` must be an analyzed query, a list of such queries, or null.
pub unsafe fn of_tree(tree: *mut pg_sys::Node) -> Seen {
    let mut seen = Seen::default();
    // SAFETY: as the caller promises.
    unsafe {
        visit(tree, (&raw mut seen).cast());
        if pg_sys::contain_volatile_functions(tree) {
            seen.volatile = Some(first_volatile(tree));
        }
    }
    seen
}

/// The server calls this for each node of a tree.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walkers take any node, and a query has a walker of its own. `context` is the
    // variable `seen` of `of_tree`.
    unsafe {
        note_node(node, &mut *context.cast::<Seen>());
        pg_sys::check_functions_in_node(node, Some(visit_function), context);
        pg_sys::ffi::pg_guard_ffi_boundary(|| match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                let flags = pg_sys::QTW_EXAMINE_SORTGROUP as i32;
                tree::query_tree_walker(node.cast(), visit, context, flags)
            }
            _ => tree::expression_tree_walker(node, visit, context),
        })
    }
}

/// The server calls this for each function of a node. Returns false, so that the walk goes on.
#[pg_guard]
unsafe extern "C-unwind" fn visit_function(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: `context` is the variable `seen` of `of_tree`.
    let seen = unsafe { &mut *context.cast::<Seen>() };
    seen.add_call(function.to_u32(), &Call::of(function.to_u32()));
    false
}

/// The function `current_schema`, which the key word stands for. The result may be the session's own temporary schema.
const CURRENT_SCHEMA: u32 = 1402;

/// Notes what a node shows besides the functions that `check_functions_in_node` finds.
///
/// # Safety
/// The node must belong to an analyzed query.
unsafe fn note_node(node: *mut pg_sys::Node, seen: &mut Seen) {
    use pg_sys::NodeTag::*;
    // SAFETY: a node's tag names its type, and the lists hold what the server's headers say.
    unsafe {
        match (*node).type_ {
            T_Query => note_query(node.cast(), seen),
            T_Var => {
                let var = node.cast::<pg_sys::Var>();
                seen.system_columns |= tree::is_transactional((*var).varattno);
            }
            T_SQLValueFunction => {
                let is_time = (*node.cast::<pg_sys::SQLValueFunction>()).op
                    <= pg_sys::SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP_N;
                seen.reads_clock |= is_time;
                seen.reads_clock_surely |= is_time;
                let is_schema = (*node.cast::<pg_sys::SQLValueFunction>()).op
                    == pg_sys::SQLValueFunctionOp::SVFOP_CURRENT_SCHEMA;
                if is_schema {
                    seen.add_call(CURRENT_SCHEMA, &Call::of(CURRENT_SCHEMA));
                }
            }
            T_CoerceViaIO => note_conversion((*node.cast::<pg_sys::CoerceViaIO>()).resulttype, seen),
            T_TableFunc => {
                let types = (*node.cast::<pg_sys::TableFunc>()).coltypes;
                oids(types).for_each(|kind| note_conversion(kind, seen));
            }
            #[cfg(any(feature = "pg17", feature = "pg18"))]
            T_JsonExpr => {
                let returning = (*node.cast::<pg_sys::JsonExpr>()).returning;
                if !returning.is_null() {
                    note_conversion((*returning).typid, seen);
                }
            }
            T_SortGroupClause => note_order(node.cast(), seen),
            T_SetOperationStmt => {
                let clauses = (*node.cast::<pg_sys::SetOperationStmt>()).groupClauses;
                nodes(clauses).for_each(|clause| note_order(*clause, seen));
            }
            T_WindowClause => {
                let window = node.cast::<pg_sys::WindowClause>();
                for function in [(*window).startInRangeFunc, (*window).endInRangeFunc] {
                    if function != pg_sys::InvalidOid {
                        seen.add_call(function.to_u32(), &Call::of(function.to_u32()));
                    }
                }
            }
            _ => {}
        }
        if matches!(
            (*node).type_,
            T_Var
                | T_Const
                | T_Param
                | T_Aggref
                | T_WindowFunc
                | T_FuncExpr
                | T_OpExpr
                | T_FieldSelect
                | T_RowExpr
                | T_RelabelType
                | T_CoerceViaIO
                | T_ArrayCoerceExpr
                | T_ConvertRowtypeExpr
                | T_CoerceToDomain
        ) {
            note_type(pg_sys::exprType(node), seen);
        }
    }
}

/// Notes the relations and the kind of a query.
unsafe fn note_query(query: *const pg_sys::Query, seen: &mut Seen) {
    // SAFETY: the lists of a query hold nodes of these types.
    unsafe {
        seen.writes |= (*query).commandType != pg_sys::CmdType::CMD_SELECT || (*query).hasModifyingCTE;
        seen.locks_rows |= !(*query).rowMarks.is_null();
        for entry in nodes::<pg_sys::RangeTblEntry>((*query).rtable) {
            seen.sampled |= !(**entry).tablesample.is_null();
            let relation = (**entry).relid;
            if relation != pg_sys::InvalidOid {
                seen.lost |= !note(&mut seen.relations_named, relation.to_u32());
            }
        }
    }
}

/// Notes the functions of the operators that sort or group rows. The executor does not report them.
unsafe fn note_order(clause: *const pg_sys::SortGroupClause, seen: &mut Seen) {
    // SAFETY: looks up catalogs.
    unsafe {
        for operator in [(*clause).eqop, (*clause).sortop] {
            if operator.to_u32() >= pg_sys::FirstNormalObjectId {
                let function = pg_sys::get_opcode(operator).to_u32();
                seen.add_call(function, &Call::of(function));
                // A sort calls a function of the operator's family instead.
                seen.user_function = true;
            }
        }
    }
}

/// Returns the first volatile function that a tree of queries calls, or 0 if it calls none.
///
/// # Safety
/// The node must be a query, a list of queries, or null.
unsafe fn first_volatile(queries: *mut pg_sys::Node) -> u32 {
    let mut found = 0_u32;
    // SAFETY: as the caller promises. The walk stops at the first volatile function, whose number it stores in `found`.
    unsafe { find_volatile(queries, (&raw mut found).cast()) };
    found
}

/// The server calls this for each node of a tree.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn find_volatile(node: *mut pg_sys::Node, found: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walkers take any node, and a query has a walker of its own.
    unsafe {
        pg_sys::check_functions_in_node(node, Some(is_volatile), found)
            || pg_sys::ffi::pg_guard_ffi_boundary(|| match (*node).type_ {
                pg_sys::NodeTag::T_Query => tree::query_tree_walker(node.cast(), find_volatile, found, 0),
                _ => tree::expression_tree_walker(node, find_volatile, found),
            })
    }
}

/// The server calls this for each function of a node.
#[pg_guard]
unsafe extern "C-unwind" fn is_volatile(function: pg_sys::Oid, found: *mut c_void) -> bool {
    // SAFETY: looks up a catalog. `found` is the variable of `first_volatile`.
    unsafe {
        let is_it = pg_sys::func_volatile(function) as u8 == pg_sys::PROVOLATILE_VOLATILE;
        if is_it {
            *found.cast::<u32>() = function.to_u32();
        }
        is_it
    }
}

/// The types whose values name objects.
const NAMING: [pg_sys::Oid; 11] = [
    pg_sys::REGPROCOID,
    pg_sys::REGPROCEDUREOID,
    pg_sys::REGOPEROID,
    pg_sys::REGOPERATOROID,
    pg_sys::REGCLASSOID,
    pg_sys::REGCOLLATIONOID,
    pg_sys::REGTYPEOID,
    pg_sys::REGROLEOID,
    pg_sys::REGNAMESPACEOID,
    pg_sys::REGCONFIGOID,
    pg_sys::REGDICTIONARYOID,
];

/// Returns whether the text of a value of this type can change with a definition: the type names objects, or consists of columns.
pub fn follows_definitions(kind: pg_sys::Oid) -> bool {
    let found = Parts::of(kind);
    let names = |kind: &u32| NAMING.contains(&pg_sys::Oid::from(*kind));
    found.lost || !found.rows.is_empty() || found.types.iter().any(names)
}

/// Notes that an expression has a type: whether the type names objects, and the relations whose row types it contains.
fn note_type(kind: pg_sys::Oid, seen: &mut Seen) {
    let found = Parts::of(kind);
    seen.names_objects |= found.types.iter().any(|kind| NAMING.contains(&pg_sys::Oid::from(*kind)));
    seen.lost |= !found.rows.iter().all(|relation| note(&mut seen.relations_named, *relation)) || found.lost;
}

/// Notes that a text is converted to a value of a type while the query runs.
fn note_conversion(kind: pg_sys::Oid, seen: &mut Seen) {
    use pg_sys::{DATEOID, TIMEOID, TIMESTAMPOID, TIMESTAMPTZOID, TIMETZOID};
    let times = [DATEOID, TIMEOID, TIMETZOID, TIMESTAMPOID, TIMESTAMPTZOID];
    let found = Parts::of(kind);
    // A record has columns of any type.
    let may_read = |kind: &u32| {
        let kind = pg_sys::Oid::from(*kind);
        times.contains(&kind) || kind == pg_sys::RECORDOID
    };
    let reads = found.lost || found.types.iter().any(may_read);
    seen.reads_clock |= reads;
    seen.reads_clock_surely |= reads;
}

/// A type and all types of which it consists: the elements of an array or a range, the columns of a row, the base of a domain.
#[derive(Default)]
struct Parts {
    types: BTreeSet<u32>,
    /// The relations that have the row types.
    rows: BTreeSet<u32>,
    /// Whether memory was short.
    lost: bool,
}

impl Parts {
    fn of(kind: pg_sys::Oid) -> Self {
        let mut parts = Self::default();
        parts.add(kind);
        parts
    }

    fn add(&mut self, kind: pg_sys::Oid) {
        if kind == pg_sys::InvalidOid || self.types.contains(&kind.to_u32()) {
            return;
        }
        self.lost |= !note(&mut self.types, kind.to_u32());
        if self.lost {
            return;
        }
        // SAFETY: looks up catalogs. These functions accept any number.
        unsafe {
            pg_sys::check_stack_depth();
            match pg_sys::get_typtype(kind) as u8 {
                pg_sys::TYPTYPE_BASE => self.add(pg_sys::get_element_type(kind)),
                pg_sys::TYPTYPE_DOMAIN => self.add(pg_sys::getBaseType(kind)),
                pg_sys::TYPTYPE_RANGE => self.add(pg_sys::get_range_subtype(kind)),
                pg_sys::TYPTYPE_MULTIRANGE => self.add(pg_sys::get_multirange_range(kind)),
                pg_sys::TYPTYPE_COMPOSITE => self.add_row(kind),
                _ => {}
            }
        }
    }

    /// Adds the columns of a row type.
    fn add_row(&mut self, kind: pg_sys::Oid) {
        // SAFETY: looks up catalogs. The description of the row is kept while it is read, and released after the last access.
        unsafe {
            self.lost |= !note(&mut self.rows, pg_sys::get_typ_typrelid(kind).to_u32());
            let columns = pg_sys::lookup_rowtype_tupdesc_noerror(kind, -1, true);
            if columns.is_null() {
                return;
            }
            // The type of a dropped column is 0.
            (1..=(*columns).natts).for_each(|column| self.add(pg_sys::SPI_gettypeid(columns, column)));
            if (*columns).tdrefcount >= 0 {
                pg_sys::DecrTupleDescRefCount(columns);
            }
        }
    }
}
