//! Creates the views of `cache_create_view` and the wrappers of `cache_wrap`, by statements of SQL with the privileges of the
//! current role. A cached view is a pair: a hidden view with the query, and a public one that reads the stored rows of the hidden
//! one. A wrapper has the arguments of a function, and returns the stored result of a call.
//!
//! Statements are made by `pg_catalog.format`, so the server quotes all names and literals.

#![allow(unsafe_code)]

use super::call_info::Call;
use super::encoding::shown;
use super::error::Refused;
use super::signature::{FunctionOid, Signature};
use super::varlena::{TextArgument, Varlena};
use super::{context, memory, query};
use pgrx::prelude::*;
use std::ffi::{CStr, CString, c_char};

/// A value of a statement's parameter, with its type.
type Parameter = (pg_sys::Oid, Option<pg_sys::Datum>);

fn text(bytes: &[u8]) -> Parameter {
    (pg_sys::TEXTOID, Some(Varlena::of(bytes).into_datum()))
}

fn oid(kind: pg_sys::Oid, oid: pg_sys::Oid) -> Parameter {
    (kind, Some(oid.into()))
}

/// Calls `run` with an open connection to the server's programming interface (SPI).
fn connected<R>(run: impl FnOnce() -> R) -> R {
    // SAFETY: follows the rules of the interface. An error closes the connection with the (sub)transaction.
    unsafe {
        if pg_sys::SPI_connect() != pg_sys::SPI_OK_CONNECT as i32 {
            pgrx::error!("cannot connect to the server's programming interface");
        }
        let result = run();
        pg_sys::SPI_finish();
        result
    }
}

/// Runs a query whose rows are commands, and then runs the commands.
///
/// # Safety
/// An SPI connection must be open, and the parameters must have their types.
unsafe fn run_commands(query: &CStr, parameters: &[Parameter]) {
    let mut types = memory::collect(parameters.iter().map(|(kind, _)| *kind));
    let mut values =
        memory::collect(parameters.iter().map(|(_, value)| value.unwrap_or(pg_sys::Datum::null())));
    let nulls = memory::collect(
        parameters.iter().map(|(_, value)| if value.is_some() { b' ' } else { b'n' } as c_char),
    );
    // SAFETY: as the caller promises. The strings live as long as the connection.
    unsafe {
        let status = pg_sys::SPI_execute_with_args(
            query.as_ptr(),
            types.len() as i32,
            types.as_mut_ptr(),
            values.as_mut_ptr(),
            nulls.as_ptr(),
            // The query must see what the commands before it have created.
            false,
            0,
        );
        if status != pg_sys::SPI_OK_SELECT as i32 {
            pgrx::error!("the commands cannot be made");
        }
        let table = pg_sys::SPI_tuptable;
        for row in 0..pg_sys::SPI_processed as usize {
            let command = pg_sys::SPI_getvalue(*(*table).vals.add(row), (*table).tupdesc, 1);
            if command.is_null() || pg_sys::SPI_execute(command, false, 0) < 0 {
                pgrx::error!("the command cannot run");
            }
        }
    }
}

/// Makes the command for the hidden view: schema, name, query.
const HIDDEN_VIEW: &CStr =
    c"SELECT pg_catalog.format('CREATE VIEW %I.%I AS %s', $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text)";

/// Makes the command for the public view: schema, name, hidden view, schema of the functions, ttl, tags, stale_ok, space.
const PUBLIC_VIEW: &CStr = c"SELECT pg_catalog.format(
    'CREATE VIEW %1$I.%2$I AS SELECT r.* FROM %4$I.cache_view_rows(
        (SELECT o.token FROM %4$I.cache_view_owner AS o), NULL::%1$I.%3$I, %5$L::pg_catalog.interval, %6$L::pg_catalog.text[],
        %7$L::pg_catalog.interval, %8$L::pg_catalog.text) AS r',
    $1::pg_catalog.text, $2::pg_catalog.text, $3::pg_catalog.text, $4::pg_catalog.text, $5::pg_catalog.interval,
    $6::pg_catalog.text[], $7::pg_catalog.interval, $8::pg_catalog.text)";

/// Creates the two views of `cache_create_view`, and returns the OID of the public one. `call` is the call of that function, whose
/// arguments were checked: name, query, ttl, tags, stale_ok, space. Raises the errors of the server.
pub fn view(call: Call, name: TextArgument<'_>, text_of_query: &CStr) -> u32 {
    let caller = format!("query of cache_create_view, view \"{}\"", shown(name.bytes()));
    context::within(&caller, text_of_query, |_| {
        // SAFETY: the connection is open while the parser's results are in use.
        connected(|| unsafe { query::require_view(text_of_query) })
    });
    let (schema, name) = named(name);
    // SAFETY: the server's own functions, called with strings that end with a zero. The arguments of the call have these types.
    unsafe {
        let of_schema = |oid| CStr::from_ptr(pg_sys::get_namespace_name(oid)).to_owned();
        let hidden = pg_sys::makeObjectName(name.as_ptr(), std::ptr::null(), c"uncached".as_ptr());
        let hidden = CStr::from_ptr(hidden).to_owned();
        let schema_name = of_schema(schema);
        let [in_schema, called, hidden] = [&schema_name, &name, &hidden].map(|name| text(name.to_bytes()));
        connected(|| {
            run_commands(HIDDEN_VIEW, &[in_schema, hidden, text(text_of_query.to_bytes())]);
            let functions = text(of_schema(call.schema()).to_bytes());
            let (interval, texts) = (pg_sys::INTERVALOID, pg_sys::TEXTARRAYOID);
            run_commands(
                PUBLIC_VIEW,
                &[
                    in_schema,
                    called,
                    hidden,
                    functions,
                    (interval, call.argument(2)),
                    (texts, call.argument(3)),
                    (interval, call.argument(4)),
                    (pg_sys::TEXTOID, call.argument(5)),
                ],
            );
        });
        pg_sys::get_relname_relid(name.as_ptr(), schema).to_u32()
    }
}

/// Returns the schema and the name of a relation that is to be created. Raises an error for a text that is no name.
fn named(argument: TextArgument<'_>) -> (pg_sys::Oid, CString) {
    // SAFETY: the server's own functions, called with a text. The names live as long as the statement.
    unsafe {
        let text = Varlena::of(argument.bytes()).into_datum();
        let names = pg_sys::textToQualifiedNameList(text.cast_mut_ptr());
        let relation = pg_sys::makeRangeVarFromNameList(names);
        let schema = pg_sys::RangeVarGetCreationNamespace(relation);
        (schema, CStr::from_ptr((*relation).relname).to_owned())
    }
}

/// Makes the command for a wrapper: function, schema and name of the wrapper, its strictness, the selected columns, the schema of
/// the functions, ttl, tags, space, the parameters, the columns.
const WRAPPER: &CStr = c"SELECT pg_catalog.format(
    'CREATE FUNCTION %1$I.%2$I(%3$s) RETURNS %4$s LANGUAGE sql VOLATILE PARALLEL UNSAFE %5$s BEGIN ATOMIC
        SELECT %6$s FROM %7$I.cache_wrapped(%8$L::pg_catalog.interval, %9$L::pg_catalog.text[], %10$L::pg_catalog.text,
            %11$L::pg_catalog.regprocedure%12$s) AS r(%13$s); END',
    $2::pg_catalog.text, $3::pg_catalog.text, pg_catalog.pg_get_function_arguments($1::pg_catalog.oid),
    pg_catalog.pg_get_function_result($1::pg_catalog.oid), $4::pg_catalog.text, $5::pg_catalog.text, $6::pg_catalog.text,
    $7::pg_catalog.interval, $8::pg_catalog.text[], $9::pg_catalog.text, $1::pg_catalog.regprocedure, $10::pg_catalog.text,
    $11::pg_catalog.text)";

/// Makes the command that gives the wrapper $2 the owner of the function $1.
const OWNER: &CStr = c"SELECT pg_catalog.format('ALTER FUNCTION %s OWNER TO %I', $2::pg_catalog.regprocedure,
        pg_catalog.pg_get_userbyid(p.proowner))
    FROM pg_catalog.pg_proc AS p WHERE p.oid OPERATOR(pg_catalog.=) $1";

/// Makes the commands that take all privileges on the wrapper $2 away. The test of $1, which is never null, changes nothing: it
/// only uses the parameter.
const REVOKES: &CStr = c"SELECT pg_catalog.format('REVOKE ALL ON FUNCTION %s FROM %s', $2::pg_catalog.regprocedure,
        COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC'))
    FROM pg_catalog.pg_proc AS p
        CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.grantee
    WHERE p.oid OPERATOR(pg_catalog.=) $2 AND $1 IS NOT NULL";

/// Makes the commands that grant the privileges on the function $1 also on the wrapper $2.
const GRANTS: &CStr = c"SELECT pg_catalog.format('GRANT EXECUTE ON FUNCTION %s TO %s%s', $2::pg_catalog.regprocedure,
        COALESCE(pg_catalog.quote_ident(r.rolname), 'PUBLIC'),
        pg_catalog.repeat(' WITH GRANT OPTION', a.is_grantable::pg_catalog.int4))
    FROM pg_catalog.pg_proc AS p
        CROSS JOIN LATERAL pg_catalog.aclexplode(COALESCE(p.proacl, pg_catalog.acldefault('f', p.proowner))) AS a
        LEFT JOIN pg_catalog.pg_roles AS r ON r.oid OPERATOR(pg_catalog.=) a.grantee
    WHERE p.oid OPERATOR(pg_catalog.=) $1";

/// Creates the wrapper of a function, and returns its OID. `call` is the call of `cache_wrap`, whose arguments were checked:
/// function, ttl, tags, space. The search path must be `pg_catalog` alone, so that the names of types have their schemas. Raises
/// the errors of the server.
pub fn wrapper(call: Call, signature: &Signature) -> Result<u32, Refused> {
    let wrapper = signature.wrapper()?;
    let function = pg_sys::Oid::from(signature.function.get());
    let schema = pg_sys::Oid::from(wrapper.schema);
    // SAFETY: the server's own functions, called with strings that end with a zero. The arguments of the call have these types.
    unsafe {
        let of_schema = |oid| text(CStr::from_ptr(pg_sys::get_namespace_name(oid)).to_bytes());
        let of_function = oid(pg_sys::OIDOID, function);
        let functions = of_schema(call.schema());
        let created = connected(|| {
            run_commands(
                WRAPPER,
                &[
                    of_function,
                    of_schema(schema),
                    text(wrapper.name.to_bytes()),
                    text(wrapper.strict.to_bytes()),
                    text(wrapper.selected.to_bytes()),
                    functions,
                    (pg_sys::INTERVALOID, call.argument(1)),
                    (pg_sys::TEXTARRAYOID, call.argument(2)),
                    (pg_sys::TEXTOID, call.argument(3)),
                    text(wrapper.parameters.to_bytes()),
                    text(wrapper.columns.to_bytes()),
                ],
            );
            let created = pg_sys::Oid::from(signature.find(schema, &wrapper.name));
            let both = [of_function, oid(pg_sys::OIDOID, created)];
            run_commands(OWNER, &both);
            run_commands(REVOKES, &both);
            run_commands(GRANTS, &both);
            created
        });
        Ok(created.to_u32())
    }
}

/// Returns the function that the first argument behind `before` names: the arguments of `cache_wrapped` are settings, a function
/// and its arguments. An error if it does not name one.
pub fn wrapped(call: Call, index: usize) -> Result<FunctionOid, Refused> {
    let is_function = call.argument_type(index) == pg_sys::REGPROCEDUREOID.to_u32();
    let argument = call.argument(index).filter(|_| is_function);
    argument.map(FunctionOid::of).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_INVALID_PARAMETER_VALUE;
        Refused::new(code, "the first argument behind space must be a regprocedure")
    })
}
