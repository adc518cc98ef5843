//! Reads in the tree of a query what its result depends on, before the query is planned. The rewriter has expanded views and policies
//! in this tree, but the planner has not inlined functions, folded constants or removed anything yet. What the query reads and calls
//! while it runs is observed (`observer.rs`).

#![allow(unsafe_code)]

use super::built_in;
use super::executor::nodes;
use super::function::{self, C, Function, INTERNAL, SQL};
use super::observer::{self, Seen, note};
use pgrx::prelude::*;
use std::collections::BTreeSet;
#[cfg(debug_assertions)]
use std::ffi::CStr;
use std::ffi::c_void;

/// What the call of a function means for a result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// The function is a stable built-in one that reads the state of the server.
    pub server_state: bool,
    /// The function is in a language that pg_cache cannot follow.
    pub foreign_language: bool,
    pub reads_settings: bool,
    pub reads_clock: bool,
    /// The function is not a built-in one, and pg_cache cannot know what names it uses.
    pub user_function: bool,
}

impl Call {
    /// Returns what the call of a function means. May raise errors.
    pub fn of(function: u32) -> Self {
        let traits = built_in::traits(function);
        let is_stable = |found: Function| found.volatility == pg_sys::PROVOLATILE_STABLE;
        if function < pg_sys::FirstNormalObjectId {
            let is_unknown = || !traits.is_known() && function::find(function).is_none_or(is_stable);
            return Self {
                server_state: traits.reads_state() || is_unknown(),
                reads_settings: traits.reads_settings(),
                reads_clock: traits.reads_clock(),
                ..Self::default()
            };
        }
        let Some(found) = function::find(function) else {
            // A function that is gone could have been anything.
            return Self { server_state: false, ..Self::ANYTHING };
        };
        if found.is_aggregate {
            // The aggregate consists of other functions, which are observed, but it could consist of others tomorrow.
            return Self { user_function: true, ..Self::default() };
        }
        let is_native = [INTERNAL, C].contains(&found.language);
        let is_sql = found.language == SQL;
        Self {
            server_state: false,
            foreign_language: !is_native && !is_sql && found.language != function::plpgsql(),
            // A library reads its settings, and a session may have set one before it has loaded the library.
            reads_settings: found.language != INTERNAL && !is_sql,
            reads_clock: is_stable(found) && found.language != C,
            user_function: !is_native,
        }
    }

    const ANYTHING: Self = Self {
        server_state: true,
        foreign_language: true,
        reads_settings: true,
        reads_clock: true,
        user_function: true,
    };
}

/// Notes in the running fill, if there is one, what the rewritten tree of its query shows.
///
/// # Safety
/// `queries` must be a list of analyzed queries, or null.
pub unsafe fn note_queries(queries: *mut pg_sys::List) {
    if !observer::is_filling() {
        return;
    }
    let mut seen = Seen::default();
    // SAFETY: as the caller promises.
    unsafe {
        visit(queries.cast(), (&raw mut seen).cast());
        if pg_sys::contain_volatile_functions(queries.cast()) {
            seen.volatile = Some(function::first_volatile(queries.cast()));
        }
    }
    observer::with_fill(|fill| {
        fill.add(&seen);
        fill.volatile = fill.volatile.or(seen.volatile);
    });
}

/// The server calls this for each node of a tree.
#[pg_guard]
#[allow(ffi_unwind_calls)] // The guard catches the error, and no value on this stack needs to be dropped.
unsafe extern "C-unwind" fn visit(node: *mut pg_sys::Node, context: *mut c_void) -> bool {
    if node.is_null() {
        return false;
    }
    // SAFETY: a node's tag names its type. The walkers take any node, and a query has a walker of its own. `context` is the variable
    // of `note_queries`.
    unsafe {
        note_node(node, &mut *context.cast::<Seen>());
        pg_sys::check_functions_in_node(node, Some(visit_function), context);
        pg_sys::ffi::pg_guard_ffi_boundary(|| match (*node).type_ {
            pg_sys::NodeTag::T_Query => {
                let flags = pg_sys::QTW_EXAMINE_SORTGROUP as i32;
                function::query_tree_walker(node.cast(), visit, context, flags)
            }
            _ => function::expression_tree_walker(node, visit, context),
        })
    }
}

/// The server calls this for each function of a node. Returns false, so that the walk goes on.
#[pg_guard]
unsafe extern "C-unwind" fn visit_function(function: pg_sys::Oid, context: *mut c_void) -> bool {
    // SAFETY: `context` is the variable of `note_queries`.
    let seen = unsafe { &mut *context.cast::<Seen>() };
    seen.add_call(function.to_u32(), &Call::of(function.to_u32()));
    false
}

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
                seen.system_columns |= is_transactional((*var).varattno);
            }
            T_SQLValueFunction => {
                let is_time = (*node.cast::<pg_sys::SQLValueFunction>()).op
                    <= pg_sys::SQLValueFunctionOp::SVFOP_LOCALTIMESTAMP_N;
                seen.reads_clock |= is_time;
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
            }
        }
    }
}

/// Returns whether a column is one of `xmin`, `cmin`, `xmax` and `cmax`.
pub(super) fn is_transactional(column: pg_sys::AttrNumber) -> bool {
    let least = pg_sys::MaxCommandIdAttributeNumber as pg_sys::AttrNumber;
    let greatest = pg_sys::MinTransactionIdAttributeNumber as pg_sys::AttrNumber;
    (least..=greatest).contains(&column)
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
    seen.reads_clock |= found.lost || found.types.iter().any(may_read);
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

/// Returns the OIDs of a list. The list must be null or hold OIDs.
unsafe fn oids(list: *const pg_sys::List) -> impl Iterator<Item = pg_sys::Oid> {
    // SAFETY: a list is a length and an array of as many values; an empty list is a null pointer.
    let length = if list.is_null() { 0 } else { unsafe { (*list).length as usize } };
    // SAFETY: `index` is within the array.
    (0..length).map(move |index| unsafe { (*(*list).elements.add(index)).oid_value })
}

/// Runs a query as a fill does (`query/fetch.rs`), and returns what was seen, in three lines: what the query does, the relations whose rows it depends
/// on, and the relations that it names. A parameter of the query, if it has one, has the type `kind` and is null. For tests, in debug
/// builds only (`CREATE FUNCTION … AS '$libdir/pg_cache', 'seen_of_wrapper'`).
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn seen_of(text: &CStr, kind: pg_sys::Oid) -> String {
    if observer::has_prepared_untracked() {
        super::query::forget_catalogs();
    }
    let ((), seen) = observer::observe(|| {
        let (mut kinds, mut values) = ([kind], [pg_sys::Datum::null()]);
        let count = i32::from(kind != pg_sys::InvalidOid);
        // SAFETY: follows the rules of the server programming interface. There are as many types, values and nulls as the query has
        // parameters.
        unsafe {
            pg_sys::SPI_connect();
            let plan = pg_sys::SPI_prepare(text.as_ptr(), count, kinds.as_mut_ptr());
            let sources = pg_sys::SPI_plan_get_plan_sources(plan);
            let source = (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
            note_queries((*source).query_list);
            pg_sys::SPI_execute_plan(plan, values.as_mut_ptr(), c"n".as_ptr(), false, 0);
            pg_sys::SPI_finish();
        }
    });
    let function = |name: &str, function: Option<u32>| {
        function
            .map(|oid| format!("{name}={}", function::in_words(oid, true).unwrap_or_else(|| oid.to_string())))
    };
    let flag = |name: &str, is_set: bool| is_set.then(|| name.to_owned());
    let traits = [
        function("volatile", seen.volatile),
        function("server_state", seen.server_state),
        function("foreign_language", seen.foreign_language),
        flag("lost", seen.lost),
        flag("sampled", seen.sampled),
        flag("untracked", seen.untracked),
        flag("reads_settings", seen.reads_settings),
        flag("reads_clock", seen.reads_clock),
        flag("system_columns", seen.system_columns),
        flag("names_objects", seen.names_objects),
        flag("locks_rows", seen.locks_rows),
        flag("writes", seen.writes),
        flag("user_function", seen.user_function),
        flag("foreign_portal", seen.foreign_portal),
        flag("cache", seen.cache),
    ];
    let traits: Vec<_> = traits.into_iter().flatten().collect();
    let numbers = |oids: &BTreeSet<u32>| oids.iter().map(u32::to_string).collect::<Vec<_>>().join(" ");
    let (rows, named) = (numbers(&seen.rows_of_relations()), numbers(&seen.relations_named));
    format!("{}\n{rows}\n{named}", traits.join("; "))
}

/// Returns whether the lists of built-in functions contain a function. For tests, like the function above.
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn is_known_built_in(function: pg_sys::Oid) -> bool {
    built_in::traits(function.to_u32()).is_known()
}
