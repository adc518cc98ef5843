//! Reads what the server and its extensions have counted, for `cache_advise`: statements in `pg_stat_statements` and in the view
//! `cache_observed`, and changed rows of tables. The *observing mode* (`pg_cache.observe`) counts for each statement of the client
//! how many of its calls would have been hits; that view shows its counts. Every query in this file runs with the rights of the
//! caller, and names all objects with their schemas. The functions raise the errors of the server, for instance if the caller may
//! not read a view.

use super::memory;
use super::varlena::OwnedText;
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;
use pgrx::spi::{SpiHeapTupleData, SpiResult};
use std::collections::BTreeMap;

/// A view of an extension.
#[derive(Debug)]
pub struct View {
    /// The quoted name with the schema.
    name: String,
    /// The version of the extension.
    version: (u32, u32),
}

/// A statement, as `pg_stat_statements` has counted it in this database, for one role.
#[derive(Debug)]
pub struct Counted {
    /// None if the caller may not see the statement.
    pub id: Option<i64>,
    /// The OID of the role that ran it.
    pub role: u32,
    /// Its text, with parameters in place of constants. None if it is longer than [`TEXT_BYTES_MAX`].
    pub text: Option<Vec<u8>>,
    pub calls: f64,
    /// The time of all calls, including the planning if it was counted, in milliseconds.
    pub total_ms: f64,
    pub rows: f64,
    /// An upper limit of the calls that have written to the write-ahead log (WAL). Each call that has changed a row of a logged
    /// table is one of them.
    pub writing_calls: f64,
}

/// The most bytes of a text. Longer texts are not read.
const TEXT_BYTES_MAX: i32 = 64 << 10;

/// A statement, as the observing mode has counted it in this database, for all roles together.
#[derive(Debug)]
pub struct Observed {
    pub id: i64,
    /// The text of one of its calls. None if the caller may not read it.
    pub text: Option<Vec<u8>>,
    pub calls: f64,
    /// The number of calls that would have been hits.
    pub hits: f64,
    /// The time that these calls took, in milliseconds.
    pub saved_ms: f64,
    /// Why the cache would have stored no result of the last call. None if it would have stored one, or if the caller may not read
    /// the reason.
    pub refused: Option<Vec<u8>>,
    /// Whether a change of a table has invalidated a result.
    pub is_invalidated: bool,
    /// The time since the first call was counted, in seconds.
    pub seconds: f64,
}

/// The times for which the server has counted, in seconds, and the commits in that time.
#[derive(Clone, Copy, Debug)]
pub struct Windows {
    /// Since the server started.
    pub server: f64,
    /// Since the counts of the tables of this database were reset. None if they were not reset since the database was created, or
    /// since the last crash.
    pub tables: Option<f64>,
    /// How many transactions of this database were committed in that time.
    pub commits: f64,
}

/// Runs a query, and collects what `row` makes of each of its rows.
fn collect<T>(
    query: &str,
    arguments: &[DatumWithOid<'_>],
    mut row: impl FnMut(&SpiHeapTupleData<'_>) -> SpiResult<T>,
) -> Vec<T> {
    let rows = Spi::connect(|client| {
        let mut rows = Vec::new();
        for found in client.select(query, None, arguments)? {
            memory::check();
            let item = row(&found)?;
            memory::push(&mut rows, item);
        }
        Ok::<_, pgrx::spi::Error>(rows)
    });
    rows.unwrap_or_else(|error| pgrx::error!("{error}"))
}

fn number(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<f64> {
    Ok(row.get::<f64>(column)?.unwrap_or(0.0))
}

fn text(row: &SpiHeapTupleData<'_>, column: usize) -> SpiResult<Option<Vec<u8>>> {
    Ok(row.get::<OwnedText>(column)?.map(|text| text.0))
}

/// Returns the view of an extension with this name. Does not find an object of the same name that does not belong to the extension.
pub fn view(extension: &str, view: &str) -> Option<View> {
    let query =
        "SELECT pg_catalog.format('%I.%I', n.nspname, c.relname), e.extversion
           FROM pg_catalog.pg_extension AS e
           JOIN pg_catalog.pg_depend AS d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
                AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_class'::pg_catalog.regclass
           JOIN pg_catalog.pg_class AS c ON c.oid OPERATOR(pg_catalog.=) d.objid
           JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) c.relnamespace
          WHERE e.extname OPERATOR(pg_catalog.=) $1 AND c.relname OPERATOR(pg_catalog.=) $2
                AND c.relkind OPERATOR(pg_catalog.=) 'v'";
    let found = collect(query, &[extension.into(), view.into()], |row| {
        let version = row.get::<String>(2)?.unwrap_or_default();
        let mut numbers = version.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
        let version = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
        Ok(View { name: row.get::<String>(1)?.unwrap_or_default(), version })
    });
    found.into_iter().next()
}

impl View {
    /// Returns whether the version of `pg_stat_statements` has the columns that [`counted`] reads: 1.8 and later have them.
    pub fn is_recent(&self) -> bool {
        self.version >= (1, 8)
    }
}

/// Returns the statements of this database in `pg_stat_statements`. Leaves out statements inside of functions, if the version of
/// the view has the column `toplevel`.
pub fn counted(view: &View) -> Vec<Counted> {
    let View { name, version } = view;
    let condition = if *version >= (1, 9) { "AND s.toplevel" } else { "" };
    let query = format!(
        "SELECT s.queryid, s.userid,
                (SELECT s.query WHERE pg_catalog.octet_length(s.query) OPERATOR(pg_catalog.<=) $1),
                s.calls::pg_catalog.float8, s.total_exec_time OPERATOR(pg_catalog.+) s.total_plan_time, s.rows::pg_catalog.float8,
                s.wal_records::pg_catalog.float8
           FROM {name} AS s
          WHERE s.dbid OPERATOR(pg_catalog.=) (SELECT d.oid FROM pg_catalog.pg_database AS d
                                                WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database())
                {condition}"
    );
    collect(&query, &[TEXT_BYTES_MAX.into()], |row| {
        Ok(Counted {
            id: row.get(1)?,
            role: row.get::<pg_sys::Oid>(2)?.map_or(0, |oid| oid.to_u32()),
            text: text(row, 3)?,
            calls: number(row, 4)?,
            total_ms: number(row, 5)?,
            rows: number(row, 6)?,
            writing_calls: number(row, 4)?.min(number(row, 7)?),
        })
    })
}

/// Returns for how many seconds `pg_stat_statements` has counted, from its view `pg_stat_statements_info`, and whether it has kept
/// all statements: it forgets some if there are too many.
pub fn since_reset(info: &View) -> Option<(f64, bool)> {
    let name = &info.name;
    let query = format!(
        "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) i.stats_reset),
                i.dealloc OPERATOR(pg_catalog.=) 0
           FROM {name} AS i"
    );
    let found = collect(&query, &[], |row| Ok(row.get::<f64>(1)?.zip(row.get::<bool>(2)?)));
    found.into_iter().flatten().next()
}

/// Returns the figures of the observing mode. This is the only place that reads its view.
pub fn observed(view: &View) -> Vec<Observed> {
    let name = &view.name;
    let query = format!(
        "SELECT o.query_id, pg_catalog.max(o.query), pg_catalog.sum(o.calls)::pg_catalog.float8,
                pg_catalog.sum(o.hits)::pg_catalog.float8, pg_catalog.sum(o.saved_ms)::pg_catalog.float8, pg_catalog.max(o.refused),
                pg_catalog.count(o.invalidated_by) OPERATOR(pg_catalog.>) 0,
                pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.min(o.since))
           FROM {name} AS o
          WHERE o.query_id IS NOT NULL
          GROUP BY o.query_id"
    );
    collect(&query, &[], |row| {
        Ok(Observed {
            id: row.get(1)?.unwrap_or(0),
            text: text(row, 2)?,
            calls: number(row, 3)?,
            hits: number(row, 4)?,
            saved_ms: number(row, 5)?,
            refused: text(row, 6)?,
            is_invalidated: row.get(7)?.unwrap_or(false),
            seconds: number(row, 8)?,
        })
    })
}

/// Returns for how long the server has counted.
pub fn windows() -> Windows {
    let query =
        "SELECT pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) pg_catalog.pg_postmaster_start_time()),
                pg_catalog.date_part('epoch', pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-)
                    pg_catalog.pg_stat_get_db_stat_reset_time(d.oid)),
                pg_catalog.pg_stat_get_db_xact_commit(d.oid)::pg_catalog.float8
           FROM pg_catalog.pg_database AS d WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()";
    let found = collect(query, &[], |row| {
        Ok(Windows { server: number(row, 1)?, tables: row.get(2)?, commits: number(row, 3)? })
    });
    found.into_iter().next().unwrap_or(Windows { server: 0.0, tables: None, commits: 0.0 })
}

/// Returns how many rows of each of these relations, and of its partitions and children, were inserted, updated or deleted.
pub fn rows_changed(relations: &[u32]) -> BTreeMap<u32, f64> {
    let oids = memory::collect(relations.iter().map(|oid| pg_sys::Oid::from(*oid)));
    let query = "WITH RECURSIVE tree (root, oid) AS (
                     SELECT r.oid, r.oid FROM pg_catalog.unnest($1) AS r (oid)
                      UNION
                     SELECT t.root, i.inhrelid FROM tree AS t
                       JOIN pg_catalog.pg_inherits AS i ON i.inhparent OPERATOR(pg_catalog.=) t.oid)
                 SELECT t.root, pg_catalog.sum(pg_catalog.pg_stat_get_tuples_inserted(t.oid)
                            OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_updated(t.oid)
                            OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_tuples_deleted(t.oid))::pg_catalog.float8
                   FROM tree AS t GROUP BY t.root";
    let found = collect(query, &[oids.into()], |row| {
        Ok((row.get::<pg_sys::Oid>(1)?.map_or(0, |oid| oid.to_u32()), number(row, 2)?))
    });
    found.into_iter().collect()
}

/// Returns the prefix that the functions of an extension need in a statement of the caller: the quoted schema of the given function
/// and a point, or nothing if the search path of the caller finds this function.
pub fn prefix_of(extension: &str, function: &str) -> String {
    let query =
        "SELECT pg_catalog.pg_function_is_visible(p.oid), pg_catalog.format('%I.', n.nspname)
           FROM pg_catalog.pg_extension AS e
           JOIN pg_catalog.pg_depend AS d ON d.refclassid OPERATOR(pg_catalog.=) 'pg_catalog.pg_extension'::pg_catalog.regclass
                AND d.refobjid OPERATOR(pg_catalog.=) e.oid AND d.deptype OPERATOR(pg_catalog.=) 'e'
                AND d.classid OPERATOR(pg_catalog.=) 'pg_catalog.pg_proc'::pg_catalog.regclass
           JOIN pg_catalog.pg_proc AS p ON p.oid OPERATOR(pg_catalog.=) d.objid
           JOIN pg_catalog.pg_namespace AS n ON n.oid OPERATOR(pg_catalog.=) p.pronamespace
          WHERE e.extname OPERATOR(pg_catalog.=) $1 AND p.proname OPERATOR(pg_catalog.=) $2";
    let found = collect(query, &[extension.into(), function.into()], |row| {
        Ok(if row.get(1)?.unwrap_or(false) { None } else { row.get::<String>(2)? })
    });
    found.into_iter().flatten().next().unwrap_or_default()
}

/// Returns the quoted name of the database.
pub fn database() -> String {
    let query = "SELECT pg_catalog.quote_ident(pg_catalog.current_database())";
    collect(query, &[], |row| row.get::<String>(1)).into_iter().flatten().next().unwrap_or_default()
}

/// Returns the libraries that the server preloads. Raises an error if the caller may not see the setting.
pub fn preloaded() -> String {
    let query = "SELECT pg_catalog.current_setting('shared_preload_libraries')";
    collect(query, &[], |row| row.get::<String>(1)).into_iter().flatten().next().unwrap_or_default()
}
