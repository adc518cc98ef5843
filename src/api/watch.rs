//! SQL functions for watches. A *watch* makes tags stand for a relation: a change of the relation invalidates the entries with one
//! of the tags.

use super::arguments::{self, invalid, null};
use crate::pg::catalog;
use crate::pg::encoding::shown;
use crate::pg::error::{OrRaise, Refused};
use crate::pg::memory;
use crate::pg::relation::RelationOid;
use crate::pg::role::Role;
use crate::pg::row_trigger;
use crate::pg::varlena::TextsArgument;
use crate::store::status::{self, Status};
use crate::store::template::Template;
use crate::store::{entry, space, watch};
use pgrx::datum::DatumWithOid;
use pgrx::prelude::*;

/// Returns the relation. It is an error if the relation cannot be watched, or if the current role may not watch it.
///
/// The owner of the extension may watch every relation that can be watched. Another role must own the relation and must be allowed
/// to invalidate tags, because each write to a watched relation invalidates the tags that stand for it. The same rules hold for
/// ending a watch.
fn watchable(relation: Option<RelationOid>) -> Result<RelationOid, Refused> {
    let relation = relation.ok_or_else(|| null("rel"))?;
    let name = relation.name().map(|name| shown(&name).into_owned()).ok_or_else(|| {
        let code = PgSqlErrorCode::ERRCODE_UNDEFINED_TABLE;
        Refused::new(code, format!("relation with OID {} does not exist", relation.get()))
    })?;
    if let Some(what) = relation.unwatchable() {
        let code = PgSqlErrorCode::ERRCODE_WRONG_OBJECT_TYPE;
        return Err(Refused::new(code, format!("cannot watch \"{name}\", which is {what}"))
            .hint("Watch the tables and materialized views that it takes its rows from."));
    }
    if space::is_owner(Role::current()) {
        return Ok(relation);
    }
    if !relation.is_owned_by_current_role() {
        let code = PgSqlErrorCode::ERRCODE_INSUFFICIENT_PRIVILEGE;
        return Err(Refused::new(code, format!("must be owner of table {name}")));
    }
    space::require_tag_writer()?;
    Ok(relation)
}

/// Returns an error unless a tag may contain values of this column. `name` is the name of the relation, for the messages.
fn check_column(relation: RelationOid, name: &[u8], column: &[u8]) -> Result<(), Refused> {
    let (column_name, name) = (shown(column), shown(name));
    match row_trigger::is_column_for_tags(relation.get(), column) {
        Some(true) => Ok(()),
        Some(false) => {
            let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
            let message =
                format!("column \"{column_name}\" of relation \"{name}\" cannot be a part of a tag");
            Err(Refused::new(code, message).detail(
                "The column is virtual, or the texts of its values change with other definitions: it has a row type, or a type such as regclass.",
            ))
        }
        None => {
            let code = PgSqlErrorCode::ERRCODE_UNDEFINED_COLUMN;
            Err(Refused::new(code, format!("column \"{column_name}\" of relation \"{name}\" does not exist")))
        }
    }
}

/// Returns an error unless a tag with placeholders can stand for rows of the relation.
fn check_template(relation: RelationOid, tag: &[u8]) -> Result<(), Refused> {
    let refused = |detail: &str| {
        invalid(format!("invalid tag: \"{}\"", shown(tag))).detail(detail).hint(
            "Use a tag such as 'order:{id}', where id is a column of the table. For a brace, write it twice.",
        )
    };
    let template = Template::parse(tag).map_err(|why| refused(why.in_words()))?;
    if template.prefix().is_none() {
        return Err(refused(
            "The text before the first placeholder must contain a character that is no letter, digit or underscore, such as a colon.",
        ));
    }
    let name = relation.name().unwrap_or_default();
    let mut checked = Ok(());
    let _ = template.each_part(|_, placeholder| {
        checked = placeholder.map_or(Ok(()), |column| check_column(relation, &name, column));
        checked.is_ok().then_some(())
    });
    checked?;
    if relation.is_materialized_view() {
        let code = PgSqlErrorCode::ERRCODE_FEATURE_NOT_SUPPORTED;
        return Err(Refused::new(
            code,
            format!("cannot watch rows of materialized view \"{}\"", shown(&name)),
        )
        .detail("A refresh does not tell which rows it changes.")
        .hint("Use a tag without placeholders."));
    }
    Ok(())
}

/// Makes tags stand for a relation: a change of the relation then invalidates the entries with one of the tags. If no tags are
/// passed, the tag is the relation's own name. Tags that the relation has already stay. The entries with one of the new tags become
/// invalid (`watch::changed`). A tag with placeholders, such as `order:{id}`, stands for single rows.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_watch(rel: Option<RelationOid>, tags: default!(Option<TextsArgument<'_>>, "NULL")) {
    let watch = || -> Result<_, Refused> {
        let relation = watchable(rel)?;
        let name = relation.name().unwrap_or_default();
        let tags: Vec<&[u8]> = match tags {
            None => vec![arguments::tag(Some(&name))?],
            Some(_) => arguments::tags(tags)?,
        };
        if tags.is_empty() {
            return Err(invalid("tags must not be empty").hint("To end a watch, run cache_unwatch."));
        }
        tags.iter()
            .filter(|tag| watch::is_template(tag))
            .try_for_each(|tag| check_template(relation, tag))?;
        let known = watch::tags_of(relation);
        let new = memory::collect(tags.iter().copied().filter(|tag| !known.contains(*tag)));
        // The tags are passed as bytes, because they are in the encoding of the database.
        let bytes = memory::collect(tags.iter().map(|tag| {
            memory::check();
            memory::copy(tag)
        }));
        // PostgreSQL may reuse the OID of a dropped relation for another relation, so watches of dropped relations must be removed.
        catalog::clean_up(
            "DELETE FROM pgcache.watches WHERE ctid OPERATOR(pg_catalog.=) ANY (ARRAY(
                 SELECT w.ctid FROM pgcache.watches AS w
                 WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) w.relation)
                 FOR UPDATE SKIP LOCKED))",
        );
        catalog::write(
            "INSERT INTO pgcache.watches AS w
             SELECT $1::pg_catalog.oid,
                 pg_catalog.array_agg(pg_catalog.convert_from(tag, pg_catalog.getdatabaseencoding()))
             FROM pg_catalog.unnest($2) AS tag
             ON CONFLICT (relation) DO UPDATE
             SET tags = ARRAY(SELECT pg_catalog.unnest(w.tags) UNION SELECT pg_catalog.unnest(excluded.tags) ORDER BY 1)
             WHERE NOT pg_catalog.arraycontains(w.tags, excluded.tags)",
            &[DatumWithOid::from(i64::from(relation.get())), bytes.into()],
        );
        // The limits also count the new tags, so they are checked after the write. An error undoes the write.
        watch::check_limits(relation, &new, space::is_owner(Role::current()))?;
        if tags.iter().any(|tag| watch::is_template(tag)) {
            // Tables that were attached below the relation since the last call have no trigger yet.
            watch::adjust_triggers(relation.get());
        }
        Ok(())
    };
    watch().or_raise();
    status::set(Status::Done);
}

/// Ends the watch of a relation: no tag stands for the relation any more. Does nothing if the relation is not watched.
#[pg_extern(volatile, parallel_unsafe)]
fn cache_unwatch(rel: Option<RelationOid>) {
    let relation = watchable(rel).or_raise();
    let statement = "DELETE FROM pgcache.watches WHERE relation OPERATOR(pg_catalog.=) $1::pg_catalog.oid";
    catalog::write(statement, &[i64::from(relation.get()).into()]);
    status::set(Status::Done);
}

/// Invalidates all entries that depend on a relation or on a table above it in an inheritance tree. Callers use this function after
/// changes that pg_cache cannot notice.
#[pg_extern(volatile, parallel_restricted)]
fn cache_invalidate_relation(rel: Option<RelationOid>) {
    let invalidate = || -> Result<_, Refused> {
        let relation = rel.ok_or_else(|| null("rel"))?;
        entry::invalidate_relation(&*space::require_tag_writer()?, relation.get())
    };
    invalidate().or_raise();
}

/// The function behind the view `cache_watches`, and the function of the trigger for changed rows.
#[pg_schema]
mod pgcache {
    use crate::pg::call_info::Call;
    use crate::pg::error::{OrRaise, Refused};
    use crate::pg::memory;
    use crate::pg::row_trigger::{Fired, RowChange};
    use crate::pg::varlena::{Text, Varlena};
    use crate::store::{row_tags, space, watch};
    use pgrx::prelude::*;

    /// The function of the trigger that a relation has if a tag with placeholders stands for it (`pg/row_trigger.rs`).
    #[pg_extern(
        volatile,
        sql = "
        CREATE FUNCTION pgcache.\"rows_changed\"() RETURNS trigger LANGUAGE c AS 'MODULE_PATHNAME', 'rows_changed_wrapper';
    "
    )]
    fn rows_changed(call: Call) -> Fired {
        let called = || {
            let code = PgSqlErrorCode::ERRCODE_E_R_I_E_TRIGGER_PROTOCOL_VIOLATED;
            let change = RowChange::of(call).ok_or_else(|| {
                Refused::new(
                    code,
                    "function pgcache.rows_changed() was not called by a trigger of cache_watch",
                )
                .hint("Run cache_watch with a tag such as 'order:{id}'. It creates the trigger.")
            })?;
            row_tags::changed(&change);
            Ok::<_, Refused>(Fired)
        };
        called().or_raise()
    }

    /// Returns all watches if the caller may read any space or see statistics, and no rows otherwise. Each tag has a row of its
    /// own. The SQL is written out because pgrx would declare the OID as an oid, not as a regclass.
    #[pg_extern(
        stable,
        parallel_restricted,
        sql = "
        CREATE FUNCTION pgcache.\"visible_watches\"() RETURNS TABLE (relation pg_catalog.regclass, tag pg_catalog.text)
        STABLE PARALLEL RESTRICTED LANGUAGE c AS 'MODULE_PATHNAME', 'visible_watches_wrapper';
    "
    )]
    fn visible_watches() -> TableIterator<'static, (name!(relation, pg_sys::Oid), name!(tag, Text))> {
        let mut rows = Vec::new();
        if space::may_look() {
            watch::each(|number, tag| memory::push(&mut rows, (number.into(), Text(Varlena::of(tag)))));
        }
        TableIterator::new(rows)
    }
}
