//! Watched relations: a *watch* makes a tag stand for tables, and an entry with that tag then depends on these tables too.
//! `cache_watch` adds watches. A *fence* is a word in shared memory that says when something that values depend on last changed,
//! and a *stamp* is a number on the clock of changes (`docs/architecture.md`). The *record* of a relation in shared memory holds
//! its fences.
//!
//! A session looks up the list of watches when it stores an entry with tags, or when it serves caches outside of the database
//! (`near.rs`, `changes.rs`, `broadcast.rs`). A session that writes to a table does so only if the table has the trigger for
//! watched rows (`row_tags.rs`).
//!
//! A transaction that begins or ends a watch invalidates the tags of the watch: an entry with such a tag may get or lose a
//! dependency. The storing session reads the list after it has taken the entry's stamp, and the entry depends on the fence of the
//! tag. So a watch that commits after the stamp was taken makes the entry a miss. A tag with placeholders, such as `order:{id}`, is
//! a *template* (`template.rs`) and stands for the rows of a table. It can become many tags, so a watch with such a tag invalidates
//! all tags with the same prefix, by one fence (`fence_of_prefix`). Entries depend on it, too.
//!
//! Each session keeps a copy of the list. The list has a fence of its own, which every change of the list raises, too. The stamp of
//! the copy is taken before the list is read, and the copy is valid as long as the list's fence has not changed since that stamp.

use crate::pg::catalog::{self, Rows, Table};
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::relation::{self, RelationOid};
use crate::pg::role::Role;
use crate::pg::shared::{self, HotTier};
use crate::pg::{memory, names, row_trigger};
use crate::store::keyspace::{self, Keyspace};
use crate::store::space;
use crate::store::status::{self, Status};
use crate::store::template::{self, Template};
use crate::store::transaction::{JournalName, pending, table_writes};
use pg_cache_core::{FenceId, Reserved, Stamp};
use pgrx::prelude::PgSqlErrorCode;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::rc::Rc;

/// The most relations that one tag can stand for. An entry can have 255 dependencies, and a relation usually needs one of them, so
/// an entry can have a few such tags.
pub const RELATIONS_PER_TAG_MAX: usize = 64;
/// The most relations of one owner that one tag can stand for, unless the owner of the extension watches them. Tags are shared by
/// all roles, so one owner of tables must not use up the relations that a tag can stand for.
pub const RELATIONS_PER_OWNER_MAX: usize = 16;
/// The most tags that can stand for one relation. Each session that uses tags remembers all of them.
pub const TAGS_PER_RELATION_MAX: usize = 32;

/// The list of watches as this session remembers it.
struct Known {
    /// Taken before the list was read.
    stamp: Stamp,
    /// The value of `catalog::generation` from before the list was read.
    generation: u64,
    /// The OIDs of the relations that each tag stands for.
    relations: HashMap<Vec<u8>, Vec<u32>>,
    /// The tags with placeholders.
    templates: Rc<Templates>,
}

/// The tags with placeholders, by the relation for whose rows they stand, and by the prefix of the tags that they can become
/// (`template::prefix`).
#[derive(Default)]
pub struct Templates {
    /// The tags with placeholders of each relation, by its OID.
    of_relations: HashMap<u32, Vec<Vec<u8>>>,
    /// The same tags with their relations, by their prefixes.
    of_prefixes: HashMap<Vec<u8>, Vec<(u32, Vec<u8>)>>,
}

impl Templates {
    fn add(&mut self, relation: u32, tag: &[u8]) {
        self.of_relations.try_reserve(1).or_raise();
        memory::push(self.of_relations.entry(relation).or_default(), memory::copy(tag));
        let prefix = Template::parse(tag).ok().and_then(|template| template.prefix());
        if let Some(prefix) = prefix {
            self.of_prefixes.try_reserve(1).or_raise();
            memory::push(self.of_prefixes.entry(prefix).or_default(), (relation, memory::copy(tag)));
        }
    }

    /// Returns the tags that stand for rows of a relation.
    pub fn of_relation(&self, relation: u32) -> &[Vec<u8>] {
        self.of_relations.get(&relation).map_or(&[], Vec::as_slice)
    }

    /// Returns the relations that have a tag which can become this one. A relation may occur more than once.
    fn relations_of(&self, tag: &[u8]) -> impl Iterator<Item = u32> {
        let begun_alike = template::prefix(tag).and_then(|prefix| self.of_prefixes.get(prefix));
        let could_be = |text: &[u8]| Template::parse(text).is_ok_and(|template| template.could_be(tag));
        begun_alike
            .into_iter()
            .flatten()
            .filter(move |(_, text)| could_be(text))
            .map(|(relation, _)| *relation)
    }
}

thread_local! {
    /// The session's copy of the list; None before it was first read.
    static KNOWN: RefCell<Option<Rc<Known>>> = const { RefCell::new(None) };
}

/// Returns the fence of this database's list of watches.
fn fence(tier: &HotTier) -> FenceId {
    tier.fences().reserved(Reserved::Watches(shared::database()))
}

/// Returns the fences that an entry with some tags depends on in addition to the fences of the tags: those of the relations that
/// the tags stand for. Must be called after the entry's `stamp` was taken. May raise errors.
pub fn dependencies(tier: &HotTier, tags: &[&[u8]], stamp: Stamp) -> Vec<FenceId> {
    let mut found = Vec::new();
    if tags.is_empty() {
        return found;
    }
    let known = up_to_date(tier);
    for oid in tags.iter().filter_map(|tag| known.relations.get(*tag)).flatten() {
        add_relation(tier, *oid, stamp, &mut found);
    }
    for tag in tags {
        if let Some(prefix) = template::prefix(tag) {
            memory::push(&mut found, fence_of_prefix(tier, prefix));
        }
        known.templates.relations_of(tag).for_each(|oid| add_rows(tier, oid, stamp, &mut found));
    }
    found.sort_unstable();
    found.dedup();
    found
}

/// Returns the fence of all tags that begin with a prefix (`template::prefix`). It is raised when a tag with placeholders begins or
/// ends to stand for rows: entries whose tags it could be get or lose a dependency.
fn fence_of_prefix(tier: &HotTier, prefix: &[u8]) -> FenceId {
    // No tag can have this name: tags have no zero bytes.
    keyspace::tag(tier, &memory::joined(&[0], prefix))
}

/// Adds the fences for the dependency of an entry on single rows of a relation, without the fences of the tags of these rows: at
/// most four. Must be called after the entry's `stamp` was taken. May raise errors.
fn add_rows(tier: &HotTier, relation: u32, stamp: Stamp, fences: &mut Vec<FenceId>) {
    memory::reserve(fences, 4);
    let (bulk, more) = tier.fences().row_dependency_fences(shared::database(), relation, stamp);
    fences.push(bulk);
    fences.extend(more.into_iter().flatten());
    add_trees(tier, relation, fences);
}

/// Returns the status for an entry that would have more dependencies than an entry can have. Names the tag that stands for most
/// relations.
#[cold]
pub fn too_many_relations(tier: &HotTier, tags: &[&[u8]]) -> Status {
    let known = up_to_date(tier);
    let relations = |tag: &&&[u8]| {
        known.relations.get(**tag).map_or(0, Vec::len) + known.templates.relations_of(tag).count()
    };
    let tag = tags.iter().max_by_key(relations).copied().unwrap_or_default();
    status::about("refused: too many dependencies, most of them relations of {}", "tag", tag)
}

/// Adds the fences for the dependency of an entry on a relation, at most three. Must be called after the entry's `stamp` was taken.
/// May raise errors.
pub fn add_relation(tier: &HotTier, relation: u32, stamp: Stamp, fences: &mut Vec<FenceId>) {
    memory::reserve(fences, 3);
    let (own, unclaimed) = tier.fences().dependency_fences(shared::database(), relation, stamp);
    fences.push(own);
    fences.extend(unclaimed);
    add_trees(tier, relation, fences);
}

/// Adds the fence of trees, if the relation is an inheritance parent. There must be room for it.
fn add_trees(tier: &HotTier, relation: u32, fences: &mut Vec<FenceId>) {
    // A tree may grow while a commit is under way that writes below it. That commit then invalidates only by the fence of trees.
    table_writes::renew_trees(tier);
    if relation::is_inheritance_parent(relation) {
        fences.push(table_writes::trees::fence(tier));
    }
}

/// Claims the record of a relation on which the result of a query will depend, before the query runs. Relations without a record
/// share fences, so writes to other relations, while the query runs, could make its result worthless.
pub fn claim_record(tier: &HotTier, relation: u32) {
    if relation::is_followed(relation) {
        tier.fences().dependency_fences(shared::database(), relation, tier.fences().now());
    }
}

/// Returns the relations that some tags stand for, and the relations for whose rows they stand, from the session's copy of the
/// list. A relation may occur more than once. May raise errors.
pub fn relations_of<'t>(tier: &HotTier, tags: impl Iterator<Item = &'t [u8]>) -> Vec<u32> {
    let known = up_to_date(tier);
    let mut found = Vec::new();
    for tag in tags {
        known.relations.get(tag).into_iter().flatten().for_each(|oid| memory::push(&mut found, *oid));
        known.templates.relations_of(tag).for_each(|oid| memory::push(&mut found, oid));
    }
    found
}

/// Returns the tags that stand for a relation, from the session's copy of the list. May raise errors.
pub fn known_tags_of(tier: &HotTier, relation: u32) -> Vec<Vec<u8>> {
    let known = up_to_date(tier);
    let stands_for = |relations: &Vec<u32>| relations.contains(&relation);
    let tags = known.relations.iter().filter(|(_, relations)| stands_for(relations));
    memory::collect(tags.map(|(tag, _)| memory::copy(tag)))
}

/// Returns whether a tag of a watch has braces, and so placeholders.
pub fn is_template(tag: &[u8]) -> bool {
    tag.iter().any(|byte| b"{}".contains(byte))
}

/// Returns the tags with placeholders, from the session's copy of the list. May raise errors.
pub fn templates() -> Rc<Templates> {
    shared::tier().map_or_else(Rc::default, |tier| Rc::clone(&up_to_date(tier).templates))
}

/// Returns the session's copy of the list, after reading the list again if the copy is outdated.
fn up_to_date(tier: &HotTier) -> Rc<Known> {
    let (fences, fence) = (tier.fences(), fence(tier));
    let known = KNOWN.with_borrow(Clone::clone);
    if let Some(known) = known.filter(|known| {
        known.generation == catalog::generation() && fences.holds(fence, known.stamp, Stamp::LATEST)
    }) {
        return known;
    }
    let (stamp, generation) = (fences.now(), catalog::generation());
    let (mut relations, mut templates) = (HashMap::<Vec<u8>, Vec<u32>>::new(), Templates::default());
    each(|oid, tag| {
        memory::check();
        if is_template(tag) {
            return templates.add(oid, tag);
        }
        relations.try_reserve(1).or_raise();
        memory::push(relations.entry(tag.to_vec()).or_default(), oid);
    });
    let known = Rc::new(Known { stamp, generation, relations, templates: Rc::new(templates) });
    KNOWN.set(Some(Rc::clone(&known)));
    known
}

/// Calls `with` for each relation and each tag that stands for it, as of now, in the database's encoding.
pub fn each(with: impl FnMut(u32, &[u8])) {
    each_of(Rows::All, with);
}

/// Calls `with` for each relation and each tag that stands for it, in these rows of the list.
fn each_of(rows: Rows<'_>, mut with: impl FnMut(u32, &[u8])) {
    catalog::read(Table::Watches, rows, |row| {
        let oid = row.oid(0).unwrap_or_default();
        let tags = row.texts(1).unwrap_or_default();
        tags.into_iter().flatten().for_each(|tag| with(oid, tag));
    });
}

/// Returns the tags that stand for a relation, as of now.
pub fn tags_of(relation: RelationOid) -> BTreeSet<Vec<u8>> {
    let mut tags = BTreeSet::new();
    each(|oid, tag| {
        if oid == relation.get() {
            memory::check();
            tags.insert(tag.to_vec());
        }
    });
    tags
}

/// Returns the name under which a tag counts for the limits. Tags with placeholders that begin alike can become the same tag, so
/// they count as one.
fn counted_as(tag: &[u8]) -> Vec<u8> {
    let prefix = Some(tag).filter(|tag| is_template(tag)).and_then(|tag| Template::parse(tag).ok()?.prefix());
    prefix.map_or_else(|| memory::copy(tag), |prefix| memory::joined(&[0], &prefix))
}

/// Returns an error if a watch exceeds a limit. This transaction must have written the watch already, and the error undoes it.
/// `new` are the tags that it has added. With `by_owner_of_extension`, [`RELATIONS_PER_OWNER_MAX`] does not count.
///
/// The limits also count the watches that running transactions have added and not committed. So if several transactions exceed a
/// limit together, at least the last of them is refused, and none waits for another.
pub fn check_limits(
    relation: RelationOid,
    new: &[&[u8]],
    by_owner_of_extension: bool,
) -> Result<(), Refused> {
    // The map is filled one entry at a time: to collect it would allocate memory for all tags in one piece.
    let mut of_tag: BTreeMap<Vec<u8>, (&[u8], BTreeSet<u32>)> = BTreeMap::new();
    for tag in new {
        memory::check();
        of_tag.insert(counted_as(tag), (tag, BTreeSet::new()));
    }
    let mut of_relation = BTreeSet::new();
    each_of(Rows::AllUncommitted, |oid, tag| {
        memory::check();
        if let Some((_, relations)) = of_tag.get_mut(&counted_as(tag)) {
            relations.insert(oid);
        }
        if oid == relation.get() {
            of_relation.insert(tag.to_vec());
        }
    });
    let code = PgSqlErrorCode::ERRCODE_PROGRAM_LIMIT_EXCEEDED;
    if of_relation.len() > TAGS_PER_RELATION_MAX {
        let name = relation.name().unwrap_or_default();
        let message = format!("more than {TAGS_PER_RELATION_MAX} tags would stand for \"{}\"", shown(&name));
        return Err(Refused::new(code, message)
            .hint("Run cache_unwatch for the relation, and then cache_watch with the tags that it needs."));
    }
    let owner = relation.owner();
    for (tag, relations) in of_tag.into_values() {
        if relations.len() > RELATIONS_PER_TAG_MAX {
            let message =
                format!("tag \"{}\" would stand for more than {RELATIONS_PER_TAG_MAX} relations", shown(tag));
            return Err(Refused::new(code, message).hint(
                "Use another tag, or run cache_unwatch for one of its relations, which the view cache_watches lists.",
            ));
        }
        let is_theirs = |oid: &&u32| owner.is_some() && RelationOid::of(**oid).owner() == owner;
        let theirs = || relations.iter().filter(is_theirs).count();
        if !by_owner_of_extension && theirs() > RELATIONS_PER_OWNER_MAX {
            let message = format!(
                "tag \"{}\" would stand for more than {RELATIONS_PER_OWNER_MAX} relations of role {}",
                shown(tag),
                owner.map(Role::quoted).unwrap_or_default()
            );
            return Err(Refused::new(code, message).hint(format!(
                "Use another tag, or ask the owner of the extension to run cache_watch, up to {RELATIONS_PER_TAG_MAX} relations for each tag."
            )));
        }
    }
    Ok(())
}

/// Invalidates the tags that begin or end to stand for a relation, because this transaction adds, changes or removes a row of the
/// list. `versions` are the row before and after the change: the relation and its tags. Creates and drops the triggers that tags
/// with placeholders need. May raise errors.
pub fn changed(versions: &[(u32, Vec<Vec<u8>>)]) {
    let mut changed: BTreeSet<(u32, &[u8])> = BTreeSet::new();
    for (relation, tags) in versions {
        memory::check();
        let version: BTreeSet<(u32, &[u8])> = tags.iter().map(|tag| (*relation, tag.as_slice())).collect();
        changed = &changed ^ &version;
    }
    if let Some(keyspace) = space::any_keyspace() {
        outdate_copies(&keyspace);
        changed.iter().for_each(|(_, tag)| invalidate(&keyspace, tag));
    }
    let watched_by_rows: BTreeSet<u32> =
        changed.iter().filter(|(_, tag)| is_template(tag)).map(|(relation, _)| *relation).collect();
    watched_by_rows.into_iter().for_each(adjust_triggers);
}

/// Creates and drops triggers after a relation has got or lost a parent. May raise errors.
pub fn moved(relation: u32) {
    if !templates().of_relations.is_empty() {
        adjust_triggers(relation);
    }
}

/// Creates and drops the triggers that tags with placeholders need, for a relation and all relations below it. May raise errors.
pub fn adjust_triggers(relation: u32) {
    let Some(schema) = catalog::schema_of_extension() else { return };
    // The row of the list is written, but this command may still run, so a scan would not see the row yet.
    catalog::end_command();
    let templates = of_templates();
    row_trigger::adjust(relation, schema, |oid| {
        templates.contains(&oid) || relation::ancestors_now(oid).iter().any(|above| templates.contains(above))
    });
}

/// Invalidates the entries with a tag of a watch. If the tag has placeholders, invalidates the entries with any tag of the same
/// prefix.
fn invalidate(keyspace: &Keyspace, tag: &[u8]) {
    let tier = keyspace.tier;
    if !is_template(tag) {
        let fence = keyspace::tag(tier, tag);
        names::note(fence.number(), tag);
        return pending::invalidate(keyspace, fence, JournalName::Tag(memory::copy(tag).into_boxed_slice()));
    }
    // The names of the tags of such entries are not known.
    let all = JournalName::Database(shared::database());
    match Template::parse(tag).ok().and_then(|template| template.prefix()) {
        Some(prefix) => pending::invalidate(keyspace, fence_of_prefix(tier, &prefix), all),
        None => pending::invalidate_database(keyspace),
    }
}

/// Returns the relations that are watched with tags that have placeholders, as of now.
fn of_templates() -> BTreeSet<u32> {
    let mut found = BTreeSet::new();
    each(|oid, tag| {
        if is_template(tag) {
            memory::check();
            found.insert(oid);
        }
    });
    found
}

/// Invalidates everything in the database, because this transaction changes watches, and it is not known which tags they have. Does
/// nothing if there is no cache. May raise errors.
pub fn all_changed() {
    if let Some(keyspace) = space::any_keyspace() {
        outdate_copies(&keyspace);
        pending::invalidate_database(&keyspace);
    }
}

/// Makes every session read the list again, when the transaction commits.
fn outdate_copies(keyspace: &Keyspace) {
    pending::invalidate_exactly(fence(keyspace.tier), JournalName::Unnamed);
}
