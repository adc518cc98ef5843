//! Known ways to break a cache of query results, one test each. Each test has a result that is a hit, and then a reason why that
//! result must not be served.
//!
//! - `definitions`: changes of definitions that a result must notice, and work of the server that changes none.
//! - `dependencies`: tables that a query reads although its text or its plan does not show it.
//! - `environment`: conditions on which a result depends besides its text, such as settings, temporary objects, privileges and the
//!   clock.
//! - `identity`: calls that must not share a result, such as the same text with other options, and texts that look alike.
//! - `names`: numbers and names of objects as values, such as `regclass`.
//! - `storing`: the storing and replacing of results, with refreshes, changes during the run, and touches.
//! - `values`: values that mean something else in another session or at another time, and how rows are stored.

mod definitions;
mod dependencies;
mod environment;
mod identity;
mod names;
mod storing;
mod values;

use super::calls::{Expect, cached_with, text};
use postgres::Client;

/// Asserts the rows and the status of a cached query with options. The rows are the values of a single column.
fn assert_call(session: &mut Client, query: &str, options: &str, rows: &[&str], expect: Expect) {
    let (found, status) = cached_with(session, query, "v text", options);
    let rows: Vec<_> = rows.iter().map(|value| vec![Some((*value).to_owned())]).collect();
    assert_eq!(found, Ok(rows), "{query} with {options}: {status:?}");
    assert!(expect.fits(&status), "{query} with {options}: status {status:?} instead of {expect:?}");
}

/// Returns the seconds until the stored result of a query expires. None if there is no stored result.
fn seconds_left(session: &mut Client, query: &str, args: &str) -> Option<f64> {
    let ask = format!(
        "SELECT extract(epoch FROM public.cache_ttl(public.cache_key($cached${query}$cached$, {args})))::text"
    );
    text(session, &ask).parse().ok()
}
