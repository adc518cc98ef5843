//! Watches the plain SELECTs of the client while `pg_cache.observe` is on. Reports to one watcher (`query/observe.rs`) when each of
//! them begins, and when it has run to its end. The statement does not change: neither its plan nor its result nor its errors.
//!
//! A *plain SELECT* is a statement of the client, or a prepared statement that the client executes. Statements inside of functions,
//! of DO blocks and of other commands (`EXPLAIN`, `COPY`, `CREATE TABLE AS`, `DECLARE CURSOR`) do not count, and neither do
//! statements that change or lock rows.
//!
//! The watcher runs in a subtransaction, so an error in it does not reach the statement: the statement is then not counted. An
//! error of the statement passes the hooks as a longjmp. So no value in a hook that calls the next hook may need to be dropped.
//! Such an error leaves [`State`] behind, until the transaction or the savepoint is rolled back ([`undone`]).
//!
//! The tree of a statement exists only while the statement is planned, which may be long before it runs. So the hook of the planner
//! reads in the tree what the result depends on (`analysis.rs`), and the session remembers the findings.

#![allow(unsafe_code)]

use super::executor;
use super::local::local;
use super::observer::{self, Seen};
use super::rows::columns::is_composite;
use super::run_hook::run_hook;
use super::typed::Typed;
use super::{analysis, settings, subtransaction, transaction};
use pgrx::prelude::*;
use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

/// A plain SELECT of the client.
#[derive(Debug)]
pub struct Statement<'a> {
    pub text: &'a [u8],
    pub arguments: Typed,
    /// The server's identifier of the statement.
    pub query_id: u64,
    /// The findings in its tree. None if the statement was planned before the session was observed.
    pub tree: Option<Rc<Seen>>,
}

/// A statement that has run to its end.
#[derive(Debug)]
pub struct Executed {
    /// The relations that it has read, and the functions that it has called. None if the watcher did not ask for them.
    pub seen: Option<Seen>,
    /// The time in which it was executed, without the time in which it was parsed and planned.
    pub took: Duration,
    /// The number of rows.
    pub rows: u64,
    /// The planner's estimate of the bytes of a row.
    pub row_bytes: u64,
    /// Whether a column contains composite values.
    pub has_composites: bool,
    /// Whether a column is an anonymous record.
    pub has_records: bool,
}

/// Receives the plain SELECTs of the client. Both functions may raise errors: they are caught, and the statement is not counted.
#[derive(Clone, Copy, Debug)]
pub struct Watcher {
    /// A statement begins. Returns whether to observe what it reads and calls.
    pub begin: fn(&Statement<'_>) -> bool,
    /// The statement that has begun last has run to its end.
    pub end: fn(&Statement<'_>, Executed),
}

static WATCHER: OnceLock<Watcher> = OnceLock::new();

// The hooks that were installed before ours, if any.
static mut PREVIOUS_START: pg_sys::ExecutorStart_hook_type = None;
static mut PREVIOUS_RUN: pg_sys::ExecutorRun_hook_type = None;
static mut PREVIOUS_PLANNER: pg_sys::planner_hook_type = None;

/// The state of the statement that is being observed.
#[derive(Debug, Default)]
struct State {
    /// The level of savepoints at which it began.
    depth: i32,
    /// The relations and functions that it has read and called so far. None while the statement runs, because the observer then has
    /// them, and None if they are not observed.
    seen: Option<Seen>,
    /// Whether the observer collects what the statement reads and calls.
    observes: bool,
    /// When the statement last began to run or went on. None while it does not run.
    began: Option<Instant>,
    /// The time for which it has run, up to `began`.
    took: Duration,
    /// The number of rows that it has returned.
    rows: u64,
}

local! {
    /// The address of the descriptor of the statement that is being observed; 0 if there is none.
    static CURRENT: Cell<usize> = Cell::new(0);
    static STATE: RefCell<Option<State>> = RefCell::new(None);
    /// Whether our hooks are installed.
    static IS_HOOKED: Cell<bool> = Cell::new(false);
}

/// The findings that the session remembers of the tree of a statement.
struct Tree {
    /// The findings in the tree.
    seen: Rc<Seen>,
    /// The number of invalidation messages that the session had received before it read the tree.
    messages: u64,
}

/// The most trees that a session remembers. When there are more, it forgets them all.
const TREES_MAX: usize = 2000;

thread_local! {
    /// The trees of statements, by the hash of their identifiers and texts.
    static TREES: RefCell<HashMap<u64, Tree>> = RefCell::default();
}

/// Reports to `watcher` from now on. Must be called while the server loads the library, after the executor's hook is installed
/// (`executor.rs`).
pub fn watch(watcher: Watcher) {
    if WATCHER.set(watcher).is_ok() {
        settings::when_observing(hook);
    }
}

/// Installs our hooks, which only observing needs. The server calls this when `pg_cache.observe` is switched on. The hooks then stay,
/// and do nothing while the setting is off.
fn hook() {
    if !IS_HOOKED.replace(true) {
        // SAFETY: only this thread uses the hooks (`local.rs`). Our hooks call the previous hooks.
        unsafe {
            PREVIOUS_START = pg_sys::ExecutorStart_hook;
            pg_sys::ExecutorStart_hook = Some(start);
            PREVIOUS_RUN = pg_sys::ExecutorRun_hook;
            pg_sys::ExecutorRun_hook = Some(run);
            PREVIOUS_PLANNER = pg_sys::planner_hook;
            pg_sys::planner_hook = Some(plan);
        }
    }
}

/// The hook in which a plan starts. The observer must have the statement before the hook in `executor.rs` asks for it, so that hook
/// must be among the previous ones. No guard, so that errors of the query pass through unchanged. No value on this stack needs to be
/// dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn start(query: *mut pg_sys::QueryDesc, flags: c_int) {
    // SAFETY: the server passes a plan that was made for this execution and has not been started. The next function is called as the
    // server would call it.
    unsafe {
        if settings::observes() {
            start_observed(query);
        }
        match PREVIOUS_START {
            Some(previous) => previous(query, flags),
            None => executor::standard_ExecutorStart(query, flags),
        }
        if CURRENT.get() == query.addr() {
            suspend();
        }
    }
}

/// A plan is about to start while `pg_cache.observe` is on.
///
/// # Safety
/// The plan must have been made for this execution, and must not have been started.
#[cold]
#[inline(never)]
unsafe fn start_observed(query: *mut pg_sys::QueryDesc) {
    if CURRENT.get() == query.addr() {
        // An earlier statement had a descriptor at this address, and has ended before it returned all rows.
        forget();
    }
    // SAFETY: as the caller promises.
    unsafe {
        if is_plain((*query).plannedstmt) {
            begin(query);
        }
    }
}

/// Returns whether a plan that is about to start belongs to a plain SELECT of the client.
unsafe fn is_plain(plan: *const pg_sys::PlannedStmt) -> bool {
    // SAFETY: the server's globals. The active portal lives as long as it is active. Its list of statements has at least one.
    unsafe {
        let portal = pg_sys::ActivePortal;
        (*plan).commandType == pg_sys::CmdType::CMD_SELECT
            && !(*plan).hasModifyingCTE
            && (*plan).rowMarks.is_null()
            && !portal.is_null()
            // While a statement of the client runs, its portal has another status. So statements inside of it do not pass this
            // test.
            && (*portal).status == pg_sys::PortalStatus::PORTAL_DEFINED
            && (*portal).strategy == pg_sys::PortalStrategy::PORTAL_ONE_SELECT
            && (*(*(*portal).stmts).elements).ptr_value.cast_const().cast() == plan
            // DECLARE CURSOR sets this option, and no other way to make a portal does.
            && (*portal).cursorOptions & pg_sys::CURSOR_OPT_FAST_PLAN as c_int == 0
            && is_of_client()
            && !observer::is_filling()
    }
}

/// Returns whether no code of the server's programming interface (SPI) is running: functions in PL/pgSQL and DO blocks run their
/// statements through it.
fn is_of_client() -> bool {
    // SAFETY: looks for a relation with an empty name among those that the innermost SPI connection has registered. No relation has
    // an empty name, so the call changes nothing. It returns another code if there is no SPI connection.
    let outcome = unsafe { pg_sys::SPI_unregister_relation(c"".as_ptr()) };
    outcome == pg_sys::SPI_ERROR_UNCONNECTED && !transaction::is_parallel()
}

/// Tells the watcher that a plain SELECT begins.
#[pg_guard]
unsafe extern "C-unwind" fn begin(query: *mut pg_sys::QueryDesc) {
    forget();
    let Some(watcher) = WATCHER.get() else { return };
    // SAFETY: as in `start`.
    if unsafe { (*(*query).plannedstmt).queryId } == 0 {
        // The statement was analyzed before identifiers were enabled. Later statements have one, unless `compute_query_id` is off.
        settings::enable_query_id();
        return;
    }
    // SAFETY: as in `start`.
    let begun = subtransaction::attempt(|| unsafe {
        let statement = statement_of(query);
        let seen = statement.tree.as_deref().cloned();
        (watcher.begin)(&statement).then(|| seen.unwrap_or_default())
    });
    if let Ok(seen) = begun {
        let state = State { depth: transaction::depth(), observes: seen.is_some(), ..State::default() };
        STATE.replace(Some(state));
        CURRENT.set(query.addr());
        seen.into_iter().for_each(observer::put_statement);
        STATE.with_borrow_mut(|state| state.iter_mut().for_each(|state| state.began = Some(Instant::now())));
    }
}

/// Stops observing the statement while it does not run, because the session may run other statements before it goes on.
fn suspend() {
    STATE.with_borrow_mut(|state| {
        let Some(state) = state else { return };
        state.took += state.began.take().map_or(Duration::ZERO, |began| began.elapsed());
        if state.observes {
            state.seen = observer::take_statement();
        }
    });
}

/// Goes on observing the statement, which runs again.
fn resume() {
    STATE.with_borrow_mut(|state| {
        let Some(state) = state else { return };
        state.seen.take().into_iter().for_each(observer::put_statement);
        state.began = Some(Instant::now());
    });
}

/// Tells the watcher that the statement has run to its end.
#[pg_guard]
unsafe extern "C-unwind" fn finish(query: *mut pg_sys::QueryDesc) {
    let state = STATE.take();
    CURRENT.set(0);
    let (Some(watcher), Some(state)) = (WATCHER.get(), state) else { return };
    if transaction::is_parallel() {
        return;
    }
    // An error means that the statement is not counted.
    // SAFETY: the statement has run, and was not ended. The descriptor of its rows has as many columns as it says.
    let _ = subtransaction::attempt(|| unsafe {
        let descriptor = (*query).tupDesc;
        let columns = if descriptor.is_null() { 0 } else { (*descriptor).natts };
        let types = || (1..=columns).map(|column| pg_sys::SPI_gettypeid(descriptor, column));
        let executed = Executed {
            seen: state.seen,
            took: state.took,
            rows: state.rows,
            row_bytes: (*(*(*query).plannedstmt).planTree).plan_width.max(0) as u64,
            has_composites: types().any(is_composite),
            has_records: types().any(|kind| kind == pg_sys::RECORDOID || kind == pg_sys::RECORDARRAYOID),
        };
        (watcher.end)(&statement_of(query), executed);
    });
}

/// The identifier of a query, which is signed since PostgreSQL 18.
macro_rules! id_of {
    ($id:expr) => {
        u64::from_ne_bytes($id.to_ne_bytes())
    };
}

/// Returns the statement of a plan. May raise errors.
unsafe fn statement_of<'a>(query: *mut pg_sys::QueryDesc) -> Statement<'a> {
    // SAFETY: as in `start`: the text and the parameters live as long as the plan runs.
    unsafe {
        let plan = (*query).plannedstmt;
        let source = (*query).sourceText;
        let text = text_of(source, (*plan).stmt_location, (*plan).stmt_len);
        let tree = TREES.with_borrow(|trees| {
            let tree = trees.get(&hash_of(id_of!((*plan).queryId), text));
            tree.map(|tree| Rc::clone(&tree.seen))
        });
        let arguments = Typed::of_parameters((*query).params);
        Statement { text, arguments, query_id: id_of!((*plan).queryId), tree }
    }
}

/// Returns the part of a text that is one statement. `begin` is -1 if it is unknown, and `length` is 0 if the statement is the rest
/// of the text.
unsafe fn text_of<'a>(source: *const c_char, begin: c_int, length: c_int) -> &'a [u8] {
    if source.is_null() {
        return &[];
    }
    // SAFETY: the server's text ends with a zero.
    let whole = unsafe { CStr::from_ptr(source) }.to_bytes();
    let rest = whole.get(begin.max(0) as usize..).unwrap_or_default();
    rest.get(..length as usize).filter(|_| length > 0).unwrap_or(rest)
}

fn hash_of(query_id: u64, text: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (query_id, text).hash(&mut hasher);
    hasher.finish()
}

/// Forgets the statement that is being observed, if there is one. Cannot fail.
fn forget() {
    CURRENT.set(0);
    STATE.replace(None);
    observer::take_statement();
}

/// Called when a transaction or a savepoint is rolled back. Forgets the statement if it began in it. Cannot fail.
#[inline]
pub fn undone() {
    if CURRENT.get() != 0 && STATE.with_borrow(|state| state.as_ref().is_none_or(has_begun_here)) {
        forget();
    }
}

/// Returns whether a statement has begun in the transaction or savepoint that is being rolled back.
fn has_begun_here(state: &State) -> bool {
    state.depth >= transaction::depth()
}

/// Called at the end of the transaction. Forgets the statement. Cannot fail.
#[inline]
pub fn over() {
    if CURRENT.get() != 0 {
        forget();
    }
}

unsafe extern "C-unwind" {
    // Called without pgrx, whose guard would rebuild errors.
    fn standard_planner(
        query: *mut pg_sys::Query,
        text: *const c_char,
        options: c_int,
        parameters: pg_sys::ParamListInfo,
    ) -> *mut pg_sys::PlannedStmt;
}

/// The hook has no guard, so that errors of the query pass through unchanged. No value on this stack needs to be dropped.
#[allow(ffi_unwind_calls)]
unsafe extern "C-unwind" fn plan(
    query: *mut pg_sys::Query,
    text: *const c_char,
    options: c_int,
    parameters: pg_sys::ParamListInfo,
) -> *mut pg_sys::PlannedStmt {
    // SAFETY: the next function is called as the server would call it.
    unsafe {
        if settings::observes() {
            note_tree(query, text);
        }
        match PREVIOUS_PLANNER {
            Some(previous) => previous(query, text, options, parameters),
            None => standard_planner(query, text, options, parameters),
        }
    }
}

/// Remembers what the tree of a statement shows, unless the session knows it and has received no invalidation message since.
#[cold]
#[inline(never)]
#[pg_guard]
unsafe extern "C-unwind" fn note_tree(query: *mut pg_sys::Query, text: *const c_char) {
    // SAFETY: the server passes an analyzed query, and the text that it belongs to. The counter is a plain global.
    unsafe {
        let is_plain = (*query).commandType == pg_sys::CmdType::CMD_SELECT
            && (*query).utilityStmt.is_null()
            && (*query).rowMarks.is_null()
            && !(*query).hasModifyingCTE
            && (*query).queryId != 0;
        if !is_plain || !is_of_client() {
            return;
        }
        let messages = pg_sys::SharedInvalidMessageCounter;
        let text = text_of(text, (*query).stmt_location, (*query).stmt_len);
        let hash = hash_of(id_of!((*query).queryId), text);
        let is_known =
            |trees: &HashMap<u64, Tree>| trees.get(&hash).is_some_and(|tree| tree.messages == messages);
        if TREES.with_borrow(is_known) {
            return;
        }
        // After an error, the statement counts as one that was planned before statements were observed.
        let Ok(seen) = subtransaction::attempt(|| Rc::new(analysis::of_tree(query.cast()))) else { return };
        TREES.with_borrow_mut(|trees| {
            if trees.len() >= TREES_MAX {
                trees.clear();
            }
            if trees.try_reserve(1).is_ok() {
                trees.insert(hash, Tree { seen, messages });
            }
        });
    }
}

run_hook!(run, PREVIOUS_RUN, begin_run, end_run);

/// Called before a plan runs, from its beginning or from where it has stopped.
#[inline]
fn begin_run(query: *const pg_sys::QueryDesc) {
    if CURRENT.get() == query.addr() {
        resume();
    }
}

/// Called after a plan has run until it has returned `count` rows, or all rows if `count` is 0.
#[inline]
unsafe fn end_run(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64) {
    if CURRENT.get() == query.addr() {
        // SAFETY: the plan was started and has run.
        unsafe { end_observed(query, direction, count) };
    }
}

#[cold]
unsafe fn end_observed(query: *mut pg_sys::QueryDesc, direction: pg_sys::ScanDirection::Type, count: u64) {
    suspend();
    // SAFETY: as the caller promises.
    let rows = unsafe { (*(*query).estate).es_processed };
    STATE.with_borrow_mut(|state| {
        state.iter_mut().for_each(|state| state.rows = state.rows.saturating_add(rows))
    });
    if direction != pg_sys::ScanDirection::ForwardScanDirection {
        forget();
    } else if count == 0 || rows < count {
        // SAFETY: as the caller promises.
        unsafe { finish(query) };
    }
}
