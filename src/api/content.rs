//! The SQL function that lists the entries of the cache.

/// The function behind the view `cache_entries`.
#[pgrx::pg_schema]
mod pgcache {
    use crate::api::value::of_kind;
    use crate::pg::varlena::{Text, Varlena};
    use crate::pg::{memory, shared};
    use crate::query::fetch::IDENTITY_BYTES;
    use crate::store::content::{self, Entry, Place};
    use crate::store::kind::{NOTHING, RESULT};
    use crate::store::note;
    use pgrx::prelude::*;

    /// Returns the entries of the spaces that the caller may read, or of all spaces if the caller may see statistics. In a space
    /// with entries for each role, a caller that may see statistics also gets the entries of other roles, with null as their key
    /// and tags. Other callers get only their own.
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
        TableIterator::new(content::entries().map(|entry| {
            memory::check();
            let Entry { space, key, note, meta, place, hits } = entry;
            // A stored result of `cache_fetch` ends with its identity, a hash of its query (`query/fetch.rs`), which is not part of
            // the value.
            let identity = if matches!(meta.kind, RESULT | NOTHING) { IDENTITY_BYTES } else { 0 };
            let kind = if meta.kind == NOTHING { "null" } else { of_kind(meta.kind).0 };
            let text = |bytes: &[u8]| Text(Varlena::of(bytes));
            let tags = memory::collect(note::tags(meta.kind, &note).map(text));
            (
                space.to_string(),
                key.map(|key| text(&key)),
                kind,
                meta.value_len.saturating_sub(identity) as i64,
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

    fn interval(ms: u64) -> Interval {
        Interval::from_micros(ms as i64 * 1000)
    }
}
