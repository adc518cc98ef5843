//! Calls of `cache_query` beside the query itself, and the statuses that a test may expect. A *fence* is a word in shared memory
//! that says when something that values depend on last changed (`docs/invalidation.md`).

use pg_cache_testbed::wait_until;
use postgres::{Client, SimpleQueryMessage};

/// The rows of a result as text, as a client shows them.
pub type Rows = Vec<Vec<Option<String>>>;

/// The rows of a statement, or SQLSTATE and message of its error.
pub type Answer = Result<Rows, String>;

/// The status that a call must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expect {
    /// The result was stored before.
    Hit,
    /// The query has run, and its result is stored now.
    Stored,
    /// The query has run, its result is stored now, and the status names this change.
    Invalidated(&'static str),
    /// The query has run, and the status begins with this text, which says why the result is not stored.
    Refused(&'static str),
    /// The query has run, for any reason.
    Fresh,
    /// The status is not important. Use this only where another call of the test expects a hit.
    Anything,
}

impl Expect {
    /// Returns whether a status is as expected. A failed call has no status, which is an empty text here.
    pub fn fits(self, status: &str) -> bool {
        let is_hit = status == "hot" || status == "hit: table";
        match self {
            Self::Hit => is_hit,
            Self::Stored => status.starts_with("miss: ") || status.starts_with("invalidated: "),
            Self::Invalidated(by) => status.strip_prefix("invalidated: ") == Some(by),
            Self::Refused(text) => status.starts_with(text),
            Self::Fresh => !is_hit,
            Self::Anything => true,
        }
    }
}

/// Runs a statement in a message of its own, and returns its rows. Of several statements, these are the rows of all.
pub fn answer(session: &mut Client, statement: &str) -> Answer {
    let text = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => {
            Some((0..row.len()).map(|at| row.get(at).map(str::to_owned)).collect())
        }
        _ => None,
    };
    match session.simple_query(statement) {
        Ok(messages) => Ok(messages.iter().filter_map(text).collect()),
        Err(error) => match error.as_db_error() {
            Some(said) => Err(format!("{}: {}", said.code().code(), said.message())),
            None => panic!("{statement}: {error:?}"),
        },
    }
}

/// Returns the first value of the first row of a statement that must succeed, or an empty text if it is null or there is no row.
pub fn text(session: &mut Client, statement: &str) -> String {
    let rows = answer(session, statement).unwrap_or_else(|error| panic!("{statement}: {error}"));
    rows.into_iter().flatten().next().flatten().unwrap_or_default()
}

/// Returns the call of `cache_query` for a query whose result has these columns, as in a column definition list. `options` are
/// further arguments, such as `ttl => '1 h'`. The query must not contain `$cached$`.
pub fn call(query: &str, columns: &str, options: &str) -> String {
    let options = if options.is_empty() { String::new() } else { format!(", {options}") };
    format!("SELECT * FROM public.cache_query($cached${query}$cached${options}) AS result({columns})")
}

/// Returns the answer of the cached query, and the status of the call. The status of a failed call is empty.
pub fn cached_with(session: &mut Client, query: &str, columns: &str, options: &str) -> (Answer, String) {
    let rows = answer(session, &call(query, columns, options));
    let status = match rows {
        Ok(_) => text(session, "SELECT public.cache_status()"),
        // In a failed transaction, nothing can be asked.
        Err(_) => String::new(),
    };
    (rows, status)
}

/// Does the same as [`cached_with`] without options.
pub fn cached(session: &mut Client, query: &str, columns: &str) -> (Answer, String) {
    cached_with(session, query, columns, "")
}

/// Runs the query itself and the cached query. Returns what is wrong with the answer or the status of the cached one, if anything.
pub fn compare(session: &mut Client, query: &str, columns: &str, expect: Expect) -> Option<String> {
    let direct = answer(session, query);
    compare_to(&direct, session, query, columns, expect)
}

/// Does the same as [`compare`], with an answer of the query that the caller already has.
pub fn compare_to(
    direct: &Answer,
    session: &mut Client,
    query: &str,
    columns: &str,
    expect: Expect,
) -> Option<String> {
    let (rows, status) = cached(session, query, columns);
    if rows != *direct {
        return Some(format!("{query}: {rows:?} instead of {direct:?}, status {status:?}"));
    }
    // An error has no status.
    let fits = direct.is_err() || expect.fits(&status);
    (!fits).then(|| format!("{query}: status {status:?} instead of {expect:?}"))
}

/// Asserts that the cached query returns what the query itself returns, with the expected status.
pub fn assert_right(session: &mut Client, query: &str, columns: &str, expect: Expect) {
    if let Some(wrong) = compare(session, query, columns, expect) {
        panic!("{wrong}");
    }
}

/// Asserts that the query is cached from now on: this call, if the result is not stored yet, stores it, and the next is a hit.
pub fn fill(session: &mut Client, query: &str, columns: &str) {
    // Tables that no result depends on yet share fences, so a commit to another table may invalidate the first result.
    wait_until(&format!("{query} to be cached"), || {
        assert_right(session, query, columns, Expect::Anything);
        compare(session, query, columns, Expect::Hit).is_none()
    });
}

/// Runs statements that must succeed.
pub fn run(session: &mut Client, statements: &str) {
    session.batch_execute(statements).unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}
