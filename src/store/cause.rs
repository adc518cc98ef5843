//! The status of the session (`status.rs`), the outcome of its last operation, in words: with the names of the objects that it is
//! about. A status names what has invalidated a value by its *fence*, a number that stands for something on which values depend
//! (`docs/architecture.md`).
//!
//! Names are looked up only when the caller asks for the status. A name is shown to roles that may know it: a table to roles that
//! may read it, a function to roles that may call it, a tag to roles that may write in every *space* (named cache) of the database,
//! a space to roles that may read it. (Two tags may share a fence, so the tag may be one that only entries of another space have.)
//! Members of `pg_monitor` and the owner of the extension see all names. Other roles see `a table`, for instance.

use crate::pg::encoding::shown;
use crate::pg::role::Role;
use crate::pg::shared::{self, HotTier};
use crate::pg::{function, names, relation};
use crate::store::definitions::{self, Definition};
use crate::store::status::{self, Object, Status};
use crate::store::transaction::table_writes;
use crate::store::{keyspace, space};
use pg_cache_core::{FenceId, Reserved};

/// Returns the status of the session as text. None if the session has no status: see [`status::forget`]. May raise errors.
pub fn status_in_words() -> Option<String> {
    status::current().map(in_words)
}

/// Returns a status as text. May raise errors.
pub fn in_words(status: Status) -> String {
    match status {
        Status::Hot => "hot".to_owned(),
        Status::Table => "hit: table".to_owned(),
        Status::Own => "hot: set by this transaction".to_owned(),
        Status::Stale => "stale".to_owned(),
        Status::Waited => "waited".to_owned(),
        Status::Miss(why) => format!("miss: {why}"),
        Status::Invalidated(why) => format!("invalidated: {why}"),
        Status::Cut => "hot: cut off at 64 MB, which is the most that one call returns".to_owned(),
        Status::LeftOut(count) => format!("hot: values of another kind left out: {count}"),
        Status::Bypass(why) => format!("bypass: {why}"),
        Status::Done => "done".to_owned(),
        Status::Refused(why) => format!("refused: {why}"),
        Status::Of(text, object) => text.replace("{}", &name_of(object)),
    }
}

/// Returns what has made an entry invalid: the text of a status after `invalidated: `. May raise errors.
pub fn of_invalid(status: Status) -> String {
    let words = in_words(status);
    words.strip_prefix("invalidated: ").map_or_else(|| words.clone(), str::to_owned)
}

/// Returns the name of an object, or a general word such as `a table` if the current role may not know the name.
fn name_of(object: Object) -> String {
    match object {
        Object::Relation(number) => relation_name(number),
        Object::Function(number) => {
            function::in_words(number, space::may_monitor()).unwrap_or_else(|| "a function".to_owned())
        }
        Object::Dependency(fence, number) => shared::tier()
            .map_or_else(|| "a dependency".to_owned(), |tier| dependency_name(tier, fence, number)),
        Object::Named => status::with_name(str::to_owned),
    }
}

/// Returns the name of the relation with this OID if the current role may know it, and otherwise `a table`.
pub fn relation_name(number: u32) -> String {
    relation::in_words(number, space::may_monitor()).unwrap_or_else(|| "a table".to_owned())
}

/// Returns what a fence stands for, in an entry of the space with this OID.
fn dependency_name(tier: &HotTier, fence: FenceId, number: u32) -> String {
    let (fences, database) = (tier.fences(), shared::database());
    if let Some((_, relation)) = fences.relation_of(fence).filter(|(of, _)| *of == database) {
        return relation_name(relation);
    }
    if fences.is_of_relation(fence) || fences.is_of_unclaimed(fence) {
        return "a table".to_owned();
    }
    if fence == fences.reserved(Reserved::Space { database, space: number }) {
        return space_name(number);
    }
    let fixed = [
        (fences.reserved(Reserved::Database(database)), "all spaces of the database"),
        (definitions::any(tier), "definitions in the database"),
        (definitions::other(tier), "definitions in the database"),
        (fences.reserved(Reserved::Roles), "roles of the cluster"),
        (table_writes::trees::fence(tier), "inheritance trees in the database"),
    ];
    match fixed.iter().find(|(known, _)| *known == fence) {
        Some((_, name)) => (*name).to_owned(),
        None => definitions::of_fence(tier, fence, definition_name).unwrap_or_else(|| tag_name(tier, fence)),
    }
}

/// Returns the name of the space with this OID if the current role may know it, and otherwise `the space`.
fn space_name(number: u32) -> String {
    let mut found = None;
    space::each_visible(|of, name, _| {
        if of == number {
            found = Some(format!("space {name}"));
        }
    });
    found.unwrap_or_else(|| "the space".to_owned())
}

/// Returns what a definition is, with its name if the current role may know it. A name that is no relation's may be that of any
/// object.
fn definition_name(definition: Definition<'_>) -> String {
    match definition {
        Definition::Relation(number) => format!("definition of {}", relation_name(number)),
        Definition::Name(name) if may_know_names() => format!("the name {}", shown(name)),
        Definition::Name(_) | Definition::Other => "definitions in the database".to_owned(),
    }
}

/// Returns whether the current role may know the names of all tags, and of all objects whose definitions have changed.
fn may_know_names() -> bool {
    space::may_monitor() || space::may_write_everywhere(Role::current())
}

/// Returns the tag that was invalidated last of those with this fence, if its name is still known and the current role may know it.
/// Otherwise returns general words.
fn tag_name(tier: &HotTier, fence: FenceId) -> String {
    match names::of(fence.number()) {
        None => "a tag or a definition".to_owned(),
        Some(name) if keyspace::tag(tier, &name) == fence && may_know_names() => {
            format!("tag {}", shown(&name))
        }
        Some(_) => "a tag".to_owned(),
    }
}
