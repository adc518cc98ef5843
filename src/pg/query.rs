//! Runs a caller's query with the caller's privileges, on a given snapshot. Also drops the session's cached plans and catalog data
//! before a fill.

#![allow(unsafe_code)]

use super::context::{self, Context};
use super::encoding::shown;
use super::error::Refused;
use super::jsonb::{Array, Element, Literal};
use super::rows::columns::{definition_list, distinct_definition_list, is_composite, type_name};
use super::rows::{Reader, Sink, receiver};
use super::typed::Typed;
use super::{analysis, executor, memory, observer, unclear, varlena};
use pgrx::prelude::*;
use std::ffi::{CStr, c_char, c_int, c_void};

/// The snapshot that a query runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Snapshot {
    /// A new snapshot: it sees all that is committed now.
    New,
    /// The transaction's own snapshot.
    Transaction,
    /// The snapshot of the enclosing query, where no new one may be taken: while that query runs in parallel.
    Active,
}

/// Accepts all catalog invalidations that were announced so far. Must be called within a transaction, like all functions here.
pub fn accept_messages() {
    // SAFETY: the server's own function, called within a transaction.
    unsafe { pg_sys::AcceptInvalidationMessages() };
}

/// Drops the session's cached plans, its resolved search path, and its cached role memberships, as PostgreSQL does when schemas and
/// roles change. Running plans are not disturbed.
///
/// Memberships are dropped because PostgreSQL may keep an outdated list of them: it loses a message that arrives while it collects
/// the list.
pub fn forget_catalogs() {
    use pg_sys::SysCacheIdentifier::{AUTHMEMROLEMEM, NAMESPACEOID};
    accept_messages();
    let every_object = 0;
    for cache in [NAMESPACEOID, AUTHMEMROLEMEM] {
        // SAFETY: the server's own function, called within a transaction. It calls the callbacks that an invalidation message would
        // call.
        unsafe { pg_sys::CallSyscacheCallbacks(cache as i32, every_object) };
    }
}

/// A query of a caller, with its arguments.
#[derive(Clone, Copy, Debug)]
pub struct Query<'a> {
    /// The function of this library that runs the query, for the context of errors, such as `query of cache_fetch, key "x"`.
    pub caller: &'a str,
    /// The text of the query, in the encoding of the database.
    pub text: &'a CStr,
    /// The values of the parameters `$1`, `$2` and so on.
    pub arguments: Arguments<'a>,
}

/// The values of a query's parameters.
#[derive(Clone, Copy, Debug)]
pub enum Arguments<'a> {
    /// JSON that is converted to the types that the query infers.
    Json(Array<'a>),
    /// Values with the types of the parameters.
    Typed(&'a Typed),
}

impl<'a> Arguments<'a> {
    /// Returns bytes that differ for different arguments.
    pub fn bytes(self) -> &'a [u8] {
        match self {
            Self::Json(array) => array.bytes(),
            Self::Typed(typed) => typed.bytes(),
        }
    }
}

/// The value of a query as jsonb.
#[derive(Debug)]
pub struct Value {
    /// The bytes of the jsonb without their header.
    pub bytes: Vec<u8>,
    /// Whether the query has returned composite values: the jsonb has the names of their attributes.
    pub has_composites: bool,
}

/// Runs a query as a scalar subquery, and returns its value. Returns None if the value
/// is null, or if there is no row. Before the query runs, `before` is called with the relations that it names, also through views.
/// Relations that its functions read are not among them.
///
/// Raises the errors of the query, with their position in it. A query that writes, or that returns more than one column or row, is
/// an error.
pub fn scalar(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Option<Value> {
    context::within(query.caller, query.text, |context| try_scalar(query, on, before, context))
}

/// Does the same as [`scalar`]. But an error with which this library refuses the query is returned, and not raised.
fn try_scalar(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    context: Context,
) -> Result<Option<Value>, Refused> {
    // SAFETY: the SPI connection is open while anything that the query returns is in use.
    within_spi(on, || unsafe { value_of(query, on, before, context) })
}

/// Runs a query and sends its rows to `sink`. `before` is called as by [`scalar`]. Raises the errors of the query, and an error if
/// the rows do not have the columns that the sink expects.
pub fn rows(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32]), sink: &mut Sink) {
    context::within(query.caller, query.text, |context| {
        // SAFETY: as above.
        within_spi(on, || unsafe { send_rows(query, on, before, sink, context) })
    });
}

/// Runs a query, and returns its rows as a jsonb: an array with an object for each row. `before` is called as by [`scalar`]. Raises
/// the errors of the query.
pub fn json(query: &Query<'_>, on: Snapshot, before: &mut dyn FnMut(&[u32])) -> Value {
    context::within(query.caller, query.text, |context| {
        // SAFETY: as above. The connection is still open while the bytes are copied.
        within_spi(on, || unsafe {
            let mut sink = Sink::of_any_columns();
            send_rows(query, on, before, &mut sink, context)?;
            let bytes = memory::copy(varlena::content(sink.to_jsonb()));
            Ok(Value { bytes, has_composites: sink.has_composites() })
        })
    })
}

/// The description of a query before it runs.
#[derive(Debug)]
pub struct Described {
    /// The relations that it names, also through views.
    pub relations: Vec<u32>,
    /// The columns that it returns, as a column definition list such as `id integer, name text`.
    pub columns: String,
    /// The name of the first column whose type is an anonymous record.
    pub anonymous_record: Option<Vec<u8>>,
}

/// Parses, rewrites and plans a query, and reports to the running fill what its tree shows, but does not run it. Raises the errors
/// of the query and of its arguments.
pub fn describe(query: &Query<'_>, on: Snapshot) -> Described {
    context::within(query.caller, query.text, |context| {
        // SAFETY: as above. A plan of one statement has one source, which describes its rows.
        within_spi(on, || unsafe {
            let parsed = parse(query)?;
            refuse_utility(&parsed)?;
            bind(query.arguments, &parsed.types, context)?;
            let plan = prepare(query.text, &parsed.types)?;
            if parsed.writes() {
                observer::note_writes();
            }
            let descriptor = rows_of(plan)?;
            let mut sink = Sink::of_any_columns();
            sink.require(descriptor)?;
            Ok(Described {
                relations: relations(plan),
                columns: definition_list(descriptor),
                anonymous_record: sink.anonymous_record().map(memory::copy),
            })
        })
    })
}

/// Returns whether a query may return different rows for the same data (`unclear.rs`). Plans it, but does not run it. With a
/// `reader`, the query must be one that reads a relation as another role. Raises the errors of the query.
pub fn is_unclear(query: &Query<'_>, reader: Option<Reader>) -> bool {
    context::within(query.caller, query.text, |_| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse_as(reader, query)?;
            refuse_utility(&parsed)?;
            let plan = prepare_as(reader, query.text, &parsed.types)?;
            Ok(unclear::are_unclear((*source_of(plan)).query_list))
        })
    })
}

/// A query as its analysis shows it, without values for its parameters.
#[derive(Debug)]
pub struct Sketch {
    /// The relations that it names, also through views.
    pub relations: Vec<u32>,
    /// The columns that it returns, as a column definition list. Columns with equal names get different ones.
    pub columns: String,
    /// Whether the names of its columns differ, so that a view can have them.
    pub fits_view: bool,
    /// Whether it summarizes rows: by an aggregate, a window function, GROUP BY or DISTINCT.
    pub summarizes: bool,
    /// The types of its parameters.
    pub parameters: Vec<String>,
    /// The name of the first column whose type is an anonymous record.
    pub anonymous_record: Option<Vec<u8>>,
}

/// Parses and rewrites a query, and reports to the running fill what its tree shows. Neither plans nor runs it, so that none of its
/// functions are called. Raises the errors of the query.
pub fn sketch(text: &CStr) -> Sketch {
    let query = Query { caller: "query of cache_advise", text, arguments: Arguments::Json(Array::EMPTY) };
    context::within(query.caller, text, |_| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse(&query)?;
            refuse_utility(&parsed)?;
            refuse_writes(&parsed)?;
            let tree = parsed.query;
            let summarizes = (*tree).hasAggs
                || (*tree).hasWindowFuncs
                || !(*tree).groupClause.is_null()
                || !(*tree).distinctClause.is_null();
            let plan = analyze_as(None, text, &parsed.types)?;
            let descriptor = rows_of(plan)?;
            let mut sink = Sink::of_any_columns();
            sink.require(descriptor)?;
            let (columns, fits_view) = distinct_definition_list(descriptor);
            Ok(Sketch {
                relations: relations(plan),
                columns,
                fits_view,
                summarizes,
                parameters: memory::collect(parsed.types.iter().map(|kind| type_name((kind.to_u32(), -1)))),
                anonymous_record: sink.anonymous_record().map(memory::copy),
            })
        })
    })
}

/// Checks a query that is to run later: its syntax, its names, and that its arguments have the types of its parameters. Does not
/// plan it. Raises the errors of the query, with their position in it.
pub fn check(query: &Query<'_>) {
    context::within(query.caller, query.text, |context| {
        // SAFETY: the SPI connection is open while anything that the query returns is in use.
        within_spi(Snapshot::Active, || unsafe {
            let parsed = parse(query)?;
            refuse_utility(&parsed)?;
            refuse_writes(&parsed)?;
            bind(query.arguments, &parsed.types, context).map(|_| ())
        })
    });
}

/// How many cursors the session has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cursors {
    pub all: u64,
    /// The holdable ones among them. Reading from one runs no plan, so it cannot be observed.
    pub held: u64,
}

/// Returns how many cursors the session has.
pub fn cursors() -> Cursors {
    let count = |statement: &CStr| {
        // SAFETY: a statement of one command without parameters, while the connection is open.
        unsafe {
            match pg_sys::SPI_execute(statement.as_ptr(), true, 0) == pg_sys::SPI_OK_SELECT as i32 {
                true => pg_sys::SPI_processed,
                false => 0,
            }
        }
    };
    observer::apart(|| {
        within_spi(Snapshot::Active, || Cursors {
            all: count(c"SELECT FROM pg_catalog.pg_cursor()"),
            held: count(c"SELECT FROM pg_catalog.pg_cursor() WHERE is_holdable"),
        })
    })
}

/// Returns an error unless a text is a query without parameters that a view can have. Raises the errors of the server.
///
/// # Safety
/// An SPI connection must be open.
pub(super) unsafe fn require_view(text: &CStr) -> Result<(), Refused> {
    let none = Typed::none();
    let query = Query { caller: "", text, arguments: Arguments::Typed(&none) };
    // SAFETY: as the caller promises.
    unsafe {
        let parsed = parse(&query)?;
        refuse_utility(&parsed)?;
        refuse_writes(&parsed)
    }
}

/// Calls `run` with an open connection to the server's programming interface (SPI), and a snapshot for planning.
pub(super) fn within_spi<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // Definitions must be at least as new as the rows. Without this call, the session would learn of changes only when it next
    // locks a relation that it has not locked yet.
    accept_messages();
    on_snapshot(on, || {
        // SAFETY: follows the rules of the interface. An error closes the connection with the (sub)transaction.
        unsafe {
            if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
                pgrx::error!("cannot connect to the server's programming interface");
            }
            let result = run();
            pg_sys::SPI_finish();
            result
        }
    })
}

/// Calls `run` while a snapshot is active, and removes the snapshot when `run` returns. An error that is raised does not return
/// here: the server then removes all snapshots of the (sub)transaction and closes its SPI connections.
fn on_snapshot<R>(on: Snapshot, run: impl FnOnce() -> R) -> R {
    // SAFETY: called within a transaction. If no snapshot is active, this asks for the transaction's snapshot. The server raises an
    // error if the transaction must not take one.
    unsafe {
        pg_sys::PushActiveSnapshot(match on {
            Snapshot::New => pg_sys::GetLatestSnapshot(),
            Snapshot::Active if pg_sys::ActiveSnapshotSet() => pg_sys::GetActiveSnapshot(),
            Snapshot::Active | Snapshot::Transaction => pg_sys::GetTransactionSnapshot(),
        });
    }
    let result = run();
    // SAFETY: removes the snapshot that was pushed above. `run` has removed every snapshot that it has pushed itself.
    unsafe { pg_sys::PopActiveSnapshot() };
    result
}

/// Does the work of [`try_scalar`] while the SPI connection is open.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn value_of(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    context: Context,
) -> Result<Option<Value>, Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        let parsed = parse(query)?;
        refuse_unless_scalar(query.text, &parsed)?;
        let (mut values, nulls) = bind(query.arguments, &parsed.types, context)?;
        let plan = prepare(query.text, &parsed.types)?;
        if observer::locks_rows() {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, WRITES).detail("FOR UPDATE and FOR SHARE lock rows."));
        }
        before(&relations(plan));
        // This snapshot is taken after the tables are locked, as the server does for a statement of its own. A snapshot from before
        // a wait for a TRUNCATE would find the table empty, though no committed state was empty.
        on_snapshot(on, || {
            let found = run(query.text, plan, &mut values, &nulls)?;
            Ok(found.map(|(datum, kind)| Value {
                bytes: memory::copy(varlena::content(to_jsonb(datum, kind))),
                has_composites: is_composite(kind),
            }))
        })
    }
}

/// Does the work of [`rows`] while the SPI connection is open.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn send_rows(
    query: &Query<'_>,
    on: Snapshot,
    before: &mut dyn FnMut(&[u32]),
    sink: &mut Sink,
    context: Context,
) -> Result<(), Refused> {
    // SAFETY: as the caller promises. A plan of one statement has one source, which describes its rows.
    unsafe {
        let reader = sink.reader();
        let parsed = parse_as(reader, query)?;
        refuse_utility(&parsed)?;
        let (values, nulls) = bind(query.arguments, &parsed.types, context)?;
        let plan = prepare_as(reader, query.text, &parsed.types)?;
        sink.require(rows_of(plan)?)?;
        before(&relations(plan));
        let writes = parsed.writes() || observer::locks_rows();
        if parsed.writes() {
            observer::note_writes();
        }
        on_snapshot(on, || receiver::fill(sink, plan, &parsed.types, &values, &nulls, writes))
    }
}

/// A statement, as the server has parsed and analyzed it, and the types of its parameters.
struct Parsed {
    statement: *mut pg_sys::Node,
    query: *const pg_sys::Query,
    types: Vec<pg_sys::Oid>,
}

impl Parsed {
    /// Returns whether the statement changes rows.
    ///
    /// # Safety
    /// The SPI connection of [`parse`] must still be open.
    unsafe fn writes(&self) -> bool {
        // SAFETY: as the caller promises.
        unsafe { (*self.query).commandType != pg_sys::CmdType::CMD_SELECT || (*self.query).hasModifyingCTE }
    }
}

/// Parses and analyzes a text, which must be a single statement. The query infers the types of its parameters.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn parse(query: &Query<'_>) -> Result<Parsed, Refused> {
    // SAFETY: as the caller promises.
    unsafe { parse_as(None, query) }
}

/// Does the same as [`parse`]. If `reader` is not None, it names a relation that the query reads as another role: see
/// [`prepare_as`].
///
/// # Safety
/// As for [`parse`].
unsafe fn parse_as(reader: Option<Reader>, query: &Query<'_>) -> Result<Parsed, Refused> {
    let text = query.text;
    // SAFETY: the parser's own functions, called with a text that ends with a zero. Their results live as long as the SPI
    // connection.
    unsafe {
        let statements = pg_sys::pg_parse_query(text.as_ptr());
        let count = if statements.is_null() { 0 } else { (*statements).length };
        let code = PgSqlErrorCode::ERRCODE_SYNTAX_ERROR;
        match count {
            0 => return Err(Refused::new(code, "query is empty")),
            1 => {}
            _ => {
                return Err(Refused::new(code, "query must be a single statement")
                    .detail(format!("It has {count} statements.")));
            }
        }
        let statement = (*(*statements).elements).ptr_value.cast::<pg_sys::RawStmt>();
        if let Some(reader) = reader {
            let none = std::ptr::null_mut();
            let (setup, reading) = (Some(begin_reading as _), Reading::of(reader));
            let query = pg_sys::parse_analyze_withcb(statement, text.as_ptr(), setup, reading, none);
            return Ok(Parsed { statement: (*statement).stmt, query, types: Vec::new() });
        }
        if let Arguments::Typed(Typed { types, .. }) = query.arguments {
            let count = types.len() as c_int;
            let none = std::ptr::null_mut();
            let query =
                pg_sys::parse_analyze_fixedparams(statement, text.as_ptr(), types.as_ptr(), count, none);
            return Ok(Parsed { statement: (*statement).stmt, query, types: memory::copy(types) });
        }
        let (mut types, mut count) = (std::ptr::null_mut(), 0);
        let query = pg_sys::parse_analyze_varparams(
            statement,
            text.as_ptr(),
            &raw mut types,
            &raw mut count,
            std::ptr::null_mut(),
        );
        let types = if count == 0 { &[][..] } else { std::slice::from_raw_parts(types, count as usize) };
        let types = memory::copy(types);
        if let Some(at) =
            types.iter().position(|kind| [pg_sys::InvalidOid, pg_sys::UNKNOWNOID].contains(kind))
        {
            let code = PgSqlErrorCode::ERRCODE_INDETERMINATE_DATATYPE;
            let number = at + 1;
            return Err(Refused::new(code, format!("could not determine data type of parameter ${number}"))
                .hint(format!("Use the parameter in the query with a cast, for example ${number}::text.")));
        }
        Ok(Parsed { statement: (*statement).stmt, query, types })
    }
}

/// Returns an error unless the statement only reads, and returns one column.
///
/// # Safety
/// The result of [`parse`] must still exist.
unsafe fn refuse_unless_scalar(text: &CStr, parsed: &Parsed) -> Result<(), Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        refuse_utility(parsed)?;
        refuse_writes(parsed)?;
        let query = parsed.query;
        match pg_sys::ExecCleanTargetListLength((*query).targetList) {
            1 => Ok(()),
            columns => {
                let refused = Refused::new(
                    PgSqlErrorCode::ERRCODE_SYNTAX_ERROR,
                    "query of cache_fetch must return one column",
                )
                .detail(format!("It returns {columns} columns."));
                Err(if columns == 0 { refused } else { refused.hint(all_rows(text, columns)) })
            }
        }
    }
}

/// Returns an error if the statement changes rows.
///
/// # Safety
/// The result of [`parse`] must still exist. The statement must be a query.
unsafe fn refuse_writes(parsed: &Parsed) -> Result<(), Refused> {
    let refused = Refused::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, WRITES);
    // SAFETY: as the caller promises.
    unsafe {
        if (*parsed.query).commandType != pg_sys::CmdType::CMD_SELECT {
            return Err(refused.detail(format!("It is {}.", command_of(parsed.statement))));
        }
        if (*parsed.query).hasModifyingCTE {
            return Err(refused.detail("A statement in its WITH clause changes data."));
        }
    }
    Ok(())
}

/// Returns an error unless the statement is a query: a SELECT, or a statement that changes rows and may return them.
///
/// # Safety
/// The result of [`parse`] must still exist.
unsafe fn refuse_utility(parsed: &Parsed) -> Result<(), Refused> {
    use pg_sys::{CmdType, NodeTag};
    let unsupported = |message| Refused::new(PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED, message);
    // SAFETY: as the caller promises. The tag of a node names its type.
    unsafe {
        if (*parsed.query).commandType != CmdType::CMD_UTILITY {
            return Ok(());
        }
        let utility = (*parsed.query).utilityStmt;
        let is_into = (*utility).type_ == NodeTag::T_CreateTableAsStmt
            && (*utility.cast::<pg_sys::CreateTableAsStmt>()).is_select_into;
        Err(match is_into {
            true => unsupported(WRITES).detail("SELECT INTO creates a table."),
            false => unsupported("query must be a SELECT").detail(format!("It is {}.", command_of(utility))),
        })
    }
}

/// The message for a query that writes or locks rows.
const WRITES: &str = "query must not write";

/// Returns the name of a statement's command.
///
/// # Safety
/// The node must be a statement.
unsafe fn command_of(statement: *mut pg_sys::Node) -> String {
    // SAFETY: as the caller promises. The server's names of commands are constants.
    unsafe {
        let name = pg_sys::GetCommandTagName(pg_sys::CreateCommandTag(statement));
        CStr::from_ptr(name).to_string_lossy().into_owned()
    }
}

/// Returns the hint for a query that returns more than one row, or more than one column. It shows how the query returns them as one
/// value.
fn all_rows(text: &CStr, columns: i32) -> String {
    let is_end = |byte: &u8| byte.is_ascii_whitespace() || *byte == b';';
    let text = text.to_bytes();
    let text = &text[..text.iter().rposition(|byte| !is_end(byte)).map_or(0, |last| last + 1)];
    // A comment could hide what follows it.
    let is_plain = text.len() <= SHOWN_QUERY_BYTES_MAX
        && !text.contains(&b'\n')
        && !text.windows(2).any(|two| two == b"--");
    let query = if is_plain { shown(text) } else { "...".into() };
    match columns {
        1 => format!(
            "To get all rows as one value, use: SELECT jsonb_agg(value) FROM ({query}) AS all_rows(value)"
        ),
        _ => format!(
            "To get all rows as one value, use: SELECT jsonb_agg(all_rows) FROM ({query}) AS all_rows"
        ),
    }
}

/// A hint repeats a query up to this length in bytes.
const SHOWN_QUERY_BYTES_MAX: usize = 300;

/// Converts the arguments to the parameters' types.
///
/// # Safety
/// An SPI connection must be open.
unsafe fn bind(
    arguments: Arguments<'_>,
    types: &[pg_sys::Oid],
    context: Context,
) -> Result<(Vec<pg_sys::Datum>, Vec<c_char>), Refused> {
    let elements = match arguments {
        Arguments::Json(array) => array.elements(),
        Arguments::Typed(typed) => return Ok((memory::copy(&typed.values), memory::copy(&typed.nulls))),
    };
    if elements.len() != types.len() {
        let plural = if types.len() == 1 { "" } else { "s" };
        let (expected, found) = (types.len(), elements.len());
        let message = format!("query expects {expected} argument{plural}, got {found}");
        let refused = Refused::new(PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE, message);
        return Err(match found {
            0 => refused.hint("Use args => '[1, \"two\"]' for the parameters $1 and $2."),
            _ => refused,
        });
    }
    let (mut values, mut nulls) = (Vec::new(), Vec::new());
    memory::reserve(&mut values, types.len());
    memory::reserve(&mut nulls, types.len());
    for (at, (element, kind)) in elements.iter().zip(types).enumerate() {
        // SAFETY: the type is the one that the query infers.
        let value = context.of_parameter(at + 1, || unsafe { value_of_type(*element, *kind) });
        nulls.push(if value.is_some() { b' ' } else { b'n' } as c_char);
        values.push(value.unwrap_or(pg_sys::Datum::null()));
    }
    Ok((values, nulls))
}

/// Converts an argument to a type. A JSON array becomes an SQL array if the type is one.
///
/// # Safety
/// The type must exist.
unsafe fn value_of_type(element: Element, kind: pg_sys::Oid) -> Option<pg_sys::Datum> {
    // SAFETY: calls the type's own input function, with a text that ends with a zero.
    unsafe {
        let of = pg_sys::get_base_element_type(kind);
        let form = || Literal {
            delimiter: type_input(of).delimiter,
            of_json: [pg_sys::JSONOID, pg_sys::JSONBOID].contains(&pg_sys::getBaseType(of)),
        };
        let array = if of == pg_sys::InvalidOid { None } else { element.array(form) };
        let text = array.or_else(|| element.text())?;
        let TypeInput { function, parameter, .. } = type_input(kind);
        Some(pg_sys::OidInputFunctionCall(function, text.as_ptr().cast_mut(), parameter, -1))
    }
}

/// The input function of a type, its second argument, and the character between elements in an array of the type.
struct TypeInput {
    function: pg_sys::Oid,
    parameter: pg_sys::Oid,
    delimiter: u8,
}

/// Returns how a text becomes a value of a type.
///
/// # Safety
/// The type must exist.
unsafe fn type_input(kind: pg_sys::Oid) -> TypeInput {
    let (mut length, mut by_value, mut alignment, mut delimiter) = (0, false, 0, 0);
    let (mut parameter, mut function) = (pg_sys::InvalidOid, pg_sys::InvalidOid);
    // SAFETY: as the caller promises.
    unsafe {
        pg_sys::get_type_io_data(
            kind,
            pg_sys::IOFuncSelector::IOFunc_input,
            &raw mut length,
            &raw mut by_value,
            &raw mut alignment,
            &raw mut delimiter,
            &raw mut parameter,
            &raw mut function,
        );
    }
    TypeInput { function, parameter, delimiter: delimiter as u8 }
}

/// The argument of the parser hooks for a query that reads a relation as another role.
struct Reading {
    reader: Reader,
    /// The current role and its security context, while the names in the FROM clause are looked up as the other role.
    current: (pg_sys::Oid, c_int),
}

impl Reading {
    /// Makes the argument of [`begin_reading`], in the current memory context.
    fn of(reader: Reader) -> *mut c_void {
        let reading = memory::cleared(size_of::<Self>()).cast::<Self>();
        // SAFETY: the memory has this size, and is aligned for every type.
        unsafe { reading.write(Self { reader, current: (pg_sys::InvalidOid, 0) }) };
        reading.cast()
    }
}

/// Prepares the parser for a query that reads a relation as another role. The server calls this whenever it analyzes the query.
///
/// The names in the FROM clause are looked up as the other role, because the current role may lack a privilege on the schema: a
/// view needs none for what it names. Nothing else happens before the parser comes to the list of columns. If it raises an error
/// before, the server restores the current role when it ends the transaction or savepoint.
#[pg_guard]
unsafe extern "C-unwind" fn begin_reading(parser: *mut pg_sys::ParseState, reading: *mut c_void) {
    // SAFETY: the server's own state of the parser, and an argument that `Reading::of` has made.
    unsafe {
        (*parser).p_ref_hook_state = reading;
        (*parser).p_pre_columnref_hook = Some(read_as);
        let Reading { reader, current: (user, context) } = &mut *reading.cast::<Reading>();
        pg_sys::GetUserIdAndSecContext(user, context);
        let context = *context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int;
        pg_sys::SetUserIdAndSecContext(reader.role.oid().into(), context);
    }
}

/// Makes a query read a relation as another role, as the server does for the relations of a view. The parser calls this once, when
/// it has analyzed the FROM clause and comes to the list of columns.
#[pg_guard]
unsafe extern "C-unwind" fn read_as(
    parser: *mut pg_sys::ParseState,
    _columns: *mut pg_sys::ColumnRef,
) -> *mut pg_sys::Node {
    // SAFETY: `begin_reading` has set the state. The list holds nodes of the type.
    unsafe {
        let Reading { reader, current } = &*(*parser).p_ref_hook_state.cast::<Reading>();
        pg_sys::SetUserIdAndSecContext(current.0, current.1);
        #[cfg(feature = "pg15")]
        let entries = executor::nodes::<pg_sys::RangeTblEntry>((*parser).p_rtable);
        #[cfg(not(feature = "pg15"))]
        let entries = executor::nodes::<pg_sys::RTEPermissionInfo>((*parser).p_rteperminfos);
        for entry in entries {
            let entry = &mut *(*entry).cast_mut();
            if entry.relid.to_u32() == reader.relation {
                entry.checkAsUser = reader.role.oid().into();
            }
        }
    }
    std::ptr::null_mut()
}

/// Returns the source of a plan with one statement.
///
/// # Safety
/// The plan must have one statement, and must exist as long as the source is in use.
unsafe fn source_of(plan: pg_sys::SPIPlanPtr) -> *const pg_sys::CachedPlanSource {
    // SAFETY: as the caller promises.
    unsafe {
        let sources = pg_sys::SPI_plan_get_plan_sources(plan);
        (*(*sources).elements).ptr_value.cast::<pg_sys::CachedPlanSource>()
    }
}

/// Returns the descriptor of the rows that a plan returns. Returns an error if it returns none.
///
/// # Safety
/// The plan must have one statement.
unsafe fn rows_of(plan: pg_sys::SPIPlanPtr) -> Result<pg_sys::TupleDesc, Refused> {
    // SAFETY: as the caller promises.
    let descriptor = unsafe { (*source_of(plan)).resultDesc };
    if descriptor.is_null() {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        return Err(Refused::new(code, "query must return rows"));
    }
    Ok(descriptor)
}

/// Returns the relations that a query names, also through views.
///
/// # Safety
/// The plan must have one statement.
unsafe fn relations(plan: pg_sys::SPIPlanPtr) -> Vec<u32> {
    // SAFETY: as the caller promises. The list holds OIDs.
    unsafe {
        let list = (*source_of(plan)).relationOids;
        let count = if list.is_null() { 0 } else { (*list).length as usize };
        memory::collect((0..count).map(|at| (*(*list).elements.add(at)).oid_value.to_u32()))
    }
}

/// Returns the plan of a query, after its tables have been locked. If the query has parameters, its partitions and children are not
/// locked until it runs.
///
/// # Safety
/// An SPI connection must be open, and the text must have been parsed as a single statement.
unsafe fn prepare(text: &CStr, types: &[pg_sys::Oid]) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises.
    unsafe { prepare_as(None, text, types) }
}

/// Does the same as [`prepare`]. If `reader` is not None, it names a relation that the query reads as another role, and the text
/// must have a list of columns with the name of a relation, such as `v.*`.
///
/// # Safety
/// As for [`prepare`].
unsafe fn prepare_as(
    reader: Option<Reader>,
    text: &CStr,
    types: &[pg_sys::Oid],
) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises.
    unsafe {
        let plan = analyze_as(reader, text, types)?;
        if types.is_empty() {
            // Only the planner locks partitions and children. It runs once: without parameters, the plan is kept.
            let planned = pg_sys::SPI_plan_get_cached_plan(plan);
            if !planned.is_null() {
                pg_sys::ReleaseCachedPlan(planned, std::ptr::null_mut());
            }
        }
        Ok(plan)
    }
}

/// Does the same as [`prepare_as`], but does not plan the query.
///
/// # Safety
/// As for [`prepare_as`].
unsafe fn analyze_as(
    reader: Option<Reader>,
    text: &CStr,
    types: &[pg_sys::Oid],
) -> Result<pg_sys::SPIPlanPtr, Refused> {
    // SAFETY: as the caller promises. The plan has one statement, and lives as long as the SPI connection.
    unsafe {
        // `executor.rs` makes a plan run without workers if they could read unseen.
        let options = pg_sys::CURSOR_OPT_PARALLEL_OK as c_int;
        let plan = match reader {
            None => {
                let (count, types) = (types.len() as c_int, types.as_ptr().cast_mut());
                pg_sys::SPI_prepare_cursor(text.as_ptr(), count, types, options)
            }
            Some(reader) => {
                let reading = Reading::of(reader);
                pg_sys::SPI_prepare_params(text.as_ptr(), Some(begin_reading), reading, options)
            }
        };
        if plan.is_null() {
            pgrx::error!("the query cannot be prepared");
        }
        let source = source_of(plan);
        // The checks see the query after rewriting, so that views count.
        analysis::note_queries((*source).query_list);
        if executor::nodes::<pg_sys::Query>((*source).query_list).any(|query| locks_rows(*query)) {
            observer::note_locks();
        }
        Ok(plan)
    }
}

/// Returns whether a query, or a query in its FROM or WITH clause, locks rows. The server itself refuses all other queries that
/// lock rows, because the execution is read-only (`run`).
///
/// # Safety
/// The query must be an analyzed one.
unsafe fn locks_rows(query: *const pg_sys::Query) -> bool {
    // SAFETY: as the caller promises. The lists of a query hold nodes of these types.
    unsafe {
        pg_sys::check_stack_depth();
        !(*query).rowMarks.is_null()
            || executor::nodes::<pg_sys::RangeTblEntry>((*query).rtable)
                .any(|entry| !(**entry).subquery.is_null() && locks_rows((**entry).subquery))
            || executor::nodes::<pg_sys::CommonTableExpr>((*query).cteList)
                .any(|entry| locks_rows((**entry).ctequery.cast()))
    }
}

/// Returns the value of the only row, with its type. None if there is no row or its value is null; an error if there are more. The
/// query runs on the active snapshot.
///
/// # Safety
/// An SPI connection must be open. The plan must belong to this connection and have as many parameters as there are values.
unsafe fn run(
    text: &CStr,
    plan: pg_sys::SPIPlanPtr,
    values: &mut [pg_sys::Datum],
    nulls: &[c_char],
) -> Result<Option<(pg_sys::Datum, pg_sys::Oid)>, Refused> {
    // SAFETY: uses SPI as its documentation describes. The execution is read-only: it runs on the active snapshot, and a statement
    // that writes is an error. It stops after two rows, because the second one is an error. If the status says that rows were
    // selected, there is a table of rows.
    unsafe {
        let status = pg_sys::SPI_execute_snapshot(
            plan,
            values.as_mut_ptr(),
            nulls.as_ptr(),
            pg_sys::GetActiveSnapshot(),
            std::ptr::null_mut(),
            true,
            true,
            2,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            return Err(Refused::new(code, "query must return rows"));
        }
        let table = pg_sys::SPI_tuptable;
        match pg_sys::SPI_processed {
            0 => return Ok(None),
            1 => {}
            _ => {
                let code = PgSqlErrorCode::ERRCODE_CARDINALITY_VIOLATION;
                return Err(Refused::new(code, "more than one row returned by the query of cache_fetch")
                    .hint(all_rows(text, 1)));
            }
        }
        let mut is_null = false;
        let datum = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &raw mut is_null);
        let kind = pg_sys::SPI_gettypeid((*table).tupdesc, 1);
        // A function that returns `void` returns a Datum that represents no value.
        Ok((!is_null && kind != pg_sys::VOIDOID).then_some((datum, kind)))
    }
}

/// Converts a value to jsonb by SQL's `to_jsonb`.
///
/// # Safety
/// An SPI connection must be open. The Datum must be of the given type and not null.
unsafe fn to_jsonb(datum: pg_sys::Datum, kind: pg_sys::Oid) -> pg_sys::Datum {
    if kind == pg_sys::JSONBOID {
        return datum;
    }
    let (mut kind, mut datum) = (kind, datum);
    // SAFETY: as the caller promises. The result lives as long as the SPI connection.
    unsafe {
        let status = pg_sys::SPI_execute_with_args(
            c"SELECT pg_catalog.to_jsonb($1)".as_ptr(),
            1,
            &raw mut kind,
            &raw mut datum,
            c" ".as_ptr(),
            true,
            1,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 || pg_sys::SPI_processed != 1 {
            pgrx::error!("the value cannot be made jsonb");
        }
        let mut is_null = false;
        let table = pg_sys::SPI_tuptable;
        let json = pg_sys::SPI_getbinval(*(*table).vals, (*table).tupdesc, 1, &raw mut is_null);
        // An overloaded `to_jsonb` for the value's type may return another type.
        if is_null || pg_sys::SPI_gettypeid((*table).tupdesc, 1) != pg_sys::JSONBOID {
            pgrx::error!("the value cannot be made jsonb");
        }
        json
    }
}

/// Returns whether this library refuses a query, without raising the reason; errors of the server are raised. For tests, in debug
/// builds only (`CREATE FUNCTION … AS '$libdir/pg_cache', 'is_refused_wrapper'`).
#[cfg(debug_assertions)]
#[pg_extern(sql = false)]
fn is_refused(text: &CStr) -> bool {
    let query = Query { caller: "query of a test", text, arguments: Arguments::Json(Array::EMPTY) };
    let is_refused = |context| Ok(try_scalar(&query, Snapshot::New, &mut |_| {}, context).is_err());
    observer::observe(|| context::within(query.caller, text, is_refused)).0
}
