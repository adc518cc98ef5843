//! Explains whether and how the result of a query is stored (`cache_explain`). The query is analyzed and planned, and does not run.
//! The status of the session stays as it is. A *marker* is an entry that says something about a query and has no result
//! (`store/kind.rs`); its facts are not shown.

use super::asked::Asked;
use super::job::Rules;
use super::refusals;
use super::search::Search;
use crate::pg::encoding::shown;
use crate::pg::memory::OutOfMemory;
use crate::pg::observer::{self, Seen};
use crate::pg::query::{self, Described, Query, Snapshot};
use crate::pg::relation::RelationOid;
use crate::pg::{shared, transaction};
use crate::store::cause;
use crate::store::kind;
use crate::store::note::{self, Facts, Form};
use crate::store::space::Space;
use crate::store::status::{self, Object, Status};
use pg_cache_core::Meta;
use std::ffi::CStr;
use std::time::Duration;

/// A property of a query, and its value.
pub type Property = (&'static str, String);

/// Returns the properties of a query whose result would be rows, and of the stored result if there is one. Does not run the query.
/// `text` must be the text of `asked`. Raises the errors of the query.
pub fn explain(space: &Space, asked: &Asked<'_>, text: &CStr) -> Result<Vec<Property>, OutOfMemory> {
    let status = status::current();
    let mut search = Search::new(asked, Form::Rows)?;
    let found = search.peek(space);
    let state = status::current();
    status.map_or_else(status::forget, status::set);

    let query = Query { caller: "query of cache_explain", text, arguments: asked.arguments };
    let on = match transaction::is_parallel() {
        true => Snapshot::Active,
        false if transaction::keeps_one_snapshot() => Snapshot::Transaction,
        false => Snapshot::New,
    };
    let (described, mut seen) = observer::observe(|| query::describe(&query, on));
    let of_rows = described.relations.iter().filter(|oid| !RelationOid::of(**oid).is_view());
    of_rows.for_each(|oid| seen.note_relation(*oid, false));

    let mut properties = vec![
        ("cacheable", cacheable(space, asked, &search, &described, &seen, found.is_some())),
        ("columns", described.columns.clone()),
        ("key", shown(&search.key).to_string()),
        ("state", state.map_or_else(String::new, cause::in_words)),
    ];
    let facts = found.as_ref().and_then(|(meta, note)| Some((meta, note::facts(meta.kind, note)?)));
    let facts = facts.filter(|(meta, _)| !kind::is_marker(meta.kind));
    if let Some((meta, facts)) = &facts {
        properties.extend(of_entry(meta, facts));
    }
    let settings = facts.map_or(seen.reads_settings, |(_, facts)| facts.settings);
    properties.push(("varies on", varies_on(settings).to_owned()));
    let clock = facts.map_or_else(|| search.ttl_ms_max(&seen).is_some(), |(_, facts)| facts.clock);
    if clock {
        properties.push(("reads the clock", "yes: lives at most a minute, unless ttl is given".to_owned()));
    }
    properties.extend(depends_on(&seen, facts.as_ref().map(|(_, facts)| facts), asked.depends));
    Ok(properties)
}

/// Returns whether the result can be stored, in words, with the reason if it cannot.
fn cacheable(
    space: &Space,
    asked: &Asked<'_>,
    search: &Search<'_>,
    described: &Described,
    seen: &Seen,
    is_stored: bool,
) -> String {
    let refusal = shared::tier().and_then(|tier| {
        let anonymous = || match &described.anonymous_record {
            Some(column) => Err(status::about("refused: {} is an anonymous record", "column", column)),
            None => Ok(()),
        };
        refusals::check_before(tier, &asked.wanted(), seen)
            .and_then(|()| anonymous())
            .and_then(|()| search.check(space, seen))
            .err()
    });
    match refusal {
        Some(status) => format!("no: {}", cause::in_words(status).trim_start_matches("refused: ")),
        None if seen.user_function && !is_stored => {
            "not known before it runs, because it calls functions".to_owned()
        }
        None => "yes".to_owned(),
    }
}

/// Returns the properties of a stored result.
fn of_entry(meta: &Meta, facts: &Facts<'_>) -> Vec<Property> {
    let time = |ms| format!("{:?}", Duration::from_millis(ms));
    vec![
        ("rows", facts.rows.to_string()),
        ("size", format!("{} bytes", meta.value_len)),
        ("cost", format!("{:?}", Duration::from_micros(meta.cost.micros()))),
        ("age", time(shared::ms_since(meta.created))),
        ("ttl", time(shared::ms_until(meta.expires))),
    ]
}

/// Returns the properties of a session that are part of the key. `settings` says whether the query reads settings.
fn varies_on(settings: bool) -> &'static str {
    match settings {
        true => "role, search path, all settings",
        false => "role, search path, settings that change how values are read and shown",
    }
}

/// Returns the relations that the result depends on: those in the note of its entry. If no result is stored, returns those of
/// `depends` and those that the query names.
fn depends_on(seen: &Seen, facts: Option<&Facts<'_>>, depends: Option<&[u32]>) -> Vec<Property> {
    let name = |oid| cause::in_words(Status::Of("{}", Object::Relation(oid)));
    let oids = |bytes: &[[u8; 4]]| bytes.iter().map(|oid| u32::from_ne_bytes(*oid)).collect::<Vec<_>>();
    let (read, defined) = match facts {
        Some(facts) => (oids(facts.read), oids(facts.defined)),
        None => {
            let read =
                depends.map_or_else(|| seen.rows_of_relations().into_iter().collect(), <[u32]>::to_vec);
            let defined = seen.relations_named.iter().copied().filter(|oid| !read.contains(oid)).collect();
            (read, defined)
        }
    };
    let rows = read.into_iter().map(|oid| ("depends on rows of", name(oid)));
    rows.chain(defined.into_iter().map(|oid| ("depends on definition of", name(oid)))).collect()
}
