//! The SQL function `cache_top`, which shows the values and tables that an operator should know first (`store/top.rs`).

use super::arguments::{invalid, null};
use super::content::size;
use crate::pg::encoding::clipped;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::varlena::{Text, Varlena};
use crate::pg::{memory, relation};
use crate::store::results::StoredResult;
use crate::store::top::{self, Ranking, TopValues};
use pg_cache_core::{Cost, RelationStats};
use pgrx::prelude::*;
use std::rc::Rc;

/// The greatest `n`, which the message below repeats.
const N_MAX: i32 = 1000;
/// The most bytes of a query's text that a row shows.
const QUERY_BYTES: usize = 80;

/// A row. Its columns are computed in the call that returns it, because a `Text` lives in the memory of that call.
enum Row {
    Value(Rc<StoredResult>),
    Table(RelationStats),
}

/// Returns four rankings with at most `n` rows each: the values with the most hits, the largest values, the values whose queries
/// took longest, and the tables that have invalidated the most values. The rules of `cache_entries` say which values the caller may
/// see, and those of `cache_queries` which texts of queries. Only roles that may see statistics get the tables.
#[pg_extern(volatile, parallel_restricted)]
#[allow(clippy::type_complexity)]
fn cache_top(
    n: default!(Option<i32>, "10"),
) -> TableIterator<
    'static,
    (
        name!(ranking, &'static str),
        name!(rank, i32),
        name!(name, Option<Text>),
        name!(space, Option<String>),
        name!(hits, Option<i64>),
        name!(size, Option<i64>),
        name!(cost, Option<Interval>),
        name!(invalidated, Option<i64>),
        name!(query, Option<Text>),
    ),
> {
    let check = || -> Result<usize, Refused> {
        let n = n.ok_or_else(|| null("n"))?;
        let most = (1..=N_MAX).contains(&n).then_some(n as usize);
        most.ok_or_else(|| invalid("n must be from 1 to 1000"))
    };
    let most = check().or_raise();
    let TopValues { hottest, largest, dearest } = top::values(most);
    let mut rows = Vec::new();
    for (name, ranking) in [("hottest", hottest), ("largest", largest), ("dearest", dearest)] {
        add(&mut rows, name, ranking, Row::Value);
    }
    add(&mut rows, "most invalidated", top::tables(most), Row::Table);
    TableIterator::new(rows.into_iter().map(|(ranking, rank, row)| {
        memory::check();
        match row {
            Row::Value(value) => {
                let meta = &value.entry.meta;
                let cost =
                    (meta.cost != Cost::NONE).then(|| Interval::from_micros(meta.cost.micros() as i64));
                (
                    ranking,
                    rank,
                    value.entry.key.as_deref().map(text),
                    Some(value.entry.space.to_string()),
                    Some(value.entry.hits as i64),
                    Some(size(meta)),
                    cost,
                    None,
                    value.text().map(|(beginning, _)| text(clipped(beginning, QUERY_BYTES))),
                )
            }
            Row::Table(stats) => {
                let name = stats.relation.and_then(|oid| relation::name(oid, true));
                let name = name.map(|name| text(name.as_bytes()));
                (ranking, rank, name, None, None, None, None, Some(stats.killed as i64), None)
            }
        }
    }))
}

/// Adds the rows of a ranking.
fn add<T>(
    rows: &mut Vec<(&'static str, i32, Row)>,
    name: &'static str,
    ranking: Ranking<T>,
    row: fn(T) -> Row,
) {
    for (index, (_, item)) in ranking.items.into_iter().enumerate() {
        memory::push(rows, (name, index as i32 + 1, row(item)));
    }
}

fn text(bytes: &[u8]) -> Text {
    Text(Varlena::of(bytes))
}
