//! Watched relations: a tag may stand for tables, and what is stored with it then depends on them too.
//!
//! So writers never look anything up. Who sets looks, after it has taken its stamp, and depends on the list itself as well: a watch that
//! was being committed meanwhile makes the entry a miss. For the same reason what this session remembers of the list is an entry of
//! its own kind: as of a stamp that was taken before it was read, and right as long as the list's fence holds for that.

use crate::pg::catalog::{self, Rows, Table};
use crate::pg::relation;
use crate::pg::shared::{self, HotTier};
use crate::store::{pending, space, written};
use pg_cache_core::{FenceId, Reserved, Stamp};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

/// The list as this session remembers it.
struct Known {
    stamp: Stamp,
    generation: u64,
    relations: HashMap<Vec<u8>, Vec<u32>>,
}

thread_local! {
    static KNOWN: RefCell<Option<Rc<Known>>> = const { RefCell::new(None) };
}

/// The fence of the list in this database.
pub fn fence(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Watches(shared::database()))
}

/// The fences that an entry with some tags depends on beside the tags'. Must be called after the entry's stamp was taken.
pub fn dependencies(tier: &HotTier, tags: &[&[u8]], stamp: Stamp) -> Vec<FenceId> {
    if tags.is_empty() {
        return Vec::new();
    }
    let mut found = vec![fence(tier)];
    let known = up_to_date(tier, found[0]);
    if !known.relations.is_empty() {
        for number in tags.iter().filter_map(|tag| known.relations.get(*tag)).flatten() {
            add_relation(tier, *number, stamp, &mut found);
        }
        found.sort_unstable();
        found.dedup();
    }
    found
}

/// Adds the fences that an entry with a stamp depends on if it depends on a relation. Must be called after the stamp was taken.
pub fn add_relation(tier: &HotTier, relation: u32, stamp: Stamp, fences: &mut Vec<FenceId>) {
    let (own, unclaimed) = tier.fences().dependency(shared::database(), relation, stamp);
    fences.push(own);
    fences.extend(unclaimed);
    // A tree may grow while a commit that writes below it is under way, which then invalidates by the fence of trees alone.
    written::renew_trees(tier);
    if relation::is_inheritance_parent(relation) {
        fences.push(written::trees(tier));
    }
}

fn up_to_date(tier: &HotTier, fence: FenceId) -> Rc<Known> {
    let fences = tier.fences();
    let known = KNOWN.with_borrow(Clone::clone);
    if let Some(known) = known.filter(|known| {
        known.generation == catalog::generation() && fences.holds(fence, known.stamp, Stamp::LATEST)
    }) {
        return known;
    }
    let (stamp, generation) = (fences.now(), catalog::generation());
    let mut relations = HashMap::<Vec<u8>, Vec<u32>>::new();
    each(|number, tag| relations.entry(tag.to_vec()).or_default().push(number));
    let known = Rc::new(Known { stamp, generation, relations });
    KNOWN.set(Some(Rc::clone(&known)));
    known
}

/// Calls with each relation and each tag that stands for it, as of now, in the database's encoding.
pub fn each(mut with: impl FnMut(u32, &[u8])) {
    catalog::read(Table::Watches, Rows::All, |row| {
        let number = row.number(0).unwrap_or_default();
        let tags = row.texts(1).unwrap_or_default();
        tags.into_iter().flatten().for_each(|tag| with(number, tag));
    });
}

/// The list is changed by this transaction.
pub fn changed() {
    if let Some(place) = space::any_place() {
        pending::invalidate(&place, fence(place.tier));
    }
}
