//! The SQL functions that list the entries of the cache, behind the views `cache_entries`, `cache_queries` and
//! `cache_dependencies`. A role sees only what it may read (`store/content.rs`). A *marker* is an entry without a result, which
//! tells a query where to look or why there is no result (`store/kind.rs`).
//!
//! The number of entries is not known beforehand. So each turn of a loop over entries must call `memory::check`, which raises an
//! error if there is no memory, and lists must be built with `memory::collect`, which does the same (`pg/memory.rs`).

use crate::query::fetch::IDENTITY_BYTES;
use crate::store::kind::{NOTHING, RESULT};
use pg_cache_core::Meta;

/// Returns the size of a value in bytes. A stored result of `cache_fetch` ends with a hash of its query (`Identity` in
/// `query/fetch.rs`), which is not part of the value.
pub(super) fn size(meta: &Meta) -> i64 {
    let identity = if matches!(meta.kind, RESULT | NOTHING) { IDENTITY_BYTES } else { 0 };
    meta.value_len.saturating_sub(identity) as i64
}

/// The functions behind the views `cache_entries`, `cache_queries` and `cache_dependencies`.
#[pgrx::pg_schema]
mod pgcache {
    use super::size;
    use crate::api::value::of_kind;
    use crate::pg::varlena::{Text, Varlena};
    use crate::pg::{memory, shared};
    use crate::store::content::{self, Entry, Place};
    use crate::store::kind::{self, NOTHING};
    use crate::store::note::{self, Form};
    use crate::store::results::{self, AllKept, Dependency, Keeping, State, StoredResult};
    use pg_cache_core::Cost;
    use pgrx::prelude::*;

    /// Returns the entries that a read can return now, without markers, of the spaces that the caller may read, or of all spaces if
    /// the caller may see statistics. In a space with entries for each role, callers get only their own entries. A caller that may
    /// see statistics also gets the entries of other roles there, with null as their key and tags.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn entries() -> TableIterator<
        'static,
        (
            name!(space, String),
            name!(key, Option<Text>),
            name!(kind, &'static str),
            name!(size, i64),
            name!(age, Interval),
            name!(ttl, Interval),
            name!(tags, Option<Vec<Text>>),
            name!(tier, &'static str),
            name!(hits, i64),
        ),
    > {
        let entries = content::entries(|kind, is_valid| is_valid && !kind::is_marker(kind));
        TableIterator::new(entries.map(|entry| {
            memory::check();
            let Entry { space, key, note, meta, place, hits, .. } = entry;
            let kind = if meta.kind == NOTHING { "null" } else { of_kind(meta.kind).0 };
            let tags = match key {
                Some(_) => memory::collect(note::tags(meta.kind, &note).map(text)),
                None => Vec::new(),
            };
            (
                space.to_string(),
                key.map(|key| text(&key)),
                kind,
                size(&meta),
                interval(shared::ms_since(meta.created)),
                interval(shared::ms_until(meta.expires)),
                (!tags.is_empty()).then_some(tags),
                match place {
                    Place::Memory => "hot",
                    Place::Table => "table",
                    Place::Both => "both",
                },
                hits as i64,
            )
        }))
    }

    /// Returns the stored results of queries, also those that a change has made invalid, and the markers `LEFT_OUT` and `DIFFERED`
    /// of queries whose results are not stored now. The rules of [`entries`] about spaces and roles say which of them the caller
    /// may see. The text of a query is null unless the caller may read it.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn queries() -> TableIterator<
        'static,
        (
            name!(key, Option<Text>),
            name!(space, String),
            name!(role, Option<Text>),
            name!(query, Option<Text>),
            name!(form, Option<&'static str>),
            name!(rows, Option<i64>),
            name!(size, i64),
            name!(cost, Option<Interval>),
            name!(age, Interval),
            name!(ttl, Interval),
            name!(tags, Option<Vec<Text>>),
            name!(state, String),
            name!(keep_warm, Option<String>),
        ),
    > {
        let mut kept = AllKept::default();
        TableIterator::new(results::of_database().map(move |result| {
            memory::check();
            let facts = result.facts();
            let query = result.text().map(|(beginning, is_cut)| match is_cut {
                true => text(&memory::joined(beginning, b"...")),
                false => text(beginning),
            });
            let meta = &result.entry.meta;
            let tags = memory::collect(result.tags().map(text));
            let has_value = !kind::is_marker(meta.kind);
            (
                result.entry.key.as_deref().map(text),
                result.entry.space.to_string(),
                result.role().map(|name| text(&name)),
                query,
                facts.map(|facts| match facts.form {
                    Form::Rows => "rows",
                    Form::Json => "json",
                    Form::Value => "value",
                }),
                facts.filter(|_| has_value).map(|facts| facts.rows as i64),
                size(meta),
                (meta.cost != Cost::NONE).then(|| Interval::from_micros(meta.cost.micros() as i64)),
                interval(shared::ms_since(meta.created)),
                interval(shared::ms_until(meta.expires)),
                (!tags.is_empty()).then_some(tags),
                in_words(result.state()),
                match kept.of(&result) {
                    Keeping::No => None,
                    Keeping::Yes => Some("kept".to_owned()),
                    Keeping::Waits(why) => Some(format!("waiting: {why}")),
                    Keeping::Fails(code, message) => Some(match (code, result.may_read_text()) {
                        (Some(code), true) => format!("failing: {code}: {message}"),
                        (Some(code), false) => format!("failing: {code}"),
                        (None, true) => format!("not stored: {message}"),
                        (None, false) => "not stored".to_owned(),
                    }),
                },
            )
        }))
    }

    /// Returns the dependencies of the stored results whose content the caller may read.
    #[pg_extern(volatile, parallel_restricted)]
    #[allow(clippy::type_complexity)]
    fn dependencies() -> TableIterator<
        'static,
        (
            name!(key, Option<Text>),
            name!(space, String),
            name!(kind, &'static str),
            name!(object, Option<Text>),
        ),
    > {
        // A `Text` lives in the memory of the call that returns its row, so it must be made in that call, not before.
        let all = results::of_database().flat_map(|result| {
            memory::check();
            let StoredResult { entry: Entry { key, space, .. }, .. } = &result;
            let row = |dependency| (key.clone(), space.clone(), dependency);
            memory::collect(result.dependencies().into_iter().map(row))
        });
        TableIterator::new(all.map(|(key, space, dependency)| {
            let (kind, object) = match &dependency {
                Dependency::Rows(name) => ("table rows", name.as_ref().map(|name| text(name.as_bytes()))),
                Dependency::Definition(name) => {
                    ("definition", name.as_ref().map(|name| text(name.as_bytes())))
                }
                Dependency::Tag(name) => ("tag", Some(text(name))),
            };
            (key.as_deref().map(text), space.to_string(), kind, object)
        }))
    }

    /// Returns the state of a result in words.
    fn in_words(state: State) -> String {
        let in_words = |time| {
            TimestampWithTimeZone::try_from(time)
                .map(|time: TimestampWithTimeZone| time.to_string())
                .unwrap_or_default()
        };
        match state {
            State::Valid => "valid".to_owned(),
            State::Invalid(what) => format!("invalid: {what}"),
            State::LeftOut(until, by) => {
                let until = in_words(until);
                match by.is_empty() {
                    true => format!("left out until {until}"),
                    false => format!("left out until {until}: {}", by.join(", ")),
                }
            }
            State::Differed(since) => format!("verification failed at {}", in_words(since)),
        }
    }

    fn text(bytes: &[u8]) -> Text {
        Text(Varlena::of(bytes))
    }

    fn interval(ms: u64) -> Interval {
        Interval::from_micros(ms as i64 * 1000)
    }
}
