//! The SQL function `cache_advise`: which statements are worth caching, and which stored results should not be cached.
//! `query/advise/` makes the decisions; this file only turns them into rows.

use super::arguments::{invalid, null};
use crate::pg::error::{OrRaise, Refused};
use crate::pg::memory;
use crate::pg::varlena::{Text, Varlena};
use crate::query::advise::{self, Advice};
use pgrx::prelude::*;

/// The greatest `n`, which the message below repeats. It does not limit the notes, which follow the other rows and say what is
/// missing (`query/advise/`).
const N_MAX: i32 = 1000;

/// Returns advice: which statements are worth caching and in which form, which queries should no longer be cached, and what is
/// missing for better advice. Never runs a statement that it judges.
#[pg_extern(volatile, parallel_unsafe)]
#[allow(clippy::type_complexity)]
fn cache_advise(
    n: default!(Option<i32>, "20"),
) -> TableIterator<
    'static,
    (
        name!(advice, &'static str),
        name!(query, Option<Text>),
        name!(saves, Option<f64>),
        name!(reason, String),
        name!(statement, Option<Text>),
    ),
> {
    let check = || -> Result<usize, Refused> {
        let n = n.ok_or_else(|| null("n"))?;
        let most = (1..=N_MAX).contains(&n).then_some(n as usize);
        most.ok_or_else(|| invalid("n must be from 1 to 1000"))
    };
    let rows = advise::advise(check().or_raise());
    let text = |bytes: Vec<u8>| Text(Varlena::of(&bytes));
    TableIterator::new(rows.into_iter().map(move |row| {
        memory::check();
        let Advice { advice, query, saves, reason, statement } = row;
        let saves = saves.map(|saves| (saves * 100.0).round() / 100.0);
        (advice, query.map(text), saves, reason, statement.map(text))
    }))
}
