//! The values and the tables of this database that an operator should know first, for `cache_top`: rankings of the values by hits,
//! by size and by cost, and of the tables by the values that their changes have invalidated.

use super::results::{self, StoredResult};
use super::space;
use crate::pg::memory;
use crate::pg::relation;
use crate::pg::shared;
use pg_cache_core::RelationStats;
use std::rc::Rc;

/// The first items of a ranking, with what they are ranked by.
#[derive(Debug)]
pub struct Ranking<T> {
    most: usize,
    /// The items with the greatest numbers, in descending order.
    pub items: Vec<(u64, T)>,
}

impl<T: Clone> Ranking<T> {
    fn new(most: usize) -> Self {
        Self { most, items: Vec::new() }
    }

    /// Adds an item if it is one of the first. An item with 0 is never one.
    fn add(&mut self, number: u64, item: &T) {
        let at = self.items.partition_point(|(other, _)| *other >= number);
        if number == 0 || at >= self.most {
            return;
        }
        memory::reserve(&mut self.items, 1);
        self.items.insert(at, (number, item.clone()));
        self.items.truncate(self.most);
    }
}

/// The first values by each ranking.
#[derive(Debug)]
pub struct TopValues {
    /// By the estimate of their hits.
    pub hottest: Ranking<Rc<StoredResult>>,
    /// By their bytes.
    pub largest: Ranking<Rc<StoredResult>>,
    /// By the time that their queries took, in microseconds.
    pub dearest: Ranking<Rc<StoredResult>>,
}

/// Returns the first values among those that the current role may see. Looks at every value of the database. May raise errors.
pub fn values(most: usize) -> TopValues {
    let mut top =
        TopValues { hottest: Ranking::new(most), largest: Ranking::new(most), dearest: Ranking::new(most) };
    for value in results::and_values() {
        memory::check();
        let value = Rc::new(value);
        let (hits, meta) = (value.entry.hits, &value.entry.meta);
        top.hottest.add(hits, &value);
        top.largest.add(meta.value_len as u64, &value);
        top.dearest.add(meta.cost.micros(), &value);
    }
    top
}

/// Returns the tables whose changes have invalidated the most values, if the current role may see statistics. Values count when
/// their memory was reclaimed.
pub fn tables(most: usize) -> Ranking<RelationStats> {
    let mut top = Ranking::new(most);
    if let Some(tier) = shared::tier().filter(|_| space::may_monitor()) {
        let named = |stats: &RelationStats| stats.relation.is_some_and(|oid| !relation::is_catalog(oid));
        tier.relation_stats(shared::database()).filter(named).for_each(|stats| top.add(stats.killed, &stats));
    }
    top
}
