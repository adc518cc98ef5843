//! Functions of debug builds that tell tests what was observed of a query (`observer.rs`), and which built-in functions the lists
//! contain. `tests/sessions/seen.rs` calls them.

#![allow(unsafe_code)]

use super::{analysis, built_in, function, invalidations, observer};
use pgrx::prelude::*;
use std::collections::BTreeSet;
use std::ffi::CStr;

/// Runs a query and observes it like a query whose result may be stored (`query/run.rs`), and returns what was seen, in three
/// lines: what the query does, the relations whose rows it depends on, and the relations that it names. Unlike there, the execution
/// is not read-only, it reads all rows, and a change of definitions does not drop the session's plans.
///
/// The text must be one statement: an empty text has no plan source, and of several statements, only the first one is analyzed. A
/// parameter of the query, if it has one, has the type `kind` and is null; `kind` is 0 if the query has none. (`CREATE FUNCTION …
/// AS '$libdir/pg_cache', 'seen_of_wrapper'`)
#[pg_extern(sql = false)]
fn seen_of(text: &CStr, kind: pg_sys::Oid) -> String {
    // The observer sees the functions of an expression only when the server prepares the expression. Without its plan, the server
    // prepares it again.
    if observer::has_prepared_untracked() {
        invalidations::forget_catalogs();
    }
    let ((), seen) = observer::observe(|| {
        let (mut kinds, mut values) = ([kind], [pg_sys::Datum::null()]);
        let count = i32::from(kind != pg_sys::InvalidOid);
        // SAFETY: follows the rules of the server programming interface. There are as many types, values and nulls as the query has
        // parameters. `SPI_prepare` raises an error if it cannot analyze the text. It returns null only if there is no connection
        // or if its arguments are illegal, so the plan is not checked. The text is one statement, so there is a source.
        unsafe {
            pg_sys::SPI_connect();
            let plan = pg_sys::SPI_prepare(text.as_ptr(), count, kinds.as_mut_ptr());
            let sources = pg_sys::SPI_plan_get_plan_sources(plan);
            let source = (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>();
            analysis::note_queries((*source).query_list);
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

/// Returns whether the lists of built-in functions contain a function.
#[pg_extern(sql = false)]
fn is_known_built_in(function: pg_sys::Oid) -> bool {
    built_in::traits(function.to_u32()).is_known()
}
